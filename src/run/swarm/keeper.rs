//! The founder's folder: the swarm key, and who was admitted with it.
//!
//! An epoch must never be signed twice with different content. So the key file says two numbers for
//! each list: the epoch *reserved* last, which is on disk before anything is signed under it leaves
//! the process, and the epoch *written* last, which `swarm.qsl` is known to have. After a crash between
//! them an epoch is skipped; a lost or old `swarm.qsl` is noticed, instead of bringing back whom it
//! does not know to be revoked.

use super::{LISTS_FILE, SwarmError, load, name, save};
use crate::limits::CLOCK_SKEW_MS_MAX;
use crate::node::lists::{Draft, ListKind, Lists, Outcome, SwarmKey, Validity};
use crate::packet::{hex, unhex};
use crate::run::files::{self, Readers};
use crate::run::key::check_mode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The secret, inside the founder's folder.
pub const KEY_FILE: &str = "swarm.key";
/// Version of the key file.
const FORMAT: u64 = 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Epochs {
    reserved: u64,
    written: u64,
}

/// The key file: JSON, readable by its owner only.
#[derive(Serialize, Deserialize)]
struct Content {
    format: u64,
    /// ed25519 seed, hexadecimal.
    seed: String,
    nodes: Epochs,
    authors: Epochs,
}

impl Content {
    fn epochs(&mut self, kind: ListKind) -> &mut Epochs {
        match kind {
            ListKind::Nodes => &mut self.nodes,
            ListKind::Authors => &mut self.authors,
        }
    }

    fn save(&self, path: &Path) -> Result<(), SwarmError> {
        let io = |source| SwarmError::Io { path: path.into(), source };
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| io(error.into()))?;
        bytes.push(b'\n');
        files::replace(path, &bytes, Readers::Owner).map_err(io)
    }
}

/// Whom a change is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub kind: ListKind,
    /// Binary peer id, or author key.
    pub key: Vec<u8>,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Admitted,
    /// Was admitted before, and is for longer now.
    Extended,
    /// Was admitted for as long before.
    Unchanged,
    Revoked,
}

/// One line of what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub subject: Subject,
    pub what: What,
    /// As it is now; as it was, for somebody revoked.
    pub validity: Validity,
}

/// The founder's folder, opened for changes; other processes wait until it is dropped.
pub struct Keeper {
    folder: PathBuf,
    key: SwarmKey,
    content: Content,
    lists: Lists,
    _lock: File,
}

impl Keeper {
    /// Founds a swarm in `folder`, which is made where it is missing. It gets an empty list for each
    /// of `closed`, and is open to everybody of the other kinds.
    ///
    /// # Errors
    /// I/O; a folder that holds a swarm already.
    pub fn create(folder: &Path, closed: &[ListKind], now_ms: u64) -> Result<Keeper, SwarmError> {
        let path = folder.join(KEY_FILE);
        let io = |source| SwarmError::Io { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(io)?;
        let lock = files::lock(&path).map_err(io)?;
        if path.exists() {
            let swarm = hex(read(&path)?.0.public());
            return Err(SwarmError::Exists { folder: folder.into(), swarm });
        }
        let mut seed = [0; 32];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut seed)
            .map_err(|error| SwarmError::Random(error.to_string()))?;
        let (nodes, authors) = Default::default();
        let content = Content { format: FORMAT, seed: hex(&seed), nodes, authors };
        let key = SwarmKey::from_seed(seed);
        let lists = Lists::new(*key.public());
        let mut keeper = Keeper { folder: folder.into(), key, content, lists, _lock: lock };
        keeper.publish(closed.iter().map(|&kind| (kind, BTreeMap::new())).collect(), now_ms)?;
        Ok(keeper)
    }

    /// Begins the lists of a swarm anew, empty and of a higher epoch, where `swarm.qsl` is lost. An
    /// open swarm stays open.
    ///
    /// # Errors
    /// I/O; no swarm; lists that are there.
    pub fn renew_lists(folder: &Path, now_ms: u64) -> Result<Keeper, SwarmError> {
        let (key, mut content, lock) = unlock(folder)?;
        if folder.join(LISTS_FILE).exists() {
            return Err(SwarmError::Exists { folder: folder.into(), swarm: hex(key.public()) });
        }
        let lists = Lists::new(*key.public());
        let closed = ListKind::ALL.into_iter().filter(|&kind| content.epochs(kind).reserved > 0);
        let empty = closed.map(|kind| (kind, BTreeMap::new())).collect();
        let mut keeper = Keeper { folder: folder.into(), key, content, lists, _lock: lock };
        keeper.publish(empty, now_ms)?;
        Ok(keeper)
    }

    /// Opens the folder of a swarm.
    ///
    /// # Errors
    /// I/O; no swarm, a key that others can read or that is damaged; lists that are lost, damaged, of
    /// another swarm, or older than those signed last.
    pub fn open(folder: &Path) -> Result<Keeper, SwarmError> {
        let (key, mut content, lock) = unlock(folder)?;
        let path = folder.join(LISTS_FILE);
        if !path.exists() {
            return Err(SwarmError::Lost { path });
        }
        let lists = load(&path)?;
        if lists.swarm() != key.public() {
            let (found, expected) = (hex(lists.swarm()), hex(key.public()));
            return Err(SwarmError::OtherSwarm { path, found, expected });
        }
        for kind in ListKind::ALL {
            let found = lists.list(kind).map_or(0, |list| list.epoch());
            let written = content.epochs(kind).written;
            if found < written {
                return Err(SwarmError::Stale { path, kind: kind.name(), found, written });
            }
        }
        Ok(Keeper { folder: folder.into(), key, content, lists, _lock: lock })
    }

    pub fn lists(&self) -> &Lists {
        &self.lists
    }

    /// Where the signed lists lie.
    pub fn path(&self) -> PathBuf {
        self.folder.join(LISTS_FILE)
    }

    /// Admits, or extends: of the old and the new end the later counts, and 0 is no end. A first entry
    /// closes a list that was open. Begins a day back, as far as clocks may differ, so that a node
    /// whose clock is behind admits at once too.
    ///
    /// # Errors
    /// I/O; a list that would be too long. Nobody is admitted then.
    pub fn admit(
        &mut self,
        subjects: &BTreeSet<Subject>,
        until_ms: u64,
        now_ms: u64,
    ) -> Result<Vec<Change>, SwarmError> {
        let new = Validity { from_ms: now_ms.saturating_sub(CLOCK_SKEW_MS_MAX), until_ms };
        let mut changed = BTreeMap::new();
        let changes = subjects.iter().map(|subject| {
            let old = self.validity(subject).filter(|old| !old.ended(now_ms));
            let (what, validity) = match old {
                None => (What::Admitted, new),
                Some(old) if old.until_ms == 0 || until_ms != 0 && until_ms <= old.until_ms => {
                    (What::Unchanged, old)
                }
                Some(old) => (What::Extended, Validity { until_ms, ..old }),
            };
            if what != What::Unchanged {
                let entries = changed.entry(subject.kind).or_insert_with(|| self.entries(subject.kind));
                entries.insert(subject.key.clone(), validity);
            }
            Change { subject: subject.clone(), what, validity }
        });
        let changes = changes.collect();
        if !changed.is_empty() {
            self.publish(changed, now_ms)?;
        }
        Ok(changes)
    }

    /// Takes entries out.
    ///
    /// # Errors
    /// I/O; somebody who is not listed. Nobody is revoked then.
    pub fn revoke(&mut self, subjects: &BTreeSet<Subject>, now_ms: u64) -> Result<Vec<Change>, SwarmError> {
        let (mut changed, mut changes, mut missing) = (BTreeMap::new(), vec![], vec![]);
        for subject in subjects {
            let entries = changed.entry(subject.kind).or_insert_with(|| self.entries(subject.kind));
            match entries.remove(&subject.key) {
                Some(validity) => {
                    changes.push(Change { subject: subject.clone(), what: What::Revoked, validity });
                }
                None => missing.push(name(subject.kind, &subject.key)),
            }
        }
        if !missing.is_empty() {
            return Err(SwarmError::NotListed { names: missing.join(", ") });
        }
        self.publish(changed, now_ms)?;
        Ok(changes)
    }

    fn validity(&self, subject: &Subject) -> Option<Validity> {
        let mut entries = self.lists.list(subject.kind)?.entries();
        entries.find(|(key, _)| *key == subject.key).map(|(_, validity)| validity)
    }

    fn entries(&self, kind: ListKind) -> BTreeMap<Vec<u8>, Validity> {
        let entries = self.lists.list(kind).into_iter().flat_map(|list| list.entries());
        entries.map(|(key, validity)| (key.to_vec(), validity)).collect()
    }

    /// Signs lists under new epochs: reserve, write, remember that they are written.
    fn publish(
        &mut self,
        changed: BTreeMap<ListKind, BTreeMap<Vec<u8>, Validity>>,
        now_ms: u64,
    ) -> Result<(), SwarmError> {
        let path = self.folder.join(KEY_FILE);
        let mut newest = self.lists.clone();
        for (kind, entries) in changed {
            let held = newest.list(kind).map_or(0, |list| list.epoch());
            let epochs = self.content.epochs(kind);
            let epoch = held.max(epochs.reserved).checked_add(1).ok_or_else(|| SwarmError::KeyDamaged {
                path: path.clone(),
                problem: format!("no epoch of the list of {} is left", kind.name()),
            })?;
            let draft = Draft { kind, epoch, issued_at_ms: now_ms, entries };
            let signed =
                self.key.sign(&draft).map_err(|source| SwarmError::Draft { kind: kind.name(), source })?;
            epochs.reserved = epoch;
            let outcome = newest.offer((*signed).clone());
            assert_eq!(outcome, Outcome::Taken, "our own list of a higher epoch");
        }
        self.content.save(&path)?;
        save(&self.path(), &newest)?;
        for kind in ListKind::ALL {
            self.content.epochs(kind).written = newest.list(kind).map_or(0, |list| list.epoch());
        }
        self.content.save(&path)?;
        self.lists = newest;
        Ok(())
    }
}

/// The key of a folder, under its lock.
fn unlock(folder: &Path) -> Result<(SwarmKey, Content, File), SwarmError> {
    let path = folder.join(KEY_FILE);
    // Before the lock, which would leave a file where no swarm is.
    if !path.exists() {
        return Err(SwarmError::NoSwarm { folder: folder.into() });
    }
    let lock = files::lock(&path).map_err(|source| SwarmError::Io { path: path.clone(), source })?;
    let (key, content) = read(&path)?;
    Ok((key, content, lock))
}

fn read(path: &Path) -> Result<(SwarmKey, Content), SwarmError> {
    check_mode(path)?;
    let damaged = |problem: String| SwarmError::KeyDamaged { path: path.into(), problem };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged(error.to_string())),
        Err(source) => return Err(SwarmError::Io { path: path.into(), source }),
    };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    match value["format"].as_u64() {
        Some(FORMAT) => {}
        Some(found) => return Err(SwarmError::KeyFormat { path: path.into(), found, known: FORMAT }),
        None => return Err(damaged("has no `format`".into())),
    }
    let content: Content = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
    let seed = unhex(&content.seed).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let seed = seed.ok_or_else(|| damaged("`seed` is not 64 hexadecimal digits".into()))?;
    Ok((SwarmKey::from_seed(seed), content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(kind: ListKind, byte: u8) -> BTreeSet<Subject> {
        [Subject { kind, key: vec![byte; 32] }].into()
    }

    #[test]
    fn every_change_has_a_higher_epoch_and_the_later_end_counts() {
        let folder = tempfile::tempdir().unwrap();
        let now = 10 * CLOCK_SKEW_MS_MAX;
        let mut keeper = Keeper::create(folder.path(), &ListKind::ALL, now).unwrap();
        assert_eq!(keeper.lists().epochs(), (1, 1));
        let node = subject(ListKind::Nodes, 1);
        let what = |changes: Vec<Change>| (changes[0].what, changes[0].validity.until_ms);
        assert_eq!(what(keeper.admit(&node, now + 5, now).unwrap()), (What::Admitted, now + 5));
        assert_eq!(what(keeper.admit(&node, now + 9, now).unwrap()), (What::Extended, now + 9));
        assert_eq!(what(keeper.admit(&node, now + 7, now).unwrap()), (What::Unchanged, now + 9));
        assert_eq!(keeper.lists().epochs(), (3, 1), "nothing was signed where nothing changed");
        // Ended, and admitted anew.
        assert_eq!(what(keeper.admit(&node, now + 20, now + 9).unwrap()), (What::Admitted, now + 20));
        assert_eq!(what(keeper.admit(&node, 0, now + 9).unwrap()), (What::Extended, 0));
        assert_eq!(what(keeper.admit(&node, now + 99, now + 9).unwrap()), (What::Unchanged, 0));
        drop(keeper);
        let mut keeper = Keeper::open(folder.path()).unwrap();
        assert_eq!(keeper.lists().epochs(), (5, 1));
        let missing = keeper.revoke(&subject(ListKind::Authors, 1), now).unwrap_err().to_string();
        assert!(missing.contains(&"01".repeat(32)), "{missing}");
        assert_eq!(what(keeper.revoke(&node, now).unwrap()).0, What::Revoked);
        assert_eq!(keeper.lists().epochs(), (6, 1));
        assert_eq!(load(folder.path()).unwrap().epochs(), (6, 1));
    }

    #[test]
    fn a_lost_or_old_list_is_noticed_and_no_epoch_is_signed_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LISTS_FILE);
        let mut keeper = Keeper::create(folder.path(), &[ListKind::Nodes], 7).unwrap();
        keeper.admit(&subject(ListKind::Nodes, 1), 0, 7).unwrap();
        let old = std::fs::read(&path).unwrap();
        keeper.revoke(&subject(ListKind::Nodes, 1), 7).unwrap();
        drop(keeper);
        let newest = std::fs::read(&path).unwrap();

        std::fs::write(&path, &old).unwrap();
        assert!(matches!(Keeper::open(folder.path()), Err(SwarmError::Stale { found: 2, written: 3, .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Keeper::open(folder.path()), Err(SwarmError::Lost { .. })));
        let keeper = Keeper::renew_lists(folder.path(), 8).unwrap();
        assert_eq!(keeper.lists().epochs(), (4, 0), "and it stays open to authors");
        drop(keeper);
        assert!(matches!(Keeper::renew_lists(folder.path(), 8), Err(SwarmError::Exists { .. })));

        // A crash after epoch 5 was reserved: the file of epoch 4 is the newest, and 6 comes next.
        let key_path = folder.path().join(KEY_FILE);
        let (_, mut content) = read(&key_path).unwrap();
        content.nodes.reserved = 5;
        content.save(&key_path).unwrap();
        let mut keeper = Keeper::open(folder.path()).unwrap();
        keeper.admit(&subject(ListKind::Nodes, 2), 0, 9).unwrap();
        assert_eq!(keeper.lists().epochs(), (6, 0));
        drop(keeper);
        // A key from a backup, beside newer lists.
        content.nodes = Epochs { reserved: 1, written: 1 };
        content.save(&key_path).unwrap();
        let mut keeper = Keeper::open(folder.path()).unwrap();
        keeper.admit(&subject(ListKind::Nodes, 3), 0, 9).unwrap();
        assert_eq!(keeper.lists().epochs(), (7, 0));
        drop(keeper);

        let other = tempfile::tempdir().unwrap();
        drop(Keeper::create(other.path(), &ListKind::ALL, 7).unwrap());
        std::fs::write(other.path().join(LISTS_FILE), &newest).unwrap();
        assert!(matches!(Keeper::open(other.path()), Err(SwarmError::OtherSwarm { .. })));
    }

    #[test]
    fn damaged_keys_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Keeper::open(folder.path()), Err(SwarmError::NoSwarm { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(Keeper::create(folder.path(), &ListKind::ALL, 7).unwrap());
        let path = folder.path().join(KEY_FILE);
        for (text, expected) in [
            ("{", "restore it from a backup"),
            ("{}", "has no `format`"),
            ("{\"format\":2}", "has format 2"),
            ("{\"format\":1,\"seed\":\"00\"}", "missing field"),
        ] {
            std::fs::write(&path, text).unwrap();
            for error in [Keeper::open(folder.path()).err(), Keeper::create(folder.path(), &[], 7).err()] {
                let said = error.unwrap().to_string();
                assert!(said.contains(expected), "{said}");
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            let said = Keeper::open(folder.path()).err().unwrap().to_string();
            assert!(said.contains("chmod 600"), "{said}");
        }
    }
}
