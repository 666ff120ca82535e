//! A simulated node: the machines of [`crate::node`], fed as `net` feeds them.

use super::disk::Disk;
use super::leaving::{self, Confirming};
use super::looking::{Lookup, Unplaced};
use super::network::{Purpose, Question, Request, Response};
use super::reading::Pull;
use super::world::{Event, World};
use super::writing::Spread;
use crate::address::Address;
use crate::limits::REPLICAS;
use crate::node::members::{Action, Input};
use crate::node::{Contact, Handover, Members, NodeKey, Reconcile, Refused, Repair, closest, repair};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Node {
    pub key: NodeKey,
    pub contact: Contact,
    /// Keeps mailboxes; a gateway does not.
    pub storage: bool,
    pub up: bool,
    /// Has started once, and has not left for good.
    pub joined: bool,
    /// Counts its starts: what an earlier life began is void.
    pub boot: u32,
    /// Side of the cut.
    pub group: u8,
    pub liar: bool,
    /// How far its clock is off, in milliseconds.
    pub clock_off_ms: i64,
    pub disk: Disk,

    pub machine: Members,
    /// Storage nodes but itself, ascending, and which of them are silent.
    pub view: Vec<NodeKey>,
    pub silent: BTreeSet<NodeKey>,
    /// The closest 2 x 8 nodes to an address in this view, itself among them.
    places: BTreeMap<Address, Vec<NodeKey>>,
    pub repair: Repair,
    pub reconciling: BTreeMap<Address, (NodeKey, Reconcile, u64)>,
    pub refused: Refused,
    pub handover: Handover,
    pub confirming: BTreeMap<Address, Confirming>,
    pub questions: BTreeMap<u64, Question>,
    pub deposits: BTreeMap<u64, Spread>,
    pub pulls: BTreeMap<u64, Pull>,
    pub lookups: BTreeMap<u64, Lookup>,
    /// Deposits that wait for look-ups.
    pub unplaced: BTreeMap<u64, Unplaced>,
    /// What look-ups have found, and when.
    pub found: BTreeMap<Address, (u64, Vec<NodeKey>)>,
    /// Members that it lists at most.
    room: usize,
    timer: Option<(u64, u64)>,
}

/// Packets a second that a node fetches in repair.
const REPAIR_PACKETS_PER_SECOND: u64 = 4_000;
/// Nodes whose addresses everybody starts with.
pub(super) const SEEDS: usize = 3;

impl Node {
    pub fn new(number: usize, storage: bool, seed: u64, epoch: u64, room: usize) -> Node {
        let mut peer = seed.to_le_bytes().to_vec();
        peer.extend((number as u32).to_le_bytes());
        let contact = Contact { addresses: vec![peer.clone()], peer };
        let key = contact.key();
        Node {
            key,
            contact,
            storage,
            up: false,
            joined: false,
            boot: 0,
            group: 0,
            liar: false,
            clock_off_ms: 0,
            disk: Disk::new(key, epoch),
            machine: Members::with_room(key, SEEDS, room, 0),
            view: Vec::new(),
            silent: BTreeSet::new(),
            places: BTreeMap::new(),
            repair: Repair::new(key, REPAIR_PACKETS_PER_SECOND, 0),
            reconciling: BTreeMap::new(),
            refused: Refused::default(),
            handover: Handover::new(leaving::GRACE_MS),
            confirming: BTreeMap::new(),
            questions: BTreeMap::new(),
            deposits: BTreeMap::new(),
            pulls: BTreeMap::new(),
            lookups: BTreeMap::new(),
            unplaced: BTreeMap::new(),
            found: BTreeMap::new(),
            room,
            timer: None,
        }
    }

    /// The closest 2 x 8 nodes, this one among them if it keeps mailboxes.
    pub fn places(&mut self, address: &Address) -> &[NodeKey] {
        let Node { places, view, key, storage, .. } = self;
        places.entry(*address).or_insert_with(|| {
            closest(address, view.iter().copied().chain(storage.then_some(*key)), 2 * REPLICAS)
        })
    }

    pub fn replicas(&mut self, address: &Address) -> Vec<NodeKey> {
        let places = self.places(address);
        places[..places.len().min(REPLICAS)].to_vec()
    }

    /// Whether a node is a replica of an address in this one's view.
    pub fn should_hold(&mut self, address: &Address, node: &NodeKey) -> bool {
        let places = self.places(address);
        places[..places.len().min(REPLICAS)].contains(node)
    }
}

impl World {
    /// The node's own clock, Unix milliseconds.
    pub fn wall_ms(&self, node: usize) -> u64 {
        self.true_wall_ms().saturating_add_signed(self.nodes[node].clock_off_ms)
    }

    /// Starts a node; `knows` are members that it has heard of before.
    pub fn start(&mut self, number: usize, knows: &[Contact]) {
        let now = self.now;
        let node = &mut self.nodes[number];
        (node.up, node.joined) = (true, true);
        node.boot += 1;
        node.machine = Members::with_room(node.key, SEEDS, node.room, now);
        node.repair = Repair::new(node.key, REPAIR_PACKETS_PER_SECOND, now);
        for contact in knows {
            node.machine.step(Input::Greeted(contact.clone()), now);
        }
        if !knows.is_empty() {
            (0..SEEDS).for_each(|seed| {
                node.machine.step(Input::SeedReached(seed), now);
            });
            // What the steps above wanted to do is done by the next tick.
        }
        self.publish(number);
        self.members(number, Input::Tick);
    }

    /// Ends a node without a word: what was in memory is gone.
    pub fn crash(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.up = false;
        node.view.clear();
        node.silent.clear();
        node.places.clear();
        node.reconciling.clear();
        node.handover = Handover::new(leaving::GRACE_MS);
        node.confirming.clear();
        node.lookups.clear();
        node.unplaced.clear();
        node.found.clear();
        node.refused = Refused::default();
        let mut timers: Vec<(u64, u64)> = node.timer.take().into_iter().collect();
        timers.extend(std::mem::take(&mut node.questions).into_values().map(|question| question.limit));
        timers.extend(std::mem::take(&mut node.deposits).into_values().filter_map(|spread| spread.timer));
        let pulls = std::mem::take(&mut node.pulls);
        timers.extend(pulls.values().filter_map(|pull| pull.timer));
        for timer in timers {
            self.queue.remove(&timer);
        }
        for pull in pulls.into_values() {
            self.readers[pull.reader].pulling = false;
            self.forget(pull.reader);
        }
        // Its readers begin anew too.
        for reader in 0..self.readers.len() {
            if self.readers[reader].node == number {
                self.forget(reader);
            }
        }
    }

    /// Feeds the list of members and performs what it says.
    pub fn members(&mut self, number: usize, input: Input) {
        if !self.nodes[number].up {
            return;
        }
        let changes = input != Input::Tick;
        let actions = self.nodes[number].machine.step(input, self.now);
        if changes {
            self.publish(number);
        }
        for action in actions {
            match action {
                Action::Greet(key) => {
                    self.ask(number, key, Request::Hello, Purpose::Greeting { seed: None });
                }
                Action::DialSeed(seed) => {
                    let key = self.nodes[seed].key;
                    if seed == number {
                        self.members(number, Input::SeedIsSelf(seed));
                    } else {
                        self.ask(number, key, Request::Hello, Purpose::Greeting { seed: Some(seed) });
                    }
                }
            }
        }
        self.plan(number);
    }

    /// Takes over the machine's picture of the swarm, and tells repair of changes.
    fn publish(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        // Most inputs change neither, and both are long.
        let changed = !node.machine.members().eq(node.view.iter().copied());
        if changed {
            node.view = node.machine.members().collect();
        }
        let mut returned: Vec<NodeKey> = Vec::new();
        if !node.machine.silent().eq(node.silent.iter().copied()) {
            let silent: BTreeSet<NodeKey> = node.machine.silent().collect();
            let back = node.silent.difference(&silent).filter(|key| node.view.binary_search(key).is_ok());
            returned.extend(back);
            node.silent = silent;
        }
        if changed {
            node.places.clear();
            if node.view.len() > node.room {
                let problem = format!("node {number} lists {} members", node.view.len());
                return self.breaks(super::truth::Invariant::Bounded, problem);
            }
            let members = self.nodes[number].view.iter().copied().collect();
            self.repair(number, repair::Input::Members(members));
        }
        for key in returned {
            self.repair(number, repair::Input::Returned(key));
        }
    }

    /// Wakes the node when its machines want it, a millisecond later as `net` does.
    pub fn plan(&mut self, number: usize) {
        let node = &self.nodes[number];
        let members = node.machine.wake_ms().min(self.now + (1 << 40));
        let wake =
            node.repair.wake_ms().filter(|_| node.storage).map_or(members, |repair| repair.min(members));
        let at = wake.max(self.now) + 1;
        if node.timer.is_some_and(|(planned, _)| planned == at) {
            return;
        }
        if let Some(timer) = node.timer {
            self.queue.remove(&timer);
        }
        let timer = self.at(at, Event::Wake { node: number });
        self.nodes[number].timer = Some(timer);
    }

    pub fn wake(&mut self, number: usize) {
        self.nodes[number].timer = None;
        self.members(number, Input::Tick);
        self.repair(number, repair::Input::Tick);
        self.plan(number);
    }

    /// A node has named others. Those that answered last time are no news.
    pub fn introduced(&mut self, number: usize, named: &[NodeKey]) {
        let machine = &self.nodes[number].machine;
        let news = named.iter().filter(|key| machine.contact(key).is_none() || machine.is_silent(key));
        let contacts = news.map(|key| self.nodes[self.index[key]].contact.clone()).collect();
        self.members(number, Input::Introduced(contacts));
    }

    /// A node has spoken: it says whether it keeps mailboxes.
    pub fn heard(&mut self, number: usize, from: usize) {
        let other = &self.nodes[from];
        let input = match other.storage {
            true => Input::Greeted(other.contact.clone()),
            false => Input::GreetedByClient(other.key),
        };
        self.members(number, input);
    }

    pub fn greeting_answered(
        &mut self,
        number: usize,
        to: NodeKey,
        seed: Option<usize>,
        response: Option<&Response>,
    ) {
        let Some(Response::Members { members }) = response else {
            self.members(number, Input::Failed(to));
            if let Some(seed) = seed {
                self.members(number, Input::SeedFailed(seed));
            }
            return;
        };
        if let Some(&from) = self.index.get(&to) {
            self.heard(number, from);
        }
        self.introduced(number, members);
        if let Some(seed) = seed {
            self.members(number, Input::SeedReached(seed));
            self.look_for_neighbours(number);
        }
    }
}
