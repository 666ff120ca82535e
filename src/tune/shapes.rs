//! Which metric, kernel and strength of the prior, beside which prior, predict best.

use super::kernel::{Priors, QUERIES_MAX, REFERENCES_MAX, STRENGTHS, Shape, Told, tell};
use super::levels::{Residuals, level};
use super::metric::{self, Learned};
use super::sample::Sample;
use super::scores::Candidate;
use crate::domain::prior::FOLDS;
use crate::domain::{Kernel, Metric, View};
use ndarray::Array2;
use rand::prelude::*;
use rand_chacha::ChaCha12Rng;

/// Below so many packets a metric is learned without each fold in turn; above it without one fold.
const CROSS_FITTED: usize = 3_000;
/// A kernel must be better than none by so many standard errors.
const DEVIATIONS: f64 = 2.0;
/// A learned metric is not tried with fewer packets.
const LEARNED_PACKETS_MIN: usize = 100;

/// What was found.
#[derive(Clone)]
pub struct Chosen {
    pub metric: Metric,
    pub kernel: Kernel,
    /// Index into the kinds of prior.
    pub prior: usize,
    /// What it is worth, in cases.
    pub strength: f64,
}

/// A trial: metric, prior, kernel, strength; with the losses of its questions, over that of the mean.
struct Trial {
    shape: Shape,
    /// How the metric was learned: kind, stage; to learn it again from everything.
    learned: Option<(usize, usize)>,
    kernel: Kernel,
    /// The kernel's bandwidth as a multiple of the metric's own.
    factor: f64,
    prior: usize,
    strength: f64,
    losses: Vec<f64>,
}

/// What the questions to a kernel are made of, under all priors.
pub struct Setting<'a> {
    sample: &'a Sample,
    kinds: &'a [[Candidate; 4]],
    pub priors: Vec<Priors>,
    /// Per prior and outcome: margins of what anybody is told, whose level is not known, and the mean variance.
    pub margins: Vec<Vec<(Vec<f64>, f64)>>,
}

impl<'a> Setting<'a> {
    pub fn new(sample: &'a Sample, kinds: &'a [[Candidate; 4]]) -> Setting<'a> {
        let mut priors = vec![];
        let mut margins = vec![];
        for kind in 0..4 {
            let mut prior = Priors { residual: vec![], variance: vec![], second: vec![] };
            let mut of_outcomes = vec![];
            for (outcome, kinds) in kinds.iter().enumerate() {
                let fit = &kinds[kind];
                let residuals = Residuals::of(sample, outcome, &fit.margins);
                of_outcomes.push((fit.margins.clone(), residuals.mean_variance));
                let squares = residuals.residual.iter().zip(&sample.outcomes[outcome].variance);
                prior.second.push(squares.map(|(r, s)| r * r + s).collect());
                prior.residual.push(residuals.residual);
                prior.variance.push(residuals.variance);
            }
            priors.push(prior);
            margins.push(of_outcomes);
        }
        Setting { sample, kinds, priors, margins }
    }

    /// Losses of questions under one prior and strength, each summed over outcomes.
    fn losses(&self, queries: &[usize], told: &[Told], prior: usize, strength: f64) -> Vec<f64> {
        let outcomes = self.sample.outcomes.len();
        let one = |(&query, told): (&usize, &Told)| {
            let n = told.cases();
            let mut loss = 0.0;
            for (outcome, values) in self.sample.outcomes.iter().enumerate() {
                let (margins, mean_variance) = &self.margins[prior][outcome];
                let [r, v, _] = told.sums.get(prior * outcomes + outcome).copied().unwrap_or_default();
                let local = match told.weight > 0.0 {
                    true => level(
                        n * r / told.weight,
                        n * v / told.weight,
                        strength * mean_variance,
                        values.binary,
                    ),
                    false => 0.0,
                };
                let mean = self.kinds[outcome][0].loss.max(1e-12);
                loss += self.sample.weights[query] * values.loss(query, margins[query] + local) / mean;
            }
            loss
        };
        queries.iter().zip(told).map(one).collect()
    }

    /// Residuals under a prior, of a mean square of one, as a metric is learned on.
    fn to_learn(&self, prior: usize) -> metric::Residuals {
        let outcomes = self.sample.outcomes.len();
        let residual = &self.priors[prior].residual;
        let scale: Vec<f64> = residual
            .iter()
            .map(|r| (r.iter().map(|x| x * x).sum::<f64>() / r.len().max(1) as f64).sqrt().max(1e-9))
            .collect();
        let values = Array2::from_shape_fn((self.sample.len(), outcomes), |(row, outcome)| {
            (residual[outcome][row] / scale[outcome]) as f32
        });
        metric::Residuals { values }
    }
}

/// Chooses; without enough packets, the base view's metric and kernel with a prior that decides alone.
pub fn choose(sample: &Sample, base: &View, setting: &Setting, report: &mut Vec<String>) -> Chosen {
    let mut generator = ChaCha12Rng::seed_from_u64(5);
    let mut order: Vec<usize> = (0..sample.len()).collect();
    order.shuffle(&mut generator);
    let references: Vec<usize> = order.iter().copied().take(REFERENCES_MAX).collect();
    let few = sample.len() < CROSS_FITTED;
    // With few packets each fold is asked about in its turn; else one fold, with which no metric was learned.
    let folds: Vec<usize> = if few { (0..FOLDS).collect() } else { vec![0] };
    let queries: Vec<Vec<usize>> = folds
        .iter()
        .map(|&fold| {
            order.iter().copied().filter(|&row| sample.fold[row] == fold).take(QUERIES_MAX).collect()
        })
        .collect();
    let all: Vec<usize> = queries.concat();
    let apart = |a: usize, b: usize| sample.apart(a, b);

    // Without a kernel.
    let nothing = vec![Told::default(); all.len()];
    let alone = setting.losses(&all, &nothing, 2, 1e6);
    let mut trials: Vec<Trial> = vec![];
    let identity = Shape {
        name: "identity metric".into(),
        metric: Metric::Identity,
        bandwidth: base_bandwidth(&base.kernel),
    };
    let mut try_shapes = |name: &str,
                          learned: Option<(usize, usize)>,
                          shapes: &[Shape],
                          report: &mut Vec<String>| {
        let told: Vec<_> = shapes
            .iter()
            .zip(&queries)
            .map(|(shape, queries)| tell(sample, shape, None, queries, &references, &setting.priors, apart))
            .collect();
        let mut best: Option<Trial> = None;
        for bandwidth in 0..told[0].len() {
            for prior in 0..4 {
                for strength in &STRENGTHS[..STRENGTHS.len() - 1] {
                    let losses: Vec<f64> = told
                        .iter()
                        .zip(&queries)
                        .flat_map(|(told, queries)| {
                            setting.losses(queries, &told[bandwidth].2, prior, *strength)
                        })
                        .collect();
                    if best.as_ref().is_none_or(|best| losses.iter().sum::<f64>() < best.losses.iter().sum())
                    {
                        best = Some(Trial {
                            shape: shapes[0].clone(),
                            factor: told[0][bandwidth].1,
                            learned,
                            kernel: told[0][bandwidth].0.clone(),
                            prior,
                            strength: *strength,
                            losses,
                        });
                    }
                }
            }
        }
        if let Some(best) = best {
            report.push(format!(
                "{name}: {:+.5} of the loss of the mean against no kernel, bandwidth {:.0}, prior {} worth {} cases",
                (best.losses.iter().sum::<f64>() - alone.iter().sum::<f64>()) / all.len().max(1) as f64,
                best.shape.bandwidth * best.factor,
                ["mean", "linear", "best", "softened"][best.prior],
                best.strength
            ));
            trials.push(best);
        }
    };
    if !all.is_empty() {
        let shapes = vec![identity.clone(); folds.len()];
        try_shapes("identity metric", None, &shapes, report);
    }
    let start = start(sample, identity.bandwidth);
    if sample.len() >= LEARNED_PACKETS_MIN && !sample.slots.is_empty() {
        // Learned on residuals of the mean and of the best prior, with a diagonal and a full matrix.
        for (kind, (prior, diagonal)) in KINDS.iter().enumerate() {
            let residuals = setting.to_learn(*prior);
            let learned: Vec<Vec<Learned>> = folds
                .iter()
                .map(|&fold| metric::learn(sample, &residuals, &start, *diagonal, Some(fold), apart))
                .collect();
            let stages = learned.iter().map(Vec::len).min().unwrap_or(0);
            for stage in 0..stages {
                let shapes: Vec<Shape> =
                    learned.iter().map(|stages| Shape::of(sample, &stages[stage])).collect();
                let name = format!(
                    "{} metric on residuals of the {} prior, stage {}",
                    if *diagonal { "diagonal" } else { "full" },
                    ["mean", "linear", "best", "softened"][*prior],
                    stage + 1
                );
                try_shapes(&name, Some((kind, stage)), &shapes, report);
            }
        }
    }
    let best =
        trials.into_iter().min_by(|a, b| a.losses.iter().sum::<f64>().total_cmp(&b.losses.iter().sum()));
    match best {
        Some(best) if super::is_better(&best.losses, &alone, DEVIATIONS) => {
            report.push(format!(
                "kernel: chosen {}, prior {}, strength {}",
                best.shape.name, best.prior, best.strength
            ));
            let (metric, kernel) = match best.learned {
                Some((kind, stage)) if few => {
                    // Now from everything.
                    let (prior, diagonal) = KINDS[kind];
                    let residuals = setting.to_learn(prior);
                    let stages = metric::learn(sample, &residuals, &start, diagonal, None, apart);
                    match stages.get(stage) {
                        Some(learned) => {
                            let shape = Shape::of(sample, learned);
                            let bandwidth = (shape.bandwidth * best.factor).clamp(1.0, 2_000.0);
                            (shape.metric, Kernel::gaussian(bandwidth))
                        }
                        None => (best.shape.metric, best.kernel),
                    }
                }
                _ => (best.shape.metric, best.kernel),
            };
            Chosen { metric, kernel, prior: best.prior, strength: best.strength }
        }
        _ => {
            report.push("kernel: none is better than the prior alone".into());
            Chosen { metric: base.metric.clone(), kernel: base.kernel.clone(), prior: 2, strength: 1e6 }
        }
    }
}

/// Kinds of learning: the prior whose residuals are learned on, and whether the matrix is diagonal.
const KINDS: [(usize, bool); 3] = [(0, true), (0, false), (2, true)];

/// The standard deviation of a Gaussian kernel, from where it falls to a half.
fn base_bandwidth(kernel: &Kernel) -> f64 {
    let first = f64::from(kernel.table[0]).max(1.0);
    let half = kernel.table.iter().position(|&w| f64::from(w) < first / 2.0).unwrap_or(kernel.table.len());
    let distance = (half as f64) * f64::from(1u32 << kernel.shift);
    (distance / (2.0 * core::f64::consts::LN_2)).sqrt().max(1.0)
}

/// Where learning starts: the identity at the base view's bandwidth.
fn start(sample: &Sample, bandwidth: f64) -> Vec<f32> {
    vec![(1.0 / (bandwidth * core::f64::consts::SQRT_2)) as f32; sample.slots.len()]
}
