//! The files beside the database: `LOCK`, `FORMAT` and `high-water`.
//!
//! `FORMAT`, 96 bytes, written once:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `QISS` |
//! | 4 | 4 | version, 2 |
//! | 8 | 32 | replica id, random |
//! | 40 | 40 | zeros |
//! | 80 | 16 | BLAKE3 `derive_key("qis 1 store format", bytes 0..80)`, the first 16 bytes |
//!
//! `high-water`, 8,192 bytes: two slots of 128 bytes at 0 and 4,096, so that a write torn in one
//! leaves the other, which holds the mark before; zeros elsewhere. The slots are written in turn,
//! each write synced. The valid slot of the higher generation counts.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `QISH` |
//! | 4 | 4 | version, 2 |
//! | 8 | 8 | generation of the write, from 1 |
//! | 16 | 8 | epoch |
//! | 24 | 8 | commits so far |
//! | 32 | 8 | packets in all mailboxes |
//! | 40 | 32 | BLAKE3 `derive_key("qis 1 head digest", the database's head)` |
//! | 72 | 32 | replica id |
//! | 104 | 8 | zeros |
//! | 112 | 16 | BLAKE3 `derive_key("qis 1 high water", bytes 0..112)`, the first 16 bytes |

use super::layout::{Fields, Head, checksum};
use super::tables::io_error;
use crate::packet::Id;
use crate::store::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const FORMAT_VERSION: u32 = 2;
const FORMAT_BYTES: usize = 96;
const SLOT_BYTES: usize = 128;
const SLOT_OFFSETS: [u64; 2] = [0, 4_096];
const MARK_FILE_BYTES: u64 = 8_192;

/// Takes the store's lock; it is held as long as the file is.
pub fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("LOCK");
    let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(|e| io_error(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: folder.into() }),
        Err(TryLockError::Error(e)) => Err(io_error(&path, e)),
    }
}

/// Makes names in a folder survive a crash.
pub fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| io_error(folder, e))?;
    }
    Ok(())
}

/// Whether the disk has no room for even a small file.
pub fn is_full(folder: &Path) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let probe = || {
        let mut file = tempfile::tempfile_in(folder)?;
        file.write_all(&[0x51; 1 << 20])?;
        file.sync_all()
    };
    probe().is_err_and(|e| matches!(e.kind(), StorageFull | QuotaExceeded))
}

/// The replica id in `FORMAT`; `None` where there is no such file.
///
/// # Errors
/// Another version, by name; a damaged file.
pub fn read_format(folder: &Path) -> Result<Option<Id>, StoreError> {
    let path = folder.join("FORMAT");
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| io_error(&path, e))?,
    };
    let damaged = || {
        let problem = "the file FORMAT is damaged, so the store is not opened: restore it from a copy, or move \
                       the folder away and start empty, to be refilled from the replicas";
        StoreError::Format { path: folder.into(), problem: problem.into() }
    };
    let mut fields = Fields(&bytes);
    if fields.bytes() != Some(*b"QISS") {
        return Err(damaged());
    }
    let found = fields.u32().ok_or_else(damaged)?;
    if found != FORMAT_VERSION {
        return Err(StoreError::Version { path: folder.into(), found, known: FORMAT_VERSION });
    }
    let replica = fields.bytes().ok_or_else(damaged)?;
    if bytes.len() != FORMAT_BYTES || checksum("qis 1 store format", &[&bytes[..80]]) != bytes[80..] {
        return Err(damaged());
    }
    Ok(Some(replica))
}

/// Writes `FORMAT`; it appears whole or not at all.
pub fn write_format(folder: &Path, replica: &Id) -> Result<(), StoreError> {
    let mut bytes = Vec::with_capacity(FORMAT_BYTES);
    bytes.extend(b"QISS");
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend(replica);
    bytes.resize(80, 0);
    let check = checksum("qis 1 store format", &[&bytes]);
    bytes.extend(check);
    let (new, path) = (folder.join("FORMAT.new"), folder.join("FORMAT"));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)
    };
    write().map_err(|e| io_error(&path, e))?;
    sync_folder(folder)
}

/// What the store had synced when it last said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub epoch: u64,
    pub commits: u64,
    pub packets: u64,
    pub digest: Id,
}

impl Mark {
    pub fn of(head: &Head) -> Mark {
        Mark { epoch: head.epoch, commits: head.commits, packets: head.packets(), digest: head.digest() }
    }

    fn write(&self, generation: u64, replica: &Id) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend(b"QISH");
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        for number in [generation, self.epoch, self.commits, self.packets] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.digest);
        bytes.extend(replica);
        bytes.resize(112, 0);
        let check = checksum("qis 1 high water", &[&bytes]);
        bytes.extend(check);
        bytes
    }

    /// Generation and mark of a slot; `None` for a torn one and for one of another store.
    fn read(slot: &[u8], replica: &Id) -> Option<(u64, Mark)> {
        let (body, check) = slot.split_at_checked(112)?;
        let mut fields = Fields(body);
        if checksum("qis 1 high water", &[body]) != check || fields.bytes()? != *b"QISH" {
            return None;
        }
        if fields.u32()? != FORMAT_VERSION {
            return None;
        }
        let generation = fields.u64()?;
        let mark = Mark {
            epoch: fields.u64()?,
            commits: fields.u64()?,
            packets: fields.u64()?,
            digest: fields.bytes()?,
        };
        (fields.bytes()? == *replica).then_some((generation, mark))
    }
}

/// The open `high-water` file.
pub struct MarkFile {
    path: PathBuf,
    file: File,
    replica: Id,
    generation: u64,
    last: Option<Mark>,
}

impl MarkFile {
    /// Opens or creates the file.
    pub fn open(folder: &Path, replica: Id) -> Result<MarkFile, StoreError> {
        let path = folder.join("high-water");
        let open = || {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut bytes = Vec::new();
            Read::by_ref(&mut file).take(MARK_FILE_BYTES).read_to_end(&mut bytes)?;
            file.set_len(MARK_FILE_BYTES)?;
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|e| io_error(&path, e))?;
        let slots = SLOT_OFFSETS.iter().filter_map(|&offset| {
            let start = usize::try_from(offset).ok()?;
            Mark::read(bytes.get(start..start + SLOT_BYTES)?, &replica)
        });
        let newest = slots.max_by_key(|(generation, _)| *generation);
        let generation = newest.map_or(0, |(generation, _)| generation);
        Ok(MarkFile { path, file, replica, generation, last: newest.map(|(_, mark)| mark) })
    }

    /// The mark; `None` if neither slot can be read.
    pub fn last(&self) -> Option<Mark> {
        self.last
    }

    /// Writes the mark of `head` into the older slot and syncs, unless it stands there already.
    pub fn advance(&mut self, head: &Head) -> Result<(), StoreError> {
        let mark = Mark::of(head);
        if self.last == Some(mark) {
            return Ok(());
        }
        let generation = self.generation + 1;
        let offset = SLOT_OFFSETS[(generation % 2) as usize];
        let bytes = mark.write(generation, &self.replica);
        let file = &mut self.file;
        let mut write = || {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(&bytes)?;
            file.sync_data()
        };
        write().map_err(|e| io_error(&self.path, e))?;
        (self.generation, self.last) = (generation, Some(mark));
        Ok(())
    }
}
