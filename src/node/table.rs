//! Whom a list keeps that has no room for everybody: as a Kademlia table does, some of every distance.
//!
//! Nodes are sorted into buckets by the number of leading bits that their key shares with ours: bucket 0 holds
//! half of the swarm, bucket 1 a quarter, and so on. A newcomer takes the place of somebody in the fullest
//! bucket, the farthest where several are, as long as that makes the list more even. So buckets that have few nodes keep all of
//! them: a node knows everybody around itself, which is who holds the same mailboxes, and enough of the
//! others to find the way to any address.

use super::placement::NodeKey;

/// Shared leading bits, 0..=256.
const BUCKETS: usize = 257;

/// Which bucket a key belongs to.
pub fn bucket(local: &NodeKey, key: &NodeKey) -> usize {
    let differ = local.0.iter().zip(&key.0).position(|(a, b)| a != b);
    differ.map_or(BUCKETS - 1, |byte| byte * 8 + (local.0[byte] ^ key.0[byte]).leading_zeros() as usize)
}

/// How many nodes each bucket of one node's list holds.
#[derive(Clone, Debug)]
pub struct Buckets {
    local: NodeKey,
    counts: [usize; BUCKETS],
}

impl Buckets {
    /// Of a list.
    pub fn of(local: NodeKey, keys: impl IntoIterator<Item = NodeKey>) -> Buckets {
        let mut buckets = Buckets { local, counts: [0; BUCKETS] };
        keys.into_iter().for_each(|key| buckets.add(&key));
        buckets
    }

    pub fn add(&mut self, key: &NodeKey) {
        self.counts[bucket(&self.local, key)] += 1;
    }

    pub fn remove(&mut self, key: &NodeKey) {
        let count = &mut self.counts[bucket(&self.local, key)];
        *count = count.saturating_sub(1);
    }

    /// The bucket that gives a place to a newcomer: the fullest one, unless the newcomer's own would be as full
    /// then. So each change makes the list more even, and changes come to an end.
    pub fn gives_way_to(&self, key: &NodeKey) -> Option<usize> {
        let most = self.counts.iter().max().copied().unwrap_or_default();
        let fullest = self.counts.iter().position(|count| *count == most)?;
        (self.counts[bucket(&self.local, key)] + 1 < most).then_some(fullest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_is_the_number_of_shared_leading_bits() {
        let local = NodeKey([0b1010_0000; 32]);
        let mut other = local;
        assert_eq!(bucket(&local, &other), 256);
        other.0[31] ^= 1;
        assert_eq!(bucket(&local, &other), 255);
        other.0[1] ^= 0b0001_0000;
        assert_eq!(bucket(&local, &other), 11);
        other.0[0] ^= 0b1000_0000;
        assert_eq!(bucket(&local, &other), 0);
    }

    proptest! {
        /// However often the same nodes come by, the list comes to rest.
        #[test]
        fn places_are_evened_out(keys in prop::collection::vec(any::<[u8; 32]>().prop_map(NodeKey), 1..200)) {
            let local = NodeKey([0; 32]);
            let mut kept: Vec<NodeKey> = Vec::new();
            let mut buckets = Buckets::of(local, []);
            let mut changes = 0;
            for key in keys.iter().cycle().take(40 * keys.len()) {
                if kept.contains(key) {
                    continue;
                }
                changes += 1;
                if kept.len() == 40 {
                    let Some(from) = buckets.gives_way_to(key) else {
                        changes -= 1;
                        continue;
                    };
                    let place = kept.iter().position(|other| bucket(&local, other) == from).unwrap();
                    buckets.remove(&kept.swap_remove(place));
                }
                kept.push(*key);
                buckets.add(key);
            }
            prop_assert!(changes <= 40 * 40, "{} changes", changes);
            prop_assert!(kept.len() == 40 || keys.iter().all(|key| kept.contains(key)));
            // A bucket that is not among the fullest holds all of its kind that came.
            let held = |of: usize| kept.iter().filter(|key| bucket(&local, key) == of).count();
            let most = (0..BUCKETS).map(held).max().unwrap_or_default();
            for of in 0..BUCKETS {
                let came = keys.iter().filter(|key| bucket(&local, key) == of);
                let came = came.collect::<std::collections::BTreeSet<_>>().len();
                prop_assert!(held(of) == came || held(of) + 1 >= most, "bucket {}: {} of {}", of, held(of), came);
            }
        }
    }
}
