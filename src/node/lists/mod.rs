//! Signed lists: which storage nodes and which authors a swarm admits.
//!
//! A swarm is named by the public key of its swarm key, ed25519, 32 bytes. The swarm key signs two
//! lists, one of storage nodes (by binary peer id) and one of authors (by author key). Each has an
//! epoch of its own, which rises with every change; nodes pass lists on, and the highest epoch wins.
//! So one list that reaches one node admits or revokes everywhere, and an old list brings nobody back.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind: 0 nodes, 1 authors |
//! | 2 | 32 | swarm key |
//! | 34 | 8 | epoch, from 1 |
//! | 42 | 8 | issued at, Unix ms; for people, no rule reads it |
//! | 50 | 4 | number of entries, at most [`MEMBERS_MAX`] nodes or [`AUTHORS_LISTED_MAX`] authors |
//! | 54 | | the entries, ascending by key as byte strings, each key once |
//! | end - 64 | 64 | ed25519 signature over BLAKE3 `derive_key("qis 1 list", all bytes before)` |
//!
//! Integers are little-endian. An entry is
//!
//! | bytes | field |
//! |---|---|
//! | 1 | bytes of the key: 1..=[`PEER_ID_BYTES_MAX`] for a node, 32 for an author |
//! | that many | the key |
//! | 8 | from, Unix ms: admitted from this time on |
//! | 8 | until, Unix ms: no longer admitted at this time; after `from`, or 0 for never |
//!
//! Two contents have two encodings, so a list is named by the digest that is signed. As with packets,
//! three types keep what is known apart: a [`Draft`] is what the holder of the swarm key fills in, a
//! [`List`] obeys every rule that needs no key, a [`SignedList`] has a good signature too.

mod newest;
#[cfg(test)]
mod tests;

pub use newest::{Lists, Outcome};

use crate::limits::{AUTHORS_LISTED_MAX, MEMBERS_MAX, PEER_ID_BYTES_MAX};
use crate::packet::{Id, hex};
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_zebra::{Signature, SigningKey, VerificationKey, VerificationKeyBytes};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Version of the encoding.
const VERSION: u8 = 1;
/// Bytes before the first entry.
const HEADER_BYTES: usize = 54;
const SIGNATURE_BYTES: usize = 64;
/// Bytes of an entry without its key.
const ENTRY_BYTES: usize = 1 + 8 + 8;
const AUTHOR_KEY_BYTES: usize = 32;

/// Bytes of the longest list of either kind: what a reader has to take at most.
pub const LIST_BYTES_MAX: usize = {
    let nodes = MEMBERS_MAX * (ENTRY_BYTES + PEER_ID_BYTES_MAX);
    let authors = AUTHORS_LISTED_MAX * (ENTRY_BYTES + AUTHOR_KEY_BYTES);
    HEADER_BYTES + (if nodes > authors { nodes } else { authors }) + SIGNATURE_BYTES
};
// Lengths of lists travel and lie on disk as u32.
const _: () = assert!(LIST_BYTES_MAX <= u32::MAX as usize);

/// Whom a list admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListKind {
    /// Storage nodes, by binary peer id.
    Nodes,
    /// Authors, by author key.
    Authors,
}

impl ListKind {
    /// Both, in the order of their bytes.
    pub const ALL: [ListKind; 2] = [ListKind::Nodes, ListKind::Authors];

    /// Most entries of such a list.
    pub const fn entries_max(self) -> usize {
        match self {
            ListKind::Nodes => MEMBERS_MAX,
            ListKind::Authors => AUTHORS_LISTED_MAX,
        }
    }

    /// `nodes` or `authors`.
    pub const fn name(self) -> &'static str {
        match self {
            ListKind::Nodes => "nodes",
            ListKind::Authors => "authors",
        }
    }

    fn takes_key(self, bytes: usize) -> bool {
        match self {
            ListKind::Nodes => (1..=PEER_ID_BYTES_MAX).contains(&bytes),
            ListKind::Authors => bytes == AUTHOR_KEY_BYTES,
        }
    }
}

/// When an entry admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Unix milliseconds, inclusive.
    pub from_ms: u64,
    /// Unix milliseconds, exclusive and after `from_ms`; 0 means without end.
    pub until_ms: u64,
}

impl Validity {
    pub fn holds(&self, now_ms: u64) -> bool {
        self.from_ms <= now_ms && !self.ended(now_ms)
    }

    /// Whether the end has come.
    pub fn ended(&self, now_ms: u64) -> bool {
        self.until_ms != 0 && self.until_ms <= now_ms
    }
}

/// A field of a list, as named in refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListField {
    Length,
    Version,
    Kind,
    Swarm,
    Epoch,
    Count,
    /// The key of an entry, by index from 0.
    Key(usize),
    /// The end of an entry, by index from 0.
    Until(usize),
    Signature,
}

impl fmt::Display for ListField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ListField::Length => "length",
            ListField::Version => "version",
            ListField::Kind => "kind",
            ListField::Swarm => "swarm key",
            ListField::Epoch => "epoch",
            ListField::Count => "count",
            ListField::Key(index) => return write!(f, "key of entry {index}"),
            ListField::Until(index) => return write!(f, "until of entry {index}"),
            ListField::Signature => "signature",
        })
    }
}

/// Why bytes are no list, or a draft can be none: the field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("list field `{field}`: {problem}")]
pub struct ListError {
    pub field: ListField,
    pub problem: String,
}

fn refuse<T>(field: ListField, problem: impl Into<String>) -> Result<T, ListError> {
    Err(ListError { field, problem: problem.into() })
}

/// What the holder of the swarm key signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub kind: ListKind,
    /// From 1, and above every epoch of this list that was ever signed.
    pub epoch: u64,
    /// Unix milliseconds.
    pub issued_at_ms: u64,
    /// By binary peer id or by author key.
    pub entries: BTreeMap<Vec<u8>, Validity>,
}

/// A list whose bytes obey every rule of the encoding; its signature is not checked yet. A clone
/// shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct List {
    kind: ListKind,
    swarm: Id,
    epoch: u64,
    issued_at_ms: u64,
    count: usize,
    bytes: Arc<[u8]>,
}

/// A list with a good signature of the swarm that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedList(List);

impl std::ops::Deref for SignedList {
    type Target = List;
    fn deref(&self) -> &List {
        &self.0
    }
}

/// The first entry of `bytes` and what follows it; `None` where they end too early.
fn split_entry(bytes: &[u8]) -> Option<(&[u8], Validity, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (key, rest) = rest.split_at_checked(length.into())?;
    let (from, rest) = rest.split_first_chunk()?;
    let (until, rest) = rest.split_first_chunk()?;
    let validity = Validity { from_ms: u64::from_le_bytes(*from), until_ms: u64::from_le_bytes(*until) };
    Some((key, validity, rest))
}

impl List {
    /// Checks bytes against every rule that needs neither a key nor a clock.
    ///
    /// # Errors
    /// The first field that breaks a rule, in the order of the byte table.
    pub fn parse(bytes: &[u8]) -> Result<List, ListError> {
        let short = || ListError {
            field: ListField::Length,
            problem: format!(
                "is {} bytes; a list without entries has {}",
                bytes.len(),
                HEADER_BYTES + SIGNATURE_BYTES
            ),
        };
        let (body, _) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or_else(short)?;
        let (header, mut rest) = body.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        if header[0] != VERSION {
            return refuse(ListField::Version, format!("is {}; this program reads {VERSION}", header[0]));
        }
        let kind = match header[1] {
            0 => ListKind::Nodes,
            1 => ListKind::Authors,
            kind => return refuse(ListField::Kind, format!("is {kind}; 0 (nodes) or 1 (authors) expected")),
        };
        let swarm = std::array::from_fn(|i| header[2 + i]);
        let (epoch, issued_at_ms) = (word(34), word(42));
        if epoch == 0 {
            return refuse(ListField::Epoch, "is 0; epochs begin with 1");
        }
        let count = u32::from_le_bytes(std::array::from_fn(|i| header[50 + i])) as usize;
        if count > kind.entries_max() {
            let most = kind.entries_max();
            return refuse(ListField::Count, format!("is {count}; at most {most} {} are taken", kind.name()));
        }
        let mut last: &[u8] = &[];
        for index in 0..count {
            let Some((key, validity, after)) = split_entry(rest) else {
                return refuse(ListField::Count, format!("is {count}, but the bytes end in entry {index}"));
            };
            check_entry(kind, index, key, &validity)?;
            if index > 0 && key <= last {
                return refuse(ListField::Key(index), "does not come after the key before it");
            }
            (last, rest) = (key, after);
        }
        if !rest.is_empty() {
            let problem = format!("is {count}, but {} bytes follow the last entry", rest.len());
            return refuse(ListField::Count, problem);
        }
        Ok(List { kind, swarm, epoch, issued_at_ms, count, bytes: bytes.into() })
    }

    /// Checks the swarm key and the signature.
    ///
    /// # Errors
    /// `swarm key` for one that is no curve point or of small order, `signature` for a bad one.
    pub fn verify(self) -> Result<SignedList, ListError> {
        if !is_public_key(&self.swarm) {
            return refuse(ListField::Swarm, "is no key: not a point of the curve, or of small order");
        }
        let bad = |_| ListError {
            field: ListField::Signature,
            problem: "does not fit the list and its swarm key".into(),
        };
        let signature: [u8; SIGNATURE_BYTES] = std::array::from_fn(|i| self.bytes[self.signed_bytes() + i]);
        let key = VerificationKey::try_from(self.swarm).map_err(bad)?;
        key.verify(&Signature::from(signature), &self.digest()).map_err(bad)?;
        Ok(SignedList(self))
    }

    pub fn kind(&self) -> ListKind {
        self.kind
    }
    /// The swarm that the list says it is of.
    pub fn swarm(&self) -> &Id {
        &self.swarm
    }
    /// From 1.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Unix milliseconds.
    pub fn issued_at_ms(&self) -> u64 {
        self.issued_at_ms
    }
    /// The encoding, signature included: at most [`LIST_BYTES_MAX`] bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// Number of entries, those of the past and of the future too.
    pub fn len(&self) -> usize {
        self.count
    }
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Binary peer ids or author keys, ascending, with their times.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Validity)> {
        let mut rest = &self.bytes[HEADER_BYTES..self.signed_bytes()];
        std::iter::from_fn(move || {
            let (key, validity, after) = split_entry(rest)?;
            rest = after;
            Some((key, validity))
        })
    }

    /// BLAKE3 `derive_key("qis 1 list", bytes before the signature)`: what is signed, and what names
    /// the content.
    pub fn digest(&self) -> Id {
        blake3::derive_key("qis 1 list", &self.bytes[..self.signed_bytes()])
    }

    fn signed_bytes(&self) -> usize {
        self.bytes.len() - SIGNATURE_BYTES
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List")
            .field("kind", &self.kind)
            .field("swarm", &hex(&self.swarm[..4]))
            .field("epoch", &self.epoch)
            .field("entries", &self.count)
            .finish()
    }
}

fn check_entry(kind: ListKind, index: usize, key: &[u8], validity: &Validity) -> Result<(), ListError> {
    if !kind.takes_key(key.len()) {
        let expected = match kind {
            ListKind::Nodes => format!("a binary peer id has 1..={PEER_ID_BYTES_MAX}"),
            ListKind::Authors => format!("an author key has {AUTHOR_KEY_BYTES}"),
        };
        return refuse(ListField::Key(index), format!("has {} bytes; {expected}", key.len()));
    }
    if validity.until_ms != 0 && validity.until_ms <= validity.from_ms {
        let problem = format!("is {}, not after `from`, {}", validity.until_ms, validity.from_ms);
        return refuse(ListField::Until(index), problem);
    }
    Ok(())
}

/// Whether 32 bytes are an ed25519 public key that binds its holder: a point of the curve, and not
/// of small order, for which anybody could sign.
pub fn is_public_key(key: &Id) -> bool {
    CompressedEdwardsY(*key).decompress().is_some_and(|point| !point.is_small_order())
}

/// The secret that admits to a swarm.
#[derive(Clone)]
pub struct SwarmKey {
    signing: SigningKey,
    public: Id,
}

impl SwarmKey {
    /// From the 32-byte ed25519 seed.
    pub fn from_seed(seed: [u8; 32]) -> SwarmKey {
        let signing = SigningKey::from_bytes(&seed);
        let public = VerificationKeyBytes::from(&signing).into();
        SwarmKey { signing, public }
    }

    /// The public key: the swarm's name.
    pub fn public(&self) -> &Id {
        &self.public
    }

    /// Encodes and signs. Two lists of one kind and epoch with different content prove that the
    /// holder of the key contradicts himself, so an epoch is kept on disk before it is signed.
    ///
    /// # Errors
    /// The field of the draft that breaks a rule of the encoding.
    pub fn sign(&self, draft: &Draft) -> Result<SignedList, ListError> {
        let (kind, count) = (draft.kind, draft.entries.len());
        if count > kind.entries_max() {
            let most = kind.entries_max();
            return refuse(ListField::Count, format!("is {count}; at most {most} {} are taken", kind.name()));
        }
        if draft.epoch == 0 {
            return refuse(ListField::Epoch, "is 0; epochs begin with 1");
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + count * (ENTRY_BYTES + 40) + SIGNATURE_BYTES);
        bytes.extend([VERSION, kind as u8]);
        bytes.extend(self.public);
        bytes.extend(draft.epoch.to_le_bytes());
        bytes.extend(draft.issued_at_ms.to_le_bytes());
        bytes.extend((count as u32).to_le_bytes());
        for (index, (key, validity)) in draft.entries.iter().enumerate() {
            check_entry(kind, index, key, validity)?;
            bytes.push(key.len() as u8);
            bytes.extend(key);
            bytes.extend(validity.from_ms.to_le_bytes());
            bytes.extend(validity.until_ms.to_le_bytes());
        }
        let digest = blake3::derive_key("qis 1 list", &bytes);
        bytes.extend(<[u8; SIGNATURE_BYTES]>::from(self.signing.sign(&digest)));
        Ok(SignedList(List {
            kind,
            swarm: self.public,
            epoch: draft.epoch,
            issued_at_ms: draft.issued_at_ms,
            count,
            bytes: bytes.into(),
        }))
    }
}
