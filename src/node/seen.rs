//! What a reader has heard of one mailbox: ids, and which of them are live.

use super::reconcile::Held;
use crate::packet::{Id, Verified};
use crate::store::{Digest, Ledger};
use std::collections::HashSet;

/// A reader's memory of one mailbox. It applies the rules of a store, so its digest equals that of a
/// replica that holds the same packets.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    now_ms: u64,
    ledger: Ledger,
    /// Ids heard of, live or not: what was superseded here may still lie on a replica that has missed
    /// the newer version.
    heard: HashSet<Id>,
}

impl Seen {
    /// Tells the time, Unix milliseconds: what has expired by then is not live.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Takes a packet in; false if it was heard of before.
    pub fn insert(&mut self, packet: &Verified) -> bool {
        let new = self.heard.insert(packet.id());
        if new {
            self.ledger.deposit(self.now_ms, packet);
        }
        new
    }

    /// Packets heard of.
    pub fn len(&self) -> usize {
        self.heard.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heard.is_empty()
    }

    /// The digest of what is live.
    pub fn digest(&self) -> Digest {
        self.ledger.digest(self.now_ms)
    }
}

impl Held for Seen {
    fn parts(&self, prefix: &[u8]) -> Box<[Digest; 256]> {
        self.ledger.range(self.now_ms, prefix).into_parts(prefix.len())
    }

    fn knows(&self, id: &Id) -> bool {
        self.heard.contains(id)
    }
}
