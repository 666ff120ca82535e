//! One batch on its way to its replicas: who gets which packets, what counts as acknowledged, when
//! to try again, and when to stop.
//!
//! A packet is acknowledged once enough disks have synced; the copies that are still missing then
//! are handed off in the background, with growing pauses, until the replica has them or
//! [`HANDOFF_MS`] is over.

use super::backoff_ms;
use super::placement::{NodeKey, acknowledgements_needed};
use crate::limits::FRAME_PACKETS_MAX;
use std::collections::{BTreeMap, VecDeque};

/// Pause before the first repetition; doubles with each further one.
pub const RETRY_FIRST_MS: u64 = 250;
/// Longest pause between repetitions.
pub const RETRY_LAST_MS: u64 = 30_000;
/// How long a depositor waits for its acknowledgements.
pub const PATIENCE_MS: u64 = 10_000;
/// How long copies are kept in memory for a replica that does not answer.
pub const HANDOFF_MS: u64 = 10 * 60_000;
/// Frames to one replica that are on their way at a time: hides the round trip behind the sync.
const FRAMES_IN_FLIGHT: usize = 2;

/// What one replica said of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Stored,
    Duplicate,
    Rejected(String),
}

/// What became of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough disks have it, at least one of them since this deposit.
    Stored,
    /// Enough disks have it, all of them from before.
    Duplicate,
    /// So many replicas refused it that it cannot be acknowledged any more.
    Rejected(String),
    /// Too few replicas answered in time; the hand-off goes on.
    Unacknowledged { disks: usize, needed: usize },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// One answer per packet of a [`Action::Send`].
    Answered { replica: NodeKey, packets: Vec<usize>, answers: Vec<Answer> },
    /// Nothing was learnt: unreachable, timed out, overloaded, or the answer made no sense. The replica
    /// may have said after how many milliseconds it wants to be asked again.
    Failed { replica: NodeKey, packets: Vec<usize>, retry_after_ms: u64 },
    /// Time has passed.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends these packets of the batch, at most a frame's worth, to a replica.
    Send { replica: NodeKey, packets: Vec<usize> },
}

/// The state of one batch.
#[derive(Debug)]
pub struct Deposit {
    packets: Vec<Tracked>,
    replicas: BTreeMap<NodeKey, Lane>,
    undecided: usize,
    started_ms: u64,
}

#[derive(Debug)]
struct Tracked {
    replicas: usize,
    stored: usize,
    duplicate: usize,
    rejected: usize,
    reason: String,
    verdict: Option<Verdict>,
}

/// What one replica still has to get.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<usize>,
    frames_in_flight: usize,
    failures: u32,
    not_before_ms: u64,
}

impl Deposit {
    /// `placement[i]` are the replicas of packet i, without duplicates.
    pub fn new(placement: &[Vec<NodeKey>], now_ms: u64) -> Deposit {
        let mut replicas: BTreeMap<NodeKey, Lane> = BTreeMap::new();
        let mut packets = Vec::with_capacity(placement.len());
        for (index, keys) in placement.iter().enumerate() {
            for key in keys {
                replicas.entry(*key).or_default().waiting.push_back(index);
            }
            packets.push(Tracked {
                replicas: keys.len(),
                stored: 0,
                duplicate: 0,
                rejected: 0,
                reason: String::new(),
                verdict: None,
            });
        }
        let undecided = packets.len();
        Deposit { packets, replicas, undecided, started_ms: now_ms }
    }

    /// One step. Begin with [`Input::Tick`].
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        match input {
            Input::Answered { replica, packets, answers } if packets.len() == answers.len() => {
                let Some(lane) = self.replicas.get_mut(&replica) else { return Vec::new() };
                lane.frames_in_flight = lane.frames_in_flight.saturating_sub(1);
                lane.failures = 0;
                for (index, answer) in packets.into_iter().zip(answers) {
                    self.count(index, answer);
                }
            }
            Input::Answered { replica, packets, .. } => return self.step(failed(replica, packets), now_ms),
            Input::Failed { replica, packets, retry_after_ms } => {
                let Some(lane) = self.replicas.get_mut(&replica) else { return Vec::new() };
                lane.frames_in_flight = lane.frames_in_flight.saturating_sub(1);
                lane.failures += 1;
                let pause_ms = backoff_ms(lane.failures, RETRY_FIRST_MS, RETRY_LAST_MS);
                lane.not_before_ms = now_ms + pause_ms.max(retry_after_ms.min(RETRY_LAST_MS));
                for index in packets.into_iter().rev() {
                    lane.waiting.push_front(index);
                }
            }
            Input::Tick => {}
        }
        if now_ms >= self.started_ms + PATIENCE_MS {
            self.give_verdicts();
        }
        if now_ms >= self.started_ms + HANDOFF_MS {
            self.replicas.values_mut().for_each(|lane| lane.waiting.clear());
        }
        self.sends(now_ms)
    }

    fn sends(&mut self, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for (&replica, lane) in &mut self.replicas {
            // After a failure one frame probes the replica before the pipeline fills again.
            let allowed = if lane.failures > 0 { 1 } else { FRAMES_IN_FLIGHT };
            while !lane.waiting.is_empty() && lane.frames_in_flight < allowed && now_ms >= lane.not_before_ms
            {
                let frame = lane.waiting.len().min(FRAME_PACKETS_MAX);
                lane.frames_in_flight += 1;
                actions.push(Action::Send { replica, packets: lane.waiting.drain(..frame).collect() });
            }
        }
        actions
    }

    fn count(&mut self, index: usize, answer: Answer) {
        let Some(packet) = self.packets.get_mut(index) else { return };
        match answer {
            Answer::Stored => packet.stored += 1,
            Answer::Duplicate => packet.duplicate += 1,
            Answer::Rejected(reason) => {
                packet.rejected += 1;
                packet.reason = reason;
            }
        }
        if packet.verdict.is_some() {
            return;
        }
        let needed = acknowledgements_needed(packet.replicas);
        if packet.stored + packet.duplicate >= needed {
            packet.verdict = Some(if packet.stored > 0 { Verdict::Stored } else { Verdict::Duplicate });
        } else if packet.replicas - packet.rejected.min(packet.replicas) < needed {
            packet.verdict = Some(Verdict::Rejected(packet.reason.clone()));
        } else {
            return;
        }
        self.undecided -= 1;
    }

    fn give_verdicts(&mut self) {
        for packet in self.packets.iter_mut().filter(|p| p.verdict.is_none()) {
            packet.verdict = Some(Verdict::Unacknowledged {
                disks: packet.stored + packet.duplicate,
                needed: acknowledgements_needed(packet.replicas),
            });
        }
        self.undecided = 0;
    }

    /// The verdicts in the order of the batch, once every packet has one.
    pub fn verdicts(&self) -> Option<Vec<Verdict>> {
        (self.undecided == 0).then(|| self.packets.iter().filter_map(|p| p.verdict.clone()).collect())
    }

    /// Copies that some replica still has to get.
    pub fn copies_waiting(&self) -> usize {
        self.replicas.values().map(|lane| lane.waiting.len()).sum()
    }

    /// Whether nothing is waiting or on its way.
    pub fn finished(&self) -> bool {
        self.replicas.values().all(|lane| lane.waiting.is_empty() && lane.frames_in_flight == 0)
    }

    /// When a [`Input::Tick`] will change something, if no answer comes before.
    pub fn wake_ms(&self) -> Option<u64> {
        let retries = self
            .replicas
            .values()
            .filter(|l| !l.waiting.is_empty() && l.frames_in_flight == 0)
            .map(|l| l.not_before_ms);
        let patience = (self.undecided > 0).then_some(self.started_ms + PATIENCE_MS);
        retries.chain(patience).min()
    }
}

fn failed(replica: NodeKey, packets: Vec<usize>) -> Input {
    Input::Failed { replica, packets, retry_after_ms: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: usize) -> NodeKey {
        NodeKey([byte as u8; 32])
    }

    fn sent(actions: &[Action]) -> Vec<NodeKey> {
        actions.iter().map(|Action::Send { replica, .. }| *replica).collect()
    }

    fn answer(replica: usize, answers: &[Answer]) -> Input {
        let packets = (0..answers.len()).collect();
        Input::Answered { replica: key(replica), packets, answers: answers.to_vec() }
    }

    #[test]
    fn three_disks_of_eight_acknowledge_and_the_others_are_handed_off() {
        let mut deposit = Deposit::new(&[(0..8).map(key).collect()], 0);
        assert_eq!(sent(&deposit.step(Input::Tick, 0)).len(), 8);
        deposit.step(answer(0, &[Answer::Stored]), 1);
        deposit.step(answer(1, &[Answer::Duplicate]), 1);
        assert_eq!(deposit.verdicts(), None);
        deposit.step(answer(2, &[Answer::Duplicate]), 1);
        assert_eq!(deposit.verdicts(), Some(vec![Verdict::Stored]));
        assert!(!deposit.finished());

        assert_eq!(deposit.step(failed(key(5), vec![0]), 2), []);
        assert_eq!(deposit.wake_ms(), Some(2 + RETRY_FIRST_MS));
        assert_eq!(deposit.step(Input::Tick, 1 + RETRY_FIRST_MS), []);
        assert_eq!(sent(&deposit.step(Input::Tick, 2 + RETRY_FIRST_MS)), [key(5)]);
    }

    #[test]
    fn a_packet_that_too_many_refuse_is_rejected_with_the_reason() {
        let mut deposit = Deposit::new(&[(0..4).map(key).collect()], 0);
        deposit.step(Input::Tick, 0);
        deposit.step(answer(0, &[Answer::Rejected("old".into())]), 0);
        assert_eq!(deposit.verdicts(), None, "three of four can still acknowledge");
        deposit.step(answer(1, &[Answer::Rejected("old".into())]), 0);
        assert_eq!(deposit.verdicts(), Some(vec![Verdict::Rejected("old".into())]));
    }

    #[test]
    fn patience_ends_but_the_hand_off_goes_on() {
        let mut deposit = Deposit::new(&[vec![key(0), key(1)]], 0);
        deposit.step(Input::Tick, 0);
        deposit.step(answer(0, &[Answer::Stored]), 5);
        assert_eq!(deposit.wake_ms(), Some(PATIENCE_MS));
        deposit.step(failed(key(1), vec![0]), PATIENCE_MS);
        let verdict = Verdict::Unacknowledged { disks: 1, needed: 2 };
        assert_eq!(deposit.verdicts(), Some(vec![verdict]));
        assert!(!deposit.finished());
        deposit.step(Input::Tick, HANDOFF_MS);
        assert!(deposit.finished());
    }

    #[test]
    fn an_answer_of_the_wrong_length_counts_as_none() {
        let mut deposit = Deposit::new(&[vec![key(0)]], 0);
        deposit.step(Input::Tick, 0);
        let short = Input::Answered { replica: key(0), packets: vec![0], answers: vec![] };
        deposit.step(short, 0);
        assert_eq!((deposit.verdicts(), deposit.copies_waiting()), (None, 1));
    }

    proptest! {
        /// Whatever fails in whatever order, an acknowledged packet lies on enough disks, and a
        /// batch whose replicas all recover is on every disk in the end.
        #[test]
        fn acknowledged_means_enough_disks(
            replicas in 1usize..9,
            packets in 1usize..2_200,
            failures in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let placement = vec![(0..replicas).map(key).collect::<Vec<_>>(); packets];
            let mut deposit = Deposit::new(&placement, 0);
            let mut disks = vec![0usize; packets];
            let mut failures = failures.into_iter();
            let mut now = 0;
            let mut on_their_way: VecDeque<Action> = deposit.step(Input::Tick, now).into();
            while !deposit.finished() {
                let Some(Action::Send { replica, packets }) = on_their_way.pop_front() else {
                    now = deposit.wake_ms().unwrap().max(now);
                    on_their_way.extend(deposit.step(Input::Tick, now));
                    continue;
                };
                prop_assert!(packets.len() <= FRAME_PACKETS_MAX);
                let input = if failures.next().unwrap_or(false) {
                    failed(replica, packets)
                } else {
                    packets.iter().for_each(|&p| disks[p] += 1);
                    let answers = vec![Answer::Stored; packets.len()];
                    Input::Answered { replica, packets, answers }
                };
                on_their_way.extend(deposit.step(input, now));
                if let Some(verdicts) = deposit.verdicts() {
                    for (verdict, disks) in verdicts.iter().zip(&disks) {
                        prop_assert!(*verdict != Verdict::Stored || *disks >= acknowledgements_needed(replicas));
                    }
                }
            }
            prop_assert!(now >= HANDOFF_MS || disks.iter().all(|d| *d == replicas));
        }
    }
}
