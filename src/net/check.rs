//! From received bytes to verified packets: each signature is checked once and remembered.

use super::counters::Counters;
use crate::limits::REMEMBERED_SIGNATURES_MAX;
use crate::packet::{Id, Packet, PacketError, Verified, verify_batch};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Signatures found good before, in two generations: when the current one is full it becomes the
/// previous one, so memory is bounded and what is in use stays.
///
/// An entry stands for all 512 bytes. The packet id does not cover the signature: remembered by id
/// alone, a forged copy would pass.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<[HashSet<Id>; 2]>);

impl Remembered {
    /// Notes packets that this process has signed or checked itself.
    pub fn remember<'a>(&self, packets: impl IntoIterator<Item = &'a Verified>) {
        self.extend(packets.into_iter().map(|packet| blake3::hash(packet.as_bytes()).into()));
    }

    fn contains(&self, digest: &Id) -> bool {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].contains(digest) {
            return true;
        }
        let found = generations[1].contains(digest);
        if found {
            insert(&mut generations, *digest);
        }
        found
    }

    fn extend(&self, digests: impl IntoIterator<Item = Id>) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        digests.into_iter().for_each(|digest| insert(&mut generations, digest));
    }
}

fn insert(generations: &mut [HashSet<Id>; 2], digest: Id) {
    if generations[0].len() >= REMEMBERED_SIGNATURES_MAX {
        generations[1] = std::mem::take(&mut generations[0]);
    }
    generations[0].insert(digest);
}

/// Verifies packets in their order, in batches on all threads of the pool. Blocks for up to 60 us per
/// packet: not for an event loop.
pub fn verify(
    packets: &[Packet],
    remembered: &Remembered,
    counters: &Counters,
) -> Vec<Result<Verified, PacketError>> {
    let digests: Vec<Id> = packets.iter().map(|packet| blake3::hash(packet.as_bytes()).into()).collect();
    let known: Vec<bool> = digests.iter().map(|digest| remembered.contains(digest)).collect();
    let unknown: Vec<Packet> =
        packets.iter().zip(&known).filter(|(_, known)| !**known).map(|(packet, _)| *packet).collect();
    Counters::add(&counters.signatures_checked, unknown.len() as u64);
    Counters::add(&counters.signatures_remembered, (packets.len() - unknown.len()) as u64);

    let mut checked = verify_batch(&unknown).into_iter();
    let mut good = Vec::with_capacity(unknown.len());
    let results = packets
        .iter()
        .zip(known)
        .zip(digests)
        .map(|((packet, known), digest)| {
            if known {
                return Ok(Verified::checked_before(*packet));
            }
            let result = checked.next().unwrap_or_else(|| packet.verify());
            if result.is_ok() {
                good.push(digest);
            }
            result
        })
        .collect();
    remembered.extend(good);
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{AuthorKey, Draft, Kind};

    fn packet(sequence: u32) -> Packet {
        let mut draft = Draft::new(Kind::Observed, [1; 32], 1);
        draft.values[0] = Some((1, 0));
        draft.sequence = sequence;
        *AuthorKey::from_seed([7; 32]).sign(&draft).unwrap().packet()
    }

    fn forged(packet: &Packet) -> Packet {
        let mut bytes = *packet.as_bytes();
        bytes[500] ^= 1;
        Packet::parse(&bytes).unwrap()
    }

    #[test]
    fn a_signature_is_checked_once_and_a_forged_copy_of_a_known_packet_is_refused() {
        let (remembered, counters) = (Remembered::default(), Counters::default());
        let packets: Vec<Packet> = (0..300).map(packet).collect();
        assert!(verify(&packets, &remembered, &counters).iter().all(Result::is_ok));
        assert!(verify(&packets, &remembered, &counters).iter().all(Result::is_ok));
        let traffic = counters.read();
        assert_eq!((traffic.signatures_checked, traffic.signatures_remembered), (300, 300));

        let mixed = [packets[0], forged(&packets[0]), packets[1]];
        assert_eq!(mixed[0].id(), mixed[1].id());
        let good: Vec<bool> = verify(&mixed, &remembered, &counters).iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, true]);
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_in_use() {
        let remembered = Remembered::default();
        let digest = |n: usize| -> Id { *blake3::hash(&n.to_le_bytes()).as_bytes() };
        let used = digest(0);
        for n in 0..5 * REMEMBERED_SIGNATURES_MAX {
            remembered.extend([digest(n)]);
            if n % 1_000 == 0 {
                assert!(remembered.contains(&used));
            }
        }
        let generations = remembered.0.lock().unwrap();
        assert!(generations.iter().all(|g| g.len() <= REMEMBERED_SIGNATURES_MAX));
    }
}
