//! Thousands of decisions a second without a socket: the machines of [`crate::node`] in a world whose
//! time, network, disks and clocks are made up.
//!
//! Each simulated node drives the same code as a real one, in the way `net` drives it: members and
//! greetings, deposits with hand-off, pulls with digests, repair. Its store is the one in memory. All
//! chance comes from one seed, so a failure happens again.
//!
//! - `world`: virtual time, storms and calms
//! - `network`: messages, delayed, lost, doubled, cut off
//! - `node`, `serve`, `writing`, `reading`, `repairing`, `looking`,
//!   `leaving`: what a node does
//! - `disk`: a store that can be torn or wiped
//! - [`faults`], `lies`: what goes wrong
//! - [`truth`], `checks`: the books, and the invariants
//! - [`plants`]: bugs that the invariants must find

mod checks;
mod disk;
pub mod faults;
mod leaving;
mod lies;
mod looking;
mod network;
mod node;
pub mod plants;
mod reading;
mod repairing;
mod serve;
#[cfg(test)]
mod tests;
pub mod truth;
mod world;
mod writing;

use crate::limits::MEMBERS_MAX;
use crate::net::Routing;
use crate::packet::hex;
pub use faults::Fault;
pub use plants::Plant;
use serde::Serialize;
use std::collections::BTreeMap;
pub use truth::Invariant;
use world::World;

/// Fewest storage nodes: more than twice the replicas, so that places differ.
pub const NODES_MIN: usize = 20;
/// Most storage nodes.
pub const NODES_MAX: usize = 10_000;
/// Most of them where everybody knows everybody, those that join later too.
pub const MEMBERSHIP_NODES_MAX: usize = MEMBERS_MAX * 8 / 9;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Storage nodes at the beginning, [`NODES_MIN`]..=[`NODES_MAX`]. A quarter as many gateways come on
    /// top, and an eighth that join later.
    pub nodes: usize,
    /// How the replicas of an address are found. [`Routing::Membership`] up to [`MEMBERSHIP_NODES_MAX`].
    pub routing: Routing,
    /// Events; the last storm ends with them, and the calm after it comes on top.
    pub steps: u64,
    pub seed: u64,
    pub faults: Vec<Fault>,
    pub plant: Option<Plant>,
}

impl Config {
    /// How nodes of a swarm of this size find replicas, unless told otherwise.
    pub fn routing_for(nodes: usize) -> Routing {
        if nodes > MEMBERSHIP_NODES_MAX { Routing::Kademlia } else { Routing::Membership }
    }
}

/// What has happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub deposits: u64,
    /// Packets that a depositor took for acknowledged, refused, or neither in time.
    pub acknowledged: u64,
    pub rejected: u64,
    pub unacknowledged: u64,
    pub pulls: u64,
    pub pulls_failed: u64,
    pub packets_pulled: u64,
    pub packets_repaired: u64,
    /// Mailboxes that went from nodes that were no replicas any more.
    pub mailboxes_left: u64,
    /// Look-ups, where replicas are looked up, and the questions that they took.
    pub lookups: u64,
    pub lookup_questions: u64,
    pub questions_without_answer: u64,
    pub lies: u64,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Times that all came right again, and the longest that replicas took to agree, milliseconds.
    pub calms: u64,
    pub calm_ms_max: u64,
    /// Longest time from there until every reader had everything, milliseconds.
    pub reading_ms_max: u64,
}

/// A run in which no invariant was broken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub nodes: usize,
    pub seed: u64,
    pub steps: u64,
    pub virtual_seconds: u64,
    pub packets: usize,
    #[serde(flatten)]
    pub counts: Counts,
    /// BLAKE3 of all events, hexadecimal: the same seed gives the same.
    pub history: String,
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}, {at_ms} ms: {invariant:?}: {problem}")]
pub struct Broken {
    pub seed: u64,
    pub step: u64,
    /// Virtual milliseconds.
    pub at_ms: u64,
    pub invariant: Invariant,
    pub problem: String,
    /// The last events, the newest last: step, milliseconds, what, node, number.
    pub recent: Vec<String>,
}

/// Runs a world until its steps are done and everything has come right after the last storm. `progress` is
/// told the step now and then.
///
/// # Errors
/// The first invariant that does not hold.
///
/// # Panics
/// For a number of nodes out of range.
pub fn run(config: &Config, mut progress: impl FnMut(u64)) -> Result<Report, Box<Broken>> {
    let most = if config.routing == Routing::Membership { MEMBERSHIP_NODES_MAX } else { NODES_MAX };
    assert!((NODES_MIN..=most).contains(&config.nodes), "the number of nodes is in range");
    let mut world = World::new(config.clone());
    while !world.is_over() {
        world.take_a_step();
        if let Some((invariant, problem)) = world.broken {
            let recent =
                world.recent.iter().map(|(step, at, name, a, b)| format!("{step} {at} {name} {a} {b}"));
            return Err(Box::new(Broken {
                seed: config.seed,
                step: world.step,
                at_ms: world.now,
                invariant,
                problem,
                recent: recent.collect(),
            }));
        }
        if world.step.is_multiple_of(4_096) {
            progress(world.step);
        }
    }
    Ok(Report {
        nodes: config.nodes,
        seed: config.seed,
        steps: world.step,
        virtual_seconds: world.now / 1_000,
        packets: world.truth.packets.len(),
        counts: Counts { lookups: world.lookups, ..world.counts },
        history: hex(world.history.finalize().as_bytes()),
    })
}
