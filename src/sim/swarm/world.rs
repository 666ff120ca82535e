//! Virtual time: a queue of events, and one step after the other.
//!
//! Storms and calms take turns. In a storm nodes write and read while faults strike; in a calm nothing new
//! goes wrong and nobody writes, until all replicas agree and every reader has pulled once more. What must
//! come to be so is looked at then.

use super::faults::{Fault, Weather};
use super::network::{Request, Response};
use super::node::Node;
use super::plants::Plant;
use super::reading::Reader;
use super::truth::{Invariant, Truth};
use super::writing::Author;
use super::{Config, Counts};
use crate::address::Address;
use crate::limits::MEMBERS_MAX;
use crate::net::Routing;
use crate::node::deposit;
use crate::node::{Contact, NodeKey};
use crate::packet::Verified;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Unix milliseconds at virtual time 0.
const BEGIN_MS: u64 = 1_767_225_600_000;
/// Longest storm.
const STORM_MS: u64 = 5 * 60_000;
/// In a calm everything comes right within this time: a few rounds of repair.
const CALM_MS_MAX: u64 = 90 * 60_000;
/// Between two looks at a calm.
const LOOK_MS: u64 = 10_000;
/// Events that a failure shows.
const RECENT: usize = 40;
/// Members that a node lists where replicas are looked up: more than it needs, and few enough for
/// thousands of lists in memory.
const LISTED_MAX: usize = 288;
/// As `qis node` does.
const SWEEP_MS: u64 = 10 * 60_000;

pub(super) enum Event {
    Request {
        from: usize,
        to: usize,
        ask: u64,
        request: Rc<Request>,
    },
    Response {
        to: usize,
        ask: u64,
        response: Rc<Response>,
    },
    Timeout {
        node: usize,
        ask: u64,
    },
    /// `batch`: packets of a frame, and whether they belong here.
    Synced {
        node: usize,
        boot: u32,
        from: usize,
        ask: u64,
        batch: Vec<((Address, Verified), bool)>,
    },
    Wake {
        node: usize,
    },
    DepositWake {
        node: usize,
        deposit: u64,
    },
    PullWake {
        node: usize,
        pull: u64,
    },
    Write,
    Read,
    Strike,
    Heal {
        fault: Fault,
    },
    Restart {
        node: usize,
    },
    Sweep {
        node: usize,
    },
    Look,
}

impl Event {
    /// Name, and two numbers that tell it from others.
    fn line(&self) -> (&'static str, usize, u64) {
        match self {
            Event::Request { to, ask, request, .. } => {
                let name = match **request {
                    Request::Hello => "hello",
                    Request::Closest { .. } => "closest",
                    Request::Deposit(_) => "deposit",
                    Request::Pull { .. } => "pull",
                    Request::Stat { .. } => "stat",
                    Request::Ranges { .. } => "ranges",
                    Request::Fetch { .. } => "fetch",
                    Request::Compare { .. } => "compare",
                };
                (name, *to, *ask)
            }
            Event::Response { to, ask, .. } => ("response", *to, *ask),
            Event::Timeout { node, ask } => ("timeout", *node, *ask),
            Event::Synced { node, ask, .. } => ("synced", *node, *ask),
            Event::Wake { node } => ("wake", *node, 0),
            Event::DepositWake { node, deposit } => ("deposit wakes", *node, *deposit),
            Event::PullWake { node, pull } => ("pull wakes", *node, *pull),
            Event::Write => ("write", 0, 0),
            Event::Read => ("read", 0, 0),
            Event::Strike => ("strike", 0, 0),
            Event::Heal { fault } => (fault.name(), 0, 0),
            Event::Restart { node } => ("restart", *node, 0),
            Event::Sweep { node } => ("sweep", *node, 0),
            Event::Look => ("look", 0, 0),
        }
    }
}

/// Storm, or how far a calm has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Storm,
    /// Waits for the replicas to agree.
    Settling,
    /// Waits for the readers.
    Reading,
}

pub(super) struct World {
    pub config: Config,
    pub random: ChaCha8Rng,
    pub now: u64,
    tie: u64,
    pub queue: BTreeMap<(u64, u64), Event>,
    pub step: u64,
    pub nodes: Vec<Node>,
    pub index: BTreeMap<NodeKey, usize>,
    pub addresses: Vec<Address>,
    pub authors: Vec<Author>,
    pub readers: Vec<Reader>,
    pub truth: Truth,
    pub true_places: BTreeMap<Address, Vec<usize>>,
    pub weather: Weather,
    pub counts: Counts,
    /// Numbers given out.
    pub asks: u64,
    pub deposits: u64,
    pub pulls: u64,
    pub lookups: u64,
    pub routing: Routing,
    phase: Phase,
    phase_began_ms: u64,
    pub history: blake3::Hasher,
    pub recent: VecDeque<(u64, u64, &'static str, usize, u64)>,
    pub broken: Option<(Invariant, String)>,
}

impl World {
    pub fn new(config: Config) -> World {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let gateways = (config.nodes / 4).max(2);
        let later = config.nodes / 8;
        let total = config.nodes + gateways + later;
        let room = match config.routing {
            Routing::Membership => MEMBERS_MAX,
            Routing::Kademlia => LISTED_MAX,
        };
        let node = |number: usize, random: &mut ChaCha8Rng| {
            let storage = number < config.nodes || number >= config.nodes + gateways;
            Node::new(number, storage, config.seed, random.random(), room)
        };
        let nodes: Vec<Node> = (0..total).map(|number| node(number, &mut random)).collect();
        let index = nodes.iter().enumerate().map(|(number, node)| (node.key, number)).collect();
        let addresses: Vec<Address> = (0..(config.nodes / 2).max(4)).map(|_| random.random()).collect();
        let authors = (0..8).map(|number| Author::new(config.seed, number)).collect();
        let mut world = World {
            random,
            now: 0,
            tie: 0,
            queue: BTreeMap::new(),
            step: 0,
            truth: Truth::new(total),
            nodes,
            index,
            addresses,
            authors,
            readers: Vec::new(),
            true_places: BTreeMap::new(),
            weather: Weather::default(),
            counts: Counts::default(),
            asks: 0,
            deposits: 0,
            pulls: 0,
            lookups: 0,
            routing: config.routing,
            phase: Phase::Storm,
            phase_began_ms: 0,
            history: blake3::Hasher::new(),
            recent: VecDeque::new(),
            broken: None,
            config,
        };
        world.populate(gateways);
        world
    }

    /// A swarm that has been running: everybody knows everybody, or those that it would have met.
    fn populate(&mut self, gateways: usize) {
        let storage = self.config.nodes;
        let contacts: Vec<Contact> = self.nodes[..storage].iter().map(|node| node.contact.clone()).collect();
        let mut sorted: Vec<NodeKey> = contacts.iter().map(Contact::key).collect();
        sorted.sort_unstable();
        for node in 0..storage + gateways {
            match self.routing {
                Routing::Membership => self.start(node, &contacts),
                Routing::Kademlia => {
                    let known = self.acquaintances(node, &sorted);
                    self.start(node, &known);
                }
            }
        }
        for node in 0..self.nodes.len() {
            let first = self.random.random_range(0..SWEEP_MS);
            self.after(first, Event::Sweep { node });
        }
        for reader in 0..storage / 2 + gateways {
            let node = storage + gateways - 1 - reader;
            let address = self.addresses[reader % self.addresses.len()];
            self.readers.push(Reader::new(node, address));
        }
        self.make_liars();
        self.begin_a_storm();
        self.after(LOOK_MS, Event::Look);
    }

    pub fn at(&mut self, at: u64, event: Event) -> (u64, u64) {
        self.tie += 1;
        self.queue.insert((at, self.tie), event);
        (at, self.tie)
    }

    pub fn after(&mut self, delay: u64, event: Event) -> (u64, u64) {
        self.at(self.now + delay, event)
    }

    pub fn true_wall_ms(&self) -> u64 {
        BEGIN_MS + self.now
    }

    /// An invariant does not hold; the first one counts.
    pub fn breaks(&mut self, invariant: Invariant, problem: String) {
        self.broken.get_or_insert((invariant, problem));
    }

    /// Whether the steps asked for are done and the last calm has ended well.
    pub fn is_over(&self) -> bool {
        self.step >= self.config.steps && self.phase == Phase::Storm && self.counts.calms > 0
    }

    pub fn take_a_step(&mut self) {
        let Some(((at, tie), event)) = self.queue.pop_first() else {
            return self.breaks(Invariant::Bounded, "nothing is left to happen".into());
        };
        self.now = at;
        self.step += 1;
        let (name, a, b) = event.line();
        self.history.update(&at.to_le_bytes()).update(&tie.to_le_bytes()).update(name.as_bytes());
        self.history.update(&(a as u64).to_le_bytes()).update(&b.to_le_bytes());
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((self.step, at, name, a, b));
        self.happens(event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Request { from, to, ask, request } => self.request(from, to, ask, &request),
            Event::Response { to, ask, response } => self.answered(to, ask, Some(response)),
            Event::Timeout { node, ask } => self.answered(node, ask, None),
            Event::Synced { node, boot, from, ask, batch } => {
                if self.nodes[node].boot == boot && self.nodes[node].up {
                    self.synced(node, from, ask, batch);
                }
            }
            Event::Wake { node } => self.wake(node),
            Event::DepositWake { node, deposit } => {
                if let Some(spread) = self.nodes[node].deposits.get_mut(&deposit) {
                    spread.timer = None;
                }
                self.spread(node, deposit, deposit::Input::Tick);
            }
            Event::PullWake { node, pull } => self.wake_pull(node, pull),
            Event::Write => self.write_in_a_storm(),
            Event::Read => self.read_in_a_storm(),
            Event::Strike => {
                if self.phase == Phase::Storm {
                    self.strike();
                    let pause = self.random.random_range(500..6_000);
                    self.after(pause, Event::Strike);
                }
            }
            Event::Heal { fault } => self.heal(fault),
            Event::Restart { node } => self.restart(node),
            Event::Sweep { node } => {
                if self.nodes[node].up && self.nodes[node].storage {
                    let wall = self.wall_ms(node);
                    self.nodes[node].disk.sweep(wall);
                    self.look_at_swept(node);
                    self.look_for_foreign(node);
                }
                self.after(SWEEP_MS, Event::Sweep { node });
            }
            Event::Look => {
                self.look_at_the_phase();
                self.after(LOOK_MS, Event::Look);
            }
        }
    }

    fn write_in_a_storm(&mut self) {
        if self.phase != Phase::Storm {
            return;
        }
        let node = self.random.random_range(0..self.nodes.len());
        if self.nodes[node].up {
            self.write(node);
        }
        let pause = self.random.random_range(0..=32_000 / self.config.nodes as u64);
        self.after(pause, Event::Write);
    }

    fn read_in_a_storm(&mut self) {
        if self.phase != Phase::Storm {
            return;
        }
        let reader = self.random.random_range(0..self.readers.len());
        self.pull(reader);
        let pause = self.random.random_range(0..=24_000 / self.config.nodes as u64);
        self.after(pause, Event::Read);
    }

    pub fn restart(&mut self, node: usize) {
        if self.nodes[node].up || !self.nodes[node].joined {
            return;
        }
        if self.config.plant == Some(Plant::ForgetfulDisk) && self.nodes[node].storage {
            let mut records = self.nodes[node].disk.records();
            records.truncate(records.len() / 2);
            let epoch = self.random.random();
            self.nodes[node].disk.rebuild(epoch, &records);
        }
        self.look_at_disk(node, false);
        self.start(node, &[]);
    }

    fn begin_a_storm(&mut self) {
        self.phase = Phase::Storm;
        self.phase_began_ms = self.now;
        for event in [Event::Write, Event::Read, Event::Strike] {
            self.after(1_000, event);
        }
    }

    fn look_at_the_phase(&mut self) {
        let lasted = self.now - self.phase_began_ms;
        match self.phase {
            Phase::Storm if lasted >= STORM_MS || self.step >= self.config.steps => {
                self.phase = Phase::Settling;
                self.phase_began_ms = self.now;
                self.end_the_storm();
            }
            Phase::Storm => {}
            Phase::Settling => {
                // Hand-offs of the storm go on; a look at all replicas is dear.
                if !(lasted / LOOK_MS).is_multiple_of(3) {
                    return;
                }
                match self.disagreement() {
                    Some(problem) if lasted > CALM_MS_MAX => {
                        let problem = format!("after {} minutes of calm: {problem}", lasted / 60_000);
                        self.breaks(Invariant::Agreement, problem);
                    }
                    Some(_) => {}
                    None => {
                        self.forgive_the_repaired();
                        self.phase = Phase::Reading;
                        self.phase_began_ms = self.now;
                        self.readers.iter_mut().for_each(|reader| reader.calm_pulls = 0);
                        self.counts.calm_ms_max = self.counts.calm_ms_max.max(lasted);
                    }
                }
            }
            Phase::Reading => self.look_at_readers(lasted),
        }
    }

    fn look_at_readers(&mut self, lasted: u64) {
        let pulled = self.readers.iter().all(|reader| reader.calm_pulls > 0);
        let problem = match self.incomplete() {
            None if pulled => {
                self.counts.calms += 1;
                self.counts.reading_ms_max = self.counts.reading_ms_max.max(lasted);
                return self.begin_a_storm();
            }
            None => "a reader has not come to the end of a pull".into(),
            Some(problem) => problem,
        };
        if lasted > CALM_MS_MAX {
            let problem = format!("after {} minutes of pulls: {problem}", lasted / 60_000);
            return self.breaks(Invariant::Complete, problem);
        }
        for reader in 0..self.readers.len() {
            if !self.nodes[self.readers[reader].node].joined {
                // Its node has left: it reads at another one.
                let up = self.nodes.iter().position(|node| node.up).unwrap_or_default();
                self.readers[reader].node = up;
                self.forget(reader);
            }
            self.pull(reader);
        }
    }
}
