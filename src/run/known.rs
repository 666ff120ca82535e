//! What a node has read of the world's mailboxes, ready to be asked.
//!
//! Packets are kept per mailbox, once; what a question reads of one or several mailboxes is kept as a
//! [`Warm`] batch per list of addresses, the least recently used of which give way to others.

use crate::address::Address;
use crate::domain::View;
use crate::limits::{WARM_BATCHES_MAX, WARM_BYTES_MAX};
use crate::mailbox::{Position, Pulled};
use crate::merge::{Layout, Warm};
use crate::packet::{Id, Verified};
use ndarray::{Array2, ArrayView2};
use std::collections::{HashMap, HashSet};

/// A mailbox as far as it was read.
#[derive(Default)]
struct Read {
    position: Position,
    /// In the order of their arrival, each once: a late replica may deliver one again.
    packets: Vec<(Id, Verified)>,
    ids: HashSet<Id>,
}

/// A warm batch of some mailboxes.
struct Kept {
    warm: Warm,
    /// Per mailbox, how many of its packets the batch has taken.
    taken: Vec<usize>,
    /// The turn of its last use.
    used: u64,
}

/// Mailboxes as far as this node has read them.
pub struct Known {
    mailboxes: HashMap<Address, Read>,
    batches: HashMap<Vec<Address>, Kept>,
    turn: u64,
    bytes_max: usize,
}

impl Default for Known {
    fn default() -> Known {
        Known { mailboxes: HashMap::new(), batches: HashMap::new(), turn: 0, bytes_max: WARM_BYTES_MAX }
    }
}

impl Known {
    /// Where the reader of a mailbox stands.
    pub fn position(&self, address: &Address) -> Position {
        self.mailboxes.get(address).map(|read| read.position.clone()).unwrap_or_default()
    }

    /// Takes in what a pull has brought; gives the number of packets not seen before.
    pub fn take(&mut self, address: &Address, pulled: Pulled) -> u64 {
        let read = self.mailboxes.entry(*address).or_default();
        let before = read.packets.len();
        for packet in pulled.packets {
            let id = packet.id();
            if read.ids.insert(id) {
                read.packets.push((id, packet));
            }
        }
        read.position = pulled.position;
        (read.packets.len() - before) as u64
    }

    /// Packets of every kind at some addresses; one that lies at several counts at each.
    pub fn packets(&self, addresses: &[Address]) -> u64 {
        let known = addresses.iter().filter_map(|address| self.mailboxes.get(address));
        known.map(|read| read.packets.len() as u64).sum()
    }

    /// Everything read at some addresses, each packet once.
    pub fn all(&self, addresses: &[Address]) -> Vec<Verified> {
        let mut seen = HashSet::new();
        let reads = addresses.iter().filter_map(|address| self.mailboxes.get(address));
        let packets = reads.flat_map(|read| &read.packets);
        packets.filter(|(id, _)| seen.insert(*id)).map(|(_, packet)| *packet).collect()
    }

    /// Everything at some addresses as a batch for questions at `ask_ms`: [`Warm::at`] has been
    /// called for that time. `embed` is as in [`crate::merge::Batch::new`].
    pub fn warm(
        &mut self,
        addresses: &[Address],
        layout: impl Into<Layout>,
        (view, ask_ms): (&View, u64),
        embed: impl Fn(ArrayView2<i8>) -> Array2<i8>,
    ) -> &mut Warm {
        self.turn += 1;
        let layout = layout.into();
        let new = || Kept { warm: Warm::new(&layout), taken: vec![0; addresses.len()], used: 0 };
        let mut kept = self.batches.remove(addresses).unwrap_or_else(new);
        self.fill(&mut kept, addresses, &embed);
        if kept.warm.at(view, ask_ms).is_none() {
            kept = new();
            self.fill(&mut kept, addresses, &embed);
            kept.warm.at(view, ask_ms);
        }
        kept.used = self.turn;
        self.make_room(kept.warm.bytes());
        &mut self.batches.entry(addresses.to_vec()).insert_entry(kept).into_mut().warm
    }

    /// Hands a batch what its mailboxes have received since.
    fn fill(&self, kept: &mut Kept, addresses: &[Address], embed: impl Fn(ArrayView2<i8>) -> Array2<i8>) {
        let reads = addresses.iter().zip(&mut kept.taken).filter_map(|(address, taken)| {
            let read = self.mailboxes.get(address)?;
            let before = std::mem::replace(taken, read.packets.len());
            Some(&read.packets[before..])
        });
        kept.warm.add(reads.flatten().map(|(id, packet)| (*id, packet)), embed);
    }

    /// Lets batches go until one more of so many bytes keeps to the bounds; the newest one is kept
    /// whatever its size.
    fn make_room(&mut self, bytes: usize) {
        let mut all: usize = bytes + self.batches.values().map(|kept| kept.warm.bytes()).sum::<usize>();
        while all > self.bytes_max || self.batches.len() >= WARM_BATCHES_MAX {
            let oldest = self.batches.iter().min_by_key(|(_, kept)| kept.used);
            let Some(addresses) = oldest.map(|(addresses, _)| addresses.clone()) else { break };
            all -= self.batches.remove(&addresses).map_or(0, |kept| kept.warm.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Addressing, Decay, Kernel, Metric, Prior};
    use crate::limits::OUTCOMES_MAX;
    use crate::packet::{AuthorKey, Draft, Kind};

    fn plain() -> View {
        View {
            name: "plain".into(),
            schema: [0; 32],
            metric: Metric::Identity,
            kernel: Kernel::gaussian(30.0),
            prior: Prior::Mean { cases: 1.0 },
            addressing: Addressing { tables: 1, bits: 0, probes: 1 },
            decay: Decay::none(),
            level: 90,
            finish: 1,
            curator: [0; 32],
            options: None,
        }
    }

    fn ask(known: &mut Known, first: u8) {
        let addresses = [[first; 32], [0; 32]];
        let warm = known.warm(&addresses, 1, (&plain(), 5), |signals| signals.to_owned());
        assert_eq!(warm.batch().live(), 10);
    }

    #[test]
    fn batches_give_way_by_their_last_use() {
        let author = AuthorKey::from_seed([1; 32]);
        let packet = |evidence: u8| {
            let mut values = [None; OUTCOMES_MAX];
            values[0] = Some((1, 0));
            let draft = Draft { reference: [evidence; 32], values, ..Draft::new(Kind::Observed, [0; 32], 1) };
            author.sign(&draft).unwrap()
        };
        let mut known = Known::default();
        let packets = (0..10).chain(0..5).map(packet).collect();
        assert_eq!(known.take(&[0; 32], Pulled { packets, ..Pulled::default() }), 10);
        (1..4).for_each(|first| ask(&mut known, first));
        ask(&mut known, 1);
        assert_eq!(known.batches.len(), 3);
        // Room for two and a half.
        let bytes = known.batches.values().map(|kept| kept.warm.bytes()).max().unwrap();
        known.bytes_max = bytes * 5 / 2;
        ask(&mut known, 4);
        let mut kept: Vec<u8> = known.batches.keys().map(|addresses| addresses[0][0]).collect();
        kept.sort_unstable();
        assert_eq!(kept, [1, 4]);
        known.bytes_max = 1;
        ask(&mut known, 2);
        assert_eq!(known.batches.len(), 1, "the newest stays");
    }

    #[test]
    fn the_number_of_batches_is_bounded() {
        let mut known = Known::default();
        for number in 0..WARM_BATCHES_MAX as u64 + 10 {
            let mut address = [0; 32];
            address[..8].copy_from_slice(&number.to_le_bytes());
            known.warm(&[address], 1, (&plain(), 5), |signals| signals.to_owned());
        }
        assert_eq!(known.batches.len(), WARM_BATCHES_MAX);
        assert!(!known.batches.contains_key(&vec![[0; 32]]), "the first was used least recently");
    }
}
