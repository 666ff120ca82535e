//! Opening: the database is compared with the high-water mark and with its own head, and what falls
//! short is said, never passed over.
//!
//! | found | done |
//! |---|---|
//! | as marked, or one commit further | nothing |
//! | consistent, but behind the mark (a journal was cut) | new epoch |
//! | entries missing from the middle, or unreadable | good records move to a fresh database; new epoch |
//! | does not open, or is gone | set aside; an empty database; new epoch |
//! | the mark is gone | new epoch and replica id, since a loss could not be seen |

use super::change::Change;
use super::files::{self, Mark, MarkFile};
use super::layout::{Head, read_record, read_version};
use super::rules;
use super::tables::{Table, Tables, io_error};
use super::{Loss, OpenReport};
use crate::packet::Id;
use crate::store::{Caps, StoreError};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Packets per commit when good records move.
const REBUILD_BATCH: usize = 1_000;

/// What an open store consists of.
pub struct Opened {
    pub lock: File,
    pub tables: Tables,
    pub mark: MarkFile,
    pub head: Head,
    pub report: OpenReport,
}

pub fn open(folder: &Path) -> Result<Opened, StoreError> {
    let known = match folder.is_dir() {
        true => files::read_format(folder)?,
        false => None,
    };
    if known.is_none() {
        check_empty(folder)?;
        std::fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
    }
    let lock = files::lock(folder)?;
    let data = folder.join("data");
    // Read again under the lock: another process may have created the store in between.
    let (replica, mut mark, created) = match files::read_format(folder)? {
        Some(replica) => (replica, MarkFile::open(folder, replica)?, false),
        None => {
            let replica = rand::random();
            let mut mark = MarkFile::open(folder, replica)?;
            mark.advance(&Head::new(1))?;
            files::sync_folder(folder)?;
            // Last, so that a store with a FORMAT has had a mark.
            files::write_format(folder, &replica)?;
            (replica, mark, true)
        }
    };
    finish_rebuild(folder, &data)?;

    let last = mark.last();
    let unused = last.is_some_and(|last| last.epoch == 1 && last.commits == 0);
    let finding = examine(&data, last.as_ref(), unused)?;
    let (tables, head, loss) = match finding {
        Finding::Sound(tables, head) => (tables, head, None),
        Finding::Behind(tables, head) => {
            let loss = loss(folder, last, head.map(|h| h.packets()), "", None, head);
            let head = Head { epoch: loss.epoch, ..head.unwrap_or(Head::new(0)) };
            let head = Change::new(&tables).commit(&head)?;
            (tables, head, Some(loss))
        }
        Finding::Holes(tables, head) => {
            let mut loss =
                loss(folder, last, None, "entries are missing or unreadable in the middle", None, head);
            let kept = rebuild(folder, tables, loss.epoch)?;
            let aside = aside(folder, &data)?;
            finish_rebuild(folder, &data)?;
            let tables = Tables::open(&data)?;
            let head = tables.head()?.ok_or_else(|| tables.damaged(Table::Mailboxes))?;
            loss.packets_kept = kept;
            loss.moved_to = Some(aside);
            (tables, head, Some(loss))
        }
        Finding::Unopenable(problem) => {
            let aside = if data.exists() { Some(aside(folder, &data)?) } else { None };
            let loss = loss(folder, last, Some(0), &problem, aside, None);
            let tables = Tables::open(&data)?;
            let head = Change::new(&tables).commit(&Head::new(loss.epoch))?;
            (tables, head, Some(loss))
        }
    };
    // Without a mark it is not known which epochs there were: another replica id makes old cursors expire.
    let replica = if last.is_none() { new_identity(folder, &mut mark)? } else { replica };
    mark.advance(&head)?;
    let report = OpenReport {
        path: folder.into(),
        replica,
        epoch: head.epoch,
        created,
        packets: head.packets(),
        loss,
    };
    match &report.loss {
        Some(_) => tracing::warn!("{report}"),
        None => tracing::debug!("{report}"),
    }
    Ok(Opened { lock, tables, mark, head, report })
}

enum Finding {
    Sound(Tables, Head),
    Behind(Tables, Option<Head>),
    Holes(Tables, Option<Head>),
    Unopenable(String),
}

/// Compares; `unused` says that nothing was ever committed, so there may be no database yet.
fn examine(data: &Path, last: Option<&Mark>, unused: bool) -> Result<Finding, StoreError> {
    if !data.exists() && !unused {
        return Ok(Finding::Unopenable("its folder `data` is gone".into()));
    }
    let tables = match Tables::open(data) {
        Ok(tables) => tables,
        Err(StoreError::Damaged { problem, .. }) => return Ok(Finding::Unopenable(problem)),
        Err(e) => return Err(e),
    };
    let read = tables.head().and_then(|head| Ok((head, tables.sums()?)));
    let (head, sums) = match read {
        Ok(read) => read,
        Err(StoreError::Damaged { .. }) => return Ok(Finding::Holes(tables, None)),
        Err(e) => return Err(e),
    };
    let expected = head.unwrap_or(Head::new(1));
    if sums != expected.sums {
        return Ok(Finding::Holes(tables, head));
    }
    let Some(last) = last else { return Ok(Finding::Behind(tables, head)) };
    let behind = expected.epoch < last.epoch
        || expected.commits < last.commits
        || (expected.commits == last.commits && expected.digest() != last.digest);
    Ok(if behind { Finding::Behind(tables, head) } else { Finding::Sound(tables, expected) })
}

fn loss(
    folder: &Path,
    last: Option<Mark>,
    kept: Option<u64>,
    problem: &str,
    moved_to: Option<PathBuf>,
    head: Option<Head>,
) -> Loss {
    let epoch_before = last.map_or(0, |last| last.epoch).max(head.map_or(0, |head| head.epoch));
    let problem = match (problem, last) {
        ("", None) => "its high-water mark is gone, so a loss could not be seen".to_owned(),
        ("", Some(last)) => format!(
            "it had synced {} commits and holds {}: the rest of a journal was cut off as damaged",
            last.commits,
            head.map_or(0, |head| head.commits)
        ),
        (problem, _) => problem.to_owned(),
    };
    let packets_marked = last.map(|last| last.packets);
    let packets_kept = kept.unwrap_or_default();
    let (path, epoch) = (folder.to_path_buf(), epoch_before + 1);
    Loss { path, problem, packets_marked, packets_kept, epoch_before, epoch, moved_to }
}

/// A folder that holds anything but the traces of an interrupted creation is no place for a store.
fn check_empty(folder: &Path) -> Result<(), StoreError> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| io_error(folder, e))?,
    };
    for entry in entries {
        let name = entry.map_err(|e| io_error(folder, e))?.file_name();
        if !["LOCK", "FORMAT.new", "high-water"].iter().any(|ours| name == *ours) {
            let problem = format!(
                "is no store: it has no file FORMAT, but other files ({}); name another folder",
                name.display()
            );
            return Err(StoreError::Format { path: folder.into(), problem });
        }
    }
    Ok(())
}

/// Puts a finished rebuild in its place, and removes an unfinished one: `data` is set aside only when
/// the rebuild is complete.
fn finish_rebuild(folder: &Path, data: &Path) -> Result<(), StoreError> {
    let rebuilt = folder.join("rebuild");
    if !rebuilt.exists() {
        return Ok(());
    }
    let result = match data.exists() {
        true => std::fs::remove_dir_all(&rebuilt),
        false => std::fs::rename(&rebuilt, data),
    };
    result.map_err(|e| io_error(&rebuilt, e))?;
    files::sync_folder(folder)
}

/// Moves the database to the first free `damaged-<n>`.
fn aside(folder: &Path, data: &Path) -> Result<PathBuf, StoreError> {
    let free = (1u32..).map(|n| folder.join(format!("damaged-{n}"))).find(|path| !path.exists());
    let target = free.unwrap_or_else(|| folder.join("damaged"));
    std::fs::rename(data, &target).map_err(|e| io_error(data, e))?;
    files::sync_folder(folder)?;
    Ok(target)
}

fn new_identity(folder: &Path, mark: &mut MarkFile) -> Result<Id, StoreError> {
    let replica = rand::random();
    files::write_format(folder, &replica)?;
    *mark = MarkFile::open(folder, replica)?;
    Ok(replica)
}

/// Puts one entry of an old table (key, value) into the new database.
type Apply = dyn Fn(&mut Change, &[u8], &[u8]) -> Result<(), StoreError>;

/// Deposits all good records anew, in their order, into the folder `rebuild`; returns their number.
/// Both databases are closed then.
fn rebuild(folder: &Path, old: Tables, epoch: u64) -> Result<u64, StoreError> {
    let path = folder.join("rebuild");
    let new = Tables::open(&path)?;
    let mut head = Change::new(&new).commit(&Head::new(epoch))?;
    let mut pass = |table: Table, apply: &Apply| {
        for part in readable(&old, table).chunks(REBUILD_BATCH) {
            let mut change = Change::new(&new);
            for key in part {
                // An unreadable value is one of the records that are lost.
                if let Ok(Some(value)) = old.get(&old.snapshot(), table, key) {
                    apply(&mut change, key, &value)?;
                }
            }
            if !change.is_empty() {
                head = change.commit(&head)?;
            }
        }
        Ok::<(), StoreError>(())
    };
    pass(Table::Packets, &|change, key, value| {
        if let (Some(address), Ok(packet)) = (key.first_chunk(), read_record(key, value)) {
            rules::deposit(change, &Caps::default(), 0, address, &packet)?;
        }
        Ok(())
    })?;
    // Markers outlive their packets, so they are not all to be had from the records.
    pass(Table::Latest, &|change, key, value| match read_version(value) {
        Some(version) => rules::restore_version(change, key, &version),
        None => Ok(()),
    })?;
    pass(Table::Retractions, &|change, key, _| rules::restore_retraction(change, key))?;
    Ok(head.packets())
}

/// The keys of a table that can be reached from its two ends, ascending.
fn readable(tables: &Tables, table: Table) -> Vec<Vec<u8>> {
    let snapshot = tables.snapshot();
    let key = |item: fjall::Guard| item.key().ok().map(|key| key.to_vec());
    let mut all = tables.range(&snapshot, table, ..);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut whole = true;
    for item in all.by_ref() {
        match key(item) {
            Some(key) => keys.push(key),
            None => {
                whole = false;
                break;
            }
        }
    }
    if !whole {
        let last = keys.last().cloned();
        let back = tables.range(&snapshot, table, ..).rev().map_while(key);
        let mut back: Vec<_> = back.take_while(|key| last.as_ref().is_none_or(|last| key > last)).collect();
        back.reverse();
        keys.extend(back);
    }
    keys
}
