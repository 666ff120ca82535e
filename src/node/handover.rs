//! Mailboxes that lie here and belong to others now: which of them to hand over for good, and when.
//!
//! A swarm that grows moves mailboxes to nodes closer to them; repair fills those, and the copies that stay
//! behind are of no use to anybody. A mailbox goes when this node has not been one of its replicas for a
//! grace period, and then each of its replicas has said by digest that it holds the same. Where one does not answer or its
//! digest differs, what this node lacks is fetched, so that the digests can become equal, and the question is put
//! again later: until all agree, nothing goes.
//!
//! *Why nothing acknowledged is lost.* What goes lies on as many disks as a deposit that is complete. A packet that
//! arrives between the answers and the removal changes the digest, and the store removes nothing then
//! ([`crate::store::PacketStore::leave`]).

use crate::address::Address;
use std::collections::{BTreeMap, BTreeSet};

/// Longer than a silent node is remembered ([`super::members::FORGET_MS`]): nodes that come and go at once
/// make nobody hand over.
pub const GRACE_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Pause after replicas did not agree: two rounds of repair, or the grace period where that is shorter.
pub const RETRY_MS: u64 = 20 * 60_000;
/// Mailboxes that are asked about after one look.
pub const ASKED_MAX: usize = 64;
/// Mailboxes whose time is kept; others wait until these are gone.
const REMEMBERED_MAX: usize = 65_536;

/// The state of one node.
#[derive(Debug)]
pub struct Handover {
    grace_ms: u64,
    /// By mailbox, when its replicas may be asked.
    due_ms: BTreeMap<Address, u64>,
}

impl Handover {
    pub fn new(grace_ms: u64) -> Handover {
        Handover { grace_ms, due_ms: BTreeMap::new() }
    }

    /// A look at the store: the mailboxes that lie here and of which this node is no replica. Gives those whose replicas
    /// are to be asked now.
    pub fn looked(&mut self, foreign: &BTreeSet<Address>, now_ms: u64) -> Vec<Address> {
        // Whoever belongs here again, or is gone, begins anew.
        self.due_ms.retain(|address, _| foreign.contains(address));
        for address in foreign {
            if self.due_ms.len() >= REMEMBERED_MAX {
                break;
            }
            self.due_ms.entry(*address).or_insert(now_ms.saturating_add(self.grace_ms));
        }
        let due = self.due_ms.iter_mut().filter(|(_, due_ms)| **due_ms <= now_ms).take(ASKED_MAX);
        due.map(|(address, due_ms)| {
            *due_ms = now_ms + RETRY_MS.min(self.grace_ms);
            *address
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(bytes: &[u8]) -> BTreeSet<Address> {
        bytes.iter().map(|byte| [*byte; 32]).collect()
    }

    #[test]
    fn a_mailbox_is_asked_about_after_an_unbroken_grace_and_then_now_and_again() {
        let mut handover = Handover::new(1_000);
        assert!(handover.looked(&foreign(&[1, 2]), 0).is_empty());
        assert!(handover.looked(&foreign(&[1, 2]), 999).is_empty());
        assert_eq!(handover.looked(&foreign(&[1, 2]), 1_000), [[1; 32], [2; 32]]);
        assert!(handover.looked(&foreign(&[1, 2]), 1_999).is_empty(), "they have been asked about");
        assert_eq!(handover.looked(&foreign(&[1, 2]), 2_000), [[1; 32], [2; 32]]);
        // It belonged here for a while.
        assert!(handover.looked(&foreign(&[2]), 2_500).is_empty());
        assert!(handover.looked(&foreign(&[1]), 2_900).is_empty());
        assert!(handover.looked(&foreign(&[1]), 3_899).is_empty());
        assert_eq!(handover.looked(&foreign(&[1]), 3_900), [[1; 32]]);
        let mut patient = Handover::new(GRACE_MS);
        patient.looked(&foreign(&[1]), 0);
        assert_eq!(patient.looked(&foreign(&[1]), GRACE_MS), [[1; 32]]);
        assert!(patient.looked(&foreign(&[1]), GRACE_MS + RETRY_MS - 1).is_empty());
        assert_eq!(patient.looked(&foreign(&[1]), GRACE_MS + RETRY_MS), [[1; 32]]);
    }

    #[test]
    fn memory_and_questions_are_bounded() {
        let address = |number: u32| {
            let mut address = [0; 32];
            address[..4].copy_from_slice(&number.to_be_bytes());
            address
        };
        let many: BTreeSet<Address> = (0..70_000).map(address).collect();
        let mut handover = Handover::new(0);
        for now_ms in 0..3 {
            assert_eq!(handover.looked(&many, now_ms).len(), ASKED_MAX);
        }
        assert_eq!(handover.due_ms.len(), REMEMBERED_MAX);
    }
}
