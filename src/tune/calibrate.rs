//! How far intervals must reach, from residuals of packets by fits and packets that did not see them.
//!
//! *A single case*: residuals over their local standard deviation, whose quantiles are the ends of the
//! interval (split conformal prediction; Lei et al., JASA 2018, locally weighted), each tail its own.
//!
//! *The estimate itself*: what an estimate misses the truth by cannot be seen in one residual, which is mostly
//! chance. But the residuals of two packets near each other, of different authors and predicted by fits
//! that saw neither, share the miss and not the chance, so that their product is its square on average.
//! The mean product beyond what the computed standard errors explain is the *floor*.

use super::kernel::{Told, tell};
use super::sample::Sample;
use super::shapes::{Chosen, Setting};
use crate::domain::view::{Bits, Calibration};
use crate::tune::kernel::{QUERIES_MAX, REFERENCES_MAX, Shape};

/// Cases that the plain spread of residuals is worth beside the local one, as in [`crate::merge::residual`].
const SPREAD_CASES: f64 = 5.0;
/// Fewer packets than this say too little of tails: a normal deviate stands in.
const PACKETS_MIN: usize = 30;

/// One calibration per outcome, for intervals of `level` per cent.
pub fn calibrate(sample: &Sample, setting: &Setting, chosen: &Chosen, level: u8) -> Vec<Calibration> {
    let stride = sample.len().div_ceil(QUERIES_MAX).max(1);
    let queries: Vec<usize> = (0..sample.len()).step_by(stride).collect();
    let references: Vec<usize> = (0..sample.len()).step_by(sample.len().div_ceil(REFERENCES_MAX).max(1)).collect();
    let shape = Shape { name: String::new(), metric: chosen.metric.clone(), bandwidth: 1.0 };
    let priors = std::slice::from_ref(&setting.priors[chosen.prior]);
    let apart = |a: usize, b: usize| sample.apart(a, b);
    let told = tell(sample, &shape, Some(&chosen.kernel), &queries, &references, priors, apart);
    let told = &told[0].2;
    (0..sample.outcomes.len()).map(|outcome| one(sample, setting, chosen, outcome, &queries, told, level)).collect()
}

fn one(
    sample: &Sample,
    setting: &Setting,
    chosen: &Chosen,
    outcome: usize,
    queries: &[usize],
    told: &[Told],
    level: u8,
) -> Calibration {
    let values = &sample.outcomes[outcome];
    let (margins, mean_variance) = &setting.margins[chosen.prior][outcome];
    let seconds = &setting.priors[chosen.prior].second[outcome];
    let plain = seconds.iter().zip(&sample.weights).map(|(s, w)| s * w).sum::<f64>()
        / sample.weights.iter().sum::<f64>().max(1e-9);
    let mut ratios = vec![];
    let (mut products, mut units) = (0.0, 0.0);
    for (&query, told) in queries.iter().zip(told) {
        let Some(y) = values.mean[query] else { continue };
        let n = told.cases();
        let [r, v, second] = told.sums[outcome];
        let local = match told.weight > 0.0 {
            true => super::levels::level(
                n * r / told.weight,
                n * v / told.weight,
                chosen.strength * mean_variance,
                values.binary,
            ),
            false => 0.0,
        };
        let predicted = values.predicted(margins[query] + local);
        let spread = match told.weight > 0.0 {
            true => (n * second / told.weight + SPREAD_CASES * plain) / (n + SPREAD_CASES),
            false => plain,
        };
        if spread > 0.0 {
            ratios.push((y - predicted) / spread.sqrt());
        }
        if told.weight > 0.0 {
            // The mean residual near by, of others, beside this one; a kernel takes its share of it away.
            let variance = if values.binary { predicted * (1.0 - predicted) } else { plain };
            let kept = chosen.strength / (n + chosen.strength);
            products += (y - values.predicted(margins[query])) * (r / told.weight) * kept * kept;
            units += variance;
        }
    }
    let deviate = crate::merge::quantile::normal_quantile(0.5 + f64::from(level) / 200.0);
    ratios.sort_by(f64::total_cmp);
    let tail = (1.0 - f64::from(level) / 100.0) / 2.0;
    let (lower, upper) = if ratios.len() < PACKETS_MIN {
        (deviate, deviate)
    } else {
        let n = ratios.len() as f64;
        // The finite sample's quantile: of n + 1 equally likely places.
        let at = |q: f64| ratios[((q * (n + 1.0)).ceil() as usize).clamp(1, ratios.len()) - 1];
        (-at(tail), at(1.0 - tail))
    };
    let floor = if units > 0.0 { (products / units).clamp(0.0, 0.05) } else { 0.0 };
    Calibration {
        scale: Bits(1.0),
        floor: Bits(floor.sqrt()),
        lower: Bits(lower.max(0.0)),
        upper: Bits(upper.max(0.0)),
    }
}
