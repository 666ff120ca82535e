//! Deposit, pull and stat by address, over a local store, a shared folder or bucket, or the nodes that
//! hold a mailbox.
//!
//! [`Mailbox`] is what the loop needs of the world; who implements it decides where packets lie.

mod admission;
mod local;
mod objects;
#[cfg(test)]
mod tests;

pub use admission::Admission;
pub use local::{Clock, LocalMailbox, SystemClock};
pub use objects::ObjectMailbox;

use crate::address::Address;
use crate::packet::{Id, Verified};
use crate::store::{Cursor, Stat};
use std::future::Future;

/// What became of one packet offered to a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    Stored,
    Duplicate,
    /// Not kept, with the reason for the depositor.
    Rejected(String),
}

/// Where a reader stands in one mailbox: one cursor per replica read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(pub Vec<Cursor>);

/// What a pull brought.
#[derive(Clone, Debug, Default)]
pub struct Pulled {
    /// Only packets not seen from that position, each id once.
    pub packets: Vec<Verified>,
    pub position: Position,
    /// Bytes that crossed the network; 0 for a local store.
    pub bytes: u64,
}

/// Mailboxes by address, wherever they lie.
pub trait Mailbox: Send + Sync {
    /// Puts packets into their mailboxes; acknowledged (`Stored`, `Duplicate`) means that the
    /// required number of disks has synced. Receipts are in the order of the batch.
    fn deposit(
        &self,
        batch: &[(Address, Verified)],
    ) -> impl Future<Output = Result<Vec<Receipt>, MailboxError>> + Send;

    /// All packets of a mailbox beyond a position.
    fn pull(
        &self,
        address: &Address,
        from: &Position,
    ) -> impl Future<Output = Result<Pulled, MailboxError>> + Send;

    /// What the mailbox holds.
    fn stat(&self, address: &Address) -> impl Future<Output = Result<Stat, MailboxError>> + Send;
}

/// Why a mailbox cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum MailboxError {
    #[error("no replica of mailbox {} answers: {reason}", crate::packet::hex(&address[..8]))]
    Unreachable { address: Id, reason: String },
    #[error("the program is stopping; the deposit may or may not have been stored: deposit it again")]
    Stopping,
    /// A shared folder or a bucket.
    #[error("{url}: {problem}; {remedy}")]
    Objects { url: String, problem: String, remedy: String },
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// The message with those of its causes that it does not contain already.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
