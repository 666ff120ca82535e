//! Nodes that act and learn in worlds whose truth is known, beside what else they might have done.
//!
//! Time runs in weeks; a month is four. In every week each node meets a few situations of its own kind, chooses
//! an action, sees what comes of it, and deposits a signed packet; from these packets alone views are tuned at the end of
//! some months. The truth changes once ([`Plan::drift_month`]), and some nodes join late ([`Plan::join_month`]).
//! All contestants ([`Contestant`]) meet the same situations with the same luck, so that they are compared in pairs.
//!
//! *Regret* of a case is the benefit of the best action minus that of the chosen one, both from the truth: not what
//! happened but what was to be expected.
//!
//! - [`world`], [`links`], [`machines`]: what is true
//! - [`circle`]: nodes that share mailboxes, or one alone: packets, addresses, answers, tuning
//! - [`mixture`]: the mixture of experts that is trained once; [`prior`]: how the swarm is drawn toward it
//! - [`play`](mod@play): one contestant from the first week to the last; [`growth`]: what grows with the number of nodes
//! - [`summary`]: means and standard errors over seeds, differences in pairs

pub mod circle;
pub mod growth;
mod links;
mod machines;
pub mod mixture;
pub mod play;
pub mod prior;
pub mod summary;
pub mod world;

pub use circle::TUNED_PACKETS_MIN;
pub use growth::{Exponents, Size};
pub use play::{Contestant, Plan, Track};
pub use summary::{Difference, Month, Summary};
pub use world::{Rules, World};

use crate::engine::Engine;
use crate::packet::PacketError;
use crate::store::StoreError;
use circle::Ground;
use mixture::Mixture;
use rayon::prelude::*;
use std::sync::Arc;

/// Weeks of a month.
pub const WEEKS_PER_MONTH: usize = 4;

/// Why a simulation could not go on: only a schema built wrongly can cause it.
#[derive(Debug, thiserror::Error)]
pub enum LearningError {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct Config {
    pub plan: Plan,
    /// Seeds in a row, from `seed` on.
    pub seeds: u64,
    pub seed: u64,
    /// Evidence halves in so many days; 0 is never.
    pub half_life_days: u64,
    /// Numbers of nodes whose growth is measured; none where empty.
    pub sizes: Vec<usize>,
    /// Seeds that growth is measured over.
    pub growth_seeds: u64,
}

/// Plays all contestants under every seed; `done` is told after each seed.
///
/// # Errors
/// [`LearningError`].
pub fn run(
    config: &Config,
    engine: &Engine,
    done: impl Fn() + Sync,
) -> Result<Vec<Vec<Track>>, LearningError> {
    let world = config.plan.rules.world;
    let schema = Arc::new(world.schema());
    let base = world.view(&schema, config.half_life_days);
    let ground = Ground { schema: &schema, base: &base, engine };
    let seeds: Vec<u64> = (0..config.seeds).map(|index| config.seed + index).collect();
    let one = |&seed: &u64| {
        let tracks = under_seed(ground, &config.plan, seed);
        done();
        tracks
    };
    engine.install(|| seeds.par_iter().map(one).collect())
}

fn under_seed(ground: Ground, plan: &Plan, seed: u64) -> Result<Vec<Track>, LearningError> {
    let (swarm, cases) = play::play(ground, plan, seed, Contestant::Swarm, None)?;
    let mixture = Mixture::train(ground.schema, &cases, seed);
    let others: Result<Vec<Track>, LearningError> = Contestant::ALL[1..]
        .par_iter()
        .map(|&contestant| Ok(play::play(ground, plan, seed, contestant, Some((&mixture, &cases)))?.0))
        .collect();
    Ok(std::iter::once(swarm).chain(others?).collect())
}

/// Measures what grows with the number of nodes.
///
/// # Errors
/// [`LearningError`].
pub fn grow(config: &Config, engine: &Engine) -> Result<Vec<Size>, LearningError> {
    let rules = config.plan.rules;
    let schema = Arc::new(rules.world.schema());
    let base = rules.world.view(&schema, config.half_life_days);
    let ground = Ground { schema: &schema, base: &base, engine };
    let jobs: Vec<(usize, u64)> = config
        .sizes
        .iter()
        .rev()
        .flat_map(|&size| (0..config.growth_seeds).map(move |index| (size, config.seed + index)))
        .collect();
    let one = |&(size, seed): &(usize, u64)| growth::measure(ground, rules, size, config.plan.cases, seed);
    let all: Result<Vec<Size>, LearningError> = engine.install(|| jobs.par_iter().map(one).collect());
    let all = all?;
    let of = |&nodes: &usize| {
        let own: Vec<Size> = all.iter().filter(|size| size.nodes == nodes).cloned().collect();
        (!own.is_empty()).then(|| growth::mean(&own))
    };
    Ok(config.sizes.iter().filter_map(of).collect())
}
