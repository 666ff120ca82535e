//! A look at the database's files before the database reads them.
//!
//! fjall reserves memory for as many entries as a file announces, before it checks the file's checksum.
//! One damaged byte can announce a hundred gigabytes, and a failed reservation ends the process: at
//! every start anew. So every length that fjall 3 would trust is compared here with the room there is
//! for what it announces; whether the contents are right, fjall's own checksums tell.
//!
//! A file whose lengths cannot be is hidden from fjall, not judged: a process that was killed while it
//! wrote a table leaves half of one behind, which nothing refers to, and fjall deletes what nothing
//! refers to. If something does refer to the file, fjall misses it and says that the database is damaged.
//!
//! | file | lengths |
//! |---|---|
//! | `*.jnl` | item: tag 2, kind 1, compression 1, keyspace 8, key length 2, value length 4, length on disk 4, key, value |
//! | `keyspaces/*/{v*, tables/*, blobs/*}` | trailer (last 38 bytes): magic 4, version 1, checksum kind 1, checksum 16, contents at 8, length 8; contents: magic 4, count 4, per section: at 8, length 8, name length 2, name |
//! | sections `blob_files`, `blob_gc_stats`, `linked_blob_files` | count 4, then 25, 28, 32 bytes each |

use super::layout::Fields;
use super::tables::io_error;
use crate::store::StoreError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const TRAILER_BYTES: u64 = 38;
/// Larger than any contents of a file that fjall writes: a dozen short names.
const CONTENTS_BYTES_MAX: u64 = 64 << 10;
/// Sections with a count in front, and the bytes of each of their entries.
const COUNTED: [(&[u8], u64); 3] = [(b"blob_files", 25), (b"blob_gc_stats", 28), (b"linked_blob_files", 32)];

/// In front of a file's name it makes fjall pass the file over: what another system's file manager
/// leaves beside files begins so.
const HIDDEN: &str = "._";

/// Checks the files of a database that is closed. A journal whose next item cannot be is cut before
/// that item's batch, as fjall would do. Gives the files that are hidden now: the database needs none of
/// them if it opens without them.
///
/// # Errors
/// I/O.
pub fn probe(data: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut hidden = Vec::new();
    for path in list(data)? {
        if path.extension().is_some_and(|extension| extension == "jnl") {
            cut_journal(&path).map_err(|e| io_error(&path, e))?;
        }
    }
    for keyspace in list(&data.join("keyspaces"))? {
        let (tables, blobs) = (list(&keyspace.join("tables"))?, list(&keyspace.join("blobs"))?);
        let is_version = |path: &PathBuf| {
            let name = name(path).trim_start_matches(HIDDEN);
            name.strip_prefix('v').is_some_and(|number| number.parse::<u64>().is_ok())
        };
        let versions = list(&keyspace)?.into_iter().filter(is_version);
        for path in versions.chain(tables).chain(blobs) {
            if name(&path).starts_with(HIDDEN) {
                hidden.push(path);
            } else if !lengths_are_plausible(&path).map_err(|e| io_error(&path, e))? {
                let aside = path.with_file_name(format!("{HIDDEN}{}", name(&path)));
                fs::rename(&path, &aside).map_err(|e| io_error(&path, e))?;
                hidden.push(aside);
            }
        }
    }
    Ok(hidden)
}

/// Empty for a name that is no UTF-8: none of fjall's.
fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The entries of a folder; none where there is no folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::read_dir(folder) {
        Err(e) if matches!(e.kind(), NotFound | NotADirectory) => Ok(vec![]),
        entries => {
            let paths = entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
            paths.map_err(|e| io_error(folder, e))
        }
    }
}

/// At most `length` bytes of a file from `at`.
fn read_at(file: &mut File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn lengths_are_plausible(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // What is too short for a trailer announces nothing.
    let Some(end) = length.checked_sub(TRAILER_BYTES) else { return Ok(true) };
    let trailer = read_at(&mut file, end, TRAILER_BYTES)?;
    let mut fields = Fields(&trailer);
    let at = fields.bytes::<22>().and(fields.u64()).unwrap_or_default();
    let Some(contents) = end.checked_sub(at).filter(|bytes| *bytes <= CONTENTS_BYTES_MAX) else {
        return Ok(false);
    };
    let contents = read_at(&mut file, at, contents)?;
    let Some(sections) = sections(&contents) else { return Ok(false) };
    for (name, at, length) in sections {
        if at.checked_add(length).is_none_or(|section_end| section_end > end) {
            return Ok(false);
        }
        if let Some((_, each)) = COUNTED.iter().find(|(counted, _)| *counted == name) {
            let count = read_at(&mut file, at, 4)?;
            let count = Fields(&count).u32().map_or(u64::MAX, u64::from);
            if count.saturating_mul(*each) > length {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Name, position and length of each section; `None` if the contents do not hold as many as they
/// announce.
fn sections(contents: &[u8]) -> Option<Vec<(&[u8], u64, u64)>> {
    let mut fields = Fields(contents);
    fields.bytes::<4>()?;
    let count = fields.u32()?;
    let mut sections = Vec::new();
    for _ in 0..count {
        let (at, length) = (fields.u64()?, fields.u64()?);
        let name = u16::from_le_bytes(fields.bytes()?);
        let (name, rest) = fields.0.split_at_checked(name.into())?;
        fields.0 = rest;
        sections.push((name, at, length));
    }
    Some(sections)
}

/// Walks from tag to tag. At anything but an item that announces too much it leaves off: fjall reads
/// on, or cuts, without harm.
fn cut_journal(path: &Path) -> io::Result<()> {
    let length = fs::metadata(path)?.len();
    let mut file = BufReader::new(File::open(path)?);
    // Where the walk is, and where the last whole batch ended.
    let (mut at, mut whole) = (0, 0);
    loop {
        let mut tag = [0];
        if file.read(&mut tag)? == 0 {
            return Ok(());
        }
        let skip = match tag[0] {
            1 => 12,
            2 => {
                let mut head = [0; 20];
                if file.read_exact(&mut head).is_err() {
                    return Ok(());
                }
                at += 20;
                let mut fields = Fields(&head[10..]);
                let key = fields.bytes().map_or(0, u16::from_le_bytes);
                let (value, on_disk) = (fields.u32().unwrap_or_default(), fields.u32().unwrap_or_default());
                let room = length.saturating_sub(at + 1);
                if u64::from(value.max(on_disk)) > room {
                    let file = OpenOptions::new().write(true).open(path)?;
                    file.set_len(whole)?;
                    return file.sync_all();
                }
                i64::from(key) + i64::from(on_disk)
            }
            3 => 12,
            4 => 8,
            _ => return Ok(()),
        };
        file.seek_relative(skip)?;
        at += 1 + skip.unsigned_abs();
        if tag[0] == 3 {
            whole = at;
        }
    }
}
