//! Repair of a simulated node, as `net::repair` does it.

use super::disk::OnDisk;
use super::network::{Purpose, Request, Response};
use super::plants::Plant;
use super::truth::Invariant;
use super::world::World;
use crate::address::Address;
use crate::limits::REPAIR_QUEUE_MAX;
use crate::node::deposit::Answer;
use crate::node::reconcile::Ask;
use crate::node::refused::REFUSED_MAX;
use crate::node::repair::{Action, Input};
use crate::node::{NodeKey, Reconcile};
use crate::packet::Verified;

impl World {
    pub fn repair(&mut self, node: usize, input: Input) {
        if !self.nodes[node].up || !self.nodes[node].storage {
            return;
        }
        let actions = self.nodes[node].repair.step(input, self.now);
        for action in actions {
            match action {
                Action::Compare { peer, .. } | Action::Reconcile { peer, .. }
                    if self.config.plant == Some(Plant::NoRepair) =>
                {
                    let address = match action {
                        Action::Reconcile { address, .. } => Some(address),
                        Action::Compare { .. } => None,
                    };
                    self.repair(node, Input::Failed { peer, address });
                }
                Action::Compare { peer, after } => {
                    self.ask(node, peer, Request::Compare { after }, Purpose::Compare);
                }
                Action::Reconcile { peer, address } => {
                    self.nodes[node].reconciling.insert(address, (peer, Reconcile::default(), 0));
                    self.reconcile(node, address);
                }
            }
        }
        let progress = self.nodes[node].repair.progress(self.now);
        if progress.queue > REPAIR_QUEUE_MAX + 16 || self.nodes[node].refused.len() > REFUSED_MAX {
            let problem = format!("{} mailboxes wait for repair at node {node}", progress.queue);
            self.breaks(Invariant::Bounded, problem);
        }
        self.plan(node);
    }

    pub fn comparison_answered(&mut self, node: usize, peer: NodeKey, response: Option<&Response>) {
        let failed = Input::Failed { peer, address: None };
        let Some(Response::Digests { digests, next }) = response else {
            return self.repair(node, failed);
        };
        // What was asked for is known to the machine alone; a page that goes back is told by its own order.
        let forward = match (next, digests.last()) {
            (Some(next), Some((last, _))) => next >= last,
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !forward || !digests.is_sorted_by(|a, b| a.0 < b.0) {
            return self.repair(node, failed);
        }
        let wall = self.wall_ms(node);
        let mut differing = Vec::new();
        for (address, theirs) in digests {
            let key = self.nodes[node].key;
            let ours = self.nodes[node].should_hold(address, &key);
            if ours && self.nodes[node].disk.stat(wall, address).0 != *theirs {
                differing.push(*address);
            }
        }
        self.repair(node, Input::Compared { peer, mailboxes: digests.len(), differing, next: *next });
    }

    /// Asks the next question of a reconciliation, or ends it.
    fn reconcile(&mut self, node: usize, address: Address) {
        let Some((peer, machine, fetched)) = self.nodes[node].reconciling.get_mut(&address) else { return };
        let (peer, fetched) = (*peer, *fetched);
        let request = match machine.next_ask() {
            Some(Ask::Ranges(prefixes)) => Request::Ranges { address, prefixes },
            Some(Ask::Fetch(ids)) => Request::Fetch { address, ids },
            None => {
                self.nodes[node].reconciling.remove(&address);
                self.counts.packets_repaired += fetched;
                return self.repair(node, Input::Reconciled { peer, address, fetched });
            }
        };
        self.ask(node, peer, request, Purpose::Reconcile { address });
    }

    pub fn reconciliation_answered(
        &mut self,
        node: usize,
        peer: NodeKey,
        address: Address,
        response: Option<&Response>,
    ) {
        let Some((_, mut machine, fetched)) = self.nodes[node].reconciling.remove(&address) else { return };
        let wall_ms = self.wall_ms(node);
        let gained = match response {
            Some(Response::Ranges(ranges)) => {
                let Self { nodes, now, .. } = self;
                nodes[node].refused.set_now(*now);
                let own = OnDisk {
                    disk: &nodes[node].disk,
                    wall_ms,
                    address: &address,
                    refused: &nodes[node].refused,
                };
                machine.ranges(ranges.clone(), &own).ok().map(|()| 0)
            }
            Some(Response::Packets { packets, forged: false }) => Some(self.fetched(node, address, packets)),
            _ => None,
        };
        match gained {
            Some(gained) => {
                self.nodes[node].reconciling.insert(address, (peer, machine, fetched + gained));
                self.reconcile(node, address);
            }
            None => self.repair(node, Input::Failed { peer, address: Some(address) }),
        }
    }

    fn fetched(&mut self, node: usize, address: Address, packets: &[Verified]) -> u64 {
        let batch: Vec<(Address, Verified)> = packets.iter().map(|packet| (address, *packet)).collect();
        let mut stored = 0;
        for (answer, packet) in self.store(node, &batch).into_iter().zip(packets) {
            match answer {
                Answer::Stored => stored += 1,
                Answer::Duplicate => {}
                Answer::Rejected(_) => {
                    self.nodes[node].refused.insert(address, packet.id(), self.now);
                }
            }
        }
        stored
    }
}
