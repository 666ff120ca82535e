//! What goes wrong in the simulated world, and when.

use super::plants::Plant;
use super::world::{Event, World};
use rand::RngExt;
use rand::seq::SliceRandom;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Requests and answers are lost: 5% while it lasts.
    Loss,
    /// Some messages take up to four seconds, some disks sync in five.
    Delay,
    /// Requests arrive twice: 5% while it lasts.
    Duplication,
    /// A third of the nodes is cut off from the others.
    Partition,
    /// Nodes die without a word and start again, with their disks.
    Crash,
    /// A crashed node's disk loses the end of what it held, or records at random, and says so by another
    /// epoch.
    Torn,
    /// A crashed node's disk comes back empty.
    Wipe,
    /// Nodes join, and leave for good.
    Churn,
    /// Clocks of nodes jump, up to three days to either side.
    Clock,
    /// Storage nodes answer readers and repair with lies; at most 2 of the 8 replicas of a mailbox.
    Liars,
}

impl Fault {
    pub const ALL: [Fault; 10] = [
        Fault::Loss,
        Fault::Delay,
        Fault::Duplication,
        Fault::Partition,
        Fault::Crash,
        Fault::Torn,
        Fault::Wipe,
        Fault::Churn,
        Fault::Clock,
        Fault::Liars,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Loss => "loss",
            Fault::Delay => "delay",
            Fault::Duplication => "duplication",
            Fault::Partition => "partition",
            Fault::Crash => "crash",
            Fault::Torn => "torn",
            Fault::Wipe => "wipe",
            Fault::Churn => "churn",
            Fault::Clock => "clock",
            Fault::Liars => "liars",
        }
    }

    /// Reads `all`, `none`, or names with commas between.
    pub fn list(text: &str) -> Option<Vec<Fault>> {
        let named = |name: &str| Fault::ALL.into_iter().find(|fault| fault.name() == name.trim());
        match text {
            "all" => Some(Fault::ALL.to_vec()),
            "none" => Some(Vec::new()),
            names => names.split(',').map(named).collect(),
        }
    }
}

/// Faults that last.
#[derive(Default)]
pub(super) struct Weather {
    pub lossy: bool,
    pub slow: bool,
    pub doubling: bool,
    cut: bool,
}

impl World {
    pub fn count_fault(&mut self, fault: Fault, begins: bool) {
        if begins {
            *self.counts.faults.entry(fault.name()).or_default() += 1;
        }
    }

    fn up_storage(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].up && self.nodes[node].storage).collect()
    }

    fn one_of(&mut self, nodes: &[usize]) -> Option<usize> {
        (!nodes.is_empty()).then(|| nodes[self.random.random_range(0..nodes.len())])
    }

    /// Something happens to somebody.
    pub fn strike(&mut self) {
        self.forgive_the_repaired();
        let enabled = self.config.faults.clone();
        if enabled.is_empty() {
            return;
        }
        let fault = enabled[self.random.random_range(0..enabled.len())];
        let lasting = self.random.random_range(5_000..40_000);
        match fault {
            Fault::Loss => self.weather.lossy = true,
            Fault::Delay => self.weather.slow = true,
            Fault::Duplication => self.weather.doubling = true,
            Fault::Partition if self.weather.cut => return,
            Fault::Partition => {
                self.weather.cut = true;
                self.partition(true);
            }
            Fault::Crash => {
                for _ in 0..self.random.random_range(1..4) {
                    self.kill(None);
                }
                return self.count_fault(fault, true);
            }
            Fault::Torn | Fault::Wipe => {
                if self.random.random_range(0..8) == 0 {
                    self.disaster(fault);
                } else {
                    self.kill(Some(fault));
                }
                return;
            }
            Fault::Churn => return self.churn(),
            Fault::Clock => return self.jump(lasting),
            Fault::Liars => return,
        }
        if fault != Fault::Partition {
            self.count_fault(fault, true);
        }
        self.after(lasting, Event::Heal { fault });
    }

    pub fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Loss => self.weather.lossy = false,
            Fault::Delay => self.weather.slow = false,
            Fault::Duplication => self.weather.doubling = false,
            Fault::Partition => {
                self.weather.cut = false;
                self.partition(false);
            }
            Fault::Clock => self.nodes.iter_mut().for_each(|node| node.clock_off_ms = 0),
            _ => {}
        }
    }

    /// Crashes a node, with its disk where the promise allows that.
    fn kill(&mut self, disk: Option<Fault>) {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.nodes[node].up).collect();
        let joined = self.nodes.iter().filter(|node| node.joined).count();
        if 4 * (joined - up.len()) >= joined {
            return;
        }
        let candidates = if disk.is_some() { self.up_storage() } else { up };
        let Some(node) = self.one_of(&candidates) else { return };
        self.kill_node(node, disk);
    }

    fn kill_node(&mut self, node: usize, disk: Option<Fault>) {
        let wall = self.true_wall_ms();
        let allowed = self.config.plant == Some(Plant::DeathTooMany) || self.truth.may_die(node, wall);
        if disk.is_some() && !allowed {
            return;
        }
        self.crash(node);
        if let Some(fault) = disk {
            self.lose(node, fault);
        }
        let pause = self.random.random_range(500..60_000);
        self.after(pause, Event::Restart { node });
    }

    fn lose(&mut self, node: usize, fault: Fault) {
        self.count_fault(fault, true);
        let mut records = self.nodes[node].disk.records();
        if fault == Fault::Wipe {
            records.clear();
        } else if self.random.random_range(0..2) == 0 {
            let kept = self.random.random_range(0..=records.len());
            records.truncate(kept);
        } else {
            let share = self.random.random_range(1..20);
            records.retain(|_| self.random.random_range(0..20) >= share);
        }
        let epoch = match self.config.plant {
            Some(Plant::SameEpoch) => self.nodes[node].disk.epoch,
            _ => self.random.random(),
        };
        self.nodes[node].disk.rebuild(epoch, &records);
        self.note_death(node);
    }

    /// As many replicas of one mailbox as may die at once do: seven of eight, where all have everything.
    fn disaster(&mut self, fault: Fault) {
        let Some(&address) = self.addresses.get(self.random.random_range(0..self.addresses.len())) else {
            return;
        };
        let mut replicas = self.true_replicas(&address);
        replicas.shuffle(&mut self.random);
        for node in replicas {
            if self.nodes[node].up {
                self.kill_node(node, Some(fault));
            }
        }
        *self.counts.faults.entry("disaster").or_default() += 1;
    }

    /// Somebody joins, or leaves for good.
    fn churn(&mut self) {
        let fresh: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.nodes[node].boot == 0).collect();
        if let Some(node) = self.one_of(&fresh).filter(|_| self.random.random_range(0..3) < 2) {
            self.true_places.clear();
            self.start(node, &[]);
            return self.count_fault(Fault::Churn, true);
        }
        let left = self.nodes.iter().filter(|node| node.boot > 0 && !node.joined).count();
        let wall = self.true_wall_ms();
        let candidates = self.up_storage();
        // The first nodes are the addresses that everybody knows.
        let candidates: Vec<usize> =
            candidates.into_iter().filter(|&node| node >= super::node::SEEDS).collect();
        let Some(node) = self.one_of(&candidates) else { return };
        if left < self.config.nodes / 16 && self.truth.may_die(node, wall) {
            self.crash(node);
            self.nodes[node].joined = false;
            let epoch = self.random.random();
            self.nodes[node].disk.rebuild(epoch, &[]);
            self.note_death(node);
            self.count_fault(Fault::Churn, true);
        }
    }

    fn jump(&mut self, lasting: u64) {
        if self.nodes.iter().any(|node| node.clock_off_ms != 0) {
            return;
        }
        const DAYS_3_MS: i64 = 3 * 24 * 3_600_000;
        for _ in 0..2 {
            let node = self.random.random_range(0..self.nodes.len());
            self.nodes[node].clock_off_ms = self.random.random_range(-DAYS_3_MS..DAYS_3_MS);
        }
        self.count_fault(Fault::Clock, true);
        self.after(lasting, Event::Heal { fault: Fault::Clock });
    }

    /// All that can be undone is: the network is whole, clocks are right, whoever has not left is up.
    pub fn end_the_storm(&mut self) {
        for fault in [Fault::Loss, Fault::Delay, Fault::Duplication, Fault::Clock, Fault::Partition] {
            self.heal(fault);
        }
        for node in 0..self.nodes.len() {
            self.restart(node);
        }
    }

    /// Makes liars, so that no mailbox has more than two.
    pub fn make_liars(&mut self) {
        if !self.config.faults.contains(&Fault::Liars) {
            return;
        }
        let mut candidates: Vec<usize> = self.up_storage().into_iter().skip(super::node::SEEDS).collect();
        candidates.shuffle(&mut self.random);
        for node in candidates.into_iter().take((self.config.nodes / 8).max(1)) {
            self.nodes[node].liar = true;
            let too_many = self.addresses.clone().iter().any(|address| {
                self.true_replicas(address).iter().filter(|&&node| self.nodes[node].liar).count() > 2
            });
            if too_many {
                self.nodes[node].liar = false;
            } else {
                self.count_fault(Fault::Liars, true);
            }
        }
    }
}
