//! Fingerprint -> addresses: where the packets of a problem lie, and where a question looks.
//!
//! address = BLAKE3 `derive_key("qis 1 address", index id | scope | table u16 | bits u16 | slice)`,
//! the slice being the table's bits [t bits, (t + 1) bits) of the fingerprint, packed least
//! significant first, the last byte zero-padded. bits = 0 is one table and one mailbox per scope.

use crate::domain::View;
use crate::fingerprint::cpu::{bit, fingerprint_one, project};
use crate::fingerprint::{BLOCKS, Fingerprint};
use crate::limits::{FINGERPRINT_BITS, SLOTS};
use crate::packet::Id;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Where a mailbox lies.
pub type Address = Id;

/// The address of one table's slice of a fingerprint.
///
/// # Panics
/// If the slice reaches beyond the fingerprint.
pub fn address(index: &Id, scope: &Id, table: u16, bits: u16, fingerprint: &Fingerprint) -> Address {
    let start = usize::from(table) * usize::from(bits);
    let end = start + usize::from(bits);
    assert!(end <= FINGERPRINT_BITS, "tables x bits is at most 256");
    let mut slice = [0u8; FINGERPRINT_BITS / 8];
    for (to, from) in (start..end).enumerate() {
        slice[to / 8] |= u8::from(bit(fingerprint, from)) << (to % 8);
    }
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 address");
    hasher.update(index).update(scope);
    hasher.update(&table.to_le_bytes()).update(&bits.to_le_bytes());
    hasher.update(&slice[..usize::from(bits).div_ceil(8)]);
    hasher.finalize().into()
}

/// How one view turns embeddings into addresses.
#[derive(Clone, Debug)]
pub struct Addresser {
    index: Id,
    tables: u16,
    bits: u16,
    probes: usize,
}

impl Addresser {
    pub fn new(view: &View) -> Addresser {
        let tables = if view.addressing.bits == 0 { 1 } else { view.addressing.tables };
        Addresser {
            index: view.index_id(),
            tables,
            bits: view.addressing.bits,
            probes: usize::from(view.addressing.probes).max(1),
        }
    }

    /// Where a packet with this embedding is deposited: one address per table.
    pub fn deposit(&self, scope: &Id, embedding: &[i8; SLOTS]) -> Vec<Address> {
        if self.bits == 0 {
            return self.of_fingerprint(scope, &[0; 32]);
        }
        self.of_fingerprint(scope, &fingerprint_one(embedding))
    }

    /// Whether addresses depend on fingerprints at all.
    pub fn needs_fingerprints(&self) -> bool {
        self.bits > 0
    }

    /// [`Addresser::deposit`] where the fingerprint is known.
    pub fn of_fingerprint(&self, scope: &Id, fingerprint: &Fingerprint) -> Vec<Address> {
        (0..self.tables).map(|table| address(&self.index, scope, table, self.bits, fingerprint)).collect()
    }

    /// Where a question with this embedding looks: per table the deposit address, then the
    /// neighbours that a small change of the embedding would have led to. Without duplicates.
    pub fn ask(&self, scope: &Id, embedding: &[i8; SLOTS]) -> Vec<Address> {
        if self.bits == 0 {
            return self.deposit(scope, embedding);
        }
        let fingerprint = fingerprint_one(embedding);
        let sizes = sizes(embedding);
        let mut addresses = Vec::with_capacity(usize::from(self.tables) * self.probes);
        for table in 0..self.tables {
            for flips in probes(&sizes, table, self.bits, self.probes) {
                let mut probe = fingerprint;
                for flip in flips {
                    probe[flip / 8] ^= 1 << (flip % 8);
                }
                addresses.push(address(&self.index, scope, table, self.bits, &probe));
            }
        }
        addresses
    }

    /// Questions that read the same mailboxes, by the addresses of these in the order of
    /// [`Addresser::ask`]: numbers of the questions, ascending. `embeddings` and `scopes` are those of
    /// the questions, one behind the other.
    ///
    /// # Panics
    /// If there are fewer scopes than embeddings.
    pub fn ask_together<'a>(
        &self,
        scopes: impl IntoIterator<Item = &'a Id>,
        embeddings: &[[i8; SLOTS]],
    ) -> BTreeMap<Vec<Address>, Vec<usize>> {
        let mut scopes = scopes.into_iter();
        let mut together: BTreeMap<Vec<Address>, Vec<usize>> = BTreeMap::new();
        for (question, embedding) in embeddings.iter().enumerate() {
            let scope = scopes.next().expect("one scope per question");
            together.entry(self.ask(scope, embedding)).or_default().push(question);
        }
        together
    }
}

/// |x_j| of all 256 projections of an embedding.
pub fn sizes(embedding: &[i8; SLOTS]) -> [u32; FINGERPRINT_BITS] {
    let mut sizes = [0; FINGERPRINT_BITS];
    for block in 0..BLOCKS {
        for (size, x) in sizes[SLOTS * block..].iter_mut().zip(project(embedding, block)) {
            *size = x.unsigned_abs();
        }
    }
    sizes
}

/// The first `count` probes of a table, as sets of flipped fingerprint bits in ascending order: the
/// empty set first, then by ascending sum of sizes, then fewer flips, then the index tuples compared
/// lexicographically. Fewer than `count` where the table has fewer sets.
pub fn probes(sizes: &[u32; FINGERPRINT_BITS], table: u16, bits: u16, count: usize) -> Vec<Vec<usize>> {
    let start = usize::from(table) * usize::from(bits);
    let mut order: Vec<usize> = (start..start + usize::from(bits)).collect();
    order.sort_by_key(|&j| (sizes[j], j));

    // Every non-empty set of positions in `order` has one parent: without its last position p where
    // p - 1 is in the set too, else with p moved to p - 1. A child's key is larger than its parent's:
    // it has one flip more and no smaller sum, or a larger index of no smaller size. So a heap that
    // starts from {0} yields all sets in the total order, however many sums are equal.
    let candidate = |positions: Vec<usize>| {
        let mut flips: Vec<usize> = positions.iter().map(|&p| order[p]).collect();
        flips.sort_unstable();
        let sum = flips.iter().map(|&j| u64::from(sizes[j])).sum();
        Reverse(Candidate { sum, flip_count: flips.len(), flips, positions })
    };
    let mut probes = vec![vec![]];
    let mut heap = BinaryHeap::new();
    if !order.is_empty() {
        heap.push(candidate(vec![0]));
    }
    while probes.len() < count
        && let Some(Reverse(found)) = heap.pop()
    {
        let (&last, rest) = found.positions.split_last().expect("a candidate has a position");
        if last + 1 < order.len() {
            heap.push(candidate([rest, &[last + 1]].concat()));
            heap.push(candidate([rest, &[last, last + 1]].concat()));
        }
        probes.push(found.flips);
    }
    probes
}

/// A set of flips; the derived order is the total order of probes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    sum: u64,
    flip_count: usize,
    /// Ascending fingerprint bits.
    flips: Vec<usize>,
    /// The same set as ascending positions in the order of sizes.
    positions: Vec<usize>,
}
