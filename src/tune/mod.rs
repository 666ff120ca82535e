//! Choosing a view from packets alone: what an estimate is drawn toward, and what a situation is
//! compared by.
//!
//! Everything is judged by the loss on packets of authors, or folds of authors, that were left out
//! ([`sample::Sample::apart`]): log loss for a binary outcome, square error for others, each over that
//! of the plain mean. What is simpler stays unless the other is better by more than chance gives
//! ([`is_better`]): with few packets a tuned merge is worse than a ridge score, so the plain mean and
//! the ridge score are always among the candidates.
//!
//! 1. [`scores`]: the prior of each outcome: mean, linear score, boosted trees, mixtures.
//! 2. [`levels`]: how strongly authors have a level of their own.
//! 3. [`shapes`]: metric, kernel, and the strength of the prior beside it.

pub mod calibrate;
pub mod kernel;
pub mod levels;
pub mod linear;
pub mod metric;
pub mod sample;
pub mod scores;
pub mod shapes;
pub mod trees;
pub mod trust;

#[cfg(test)]
mod tests;

use crate::domain::prior::{FoldsBy, Link, Prior, Scores, logistic_table};
use crate::domain::view::{Bits, Options};
use crate::domain::{Schema, View};
use crate::engine::Engine;
use crate::merge::live;
use crate::packet::Verified;
use sample::Sample;
use scores::Candidate;
use std::sync::Arc;

/// A view and how it was found.
pub struct Tuned {
    pub view: View,
    /// Lines for people: what was tried and what it lost.
    pub report: Vec<String>,
}

/// Tunes a view on packets, starting from `base`, whose addressing, decay and level it keeps.
/// `after` is told of each of the [`STAGES`] when it is done.
pub fn tune(
    schema: &Schema,
    base: &View,
    packets: &[Verified],
    engine: &Engine,
    after: impl Fn(&str) + Send + Sync,
) -> Tuned {
    engine.install(|| run(schema, base, packets, &after))
}

/// Rounds of fitting and judging authors by the fit.
const TRUST_ROUNDS_MAX: usize = 4;

/// Stages of tuning: priors, trust, levels, metric and kernel, intervals.
pub const STAGES: u64 = 5;

/// Whether losses `a` are smaller than `b`, row by row, by more than `deviations` standard errors of
/// their difference.
pub fn is_better(a: &[f64], b: &[f64], deviations: f64) -> bool {
    let n = a.len().max(1) as f64;
    let differences = || a.iter().zip(b).map(|(a, b)| a - b);
    let mean = differences().sum::<f64>() / n;
    let variance = differences().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    mean < 0.0 && -mean > deviations * (variance / n).sqrt()
}

fn run(schema: &Schema, base: &View, packets: &[Verified], after: &(dyn Fn(&str) + Send + Sync)) -> Tuned {
    let ask_ms = packets.iter().map(|packet| packet.observed_at()).max().unwrap_or(0);
    let live = live(packets, ask_ms);
    let mut sample = Sample::new(schema, &live);
    let by = if sample.folds_by == FoldsBy::Author { "author" } else { "evidence" };
    let mut report = vec![format!("{} packets of {} authors; folds by {by}", sample.len(), sample.authors)];
    let bins = trees::Bins::new(&sample);
    // Whoever floods must not teach what the flood is judged by.
    let flooded = trust::level_out(&mut sample);
    let mut kinds = priors(schema, &sample, &bins, &mut report);
    after("priors");
    let mut trust = trust::choose(&sample, &kinds, &mut report);
    // What liars taught must go before others are judged by it: fits and judgement until they agree.
    let mut doubted = if flooded { usize::MAX } else { 0 };
    for _ in 0..TRUST_ROUNDS_MAX {
        let Some(found) = trust.as_ref().filter(|found| found.doubted != doubted) else { break };
        doubted = found.doubted;
        sample.trust(&found.trust);
        kinds = priors(schema, &sample, &bins, &mut report);
        trust = trust::choose(&sample, &kinds, &mut report);
    }
    after("trust");
    let offset = levels::choose(&sample, &kinds, &mut report);
    after("levels");
    let setting = shapes::Setting::new(&sample, &kinds);
    let chosen = shapes::choose(&sample, base, &setting, &mut report);
    after("metric and kernel");
    let calibration = calibrate::calibrate(&sample, &setting, &chosen, base.level);
    after("intervals");
    let outcomes: Vec<_> = sample
        .outcomes
        .iter()
        .zip(&kinds)
        .map(|(values, kinds)| scores::integers(&sample, values, &kinds[chosen.prior]))
        .collect();
    let binary = outcomes.iter().any(|outcome| outcome.link == Link::Logistic);
    let scores = Scores {
        cases: Bits(chosen.strength),
        folds: sample.folds_by,
        logistic: if binary { logistic_table() } else { vec![] },
        outcomes,
    };
    let options =
        Options { own_offset: offset.map(Bits), trust: trust.map(|found| found.options), calibration };
    let view = View {
        metric: chosen.metric,
        kernel: chosen.kernel,
        prior: Prior::Scores(Arc::new(scores)),
        finish: 2,
        options: Some(options),
        ..base.clone()
    };
    Tuned { view, report }
}

/// Per outcome: mean, linear, best, and the best drawn toward the mean.
fn priors(
    schema: &Schema,
    sample: &Sample,
    bins: &trees::Bins,
    report: &mut Vec<String>,
) -> Vec<[Candidate; 4]> {
    let one = |(index, values): (usize, &sample::Values)| {
        let name = &schema.outcomes[index].name;
        let candidates = scores::candidates(sample, index, bins, 1.0);
        for candidate in &candidates {
            report.push(format!("{name}: {} loses {:.5}", candidate.name, candidate.loss));
        }
        let best = scores::choose(sample, values, &candidates);
        report.push(format!("{name}: chosen {}", best.name));
        let soft = scores::mix(sample, values, &best, &candidates[0], 0.6);
        [candidates[0].clone(), candidates[1].clone(), best, soft]
    };
    sample.outcomes.iter().enumerate().map(one).collect()
}
