//! Who belongs to the swarm, who is silent, and whom to greet when.
//!
//! A greeting is an exchange: both sides say who they are, and the greeted one names the members it
//! knows. A name heard from a third is a candidate; it becomes a member, and so a replica, only after
//! we have spoken with it ourselves, so that nobody fills mailboxes' places with invented nodes.
//! Placement goes by membership, not by liveness: a silent member keeps its places until it is
//! forgotten. Silent members are greeted again with growing pauses, and readers skip them meanwhile.
//!
//! A list that is full keeps some of every distance ([`super::table`]): that happens in swarms whose nodes
//! do not all know each other, and find replicas by look-ups.

use super::backoff_ms;
use super::placement::NodeKey;
use super::table::{Buckets, bucket};
use crate::limits::{MEMBER_ADDRESSES_MAX, MEMBERS_MAX};
use std::collections::BTreeMap;

/// Pause before a silent node is greeted again; doubles with each further failure.
pub const RETRY_FIRST_MS: u64 = 1_000;
/// The same for a seed: one lost datagram can cost a whole attempt, and nobody else is known yet.
pub const SEED_RETRY_FIRST_MS: u64 = 250;
/// Attempts after which a seed that has never answered is not waited for any more.
pub const SEED_ATTEMPTS: u32 = 4;
/// Longest pause.
pub const RETRY_LAST_MS: u64 = 60_000;
/// Failures after which a candidate is forgotten.
pub const CANDIDATE_FAILURES_MAX: u32 = 5;
/// Silence after which a member is forgotten.
pub const FORGET_MS: u64 = 24 * 60 * 60 * 1_000;
/// Time between two greetings that only look for news; each node adds up to a quarter of its own.
pub const REFRESH_MS: u64 = 60_000;
/// Places for candidates in a list that is full of members: those that would fill an emptier bucket.
const NEWCOMERS_MAX: usize = 64;
/// Greetings on their way at a time.
pub const GREETINGS_MAX: usize = 16;

/// How to reach a node. The bytes are opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Binary peer id.
    pub peer: Vec<u8>,
    /// Binary multiaddresses.
    pub addresses: Vec<Vec<u8>>,
}

impl Contact {
    pub fn key(&self) -> NodeKey {
        NodeKey::of_peer(&self.peer)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A node spoke with us and keeps mailboxes; the addresses are its own words.
    Greeted(Contact),
    /// A node spoke with us and keeps none: no replica.
    GreetedByClient(NodeKey),
    /// A member named others.
    Introduced(Vec<Contact>),
    /// A greeting or a request got no answer.
    Failed(NodeKey),
    /// The seed with this index answered.
    SeedReached(usize),
    /// The seed is our own address: it is never dialled again.
    SeedIsSelf(usize),
    SeedFailed(usize),
    /// Time has passed.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Greet(NodeKey),
    /// Dials the seed with this index, and greets whoever answers.
    DialSeed(usize),
}

/// The list of one node.
#[derive(Debug)]
pub struct Members {
    local: NodeKey,
    /// Most members.
    room: usize,
    known: BTreeMap<NodeKey, Known>,
    seeds: Vec<Attempt>,
    refresh_at_ms: u64,
}

#[derive(Debug)]
struct Known {
    contact: Contact,
    member: bool,
    attempt: Attempt,
    heard_ms: u64,
}

#[derive(Clone, Debug, Default)]
struct Attempt {
    under_way: bool,
    /// Failures since the last success.
    failures: u32,
    retry_at_ms: u64,
    reached: bool,
}

impl Attempt {
    fn fail(&mut self, now_ms: u64, first_ms: u64) {
        self.under_way = false;
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ms = now_ms + backoff_ms(self.failures, first_ms, RETRY_LAST_MS);
    }

    fn succeed(&mut self) {
        *self = Attempt { reached: true, ..Attempt::default() };
    }
}

impl Members {
    /// A node that knows nobody but `seeds` addresses to dial, and lists [`MEMBERS_MAX`] members at most.
    pub fn new(local: NodeKey, seeds: usize, now_ms: u64) -> Members {
        Members::with_room(local, seeds, MEMBERS_MAX, now_ms)
    }

    /// The same with room for so many members.
    pub fn with_room(local: NodeKey, seeds: usize, room: usize, now_ms: u64) -> Members {
        let mut members = Members {
            local,
            room,
            known: BTreeMap::new(),
            seeds: vec![Attempt::default(); seeds],
            refresh_at_ms: 0,
        };
        members.plan_refresh(now_ms);
        members
    }

    /// One step. Begin with [`Input::Tick`].
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        match input {
            Input::Greeted(contact) => self.greeted(contact, now_ms),
            Input::GreetedByClient(key) => {
                self.known.remove(&key);
            }
            Input::Introduced(contacts) => {
                // Counted once: the lists that others send are long.
                let mut buckets =
                    (self.members().count() >= self.room).then(|| Buckets::of(self.local, self.members()));
                contacts.into_iter().for_each(|contact| self.introduce(contact, &mut buckets, now_ms));
            }
            Input::Failed(key) => {
                if let Some(known) = self.known.get_mut(&key) {
                    known.attempt.fail(now_ms, RETRY_FIRST_MS);
                    let silent_ms = now_ms.saturating_sub(known.heard_ms);
                    let forget = if known.member {
                        silent_ms >= FORGET_MS
                    } else {
                        known.attempt.failures >= CANDIDATE_FAILURES_MAX
                    };
                    if forget {
                        self.known.remove(&key);
                    }
                }
            }
            Input::SeedReached(index) => {
                if let Some(seed) = self.seeds.get_mut(index) {
                    seed.succeed();
                    // Should it be no member, it is not dialled again at every step.
                    seed.retry_at_ms = now_ms + RETRY_FIRST_MS;
                }
            }
            Input::SeedIsSelf(index) => {
                if let Some(seed) = self.seeds.get_mut(index) {
                    seed.succeed();
                    seed.retry_at_ms = u64::MAX;
                }
            }
            Input::SeedFailed(index) => {
                if let Some(seed) = self.seeds.get_mut(index) {
                    seed.fail(now_ms, SEED_RETRY_FIRST_MS);
                }
            }
            Input::Tick => {}
        }
        self.due(now_ms)
    }

    fn greeted(&mut self, mut contact: Contact, now_ms: u64) {
        let key = contact.key();
        contact.addresses.truncate(MEMBER_ADDRESSES_MAX);
        let listed = self.known.get(&key).is_some_and(|known| known.member);
        if key == self.local || (!listed && !self.makes_room_for(&key)) {
            // Or it would be greeted again and again.
            self.known.remove(&key);
            return;
        }
        let known = self.known.entry(key).or_insert_with(|| Known {
            contact: contact.clone(),
            member: true,
            attempt: Attempt::default(),
            heard_ms: now_ms,
        });
        if !contact.addresses.is_empty() {
            known.contact = contact;
        }
        known.member = true;
        known.heard_ms = now_ms;
        known.attempt.succeed();
    }

    /// Whether there is a place for a member more; where the list is full, somebody of the fullest bucket
    /// leaves it: one that is silent, if any.
    fn makes_room_for(&mut self, key: &NodeKey) -> bool {
        if self.members().count() < self.room {
            return true;
        }
        let buckets = Buckets::of(self.local, self.members());
        let Some(from) = buckets.gives_way_to(key) else { return false };
        let members = self.known.iter().filter(|(_, known)| known.member);
        let candidates = members.filter(|(other, _)| bucket(&self.local, other) == from);
        let leaves = candidates.max_by_key(|(_, known)| known.attempt.failures > 0).map(|(other, _)| *other);
        leaves.is_some_and(|leaves| self.known.remove(&leaves).is_some())
    }

    /// Whether somebody heard of is worth a greeting: there is room, or its bucket is one of the emptier. Judged
    /// by members alone, as its place will be: else it would be greeted in vain, again and again.
    fn wants(&self, key: &NodeKey, full: &Option<Buckets>) -> bool {
        match full {
            None => self.known.len() < self.room,
            Some(buckets) => {
                self.known.len() < self.room + NEWCOMERS_MAX && buckets.gives_way_to(key).is_some()
            }
        }
    }

    fn introduce(&mut self, mut contact: Contact, buckets: &mut Option<Buckets>, now_ms: u64) {
        let key = contact.key();
        if key == self.local {
            return;
        }
        let wanted = self.wants(&key, buckets);
        match self.known.get_mut(&key) {
            // A node that moved is found by the word of others, but only while it is silent.
            Some(known) if known.attempt.failures > 0 => {
                for address in contact.addresses {
                    if !known.contact.addresses.contains(&address) {
                        known.contact.addresses.insert(0, address);
                    }
                }
                known.contact.addresses.truncate(MEMBER_ADDRESSES_MAX);
            }
            None if wanted && !contact.addresses.is_empty() => {
                contact.addresses.truncate(MEMBER_ADDRESSES_MAX);
                let attempt = Attempt { retry_at_ms: now_ms, ..Attempt::default() };
                self.known.insert(key, Known { contact, member: false, attempt, heard_ms: now_ms });
                buckets.iter_mut().for_each(|buckets| buckets.add(&key));
            }
            Some(_) | None => {}
        }
    }

    fn plan_refresh(&mut self, now_ms: u64) {
        let own = u64::from(self.local.0[0]) * (REFRESH_MS / 4) / 256;
        self.refresh_at_ms = now_ms + REFRESH_MS + own;
    }

    /// Seeds are of use while nobody else answers.
    fn lonely(&self) -> bool {
        !self.known.values().any(|known| known.member && known.attempt.failures == 0)
    }

    fn wants_seed(&self, seed: &Attempt) -> bool {
        !seed.under_way && (!seed.reached || self.lonely())
    }

    fn due(&mut self, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for index in 0..self.seeds.len() {
            if self.wants_seed(&self.seeds[index]) && now_ms >= self.seeds[index].retry_at_ms {
                self.seeds[index].under_way = true;
                actions.push(Action::DialSeed(index));
            }
        }
        let mut free =
            GREETINGS_MAX.saturating_sub(self.known.values().filter(|k| k.attempt.under_way).count());
        for (&key, known) in &mut self.known {
            if free > 0 && known.wants_greeting() && now_ms >= known.attempt.retry_at_ms {
                known.attempt.under_way = true;
                free -= 1;
                actions.push(Action::Greet(key));
            }
        }
        if now_ms >= self.refresh_at_ms {
            self.plan_refresh(now_ms);
            let healthy = self.known.iter_mut().filter(|(_, k)| k.member && k.attempt.failures == 0);
            let oldest = healthy.filter(|(_, k)| !k.attempt.under_way).min_by_key(|(_, k)| k.heard_ms);
            if let (true, Some((&key, known))) = (free > 0, oldest) {
                known.attempt.under_way = true;
                actions.push(Action::Greet(key));
            }
        }
        actions
    }

    /// Members but ourselves, silent ones too, ascending by key.
    pub fn members(&self) -> impl Iterator<Item = NodeKey> {
        self.known.iter().filter(|(_, known)| known.member).map(|(key, _)| *key)
    }

    /// Members with whom the last attempt to speak failed, ascending by key.
    pub fn silent(&self) -> impl Iterator<Item = NodeKey> {
        self.known.iter().filter(|(_, known)| known.member && known.attempt.failures > 0).map(|(key, _)| *key)
    }

    /// Whether the last attempt to speak with a node failed.
    pub fn is_silent(&self, key: &NodeKey) -> bool {
        self.known.get(key).is_some_and(|known| known.attempt.failures > 0)
    }

    pub fn contact(&self, key: &NodeKey) -> Option<&Contact> {
        self.known.get(key).map(|known| &known.contact)
    }

    /// When a node last spoke with us.
    pub fn heard_ms(&self, key: &NodeKey) -> Option<u64> {
        self.known.get(key).filter(|known| known.member).map(|known| known.heard_ms)
    }

    /// What we tell others: members that answered last time.
    pub fn introductions(&self) -> impl Iterator<Item = &Contact> {
        self.known.values().filter(|k| k.member && k.attempt.failures == 0).map(|k| &k.contact)
    }

    /// Whether everybody heard of has been tried: once, or a few times where no seed has answered yet.
    pub fn settled(&self) -> bool {
        let attempts = if self.seeds.iter().any(|seed| seed.reached) { 1 } else { SEED_ATTEMPTS };
        self.seeds.iter().all(|seed| seed.reached || seed.failures >= attempts)
            && self.known.values().all(|known| known.member || known.attempt.failures > 0)
    }

    /// When a [`Input::Tick`] will do something, if nothing else comes before.
    pub fn wake_ms(&self) -> u64 {
        let seeds = self.seeds.iter().filter(|seed| self.wants_seed(seed)).map(|seed| seed.retry_at_ms);
        let full = self.known.values().filter(|k| k.attempt.under_way).count() >= GREETINGS_MAX;
        let known = self.known.values().filter(|k| !full && k.wants_greeting());
        seeds.chain(known.map(|k| k.attempt.retry_at_ms)).fold(self.refresh_at_ms, u64::min)
    }
}

impl Known {
    /// Candidates and silent nodes.
    fn wants_greeting(&self) -> bool {
        !self.attempt.under_way && (!self.member || self.attempt.failures > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contact(byte: u8) -> Contact {
        Contact { peer: vec![byte], addresses: vec![vec![byte, byte]] }
    }

    fn key(byte: u8) -> NodeKey {
        contact(byte).key()
    }

    #[test]
    fn a_name_heard_from_others_is_no_member_until_it_answers() {
        let mut members = Members::new(key(0), 0, 0);
        let actions = members.step(Input::Introduced(vec![contact(1), contact(0)]), 5);
        assert_eq!(actions, [Action::Greet(key(1))]);
        assert_eq!(members.members().count(), 0);
        assert!(!members.settled());
        assert_eq!(members.step(Input::Greeted(contact(1)), 6), []);
        assert_eq!(members.members().collect::<Vec<_>>(), [key(1)]);
        assert!(members.settled());
    }

    #[test]
    fn a_full_list_knows_everybody_around_itself_and_comes_to_rest() {
        let contact = |number: u32| Contact { peer: number.to_le_bytes().into(), addresses: vec![vec![1]] };
        let all: Vec<Contact> = (1..=600).map(contact).collect();
        let keys: BTreeMap<NodeKey, &Contact> = all.iter().map(|contact| (contact.key(), contact)).collect();
        let mut members = Members::with_room(contact(0).key(), 0, 80, 0);
        let mut actions = std::collections::VecDeque::from(members.step(Input::Introduced(all.clone()), 0));
        let mut greetings = 0;
        while let Some(action) = actions.pop_front() {
            let Action::Greet(key) = action else { continue };
            greetings += 1;
            assert!(greetings < 2_000, "it does not come to rest");
            // Everybody answers, and names everybody.
            actions.extend(members.step(Input::Greeted(keys[&key].clone()), 1));
            actions.extend(members.step(Input::Introduced(all.clone()), 1));
            assert!(members.members().count() <= 80);
        }
        assert_eq!(members.members().count(), 80);
        assert_eq!(members.step(Input::Introduced(all.clone()), 2), []);
        let listed: Vec<NodeKey> = members.members().collect();
        let around = crate::node::placement::closest_to(&contact(0).key().0, keys.keys().copied(), 9);
        assert!(around.iter().all(|key| listed.contains(key)));
    }

    #[test]
    fn a_silent_member_keeps_its_place_and_is_greeted_with_growing_pauses() {
        let mut members = Members::new(key(0), 0, 0);
        members.step(Input::Greeted(contact(1)), 0);
        let mut now = 10;
        let mut pauses = Vec::new();
        members.step(Input::Failed(key(1)), now);
        for _ in 0..8 {
            assert!(members.is_silent(&key(1)));
            assert_eq!(members.members().count(), 1);
            assert_eq!(members.introductions().count(), 0);
            let from = now;
            // A refresh finds nobody healthy, and only plans the next.
            while members.step(Input::Tick, now) != [Action::Greet(key(1))] {
                now = members.wake_ms();
            }
            pauses.push(now - from);
            members.step(Input::Failed(key(1)), now);
        }
        let expected: Vec<u64> = (0..8).map(|n| (RETRY_FIRST_MS << n).min(RETRY_LAST_MS)).collect();
        assert_eq!(pauses, expected);
    }

    #[test]
    fn seeds_are_dialled_until_they_answer_and_again_when_nobody_is_left() {
        let mut members = Members::new(key(0), 1, 0);
        assert_eq!(members.step(Input::Tick, 0), [Action::DialSeed(0)]);
        let mut now = 100;
        for attempt in 1..=SEED_ATTEMPTS {
            assert!(!members.settled(), "{attempt}");
            assert_eq!(members.step(Input::SeedFailed(0), now), []);
            assert_eq!(members.wake_ms(), now + (SEED_RETRY_FIRST_MS << (attempt - 1)));
            now = members.wake_ms();
            assert_eq!(members.step(Input::Tick, now), [Action::DialSeed(0)]);
        }
        assert!(members.settled(), "it was tried often enough");
        members.step(Input::SeedFailed(0), now);
        members.step(Input::Greeted(contact(1)), 5_200);
        assert_eq!(members.step(Input::SeedReached(0), 5_200), []);
        let actions = members.step(Input::Failed(key(1)), 9_000); // alone again
        assert_eq!(actions, [Action::DialSeed(0)]);
    }

    #[test]
    fn candidates_that_never_answer_are_forgotten_and_clients_are_no_replicas() {
        let mut members = Members::new(key(0), 0, 0);
        members.step(Input::Introduced(vec![contact(1), contact(2)]), 0);
        members.step(Input::GreetedByClient(key(2)), 0);
        for _ in 0..CANDIDATE_FAILURES_MAX {
            assert!(members.contact(&key(1)).is_some());
            members.step(Input::Failed(key(1)), 0);
        }
        assert!(members.contact(&key(1)).is_none());
        assert_eq!(members.members().count(), 0);
    }

    #[test]
    fn a_refresh_greets_the_member_heard_longest_ago() {
        let mut members = Members::new(NodeKey([0; 32]), 0, 0);
        members.step(Input::Greeted(contact(1)), 20);
        members.step(Input::Greeted(contact(2)), 10);
        assert_eq!(members.wake_ms(), REFRESH_MS);
        assert_eq!(members.step(Input::Tick, REFRESH_MS), [Action::Greet(key(2))]);
        assert_eq!(members.step(Input::Tick, REFRESH_MS), []);
    }

    proptest! {
        /// Whatever happens: a bounded list, a bounded number of greetings, never ourselves, and a
        /// tick at the wake time always gets something done, so no runtime spins.
        #[test]
        fn bounded_and_never_spinning(inputs in prop::collection::vec((0u8..6, 0u8..60, 0u64..3_000), 0..200)) {
            let mut members = Members::new(key(0), 2, 0);
            let mut now = 0;
            for (what, byte, pause) in inputs {
                now += pause;
                let input = match what {
                    0 => Input::Greeted(contact(byte)),
                    1 => Input::Introduced((byte..byte + 5).map(contact).collect()),
                    2 => Input::Failed(key(byte)),
                    3 => Input::SeedFailed(usize::from(byte)),
                    4 => Input::SeedReached(usize::from(byte)),
                    _ => Input::SeedIsSelf(usize::from(byte)),
                };
                members.step(input, now);
                prop_assert!(members.contact(&key(0)).is_none());
                let under_way = members.known.values().filter(|k| k.attempt.under_way).count();
                prop_assert!(under_way <= GREETINGS_MAX + 1);
                let wake = members.wake_ms();
                if wake <= now {
                    members.step(Input::Tick, now);
                    prop_assert!(members.wake_ms() > now, "wakes at {} at {now}", members.wake_ms());
                }
            }
        }
    }
}
