//! The iterative look-up as libp2p-kad 0.49 does it (`query/peers/closest.rs`), written anew so that
//! it runs on keys without a network.
//!
//! What is taken from there: 3 requests at a time (`ALPHA_VALUE`), 20 nodes wanted (`K_VALUE`, what
//! `get_closest_peers` asks for), one path (disjoint paths are off by default), a start from the 20
//! closest contacts of the own table, up to 20 contacts in an answer, and its rules of progress: a
//! look-up that has brought no news three times in a row asks as many nodes at once as it wants, and
//! it ends when the closest `wanted` nodes have all answered. Timeouts have no part here, because
//! everybody answers.

use super::BUCKET_CONTACTS;
use super::tables::{Key, Network};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Requests on their way at a time, while there is progress.
const PARALLEL: usize = 3;

/// What a look-up found, and what it took.
pub struct Found {
    /// At most as many as wanted, closest first, without the node that looked.
    pub closest: Vec<usize>,
    /// Requests sent; each is answered.
    pub messages: u32,
    /// Time from the first request to the end, in thousandths of a mean round trip.
    pub milli_round_trips: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Not,
    Waiting,
    Answered,
}

struct Lookup<'a> {
    target: &'a Key,
    wanted: usize,
    /// By distance from the target.
    known: BTreeMap<Key, (usize, Asked)>,
    waiting: usize,
    /// Answers in a row that brought nothing closer.
    barren: usize,
    stalled: bool,
}

enum Next {
    Ask(usize),
    Wait,
    Finished,
}

impl Lookup<'_> {
    fn answered(&mut self, network: &Network, node: usize, contacts: &[usize]) {
        let distance = network.key(node).distance(self.target);
        self.known.insert(distance, (node, Asked::Answered));
        self.waiting -= 1;
        let range = self.known.keys().nth(self.wanted - 1).or_else(|| self.known.keys().last());
        let range = range.copied().unwrap_or(distance);
        let mut progress = self.known.len() < self.wanted;
        for &contact in contacts {
            let distance = network.key(contact).distance(self.target);
            let known = self.known.len();
            self.known.entry(distance).or_insert((contact, Asked::Not));
            progress |= self.known.len() > known && distance < range;
        }
        match (self.stalled, progress) {
            (_, true) => (self.stalled, self.barren) = (false, 0),
            (false, false) => {
                self.barren += 1;
                self.stalled = self.barren >= PARALLEL;
            }
            (true, false) => {}
        }
    }

    fn next(&mut self) -> Next {
        let most = if self.stalled { self.wanted.max(PARALLEL) } else { PARALLEL };
        let at_capacity = self.waiting >= most;
        let mut answered = Some(0);
        for (node, asked) in self.known.values_mut() {
            match asked {
                Asked::Not | Asked::Waiting if at_capacity => return Next::Wait,
                Asked::Waiting => answered = None,
                Asked::Not => {
                    *asked = Asked::Waiting;
                    self.waiting += 1;
                    return Next::Ask(*node);
                }
                Asked::Answered => {
                    if let Some(count) = &mut answered {
                        *count += 1;
                        if *count >= self.wanted {
                            return Next::Finished;
                        }
                    }
                }
            }
        }
        if self.waiting > 0 { Next::Wait } else { Next::Finished }
    }
}

/// Looks for the `wanted` nodes closest to the target, from `source`.
pub fn lookup(network: &Network, source: usize, target: &Key, wanted: usize, seed: u64) -> Found {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let start = network.contacts(source, target, BUCKET_CONTACTS, source);
    let known = start.into_iter().map(|node| (network.key(node).distance(target), (node, Asked::Not)));
    let mut lookup = Lookup { target, wanted, known: known.collect(), waiting: 0, barren: 0, stalled: false };
    let mut on_their_way: BTreeMap<(u64, u32), usize> = BTreeMap::new();
    let mut messages = 0;
    let mut now = 0;
    loop {
        match lookup.next() {
            Next::Ask(node) => {
                on_their_way.insert((now + random.random_range(500..=1_500), messages), node);
                messages += 1;
            }
            Next::Wait => {
                let ((at, _), node) = on_their_way.pop_first().expect("it waits for an answer");
                now = at;
                let contacts = network.contacts(node, target, BUCKET_CONTACTS, source);
                lookup.answered(network, node, &contacts);
            }
            Next::Finished => break,
        }
    }
    let answered = lookup.known.into_values().filter(|(_, asked)| *asked == Asked::Answered);
    let closest = answered.map(|(node, _)| node).take(wanted).collect();
    Found { closest, messages, milli_round_trips: now }
}
