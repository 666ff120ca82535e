//! The mailboxes that a node keeps: admission, a store, and cursors in the node's name. Everything
//! here blocks on the disk.

use crate::address::Address;
use crate::limits::{COMPARE_MAILBOXES_MAX, FRAME_PACKETS_MAX};
use crate::mailbox::{Clock, SystemClock};
use crate::node::deposit::Answer;
use crate::node::{Held, NodeKey};
use crate::packet::{Id, Verified};
use crate::store::{Cursor, Deposited, Digest, PacketStore, Page, Range, Stat, StoreError};
use std::cell::RefCell;
use std::sync::Arc;

/// Says whether a packet may lie at an address at a time (Unix ms), or why not, in a line.
pub type Admit = dyn Fn(&Address, &Verified, u64) -> Result<(), String> + Send + Sync;

/// Digests of mailboxes, ascending by address, and where to go on.
type DigestsPage = (Vec<(Address, Digest)>, Option<Address>);

/// The mailboxes that a node keeps.
#[derive(Clone)]
pub struct Storage {
    /// Any store: its cursors are rewritten to the node's name, see [`Storage::pull`].
    pub store: Arc<dyn PacketStore>,
    pub admission: Arc<Admit>,
}

impl Storage {
    /// Answers of the store to verified packets; for packets of this node and of others alike.
    ///
    /// # Errors
    /// The store's; nothing is acknowledged then.
    pub(super) fn deposit(&self, batch: Vec<(Address, Verified)>) -> Result<Vec<Answer>, StoreError> {
        let now_ms = SystemClock.now_ms();
        let mut answers = Vec::with_capacity(batch.len());
        let mut admitted = Vec::with_capacity(batch.len());
        for (address, packet) in batch {
            answers.push(match (self.admission)(&address, &packet, now_ms) {
                Ok(()) => {
                    admitted.push((address, packet));
                    None
                }
                Err(reason) => Some(Answer::Rejected(reason)),
            });
        }
        let stored = if admitted.is_empty() { Vec::new() } else { self.store.deposit(now_ms, &admitted)? };
        let mut stored = stored.into_iter().map(answer_of);
        let one = |answer: Option<Answer>| {
            answer
                .or_else(|| stored.next())
                .unwrap_or_else(|| Answer::Rejected("the store gave no result".into()))
        };
        Ok(answers.into_iter().map(one).collect())
    }

    /// A page of the store under the name of the node `local`: readers know nodes, not stores, and
    /// find their cursor by the node's key.
    ///
    /// # Errors
    /// The store's; [`StoreError::CursorExpired`] also for a cursor of another node.
    pub(super) fn pull(
        &self,
        local: NodeKey,
        address: &Address,
        cursor: Option<Cursor>,
        max: usize,
    ) -> Result<Page, StoreError> {
        let start = self.store.start();
        let epoch = epoch_name(&start);
        let cursor = match cursor {
            Some(cursor) if (cursor.replica, cursor.epoch) != (local.0, epoch) => {
                return Err(StoreError::CursorExpired { given: cursor.epoch, current: epoch });
            }
            cursor => cursor.map(|cursor| Cursor { sequence: cursor.sequence, ..start }),
        };
        self.tell_time();
        let mut page = self.store.pull(address, cursor, max.min(FRAME_PACKETS_MAX))?;
        page.cursor = Cursor { replica: local.0, epoch, sequence: page.cursor.sequence };
        Ok(page)
    }

    /// What a mailbox holds, its digest, and the cursor behind its last packet.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn stat(
        &self,
        local: NodeKey,
        address: &Address,
    ) -> Result<(Stat, Digest, Cursor), StoreError> {
        self.tell_time();
        // The cursor before the digest: what arrives between them is in the digest, and comes again.
        let end = self.store.end(address)?;
        let digest = self.store.digest(address)?;
        let cursor = Cursor { replica: local.0, epoch: epoch_name(&end), sequence: end.sequence };
        Ok((self.store.stat(address)?, digest, cursor))
    }

    /// # Errors
    /// The store's.
    pub(super) fn ranges(&self, address: &Address, prefixes: &[Vec<u8>]) -> Result<Vec<Range>, StoreError> {
        self.tell_time();
        prefixes.iter().map(|prefix| self.store.range(address, prefix)).collect()
    }

    /// # Errors
    /// The store's.
    pub(super) fn fetch(&self, address: &Address, ids: &[Id]) -> Result<Vec<Verified>, StoreError> {
        self.tell_time();
        self.store.fetch(address, ids)
    }

    /// Digests of mailboxes after an address of which `theirs` says that the one who asks should hold them,
    /// and where to go on. Looks at a bounded number of mailboxes.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn digests(
        &self,
        after: Option<Address>,
        theirs: impl Fn(&Address) -> bool,
    ) -> Result<DigestsPage, StoreError> {
        /// Mailboxes that are looked at for one answer.
        const LOOKED_AT_MAX: usize = 16 * COMPARE_MAILBOXES_MAX;
        self.tell_time();
        let (mut found, mut after, mut looked_at) = (Vec::new(), after, 0);
        while looked_at < LOOKED_AT_MAX {
            let page = self.store.digests(after.as_ref(), COMPARE_MAILBOXES_MAX)?;
            let last = page.len() < COMPARE_MAILBOXES_MAX;
            looked_at += page.len();
            for (address, digest) in page {
                if found.len() == COMPARE_MAILBOXES_MAX {
                    return Ok((found, after));
                }
                after = Some(address);
                if digest.count > 0 && theirs(&address) {
                    found.push((address, digest));
                }
            }
            if last {
                return Ok((found, None));
            }
        }
        Ok((found, after))
    }

    /// Removes a mailbox whose packets others hold, if its digest is still this one; says how many went.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn leave(&self, address: &Address, digest: &Digest) -> Result<u64, StoreError> {
        self.store.leave(SystemClock.now_ms(), address, digest)
    }

    fn tell_time(&self) {
        self.store.set_now(SystemClock.now_ms());
    }
}

fn answer_of(deposited: Deposited) -> Answer {
    match deposited.refusal() {
        Some(reason) => Answer::Rejected(reason.into()),
        None if deposited == Deposited::Duplicate => Answer::Duplicate,
        None => Answer::Stored,
    }
}

/// The epoch that stands in a node's cursors: a name of the store's replica id and epoch together, so
/// that cursors expire when either changes. First 8 bytes, little-endian, of BLAKE3
/// `derive_key("qis 1 cursor epoch", replica | epoch u64)`.
fn epoch_name(start: &Cursor) -> u64 {
    let mut material = [0; 40];
    material[..32].copy_from_slice(&start.replica);
    material[32..].copy_from_slice(&start.epoch.to_le_bytes());
    let hash = blake3::derive_key("qis 1 cursor epoch", &material);
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

/// One mailbox of a store, as a comparison sees it.
pub(super) struct StoredMailbox<'a> {
    pub storage: &'a Storage,
    pub address: &'a Address,
    /// Ids that the store has refused: it will not take them, so they are not asked for again.
    pub refused: &'a dyn Fn(&Id) -> bool,
    /// The first error of the store; what follows it looks empty.
    pub error: RefCell<Option<StoreError>>,
}

impl StoredMailbox<'_> {
    fn noting<T: Default>(&self, result: Result<T, StoreError>) -> T {
        result.unwrap_or_else(|error| {
            self.error.borrow_mut().get_or_insert(error);
            T::default()
        })
    }
}

impl Held for StoredMailbox<'_> {
    fn parts(&self, prefix: &[u8]) -> Box<[Digest; 256]> {
        let range = self.storage.store.range(self.address, prefix).map(Some);
        let range = self.noting(range).unwrap_or(Range::Ids(Vec::new()));
        range.into_parts(prefix.len())
    }

    fn knows(&self, id: &Id) -> bool {
        (self.refused)(id) || {
            // All of an id but its last byte: at most a few ids are under it.
            let range = self.noting(self.storage.store.range(self.address, &id[..31]).map(Some));
            matches!(range, Some(Range::Ids(ids)) if ids.contains(id))
        }
    }
}
