//! Messages between simulated nodes: delayed, lost, doubled, cut off.

use super::faults::Fault;
use super::plants::Plant;
use super::truth::Invariant;
use super::world::{Event, World};
use crate::address::Address;
use crate::node::NodeKey;
use crate::node::deposit::Answer;
use crate::packet::{Id, Verified};
use crate::store::{Cursor, Digest, Range};
use rand::RngExt;
use std::rc::Rc;

/// A greeting or a question of a look-up without an answer is given up after this time, another one after
/// that.
pub(super) const GREETING_MS: u64 = 3_000;
const QUESTION_MS: u64 = 15_000;
/// A dead address costs a dial this long; a connection that was open takes longer to be missed.
const DIAL_MS: u64 = 1_000;
const IDLE_MS: u64 = 6_000;
/// Questions of one node on their way.
const QUESTIONS_MAX: usize = 2_048;

/// What `net` carries as frames.
#[derive(Debug)]
pub(super) enum Request {
    Hello,
    /// Asks for the contacts closest to a place in the key space.
    Closest {
        target: Id,
    },
    Deposit(Vec<(Address, Verified)>),
    Pull {
        address: Address,
        cursor: Option<Cursor>,
    },
    Stat {
        address: Address,
    },
    Ranges {
        address: Address,
        prefixes: Vec<Vec<u8>>,
    },
    Fetch {
        address: Address,
        ids: Vec<Id>,
    },
    Compare {
        after: Option<Address>,
    },
}

#[derive(Debug)]
pub(super) enum Response {
    /// Each named by its key: how to reach a node never changes here.
    Members {
        members: Vec<NodeKey>,
    },
    Deposited(Vec<Answer>),
    /// `forged`: one record is no packet.
    Page {
        cursor: Cursor,
        more: bool,
        packets: Vec<Verified>,
        forged: bool,
    },
    Stat {
        digest: Digest,
        cursor: Cursor,
    },
    Ranges(Vec<Range>),
    Packets {
        packets: Vec<Verified>,
        forged: bool,
    },
    Digests {
        digests: Vec<(Address, Digest)>,
        next: Option<Address>,
    },
    CursorExpired,
    NotResponsible,
}

/// Why a node asked.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Greeting { seed: Option<usize> },
    LookUp { lookup: u64 },
    Deposit { deposit: u64, packets: Vec<usize> },
    Pull { pull: u64 },
    Compare,
    Reconcile { address: Address },
    Confirm { address: Address },
}

/// A question on its way.
#[derive(Debug)]
pub(super) struct Question {
    pub to: NodeKey,
    pub purpose: Purpose,
    pub asked_ms: u64,
    /// When it is given up, as a key of the queue.
    pub limit: (u64, u64),
}

impl World {
    fn connected(&self, a: usize, b: usize) -> bool {
        self.nodes[a].up && self.nodes[b].up && (a == b || self.nodes[a].group == self.nodes[b].group)
    }

    fn delay_ms(&mut self) -> u64 {
        let slow = self.weather.slow && self.random.random_range(0..5) == 0;
        if slow { self.random.random_range(200..4_000) } else { self.random.random_range(3..60) }
    }

    fn is_lost(&mut self) -> bool {
        self.weather.lossy && self.random.random_range(0..20) == 0
    }

    /// Asks another node, or the own store, and remembers why.
    pub fn ask(&mut self, node: usize, to: NodeKey, request: Request, purpose: Purpose) {
        self.asks += 1;
        let ask = self.asks;
        let patience = match purpose {
            Purpose::Greeting { .. } => GREETING_MS,
            Purpose::LookUp { .. } => {
                self.counts.lookup_questions += 1;
                GREETING_MS
            }
            _ => QUESTION_MS,
        };
        let target = self.index.get(&to).copied();
        let mut patience_ms = patience;
        match target {
            Some(target) if target == node => {
                self.after(1, Event::Request { from: node, to: target, ask, request: Rc::new(request) });
            }
            Some(target) if self.connected(node, target) => {
                let request = Rc::new(request);
                let copies = 1 + usize::from(self.weather.doubling && self.random.random_range(0..20) == 0);
                for _ in 0..copies {
                    if !self.is_lost() {
                        let delay = self.delay_ms();
                        self.after(
                            delay,
                            Event::Request { from: node, to: target, ask, request: request.clone() },
                        );
                    }
                }
            }
            _ => {
                let noticed = if self.random.random_range(0..3) == 0 { IDLE_MS } else { DIAL_MS };
                patience_ms = noticed.min(patience);
            }
        }
        let limit = self.after(patience_ms, Event::Timeout { node, ask });
        let question = Question { to, purpose, asked_ms: self.now, limit };
        self.nodes[node].questions.insert(ask, question);
        let questions = &self.nodes[node].questions;
        let oldest = questions.values().next().map_or(self.now, |question| question.asked_ms);
        if questions.len() > QUESTIONS_MAX || self.now > oldest + QUESTION_MS {
            let problem = format!(
                "node {node} has {} questions on their way, the oldest for {} ms",
                questions.len(),
                self.now - oldest
            );
            self.breaks(Invariant::Bounded, problem);
        }
    }

    pub fn respond(&mut self, node: usize, to: usize, ask: u64, response: Response) {
        if node == to {
            self.after(1, Event::Response { to, ask, response: Rc::new(response) });
        } else if self.connected(node, to) && !self.is_lost() {
            let delay = self.delay_ms();
            self.after(delay, Event::Response { to, ask, response: Rc::new(response) });
        }
    }

    /// A question is answered, or given up: `None`.
    pub fn answered(&mut self, node: usize, ask: u64, response: Option<Rc<Response>>) {
        if response.is_none() && self.config.plant == Some(Plant::LeakQuestions) {
            return;
        }
        let Some(Question { to, purpose, limit, .. }) = self.nodes[node].questions.remove(&ask) else {
            return;
        };
        self.queue.remove(&limit);
        if response.is_none() {
            self.counts.questions_without_answer += 1;
        }
        let response = response.as_deref();
        match purpose {
            Purpose::Greeting { seed } => return self.greeting_answered(node, to, seed, response),
            Purpose::LookUp { lookup } => self.look_up_answered(node, lookup, to, response),
            Purpose::Deposit { deposit, packets } => {
                self.frame_answered(node, deposit, to, packets, response);
            }
            Purpose::Pull { pull } => self.replica_answered(node, pull, to, response),
            Purpose::Compare => self.comparison_answered(node, to, response),
            Purpose::Reconcile { address } => self.reconciliation_answered(node, to, address, response),
            Purpose::Confirm { address } => self.confirmed(node, to, address, response),
        }
        if response.is_none() && to != self.nodes[node].key {
            self.members(node, crate::node::members::Input::Failed(to));
        }
    }

    /// Cuts the network in two, or puts it together again.
    pub fn partition(&mut self, cut: bool) {
        for node in 0..self.nodes.len() {
            self.nodes[node].group = u8::from(cut && self.random.random_range(0..3) == 0);
        }
        self.count_fault(Fault::Partition, cut);
    }
}
