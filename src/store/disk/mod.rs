//! The store on disk: a fjall database with packets kept apart from their keys, and beside it a
//! small high-water file that fjall's silence about damaged journals makes necessary.
//!
//! ```text
//! <store>/
//!   LOCK          held while the store is open
//!   FORMAT        version and replica id, written once
//!   high-water    what had been synced at the last acknowledgement, two slots
//!   data/         the database
//!   damaged-<n>/  a database set aside at opening; nothing reads it, delete it at will
//!   rebuild/      good records on their way out of a damaged database, while opening
//! ```
//!
//! [`files`] draws the small files, [`layout`] the tables.
//!
//! A deposit is one batch of the database, synced, then the mark in the high-water file, synced, then
//! the acknowledgement. So the database is never behind the mark, unless it has lost something; and
//! opening compares the two. fjall cuts a journal at the first damaged byte and opens without a word:
//! then the head falls short of the mark. If a part from the middle is missing (an older journal was
//! cut while a newer one is whole), the entries no longer add up to the sums in the head, which
//! opening checks by reading every key.
//!
//! Assumed of the disk: a sync that returned has reached the medium; a torn write of 128 bytes at
//! offset 0 or 4,096 of one file leaves the other one alone; a rename within a folder is atomic and
//! survives once the folder is synced. Not assumed: that a file is written in order, that its last
//! write is whole, that what was written reads back, that there is room. Whoever puts an older copy of
//! a store in place deletes `high-water` in it: the next opening then begins a new epoch, and no
//! cursor skips a sequence that is given out again.

mod change;
mod damage;
pub mod files;
mod layout;
mod open;
mod probe;
mod read;
mod report;
mod rules;
mod tables;

pub use damage::Scrubbed;
pub use report::{Health, Loss, OpenReport};

use super::{Caps, Cursor, Deposited, Digest, PacketStore, Page, Range, Stat, StoreError};
use crate::address::Address;
use crate::packet::{Id, Verified};
use change::Change;
use damage::Damage;
use files::MarkFile;
use layout::Head;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tables::Tables;

/// Packets that a sweep removes in one commit.
const SWEEP_BATCH: usize = 1_000;

/// A store that survives crashes.
pub struct DiskStore {
    path: PathBuf,
    start: Cursor,
    caps: Caps,
    now_ms: AtomicU64,
    /// Before `_lock`: the database closes while the lock is still held.
    tables: Tables,
    writer: Mutex<Writer>,
    damage: Damage,
    _lock: File,
}

/// What only one deposit at a time may touch.
struct Writer {
    head: Head,
    mark: MarkFile,
    halted: Option<Halt>,
}

/// Why writes stopped.
#[derive(Clone)]
enum Halt {
    Full,
    Failed(String),
}

impl Halt {
    fn error(&self, path: &Path) -> StoreError {
        let path = path.to_path_buf();
        match self {
            Halt::Full => StoreError::Full { path },
            Halt::Failed(reason) => StoreError::Halted { path, reason: reason.clone() },
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::Full => f.write_str("the disk is full"),
            Halt::Failed(reason) => f.write_str(reason),
        }
    }
}

impl DiskStore {
    /// Opens or creates the store in a folder, and checks it: every key is read, the packets not.
    ///
    /// # Errors
    /// A folder that is no store, or is open elsewhere, or has another version; a full or failing
    /// disk. Damage is no error: the report tells what was lost, and the store goes on in a new epoch.
    pub fn open(path: &Path) -> Result<(DiskStore, OpenReport), StoreError> {
        DiskStore::open_with_caps(path, Caps::default())
    }

    /// Like [`DiskStore::open`]. Caps are not kept on disk; packets that are there already stay.
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    pub fn open_with_caps(path: &Path, caps: Caps) -> Result<(DiskStore, OpenReport), StoreError> {
        let open::Opened { lock, tables, mark, head, report } = open::open(path)?;
        let store = DiskStore {
            path: path.into(),
            start: Cursor { replica: report.replica, epoch: report.epoch, sequence: 0 },
            caps,
            now_ms: AtomicU64::new(0),
            tables,
            writer: Mutex::new(Writer { head, mark, halted: None }),
            damage: Damage::new(path),
            _lock: lock,
        };
        Ok((store, report))
    }

    /// What is known of the store's state, without reading packets.
    pub fn health(&self) -> Health {
        let (commits, packets, halted) = {
            let writer = self.writer();
            (writer.head.commits, writer.head.packets(), writer.halted.as_ref().map(Halt::to_string))
        };
        Health {
            replica: self.start.replica,
            epoch: self.start.epoch,
            commits,
            packets,
            damaged_records: self.damage.count(),
            disk_bytes: self.tables.disk_bytes(),
            halted,
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Whether writes have stopped for a reason that opening the store anew would mend: any but a disk
    /// that is still full.
    pub fn wants_reopening(&self) -> bool {
        let halted = match &self.writer().halted {
            None => return false,
            Some(halt) => halt.clone(),
        };
        !matches!(halted, Halt::Full) || !files::is_full(&self.path)
    }

    /// Makes a change durable and marks it.
    fn commit(&self, writer: &mut Writer, change: Change) -> Result<(), StoreError> {
        let removed = change.removed_records();
        let result = if change.is_empty() {
            Ok(())
        } else {
            change.commit(&writer.head).map(|head| writer.head = head)
        };
        // The mark is written even after an empty change: a packet that is there already is
        // acknowledged too, and its own mark may have failed.
        let result = result.and_then(|()| writer.mark.advance(&writer.head));
        result.map_err(|e| {
            let halt = match e {
                StoreError::Full { .. } => Halt::Full,
                // The database keeps the cause of a failed write of its own threads to itself.
                StoreError::Halted { .. } if files::is_full(&self.path) => Halt::Full,
                StoreError::Halted { reason, .. } => Halt::Failed(reason),
                e => Halt::Failed(e.to_string()),
            };
            writer.halted.insert(halt).error(&self.path)
        })?;
        self.damage.forget(&removed);
        Ok(())
    }

    fn check_halted(&self, writer: &Writer) -> Result<(), StoreError> {
        match &writer.halted {
            Some(halt) => Err(halt.error(&self.path)),
            None => Ok(()),
        }
    }
}

impl PacketStore for DiskStore {
    fn deposit(&self, now_ms: u64, batch: &[(Address, Verified)]) -> Result<Vec<Deposited>, StoreError> {
        self.set_now(now_ms);
        let mut writer = self.writer();
        self.check_halted(&writer)?;
        let mut change = Change::new(&self.tables);
        let one = |(address, packet): &(Address, Verified)| {
            rules::deposit(&mut change, &self.caps, now_ms, address, packet)
        };
        let results = batch.iter().map(one).collect::<Result<_, _>>()?;
        self.commit(&mut writer, change)?;
        Ok(results)
    }

    fn pull(&self, address: &Address, cursor: Option<Cursor>, max: usize) -> Result<Page, StoreError> {
        self.view().pull(self.start, address, cursor, max)
    }

    fn stat(&self, address: &Address) -> Result<Stat, StoreError> {
        Ok(self.view().mailbox(address)?.stat)
    }

    fn end(&self, address: &Address) -> Result<Cursor, StoreError> {
        Ok(Cursor { sequence: self.view().mailbox(address)?.last, ..self.start })
    }

    fn set_now(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    fn sweep(&self, now_ms: u64) -> Result<u64, StoreError> {
        self.set_now(now_ms);
        let mut removed = 0;
        loop {
            let mut writer = self.writer();
            self.check_halted(&writer)?;
            let keys = self.view().expired().take(SWEEP_BATCH).collect::<Result<Vec<_>, _>>()?;
            if keys.is_empty() {
                return Ok(removed);
            }
            let mut change = Change::new(&self.tables);
            let count = rules::sweep(&mut change, &keys)?;
            self.commit(&mut writer, change)?;
            removed += count;
        }
    }

    fn leave(&self, now_ms: u64, address: &Address, digest: &Digest) -> Result<u64, StoreError> {
        self.set_now(now_ms);
        let (mut left, mut removed) = (*digest, 0);
        // Deposits go on between two batches: what arrives then ends this, because the digest is another one.
        loop {
            let mut writer = self.writer();
            self.check_halted(&writer)?;
            let view = self.view();
            if left.count == 0 || view.digest(address, &view.mailbox(address)?)? != left {
                return Ok(removed);
            }
            let ids = view.live(address, None, &[]).take(SWEEP_BATCH).collect::<Result<Vec<_>, _>>()?;
            let mut change = Change::new(&self.tables);
            removed += rules::leave(&mut change, address, &ids)?;
            self.commit(&mut writer, change)?;
            ids.iter().for_each(|id| left.remove(id));
        }
    }

    fn start(&self) -> Cursor {
        self.start
    }

    fn addresses(&self) -> Result<Vec<(Address, Stat)>, StoreError> {
        let view = self.view();
        let all = view.mailboxes(None).map(|item| item.map(|(address, mailbox)| (address, mailbox.stat)));
        all.collect()
    }

    fn ids(&self, address: &Address, after: Option<&Id>, max: usize) -> Result<Vec<Id>, StoreError> {
        self.view().live(address, after, &[]).take(max).collect()
    }

    fn fetch(&self, address: &Address, ids: &[Id]) -> Result<Vec<Verified>, StoreError> {
        self.view().fetch(address, ids)
    }

    fn digest(&self, address: &Address) -> Result<Digest, StoreError> {
        let view = self.view();
        view.digest(address, &view.mailbox(address)?)
    }

    fn digests(&self, after: Option<&Address>, max: usize) -> Result<Vec<(Address, Digest)>, StoreError> {
        self.view().digests(after, max)
    }

    fn range(&self, address: &Address, prefix: &[u8]) -> Result<Range, StoreError> {
        Range::of(prefix, self.view().live(address, None, prefix))
    }
}
