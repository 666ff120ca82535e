//! Packets on disk: `address | sequence -> packet`, deduplicated by packet id, superseded by
//! (author, evidence id).

use crate::address::Address;
use crate::packet::{Id, Verified};

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

/// What became of one deposited packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deposited {
    /// On disk and synced.
    Stored,
    /// Was there already.
    Duplicate,
    /// Not kept: a newer version, or the author's retraction, is there, or it has expired.
    Obsolete,
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

/// What a mailbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// All packets, of every kind.
    pub packets: u64,
    pub observed: u64,
    pub syntheses: u64,
    pub retractions: u64,
}

/// A store of one replica. Batch-first: one call is one sync, and a packet whose result is
/// `Stored` or `Duplicate` survives any crash after the call has returned.
pub trait PacketStore: Send + Sync {
    /// Stores packets, each in its mailbox; results are in the order of the batch.
    ///
    /// # Errors
    /// Nothing of the batch is acknowledged then.
    fn deposit(&self, now_ms: u64, batch: &[(Address, Verified)]) -> Result<Vec<Deposited>, StoreError>;

    /// At most `max` packets of a mailbox after `cursor`, or from its beginning.
    ///
    /// # Errors
    /// [`StoreError::CursorExpired`] for a cursor of another epoch or replica.
    fn pull(&self, address: &Address, cursor: Option<Cursor>, max: usize) -> Result<Page, StoreError>;

    /// What a mailbox holds; zeros for one that nobody has deposited to.
    ///
    /// # Errors
    /// I/O.
    fn stat(&self, address: &Address) -> Result<Stat, StoreError>;
}

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the cursor belongs to epoch {given} of the mailbox, which is at epoch {current}: pull from the beginning"
    )]
    CursorExpired { given: u64, current: u64 },
}
