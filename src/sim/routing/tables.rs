//! Nodes as sorted keys, and their Kademlia tables, made when they are looked at.
//!
//! A bucket of a node holds members of one sub-tree: the keys that share its first bits and differ in
//! the next. In the sorted list such keys lie side by side, so a bucket is a range and a draw from
//! it. The draw depends on (seed, node, bucket) alone, so a table is the same whenever it is looked
//! at, and a million tables take no memory.
//!
//! *A greedy walk ends at the closest node.* Let x be no closest node to target t. A closer node y
//! differs from x first in a bit i where x differs from t (or y would be farther). So the sub-tree of
//! x's bucket i is not empty, neither is the bucket, and each of its members is closer to t than x.

use super::BUCKET_CONTACTS;
use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// 256 bits, most significant word first: the derived order is that of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub [u64; 4]);

impl Key {
    pub fn random(random: &mut impl Rng) -> Key {
        Key(std::array::from_fn(|_| random.next_u64()))
    }

    /// XOR, as a number.
    pub fn distance(&self, other: &Key) -> Key {
        Key(std::array::from_fn(|word| self.0[word] ^ other.0[word]))
    }

    /// Bit `index`, 0 the most significant.
    pub fn bit(&self, index: usize) -> bool {
        self.0[index / 64] >> (63 - index % 64) & 1 == 1
    }
}

/// All nodes; a node is its index in the sorted list.
pub struct Network {
    keys: Vec<Key>,
    seed: u64,
}

/// One non-empty bucket: the sub-tree whose keys differ from the node's first in bit `bit`.
struct Subtree {
    bit: usize,
    members: Range<usize>,
}

impl Network {
    /// `nodes` random keys.
    pub fn new(nodes: usize, seed: u64) -> Network {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut keys: Vec<Key> = (0..nodes).map(|_| Key::random(&mut random)).collect();
        keys.sort_unstable();
        keys.dedup();
        Network { keys, seed }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn key(&self, node: usize) -> &Key {
        &self.keys[node]
    }

    /// Where a range of keys that share their first `bit` bits goes from 0 to 1 in the next.
    fn split(&self, range: &Range<usize>, bit: usize) -> usize {
        range.start + self.keys[range.clone()].partition_point(|key| !key.bit(bit))
    }

    /// The true `count` closest nodes to a target, closest first.
    pub fn closest(&self, target: &Key, count: usize) -> Vec<usize> {
        let mut found = Vec::with_capacity(count);
        self.collect(target, 0..self.keys.len(), 0, count, &mut found);
        found
    }

    /// The nearer half first; a range of one is its own order.
    fn collect(&self, target: &Key, range: Range<usize>, bit: usize, count: usize, found: &mut Vec<usize>) {
        if found.len() == count || range.is_empty() {
            return;
        }
        if range.len() == 1 {
            found.push(range.start);
            return;
        }
        let middle = self.split(&range, bit);
        let (zeros, ones) = (range.start..middle, middle..range.end);
        let (nearer, farther) = if target.bit(bit) { (ones, zeros) } else { (zeros, ones) };
        self.collect(target, nearer, bit + 1, count, found);
        self.collect(target, farther, bit + 1, count, found);
    }

    /// The non-empty buckets of a node, the farthest sub-tree first.
    fn subtrees(&self, node: usize) -> impl Iterator<Item = Subtree> {
        let mut range = 0..self.keys.len();
        let mut bit = 0;
        let buckets = std::iter::from_fn(move || {
            if range.len() < 2 {
                return None;
            }
            let middle = self.split(&range, bit);
            let (zeros, ones) = (range.start..middle, middle..range.end);
            let (own, other) = if self.keys[node].bit(bit) { (ones, zeros) } else { (zeros, ones) };
            range = own;
            bit += 1;
            Some(Subtree { bit: bit - 1, members: other })
        });
        buckets.filter(|subtree| !subtree.members.is_empty())
    }

    /// Who is in a bucket.
    fn bucket(&self, node: usize, subtree: &Subtree) -> Vec<usize> {
        let Subtree { bit, members } = subtree;
        if members.len() <= BUCKET_CONTACTS {
            return members.clone().collect();
        }
        let mut material = [0; 32];
        for (bytes, word) in material.chunks_exact_mut(8).zip([self.seed, node as u64, *bit as u64, 1]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut random = ChaCha8Rng::from_seed(material);
        let drawn = index::sample(&mut random, members.len(), BUCKET_CONTACTS);
        drawn.into_iter().map(|offset| members.start + offset).collect()
    }

    /// The node's contact closest to the target, if one is closer than itself.
    pub fn next_hop(&self, node: usize, target: &Key) -> Option<usize> {
        let distance = self.keys[node].distance(target);
        // Each member of this bucket corrects the highest bit that any contact can correct.
        let best = self.subtrees(node).find(|subtree| distance.bit(subtree.bit))?;
        self.bucket(node, &best).into_iter().min_by_key(|&contact| self.keys[contact].distance(target))
    }

    /// The node's `count` contacts closest to the target, closest first, without node `except`: what
    /// it answers to who asks.
    pub fn contacts(&self, node: usize, target: &Key, count: usize, except: usize) -> Vec<usize> {
        let distance = self.keys[node].distance(target);
        // Buckets of bits that differ hold nodes closer than this one, the highest bit the closest;
        // of the others, which are farther away, the lowest bit comes first.
        let (nearer, mut farther): (Vec<Subtree>, Vec<Subtree>) =
            self.subtrees(node).partition(|subtree| distance.bit(subtree.bit));
        farther.reverse();
        let mut found = Vec::with_capacity(count + BUCKET_CONTACTS);
        for subtree in nearer.iter().chain(&farther) {
            let from = found.len();
            found.extend(self.bucket(node, subtree).into_iter().filter(|&contact| contact != except));
            found[from..].sort_unstable_by_key(|&contact| self.keys[contact].distance(target));
            if found.len() >= count {
                break;
            }
        }
        found.truncate(count);
        found
    }

    /// All contacts of a node.
    #[cfg(test)]
    pub fn table(&self, node: usize) -> Vec<Vec<usize>> {
        let subtrees: Vec<Subtree> = self.subtrees(node).collect();
        subtrees.iter().map(|subtree| self.bucket(node, subtree)).collect()
    }
}
