//! Repair: whom to compare mailboxes with, and when, so that every replica of a mailbox comes to hold
//! all of it.
//!
//! A node repairs itself by pulling. It asks another storage node for the digests of the mailboxes that
//! both should hold; where one differs from its own, it fetches what it lacks ([`super::reconcile`]).
//! What the other one lacks, that one fetches in its own turn. So a node that joins fills itself, one that
//! comes back catches up, a damaged record is replaced, and nobody has to know who missed what.
//!
//! - Each peer is compared with once in [`ROUND_MS`], each at its own moment.
//! - A change of membership moves the places of mailboxes: all peers become due, after a pause that
//!   further changes prolong, so that many nodes that join are one repair and not many. Silence is no
//!   change of membership: a restart moves nothing.
//! - A peer that answers again after silence is due soon: deposits went on while it was cut off. And twice
//!   more within minutes, for deposits of those who noticed later.
//! - Packets are fetched at a bounded rate, so that repair does not crowd out questions.

use super::backoff_ms;
use super::placement::NodeKey;
use crate::address::Address;
use crate::limits::REPAIR_QUEUE_MAX;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Time between two comparisons with one peer; up to a quarter more, by peer.
pub const ROUND_MS: u64 = 10 * 60_000;
/// Pause after a change of membership; up to as much again, by peer.
pub const DEBOUNCE_MS: u64 = 5_000;
/// Longest pause that further changes can make of it.
pub const DEBOUNCE_MAX_MS: u64 = 60_000;
/// Pause after a peer has answered again; up to as much again, by peer.
pub const RETURN_MS: u64 = 2_000;
/// When such a peer is compared with again: others may not have noticed yet that it answers, and deposit
/// past one of us. They try a silent node once a minute at the least.
pub const FOLLOW_UPS_MS: [u64; 2] = [20_000, 80_000];
/// Pause after a failure; doubles with each further one.
pub const RETRY_FIRST_MS: u64 = 5_000;
/// Peers that are compared with at a time.
const COMPARISONS_MAX: usize = 2;
/// Mailboxes that are reconciled at a time.
const RECONCILIATIONS_MAX: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The storage nodes but ourselves, as they are now. The first one starts the first round.
    Members(BTreeSet<NodeKey>),
    /// A peer that was silent answers again.
    Returned(NodeKey),
    /// A mailbox of ours is known to lack packets; these hold it too.
    Wanted {
        address: Address,
        replicas: Vec<NodeKey>,
    },
    /// A page of an [`Action::Compare`]: how many mailboxes it told of, in which of them the peer's digest
    /// differs from ours, and where the next page begins.
    Compared {
        peer: NodeKey,
        mailboxes: usize,
        differing: Vec<Address>,
        next: Option<Address>,
    },
    /// An [`Action::Reconcile`] is over.
    Reconciled {
        peer: NodeKey,
        address: Address,
        fetched: u64,
    },
    /// A comparison, or the reconciliation of a mailbox, got no answer or a wrong one.
    Failed {
        peer: NodeKey,
        address: Option<Address>,
    },
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Asks a peer for digests of the mailboxes after an address, and compares them with ours.
    Compare { peer: NodeKey, after: Option<Address> },
    /// Fetches what a peer has of a mailbox and we lack.
    Reconcile { peer: NodeKey, address: Address },
}

/// What repair has done so far, and what is ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Comparisons of a mailbox's digest with a peer's.
    pub mailboxes_compared: u64,
    /// Of these, digests that differed.
    pub mailboxes_differing: u64,
    pub packets_fetched: u64,
    pub failures: u64,
    /// Mailboxes waiting to be reconciled.
    pub queue: usize,
    /// Peers that have not been compared with since they became due.
    pub peers_due: usize,
    /// Milliseconds since a comparison with a peer was last completed; `None` before the first.
    pub since_completed_ms: Option<u64>,
}

/// The state of one node's repair.
#[derive(Debug)]
pub struct Repair {
    local: NodeKey,
    peers: BTreeMap<NodeKey, Peer>,
    queue: VecDeque<(NodeKey, Address)>,
    /// Mailboxes being reconciled.
    busy: BTreeSet<Address>,
    /// When the changes of membership that are being waited for began, and when waiting ends.
    changing: Option<(u64, u64)>,
    /// Packets that may be fetched now, in thousandths; below zero after a large mailbox.
    allowance: i64,
    allowance_at_ms: u64,
    packets_per_second: u64,
    progress: Progress,
    completed_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    due_ms: u64,
    state: State,
    failures: u32,
    /// When it last answered again after silence.
    returned_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// A page has been asked for.
    Asked,
    /// The next page waits for room in the queue.
    Next(Address),
}

impl Repair {
    /// Nothing happens before the first [`Input::Members`]. `packets_per_second` 0 sets no bound.
    pub fn new(local: NodeKey, packets_per_second: u64, now_ms: u64) -> Repair {
        Repair {
            local,
            peers: BTreeMap::new(),
            queue: VecDeque::new(),
            busy: BTreeSet::new(),
            changing: None,
            allowance: 0,
            allowance_at_ms: now_ms,
            packets_per_second,
            progress: Progress::default(),
            completed_ms: None,
        }
    }

    /// One step.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        match input {
            Input::Members(members) => self.members(members, now_ms),
            Input::Returned(key) => {
                let pause = RETURN_MS + self.jitter_ms(&key, RETURN_MS);
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.failures = 0;
                    peer.returned_ms = Some(now_ms);
                    peer.due_ms = peer.due_ms.min(now_ms + pause);
                }
            }
            Input::Wanted { address, replicas } => {
                let local = self.local;
                for peer in replicas.into_iter().filter(|key| *key != local) {
                    self.enqueue(peer, address);
                }
            }
            Input::Compared { peer, mailboxes, differing, next } => {
                self.progress.mailboxes_compared += mailboxes as u64;
                self.progress.mailboxes_differing += differing.len() as u64;
                differing.into_iter().for_each(|address| self.enqueue(peer, address));
                self.compared(&peer, next, now_ms);
            }
            Input::Reconciled { address, fetched, .. } => {
                self.busy.remove(&address);
                self.progress.packets_fetched += fetched;
                self.allowance -= i64::try_from(fetched).unwrap_or(i64::MAX / 1_000).saturating_mul(1_000);
            }
            Input::Failed { peer, address } => self.failed(peer, address, now_ms),
            Input::Tick => {}
        }
        self.actions(now_ms)
    }

    fn members(&mut self, members: BTreeSet<NodeKey>, now_ms: u64) {
        let known: BTreeSet<NodeKey> = self.peers.keys().copied().collect();
        if members == known {
            return;
        }
        self.peers.retain(|key, _| members.contains(key));
        self.queue.retain(|(key, _)| members.contains(key));
        let since_ms = self.changing.map_or(now_ms, |(since_ms, _)| since_ms);
        let latest_ms = since_ms + DEBOUNCE_MAX_MS;
        self.changing = Some((since_ms, (now_ms + 2 * DEBOUNCE_MS).min(latest_ms)));
        for key in members {
            let due_ms = (now_ms + DEBOUNCE_MS + self.jitter_ms(&key, DEBOUNCE_MS)).min(latest_ms);
            let peer = self.peers.entry(key).or_insert(Peer {
                due_ms,
                state: State::Idle,
                failures: 0,
                returned_ms: None,
            });
            peer.due_ms = due_ms;
        }
    }

    fn compared(&mut self, key: &NodeKey, next: Option<Address>, now_ms: u64) {
        let pause = ROUND_MS + self.jitter_ms(key, ROUND_MS / 4);
        let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.state == State::Asked) else { return };
        peer.failures = 0;
        match next {
            Some(next) => peer.state = State::Next(next),
            None => {
                peer.state = State::Idle;
                let follow_ups = peer.returned_ms.map(|at| FOLLOW_UPS_MS.map(|pause| at + pause));
                let follow_up = follow_ups.into_iter().flatten().find(|at| *at > now_ms);
                peer.due_ms = follow_up.unwrap_or(u64::MAX).min(now_ms + pause);
                self.completed_ms = Some(now_ms);
            }
        }
    }

    fn failed(&mut self, key: NodeKey, address: Option<Address>, now_ms: u64) {
        self.progress.failures += 1;
        if let Some(address) = address {
            self.busy.remove(&address);
        }
        // What it still has to give is found anew when it answers again.
        self.queue.retain(|(peer, _)| *peer != key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.failures = peer.failures.saturating_add(1);
        peer.state = State::Idle;
        peer.due_ms = now_ms + backoff_ms(peer.failures, RETRY_FIRST_MS, ROUND_MS);
    }

    fn enqueue(&mut self, peer: NodeKey, address: Address) {
        if self.queue.len() < REPAIR_QUEUE_MAX && !self.queue.contains(&(peer, address)) {
            self.queue.push_back((peer, address));
        }
    }

    fn actions(&mut self, now_ms: u64) -> Vec<Action> {
        self.refill(now_ms);
        self.changing = self.changing.filter(|(_, end_ms)| now_ms < *end_ms);
        let mut actions = Vec::new();
        let mut held_back = VecDeque::new();
        while self.busy.len() < RECONCILIATIONS_MAX
            && (self.allowance > 0 || self.packets_per_second == 0)
            && let Some((peer, address)) = self.queue.pop_front()
        {
            // The same mailbox with two peers at a time would fetch the same packets twice.
            if self.busy.insert(address) {
                actions.push(Action::Reconcile { peer, address });
            } else {
                held_back.push_back((peer, address));
            }
        }
        held_back.append(&mut self.queue);
        self.queue = held_back;

        let asked = self.peers.values().filter(|peer| peer.state == State::Asked).count();
        let free = COMPARISONS_MAX.saturating_sub(asked);
        for key in self.ready(now_ms, free) {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let after = match peer.state {
                State::Next(address) => Some(address),
                _ => None,
            };
            peer.state = State::Asked;
            actions.push(Action::Compare { peer: key, after });
        }
        actions
    }

    /// At most `count` peers to compare with now: those in the middle of it first, then the closest to
    /// ourselves, with whom we share most.
    fn ready(&self, now_ms: u64, count: usize) -> Vec<NodeKey> {
        if count == 0 || self.queue.len() >= REPAIR_QUEUE_MAX / 2 {
            return vec![];
        }
        let ready = |peer: &Peer| match peer.state {
            State::Next(_) => true,
            State::Idle => peer.due_ms <= now_ms,
            State::Asked => false,
        };
        let distance = |key: &NodeKey| -> [u8; 32] { std::array::from_fn(|i| key.0[i] ^ self.local.0[i]) };
        let ranked = self.peers.iter().filter(|(_, peer)| ready(peer));
        let mut ranked: Vec<(bool, [u8; 32], NodeKey)> =
            ranked.map(|(key, peer)| (peer.state == State::Idle, distance(key), *key)).collect();
        // Hundreds may be due after a change of membership, and at each step a few are wanted.
        if ranked.len() > count {
            ranked.select_nth_unstable(count - 1);
            ranked.truncate(count);
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, key)| key).collect()
    }

    fn refill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.allowance_at_ms);
        // Packets a second are thousandths of a packet a millisecond. One second may be saved up.
        let rate = i64::try_from(self.packets_per_second).unwrap_or(i64::MAX);
        let gained = rate.saturating_mul(i64::try_from(passed).unwrap_or(i64::MAX));
        self.allowance = self.allowance.saturating_add(gained).min(rate.saturating_mul(1_000));
        self.allowance_at_ms = now_ms;
    }

    /// Less than `range_ms`, by the pair of nodes: not everybody at once.
    fn jitter_ms(&self, peer: &NodeKey, range_ms: u64) -> u64 {
        let (a, b) = (&self.local.0, &peer.0);
        (u64::from(u16::from_le_bytes([a[0] ^ b[2], a[1] ^ b[3]])) * range_ms) >> 16
    }

    /// When an [`Input::Tick`] will do something, if nothing else comes before.
    pub fn wake_ms(&self) -> Option<u64> {
        let asked = self.peers.values().filter(|peer| peer.state == State::Asked).count();
        let idle = self.peers.values().filter(|peer| peer.state == State::Idle).map(|peer| peer.due_ms);
        let room = asked < COMPARISONS_MAX && self.queue.len() < REPAIR_QUEUE_MAX / 2;
        let comparison = idle.min().filter(|_| room);
        let waits = !self.queue.is_empty() && self.busy.is_empty() && self.packets_per_second > 0;
        let allowed = waits.then(|| {
            let missing = u64::try_from(1 - self.allowance).unwrap_or(0);
            self.allowance_at_ms + missing.div_ceil(self.packets_per_second)
        });
        comparison.into_iter().chain(allowed).min()
    }

    pub fn progress(&self, now_ms: u64) -> Progress {
        let due = |peer: &&Peer| peer.state != State::Idle || peer.due_ms <= now_ms;
        Progress {
            queue: self.queue.len() + self.busy.len(),
            peers_due: self.peers.values().filter(due).count(),
            since_completed_ms: self.completed_ms.map(|at| now_ms.saturating_sub(at)),
            ..self.progress
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> NodeKey {
        NodeKey([byte; 32])
    }

    fn members(bytes: impl IntoIterator<Item = u8>) -> Input {
        Input::Members(bytes.into_iter().map(key).collect())
    }

    fn compared(peer: u8, differing: Vec<Address>, next: Option<Address>) -> Input {
        Input::Compared { peer: key(peer), mailboxes: 10, differing, next }
    }

    /// Ticks until something is to do.
    fn next(repair: &mut Repair, now: &mut u64) -> Vec<Action> {
        loop {
            *now = repair.wake_ms().expect("something ahead").max(*now);
            let actions = repair.step(Input::Tick, *now);
            if !actions.is_empty() {
                return actions;
            }
        }
    }

    #[test]
    fn a_node_that_joins_compares_and_fetches_page_by_page() {
        let (mut repair, mut now) = (Repair::new(key(0), 0, 0), 0);
        assert_eq!(repair.wake_ms(), None);
        assert_eq!(repair.step(members([1]), 0), []);
        assert_eq!(next(&mut repair, &mut now), [Action::Compare { peer: key(1), after: None }]);
        assert!((DEBOUNCE_MS..2 * DEBOUNCE_MS).contains(&now));
        let actions = repair.step(compared(1, vec![[5; 32], [6; 32]], Some([9; 32])), now);
        let reconcile = |byte| Action::Reconcile { peer: key(1), address: [byte; 32] };
        assert_eq!(
            actions,
            [reconcile(5), reconcile(6), Action::Compare { peer: key(1), after: Some([9; 32]) }]
        );
        assert_eq!(repair.step(compared(1, vec![], None), now), []);
        for byte in [5, 6] {
            repair.step(Input::Reconciled { peer: key(1), address: [byte; 32], fetched: 7 }, now);
        }
        let progress = repair.progress(now);
        assert_eq!((progress.packets_fetched, progress.queue, progress.peers_due), (14, 0, 0));
        let before = now;
        assert_eq!(next(&mut repair, &mut now), [Action::Compare { peer: key(1), after: None }]);
        assert!((ROUND_MS..=ROUND_MS * 5 / 4).contains(&(now - before)));
    }

    #[test]
    fn many_that_join_are_one_repair_and_a_restart_is_none() {
        let mut repair = Repair::new(key(0), 0, 0);
        let mut now = 0;
        for byte in 1..=10 {
            assert_eq!(repair.step(members(1..=byte), now), [], "debounced");
            now += DEBOUNCE_MS / 2;
        }
        let mut comparisons = 0;
        let end = now + 3 * DEBOUNCE_MS;
        while let Some(wake) = repair.wake_ms().filter(|wake| *wake <= end) {
            now = wake.max(now);
            let mut actions = repair.step(Input::Tick, now);
            while let Some(Action::Compare { peer, .. }) = actions.pop() {
                comparisons += 1;
                actions.extend(repair.step(compared(peer.0[0], vec![], None), now));
            }
        }
        assert_eq!(comparisons, 10, "each peer once");
        // The same members again, as after a restart, change nothing.
        let wake = repair.wake_ms();
        assert_eq!(repair.step(members(1..=10), now), []);
        assert_eq!(repair.wake_ms(), wake);
    }

    #[test]
    fn changes_that_never_end_do_not_put_repair_off_for_ever() {
        let mut repair = Repair::new(key(0), 0, 0);
        let (mut now, mut compares) = (0, 0);
        while now < 4 * DEBOUNCE_MAX_MS {
            compares += repair.step(members(1..=1 + (now / 1_000 % 2) as u8), now).len();
            now += 1_000;
        }
        assert!(compares >= 1);
    }

    #[test]
    fn a_peer_that_returns_is_compared_with_soon_and_one_that_fails_later_and_later() {
        let (mut repair, mut now) = (Repair::new(key(0), 0, 0), 0);
        repair.step(members([1]), 0);
        next(&mut repair, &mut now);
        repair.step(compared(1, vec![], None), now);
        repair.step(Input::Returned(key(1)), now);
        let from = now;
        next(&mut repair, &mut now);
        assert!((RETURN_MS..2 * RETURN_MS).contains(&(now - from)));
        for pause in FOLLOW_UPS_MS {
            repair.step(compared(1, vec![], None), now);
            next(&mut repair, &mut now);
            assert_eq!(now - from, pause);
        }
        repair.step(compared(1, vec![], None), now);
        let again = now;
        next(&mut repair, &mut now);
        assert!(now - again >= ROUND_MS);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let from = now;
            repair.step(Input::Failed { peer: key(1), address: None }, now);
            next(&mut repair, &mut now);
            pauses.push(now - from);
        }
        assert_eq!(pauses[..3], [RETRY_FIRST_MS, 2 * RETRY_FIRST_MS, 4 * RETRY_FIRST_MS]);
        assert_eq!(pauses[9], ROUND_MS);
    }

    #[test]
    fn packets_come_at_a_bounded_rate() {
        let (mut repair, mut now) = (Repair::new(key(0), 1_000, 0), 0);
        repair.step(members([1]), 0);
        next(&mut repair, &mut now);
        let differing = (0..100).map(|byte| [byte; 32]).collect();
        let mut under_way: VecDeque<Action> = repair.step(compared(1, differing, None), now).into();
        let (start, mut mailboxes) = (now, 0u64);
        while mailboxes < 100 {
            match under_way.pop_front() {
                Some(Action::Reconcile { peer, address }) => {
                    mailboxes += 1;
                    under_way.extend(repair.step(Input::Reconciled { peer, address, fetched: 500 }, now));
                }
                Some(Action::Compare { .. }) => {}
                None => under_way.extend(next(&mut repair, &mut now)),
            }
        }
        // 50,000 packets, one second saved up and four mailboxes ahead.
        let seconds = (now - start) / 1_000;
        assert!((46..=50).contains(&seconds), "{seconds} s");
    }

    proptest! {
        /// Whatever happens: no mailbox twice at a time, bounded work, and a tick at the wake time
        /// always gets something done, so no runtime spins.
        #[test]
        fn bounded_and_never_spinning(
            inputs in prop::collection::vec((0u8..6, 0u8..12, 0u8..20, 0u64..20_000), 0..300),
        ) {
            let mut repair = Repair::new(key(0), 100, 0);
            let mut now = 0;
            let mut busy: BTreeSet<Address> = BTreeSet::new();
            let mut asked: BTreeSet<NodeKey> = BTreeSet::new();
            for (what, peer, address, pause) in inputs {
                now += pause;
                let address = [address; 32];
                let input = match what {
                    0 => members((1..=peer).filter(|byte| !byte.is_multiple_of(5))),
                    1 => Input::Returned(key(peer)),
                    2 if asked.remove(&key(peer)) => compared(peer, vec![address, [peer; 32]], (pause > 9_000).then_some(address)),
                    3 if busy.remove(&address) => Input::Reconciled { peer: key(peer), address, fetched: pause / 50 },
                    4 => {
                        asked.remove(&key(peer));
                        Input::Failed { peer: key(peer), address: busy.take(&address) }
                    }
                    _ => Input::Tick,
                };
                let mut actions = repair.step(input, now);
                if let Some(wake) = repair.wake_ms().filter(|wake| *wake <= now) {
                    actions.extend(repair.step(Input::Tick, now));
                    prop_assert!(repair.wake_ms().is_none_or(|next| next > now), "spins at {wake}");
                }
                for action in actions {
                    match action {
                        Action::Compare { peer, .. } => { asked.insert(peer); }
                        Action::Reconcile { address, .. } => prop_assert!(busy.insert(address)),
                    }
                }
                prop_assert!(busy.len() <= RECONCILIATIONS_MAX);
                prop_assert!(repair.queue.len() <= REPAIR_QUEUE_MAX);
            }
        }
    }
}
