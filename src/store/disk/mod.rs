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

pub mod files;
mod layout;
mod open;
mod rules;
mod tables;

use super::{Cursor, Deposited, PacketStore, Page, Stat, StoreError, expired};
use crate::address::Address;
use crate::packet::{Id, Verified, hex};
use files::MarkFile;
use layout::{Entry, Head, index_key, packet_key, parse_packet_key, read_mailbox, read_record};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tables::{Change, Table, Tables, is_damage};

/// Packets that a sweep removes in one commit.
const SWEEP_BATCH: usize = 1_000;

/// A store that survives crashes.
pub struct DiskStore {
    path: PathBuf,
    start: Cursor,
    now_ms: AtomicU64,
    /// Before `_lock`: the database closes while the lock is still held.
    tables: Tables,
    writer: Mutex<Writer>,
    /// Places of damaged records met since opening.
    damaged: Mutex<BTreeSet<(Address, u64)>>,
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

/// What opening found.
#[derive(Clone, Debug)]
pub struct OpenReport {
    pub path: PathBuf,
    pub replica: Id,
    pub epoch: u64,
    /// Whether the store was made by this call.
    pub created: bool,
    /// Packets in all mailboxes.
    pub packets: u64,
    /// `None` when nothing is missing.
    pub loss: Option<Loss>,
}

/// What a store has lost since it was last open.
#[derive(Clone, Debug)]
pub struct Loss {
    pub path: PathBuf,
    pub problem: String,
    /// Packets at the last acknowledgement; `None` where the high-water mark is gone.
    pub packets_marked: Option<u64>,
    /// Packets that are left.
    pub packets_kept: u64,
    pub epoch_before: u64,
    pub epoch: u64,
    /// Where the damaged database lies now.
    pub moved_to: Option<PathBuf>,
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.loss {
            Some(loss) => loss.fmt(f),
            None => write!(
                f,
                "store {}: {} packets, epoch {}, replica {}",
                self.path.display(),
                self.packets,
                self.epoch,
                hex(&self.replica[..8])
            ),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {}: {}. ", self.path.display(), self.problem)?;
        match self.packets_marked {
            Some(marked) => write!(f, "Of {marked} packets it holds {}. ", self.packets_kept)?,
            None => write!(f, "It holds {} packets, and goes on as a new replica. ", self.packets_kept)?,
        }
        write!(
            f,
            "Epoch {} -> {}: old cursors expire, and readers pull from the beginning. Refill it from the replicas.",
            self.epoch_before, self.epoch
        )?;
        if let Some(moved_to) = &self.moved_to {
            write!(f, " The damaged database lies in {}; delete it at will.", moved_to.display())?;
        }
        Ok(())
    }
}

/// How a store is doing.
#[derive(Clone, Debug)]
pub struct Health {
    pub replica: Id,
    pub epoch: u64,
    /// Synced batches so far, over all epochs.
    pub commits: u64,
    /// Packets in all mailboxes.
    pub packets: u64,
    /// Damaged records met since opening and not replaced by a new deposit; they are never returned.
    pub damaged_records: u64,
    /// Bytes of the database's files; journals count with the room they have reserved.
    pub disk_bytes: u64,
    /// Why writes stopped, if they did.
    pub halted: Option<String>,
}

impl DiskStore {
    /// Opens or creates the store in a folder, and checks it: every key is read, the packets not.
    ///
    /// # Errors
    /// A folder that is no store, or is open elsewhere, or has another version; a full or failing
    /// disk. Damage is no error: the report tells what was lost, and the store goes on in a new epoch.
    pub fn open(path: &Path) -> Result<(DiskStore, OpenReport), StoreError> {
        let open::Opened { lock, tables, mark, head, report } = open::open(path)?;
        let store = DiskStore {
            path: path.into(),
            start: Cursor { replica: report.replica, epoch: report.epoch, sequence: 0 },
            now_ms: AtomicU64::new(0),
            tables,
            writer: Mutex::new(Writer { head, mark, halted: None }),
            damaged: Mutex::default(),
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
            damaged_records: self.damaged().len() as u64,
            disk_bytes: self.tables.disk_bytes(),
            halted,
        }
    }

    /// Reads every packet and checks it; returns the number of damaged records.
    ///
    /// # Errors
    /// Files that cannot be read at all.
    pub fn check_records(&self) -> Result<u64, StoreError> {
        for (address, _) in self.addresses()? {
            let mut cursor = None;
            loop {
                let page = self.pull(&address, cursor, SWEEP_BATCH)?;
                cursor = Some(page.cursor);
                if !page.more {
                    break;
                }
            }
        }
        Ok(self.damaged().len() as u64)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeSet<(Address, u64)>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn report_damage(&self, address: &Address, sequence: u64, problem: &str) {
        if self.damaged().insert((*address, sequence)) {
            tracing::warn!(
                "store {}: mailbox {}, record {sequence} is damaged ({problem}) and is passed over; \
                 deposit the packet again, or let the replicas refill it",
                self.path.display(),
                hex(&address[..8]),
            );
        }
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
        })
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
        let one =
            |(address, packet): &(Address, Verified)| rules::deposit(&mut change, now_ms, address, packet);
        let results = batch.iter().map(one).collect::<Result<_, _>>()?;
        let replaced = change.removed_records();
        self.commit(&mut writer, change)?;
        self.damaged().retain(|place| !replaced.contains(place));
        Ok(results)
    }

    fn pull(&self, address: &Address, cursor: Option<Cursor>, max: usize) -> Result<Page, StoreError> {
        let now_ms = self.now();
        let snapshot = self.tables.snapshot();
        let mailbox = self.tables.read(&snapshot, Table::Mailboxes, address, read_mailbox)?;
        let (last, _) = mailbox.unwrap_or_default();
        let mut cursor = self.start.resume(cursor, last)?;
        let mut packets = Vec::new();
        let from = Bound::Excluded(packet_key(address, cursor.sequence).to_vec());
        let to = Bound::Included(packet_key(address, u64::MAX).to_vec());
        for item in self.tables.range(&snapshot, Table::Packets, (from, to)) {
            // The key is learnt even where the value cannot be read.
            let place = Cell::new(None);
            let read = item.into_inner_if(|key| {
                place.set(parse_packet_key(key));
                true
            });
            let Some((_, sequence)) = place.get() else {
                return Err(match read {
                    Ok(_) => self.tables.damaged(Table::Packets),
                    Err(e) => self.tables.error(e),
                });
            };
            let packet = match read {
                Ok((key, value)) => read_record(&key, value.as_deref().unwrap_or_default()),
                Err(e) if is_damage(&e) => Err(e.to_string()),
                Err(e) => return Err(self.tables.error(e)),
            };
            match packet {
                Err(problem) => self.report_damage(address, sequence, &problem),
                Ok(packet) if expired(&packet, now_ms) => {}
                Ok(_) if packets.len() == max => return Ok(Page { packets, cursor, more: true }),
                Ok(packet) => {
                    packets.push(packet);
                    cursor.sequence = sequence;
                }
            }
        }
        Ok(Page { packets, cursor, more: false })
    }

    fn stat(&self, address: &Address) -> Result<Stat, StoreError> {
        let snapshot = self.tables.snapshot();
        let mailbox = self.tables.read(&snapshot, Table::Mailboxes, address, read_mailbox)?;
        Ok(mailbox.unwrap_or_default().1)
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
            let mut change = Change::new(&self.tables);
            let to = match now_ms.checked_add(1) {
                Some(end) => Bound::Excluded(end.to_be_bytes().to_vec()),
                None => Bound::Unbounded,
            };
            let snapshot = self.tables.snapshot();
            let range = self.tables.range(&snapshot, Table::Expiry, (Bound::Unbounded, to));
            let keys: Result<Vec<_>, _> =
                range.take(SWEEP_BATCH).map(|item| item.key().map(|key| key.to_vec())).collect();
            let keys = keys.map_err(|e| self.tables.error(e))?;
            if keys.is_empty() {
                return Ok(removed);
            }
            let count = rules::sweep(&mut change, &keys)?;
            self.commit(&mut writer, change)?;
            removed += count;
        }
    }

    fn start(&self) -> Cursor {
        self.start
    }

    fn addresses(&self) -> Result<Vec<(Address, Stat)>, StoreError> {
        let snapshot = self.tables.snapshot();
        let range = self.tables.range(&snapshot, Table::Mailboxes, ..);
        let one = |item: fjall::Guard| {
            let (key, value) = item.into_inner().map_err(|e| self.tables.error(e))?;
            let parsed = <Address>::try_from(&key[..]).ok().zip(read_mailbox(&value));
            let (address, (_, stat)) = parsed.ok_or_else(|| self.tables.damaged(Table::Mailboxes))?;
            Ok((address, stat))
        };
        range.map(one).collect()
    }

    fn ids(&self, address: &Address, after: Option<&Id>, max: usize) -> Result<Vec<Id>, StoreError> {
        let now_ms = self.now();
        let snapshot = self.tables.snapshot();
        let from = match after {
            Some(after) => Bound::Excluded(index_key(address, after)),
            None => Bound::Included(index_key(address, &[0; 32])),
        };
        let to = Bound::Included(index_key(address, &[0xFF; 32]));
        let mut ids = Vec::new();
        for item in self.tables.range(&snapshot, Table::Index, (from, to)) {
            if ids.len() == max {
                break;
            }
            let (key, value) = item.into_inner().map_err(|e| self.tables.error(e))?;
            let id = key.last_chunk::<32>().copied().zip(Entry::read(&value));
            let (id, entry) = id.ok_or_else(|| self.tables.damaged(Table::Index))?;
            if !entry.expired(now_ms) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn fetch(&self, address: &Address, ids: &[Id]) -> Result<Vec<Verified>, StoreError> {
        let now_ms = self.now();
        let snapshot = self.tables.snapshot();
        let mut packets = Vec::new();
        for id in ids {
            let key = index_key(address, id);
            let Some(entry) = self.tables.read(&snapshot, Table::Index, &key, Entry::read)? else {
                continue;
            };
            let key = packet_key(address, entry.sequence);
            let packet = match self.tables.get(&snapshot, Table::Packets, &key) {
                Ok(value) => read_record(&key, value.as_deref().unwrap_or_default()),
                Err(e) if is_damage(&e) => Err(e.to_string()),
                Err(e) => return Err(self.tables.error(e)),
            };
            match packet {
                Ok(packet) if expired(&packet, now_ms) => {}
                Ok(packet) => packets.push(packet),
                Err(problem) => self.report_damage(address, entry.sequence, &problem),
            }
        }
        Ok(packets)
    }
}
