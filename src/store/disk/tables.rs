//! The database: its tables and its errors. Elsewhere fjall shows only as the item of an iteration and
//! as the bytes of keys and values.

use super::layout::{Head, Sum, TABLES};
use super::probe::probe;
use crate::store::StoreError;
use fjall::{
    CompressionType, Database, Iter, Keyspace, KeyspaceCreateOptions, KvSeparationOptions,
    OwnedWriteBatch as WriteBatch, PersistMode, Readable, Snapshot, UserValue,
};
use std::io;
use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Bytes of journals kept before tables are flushed: it bounds the time and the memory of opening.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;
/// Bytes of new entries that a table holds in memory before they are written to a file. Measured with
/// 200,000 packets to each of two stores: 64 MiB cost 250 MB of memory a store and 15.3 us of CPU a
/// packet, 16 MiB 95 MB and 17.2 us, 8 MiB 50 MB and 19.3 us.
const MEMTABLE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of table blocks that are kept for readers; an idle store uses none of them.
const CACHE_BYTES_MAX: u64 = 16 << 20;

/// The tables of [`super::layout`], in the order of [`Head::sums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Packets = 0,
    Index = 1,
    Latest = 2,
    Retractions = 3,
    Expiry = 4,
    Mailboxes = 5,
    Authors = 6,
}

impl Table {
    pub const ALL: [Table; TABLES] = [
        Table::Packets,
        Table::Index,
        Table::Latest,
        Table::Retractions,
        Table::Expiry,
        Table::Mailboxes,
        Table::Authors,
    ];

    fn name(self) -> &'static str {
        ["packets", "index", "latest", "retractions", "expiry", "mailboxes", "authors"][self as usize]
    }
}

/// An open database.
pub struct Tables {
    path: PathBuf,
    database: Database,
    spaces: Vec<Keyspace>,
    head: Keyspace,
}

impl Tables {
    /// Opens or creates. fjall checks what it reads with assertions in places, so damaged files can
    /// make it panic: that is damage too.
    ///
    /// # Errors
    /// `Damaged` where the files cannot be understood; `Io`, `Full`, `Locked` where nothing is known
    /// to be wrong with them.
    pub fn open(path: &Path) -> Result<Tables, StoreError> {
        let hidden = probe(path)?;
        let tables = guarded(path, || {
            let database = Database::builder(path)
                .max_journaling_size(JOURNAL_BYTES_MAX)
                .cache_size(CACHE_BYTES_MAX)
                .worker_threads(2)
                .open()
                .map_err(|e| store_error(path, e))?;
            let open = |name: &str, separated: bool| {
                // Packets are signatures and hashes for the most part: compressing them gains nothing.
                let separation = KvSeparationOptions::default()
                    .separation_threshold(256)
                    .compression(CompressionType::None);
                let options = || {
                    KeyspaceCreateOptions::default()
                        .max_memtable_size(MEMTABLE_BYTES_MAX)
                        .with_kv_separation(separated.then_some(separation))
                };
                database.keyspace(name, options).map_err(|e| store_error(path, e))
            };
            let spaces: Result<Vec<_>, _> =
                Table::ALL.iter().map(|&table| open(table.name(), table == Table::Packets)).collect();
            let (spaces, head) = (spaces?, open("head", false)?);
            Ok(Tables { path: path.into(), database, spaces, head })
        })?;
        for file in hidden {
            std::fs::remove_file(&file).map_err(|e| io_error(&file, e))?;
        }
        Ok(tables)
    }

    pub fn error(&self, error: fjall::Error) -> StoreError {
        store_error(&self.path, error)
    }

    /// An entry that cannot be understood.
    pub fn damaged(&self, table: Table) -> StoreError {
        let problem = format!("an entry of table `{}` is damaged", table.name());
        StoreError::Damaged { path: self.path.clone(), problem }
    }

    /// A view of all tables between two commits. Reads outside of one can see half a commit.
    pub fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }

    pub fn get(
        &self,
        snapshot: &Snapshot,
        table: Table,
        key: &[u8],
    ) -> Result<Option<UserValue>, fjall::Error> {
        snapshot.get(&self.spaces[table as usize], key)
    }

    /// Like [`Tables::get`], decoded; an entry that does not decode is damage.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn read<T>(
        &self,
        snapshot: &Snapshot,
        table: Table,
        key: &[u8],
        decode: fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let value = self.get(snapshot, table, key).map_err(|e| self.error(e))?;
        value.map(|value| decode(&value).ok_or_else(|| self.damaged(table))).transpose()
    }

    pub fn range<R: RangeBounds<Vec<u8>>>(&self, snapshot: &Snapshot, table: Table, range: R) -> Iter {
        snapshot.range(&self.spaces[table as usize], range)
    }

    /// The head as it is stored; `None` if there is none, or a damaged one.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn head(&self) -> Result<Option<Head>, StoreError> {
        let value = self.head.get("head").map_err(|e| self.error(e))?;
        Ok(value.and_then(|value| Head::read(&value)))
    }

    /// Sums up all entries, reading every key, and every value but the packets.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn sums(&self) -> Result<[Sum; TABLES], StoreError> {
        guarded(&self.path, || {
            let snapshot = self.snapshot();
            let mut sums = [Sum::default(); TABLES];
            for table in Table::ALL {
                let number = table as usize;
                for item in snapshot.iter(&self.spaces[number]) {
                    let entry = if table == Table::Packets {
                        item.key().map(|key| Sum::entry(number, &key, &[]))
                    } else {
                        item.into_inner().map(|(key, value)| Sum::entry(number, &key, &value))
                    };
                    sums[number].add(entry.map_err(|e| self.error(e))?);
                }
            }
            Ok(sums)
        })
    }

    /// A batch that is synced when it is committed.
    pub fn batch(&self, changes: usize) -> WriteBatch {
        WriteBatch::with_capacity(self.database.clone(), changes).durability(Some(PersistMode::SyncAll))
    }

    pub fn space(&self, table: Table) -> &Keyspace {
        &self.spaces[table as usize]
    }

    pub fn head_space(&self) -> &Keyspace {
        &self.head
    }

    /// Bytes that the database takes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or_default()
    }
}

/// Turns a panic of the database into damage.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let problem = "the database stopped in the middle of reading its files".to_owned();
        Err(StoreError::Damaged { path: path.into(), problem })
    })
}

/// Whether an error speaks of the bytes on disk, not of the system's state.
pub fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => {
            // A file that exists already is left from a creation that was cut short.
            use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
            matches!(e.kind(), AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof)
        }
        fjall::Error::Locked | fjall::Error::Poisoned => false,
        _ => true,
    }
}

/// The store's error for an error of the database.
pub fn store_error(path: &Path, error: fjall::Error) -> StoreError {
    let path = path.to_path_buf();
    if is_damage(&error) {
        return StoreError::Damaged { path, problem: format!("damaged files ({error})") };
    }
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => io_error(&path, e),
        fjall::Error::Locked => StoreError::Locked { path },
        fjall::Error::Poisoned => {
            StoreError::Halted { path, reason: "an earlier write of the database failed".into() }
        }
        e => StoreError::Halted { path, reason: e.to_string() },
    }
}

/// The store's error for an error of the system.
pub fn io_error(path: &Path, source: io::Error) -> StoreError {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded => StoreError::Full { path: path.into() },
        _ => StoreError::Io { path: path.into(), source },
    }
}
