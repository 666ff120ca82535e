//! A first bandwidth for the kernel of a draft.

use crate::domain::view::Kernel;
use crate::limits::SLOTS;
use crate::packet::Id;
use rayon::prelude::*;

/// Cases that are compared with each other.
pub(super) const CASES_MAX: usize = 2_048;
/// The bandwidths tried, from one that tells the levels of a single slot apart to one that hardly
/// tells cases apart, each 2^(1/4) times the one before.
const STEPS: std::ops::RangeInclusive<u32> = 12..=32;
/// Strength of the mean that estimates are drawn toward, in cases.
const PRIOR_CASES: f64 = 1.0;

/// One sampled case.
pub(super) struct Case {
    pub(super) signal: [i8; SLOTS],
    pub(super) scope: Id,
    pub(super) site: Option<String>,
    /// Over the range of each outcome, `None` where unknown.
    pub(super) outcomes: Vec<Option<u16>>,
}

/// The bandwidth whose kernel predicts each sampled case's outcomes best from the others: those of
/// the same scope and, where sites are known, of other sites, because what one site records often
/// comes in series. The error is the mean square, per outcome by its variance. Without pairs to
/// learn from, 32: a difference of one scale in one feature.
///
/// On the seven shipped data sets it lies between 0.8 and 1.75 times the bandwidth that was measured
/// to be best with all rows; larger where the sample is a small part of them.
pub(super) fn best(cases: &[Case]) -> f64 {
    let cases = &cases[..cases.len().min(CASES_MAX)];
    let bandwidths: Vec<f64> = STEPS.map(|step| libm::exp2(f64::from(step) / 4.0).round()).collect();
    let kernels: Vec<Kernel> = bandwidths.iter().map(|&h| Kernel::gaussian(h)).collect();
    let outcome_count = cases.first().map_or(0, |case| case.outcomes.len());
    let means: Vec<f64> = (0..outcome_count)
        .map(|c| {
            let known: Vec<f64> = cases.iter().filter_map(|case| case.outcomes[c]).map(f64::from).collect();
            known.iter().sum::<f64>() / known.len().max(1) as f64
        })
        .collect();
    let spread: Vec<f64> = (0..outcome_count)
        .map(|c| {
            let known = cases.iter().filter_map(|case| case.outcomes[c]).map(f64::from);
            known.map(|y| (y - means[c]).powi(2)).sum::<f64>().max(1.0)
        })
        .collect();
    // Collected in order, so that the sums do not depend on the number of threads.
    let per_case: Vec<Vec<f64>> =
        (0..cases.len()).into_par_iter().map(|i| errors(cases, i, &kernels, &means, &spread)).collect();
    let mut totals = vec![0.0; kernels.len()];
    for errors in per_case {
        for (total, error) in totals.iter_mut().zip(errors) {
            *total += error;
        }
    }
    let best = totals.iter().zip(&bandwidths).min_by(|a, b| a.0.total_cmp(b.0));
    match best {
        Some((&error, &bandwidth)) if error > 0.0 => bandwidth,
        _ => 32.0,
    }
}

/// Square errors of the estimates for case `index`, per kernel; zeros where it has no pairs.
fn errors(cases: &[Case], index: usize, kernels: &[Kernel], means: &[f64], spread: &[f64]) -> Vec<f64> {
    let case = &cases[index];
    let others: Vec<(u32, &Case)> = cases
        .iter()
        .enumerate()
        .filter(|&(other, candidate)| {
            other != index
                && candidate.scope == case.scope
                && (case.site.is_none() || candidate.site != case.site)
        })
        .map(|(_, other)| (distance(&case.signal, &other.signal), other))
        .collect();
    if others.is_empty() {
        return vec![0.0; kernels.len()];
    }
    let error = |kernel: &Kernel| -> f64 {
        let near: Vec<(f64, &Case)> = others
            .iter()
            .map(|&(d, other)| (f64::from(kernel.weight(d)) / 4_096.0, other))
            .filter(|&(w, _)| w > 0.0)
            .collect();
        let mut total = 0.0;
        for (c, y) in case.outcomes.iter().enumerate() {
            let Some(y) = y.map(f64::from) else { continue };
            let (mut weight, mut sum) = (PRIOR_CASES, PRIOR_CASES * means[c]);
            for (w, other) in &near {
                if let Some(x) = other.outcomes[c] {
                    weight += w;
                    sum += w * f64::from(x);
                }
            }
            total += (y - sum / weight).powi(2) / spread[c];
        }
        total
    };
    kernels.iter().map(error).collect()
}

fn distance(a: &[i8; SLOTS], b: &[i8; SLOTS]) -> u32 {
    let sum: i32 = a.iter().zip(b).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum();
    sum.unsigned_abs()
}
