//! Fitting what an estimate is drawn toward, and turning it into the integers of a view.
//!
//! For each outcome several fits compete: the plain mean, a linear score, boosted trees, trees on
//! top of the linear score, and weighted means of a linear score and trees. Each is fitted four times
//! without a fold; their loss on the fold that was left out decides.

use super::linear::{self, Linear};
use super::sample::{Sample, Values};
use super::trees::{self, Bins, Grown, Growth};
use crate::domain::prior::{FOLDS, LOGIT_ONE, Link, OutcomeScore, Score, TREES_MAX, Tree};
use crate::limits::SLOTS;
use rayon::prelude::*;

/// A fit in real numbers: base + linear part + trees.
#[derive(Clone, Debug, Default)]
pub struct Fit {
    pub base: f64,
    /// One per varying slot, or none.
    pub linear: Vec<f64>,
    pub trees: Vec<Grown>,
}

/// A fit to everything, and those without each fold.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: String,
    pub whole: Fit,
    pub without: [Fit; FOLDS],
    /// Margin of each packet by the fit that did not see its fold.
    pub margins: Vec<f64>,
    /// Mean loss of a case by those margins.
    pub loss: f64,
}

impl Fit {
    fn weighted(&self, share: f64) -> Fit {
        let scale = |tree: &Grown| Grown {
            leaves: tree.leaves.iter().map(|leaf| leaf * share).collect(),
            ..tree.clone()
        };
        Fit {
            base: self.base * share,
            linear: self.linear.iter().map(|w| w * share).collect(),
            trees: self.trees.iter().map(scale).collect(),
        }
    }

    fn plus(mut self, other: Fit) -> Fit {
        self.base += other.base;
        if self.linear.is_empty() {
            self.linear = other.linear;
        } else {
            self.linear.iter_mut().zip(&other.linear).for_each(|(a, b)| *a += b);
        }
        self.trees.extend(other.trees);
        self
    }
}

impl From<Linear> for Fit {
    fn from(linear: Linear) -> Fit {
        Fit { base: linear.base, linear: linear.weights, trees: vec![] }
    }
}

/// Mean loss of a case over packets.
pub fn mean_loss(sample: &Sample, values: &Values, margins: &[f64]) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for row in (0..sample.len()).filter(|&row| values.mean[row].is_some()) {
        sum += sample.weights[row] * values.loss(row, margins[row]);
        total += sample.weights[row];
    }
    sum / f64::max(total, 1e-9)
}

/// Rows outside fold `left_out`; all for `FOLDS`.
fn rows(sample: &Sample, left_out: usize) -> Vec<usize> {
    (0..sample.len()).filter(|&row| sample.fold[row] != left_out).collect()
}

/// All candidates for one outcome, the simplest first.
pub fn candidates(sample: &Sample, outcome: usize, bins: &Bins, effort: f64) -> Vec<Candidate> {
    let values = &sample.outcomes[outcome];
    let plain = plain(sample, values);
    let linear = best_linear(sample, values);
    let mut all = vec![plain.clone(), linear.clone()];
    let from_mean = best_trees(sample, values, bins, &plain, "trees", effort);
    let on_linear = best_trees(sample, values, bins, &linear, "linear, then trees", effort);
    if let Some(trees) = &from_mean {
        for share in [0.25, 0.5, 0.75] {
            all.push(mix(sample, values, &linear, trees, share));
        }
    }
    if let (Some(trees), Some(on_linear)) = (&from_mean, &on_linear) {
        all.push(mix(sample, values, on_linear, trees, 0.5));
    }
    all.extend(from_mean);
    all.extend(on_linear);
    all
}

fn plain(sample: &Sample, values: &Values) -> Candidate {
    let fit = |left_out: usize| Fit {
        base: values.margin(values.plain_mean(rows(sample, left_out).into_iter(), &sample.weights)),
        ..Fit::default()
    };
    let without: [Fit; FOLDS] = std::array::from_fn(fit);
    let margins: Vec<f64> = sample.fold.iter().map(|&fold| without[fold].base).collect();
    let loss = mean_loss(sample, values, &margins);
    Candidate { name: "mean".into(), whole: fit(FOLDS), without, margins, loss }
}

fn best_linear(sample: &Sample, values: &Values) -> Candidate {
    let mut paths: Vec<Vec<Linear>> = (0..=FOLDS)
        .into_par_iter()
        .map(|left_out| linear::path(sample, values, &rows(sample, left_out)))
        .collect();
    let margins = |penalty: usize| -> Vec<f64> {
        (0..sample.len()).map(|row| paths[sample.fold[row]][penalty].margin(sample, row)).collect()
    };
    let tried: Vec<(f64, Vec<f64>)> = (0..linear::PENALTIES.len())
        .into_par_iter()
        .map(|penalty| {
            let margins = margins(penalty);
            (mean_loss(sample, values, &margins), margins)
        })
        .collect();
    let best = (0..tried.len()).min_by(|&a, &b| tried[a].0.total_cmp(&tried[b].0)).unwrap_or(0);
    let (loss, margins) = tried[best].clone();
    let mut take = |index: usize| Fit::from(std::mem::take(&mut paths[index][best]));
    let without = std::array::from_fn(&mut take);
    Candidate { name: "linear".into(), whole: take(FOLDS), without, margins, loss }
}

/// The ways of growing that compete; `effort` scales the rounds.
fn growths(sample: &Sample, effort: f64) -> Vec<Growth> {
    let cases: f64 = sample.weights.iter().sum();
    let rate = if cases < 3_000.0 { 0.04 } else { 0.06 };
    let rounds = (320.0 * effort) as usize;
    let rounds = rounds.clamp(20, TREES_MAX / 2);
    let growth =
        |depth, leaf_min, slots| Growth { depth, rate, rounds, leaf_min, penalty: 1.0, rows: 0.7, slots };
    if cases < 3_000.0 {
        vec![growth(1, 5.0, 0.5), growth(2, 5.0, 0.4), growth(3, 5.0, 0.4), growth(4, 8.0, 0.3)]
    } else {
        vec![growth(2, 10.0, 0.6), growth(4, 10.0, 0.6), growth(5, 20.0, 0.4)]
    }
}

/// Trees from the margins of another fit, with the growth and the number of rounds that lose least.
fn best_trees(
    sample: &Sample,
    values: &Values,
    bins: &Bins,
    from: &Candidate,
    name: &str,
    effort: f64,
) -> Option<Candidate> {
    let fit_of = |left_out: usize| if left_out == FOLDS { &from.whole } else { &from.without[left_out] };
    let start = |left_out: usize| -> Vec<f64> {
        let fit = fit_of(left_out);
        let linear = Linear { base: fit.base, weights: fit.linear.clone() };
        (0..sample.len()).map(|row| linear.margin(sample, row)).collect()
    };
    let growths = growths(sample, effort);
    let work: Vec<(usize, usize)> =
        (0..growths.len()).flat_map(|growth| (0..FOLDS).map(move |fold| (growth, fold))).collect();
    // Loss on the fold after each tree, and the trees.
    let grown: Vec<(Vec<f64>, Vec<Grown>)> = work
        .par_iter()
        .map(|&(growth, fold)| {
            let mut margins = start(fold);
            let held: Vec<usize> = (0..sample.len()).filter(|&row| sample.fold[row] == fold).collect();
            let (mut losses, mut trees) = (vec![], vec![]);
            let rows = rows(sample, fold);
            trees::boost(sample, values, bins, &rows, &mut margins, growths[growth], |tree, margins| {
                losses
                    .push(held.iter().map(|&row| sample.weights[row] * values.loss(row, margins[row])).sum());
                trees.push(tree.clone());
                let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
                // Far beyond the best round nothing better comes.
                losses.len() < 40 || losses[losses.len() - 1] < best * 1.03
            });
            (losses, trees)
        })
        .collect();
    let mut best: Option<(f64, usize, usize)> = None;
    for growth in 0..growths.len() {
        let folds = &grown[growth * FOLDS..][..FOLDS];
        let rounds = folds.iter().map(|(losses, _)| losses.len()).min().unwrap_or(0);
        for round in (0..rounds).step_by(5) {
            let loss: f64 = folds.iter().map(|(losses, _)| losses[round]).sum();
            if best.is_none_or(|(least, ..)| loss < least) {
                best = Some((loss, growth, round + 1));
            }
        }
    }
    let (_, growth, rounds) = best?;
    let mut margins = vec![0.0; sample.len()];
    let mut without = from.without.clone();
    for (fold, fit) in without.iter_mut().enumerate() {
        fit.trees.extend_from_slice(&grown[growth * FOLDS + fold].1[..rounds]);
    }
    margins.par_iter_mut().enumerate().for_each(|(row, margin)| {
        let fit = &without[sample.fold[row]];
        let linear = Linear { base: fit.base, weights: fit.linear.clone() };
        let trees: f64 = fit.trees.iter().map(|tree| tree.value(&sample.signals[row])).sum();
        *margin = linear.margin(sample, row) + trees;
    });
    let mut whole = from.whole.clone();
    let mut carried = start(FOLDS);
    let growth = Growth { rounds, ..growths[growth] };
    trees::boost(sample, values, bins, &rows(sample, FOLDS), &mut carried, growth, |tree, _| {
        whole.trees.push(tree.clone());
        true
    });
    let loss = mean_loss(sample, values, &margins);
    let name = format!("{name} (depth {}, {rounds} rounds)", growth.depth);
    Some(Candidate { name, whole, without, margins, loss })
}

/// share x `a` + (1 - share) x `b`, on the margin.
pub fn mix(sample: &Sample, values: &Values, a: &Candidate, b: &Candidate, share: f64) -> Candidate {
    let both = |a: &Fit, b: &Fit| a.weighted(share).plus(b.weighted(1.0 - share));
    let margins: Vec<f64> =
        a.margins.iter().zip(&b.margins).map(|(a, b)| share * a + (1.0 - share) * b).collect();
    let loss = mean_loss(sample, values, &margins);
    Candidate {
        name: format!("{share} x {} + {} x {}", a.name, 1.0 - share, b.name),
        whole: both(&a.whole, &b.whole),
        without: std::array::from_fn(|fold| both(&a.without[fold], &b.without[fold])),
        margins,
        loss,
    }
}

/// The candidate that loses least, unless a simpler one is as good as chance can tell.
pub fn choose(sample: &Sample, values: &Values, candidates: &[Candidate]) -> Candidate {
    let losses = |candidate: &Candidate| -> Vec<f64> {
        (0..sample.len()).map(|row| sample.weights[row] * values.loss(row, candidate.margins[row])).collect()
    };
    let mut best = &candidates[0];
    for candidate in &candidates[1..] {
        let deviations =
            if std::ptr::eq(best, &candidates[0]) || std::ptr::eq(best, &candidates[1]) { 0.7 } else { 0.0 };
        if super::is_better(&losses(candidate), &losses(best), deviations) {
            best = candidate;
        }
    }
    best.clone()
}

/// The integers of a candidate.
pub fn integers(sample: &Sample, values: &Values, candidate: &Candidate) -> OutcomeScore {
    OutcomeScore {
        link: if values.binary { Link::Logistic } else { Link::Identity },
        whole: score(sample, values.binary, &candidate.whole),
        without: std::array::from_fn(|fold| score(sample, values.binary, &candidate.without[fold])),
    }
}

fn score(sample: &Sample, binary: bool, fit: &Fit) -> Score {
    let unit = if binary { f64::from(LOGIT_ONE) } else { 65_535.0 };
    let largest = fit.linear.iter().fold(0.0f64, |most, w| most.max((w * unit).abs()));
    let (mut shift, mut linear) = (0u8, vec![]);
    if largest > 0.0 {
        // The largest weight takes the bits of an i16.
        while shift < crate::limits::SHIFT_MAX && largest * f64::from(1u32 << (shift + 1)) <= 32_767.0 {
            shift += 1;
        }
        linear = vec![0i16; SLOTS];
        for (&slot, w) in sample.slots.iter().zip(&fit.linear) {
            linear[slot] = (w * unit * f64::from(1u32 << shift)).round().clamp(-32_767.0, 32_767.0) as i16;
        }
    }
    let tree = |tree: &Grown| Tree {
        slots: tree.slots.clone(),
        thresholds: tree.thresholds.clone(),
        leaves: tree.leaves.iter().map(|x| (x * unit).round().clamp(-32_767.0, 32_767.0) as i16).collect(),
    };
    Score {
        base: (fit.base * unit).round().clamp(-2e8, 2e8) as i32,
        shift,
        linear,
        trees: fit.trees.iter().take(TREES_MAX).map(tree).collect(),
    }
}
