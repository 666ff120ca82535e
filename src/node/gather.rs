//! One pull from every reachable replica, as a union: each packet once, by id.
//!
//! All reachable replicas are read, from the reader's cursor at each: one replica alone misses fresh
//! packets whose hand-off is still on its way. With cursors a repeated pull moves only what is new at
//! each replica; a first pull moves the mailbox once per replica.

use super::placement::NodeKey;
use crate::packet::{Id, Verified};
use crate::store::Cursor;
use std::collections::{BTreeMap, HashMap};

/// How long the slower replicas may keep a reader waiting once a first one has delivered all.
pub const PATIENCE_MS: u64 = 1_000;
/// How long a reader waits for the first replica.
pub const PATIENCE_FIRST_MS: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A page came; `cursor` is where it ends.
    Page {
        replica: NodeKey,
        cursor: Cursor,
        more: bool,
    },
    /// The replica does not know the cursor any more.
    Expired {
        replica: NodeKey,
    },
    Failed {
        replica: NodeKey,
        reason: String,
    },
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Asks a replica for the packets after a cursor, or from the beginning.
    Ask { replica: NodeKey, cursor: Option<Cursor> },
}

/// Packets of several replicas, each once.
#[derive(Debug, Default)]
pub struct Union(HashMap<Id, Verified>);

impl Union {
    /// Whether a packet of this id, with a good signature, is in already.
    pub fn contains(&self, id: &Id) -> bool {
        self.0.contains_key(id)
    }

    /// Only verified packets get in, so that no forged copy stands in a good one's place.
    pub fn insert(&mut self, id: Id, packet: Verified) {
        self.0.entry(id).or_insert(packet);
    }

    /// Ascending by id: the same packets give the same list, whoever answered first.
    pub fn into_packets(self) -> Vec<Verified> {
        let mut packets: Vec<(Id, Verified)> = self.0.into_iter().collect();
        packets.sort_unstable_by_key(|(id, _)| *id);
        packets.into_iter().map(|(_, packet)| packet).collect()
    }
}

/// The state of one pull.
#[derive(Debug)]
pub struct Gather {
    replicas: BTreeMap<NodeKey, Reading>,
    /// Cursors of replicas that are not asked this time: kept for the next.
    others: Vec<Cursor>,
    started_ms: u64,
    first_done_ms: Option<u64>,
    last_reason: String,
}

#[derive(Debug)]
struct Reading {
    cursor: Option<Cursor>,
    state: State,
    restarts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Done,
    Failed,
}

impl Gather {
    /// `replicas` are the reachable ones; `from` is the reader's position.
    pub fn new(replicas: &[NodeKey], from: &[Cursor], now_ms: u64) -> Gather {
        let cursor = |key: &NodeKey| from.iter().find(|c| c.replica == key.0).copied();
        let reading = |key| Reading { cursor: cursor(key), state: State::Open, restarts: 0 };
        Gather {
            replicas: replicas.iter().map(|key| (*key, reading(key))).collect(),
            others: from.iter().filter(|c| !replicas.contains(&NodeKey(c.replica))).copied().collect(),
            started_ms: now_ms,
            first_done_ms: None,
            last_reason: String::new(),
        }
    }

    /// The first questions, one per replica.
    pub fn start(&self) -> Vec<Action> {
        self.replicas
            .iter()
            .map(|(&replica, reading)| Action::Ask { replica, cursor: reading.cursor })
            .collect()
    }

    /// One step.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Page { replica, cursor, more } => {
                let Some(reading) = self.open(&replica) else { return actions };
                // A cursor in another's name would make the reader skip that other's packets; one
                // that stands still would be asked for ever.
                let stands_still = more && reading.cursor == Some(cursor);
                if cursor.replica != replica.0 || stands_still {
                    self.fail(&replica, "it gave a cursor that is not its own or stands still".into());
                } else {
                    reading.cursor = Some(cursor);
                    if more {
                        actions.push(Action::Ask { replica, cursor: Some(cursor) });
                    } else {
                        reading.state = State::Done;
                        self.first_done_ms.get_or_insert(now_ms);
                    }
                }
            }
            Input::Expired { replica } => {
                let Some(reading) = self.open(&replica) else { return actions };
                reading.cursor = None;
                reading.restarts += 1;
                // Once is a store that lost packets, twice is a replica that plays with us.
                if reading.restarts > 1 {
                    self.fail(&replica, "its cursors expire at once".into());
                } else {
                    actions.push(Action::Ask { replica, cursor: None });
                }
            }
            Input::Failed { replica, reason } => self.fail(&replica, reason),
            Input::Tick => {
                if self.wake_ms().is_some_and(|wake| now_ms >= wake) {
                    for replica in self.unfinished() {
                        self.fail(&replica, "it did not answer in time".into());
                    }
                }
            }
        }
        actions
    }

    fn open(&mut self, replica: &NodeKey) -> Option<&mut Reading> {
        self.replicas.get_mut(replica).filter(|reading| reading.state == State::Open)
    }

    fn fail(&mut self, replica: &NodeKey, reason: String) {
        if let Some(reading) = self.open(replica) {
            reading.state = State::Failed;
            self.last_reason = reason;
        }
    }

    /// Replicas that still have to answer.
    pub fn unfinished(&self) -> Vec<NodeKey> {
        self.replicas.iter().filter(|(_, r)| r.state == State::Open).map(|(key, _)| *key).collect()
    }

    pub fn finished(&self) -> bool {
        self.replicas.values().all(|reading| reading.state != State::Open)
    }

    /// Replicas that delivered all they have.
    pub fn answered(&self) -> usize {
        self.replicas.values().filter(|reading| reading.state == State::Done).count()
    }

    /// Why the last replica that failed did so; empty when none did.
    pub fn last_reason(&self) -> &str {
        &self.last_reason
    }

    /// When waiting ends.
    pub fn wake_ms(&self) -> Option<u64> {
        let wake = match self.first_done_ms {
            Some(done) => done + PATIENCE_MS,
            None => self.started_ms + PATIENCE_FIRST_MS,
        };
        (!self.finished()).then_some(wake)
    }

    /// Where the reader stands now; a replica that failed midway keeps what was read of it.
    pub fn position(self) -> Vec<Cursor> {
        let read = self.replicas.into_values().filter_map(|reading| reading.cursor);
        read.chain(self.others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> NodeKey {
        NodeKey([byte; 32])
    }

    fn cursor(byte: u8, sequence: u64) -> Cursor {
        Cursor { replica: [byte; 32], epoch: 1, sequence }
    }

    fn page(byte: u8, sequence: u64, more: bool) -> Input {
        Input::Page { replica: key(byte), cursor: cursor(byte, sequence), more }
    }

    #[test]
    fn reads_each_replica_from_its_own_cursor_to_its_end() {
        let mut gather = Gather::new(&[key(1), key(2)], &[cursor(2, 7), cursor(9, 3)], 0);
        let asks = gather.start();
        assert_eq!(asks[0], Action::Ask { replica: key(1), cursor: None });
        assert_eq!(asks[1], Action::Ask { replica: key(2), cursor: Some(cursor(2, 7)) });
        let next = gather.step(page(1, 5, true), 1);
        assert_eq!(next, [Action::Ask { replica: key(1), cursor: Some(cursor(1, 5)) }]);
        gather.step(page(1, 6, false), 2);
        gather.step(page(2, 8, false), 2);
        assert!(gather.finished());
        assert_eq!(gather.answered(), 2);
        assert_eq!(gather.position(), [cursor(1, 6), cursor(2, 8), cursor(9, 3)]);
    }

    #[test]
    fn an_expired_cursor_starts_over_once() {
        let mut gather = Gather::new(&[key(1)], &[cursor(1, 7)], 0);
        let again = gather.step(Input::Expired { replica: key(1) }, 0);
        assert_eq!(again, [Action::Ask { replica: key(1), cursor: None }]);
        gather.step(Input::Expired { replica: key(1) }, 0);
        assert!(gather.finished() && gather.answered() == 0);
    }

    #[test]
    fn a_silent_replica_holds_nobody_up_for_long() {
        let mut gather = Gather::new(&[key(1), key(2)], &[cursor(2, 4)], 0);
        assert_eq!(gather.wake_ms(), Some(PATIENCE_FIRST_MS));
        gather.step(page(1, 1, false), 20);
        gather.step(Input::Tick, 19 + PATIENCE_MS);
        assert!(!gather.finished());
        gather.step(Input::Tick, 20 + PATIENCE_MS);
        assert!(gather.finished());
        assert_eq!(gather.position(), [cursor(1, 1), cursor(2, 4)]);
    }

    #[test]
    fn cursors_of_others_and_standing_cursors_are_refused() {
        let mut gather = Gather::new(&[key(1)], &[], 0);
        gather.step(Input::Page { replica: key(1), cursor: cursor(2, 9), more: false }, 0);
        assert!(gather.finished() && gather.answered() == 0 && gather.position().is_empty());

        let mut gather = Gather::new(&[key(1)], &[cursor(1, 3)], 0);
        assert_eq!(gather.step(page(1, 3, true), 0), []);
        assert!(gather.finished() && gather.answered() == 0);
    }

    proptest! {
        /// Any replicas, pages and failures: it ends, and every replica read to its end stands there.
        #[test]
        fn every_pull_ends(
            lengths in prop::collection::vec(0u64..6, 1..9),
            failing in prop::collection::vec(any::<bool>(), 9),
        ) {
            let keys: Vec<NodeKey> = (0..lengths.len() as u8).map(key).collect();
            let mut gather = Gather::new(&keys, &[], 0);
            let mut asks = gather.start();
            let mut steps = 0;
            while let Some(Action::Ask { replica, cursor: at }) = asks.pop() {
                let index = replica.0[0];
                let next = at.map_or(0, |c| c.sequence) + 1;
                let last = lengths[usize::from(index)];
                let input = if failing[usize::from(index)] && next >= last {
                    Input::Failed { replica, reason: "gone".into() }
                } else {
                    page(index, next, next < last)
                };
                asks.extend(gather.step(input, 0));
                steps += 1;
                prop_assert!(steps < 100);
            }
            prop_assert!(gather.finished());
            let whole = (0..lengths.len()).filter(|&i| !failing[i]).count();
            prop_assert_eq!(gather.answered(), whole);
            for cursor in gather.position().into_iter().filter(|c| !failing[usize::from(c.replica[0])]) {
                prop_assert_eq!(cursor.sequence, lengths[usize::from(cursor.replica[0])].max(1));
            }
        }
    }
}
