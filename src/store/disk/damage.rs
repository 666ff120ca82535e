//! Damaged records met since opening: where they lie, until a deposit or a sweep takes their place.

use crate::address::Address;
use crate::packet::hex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sequences of the damaged records of each mailbox that has any.
type Places = BTreeMap<Address, BTreeSet<u64>>;

pub struct Damage {
    path: PathBuf,
    places: Mutex<Places>,
}

impl Damage {
    /// Nothing is known yet of the store at `path`.
    pub fn new(path: &Path) -> Damage {
        Damage { path: path.into(), places: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a record, and says so the first time.
    pub fn note(&self, address: &Address, sequence: u64, problem: &str) {
        if self.places().entry(*address).or_default().insert(sequence) {
            tracing::warn!(
                "store {}: mailbox {}, record {sequence} is damaged ({problem}) and is passed over; \
                 deposit the packet again, or let the replicas refill it",
                self.path.display(),
                hex(&address[..8]),
            );
        }
    }

    /// Drops what is no longer in the store.
    pub fn forget(&self, removed: &[(Address, u64)]) {
        let mut places = self.places();
        for (address, sequence) in removed {
            if let Some(sequences) = places.get_mut(address) {
                sequences.remove(sequence);
                if sequences.is_empty() {
                    places.remove(address);
                }
            }
        }
    }

    /// Sequences of one mailbox's damaged records.
    pub fn of(&self, address: &Address) -> BTreeSet<u64> {
        self.places().get(address).cloned().unwrap_or_default()
    }

    pub fn touches(&self, address: &Address) -> bool {
        self.places().contains_key(address)
    }

    /// Number of damaged records.
    pub fn count(&self) -> u64 {
        self.places().values().map(|sequences| sequences.len() as u64).sum()
    }

    /// The mailboxes with damaged records, ascending, and how many each has.
    pub fn addresses(&self) -> Vec<(Address, u64)> {
        self.places().iter().map(|(address, sequences)| (*address, sequences.len() as u64)).collect()
    }
}
