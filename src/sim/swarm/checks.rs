//! Invariants of readers, and what must be so once the faults have ended.

use super::truth::Invariant;
use super::world::World;
use crate::limits::REPLICAS;
use crate::node::Seen;
use crate::packet::{Id, Kind, Verified, hex};
use crate::store::Cursor;
use std::collections::{BTreeMap, BTreeSet};

/// One of so many pulls is compared with all that lies behind its cursors, the others with what is new.
const WHOLE_EVERY: u64 = 16;

impl World {
    /// `fresh` ascends by id.
    pub fn check_duplicates(&mut self, reader: usize, fresh: &[Verified]) {
        let ids: Vec<Id> = fresh.iter().map(|packet| packet.id()).collect();
        let given = &self.readers[reader].given;
        let twice = ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        if let Some(id) = twice.or_else(|| ids.iter().find(|id| given.contains(*id)).copied()) {
            let problem = format!("reader {reader} was given packet {} twice", hex(&id[..4]));
            self.breaks(Invariant::Duplicate, problem);
        }
    }

    pub fn check_retracted_reader(&mut self, number: usize, fresh: &[Verified]) {
        let reader = &self.readers[number];
        let back = fresh.iter().find_map(|packet| {
            let id = match packet.kind() {
                Kind::Retraction => *packet.reference(),
                _ => packet.id(),
            };
            let retracted = reader.retracted.contains(&(*packet.author(), id));
            let own = self.truth.written(&id).is_some_and(|target| target.author == *packet.author());
            (retracted && own && reader.ledger.contains(&id)).then_some(id)
        });
        if let Some(id) = back {
            let problem = format!("reader {number} uses packet {}, whose retraction it has", hex(&id[..4]));
            self.breaks(Invariant::Retracted, problem);
        }
    }

    /// Nothing lies behind a cursor of an honest replica that the reader has not heard of. Packets that
    /// expire are left out: a clock that is put back brings them back.
    pub fn check_cursors(
        &mut self,
        number: usize,
        from: &BTreeMap<Id, Cursor>,
        position: &[Cursor],
        seen: &Seen,
    ) {
        let address = self.readers[number].address;
        let whole = self.counts.pulls.is_multiple_of(WHOLE_EVERY);
        for cursor in position {
            let Some(&node) = self.index.get(&crate::node::NodeKey(cursor.replica)) else { continue };
            let replica = &self.nodes[node];
            if replica.liar || replica.disk.epoch != cursor.epoch {
                continue;
            }
            let start =
                from.get(&cursor.replica).filter(|from| from.epoch == cursor.epoch && !whole).copied();
            if start == Some(*cursor) {
                continue;
            }
            let all = replica.disk.pull(0, &address, start, usize::MAX);
            let behind = replica.disk.pull(0, &address, Some(*cursor), usize::MAX);
            let (Some((_, _, all)), Some((_, _, behind))) = (all, behind) else {
                let problem = format!("reader {number} has a cursor that node {node} has not given out");
                return self.breaks(Invariant::Cursor, problem);
            };
            let before = all.len() - behind.len().min(all.len());
            let missed = all[..before].iter().find(|p| p.expires_at() == 0 && !World::knows(seen, &p.id()));
            if let Some(packet) = missed {
                let id = hex(&packet.id()[..4]);
                let problem = format!("the cursor of reader {number} at node {node} has skipped packet {id}");
                return self.breaks(Invariant::Cursor, problem);
            }
        }
    }

    /// An address whose replicas do not hold the same, with what one has and another has not.
    pub fn disagreement(&mut self) -> Option<String> {
        let wall = self.true_wall_ms();
        for address in self.addresses.clone() {
            let replicas = self.true_replicas(&address);
            let there: Vec<usize> = replicas.into_iter().filter(|&node| self.nodes[node].up).collect();
            let digest = |&node: &usize| self.nodes[node].disk.stat(wall, &address).0;
            let first = there.first().map(digest);
            if there.iter().any(|node| Some(digest(node)) != first) {
                return Some(self.difference(&address, &there));
            }
        }
        None
    }

    fn difference(&self, address: &Id, there: &[usize]) -> String {
        let wall = self.true_wall_ms();
        let numbers = self.truth.by_address.get(address).map_or(&[][..], |numbers| numbers);
        for &number in numbers {
            let packet = &self.truth.packets[number];
            let (have, lack): (Vec<usize>, Vec<usize>) =
                there.iter().partition(|&&node| self.nodes[node].disk.holds(wall, address, &packet.id));
            if !have.is_empty() && !lack.is_empty() {
                let (acknowledged, obsolete) = (packet.acknowledged, packet.obsolete);
                return format!(
                    "mailbox {}: packet {} ({:?}, acknowledged {acknowledged}, replaced or retracted {obsolete}, expires at {}) is at nodes {have:?} and not at {lack:?}",
                    hex(&address[..4]),
                    hex(&packet.id[..4]),
                    packet.kind,
                    packet.expires_at
                );
            }
        }
        format!("mailbox {}: the digests of {there:?} differ", hex(&address[..4]))
    }

    /// A reader that lacks something due, and what. Packets about to expire are left out.
    pub fn incomplete(&self) -> Option<String> {
        let wall = self.true_wall_ms() + 120_000;
        self.readers.iter().enumerate().find_map(|(number, reader)| {
            let numbers = self.truth.by_address.get(&reader.address).map_or(&[][..], |numbers| numbers);
            let due = numbers.iter().map(|&number| &self.truth.packets[number]).filter(|p| p.is_due(wall));
            let missing: BTreeSet<Id> = due.map(|p| p.id).filter(|id| !reader.given.contains(id)).collect();
            let (id, node) = (hex(&missing.first()?[..4]), reader.node);
            let count = missing.len();
            Some(format!(
                "reader {number} at node {node} lacks {count} acknowledged packets, {id} among them"
            ))
        })
    }

    /// The 8 nodes that should hold a mailbox, as somebody who knows everybody sees it. Nodes that have
    /// left count for a day, as they do in everybody's list.
    pub fn true_replicas(&mut self, address: &Id) -> Vec<usize> {
        let World { nodes, index, true_places, .. } = self;
        let places = true_places.entry(*address).or_insert_with(|| {
            let storage = nodes.iter().filter(|node| node.storage && node.boot > 0).map(|node| node.key);
            crate::node::closest(address, storage, REPLICAS).iter().map(|key| index[key]).collect()
        });
        places.clone()
    }
}
