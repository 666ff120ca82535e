//! Damaged records: looking for them, and where they lie until a deposit or a sweep takes their place.

use super::DiskStore;
use super::read::Record;
use crate::address::Address;
use crate::packet::hex;
use crate::store::StoreError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a record lies: its mailbox and its sequence there.
pub type Place = (Address, u64);

/// What a slice of a scrub found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Where the next slice begins; `None` at the end of the store.
    pub next: Option<Place>,
    /// Records read.
    pub read: u64,
    /// Damaged ones among them.
    pub damaged: u64,
}

impl DiskStore {
    /// Reads and checks at most `max` records after a place, or from the beginning. Opening reads every
    /// key but no packet, so only this, or a reader, finds a damaged one. A damaged record is noted: it
    /// leaves ids, digests and ranges, so that a repair brings its packet back.
    ///
    /// # Errors
    /// Files that cannot be read at all.
    pub fn scrub(&self, from: Option<Place>, max: usize) -> Result<Scrubbed, StoreError> {
        let view = self.view();
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        let mut scrubbed = Scrubbed::default();
        for record in view.records(from, Bound::Unbounded).take(max) {
            let Record { place, packet } = record?;
            scrubbed.read += 1;
            scrubbed.damaged += u64::from(packet.is_err());
            scrubbed.next = Some(place);
        }
        if scrubbed.read < max as u64 {
            scrubbed.next = None;
        }
        Ok(scrubbed)
    }

    /// Mailboxes with records that are known to be damaged, ascending, and how many each has: what a
    /// repair refills first.
    pub fn damaged_addresses(&self) -> Vec<(Address, u64)> {
        self.damage.addresses()
    }
}

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
    pub fn forget(&self, removed: &[Place]) {
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
