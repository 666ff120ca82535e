//! Which metric, kernel and strength of the prior predict packets best from those of others.

use super::metric::Learned;
use super::sample::Sample;
use crate::domain::{Kernel, Metric};
use crate::embed;
use crate::limits::SLOTS;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

/// Bandwidths tried, as multiples of a metric's own.
const BANDWIDTHS: [f64; 5] = [0.5, 0.71, 1.0, 1.41, 2.0];
/// Strengths of the prior tried, in cases; the last leaves the kernel without effect.
pub const STRENGTHS: [f64; 9] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 1e6];
/// Packets predicted, and those that they are predicted from, at most.
pub const QUERIES_MAX: usize = 2_048;
pub const REFERENCES_MAX: usize = 8_192;

/// Residuals of packets by outcome under one prior, and the variances of its predictions (ones where the
/// outcome is not binary); 0 where the outcome is unknown.
pub struct Priors {
    pub residual: Vec<Vec<f64>>,
    pub variance: Vec<Vec<f64>>,
    /// Squares of residuals, with the variance of the packet's cases.
    pub second: Vec<Vec<f64>>,
}

/// A metric with a kernel of its own scale.
#[derive(Clone, Debug)]
pub struct Shape {
    pub name: String,
    pub metric: Metric,
    pub bandwidth: f64,
}

impl Shape {
    /// A learned metric in integers: the largest embedding takes the bits of an i8.
    pub fn of(sample: &Sample, learned: &Learned) -> Shape {
        let matrix = &learned.matrix;
        let mut largest = 0.0f64;
        for signal in &sample.signals {
            for row in matrix.outer_iter() {
                let sum: f32 =
                    row.iter().zip(&sample.slots).map(|(w, &slot)| w * f32::from(signal[slot])).sum();
                largest = largest.max(f64::from(sum.abs()));
            }
        }
        let wanted = if largest > 0.0 { 120.0 / largest } else { 1.0 };
        let most = matrix.iter().fold(0.0f64, |most, x| most.max(f64::from(x.abs()))) * wanted;
        let mut shift = 0u8;
        while shift < 16 && most * f64::from(1u32 << (shift + 1)) <= 127.0 {
            shift += 1;
        }
        // Where even shift 0 would not hold the weights, they decide the scale.
        let scale = wanted.min(wanted * 127.0 / most.max(1e-12)) * f64::from(1u32 << shift);
        let integer = |x: f32| (f64::from(x) * scale).round().clamp(-127.0, 127.0) as i8;
        let unit = scale / f64::from(1u32 << shift);
        let metric = if learned.diagonal {
            let mut weights = vec![0; SLOTS];
            for (column, &slot) in sample.slots.iter().enumerate() {
                weights[slot] = integer(matrix[[column, column]]);
            }
            Metric::Diagonal { shift, weights }
        } else {
            let mut full = vec![0; SLOTS * SLOTS];
            for (i, row) in matrix.outer_iter().enumerate() {
                for (&x, &slot) in row.iter().zip(&sample.slots) {
                    full[i * SLOTS + slot] = integer(x);
                }
            }
            Metric::Full { shift, matrix: full }
        };
        // exp(-|A x|^2) = exp(-D / (2 h^2)) with D in units of the scale squared.
        let name = if learned.diagonal { "diagonal metric" } else { "full metric" };
        Shape { name: name.into(), metric, bandwidth: unit / core::f64::consts::SQRT_2 }
    }
}

/// What a kernel tells of one question: sums of weights, and per prior and outcome of residuals and
/// variances and of squares of residuals by weight.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub weight: f64,
    pub squared: f64,
    pub sums: Vec<[f64; 3]>,
}

impl Told {
    /// Effective cases (Kish).
    pub fn cases(&self) -> f64 {
        if self.squared > 0.0 { self.weight * self.weight / self.squared } else { 0.0 }
    }
}

/// For each bandwidth, the kernel, its multiple of the metric's own, and what each question is told by the references that are apart from it.
pub fn tell(
    sample: &Sample,
    shape: &Shape,
    kernel: Option<&Kernel>,
    queries: &[usize],
    references: &[usize],
    priors: &[Priors],
    apart: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<(Kernel, f64, Vec<Told>)> {
    let embedded = |rows: &[usize]| {
        let signals: Vec<[i8; SLOTS]> = rows.iter().map(|&row| sample.signals[row]).collect();
        let mut out = Array2::zeros((rows.len(), SLOTS));
        let view = ArrayView2::from_shape((rows.len(), SLOTS), signals.as_flattened());
        let view = view.expect("whole rows of 128 slots");
        crate::engine::Instructions::best().embed(&shape.metric, view, out.view_mut());
        out
    };
    let (e_q, e_p) = (embedded(queries), embedded(references));
    let of = |factor: &f64| (Kernel::gaussian((shape.bandwidth * factor).clamp(1.0, 2_000.0)), *factor);
    let kernels: Vec<(Kernel, f64)> = match kernel {
        Some(kernel) => vec![(kernel.clone(), 1.0)],
        None => BANDWIDTHS.iter().map(of).collect(),
    };
    let outcomes = sample.outcomes.len();
    let (views_q, views_p) = (e_q.view(), e_p.view());
    let (rows_q, rows_p) = (embed::rows(&views_q), embed::rows(&views_p));
    let told: Vec<Vec<Told>> = queries
        .par_iter()
        .zip(rows_q)
        .map(|(&query, embedding)| {
            let empty = Told { sums: vec![[0.0; 3]; priors.len() * outcomes], ..Told::default() };
            let mut told = vec![empty; kernels.len()];
            for (&reference, other) in references.iter().zip(rows_p) {
                if !apart(query, reference) {
                    continue;
                }
                let distance = crate::merge::cpu::distance(embedding, other);
                let n = sample.weights[reference];
                for ((kernel, _), told) in kernels.iter().zip(&mut told) {
                    let k = f64::from(kernel.weight(distance)) / 4_096.0;
                    if k == 0.0 {
                        continue;
                    }
                    let w = k * n;
                    told.weight += w;
                    told.squared += k * w;
                    for (prior, sums) in priors.iter().zip(told.sums.chunks_mut(outcomes)) {
                        for (outcome, sum) in sums.iter_mut().enumerate() {
                            sum[0] += w * prior.residual[outcome][reference];
                            sum[1] += w * prior.variance[outcome][reference];
                            sum[2] += w * prior.second[outcome][reference];
                        }
                    }
                }
            }
            told
        })
        .collect();
    kernels
        .into_iter()
        .enumerate()
        .map(|(index, (kernel, factor))| {
            (kernel, factor, told.iter().map(|told| told[index].clone()).collect())
        })
        .collect()
}
