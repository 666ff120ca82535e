//! What a simulated node answers, as `net::serve` does.

use super::lies;
use super::network::{Request, Response};
use super::plants::Plant;
use super::world::{Event, World};
use crate::address::Address;
use crate::limits::{CLOCK_SKEW_MS_MAX, FRAME_PACKETS_MAX, REPLICAS};
use crate::node::NodeKey;
use crate::node::deposit::Answer;
use crate::packet::{Kind, Verified};
use crate::store::{Deposited, Digest};
use rand::RngExt;

impl World {
    pub fn request(&mut self, from: usize, to: usize, ask: u64, request: &Request) {
        if !self.nodes[to].up {
            return;
        }
        let wall = self.wall_ms(to);
        let response = match request {
            Request::Hello => {
                let state = &self.nodes[to];
                let answering = state.view.iter().filter(|key| !state.silent.contains(key));
                let members = answering.copied().collect();
                self.respond(to, from, ask, Response::Members { members });
                return self.heard(to, from);
            }
            Request::Closest { target } => self.closest_contacts(to, target),
            Request::Deposit(batch) => return self.deposit_arrived(from, to, ask, batch),
            Request::Pull { address, cursor } => match self.is_near(to, address) {
                false => Response::NotResponsible,
                true => match self.nodes[to].disk.pull(wall, address, *cursor, FRAME_PACKETS_MAX) {
                    None => Response::CursorExpired,
                    Some((cursor, more, mut packets)) => {
                        if self.config.plant == Some(Plant::SkipPage) && !self.nodes[to].liar {
                            packets.pop();
                        }
                        Response::Page { cursor, more, packets, forged: false }
                    }
                },
            },
            Request::Stat { address } => {
                let (digest, cursor) = self.nodes[to].disk.stat(wall, address);
                Response::Stat { digest, cursor }
            }
            Request::Ranges { address, prefixes } => {
                let disk = &self.nodes[to].disk;
                Response::Ranges(prefixes.iter().map(|prefix| disk.range(wall, address, prefix)).collect())
            }
            Request::Fetch { address, ids } => {
                let packets = self.nodes[to].disk.fetch(wall, address, ids);
                Response::Packets { packets, forged: false }
            }
            Request::Compare { after } => {
                let other = self.nodes[from].key;
                if !self.nodes[to].view.contains(&other) {
                    Response::NotResponsible
                } else {
                    let (digests, next) = self.comparison(to, *after, &other);
                    Response::Digests { digests, next }
                }
            }
        };
        let response = match self.nodes[to].liar && from != to {
            true => lies::told(self, to, request, response),
            false => response,
        };
        self.respond(to, from, ask, response);
    }

    /// Views of two nodes differ while one joins: twice the replicas are near enough.
    fn is_near(&mut self, node: usize, address: &Address) -> bool {
        let key = self.nodes[node].key;
        self.nodes[node].view.len() < 2 * REPLICAS || self.nodes[node].places(address).contains(&key)
    }

    /// A frame of a deposit: admitted, then on its way to the disk.
    fn deposit_arrived(&mut self, from: usize, to: usize, ask: u64, batch: &[(Address, Verified)]) {
        let near: Vec<bool> = batch.iter().map(|(address, _)| self.is_near(to, address)).collect();
        if near.iter().all(|near| !near) {
            return self.respond(to, from, ask, Response::NotResponsible);
        }
        let early = self.config.plant == Some(Plant::AckBeforeSync);
        let delay = match self.weather.slow {
            _ if early => 2_000,
            true if self.random.random_range(0..10) == 0 => self.random.random_range(500..5_000),
            _ => self.random.random_range(1..10),
        };
        if early {
            self.respond(to, from, ask, Response::Deposited(vec![Answer::Stored; batch.len()]));
        }
        let batch = batch.iter().copied().zip(near).collect();
        let boot = self.nodes[to].boot;
        self.after(delay, Event::Synced { node: to, boot, from, ask, batch });
    }

    /// The disk has synced; only now is the frame answered.
    pub fn synced(&mut self, node: usize, from: usize, ask: u64, batch: Vec<((Address, Verified), bool)>) {
        let near: Vec<bool> = batch.iter().map(|(_, near)| *near).collect();
        let admitted = batch.iter().filter(|(_, near)| *near).map(|(packet, _)| *packet).collect::<Vec<_>>();
        let mut stored = self.store(node, &admitted).into_iter();
        let far = || Answer::Rejected("not responsible: others are closer".into());
        let answers =
            near.into_iter().map(|near| if near { stored.next().unwrap_or_else(far) } else { far() });
        let answers = answers.collect();
        if self.config.plant != Some(Plant::AckBeforeSync) {
            self.respond(node, from, ask, Response::Deposited(answers));
        }
    }

    /// Admits and stores packets, whoever they come from.
    pub fn store(&mut self, node: usize, batch: &[(Address, Verified)]) -> Vec<Answer> {
        let wall = self.wall_ms(node);
        // As `mailbox::Admission` does, as far as it needs no domain.
        let admit = |packet: &Verified| match packet.observed_at() > wall + CLOCK_SKEW_MS_MAX {
            true => Some(Answer::Rejected("it is from the future".into())),
            false => None,
        };
        let refused: Vec<Option<Answer>> = batch.iter().map(|(_, packet)| admit(packet)).collect();
        let admitted: Vec<(Address, Verified)> =
            batch.iter().zip(&refused).filter(|(_, refused)| refused.is_none()).map(|(p, _)| *p).collect();
        let stored = self.nodes[node].disk.deposit(wall, &admitted);
        for ((address, packet), deposited) in admitted.iter().zip(&stored) {
            if *deposited == Deposited::Stored {
                if self.config.plant == Some(Plant::KeepRetracted) && packet.kind() == Kind::Retraction {
                    self.nodes[node].disk.kept.insert((*address, *packet.reference()));
                }
                self.on_stored(node, address, packet);
            }
        }
        let mut stored = stored.into_iter().map(|deposited| match deposited.refusal() {
            Some(reason) => Answer::Rejected(reason.into()),
            None if deposited == Deposited::Duplicate => Answer::Duplicate,
            None => Answer::Stored,
        });
        let one = |refused: Option<Answer>| {
            refused.or_else(|| stored.next()).unwrap_or_else(|| Answer::Rejected("no result".into()))
        };
        refused.into_iter().map(one).collect()
    }

    /// Digests of the mailboxes that another node should hold, as this one sees the swarm.
    fn comparison(
        &mut self,
        node: usize,
        after: Option<Address>,
        other: &NodeKey,
    ) -> (Vec<(Address, Digest)>, Option<Address>) {
        let wall = self.wall_ms(node);
        let (mut digests, next) = self.nodes[node].disk.digests(wall, after);
        digests.retain(|(address, _)| self.nodes[node].should_hold(address, other));
        (digests, next)
    }
}
