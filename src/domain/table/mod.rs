//! Reads the rows of a table as a domain describes it, one at a time and in bounded memory.
//!
//! CSV with any one-character separator, cells between runs of blanks, or JSON lines; plain or
//! gzip; a file or standard input (`-`). Every error names file, line and column.

mod error;
mod records;
mod time;

#[cfg(test)]
mod tests;

pub use error::TableError;
pub use records::Bytes;
pub use time::{parse_time, time_text};

pub(in crate::domain) use records::Records;

use super::encode::{Value, ValueError};
use super::file::Domain;
use super::schema::Schema;
use super::source::{OutcomeRule, Source, same};
use csv::ByteRecord;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use unicode_normalization::UnicodeNormalization;

/// What the rows are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be distilled: every column that the domain reads must be there.
    Evidence,
    /// To be asked about: only the features' columns must be there; outcomes, action, site, record
    /// and time are read where they are.
    Questions,
    /// Questions under a domain that was drafted from other rows: what the draft has never seen (a
    /// level, a word, a number beyond the range) counts as missing.
    Unseen,
}

/// One case of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// 1-based, without the header; a row that was refused counts too.
    pub number: u64,
    /// 1-based line of the file on which the row begins.
    pub line: u64,
    /// One per feature of the schema, exact ones included.
    pub values: Vec<Value>,
    /// One per outcome of the schema, over its range; `None` where unknown.
    pub outcomes: Vec<Option<u16>>,
    /// The same in the outcome's unit, before clipping and rounding.
    pub outcome_numbers: Vec<Option<f64>>,
    /// Index into the schema's actions; `None` where none is recorded.
    pub action: Option<u16>,
    pub site: Option<String>,
    pub record: Option<String>,
    /// What the row says, as a digest of every cell that the domain reads, and how often the table
    /// has said so before.
    pub content: (u128, u32),
    /// Unix milliseconds, not yet floored to the schema's step.
    pub time_ms: Option<u64>,
}

impl Row {
    /// What names this record for good: its own key; else what it says and how often the table has
    /// said so before. So a table read again, with rows added or in another order, is the same
    /// evidence, and another day's table is new; but a row that says the same as one of another table
    /// counts once, so name a `record` or a `time` column where that happens.
    pub fn record_key(&self) -> String {
        match &self.record {
            Some(record) => record.clone(),
            None => format!("{:032x}/{}", self.content.0, self.content.1),
        }
    }
}

/// How often rows of one content have been seen, in bounded memory: contents that share a counter
/// make the numbers of both larger, never equal.
struct Occurrences(Vec<u32>);

/// A power of two; 64 MB of counters, of which only those used take memory.
const OCCURRENCE_COUNTERS: usize = 1 << 24;

impl Occurrences {
    fn count(&mut self, content: u128) -> u32 {
        if self.0.is_empty() {
            self.0 = vec![0; OCCURRENCE_COUNTERS];
        }
        let counter = &mut self.0[content as usize % OCCURRENCE_COUNTERS];
        *counter = counter.saturating_add(1);
        *counter - 1
    }
}

/// An open table: an iterator of rows.
///
/// After an error of one row ([`TableError::is_of_one_row`]) the next row follows; after any other,
/// nothing does.
pub struct Table {
    file: String,
    purpose: Purpose,
    schema: Schema,
    source: Source,
    records: Records,
    /// Names of the columns read, without duplicates; places below point into it.
    wanted: Vec<String>,
    /// Cell of a record per wanted column; `None` where the table has no such column.
    cells: Vec<Option<usize>>,
    places: Places,
    /// JSON lines only: which of `wanted` no line has had so far.
    unseen: BTreeSet<usize>,
    needed: BTreeSet<usize>,
    record: ByteRecord,
    occurrences: Occurrences,
    number: u64,
    clipped: Vec<u64>,
    done: bool,
}

/// Indices into the wanted columns.
#[derive(Default)]
struct Places {
    features: Vec<usize>,
    outcomes: Vec<usize>,
    action: Vec<usize>,
    site: Option<usize>,
    record: Option<usize>,
    time: Option<usize>,
}

impl Table {
    /// Opens a table; `-` is standard input.
    ///
    /// # Errors
    /// The file cannot be opened or read, is empty, or lacks columns that the domain reads.
    pub fn open(path: impl AsRef<Path>, domain: &Domain, purpose: Purpose) -> Result<Table, TableError> {
        let (file, bytes) = open_bytes(path.as_ref())?;
        Table::from_bytes(&file, bytes, domain, purpose)
    }

    /// Reads a table from any stream; `file` is its name in messages, and its ending decides what
    /// the domain leaves open.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub fn from_bytes(
        file: &str,
        bytes: Bytes,
        domain: &Domain,
        purpose: Purpose,
    ) -> Result<Table, TableError> {
        let (schema, source) = (domain.schema.clone(), domain.source.clone());
        let records = Records::open(file, bytes, source.separator, source.compression, &source.header)?;
        let mut wanted = Wanted::default();
        let places = wanted.places(&schema, &source, purpose);
        let Wanted { names, needed, by } = wanted;
        let mut table = Table {
            file: file.into(),
            purpose,
            clipped: vec![0; schema.outcomes.len()],
            schema,
            source,
            records,
            cells: Vec::new(),
            places,
            unseen: BTreeSet::new(),
            needed,
            record: ByteRecord::new(),
            occurrences: Occurrences(vec![]),
            number: 0,
            done: false,
            wanted: names,
        };
        if table.records.is_json() {
            table.cells = (0..table.wanted.len()).map(Some).collect();
            table.unseen = (0..table.wanted.len()).collect();
        } else {
            table.find_columns(&by)?;
        }
        Ok(table)
    }

    /// Finds the wanted columns among the table's.
    fn find_columns(&mut self, by: &[String]) -> Result<(), TableError> {
        let columns = &self.records.columns;
        let line = self.records.header_line;
        for name in &self.wanted {
            let mut found = columns.iter().enumerate().filter(|(_, column)| *column == name);
            self.cells.push(found.next().map(|(index, _)| index));
            if found.next().is_some() {
                return Err(TableError::DuplicateColumn {
                    file: self.file.clone(),
                    line,
                    column: name.clone(),
                });
            }
        }
        let missing: Vec<usize> =
            self.needed.iter().copied().filter(|&index| self.cells[index].is_none()).collect();
        if missing.is_empty() { Ok(()) } else { Err(self.missing_columns(&missing, by)) }
    }

    fn missing_columns(&self, missing: &[usize], by: &[String]) -> TableError {
        let named: Vec<String> = missing
            .iter()
            .map(|&index| match by.get(index) {
                Some(by) => format!("column `{}` ({by})", self.wanted[index]),
                None => format!("column `{}`", self.wanted[index]),
            })
            .collect();
        TableError::MissingColumns {
            file: self.file.clone(),
            line: self.records.header_line,
            missing: named.join(", "),
            columns: self.records.columns.join(", "),
        }
    }

    /// Per outcome: values moved to the end of the declared range so far.
    pub fn clipped(&self) -> &[u64] {
        &self.clipped
    }

    /// The schema that the rows follow.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The table's name, as in messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The trimmed text, in NFC, of a wanted column in the current record; `None` where there is no
    /// such column.
    fn cell(&self, wanted: usize, line: u64) -> Result<Option<Cow<'_, str>>, TableError> {
        let Some(bytes) = self.cells[wanted].and_then(|index| self.record.get(index)) else {
            return Ok(None);
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(canonical(text))),
            Err(_) => Err(TableError::NotUtf8 {
                file: self.file.clone(),
                line,
                column: self.wanted[wanted].clone(),
            }),
        }
    }

    fn row(&mut self, line: u64) -> Result<Row, TableError> {
        if !self.records.is_json() && self.record.len() != self.records.columns.len() {
            return Err(TableError::FieldCount {
                file: self.file.clone(),
                line,
                found: self.record.len(),
                expected: self.records.columns.len(),
            });
        }
        let mut values = Vec::with_capacity(self.schema.features.len());
        for index in 0..self.schema.features.len() {
            values.push(self.value(index, line).or_else(|error| self.forgive(error, Value::Missing))?);
        }
        let mut row = Row {
            number: self.number,
            line,
            values,
            outcomes: Vec::with_capacity(self.schema.outcomes.len()),
            outcome_numbers: Vec::with_capacity(self.schema.outcomes.len()),
            action: self.action(line).or_else(|error| self.forgive(error, None))?,
            site: self.name(self.places.site, line)?,
            record: self.name(self.places.record, line)?,
            content: (0, 0),
            time_ms: self.time(line)?,
        };
        for index in 0..self.schema.outcomes.len() {
            let number = self.outcome(index, line)?;
            row.outcome_numbers.push(number);
            row.outcomes.push(match number {
                None => None,
                Some(number) => match self.schema.outcome(index, number) {
                    Ok((value, clipped)) => {
                        self.clipped[index] += u64::from(clipped);
                        Some(value)
                    }
                    Err(error) => self.forgive(self.wrong(self.places.outcomes[index], line, error), None)?,
                },
            });
        }
        if row.record.is_none() && self.purpose != Purpose::Questions {
            let content = self.content(line)?;
            row.content = (content, self.occurrences.count(content));
        }
        Ok(row)
    }

    /// First 16 bytes of BLAKE3 over the cells that the domain reads, each as its length and its text.
    fn content(&self, line: u64) -> Result<u128, TableError> {
        let mut hasher = blake3::Hasher::new_derive_key("qis 1 row content");
        for wanted in 0..self.wanted.len() {
            let cell = self.cell(wanted, line)?.unwrap_or_default();
            hasher.update(&(cell.len() as u64).to_le_bytes()).update(cell.as_bytes());
        }
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Ok(u128::from_le_bytes(bytes))
    }

    /// `instead` of a cell that does not fit, where the domain was drafted without having seen it.
    fn forgive<T>(&self, error: TableError, instead: T) -> Result<T, TableError> {
        let unseen = matches!(error, TableError::Value { .. } | TableError::UnknownAction { .. });
        if self.purpose == Purpose::Unseen && unseen { Ok(instead) } else { Err(error) }
    }

    fn wrong(&self, wanted: usize, line: u64, error: ValueError) -> TableError {
        TableError::Value {
            file: self.file.clone(),
            line,
            column: self.wanted[wanted].clone(),
            error: Box::new(error),
        }
    }

    fn value(&self, index: usize, line: u64) -> Result<Value, TableError> {
        let wanted = self.places.features[index];
        let feature = &self.schema.features[index];
        let cell = self.cell(wanted, line)?.unwrap_or_default();
        let own = self.source.features.get(&feature.name);
        let mut text: &str = &cell;
        if self.source.is_missing(text, own.map_or(&[], |own| &own.missing)) {
            text = "";
        } else if let Some(own) = own
            && !own.values.is_empty()
        {
            text = spelled(&own.values, text);
        }
        feature.read(text).map_err(|error| self.wrong(wanted, line, error))
    }

    fn outcome(&self, index: usize, line: u64) -> Result<Option<f64>, TableError> {
        let wanted = self.places.outcomes[index];
        let outcome = &self.schema.outcomes[index];
        let Some(text) = self.cell(wanted, line)? else { return Ok(None) };
        let own = self.source.outcomes.get(&outcome.name);
        if self.source.is_missing(&text, own.map_or(&[], |own| &own.missing)) {
            return Ok(None);
        }
        let end = |yes| if yes { outcome.high } else { outcome.low };
        let rule = own.map_or(&OutcomeRule::Number, |own| &own.rule);
        if let OutcomeRule::Equals(mark) = rule {
            return Ok(Some(end(same(&text, mark))));
        }
        let number = match text.parse::<f64>() {
            Ok(number) if number.is_finite() => number,
            _ => {
                let (feature, text) = (outcome.name.clone(), text.to_string());
                return Err(self.wrong(wanted, line, ValueError::NotANumber { feature, text }));
            }
        };
        Ok(Some(match rule {
            OutcomeRule::Above(threshold) => end(number > *threshold),
            _ => number,
        }))
    }

    fn action(&self, line: u64) -> Result<Option<u16>, TableError> {
        let mut parts = Vec::with_capacity(self.places.action.len());
        for &wanted in &self.places.action {
            match self.cell(wanted, line)? {
                Some(text) if !self.source.is_missing(&text, &[]) => parts.push(text),
                _ => parts.push(Cow::Borrowed("")),
            }
        }
        if parts.iter().all(|part| part.is_empty()) {
            return Ok(None);
        }
        let joined = parts.join("/");
        let action = spelled(&self.source.action.values, &joined);
        match self.schema.actions.iter().position(|known| known == action) {
            Some(index) => Ok(Some(index as u16)),
            None => {
                let columns: Vec<&str> =
                    self.places.action.iter().map(|&wanted| self.wanted[wanted].as_str()).collect();
                Err(TableError::UnknownAction {
                    file: self.file.clone(),
                    line,
                    column: columns.join("/"),
                    text: joined,
                    actions: self.schema.actions.join(", "),
                })
            }
        }
    }

    fn name(&self, wanted: Option<usize>, line: u64) -> Result<Option<String>, TableError> {
        let Some(wanted) = wanted else { return Ok(None) };
        let text = self.cell(wanted, line)?.unwrap_or_default();
        Ok((!self.source.is_missing(&text, &[])).then(|| text.into_owned()))
    }

    fn time(&self, line: u64) -> Result<Option<u64>, TableError> {
        let Some(wanted) = self.places.time else { return Ok(None) };
        let text = self.cell(wanted, line)?.unwrap_or_default();
        if self.source.is_missing(&text, &[]) {
            return Ok(None);
        }
        match parse_time(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(TableError::Time {
                file: self.file.clone(),
                line,
                column: self.wanted[wanted].clone(),
                text: text.into_owned(),
            }),
        }
    }

    /// At the end of the records: a table without rows, or JSON lines that never had a column.
    fn end(&self) -> Option<TableError> {
        if self.number == 0 {
            return Some(TableError::Empty { file: self.file.clone() });
        }
        let missing: Vec<usize> = self.needed.intersection(&self.unseen).copied().collect();
        (!missing.is_empty()).then(|| self.missing_columns(&missing, &[]))
    }
}

impl Iterator for Table {
    type Item = Result<Row, TableError>;

    fn next(&mut self) -> Option<Result<Row, TableError>> {
        if self.done {
            return None;
        }
        let line = match self.records.next(&mut self.record, &self.wanted) {
            Ok(Some(line)) => line,
            Ok(None) => {
                self.done = true;
                return self.end().map(Err);
            }
            Err(error) => {
                self.number += 1;
                self.done = !error.is_of_one_row();
                return Some(Err(error));
            }
        };
        self.number += 1;
        if !self.unseen.is_empty() {
            let columns = &self.records.columns;
            self.unseen.retain(|&index| !columns.contains(&self.wanted[index]));
        }
        Some(self.row(line))
    }
}

/// Opens a file, or standard input for `-`, with its name for messages.
pub(super) fn open_bytes(path: &Path) -> Result<(String, Bytes), TableError> {
    if path == Path::new("-") {
        return Ok(("standard input".into(), Box::new(std::io::stdin())));
    }
    let file = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(opened) => Ok((file, Box::new(opened))),
        Err(source) => Err(TableError::Open { file, source }),
    }
}

/// A cell without the blanks around it, in NFC.
pub(in crate::domain) fn canonical(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// The canonical form of a spelling, or the text itself.
fn spelled<'a>(values: &'a std::collections::BTreeMap<String, String>, text: &'a str) -> &'a str {
    if let Some(value) = values.get(text) {
        return value;
    }
    values.iter().find(|(spelling, _)| same(text, spelling)).map_or(text, |(_, value)| value)
}

/// The columns to be read, each once, with what reads them.
#[derive(Default)]
struct Wanted {
    names: Vec<String>,
    by: Vec<String>,
    needed: BTreeSet<usize>,
}

impl Wanted {
    fn add(&mut self, column: &str, by: String, needed: bool) -> usize {
        let index = match self.names.iter().position(|name| name == column) {
            Some(index) => index,
            None => {
                self.names.push(column.into());
                self.by.push(by);
                self.names.len() - 1
            }
        };
        if needed {
            self.needed.insert(index);
        }
        index
    }

    fn places(&mut self, schema: &Schema, source: &Source, purpose: Purpose) -> Places {
        let evidence = purpose == Purpose::Evidence;
        let mut places = Places::default();
        for feature in &schema.features {
            let column = source.features.get(&feature.name).and_then(|own| own.column.as_deref());
            let by = format!("feature \"{}\"", feature.name);
            places.features.push(self.add(column.unwrap_or(&feature.name), by, true));
        }
        for outcome in &schema.outcomes {
            let column = source.outcomes.get(&outcome.name).and_then(|own| own.column.as_deref());
            let by = format!("outcome \"{}\"", outcome.name);
            places.outcomes.push(self.add(column.unwrap_or(&outcome.name), by, evidence));
        }
        if !schema.actions.is_empty() {
            let default = ["action".to_string()];
            let columns = &source.action.columns;
            for column in if columns.is_empty() { &default[..] } else { columns } {
                places.action.push(self.add(column, "the action".into(), evidence));
            }
        }
        let mut optional = |column: &Option<String>, by: &str| {
            column.as_deref().map(|column| self.add(column, by.into(), evidence))
        };
        places.site = optional(&source.site, "the site");
        places.record = optional(&source.record, "the record key");
        places.time = optional(&source.time, "the time of observation");
        places
    }
}
