//! The swarm key, and the signed lists as files.
//!
//! Whoever founds a swarm has a folder with `swarm.key`, the secret ([`Keeper`]), and `swarm.qsl`,
//! both signed lists, which is public and goes to the nodes. A node starts with that file ([`load`]),
//! hears of newer lists from others, and keeps the newest as `lists.qsl` in its store's folder
//! ([`with_kept`], [`save_newest`]). Both files have one format:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `QISL` |
//! | 4 | 4 | version, 1 |
//! | 8 | 32 | swarm key, public |
//! | 40 | 4 | bytes of the list of nodes; 0 where there is none |
//! | 44 | 4 | bytes of the list of authors; 0 where there is none |
//! | 48 | | the list of nodes, then the list of authors, as in [`crate::node::lists`] |
//!
//! Integers are little-endian. The lists carry their signatures, so nothing here is trusted.

mod keeper;

pub use keeper::{Change, Keeper, Subject, What};

use super::files::{self, Readers};
use super::key::KeyError;
use crate::net::PeerId;
use crate::node::lists::{LIST_BYTES_MAX, List, ListError, ListKind, Lists, Outcome};
use crate::packet::{Id, hex};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The founder's lists, inside his folder.
pub const LISTS_FILE: &str = "swarm.qsl";
/// The lists that a node keeps, inside its store's folder.
pub const KEPT_FILE: &str = "lists.qsl";
const MAGIC: &[u8; 4] = b"QISL";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
const FILE_BYTES_MAX: usize = HEADER_BYTES + 2 * LIST_BYTES_MAX;

/// Why the key or the lists of a swarm cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    #[error("{path}: {problem}; restore it from a backup: without it nobody can be admitted or revoked")]
    KeyDamaged { path: PathBuf, problem: String },
    #[error("{path}: has format {found}; this program reads format {known}")]
    KeyFormat { path: PathBuf, found: u64, known: u64 },
    #[error("{folder}: holds no swarm.key; found a swarm there with `qis swarm create {folder}`")]
    NoSwarm { folder: PathBuf },
    #[error("{folder}: holds a swarm already, {swarm}; name another folder for a new one")]
    Exists { folder: PathBuf, swarm: String },
    #[error(
        "{path}: is missing, though lists were signed; copy it from where it was given to, or take the `lists.qsl` from a node's store (with neither, `qis swarm create --new-lists` begins with empty lists)"
    )]
    Lost { path: PathBuf },
    #[error(
        "{path}: holds epoch {found} of the list of {kind}, but epoch {written} was signed: whom that revoked would come back; copy the newest file over it, from where it was given to or from a node's store (`lists.qsl`)"
    )]
    Stale { path: PathBuf, kind: &'static str, found: u64, written: u64 },
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("{path}: list of {kind}: {source}")]
    List { path: PathBuf, kind: &'static str, source: ListError },
    #[error("{path}: is of swarm {found}, not of {expected}")]
    OtherSwarm { path: PathBuf, found: String, expected: String },
    #[error("not listed: {names}; nothing was revoked, `qis swarm show` lists who is")]
    NotListed { names: String },
    #[error("the list of {kind} cannot be signed: {source}")]
    Draft { kind: &'static str, source: ListError },
}

/// A node or an author as people write it: a peer id, or hexadecimal.
pub fn name(kind: ListKind, key: &[u8]) -> String {
    match kind {
        ListKind::Nodes => PeerId::from_bytes(key).map_or_else(|_| hex(key), |peer| peer.to_string()),
        ListKind::Authors => hex(key),
    }
}

/// Reads the lists of a swarm from a file, or from a folder that holds one, and checks their
/// signatures. Blocks on the disk.
///
/// # Errors
/// I/O; the field that is wrong; a bad signature.
pub fn load(path: &Path) -> Result<Lists, SwarmError> {
    if path.is_dir() {
        let (ours, kept) = (path.join(LISTS_FILE), path.join(KEPT_FILE));
        return load(if !ours.exists() && kept.exists() { &kept } else { &ours });
    }
    let io = |source| SwarmError::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    decode(path, &bytes)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Lists, SwarmError> {
    let refuse = |problem: String| SwarmError::File { path: path.into(), problem };
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        let problem = format!("is no file of signed lists: {} bytes, the header has 48", bytes.len());
        return Err(refuse(problem));
    };
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    if &header[..4] != MAGIC {
        return Err(refuse("is no file of signed lists: it does not begin with `QISL`".into()));
    }
    if word(4) != VERSION {
        return Err(refuse(format!("signed lists of version {}; this program reads {VERSION}", word(4))));
    }
    let (nodes, authors) = (word(40) as usize, word(44) as usize);
    if body.len() as u64 != nodes as u64 + authors as u64 {
        let problem =
            format!("the header announces {} bytes of lists, {} are there", nodes + authors, body.len());
        return Err(refuse(problem));
    }
    let swarm: Id = std::array::from_fn(|i| header[8 + i]);
    let mut lists = Lists::new(swarm);
    let (nodes, authors) = body.split_at(nodes);
    for (kind, part) in ListKind::ALL.into_iter().zip([nodes, authors]) {
        let wrong = |source| SwarmError::List { path: path.into(), kind: kind.name(), source };
        if part.is_empty() {
            continue;
        }
        let list = List::parse(part).map_err(wrong)?;
        if list.kind() != kind {
            return Err(refuse(format!(
                "a list of {} where one of {} belongs",
                list.kind().name(),
                kind.name()
            )));
        }
        match lists.offer(list) {
            Outcome::BadSignature(source) => return Err(wrong(source)),
            Outcome::AnotherSwarm { swarm: found } => {
                let (found, expected) = (hex(&found), hex(&swarm));
                return Err(SwarmError::OtherSwarm { path: path.into(), found, expected });
            }
            // Nothing was held before, so none can be older or rival.
            Outcome::Taken | Outcome::Known | Outcome::Older { .. } | Outcome::Equivocation { .. } => {}
        }
    }
    Ok(lists)
}

fn encode(lists: &Lists) -> Vec<u8> {
    let parts = ListKind::ALL.map(|kind| lists.list(kind).map_or(&[][..], |list| list.as_bytes()));
    let mut bytes = Vec::with_capacity(HEADER_BYTES + parts[0].len() + parts[1].len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(lists.swarm());
    // At most LIST_BYTES_MAX each, which fits.
    parts.iter().for_each(|part| bytes.extend((part.len() as u32).to_le_bytes()));
    parts.iter().for_each(|part| bytes.extend(*part));
    bytes
}

fn save(path: &Path, lists: &Lists) -> Result<(), SwarmError> {
    let io = |source| SwarmError::Io { path: path.into(), source };
    files::replace(path, &encode(lists), Readers::All).map_err(io)
}

/// `lists`, or newer ones of the same swarm that a node kept in its store's folder.
///
/// # Errors
/// I/O; a kept file that is damaged or of another swarm, which is left as it is.
pub fn with_kept(folder: &Path, mut lists: Lists) -> Result<Lists, SwarmError> {
    let path = folder.join(KEPT_FILE);
    if !path.exists() {
        return Ok(lists);
    }
    let kept = load(&path)?;
    if kept.swarm() != lists.swarm() {
        let (found, expected) = (hex(kept.swarm()), hex(lists.swarm()));
        return Err(SwarmError::OtherSwarm { path, found, expected });
    }
    for list in ListKind::ALL.into_iter().filter_map(|kind| kept.list(kind)) {
        if let Outcome::Equivocation { epoch, .. } = lists.offer((**list).clone()) {
            let kind = list.kind().name();
            tracing::error!(epoch, "the swarm key signed two different lists of {kind} under one epoch");
        }
    }
    Ok(lists)
}

/// Keeps the lists in the store's folder, and of each the newer one where the folder has it already:
/// what was revoked stays revoked after a restart. Only once the store is open, which takes no folder
/// with files that it does not know. Blocks on the disk.
///
/// # Errors
/// As [`with_kept`]; the old file is there then.
pub fn save_newest(folder: &Path, lists: &Lists) -> Result<(), SwarmError> {
    let newest = with_kept(folder, lists.clone())?;
    save(&folder.join(KEPT_FILE), &newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::lists::{Draft, SwarmKey, Validity};

    fn lists(seed: u8, epochs: [u64; 2]) -> Lists {
        let key = SwarmKey::from_seed([seed; 32]);
        let mut lists = Lists::new(*key.public());
        for (kind, epoch) in ListKind::ALL.into_iter().zip(epochs).filter(|(_, epoch)| *epoch > 0) {
            let entries = [(vec![epoch as u8; 32], Validity { from_ms: 0, until_ms: 0 })].into();
            let signed = key.sign(&Draft { kind, epoch, issued_at_ms: 0, entries }).unwrap();
            assert_eq!(lists.offer((*signed).clone()), Outcome::Taken);
        }
        lists
    }

    fn same(a: &Lists, b: &Lists) -> bool {
        encode(a) == encode(b)
    }

    #[test]
    fn lists_come_back_from_the_file() {
        for epochs in [[0, 0], [1, 0], [0, 2], [3, 4]] {
            let lists = lists(1, epochs);
            let read = decode(Path::new("x.qsl"), &encode(&lists)).unwrap();
            assert_eq!((read.epochs(), same(&read, &lists)), ((epochs[0], epochs[1]), true));
        }
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        let good = encode(&lists(1, [1, 1]));
        let refused = |bytes: &[u8]| decode(Path::new("x.qsl"), bytes).unwrap_err().to_string();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(refused(b"QISL").contains("x.qsl: is no file of signed lists: 4 bytes"));
        assert!(refused(&with(0, b'X')).contains("does not begin with `QISL`"));
        assert!(refused(&with(4, 2)).contains("version 2"));
        assert!(refused(&good[..good.len() - 1]).contains("bytes of lists"));
        assert!(refused(&with(8, good[8] ^ 1)).contains("is of swarm"));
        assert!(refused(&with(48, 9)).contains("list of nodes: list field `version`"));
        assert!(
            refused(&with(good.len() - 1, good[good.len() - 1] ^ 1))
                .contains("list of authors: list field `signature`")
        );
        assert!(refused(&with(49, 1)).contains("a list of authors where one of nodes belongs"));
        // Every single byte counts.
        for (at, byte) in good.iter().enumerate() {
            refused(&with(at, byte ^ 0x10));
        }
    }

    #[test]
    fn a_node_keeps_the_newest_of_each_list() {
        let folder = tempfile::tempdir().unwrap();
        let given = lists(1, [2, 5]);
        assert!(same(&with_kept(folder.path(), given.clone()).unwrap(), &given));
        save_newest(folder.path(), &lists(1, [4, 0])).unwrap();
        assert_eq!(with_kept(folder.path(), given.clone()).unwrap().epochs(), (4, 5));
        save_newest(folder.path(), &given).unwrap();
        assert_eq!(load(folder.path()).unwrap().epochs(), (4, 5));
        save_newest(folder.path(), &lists(1, [1, 1])).unwrap();
        assert_eq!(load(&folder.path().join(KEPT_FILE)).unwrap().epochs(), (4, 5));

        let foreign = save_newest(folder.path(), &lists(2, [9, 9])).unwrap_err();
        assert!(matches!(foreign, SwarmError::OtherSwarm { .. }));
        assert_eq!(load(folder.path()).unwrap().epochs(), (4, 5));
    }
}
