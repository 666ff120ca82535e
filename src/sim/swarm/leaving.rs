//! Mailboxes that a simulated node is no replica of any more, handed over as `net::handover` does it.

use super::network::{Purpose, Request, Response};
use super::plants::Plant;
use super::truth::Invariant;
use super::world::World;
use crate::address::Address;
use crate::limits::REPLICAS;
use crate::node::NodeKey;
use crate::node::repair::Input;
use crate::packet::hex;
use crate::store::Digest;
use std::collections::BTreeSet;

/// As short as a look at the store allows: the more is handed over, the more is tried.
pub(super) const GRACE_MS: u64 = 5 * 60_000;

/// A mailbox whose replicas are being asked.
#[derive(Debug)]
pub(super) struct Confirming {
    digest: Digest,
    asked_ms: u64,
    left: usize,
    /// Replicas that hold the same.
    agree: Vec<usize>,
}

impl World {
    /// Looks at what lies on the disk and belongs elsewhere.
    pub fn look_for_foreign(&mut self, node: usize) {
        let (wall, key, now) = (self.wall_ms(node), self.nodes[node].key, self.now);
        let (mut foreign, mut after) = (BTreeSet::new(), None);
        loop {
            let (digests, next) = self.nodes[node].disk.digests(wall, after);
            for (address, _) in digests {
                if !self.nodes[node].should_hold(&address, &key) {
                    foreign.insert(address);
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        for address in self.nodes[node].handover.looked(&foreign, now) {
            self.place_and_confirm(node, address);
        }
    }

    /// Asks the replicas whether they hold the same.
    pub fn confirm_at(&mut self, node: usize, address: Address, replicas: Vec<NodeKey>) {
        let state = &self.nodes[node];
        let ready = replicas.len() == REPLICAS
            && !replicas.contains(&state.key)
            && replicas.iter().all(|replica| !state.silent.contains(replica));
        if !ready || state.confirming.contains_key(&address) {
            return;
        }
        let digest = state.disk.stat(self.wall_ms(node), &address).0;
        let asked = Confirming { digest, asked_ms: self.now, left: REPLICAS, agree: Vec::new() };
        self.nodes[node].confirming.insert(address, asked);
        if self.config.plant == Some(Plant::LeaveUnasked) {
            let places = replicas.iter().filter_map(|replica| self.index.get(replica).copied());
            let agree = places.collect();
            return self.leave(node, address, Confirming { digest, asked_ms: self.now, left: 0, agree });
        }
        for replica in replicas {
            self.ask(node, replica, Request::Stat { address }, Purpose::Confirm { address });
        }
    }

    pub fn confirmed(
        &mut self,
        node: usize,
        replica: NodeKey,
        address: Address,
        response: Option<&Response>,
    ) {
        let place = self.index.get(&replica).copied();
        let Some(asked) = self.nodes[node].confirming.get_mut(&address) else { return };
        asked.left -= 1;
        if let (Some(Response::Stat { digest, .. }), Some(place)) = (response, place)
            && *digest == asked.digest
        {
            asked.agree.push(place);
        }
        if asked.left > 0 {
            return;
        }
        let Some(asked) = self.nodes[node].confirming.remove(&address) else { return };
        match asked.agree.len() == REPLICAS {
            true => self.leave(node, address, asked),
            // What this node lacks is fetched, so that they can agree next time.
            false => {
                let replicas = self.nodes[node].replicas(&address);
                self.repair(node, Input::Wanted { address, replicas });
            }
        }
    }

    fn leave(&mut self, node: usize, address: Address, asked: Confirming) {
        self.nodes[node].confirming.remove(&address);
        let wall = self.wall_ms(node);
        let removed = self.nodes[node].disk.leave(wall, &address, &asked.digest);
        if removed > 0 {
            self.counts.mailboxes_left += 1;
            self.look_at_left(node, &address, &asked.agree, asked.asked_ms);
        }
    }

    /// What has gone from a disk lies on those that said so, unless they have died since; they are who has
    /// promised it from now on.
    fn look_at_left(&mut self, node: usize, address: &Address, agree: &[usize], asked_ms: u64) {
        let wall = self.true_wall_ms();
        let held: Vec<usize> = self.truth.held[node].iter().copied().collect();
        for number in held {
            let there = &self.nodes[node].disk;
            let packet = &self.truth.packets[number];
            if packet.address != *address || there.holds(0, address, &packet.id) {
                continue;
            }
            let lacks = agree.iter().find(|other| {
                !packet.holders.contains(other) && !self.truth.has_died_since(**other, asked_ms)
            });
            if let Some(other) = lacks.filter(|_| packet.is_due(wall) && packet.expires_at == 0) {
                let id = hex(&packet.id[..4]);
                let problem = format!("node {node} has left packet {id} to node {other}, which lacks it");
                self.breaks(Invariant::Durable, problem);
            }
            self.truth.left(number, node, agree);
        }
    }
}
