//! Which members hold a mailbox: the k closest by SHA-256(address) XOR SHA-256(peer id), the
//! distance as a big-endian integer. This is what libp2p's Kademlia computes for a record key and a
//! peer id in binary form, so full membership and Kademlia agree.

use crate::address::Address;
use crate::limits::ACKNOWLEDGING_DISKS;
use crate::packet::Id;
use sha2::{Digest, Sha256};

/// A node's place in the key space: SHA-256 of its binary peer id. It also names the node in
/// cursors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub Id);

impl NodeKey {
    /// Of a peer id in binary form (a multihash).
    pub fn of_peer(peer_id: &[u8]) -> NodeKey {
        NodeKey(Sha256::digest(peer_id).into())
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::packet::hex(&self.0[..4]))
    }
}

/// An address's place in the key space.
pub fn key_of(address: &Address) -> NodeKey {
    NodeKey(Sha256::digest(address).into())
}

/// At most `count` of `members`, ascending by distance from the address. A member listed twice
/// counts once.
pub fn closest(address: &Address, members: impl IntoIterator<Item = NodeKey>, count: usize) -> Vec<NodeKey> {
    closest_to(&key_of(address).0, members, count)
}

/// The same by distance from a place in the key space. One pass, so that thousands of members cost
/// microseconds.
pub fn closest_to(target: &Id, members: impl IntoIterator<Item = NodeKey>, count: usize) -> Vec<NodeKey> {
    let mut ranked: Vec<(Id, NodeKey)> = Vec::with_capacity(count + 1);
    for member in members {
        let distance: Id = std::array::from_fn(|i| target[i] ^ member.0[i]);
        if ranked.len() >= count && ranked.last().is_none_or(|(farthest, _)| distance >= *farthest) {
            continue;
        }
        // A distance names its member, so equal ones are one member.
        if let Err(place) = ranked.binary_search_by(|(other, _)| other.cmp(&distance)) {
            ranked.insert(place, (distance, member));
            ranked.truncate(count);
        }
    }
    ranked.into_iter().map(|(_, member)| member).collect()
}

/// Whether a node is one of [`closest`], without ranking all.
pub fn is_among_closest(
    address: &Address,
    members: impl IntoIterator<Item = NodeKey>,
    node: &NodeKey,
    count: usize,
) -> bool {
    let target: Id = Sha256::digest(address).into();
    let distance = |member: &NodeKey| -> Id { std::array::from_fn(|i| target[i] ^ member.0[i]) };
    let own = distance(node);
    members.into_iter().filter(|member| distance(member) < own).take(count).count() < count
}

/// Disks that must have synced before a deposit to `replicas` known replicas is acknowledged.
pub fn acknowledgements_needed(replicas: usize) -> usize {
    replicas.min(ACKNOWLEDGING_DISKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REPLICAS;
    use proptest::prelude::*;

    /// SHA-256("abc"), FIPS 180-2, appendix B.1.
    #[test]
    fn a_key_is_the_sha_256_of_the_binary_peer_id() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(crate::packet::hex(&NodeKey::of_peer(b"abc").0), expected);
    }

    /// The definition, one bit at a time: no member that was left out shares a longer prefix.
    fn distance_bits(address: &Address, member: &NodeKey) -> Vec<bool> {
        let target: Id = Sha256::digest(address).into();
        (0..256).map(|i| (target[i / 8] ^ member.0[i / 8]) >> (7 - i % 8) & 1 == 1).collect()
    }

    proptest! {
        #[test]
        fn the_closest_are_the_closest_in_any_order(
            address: [u8; 32],
            members in prop::collection::vec(any::<[u8; 32]>().prop_map(NodeKey), 0..40),
            rotation in 0usize..40,
        ) {
            let chosen = closest(&address, members.iter().copied(), REPLICAS);
            let mut rotated = members.clone();
            rotated.rotate_left(rotation % members.len().max(1));
            rotated.extend(members.first());
            prop_assert_eq!(&closest(&address, rotated, REPLICAS), &chosen);

            prop_assert_eq!(chosen.len(), members.len().min(REPLICAS));
            prop_assert!(chosen.is_sorted_by_key(|m| distance_bits(&address, m)));
            let farthest = chosen.last().map(|m| distance_bits(&address, m));
            for member in &members {
                let among = is_among_closest(&address, members.iter().copied(), member, REPLICAS);
                prop_assert_eq!(among, chosen.contains(member));
            }
            for member in members.iter().filter(|m| !chosen.contains(m)) {
                prop_assert!(Some(distance_bits(&address, member)) > farthest);
            }
        }

        /// Losing one member moves no other: what placement by membership, not liveness, rests on.
        #[test]
        fn one_member_less_moves_one_place(
            address: [u8; 32],
            members in prop::collection::btree_set(any::<[u8; 32]>().prop_map(NodeKey), 10..40),
        ) {
            let before = closest(&address, members.iter().copied(), REPLICAS);
            let gone = before[3];
            let after = closest(&address, members.iter().copied().filter(|m| *m != gone), REPLICAS);
            let kept: Vec<NodeKey> = before.into_iter().filter(|m| *m != gone).collect();
            prop_assert_eq!(&after[..REPLICAS - 1], &kept[..]);
        }
    }

    #[test]
    fn small_swarms_acknowledge_with_what_they_have() {
        assert_eq!((0..6).map(acknowledgements_needed).collect::<Vec<_>>(), [0, 1, 2, 3, 3, 3]);
    }
}
