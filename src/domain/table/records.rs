//! Bytes -> records: compression, byte order mark, separators; in bounded memory.

use super::TableError;
use crate::domain::source::{Compression, Separator};
use crate::limits::RECORD_BYTES_MAX;
use csv::ByteRecord;
use flate2::read::MultiGzDecoder;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes read ahead by the CSV reader.
const BUFFER_BYTES: usize = 1 << 16;

/// A stream of bytes that may move between threads.
pub type Bytes = Box<dyn Read + Send>;

/// The records of a table, with the names of its columns.
pub(in crate::domain) struct Records {
    file: String,
    kind: Kind,
    pub(in crate::domain) separator: Separator,
    /// Empty for JSON lines, whose names stand in each line.
    pub(in crate::domain) columns: Vec<String>,
    /// Line of the header, or 1.
    pub(in crate::domain) header_line: u64,
}

enum Kind {
    Csv { reader: Box<csv::Reader<Metered>>, budget: Arc<AtomicUsize> },
    Blanks(Lines),
    Json(Lines),
}

impl Records {
    /// Opens `bytes`, a table named `file`, whose name and first bytes decide what `separator` and
    /// `compression` leave open. With an empty `header` the first record gives the names.
    pub(in crate::domain) fn open(
        file: &str,
        bytes: Bytes,
        separator: Option<Separator>,
        compression: Option<Compression>,
        header: &[String],
    ) -> Result<Records, TableError> {
        let read = |source| TableError::Read { file: file.into(), line: 0, source };
        let (start, bytes) = peek(bytes, 2).map_err(read)?;
        let gzip = match compression {
            None => start == [0x1F, 0x8B],
            Some(compression) => compression == Compression::Gzip,
        };
        let bytes: Bytes = if gzip { Box::new(MultiGzDecoder::new(bytes)) } else { bytes };
        let (start, mut bytes) = peek(bytes, 3).map_err(read)?;
        if start == [0xEF, 0xBB, 0xBF] {
            bytes.read_exact(&mut [0; 3]).map_err(read)?;
        } else if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
            return Err(TableError::Encoding { file: file.into(), encoding: "UTF-16" });
        }
        let (first_line, bytes) = peek_line(bytes).map_err(read)?;
        let separator = separator.unwrap_or_else(|| guess(file, &first_line));
        let kind = match separator {
            Separator::Character(separator) => {
                let budget = Arc::new(AtomicUsize::new(0));
                let reader = csv::ReaderBuilder::new()
                    .delimiter(separator)
                    .has_headers(false)
                    .flexible(true)
                    .buffer_capacity(BUFFER_BYTES)
                    .from_reader(Metered::new(bytes, budget.clone()));
                Kind::Csv { reader: Box::new(reader), budget }
            }
            Separator::Whitespace => Kind::Blanks(Lines::new(bytes)),
            Separator::Json => Kind::Json(Lines::new(bytes)),
        };
        let mut records =
            Records { file: file.into(), kind, separator, columns: header.to_vec(), header_line: 1 };
        if records.columns.is_empty() && !records.is_json() {
            let mut names = ByteRecord::new();
            let Some(line) = records.next(&mut names, &[])? else {
                return Err(TableError::Empty { file: file.into() });
            };
            records.header_line = line;
            for (index, name) in names.iter().enumerate() {
                let name = std::str::from_utf8(name).map_err(|_| TableError::NotUtf8 {
                    file: file.into(),
                    line,
                    column: format!("number {}", index + 1),
                })?;
                records.columns.push(unicode_normalization::UnicodeNormalization::nfc(name.trim()).collect());
            }
        }
        Ok(records)
    }

    pub(in crate::domain) fn is_json(&self) -> bool {
        matches!(self.kind, Kind::Json(_))
    }

    /// Reads the next record and gives the line it begins on; `None` at the end. Of a JSON line,
    /// `record` gets the values of `wanted`, in that order, and an empty cell for an absent name.
    pub(in crate::domain) fn next(
        &mut self,
        record: &mut ByteRecord,
        wanted: &[String],
    ) -> Result<Option<u64>, TableError> {
        record.clear();
        match &mut self.kind {
            Kind::Csv { reader, budget } => {
                budget.store(RECORD_BYTES_MAX, Ordering::Relaxed);
                let begin = reader.position().line();
                match reader.read_byte_record(record) {
                    Ok(false) => Ok(None),
                    Ok(true) if record.as_slice().len() > RECORD_BYTES_MAX => {
                        Err(too_long(&self.file, begin))
                    }
                    // Counted back from the record's end: empty lines before it belong to no record.
                    Ok(true) => {
                        let inside = record.as_slice().iter().filter(|&&byte| byte == b'\n').count() as u64;
                        Ok(Some(reader.position().line().saturating_sub(inside + 1).max(1)))
                    }
                    Err(error) => {
                        let source = match error.into_kind() {
                            csv::ErrorKind::Io(source) => source,
                            other => std::io::Error::other(format!("{other:?}")),
                        };
                        Err(if budget.load(Ordering::Relaxed) == 0 {
                            too_long(&self.file, begin)
                        } else {
                            TableError::Read { file: self.file.clone(), line: begin, source }
                        })
                    }
                }
            }
            Kind::Blanks(lines) => loop {
                let Some(line) = lines.next(&self.file)? else { return Ok(None) };
                split_blanks(&lines.text, record);
                if !record.is_empty() {
                    return Ok(Some(line));
                }
            },
            Kind::Json(lines) => loop {
                let Some(line) = lines.next(&self.file)? else { return Ok(None) };
                if lines.text.trim_ascii().is_empty() {
                    continue;
                }
                let wrong = |problem| TableError::Json { file: self.file.clone(), line, problem };
                let object: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(&lines.text).map_err(|error| wrong(error.to_string()))?;
                for name in wanted {
                    match object.get(name) {
                        None | Some(serde_json::Value::Null) => record.push_field(b""),
                        Some(serde_json::Value::String(text)) => record.push_field(text.as_bytes()),
                        Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => {
                            record.push_field(value.to_string().as_bytes());
                        }
                        Some(_) => return Err(wrong(format!("`{name}` is neither a text nor a number"))),
                    }
                }
                self.columns = object.keys().cloned().collect();
                return Ok(Some(line));
            },
        }
    }
}

fn too_long(file: &str, line: u64) -> TableError {
    TableError::RecordTooLong { file: file.into(), line, bytes_max: RECORD_BYTES_MAX }
}

/// The first `count` bytes, fewer at the end, and the stream with them still in it.
fn peek(mut bytes: Bytes, count: u64) -> std::io::Result<(Vec<u8>, Bytes)> {
    let mut start = Vec::new();
    bytes.by_ref().take(count).read_to_end(&mut start)?;
    Ok((start.clone(), Box::new(Cursor::new(start).chain(bytes))))
}

/// The beginning of the first line, at most 4 KiB, and the stream with it still in it.
fn peek_line(bytes: Bytes) -> std::io::Result<(Vec<u8>, Bytes)> {
    let mut bytes = BufReader::new(bytes);
    let mut start = Vec::new();
    // Line by line, so that a slow pipe is not waited for longer than needed.
    bytes.by_ref().take(4_096).read_until(b'\n', &mut start)?;
    Ok((start.clone(), Box::new(Cursor::new(start).chain(bytes))))
}

/// The separator by the table's name, else the one that is most frequent in the first line.
fn guess(file: &str, first_line: &[u8]) -> Separator {
    let name = file.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if name.ends_with(".ndjson") || name.ends_with(".jsonl") || first_line.first() == Some(&b'{') {
        return Separator::Json;
    }
    if name.ends_with(".tsv") || name.ends_with(".tab") {
        return Separator::Character(b'\t');
    }
    let count = |separator| {
        let mut quoted = false;
        let outside = first_line.iter().filter(|&&byte| {
            quoted ^= byte == b'"';
            byte == separator && !quoted
        });
        outside.count()
    };
    // Of equal counts the last wins: the comma.
    let best =
        [b'|', b'\t', b';', b','].into_iter().max_by_key(|&separator| count(separator)).unwrap_or(b',');
    if count(best) == 0 && first_line.trim_ascii().contains(&b' ') && !name.ends_with(".csv") {
        return Separator::Whitespace;
    }
    Separator::Character(best)
}

/// A stream that gives at most `budget` bytes until the budget is filled again: so a quotation mark
/// that is never closed cannot draw a whole file into memory.
///
/// It also turns Windows line ends into plain ones and ends the last line, because the CSV reader
/// counts the two halves of a Windows line end to different records.
struct Metered {
    bytes: Bytes,
    budget: Arc<AtomicUsize>,
    /// A carriage return was read last and is held back until the byte after it is known.
    held: bool,
    /// The last byte given; a line feed before the first.
    last: u8,
}

impl Metered {
    fn new(bytes: Bytes, budget: Arc<AtomicUsize>) -> Metered {
        Metered { bytes, budget, held: false, last: b'\n' }
    }
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.len() < 2 {
            return Err(std::io::Error::other("the buffer has no room for a line end"));
        }
        loop {
            let budget = self.budget.load(Ordering::Relaxed);
            if budget == 0 {
                return Err(std::io::Error::new(ErrorKind::InvalidData, "record too long"));
            }
            let start = usize::from(self.held);
            buffer[0] = b'\r';
            let end = buffer.len().min(start + budget);
            let read = self.bytes.read(&mut buffer[start..end])?;
            self.budget.store(budget - read, Ordering::Relaxed);
            if read == 0 {
                let ended = !self.held && self.last == b'\n';
                (self.held, self.last) = (false, b'\n');
                buffer[0] = b'\n';
                return Ok(usize::from(!ended));
            }
            let filled = start + read;
            self.held = buffer[filled - 1] == b'\r';
            let filled = filled - usize::from(self.held);
            let mut kept = 0;
            for index in 0..filled {
                if buffer[index] == b'\r' && index + 1 < filled && buffer[index + 1] == b'\n' {
                    continue;
                }
                buffer[kept] = buffer[index];
                kept += 1;
            }
            if kept > 0 {
                self.last = buffer[kept - 1];
                return Ok(kept);
            }
        }
    }
}

/// Lines of bounded length, without their ends.
struct Lines {
    bytes: BufReader<Bytes>,
    text: Vec<u8>,
    line: u64,
}

impl Lines {
    fn new(bytes: Bytes) -> Lines {
        Lines { bytes: BufReader::with_capacity(BUFFER_BYTES, bytes), text: Vec::new(), line: 0 }
    }

    /// Puts the next line into `text` and gives its number.
    fn next(&mut self, file: &str) -> Result<Option<u64>, TableError> {
        self.text.clear();
        let mut limited = self.bytes.by_ref().take(RECORD_BYTES_MAX as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.text).map_err(|source| TableError::Read {
            file: file.into(),
            line: self.line,
            source,
        })?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if read > RECORD_BYTES_MAX {
            return Err(too_long(file, self.line));
        }
        while let Some(b'\n' | b'\r') = self.text.last() {
            self.text.pop();
        }
        Ok(Some(self.line))
    }
}

/// Fields between runs of blanks; a field in double quotes may hold blanks.
fn split_blanks(line: &[u8], record: &mut ByteRecord) {
    let mut rest = line.trim_ascii();
    while !rest.is_empty() {
        let end = |from: &[u8]| from.iter().position(u8::is_ascii_whitespace).unwrap_or(from.len());
        let closing = match rest {
            [b'"', inner @ ..] => inner.iter().position(|&byte| byte == b'"'),
            _ => None,
        };
        match closing {
            Some(length) => {
                record.push_field(&rest[1..=length]);
                rest = &rest[length + 2..];
            }
            None => {
                let length = end(rest);
                record.push_field(&rest[..length]);
                rest = &rest[length..];
            }
        }
        rest = rest.trim_ascii_start();
    }
}
