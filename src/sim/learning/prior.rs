//! The frozen mixture as what a swarm's estimates are drawn toward.
//!
//! A view's prior is a score in integers, so the mixture enters as one: a linear score with trees that is fitted
//! to what the mixture says of the situations in the packets (not to their outcomes). At each tuning the score that
//! was fitted to packets and that of the mixture are blended, by the share that predicts best the packets
//! which came after the mixture's training; a packet is predicted by the fit that did not see its fold.

use super::mixture::Mixture;
use crate::domain::prior::{
    FoldsBy, LOGIT_ONE, Link, OutcomeScore, Prior, Score, Scores, Tree, logistic_table,
};
use crate::domain::view::{Bits, Options};
use crate::domain::{OutcomeKind, Schema, View};
use crate::limits::SLOTS;
use crate::packet::Verified;
use crate::tune::linear;
use crate::tune::sample::{Sample, Values};
use crate::tune::scores::{Candidate, Fit, integers};
use crate::tune::trees::{Bins, Growth, boost};
use std::sync::Arc;

/// What the mixture's word is worth where nothing was tuned, in cases.
const CASES: f64 = 8.0;
/// Shares of the mixture that compete, and that where no packet can judge yet.
const SHARES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
const SHARE_UNJUDGED: f64 = 0.5;
const JUDGES_MIN: usize = 20;
/// How closely trees follow the mixture: there is no chance in what it says.
const GROWTH: Growth =
    Growth { depth: 3, rate: 0.15, rounds: 80, leaf_min: 2.0, penalty: 0.1, rows: 1.0, slots: 1.0 };

/// A view with the mixture in its prior, for one action and its packets; `signals` are the situations known.
pub fn with_mixture(
    schema: &Schema,
    mixture: &Mixture,
    (action, view): (usize, View),
    packets: &[Verified],
    signals: &[[i8; SLOTS]],
    trained_ms: u64,
) -> View {
    let of_mixture = scores_of(schema, mixture, action, signals);
    let outcomes: Vec<OutcomeScore> = match &view.prior {
        Prior::Mean { .. } => of_mixture,
        Prior::Scores(scores) => of_mixture
            .iter()
            .enumerate()
            .map(|(outcome, of_mixture)| {
                let tuned = &scores.outcomes[outcome];
                let loss = |share| blended_loss(scores, outcome, of_mixture, share, packets, trained_ms);
                let judges = packets.iter().filter(|packet| packet.observed_at() >= trained_ms).count();
                let share = match judges < JUDGES_MIN {
                    true => SHARE_UNJUDGED,
                    false => SHARES.into_iter().min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(0.0),
                };
                blend(tuned, of_mixture, share)
            })
            .collect(),
    };
    let logistic = outcomes.iter().any(|outcome| outcome.link == Link::Logistic);
    let (cases, folds) = match &view.prior {
        Prior::Mean { .. } => (Bits(CASES), FoldsBy::Evidence),
        Prior::Scores(scores) => (scores.cases, scores.folds),
    };
    let logistic = if logistic { logistic_table() } else { vec![] };
    let scores = Scores { cases, folds, logistic, outcomes };
    debug_assert!(scores.is_sound());
    let options = view.options.clone().unwrap_or_else(Options::default);
    View { prior: Prior::Scores(Arc::new(scores)), finish: 2, options: Some(options), ..view }
}

/// The mixture's word on one action as scores: linear, then trees on what that misses.
fn scores_of(
    schema: &Schema,
    mixture: &Mixture,
    action: usize,
    signals: &[[i8; SLOTS]],
) -> Vec<OutcomeScore> {
    let said: Vec<Vec<f64>> = signals.iter().map(|signal| mixture.predict(signal, action)).collect();
    let values = |outcome: usize| Values {
        binary: schema.outcomes[outcome].kind == OutcomeKind::Binary,
        mean: said.iter().map(|said| Some(said[outcome])).collect(),
        variance: vec![0.0; signals.len()],
    };
    let varies = |&slot: &usize| signals.iter().any(|signal| signal[slot] != signals[0][slot]);
    let sample = Sample {
        cases: vec![1; signals.len()],
        weights: vec![1.0; signals.len()],
        author: vec![0; signals.len()],
        authors: 1,
        folds_by: FoldsBy::Evidence,
        fold: vec![0; signals.len()],
        scope: vec![[0; 32]; signals.len()],
        outcomes: (0..schema.outcomes.len()).map(values).collect(),
        slots: (0..SLOTS).filter(varies).collect(),
        signals: signals.to_vec(),
    };
    let rows: Vec<usize> = (0..signals.len()).collect();
    let bins = Bins::new(&sample);
    let one = |values: &Values| {
        let line = linear::path(&sample, values, &rows).pop().unwrap_or_default();
        let mut margins: Vec<f64> = rows.iter().map(|&row| line.margin(&sample, row)).collect();
        let mut fit = Fit::from(line);
        boost(&sample, values, &bins, &rows, &mut margins, GROWTH, |tree, _| {
            fit.trees.push(tree.clone());
            true
        });
        let without = std::array::from_fn(|_| fit.clone());
        let candidate = Candidate { name: "mixture".into(), whole: fit, without, margins, loss: 0.0 };
        integers(&sample, values, &candidate)
    };
    sample.outcomes.iter().map(one).collect()
}

/// (1 - share) x tuned + share x mixture, on the margin.
fn blend(tuned: &OutcomeScore, mixture: &OutcomeScore, share: f64) -> OutcomeScore {
    OutcomeScore {
        link: tuned.link,
        whole: blend_scores(&tuned.whole, &mixture.whole, share),
        without: std::array::from_fn(|fold| {
            blend_scores(&tuned.without[fold], &mixture.without[fold], share)
        }),
    }
}

fn blend_scores(a: &Score, b: &Score, share: f64) -> Score {
    if share == 0.0 {
        return a.clone();
    }
    let shares = [(a, 1.0 - share), (b, share)];
    let base: f64 = shares.iter().map(|(score, share)| f64::from(score.base) * share).sum();
    // The smaller shift leaves room for the larger weights.
    let shift = shares.iter().filter(|(s, _)| !s.linear.is_empty()).map(|(s, _)| s.shift).min().unwrap_or(0);
    let mut sums = vec![0.0; SLOTS];
    for (score, share) in shares {
        let unit = share / f64::from(1u32 << (score.shift - shift.min(score.shift)));
        sums.iter_mut().zip(&score.linear).for_each(|(sum, &w)| *sum += f64::from(w) * unit);
    }
    let whole = |x: f64| x.round().clamp(-32_767.0, 32_767.0) as i16;
    let trees = shares.iter().flat_map(|&(score, share)| {
        score.trees.iter().filter(move |_| share > 0.0).map(move |tree| Tree {
            leaves: tree.leaves.iter().map(|&leaf| whole(f64::from(leaf) * share)).collect(),
            ..tree.clone()
        })
    });
    let linear = if sums.iter().all(|&w| w == 0.0) { vec![] } else { sums.into_iter().map(whole).collect() };
    Score { base: base.round() as i32, shift, linear, trees: trees.collect() }
}

/// Loss of a blend on packets that came after the mixture's training: log loss of a binary outcome, else
/// the square error.
fn blended_loss(
    scores: &Scores,
    outcome: usize,
    mixture: &OutcomeScore,
    share: f64,
    packets: &[Verified],
    trained_ms: u64,
) -> f64 {
    let tuned = &scores.outcomes[outcome];
    let unit = if tuned.link == Link::Logistic { f64::from(LOGIT_ONE) } else { 65_535.0 };
    let judges = packets.iter().filter(|p| p.observed_at() >= trained_ms && p.mask() >> outcome & 1 == 1);
    let one = |packet: &Verified| {
        let fold = scores.folds.fold(packet.author(), packet.reference());
        let of = |score: &Score| f64::from(score.of(packet.signal())) / unit;
        let margin = (1.0 - share) * of(&tuned.without[fold]) + share * of(&mixture.whole);
        let y = f64::from(packet.value(outcome).0) / 65_535.0;
        match tuned.link {
            Link::Logistic => margin.max(0.0) + libm::log1p(libm::exp(-margin.abs())) - y * margin,
            Link::Identity => (y - margin.clamp(0.0, 1.0)) * (y - margin.clamp(0.0, 1.0)),
        }
    };
    judges.map(one).sum()
}
