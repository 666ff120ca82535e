//! Look-ups of simulated nodes: how the replicas of an address are found where nobody knows everybody.
//!
//! As `net` has it done by libp2p's Kademlia: three questions at a time to the closest nodes heard of, until
//! the twenty closest of them have answered; whoever does not answer is left out. What was found is
//! believed for a minute. Each node begins with the contacts that such a network gives it: some of every
//! distance, and all around itself.

use super::network::{Purpose, Request, Response};
use super::node::Node;
use super::world::World;
use crate::address::Address;
use crate::limits::REPLICAS;
use crate::net::Routing;
use crate::node::placement::{closest_to, key_of};
use crate::node::{Contact, NodeKey, closest};
use crate::packet::{Id, Verified};
use rand::seq::index;
use std::collections::{BTreeMap, BTreeSet};

/// How long a look-up is believed.
const FRESH_MS: u64 = 60_000;
/// Questions of one look-up on their way.
const PARALLEL: usize = 3;
/// Nodes that a look-up wants to hear from, and contacts in one answer.
const WANTED: usize = 20;
/// Nodes of one distance that a node knows at the beginning; of the distances that have no more, all.
const ACQUAINTED: usize = 40;

/// What a look-up is for.
#[derive(Clone, Copy, Debug)]
enum Errand {
    Deposit {
        deposit: u64,
        address: Address,
    },
    Pull {
        reader: usize,
        address: Address,
    },
    /// Whether a mailbox may go.
    Confirm {
        address: Address,
    },
    /// A node that has just started looks for its neighbours.
    Itself,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Not,
    Waiting,
    Answered,
    Failed,
}

/// A look-up on its way.
pub(super) struct Lookup {
    target: Id,
    errand: Errand,
    /// By distance.
    heard_of: BTreeMap<Id, (NodeKey, Asked)>,
}

impl Lookup {
    fn hear_of(&mut self, key: NodeKey) {
        let distance = std::array::from_fn(|i| self.target[i] ^ key.0[i]);
        self.heard_of.entry(distance).or_insert((key, Asked::Not));
    }

    fn note(&mut self, key: &NodeKey, asked: Asked) {
        if let Some((_, state)) = self.heard_of.values_mut().find(|(other, _)| other == key) {
            *state = asked;
        }
    }

    /// The closest that have not failed: who is waited for.
    fn front(&mut self) -> impl Iterator<Item = &mut (NodeKey, Asked)> {
        self.heard_of.values_mut().filter(|(_, asked)| *asked != Asked::Failed).take(WANTED)
    }

    /// Whom to ask now.
    fn next(&mut self) -> Vec<NodeKey> {
        let waiting = self.heard_of.values().filter(|(_, asked)| *asked == Asked::Waiting).count();
        let free = PARALLEL.saturating_sub(waiting);
        let ask = self.front().filter(|(_, asked)| *asked == Asked::Not).take(free);
        ask.map(|(key, asked)| {
            *asked = Asked::Waiting;
            *key
        })
        .collect()
    }

    fn is_over(&mut self) -> bool {
        self.front().all(|(_, asked)| *asked == Asked::Answered)
    }
}

/// A deposit whose replicas are being looked up.
pub(super) struct Unplaced {
    batch: Vec<(Address, Verified)>,
    numbers: Vec<usize>,
    /// Look-ups on their way.
    left: usize,
}

impl Node {
    /// The replicas of an address as far as they are known without a look-up.
    fn placed(&mut self, routing: Routing, address: &Address, now: u64) -> Option<Vec<NodeKey>> {
        match routing {
            Routing::Membership => Some(self.replicas(address)),
            Routing::Kademlia => {
                let found = self.found.get(address).filter(|(at, _)| now < at + FRESH_MS);
                found.map(|(_, replicas)| replicas.clone())
            }
        }
    }
}

impl World {
    /// Begins a deposit once the replicas of all its packets are known.
    pub fn place_and_deposit(&mut self, node: usize, batch: Vec<(Address, Verified)>, numbers: Vec<usize>) {
        self.deposits += 1;
        let deposit = self.deposits;
        let (routing, now) = (self.routing, self.now);
        let addresses: BTreeSet<Address> = batch.iter().map(|(address, _)| *address).collect();
        let state = &mut self.nodes[node];
        let unknown = |address: &Address| state.placed(routing, address, now).is_none();
        let unknown: Vec<Address> = addresses.into_iter().filter(unknown).collect();
        let left = unknown.len();
        self.nodes[node].unplaced.insert(deposit, Unplaced { batch, numbers, left });
        for address in unknown {
            self.look_up(node, key_of(&address).0, Errand::Deposit { deposit, address });
        }
        self.deposit_if_placed(node, deposit);
    }

    fn deposit_if_placed(&mut self, node: usize, deposit: u64) {
        let Some(unplaced) = self.nodes[node].unplaced.remove(&deposit) else { return };
        if unplaced.left > 0 {
            self.nodes[node].unplaced.insert(deposit, unplaced);
            return;
        }
        let Unplaced { batch, numbers, .. } = unplaced;
        let (routing, now) = (self.routing, self.now);
        let state = &mut self.nodes[node];
        let placement: Vec<Vec<NodeKey>> = batch
            .iter()
            .map(|(address, _)| state.placed(routing, address, now).unwrap_or_default())
            .collect();
        if placement.iter().all(|replicas| !replicas.is_empty()) {
            self.deposit(node, deposit, batch, numbers, &placement);
        }
    }

    /// Begins a pull once the replicas are known; nobody else begins one for this reader meanwhile.
    pub fn place_and_pull(&mut self, reader: usize) {
        let (node, address) = (self.readers[reader].node, self.readers[reader].address);
        match self.nodes[node].placed(self.routing, &address, self.now) {
            Some(replicas) => self.pull_from(reader, replicas),
            None => {
                self.readers[reader].pulling = true;
                self.look_up(node, key_of(&address).0, Errand::Pull { reader, address });
            }
        }
    }

    /// Asks the replicas of a mailbox whether it may go, once they are known.
    pub fn place_and_confirm(&mut self, node: usize, address: Address) {
        match self.nodes[node].placed(self.routing, &address, self.now) {
            Some(replicas) => self.confirm_at(node, address, replicas),
            None => self.look_up(node, key_of(&address).0, Errand::Confirm { address }),
        }
    }

    /// A node that has just started looks for those around itself.
    pub fn look_for_neighbours(&mut self, node: usize) {
        let looking = |lookup: &Lookup| matches!(lookup.errand, Errand::Itself);
        if self.routing == Routing::Kademlia && !self.nodes[node].lookups.values().any(looking) {
            self.look_up(node, self.nodes[node].key.0, Errand::Itself);
        }
    }

    fn look_up(&mut self, node: usize, target: Id, errand: Errand) {
        self.lookups += 1;
        let (id, state) = (self.lookups, &mut self.nodes[node]);
        let mut lookup = Lookup { target, errand, heard_of: BTreeMap::new() };
        let answering = state.view.iter().filter(|key| !state.silent.contains(key)).copied();
        closest_to(&target, answering, WANTED).into_iter().for_each(|key| lookup.hear_of(key));
        state.lookups.insert(id, lookup);
        self.go_on_looking(node, id);
    }

    /// What a node says of the nodes closest to a target: its contacts, as far as they answer.
    pub fn closest_contacts(&self, node: usize, target: &Id) -> Response {
        let state = &self.nodes[node];
        let answering = state.view.iter().filter(|key| !state.silent.contains(key)).copied();
        Response::Members { members: closest_to(target, answering, WANTED) }
    }

    pub fn look_up_answered(&mut self, node: usize, id: u64, of: NodeKey, response: Option<&Response>) {
        let own = self.nodes[node].key;
        let Some(lookup) = self.nodes[node].lookups.get_mut(&id) else { return };
        let itself = matches!(lookup.errand, Errand::Itself);
        match response {
            Some(Response::Members { members }) => {
                lookup.note(&of, Asked::Answered);
                members.iter().filter(|key| **key != own).for_each(|key| lookup.hear_of(*key));
                if itself {
                    self.introduced(node, members);
                }
            }
            _ => lookup.note(&of, Asked::Failed),
        }
        self.go_on_looking(node, id);
    }

    fn go_on_looking(&mut self, node: usize, id: u64) {
        let Some(lookup) = self.nodes[node].lookups.get_mut(&id) else { return };
        let (target, over) = (lookup.target, lookup.is_over());
        if !over {
            for key in lookup.next() {
                self.ask(node, key, Request::Closest { target }, Purpose::LookUp { lookup: id });
            }
            return;
        }
        let Some(lookup) = self.nodes[node].lookups.remove(&id) else { return };
        let found = lookup.heard_of.into_values().filter(|(_, asked)| *asked == Asked::Answered);
        let found: Vec<NodeKey> = found.map(|(key, _)| key).collect();
        match lookup.errand {
            Errand::Itself => {}
            Errand::Deposit { deposit, address } => {
                self.note_found(node, &address, found);
                if let Some(unplaced) = self.nodes[node].unplaced.get_mut(&deposit) {
                    unplaced.left -= 1;
                }
                self.deposit_if_placed(node, deposit);
            }
            Errand::Confirm { address } => {
                let replicas = self.note_found(node, &address, found);
                self.confirm_at(node, address, replicas);
            }
            Errand::Pull { reader, address } => {
                let replicas = self.note_found(node, &address, found);
                self.readers[reader].pulling = false;
                match replicas.is_empty() {
                    true => self.counts.pulls_failed += 1,
                    false => self.pull_from(reader, replicas),
                }
            }
        }
    }

    fn note_found(&mut self, node: usize, address: &Address, found: Vec<NodeKey>) -> Vec<NodeKey> {
        let state = &mut self.nodes[node];
        let own = state.storage.then_some(state.key);
        let replicas = closest(address, found.into_iter().chain(own), REPLICAS);
        if !replicas.is_empty() {
            state.found.insert(*address, (self.now, replicas.clone()));
        }
        replicas
    }

    /// Whom a node of a swarm that has been running knows, of the storage nodes whose keys are given in
    /// ascending order.
    pub fn acquaintances(&mut self, node: usize, sorted: &[NodeKey]) -> Vec<Contact> {
        let own = self.nodes[node].key;
        let bit_of = |key: &NodeKey, bit: usize| key.0[bit / 8] >> (7 - bit % 8) & 1 == 1;
        let (mut range, mut known) = (0..sorted.len(), Vec::new());
        for bit in 0..256 {
            let middle = range.start + sorted[range.clone()].partition_point(|key| !bit_of(key, bit));
            let (zeros, ones) = (range.start..middle, middle..range.end);
            let (same, other) = if bit_of(&own, bit) { (ones, zeros) } else { (zeros, ones) };
            let drawn = index::sample(&mut self.random, other.len(), other.len().min(ACQUAINTED));
            known.extend(drawn.into_iter().map(|place| sorted[other.start + place]));
            range = same;
            if range.is_empty() {
                break;
            }
        }
        known.into_iter().map(|key| self.nodes[self.index[&key]].contact.clone()).collect()
    }
}
