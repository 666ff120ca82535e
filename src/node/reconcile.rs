//! One mailbox on two replicas: which packets the other one has and this side lacks, found by
//! comparing digests of ever smaller ranges of packet ids.
//!
//! Readers use it against every replica whose digest differs from theirs, storage nodes in repair.
//! 10,000 packets of which one is missing cost two questions: the digests of 256 parts, then the ids
//! of the one part that differs.

use crate::limits::{FRAME_PACKETS_MAX, RANGE_IDS_MAX, RANGES_FRAME_MAX, RECONCILE_RANGES_MAX};
use crate::packet::Id;
use crate::store::{Digest, Range};
use std::collections::{BTreeSet, VecDeque};

/// First bytes of packet ids.
pub type Prefix = Vec<u8>;

/// What this side has of the mailbox.
pub trait Held {
    /// Digests of the ids under a prefix of at most 31 bytes, by the byte after it.
    fn parts(&self, prefix: &[u8]) -> Box<[Digest; 256]>;
    /// Whether a packet is here, or was and is of no use any more.
    fn knows(&self, id: &Id) -> bool;
}

/// What to ask the other replica next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The ranges under these prefixes, at most [`RANGES_FRAME_MAX`].
    Ranges(Vec<Prefix>),
    /// The packets of these ids, at most a frame's worth.
    Fetch(Vec<Id>),
}

/// The state of one comparison. One question is on its way at a time.
#[derive(Clone, Debug)]
pub struct Reconcile {
    prefixes: VecDeque<Prefix>,
    asked: Vec<Prefix>,
    ranges_asked: usize,
    wanted: BTreeSet<Id>,
}

/// The other replica broke the protocol; the text says how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonsense(pub &'static str);

impl Default for Reconcile {
    /// Begins with the whole mailbox.
    fn default() -> Reconcile {
        let prefixes = VecDeque::from([Prefix::new()]);
        Reconcile { prefixes, asked: Vec::new(), ranges_asked: 0, wanted: BTreeSet::new() }
    }
}

impl Reconcile {
    /// The next question; `None` when everything that is missing here has been fetched. A packet is
    /// asked for once: what does not come was gone by then.
    pub fn next_ask(&mut self) -> Option<Ask> {
        // A full frame of ids goes first, so that the list of wanted ids stays short.
        if self.wanted.len() < FRAME_PACKETS_MAX && !self.prefixes.is_empty() {
            let count = self.prefixes.len().min(RANGES_FRAME_MAX);
            self.asked = self.prefixes.drain(..count).collect();
            self.ranges_asked += count;
            return Some(Ask::Ranges(self.asked.clone()));
        }
        let mut ids = Vec::new();
        while ids.len() < FRAME_PACKETS_MAX
            && let Some(id) = self.wanted.pop_first()
        {
            ids.push(id);
        }
        (!ids.is_empty()).then_some(Ask::Fetch(ids))
    }

    /// The other replica's answer to [`Ask::Ranges`], in the order of the prefixes.
    ///
    /// # Errors
    /// An answer that no honest replica gives.
    pub fn ranges(&mut self, theirs: Vec<Range>, own: &impl Held) -> Result<(), Nonsense> {
        let asked = std::mem::take(&mut self.asked);
        if theirs.len() != asked.len() {
            return Err(Nonsense("it answered for another number of ranges"));
        }
        for (prefix, range) in asked.into_iter().zip(theirs) {
            match range {
                Range::Ids(ids) => {
                    let ours = ids.iter().all(|id| id.starts_with(&prefix));
                    if ids.len() > RANGE_IDS_MAX || !ours || !ids.is_sorted_by(|a, b| a < b) {
                        return Err(Nonsense("its ids of a range do not fit the range"));
                    }
                    self.wanted.extend(ids.into_iter().filter(|id| !own.knows(id)));
                }
                Range::Parts(_) if prefix.len() >= 31 => {
                    return Err(Nonsense("it has more packets in a range than there are ids"));
                }
                Range::Parts(theirs) => {
                    let own = own.parts(&prefix);
                    for byte in 0..=255u8 {
                        let theirs = theirs[usize::from(byte)];
                        if theirs.count > 0 && theirs != own[usize::from(byte)] {
                            self.prefixes.push_back([&prefix[..], &[byte]].concat());
                        }
                    }
                    if self.ranges_asked + self.prefixes.len() > RECONCILE_RANGES_MAX {
                        return Err(Nonsense("its ranges never end"));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Held for BTreeSet<Id> {
        fn parts(&self, prefix: &[u8]) -> Box<[Digest; 256]> {
            range(self, prefix).into_parts(prefix.len())
        }
        fn knows(&self, id: &Id) -> bool {
            self.contains(id)
        }
    }

    /// The definition.
    fn range(ids: &BTreeSet<Id>, prefix: &[u8]) -> Range {
        let under = ids.iter().filter(|id| id.starts_with(prefix)).map(|id| Ok::<Id, ()>(*id));
        Range::of(prefix, under).expect("no error")
    }

    /// Fetches from `theirs`; the number of questions of each kind.
    fn run(own: &mut BTreeSet<Id>, theirs: &BTreeSet<Id>) -> [usize; 2] {
        let (mut reconcile, mut questions) = (Reconcile::default(), [0; 2]);
        while let Some(ask) = reconcile.next_ask() {
            match ask {
                Ask::Ranges(prefixes) => {
                    questions[0] += 1;
                    assert!(prefixes.len() <= RANGES_FRAME_MAX);
                    let answer = prefixes.iter().map(|prefix| range(theirs, prefix)).collect();
                    reconcile.ranges(answer, own).unwrap();
                }
                Ask::Fetch(ids) => {
                    questions[1] += 1;
                    assert!(ids.len() <= FRAME_PACKETS_MAX);
                    for id in ids {
                        assert!(theirs.contains(&id) && own.insert(id), "only what is missing here");
                    }
                }
            }
        }
        questions
    }

    fn id(number: u32) -> Id {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn one_packet_among_ten_thousand_costs_two_questions_and_a_fetch() {
        let theirs: BTreeSet<Id> = (0..10_000).map(id).collect();
        let mut own = theirs.clone();
        own.remove(&id(77));
        own.insert(id(10_001));
        assert_eq!(run(&mut own, &theirs), [2, 1]);
        assert!(own.is_superset(&theirs));
        assert_eq!(run(&mut own, &theirs), [2, 0], "what only this side has is not asked for");
        assert_eq!(run(&mut theirs.clone(), &theirs), [1, 0]);
    }

    proptest! {
        #[test]
        fn in_the_end_nothing_is_missing(
            shared in 0u32..3_000, own in 0u32..600, theirs in 0u32..3_000, few in any::<bool>(),
        ) {
            // Ids that share long prefixes go deep.
            let id = |n: u32| {
                let mut id = id(n);
                if few {
                    id[..8].fill(n.is_multiple_of(3) as u8);
                }
                id
            };
            let mut mine: BTreeSet<Id> = (0..shared).chain(10_000..10_000 + own).map(id).collect();
            let there: BTreeSet<Id> = (0..shared).chain(20_000..20_000 + theirs).map(id).collect();
            run(&mut mine, &there);
            prop_assert!(mine.is_superset(&there));
            prop_assert_eq!(mine.len() as u32, shared + own + theirs);
        }
    }

    #[test]
    fn a_liar_is_found_out_or_ends() {
        let own = BTreeSet::new();
        let start = || {
            let mut reconcile = Reconcile::default();
            assert_eq!(reconcile.next_ask(), Some(Ask::Ranges(vec![vec![]])));
            reconcile
        };
        assert!(start().ranges(vec![], &own).is_err(), "too few answers");
        assert!(start().ranges(vec![Range::Ids(vec![id(1), id(1)])], &own).is_err(), "twice the same");
        let many = Range::Ids((0..300).map(id).collect::<BTreeSet<_>>().into_iter().collect());
        assert!(start().ranges(vec![many], &own).is_err(), "too many ids");

        // Parts within parts without end.
        let all = Range::Parts(Box::new([Digest { count: 1, sum: [1; 4] }; 256]));
        let mut reconcile = start();
        let mut steps = 0;
        let mut result = reconcile.ranges(vec![all.clone()], &own);
        while result.is_ok() {
            let Some(Ask::Ranges(prefixes)) = reconcile.next_ask() else { panic!("more ranges") };
            result = reconcile.ranges(vec![all.clone(); prefixes.len()], &own);
            steps += 1;
            assert!(steps < 10_000);
        }
        // Ids that do not exist are asked for once.
        let mut reconcile = start();
        reconcile.ranges(vec![Range::Ids(vec![id(5)])], &own).unwrap();
        assert_eq!(reconcile.next_ask(), Some(Ask::Fetch(vec![id(5)])));
        assert_eq!(reconcile.next_ask(), None);
    }
}
