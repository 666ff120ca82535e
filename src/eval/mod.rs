//! Measuring quality: what a swarm of nodes predicts for rows that no node has seen.
//!
//! A split deals its training rows to nodes and distils them into signed packets: a [`Field`]. Nodes
//! then ask about the test rows. Compared are, all from the same packets of 512 bytes and none of them from
//! raw rows of others:
//!
//! | method | what it reads |
//! |---|---|
//! | `swarm` | every packet at the addresses asked, merged under the view |
//! | `local` | the same merge over the asking node's own packets |
//! | `ridge` | every packet, by ridge regression on the signal ([`peers`]) |
//! | `fedavg` | every node's packets in turn, by federated averaging ([`peers`]) |
//! | `pooled_mean` | every packet, whose mean outcome it is |
//!
//! Rival views compete as further methods, `swarm under NAME`. Every method predicts the same test rows,
//! so differences are paired by split ([`metrics::differences`]); their intervals are Student's over splits.
//! [`curve`], [`poison`], [`scramble`] and [`report`] ask further. Everything follows from the seed, and
//! nothing depends on the number of threads.

pub mod coverage;
pub mod curve;
pub mod field;
pub mod mailboxes;
pub mod metrics;
pub mod peers;
pub mod poison;
pub mod report;
pub mod scramble;
pub mod split;
pub mod statistics;

pub use field::{Field, Ground, Predicted, Row};
pub use mailboxes::Mailboxes;
pub use metrics::{Measure, Metrics, mean_and_error};
pub use poison::{Poison, PoisonKind};
pub use split::Nodes;

use crate::distill::Case;
use crate::domain::{Schema, View};
use crate::engine::Engine;
use crate::merge::Answer;
use crate::packet::Verdict;
use metrics::Scored;
use peers::Peer;
use serde::Serialize;
use std::sync::Arc;

/// What predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Swarm,
    Local,
    Peer(Peer),
}

impl Method {
    /// In the order in which they are reported.
    pub const ALL: [Method; 5] = [
        Method::Swarm,
        Method::Local,
        Method::Peer(Peer::Ridge),
        Method::Peer(Peer::FedAvg),
        Method::Peer(Peer::PooledMean),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Method::Swarm => "swarm",
            Method::Local => "local",
            Method::Peer(Peer::Ridge) => "ridge",
            Method::Peer(Peer::FedAvg) => "fedavg",
            Method::Peer(Peer::PooledMean) => "pooled_mean",
        }
    }

    pub fn named(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// Makes the view that a swarm goes by of a field's packets, starting from another view.
pub type Tuner<'a> = dyn Fn(&Field, &View) -> View + 'a;

/// What mailboxes are asked under: the domain, the engine, and one outcome if only that is wanted.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub schema: &'a Arc<Schema>,
    pub view: &'a View,
    pub engine: &'a Engine,
    /// Index of the only outcome that counts.
    pub outcome: Option<usize>,
}

/// Shares of the verdicts over some answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Verdicts {
    pub answer: f64,
    pub thin: f64,
    pub conflict: f64,
}

impl Verdicts {
    /// Zeros over no answers.
    pub fn of(answers: &[Answer]) -> Verdicts {
        let all = answers.len().max(1) as f64;
        let share = |verdict| answers.iter().filter(|answer| answer.verdict == verdict).count() as f64 / all;
        Verdicts {
            answer: share(Verdict::Answer),
            thin: share(Verdict::Thin),
            conflict: share(Verdict::Conflict),
        }
    }

    /// The mean over splits.
    pub fn mean(all: &[Verdicts]) -> Verdicts {
        let count = all.len().max(1) as f64;
        let over = |share: fn(&Verdicts) -> f64| all.iter().map(share).sum::<f64>() / count;
        Verdicts { answer: over(|v| v.answer), thin: over(|v| v.thin), conflict: over(|v| v.conflict) }
    }
}

/// What one method made of one split.
#[derive(Clone, Debug)]
pub struct Competitor {
    pub name: String,
    /// One per test row.
    pub rows: Vec<Row>,
    pub metrics: Metrics,
}

/// What one split gave.
#[derive(Clone, Debug)]
pub struct Split {
    pub seed: u64,
    pub nodes: usize,
    /// Packets deposited.
    pub packets: u64,
    /// Mean share of all packets that a question of the swarm read.
    pub read_share: f64,
    /// See [`Mailboxes::recall`].
    pub recall: Option<f64>,
    /// Of the swarm.
    pub verdicts: Verdicts,
    /// The swarm first, then its rivals.
    pub methods: Vec<Competitor>,
}

/// Runs methods on one field. The first of `views` is the one that the swarm goes by; the others compete
/// with it; a node alone asks under `alone`, since it has nobody else's packets to tune a view on. The swarm always runs,
/// and first: the others are compared with it.
///
/// # Panics
/// Without a view.
pub fn run(field: &Field, views: &[View], alone: &View, methods: &[Method]) -> Split {
    let view = &views[0];
    let swarm = field.swarm(view);
    let competitor = |name: String, rows: Vec<Row>, level: u8| Competitor {
        metrics: field.metrics(&rows, level, |_| true),
        name,
        rows,
    };
    let mut competitors = vec![competitor("swarm".into(), swarm.rows, view.level)];
    for rival in &views[1..] {
        let rows = field.swarm(rival).rows;
        competitors.push(competitor(format!("swarm under {}", rival.name), rows, rival.level));
    }
    for method in methods.iter().filter(|method| **method != Method::Swarm) {
        let rows = run_method(field, view, alone, *method);
        competitors.push(competitor(method.name().into(), rows, view.level));
    }
    Split {
        seed: field.seed,
        nodes: field.dealt.len(),
        packets: field.packets.iter().map(Vec::len).sum::<usize>() as u64,
        read_share: swarm.read_share,
        recall: swarm.recall,
        verdicts: swarm.verdicts,
        methods: competitors,
    }
}

/// One method's predictions for a field's test rows; views as in [`run`].
pub fn run_method(field: &Field, view: &View, alone: &View, method: Method) -> Vec<Row> {
    match method {
        Method::Swarm => field.ask(&field.mailboxes(view), view).rows,
        Method::Local => field.local(alone),
        Method::Peer(peer) => field.peer(peer),
    }
}

/// Levels, in per cent, that [`levels`] is usually asked for.
pub const LEVELS: [u8; 6] = [50, 60, 70, 80, 90, 95];

/// What the swarm's intervals cover when other levels are asked for: per level the coverage of single
/// outcomes, or of rates where no outcome is but binary; see [`coverage`].
pub fn levels(field: &Field, view: &View, levels: &[u8]) -> Vec<(u8, f64)> {
    // The level moves no packet, so the mailboxes are the same.
    let mailboxes = field.mailboxes(view);
    let covered = |&level: &u8| {
        let view = View { level, ..view.clone() };
        let metrics = field.metrics(&field.ask(&mailboxes, &view).rows, level, |_| true);
        Some((level, metrics.coverage.or(metrics.rate_coverage)?))
    };
    levels.iter().filter_map(covered).collect()
}

/// Estimates beside truths; with `only`, of that outcome alone. Who knows nothing says the middle of
/// the range.
pub fn score(schema: &Schema, only: Option<usize>, case: &Case, answer: Option<&Answer>) -> Scored {
    let of = |index: usize| {
        let outcome = &schema.outcomes[index];
        let wanted = only.is_none_or(|only| only == index);
        let truth = case.truth.get(index).copied().flatten();
        let found = answer.and_then(|answer| answer.outcomes[index]);
        let estimate = found.map_or((outcome.low + outcome.high) / 2.0, |found| found.estimate);
        (wanted.then_some(estimate), truth.filter(|_| wanted))
    };
    (0..schema.outcomes.len()).map(of).collect()
}

#[cfg(test)]
mod tests;
