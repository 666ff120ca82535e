//! Packets on disk: `address | sequence -> packet`, deduplicated by packet id, superseded by
//! (author, evidence id).
//!
//! [`DiskStore`] keeps them across crashes, [`MemoryStore`] is its twin for tests and simulations.
//! Both obey the same rules, and one suite of tests holds them to it:
//!
//! - Every rule works inside one mailbox. What a mailbox holds depends on the deposits to that
//!   mailbox alone, so two replicas of it agree whatever else each of them carries. A packet that
//!   lies at several addresses is deduplicated at each of them; a reader of several mailboxes merges
//!   by packet id.
//! - A packet that has expired (`expires_at != 0 && expires_at <= now`) is not accepted, not
//!   returned, and removed by [`PacketStore::sweep`]. A retraction never expires.
//! - Of the observed packets of one (author, evidence id) the highest author's sequence number wins,
//!   ties by larger packet id. The others leave the mailbox and do not come back, not even after the
//!   winner has expired or has been retracted: a marker of about 100 bytes stays.
//! - A retraction removes the packet it names, now or when that packet arrives, if both have the same
//!   author. It counts after supersede, so retracting a newer version revives no older one.
//!   Retractions themselves cannot be retracted.
//! - Sequences of a mailbox ascend from 1 and are used once in an epoch. A reader who pulled a packet
//!   before it was superseded or retracted sees the newer version or the retraction under a new
//!   sequence and sorts the older one out itself.
//! - [`Caps`] bound what a mailbox holds. A packet beyond them is refused as if nobody had heard of it,
//!   unless it takes another one's place: a newer version, or the retraction of a packet that is there.
//!
//! [`Ledger`] is these rules in their plainest form.

mod digest;
mod disk;
mod ledger;
mod memory;
#[cfg(test)]
mod tests;

pub use digest::{Digest, Range};

pub use disk::files::read_format;
pub use disk::{DiskStore, Health, Loss, OpenReport, Scrubbed};
pub use ledger::Ledger;
pub use memory::MemoryStore;

use crate::address::Address;
use crate::packet::{Id, Kind, Packet, Verified};
use std::io;
use std::path::PathBuf;

/// A place in one replica's mailbox: packets with a larger sequence are new. Never compared across
/// replicas or epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The replica that gave it out.
    pub replica: Id,
    /// Changes when the replica has lost packets, so that old cursors expire instead of skipping.
    pub epoch: u64,
    /// Sequence of the last packet seen.
    pub sequence: u64,
}

impl Cursor {
    /// Where a pull begins, in a mailbox whose last sequence is `last`, for a store that starts here.
    fn resume(self, given: Option<Cursor>, last: u64) -> Result<Cursor, StoreError> {
        let Some(given) = given else { return Ok(self) };
        // A sequence never given out shows that the store was put back to an older copy of itself.
        if given.replica != self.replica || given.epoch != self.epoch || given.sequence > last {
            return Err(StoreError::CursorExpired { given: given.epoch, current: self.epoch });
        }
        Ok(given)
    }
}

/// What became of one deposited packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deposited {
    /// On disk and synced.
    Stored,
    /// Was there already.
    Duplicate,
    /// Not kept: a newer version, or the author's retraction, is there, or it has expired.
    Obsolete,
    /// Not kept: the mailbox, or its author's part of it, is full. May be deposited again later.
    OverQuota,
}

impl Deposited {
    /// Why a packet is not kept, for who deposited it; `None` for one that is.
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Deposited::Stored | Deposited::Duplicate => None,
            Deposited::Obsolete => {
                Some("obsolete: it has expired, or a newer version or the author's retraction is here")
            }
            Deposited::OverQuota => Some("the mailbox, or its author's part of it, is full"),
        }
    }
}

/// Most packets of one mailbox, expired ones included until they are swept; 0 is no cap. Replicas with
/// different caps, or with one cap and another order of arrival, come to hold different packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    pub mailbox_packets: u64,
    /// Of one author in one mailbox.
    pub author_packets: u64,
}

impl Caps {
    /// Whether a mailbox with so many packets, so many of them of one author, takes no more of theirs.
    fn are_reached(&self, of_mailbox: u64, of_author: u64) -> bool {
        let reached = |count, cap| cap != 0 && count >= cap;
        reached(of_mailbox, self.mailbox_packets) || reached(of_author, self.author_packets)
    }
}

/// One page of a mailbox, in ascending sequence.
#[derive(Clone, Debug)]
pub struct Page {
    pub packets: Vec<Verified>,
    /// Where to go on; also valid when the page is empty.
    pub cursor: Cursor,
    /// Whether more packets lie behind the cursor now.
    pub more: bool,
}

/// What a mailbox holds; packets that have expired count until they are swept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// All packets, of every kind.
    pub packets: u64,
    pub observed: u64,
    pub syntheses: u64,
    pub retractions: u64,
}

impl Stat {
    /// The counter of one kind.
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Observed => &mut self.observed,
            Kind::Synthesis => &mut self.syntheses,
            Kind::Retraction => &mut self.retractions,
        }
    }

    pub(crate) fn add(&mut self, kind: Kind) {
        self.packets += 1;
        *self.of(kind) += 1;
    }

    /// Saturates, because the counters come from disk.
    fn remove(&mut self, kind: Kind) {
        self.packets = self.packets.saturating_sub(1);
        let count = self.of(kind);
        *count = count.saturating_sub(1);
    }
}

/// A store of one replica. Batch-first: one call is one sync, and a packet whose result is
/// `Stored` or `Duplicate` survives any crash after the call has returned.
///
/// The calls block on the disk: asynchronous callers run them on a thread for blocking work, as
/// [`crate::mailbox::LocalMailbox`] does.
pub trait PacketStore: Send + Sync {
    /// Stores packets, each in its mailbox; results are in the order of the batch. `now_ms` is Unix
    /// time, and holds for pulls too until another time is told.
    ///
    /// # Errors
    /// Nothing of the batch is acknowledged then.
    fn deposit(&self, now_ms: u64, batch: &[(Address, Verified)]) -> Result<Vec<Deposited>, StoreError>;

    /// At most `max` packets of a mailbox after `cursor`, or from its beginning. Packets that have
    /// expired by the time last told, and damaged records, are passed over.
    ///
    /// # Errors
    /// [`StoreError::CursorExpired`] for a cursor of another epoch or replica, or of a sequence that
    /// this mailbox never gave out.
    fn pull(&self, address: &Address, cursor: Option<Cursor>, max: usize) -> Result<Page, StoreError>;

    /// What a mailbox holds; zeros for one that nobody has deposited to.
    ///
    /// # Errors
    /// I/O.
    fn stat(&self, address: &Address) -> Result<Stat, StoreError>;

    /// The cursor behind the last packet of a mailbox, as of now: a pull from it brings what arrives
    /// later, and nothing else.
    ///
    /// # Errors
    /// I/O.
    fn end(&self, address: &Address) -> Result<Cursor, StoreError>;

    /// Tells the time, Unix milliseconds: a store has no clock. Packets that expire by then are no
    /// longer returned.
    fn set_now(&self, now_ms: u64);

    /// Removes what has expired, in every mailbox; returns the number of packets removed. Also tells
    /// the time.
    ///
    /// # Errors
    /// I/O; what was removed before stays removed.
    fn sweep(&self, now_ms: u64) -> Result<u64, StoreError>;

    /// Removes all packets of a mailbox whose digest is `digest` at this time (Unix ms), which others hold; returns their
    /// number, 0 where the digest is another one. What the mailbox knows beside its packets stays: cursors
    /// go on behind what comes later, and what is obsolete stays so. Also tells the time.
    ///
    /// # Errors
    /// I/O; what was removed before stays removed.
    fn leave(&self, now_ms: u64, address: &Address, digest: &Digest) -> Result<u64, StoreError>;

    /// The cursor before the first packet of any mailbox: the store's replica id and its epoch.
    fn start(&self) -> Cursor;

    /// All mailboxes that somebody has deposited to, ascending by address, with what they hold.
    ///
    /// # Errors
    /// I/O.
    fn addresses(&self) -> Result<Vec<(Address, Stat)>, StoreError>;

    /// Ids of a mailbox's packets larger than `after`, ascending as byte strings, at most `max`,
    /// without the expired and those known to be damaged.
    ///
    /// # Errors
    /// I/O.
    fn ids(&self, address: &Address, after: Option<&Id>, max: usize) -> Result<Vec<Id>, StoreError>;

    /// The packets of these ids that are in the mailbox, in the order of the ids.
    ///
    /// # Errors
    /// I/O.
    fn fetch(&self, address: &Address, ids: &[Id]) -> Result<Vec<Verified>, StoreError>;

    /// Digest of a mailbox's packets, without the expired and those known to be damaged: exactly of
    /// what [`PacketStore::ids`] lists. Of an empty or unknown mailbox it is [`Digest::default`].
    ///
    /// # Errors
    /// I/O.
    fn digest(&self, address: &Address) -> Result<Digest, StoreError>;

    /// Addresses larger than `after` with their digests, ascending, at most `max`; fewer only at the
    /// end. Mailboxes with nothing to list are left out.
    ///
    /// # Errors
    /// I/O.
    fn digests(&self, after: Option<&Address>, max: usize) -> Result<Vec<(Address, Digest)>, StoreError>;

    /// What a mailbox holds under a prefix of the packet id, 0 to 31 bytes: ids, or digests of parts
    /// where they are many. The same packets as [`PacketStore::digest`] sums up.
    ///
    /// # Errors
    /// I/O.
    fn range(&self, address: &Address, prefix: &[u8]) -> Result<Range, StoreError>;
}

/// Whether a packet has expired. A retraction never does: what it took back would return.
pub(crate) fn expired(packet: &Packet, now_ms: u64) -> bool {
    expiry(packet).is_some_and(|at| at <= now_ms)
}

/// When a packet expires, Unix milliseconds.
fn expiry(packet: &Packet) -> Option<u64> {
    (packet.kind() != Kind::Retraction && packet.expires_at() != 0).then(|| packet.expires_at())
}

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the cursor was given out at epoch {given} or by another replica; this mailbox is at epoch {current}: pull from the beginning"
    )]
    CursorExpired { given: u64, current: u64 },
    #[error("store {path}: is open in another process or place; close that one, or use another folder")]
    Locked { path: PathBuf },
    #[error("store {path}: {problem}")]
    Format { path: PathBuf, problem: String },
    #[error(
        "store {path}: has format version {found}, this program reads version {known}; nothing was opened: use the program that wrote it, or move the folder away and start empty, to be refilled from the replicas"
    )]
    Version { path: PathBuf, found: u32, known: u32 },
    #[error(
        "store {path}: the disk is full; nothing acknowledged is lost: free space, then open the store again"
    )]
    Full { path: PathBuf },
    #[error("store {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("store {path}: {problem}; open the store again: it then checks itself and says what was lost")]
    Damaged { path: PathBuf, problem: String },
    #[error(
        "store {path}: writes stopped after an earlier failure ({reason}); remove its cause, then open the store again"
    )]
    Halted { path: PathBuf, reason: String },
}
