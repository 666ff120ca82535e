//! Packets that a store has refused: repair does not fetch them again, for a while.
//!
//! A refusal may be true for a moment only: the clock was wrong, the mailbox was full, the author not yet
//! admitted. So it is forgotten after one to two rounds of repair, and the packet is asked for again.

use super::repair::ROUND_MS;
use crate::address::Address;
use crate::packet::Id;
use std::collections::HashSet;

/// Most packets that are remembered.
pub const REFUSED_MAX: usize = 65_536;

/// The refusals of one node, in two generations.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    current: HashSet<(Address, Id)>,
    previous: HashSet<(Address, Id)>,
    turned_ms: u64,
}

impl Refused {
    pub fn insert(&mut self, address: Address, id: Id, now_ms: u64) {
        self.turn(now_ms, self.current.len() >= REFUSED_MAX / 2);
        self.current.insert((address, id));
    }

    /// Forgets what is old. To be called before a comparison; [`Refused::contains`] knows no time.
    pub fn set_now(&mut self, now_ms: u64) {
        self.turn(now_ms, false);
    }

    pub fn contains(&self, address: &Address, id: &Id) -> bool {
        let key = (*address, *id);
        self.current.contains(&key) || self.previous.contains(&key)
    }

    pub fn len(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn turn(&mut self, now_ms: u64, full: bool) {
        let passed = now_ms.saturating_sub(self.turned_ms);
        if passed >= 2 * ROUND_MS {
            self.current.clear();
        }
        if full || passed >= ROUND_MS {
            self.previous = std::mem::take(&mut self.current);
            self.turned_ms = now_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_forgotten_after_one_to_two_rounds() {
        let mut refused = Refused::default();
        let start = ROUND_MS;
        refused.set_now(start);
        refused.insert([1; 32], [2; 32], start + ROUND_MS / 2);
        assert!(refused.contains(&[1; 32], &[2; 32]) && !refused.contains(&[2; 32], &[2; 32]));
        refused.set_now(start + ROUND_MS);
        assert!(refused.contains(&[1; 32], &[2; 32]), "for one round at least");
        refused.set_now(start + 2 * ROUND_MS);
        assert!(refused.is_empty());
        refused.insert([1; 32], [2; 32], start + 2 * ROUND_MS);
        refused.set_now(start + 9 * ROUND_MS);
        assert!(refused.is_empty(), "however long nobody looked");
    }

    #[test]
    fn memory_is_bounded() {
        let mut refused = Refused::default();
        for number in 0..3 * REFUSED_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            refused.insert([0; 32], id, 0);
            assert!(refused.contains(&[0; 32], &id) && refused.len() <= REFUSED_MAX);
        }
    }
}
