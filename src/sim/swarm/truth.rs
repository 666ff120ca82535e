//! The world's books: what was written, what was promised, and which disk holds what.
//!
//! *The promise.* A packet acknowledged by some disks may be lost once [`ACKNOWLEDGING_DISKS`] of these
//! have died, and a packet that all its replicas have acknowledged or repaired once all have. The books
//! keep these disks for every packet, so that faults kill just as many as the promise allows, and no more;
//! a dead disk is forgiven when each of its packets lies on all replicas again.

use super::world::World;
use crate::address::Address;
use crate::limits::{ACKNOWLEDGING_DISKS, REPLICAS};
use crate::packet::{Id, Kind, Packet, Verified};
use std::collections::{BTreeMap, BTreeSet};

/// What must hold after every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// What is acknowledged lies on as many disks as the acknowledgement says.
    Acknowledged,
    /// Nothing acknowledged is lost while fewer disks die than it takes; a disk loses nothing by itself.
    Durable,
    /// A reader comes to have everything that is acknowledged and live.
    Complete,
    /// Replicas come to hold the same.
    Agreement,
    /// No reader is given a packet twice.
    Duplicate,
    /// Behind a reader's cursor lies nothing that it has not heard of.
    Cursor,
    /// What is retracted does not come back: to a reader that knows of it, or to a disk that does.
    Retracted,
    /// Queues, lists and what is remembered stay within their bounds, and no question is waited for for ever.
    Bounded,
}

/// A packet in the books.
pub(super) struct Written {
    packet: Verified,
    pub id: Id,
    pub address: Address,
    pub author: Id,
    pub reference: Id,
    pub kind: Kind,
    pub expires_at: u64,
    /// A newer version or its retraction has been written.
    pub obsolete: bool,
    pub acknowledged: bool,
    /// So many disks have died that it may be lost.
    pub excused: bool,
    /// Disks that have acknowledged it.
    pub promise: Vec<usize>,
    /// All replicas have it.
    pub full: bool,
    pub holders: BTreeSet<usize>,
}

impl Written {
    pub fn expired(&self, wall_ms: u64) -> bool {
        self.expires_at != 0 && self.expires_at <= wall_ms
    }

    /// Whether it must be there.
    pub fn is_due(&self, wall_ms: u64) -> bool {
        self.acknowledged && !self.obsolete && !self.excused && !self.expired(wall_ms)
    }

    /// Deaths of promised disks that it does not survive.
    fn deaths_max(&self) -> usize {
        if self.full { self.promise.len() } else { self.promise.len().min(ACKNOWLEDGING_DISKS) }
    }

    fn dead(&self, dead: &BTreeSet<usize>) -> usize {
        self.promise.iter().filter(|node| dead.contains(node)).count()
    }
}

pub(super) struct Truth {
    pub packets: Vec<Written>,
    by_id: BTreeMap<Id, usize>,
    pub by_address: BTreeMap<Address, Vec<usize>>,
    /// Versions by (author, evidence).
    versions: BTreeMap<(Id, Id), Vec<usize>>,
    /// (author, packet) -> its retraction.
    retractions: BTreeMap<(Id, Id), Id>,
    /// Acknowledged and not known to be obsolete, expired or excused.
    due: BTreeSet<usize>,
    /// By node: packets on its disk.
    pub held: Vec<BTreeSet<usize>>,
    /// Dead disks whose packets are not repaired yet.
    pub dead: BTreeSet<usize>,
    /// By node: when its disk last died.
    died_ms: Vec<Option<u64>>,
}

impl Truth {
    pub fn new(nodes: usize) -> Truth {
        Truth {
            packets: Vec::new(),
            by_id: BTreeMap::new(),
            by_address: BTreeMap::new(),
            versions: BTreeMap::new(),
            retractions: BTreeMap::new(),
            due: BTreeSet::new(),
            held: vec![BTreeSet::new(); nodes],
            dead: BTreeSet::new(),
            died_ms: vec![None; nodes],
        }
    }

    /// An author has made a packet; what it replaces is obsolete from here on. Its number.
    pub fn write(&mut self, address: &Address, packet: &Verified) -> usize {
        let (number, id, kind) = (self.packets.len(), packet.id(), packet.kind());
        let (author, reference) = (*packet.author(), *packet.reference());
        match kind {
            Kind::Observed => {
                let versions = self.versions.entry((author, reference)).or_default();
                versions.iter().for_each(|&older| self.packets[older].obsolete = true);
                versions.push(number);
            }
            Kind::Retraction => {
                self.retractions.insert((author, reference), id);
                if let Some(&target) = self.by_id.get(&reference) {
                    self.packets[target].obsolete = true;
                }
            }
            Kind::Synthesis => {}
        }
        self.packets.push(Written {
            packet: *packet,
            id,
            address: *address,
            author,
            reference,
            kind,
            expires_at: packet.expires_at(),
            obsolete: false,
            acknowledged: false,
            excused: false,
            promise: Vec::new(),
            full: false,
            holders: BTreeSet::new(),
        });
        self.by_id.insert(id, number);
        self.by_address.entry(*address).or_default().push(number);
        number
    }

    pub fn written(&self, id: &Id) -> Option<&Written> {
        self.by_id.get(id).map(|&number| &self.packets[number])
    }

    /// The last packets of a mailbox that have been retracted.
    pub fn retracted_at(&self, address: &Address) -> Vec<Verified> {
        let numbers = self.by_address.get(address).map_or(&[][..], |numbers| numbers);
        let written = numbers.iter().rev().map(|&number| &self.packets[number]);
        let retracted = written.filter(|p| self.retractions.contains_key(&(p.author, p.id)));
        retracted.take(3).map(|p| p.packet).collect()
    }

    /// A deposit has ended; `said` are the disks that have the packet.
    pub fn handed_off(&mut self, number: usize, said: &[usize]) {
        let packet = &mut self.packets[number];
        if packet.acknowledged && said.len() >= REPLICAS && said.iter().all(|node| !self.dead.contains(node))
        {
            (packet.promise, packet.full) = (said.to_vec(), true);
        }
    }

    /// Whether a disk has died at this time or later.
    pub fn has_died_since(&self, node: usize, since_ms: u64) -> bool {
        self.died_ms[node].is_some_and(|at| at >= since_ms)
    }

    /// A disk has handed a packet over to others, all of which have said that they hold it.
    pub fn left(&mut self, number: usize, node: usize, agree: &[usize]) {
        self.held[node].remove(&number);
        let packet = &mut self.packets[number];
        packet.holders.remove(&node);
        if packet.acknowledged && packet.promise.contains(&node) {
            (packet.promise, packet.full) = (agree.to_vec(), true);
            packet.excused |= packet.dead(&self.dead) >= packet.deaths_max();
        }
    }

    /// Whether the promise allows this disk to die now.
    pub fn may_die(&mut self, node: usize, wall_ms: u64) -> bool {
        let Truth { packets, due, dead, .. } = self;
        due.retain(|&number| packets[number].is_due(wall_ms));
        let mut after = dead.clone();
        after.insert(node);
        due.iter().all(|&number| packets[number].dead(&after) < packets[number].deaths_max())
    }
}

impl World {
    /// A depositor takes a packet for acknowledged by the word of these disks.
    pub fn acknowledged(&mut self, number: usize, said: &[usize], needed: usize, began_ms: u64) {
        let wall = self.true_wall_ms();
        let Truth { packets, dead, died_ms, due, .. } = &mut self.truth;
        let packet = &mut packets[number];
        let has = |node: &&usize| {
            packet.holders.contains(*node) || died_ms[**node].is_some_and(|at| at >= began_ms)
        };
        let good = said.iter().filter(has).count();
        let short = good < needed && !packet.obsolete && packet.expires_at == 0;
        (packet.acknowledged, packet.promise) = (true, said.to_vec());
        packet.full = said.len() >= REPLICAS;
        packet.excused = packet.dead(dead) >= packet.deaths_max();
        if packet.is_due(wall) {
            due.insert(number);
        }
        if short {
            let id = crate::packet::hex(&packet.id[..4]);
            let problem = format!("packet {id} is acknowledged on {good} disks of {needed}");
            self.breaks(Invariant::Acknowledged, problem);
        }
    }

    /// A disk has taken a packet.
    pub fn on_stored(&mut self, node: usize, address: &Address, packet: &Packet) {
        let id = packet.id();
        let Some(&number) = self.truth.by_id.get(&id) else { return };
        self.truth.packets[number].holders.insert(node);
        self.truth.held[node].insert(number);
        let author = *packet.author();
        let others: Vec<usize> = match packet.kind() {
            Kind::Observed => {
                let versions = self.truth.versions.get(&(author, *packet.reference()));
                versions.map(|all| all.iter().copied().filter(|other| *other != number).collect())
            }
            .unwrap_or_default(),
            _ => self.truth.by_id.get(packet.reference()).copied().into_iter().collect(),
        };
        // Itself too: a later packet of the same batch may have taken its place.
        for other in others.into_iter().chain([number]) {
            if self.truth.held[node].contains(&other) {
                self.look(node, other, false);
            }
        }
        let disk = &self.nodes[node].disk;
        let back = match packet.kind() {
            Kind::Retraction => {
                let target = self.truth.written(packet.reference());
                target.is_some_and(|target| {
                    target.author == author && disk.holds(0, address, packet.reference())
                })
            }
            _ => {
                let retraction = self.truth.retractions.get(&(author, id));
                disk.holds(0, address, &id)
                    && retraction.is_some_and(|retraction| disk.holds(0, address, retraction))
            }
        };
        if back {
            let id = crate::packet::hex(&id[..4]);
            let problem = format!("node {node} holds packet {id} beside its retraction");
            self.breaks(Invariant::Retracted, problem);
        }
    }

    /// Looks whether a disk still has a packet. `died`: it has lost some, as disks may.
    fn look(&mut self, node: usize, number: usize, died: bool) {
        let wall = self.true_wall_ms();
        let packet = &mut self.truth.packets[number];
        if self.nodes[node].disk.holds(0, &packet.address, &packet.id) {
            return;
        }
        packet.holders.remove(&node);
        self.truth.held[node].remove(&number);
        if !packet.is_due(wall) {
            return;
        }
        if packet.expires_at != 0 && !died {
            // Swept by a clock that is wrong.
            packet.excused |= packet.holders.is_empty();
            return;
        }
        let id = crate::packet::hex(&packet.id[..4]);
        if !died {
            let problem = format!("the disk of node {node} has lost packet {id}, and has not died");
            self.breaks(Invariant::Durable, problem);
        } else if packet.holders.is_empty() {
            let (dead, promised) = (packet.dead(&self.truth.dead), packet.promise.len());
            let problem = format!("packet {id} is lost; {dead} of {promised} promised disks have died");
            self.breaks(Invariant::Durable, problem);
        }
    }

    /// Looks at all of a disk.
    pub fn look_at_disk(&mut self, node: usize, died: bool) {
        let held: Vec<usize> = self.truth.held[node].iter().copied().collect();
        held.into_iter().for_each(|number| self.look(node, number, died));
    }

    /// Looks at what expires on a disk: it has been swept.
    pub fn look_at_swept(&mut self, node: usize) {
        let expires = |number: &usize| self.truth.packets[*number].expires_at != 0;
        let held: Vec<usize> = self.truth.held[node].iter().copied().filter(expires).collect();
        held.into_iter().for_each(|number| self.look(node, number, false));
    }

    /// A disk has died, as [`Truth::may_die`] allowed.
    pub fn note_death(&mut self, node: usize) {
        self.truth.dead.insert(node);
        self.truth.died_ms[node] = Some(self.now);
        self.look_at_disk(node, true);
    }

    /// Forgives deaths whose packets lie on all replicas again.
    pub fn forgive_the_repaired(&mut self) {
        if self.truth.dead.is_empty() {
            return;
        }
        let wall = self.true_wall_ms();
        let mut unrepaired = BTreeSet::new();
        let due: Vec<usize> = self.truth.due.iter().copied().collect();
        for number in due {
            let packet = &self.truth.packets[number];
            if !packet.is_due(wall) || packet.dead(&self.truth.dead) == 0 {
                continue;
            }
            let address = packet.address;
            let replicas = self.true_replicas(&address);
            let there: Vec<usize> =
                replicas.iter().copied().filter(|&node| self.nodes[node].joined).collect();
            let packet = &mut self.truth.packets[number];
            if there.len() >= ACKNOWLEDGING_DISKS && there.iter().all(|node| packet.holders.contains(node)) {
                (packet.promise, packet.full) = (there, true);
            } else {
                unrepaired.extend(packet.promise.iter().filter(|node| self.truth.dead.contains(node)));
            }
        }
        self.truth.dead = unrepaired;
    }
}
