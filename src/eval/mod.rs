//! Measuring quality: what a swarm of nodes predicts for rows that no node has seen.
//!
//! A split deals its training rows to nodes, distils them into signed packets, deposits these at
//! their addresses, and lets nodes ask about the test rows. Compared are `swarm` (every packet at the
//! addresses asked), `local` (the same merge over the asking node's own packets) and `pooled_mean`
//! (the mean outcome of all training rows). Everything follows from the seed.

pub mod mailboxes;
pub mod metrics;
pub mod split;

pub use mailboxes::Mailboxes;
pub use metrics::{Metrics, mean_and_error};
pub use split::Nodes;

use crate::distill::{Case, Distiller, Gatherer};
use crate::domain::{Schema, View};
use crate::engine::Engine;
use crate::merge::Answer;
use crate::packet::{AuthorKey, Id, PacketError, Verified};
use metrics::{Scored, metrics};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The methods compared, in the order in which they are reported.
pub const METHODS: [&str; 3] = ["swarm", "local", "pooled_mean"];

/// What is measured under: the domain, the engine, and one outcome if only that is wanted.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub schema: &'a Arc<Schema>,
    pub view: &'a View,
    pub engine: &'a Engine,
    /// Index of the only outcome that counts.
    pub outcome: Option<usize>,
    /// Makes a view of the packets of the training rows, starting from `view`.
    pub tuner: Option<&'a Tuner<'a>>,
}

/// See [`Setting::tuner`].
pub type Tuner<'a> = dyn Fn(&Schema, &View, &[Verified]) -> View + 'a;

/// One prediction for one test row by one method.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Row of the table, from 1.
    pub row: u64,
    pub method: &'static str,
    pub node: usize,
    /// Per outcome (estimate, lower, upper) in its unit; `None` without any evidence.
    pub outcomes: Vec<Option<(f64, f64, f64)>>,
}

/// What one split gave.
#[derive(Clone, Debug)]
pub struct Split {
    pub seed: u64,
    pub metrics: BTreeMap<&'static str, Metrics>,
    pub predictions: Vec<Prediction>,
    pub nodes: usize,
    /// Packets deposited.
    pub packets: u64,
    /// Mean share of all packets that a question of the swarm read.
    pub read_share: f64,
}

/// Runs one split: `train` and `test` are indices into `cases`.
///
/// # Errors
/// A packet that breaks a rule of the format, which only a schema built in code can cause.
pub fn run(
    setting: Setting,
    cases: &[Case],
    (train, test): (&[usize], &[usize]),
    nodes: Nodes,
    seed: u64,
) -> Result<Split, PacketError> {
    let with_outcome: Vec<usize> = train.iter().copied().filter(|&row| cases[row].has_outcome()).collect();
    let dealt = split::deal(cases, &with_outcome, nodes, seed);
    let askers = split::askers(cases, test, &dealt, nodes == Nodes::Sites, seed);
    let mut own: Vec<Mailboxes> = Vec::with_capacity(dealt.len());
    let mut swarm = Mailboxes::default();
    let distilled = dealt.iter().enumerate().map(|(node, rows)| distil(setting, cases, rows, seed, node));
    let distilled: Vec<Vec<Verified>> = distilled.collect::<Result<_, _>>()?;
    let tuned = setting.tuner.map(|tuner| tuner(setting.schema, setting.view, &distilled.concat()));
    // A node alone has nobody else's packets to tune on.
    let alone = setting;
    let setting = Setting { view: tuned.as_ref().unwrap_or(setting.view), ..setting };
    for packets in &distilled {
        swarm.add(&Mailboxes::of(setting, packets));
        own.push(Mailboxes::of(alone, packets));
    }
    let ask_ms = cases.iter().map(|case| case.observed_at).max().unwrap_or(0);
    // Whose site has a node is asked by it; other rows belong to nobody, so their answers are public.
    let at_home = split::at_home(cases, test, &dealt, nodes == Nodes::Sites);
    let keys: Vec<Option<Id>> = askers
        .iter()
        .zip(at_home)
        .map(|(&node, home)| home.then(|| *author(seed, node).public()))
        .collect();
    let together = swarm.ask(setting, cases, (test, &keys), ask_ms);
    let mut by_itself: Vec<Option<Answer>> = vec![None; test.len()];
    for (node, mailboxes) in own.iter().enumerate() {
        let queries: Vec<usize> = (0..test.len()).filter(|&query| askers[query] == node).collect();
        let rows: Vec<usize> = queries.iter().map(|&query| test[query]).collect();
        let keys = vec![Some(*author(seed, node).public()); rows.len()];
        for (query, answer) in queries.into_iter().zip(mailboxes.ask(alone, cases, (&rows, &keys), ask_ms).answers) {
            by_itself[query] = Some(answer);
        }
    }
    let means = pooled_means(setting.schema, cases, &dealt.concat());

    let mut split = Split {
        seed,
        metrics: BTreeMap::new(),
        predictions: Vec::with_capacity(test.len() * METHODS.len()),
        nodes: dealt.len(),
        packets: swarm.packets(),
        read_share: together.read as f64 / (swarm.packets() * test.len() as u64).max(1) as f64,
    };
    for method in METHODS {
        let mut scored: Vec<Scored> = Vec::with_capacity(test.len());
        for (query, &row) in test.iter().enumerate() {
            let outcomes: Vec<Option<(f64, f64, f64)>> = match method {
                "swarm" => intervals(setting.schema, Some(&together.answers[query])),
                "local" => intervals(setting.schema, by_itself[query].as_ref()),
                _ => means.clone(),
            };
            scored.push(score_intervals(setting.schema, setting.outcome, &cases[row], &outcomes));
            split.predictions.push(Prediction { row: cases[row].row, method, node: askers[query], outcomes });
        }
        split.metrics.insert(method, metrics(setting.schema, &scored));
    }
    Ok(split)
}

/// The key of a node.
fn author(seed: u64, node: usize) -> AuthorKey {
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 eval author");
    hasher.update(&seed.to_le_bytes()).update(&(node as u64).to_le_bytes());
    AuthorKey::from_seed(hasher.finalize().into())
}

/// Distils a node's rows into packets.
fn distil(
    setting: Setting,
    cases: &[Case],
    rows: &[usize],
    seed: u64,
    node: usize,
) -> Result<Vec<Verified>, PacketError> {
    let mut distiller = Distiller::new(author(seed, node), setting.schema.clone(), 0);
    let groups = Gatherer::groups(setting.schema.cases_min, rows.iter().map(|&row| cases[row].clone()));
    groups.iter().map(|group| distiller.observe(&group.iter().collect::<Vec<_>>())).collect()
}

fn intervals(schema: &Schema, answer: Option<&Answer>) -> Vec<Option<(f64, f64, f64)>> {
    match answer {
        None => vec![None; schema.outcomes.len()],
        Some(answer) => {
            answer.outcomes.iter().map(|estimate| estimate.map(|e| (e.estimate, e.lower, e.upper))).collect()
        }
    }
}

/// The mean of every outcome over the training rows.
fn pooled_means(schema: &Schema, cases: &[Case], train: &[usize]) -> Vec<Option<(f64, f64, f64)>> {
    (0..schema.outcomes.len())
        .map(|outcome| {
            let known = train.iter().filter_map(|&row| cases[row].truth[outcome]);
            let (sum, count) = known.fold((0.0, 0u32), |(sum, count), x| (sum + x, count + 1));
            let mean = sum / f64::from(count);
            (count > 0).then_some((mean, mean, mean))
        })
        .collect()
}

/// Estimates beside truths; with `only`, of that outcome alone. Who knows nothing says the middle of
/// the range.
pub fn score(schema: &Schema, only: Option<usize>, case: &Case, answer: Option<&Answer>) -> Scored {
    score_intervals(schema, only, case, &intervals(schema, answer))
}

fn score_intervals(
    schema: &Schema,
    only: Option<usize>,
    case: &Case,
    outcomes: &[Option<(f64, f64, f64)>],
) -> Scored {
    let of = |index: usize| {
        let outcome = &schema.outcomes[index];
        let truth = case.truth.get(index).copied().flatten();
        let wanted = only.is_none_or(|only| only == index);
        let estimate = outcomes[index].map_or((outcome.low + outcome.high) / 2.0, |(estimate, ..)| estimate);
        (wanted.then_some(estimate), truth.filter(|_| wanted))
    };
    (0..schema.outcomes.len()).map(of).collect()
}
