//! How far intervals must reach, from residuals of packets by fits and packets that did not see them.
//!
//! *A single case*: quantiles of the residuals of packets whose estimates are near, each tail its own (split conformal
//! prediction, Lei et al., JASA 2018, by classes of the estimate): a machine near its end is known better
//! than one in the middle of its life, and no outcome lies beyond its range.
//!
//! *The estimate itself*: what an estimate misses the truth by cannot be seen in one residual, which is mostly
//! chance. But the residuals of two packets near each other, of different authors and predicted by fits
//! that saw neither (packets of one fold), share the miss and not the chance, so that their product is its square on average. That mean
//! product is the *floor*, squared.

use super::kernel::{QUERIES_MAX, REFERENCES_MAX, Shape, Told, tell};
use super::levels::level;
use super::sample::Sample;
use super::shapes::{Chosen, Setting};
use crate::domain::view::{Bits, Calibration};
use crate::domain::{Kernel, Metric};

/// Ends of intervals, at estimates evenly spaced over the range.
const ENDS: usize = 17;
/// Residuals nearest by estimate that an end is taken from: this share of all, and at least so many.
const NEAR_SHARE: f64 = 0.1;
const NEAR_MIN: usize = 100;
/// Largest floor, squared.
const FLOOR_MAX: f64 = 0.09;
/// Cases that a mean residual near by averages over, at the least, for half of the packets.
const NEAR_CASES: f64 = 5.0;
/// The middle width of "near" on the signal, times the root of the slots in use.
const BANDWIDTH_PER_SLOT: f64 = 10.0;

/// One calibration per outcome, for intervals of `level_percent`.
pub fn calibrate(sample: &Sample, setting: &Setting, chosen: &Chosen, level_percent: u8) -> Vec<Calibration> {
    let spaced = |most: usize| -> Vec<usize> {
        (0..sample.len()).step_by(sample.len().div_ceil(most).max(1)).collect()
    };
    let (queries, references) = (spaced(2 * QUERIES_MAX), spaced(REFERENCES_MAX));
    let shape = Shape { name: String::new(), metric: chosen.metric.clone(), bandwidth: 1.0 };
    let priors = std::slice::from_ref(&setting.priors[chosen.prior]);
    let apart = |a: usize, b: usize| sample.apart(a, b);
    let told = tell(sample, &shape, Some(&chosen.kernel), &queries, &references, priors, apart);
    let Some((_, _, told)) = told.first() else { return vec![] };
    // The mean residual near by, at several widths of "near".
    let bandwidth = BANDWIDTH_PER_SLOT * (sample.slots.len().max(1) as f64).sqrt();
    let shape = Shape { name: String::new(), metric: Metric::Identity, bandwidth };
    let near = tell(sample, &shape, None, &queries, &references, priors, |a, b| sample.unseen(a, b));
    (0..sample.outcomes.len())
        .map(|outcome| one(sample, setting, chosen, outcome, (&queries, told), &near, level_percent))
        .collect()
}

fn one(
    sample: &Sample,
    setting: &Setting,
    chosen: &Chosen,
    outcome: usize,
    (queries, told): (&[usize], &[Told]),
    near: &[(Kernel, f64, Vec<Told>)],
    level_percent: u8,
) -> Calibration {
    let values = &sample.outcomes[outcome];
    let (margins, mean_variance) = &setting.margins[chosen.prior][outcome];
    // (estimate, residual) of each packet.
    let mut pairs = vec![];
    for (&query, told) in queries.iter().zip(told) {
        let Some(y) = values.mean[query].filter(|_| sample.weights[query] > 0.0) else { continue };
        let n = told.cases();
        let [r, v, _] = told.sums[outcome];
        let mut local = 0.0;
        if told.weight > 0.0 {
            let prior = chosen.strength * mean_variance;
            local = level(n * r / told.weight, n * v / told.weight, prior, values.binary);
        }
        let estimate = values.predicted(margins[query] + local).clamp(0.0, 1.0);
        pairs.push((estimate, y - estimate));
    }
    let (lower, upper) = if values.binary { (vec![], vec![]) } else { ends(pairs, level_percent) };
    let floor = floor(sample, setting, chosen.prior, outcome, queries, near);
    Calibration { scale: Bits(1.0), floor: Bits(floor), lower, upper }
}

/// What the prior misses the truth by beyond chance, as a fraction of a case's own deviation: the largest of what widths
/// of "near" find that still average over some cases.
fn floor(
    sample: &Sample,
    setting: &Setting,
    prior: usize,
    outcome: usize,
    queries: &[usize],
    near: &[(Kernel, f64, Vec<Told>)],
) -> f64 {
    let values = &sample.outcomes[outcome];
    let margins = &setting.margins[prior][outcome].0;
    let of = |(_, _, told): &(Kernel, f64, Vec<Told>)| -> Option<f64> {
        let (mut products, mut units, mut cases) = (0.0, 0.0, vec![]);
        for (&query, told) in queries.iter().zip(told) {
            let Some(y) = values.mean[query].filter(|_| sample.weights[query] > 0.0) else { continue };
            cases.push(told.cases());
            if told.weight > 0.0 {
                let b = values.predicted(margins[query]);
                products += (y - b) * (told.sums[outcome][0] / told.weight);
                units += if values.binary { b * (1.0 - b) } else { (y - b).powi(2) };
            }
        }
        cases.sort_by(f64::total_cmp);
        let median = cases.get(cases.len() / 2).copied()?;
        (median >= NEAR_CASES && units > 0.0).then(|| (products / units).clamp(0.0, FLOOR_MAX))
    };
    near.iter().filter_map(of).fold(0.0, f64::max).sqrt()
}

/// How far single cases lie below and above estimates at [`ENDS`] places.
fn ends(mut pairs: Vec<(f64, f64)>, level_percent: u8) -> (Vec<Bits>, Vec<Bits>) {
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    if pairs.is_empty() {
        return (vec![Bits(1.0); ENDS], vec![Bits(1.0); ENDS]);
    }
    let near = ((pairs.len() as f64 * NEAR_SHARE) as usize).max(NEAR_MIN).min(pairs.len());
    let tail = (1.0 - f64::from(level_percent) / 100.0) / 2.0;
    let (mut lower, mut upper) = (vec![], vec![]);
    for place in 0..ENDS {
        let at = place as f64 / (ENDS - 1) as f64;
        let below = pairs.partition_point(|(estimate, _)| *estimate < at);
        // The window of `near` neighbours in order of the estimate whose middle is here.
        let first = below.saturating_sub(near / 2).min(pairs.len() - near);
        let mut residuals: Vec<f64> = pairs[first..first + near].iter().map(|pair| pair.1).collect();
        residuals.sort_by(f64::total_cmp);
        // The quantile of a finite sample: of n + 1 equally likely places.
        let quantile = |q: f64| {
            let rank = q * (near as f64 + 1.0);
            if rank < 1.0 {
                return -1.0;
            }
            residuals.get(rank.ceil() as usize - 1).copied().unwrap_or(1.0)
        };
        lower.push(Bits((-quantile(tail)).max(0.0)));
        upper.push(Bits(quantile(1.0 - tail).max(0.0)));
    }
    (lower, upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residuals twice as wide at 1 as at 0: nine in ten lie inside, at each place.
    #[test]
    fn nine_in_ten_lie_inside_wherever_the_estimate_is() {
        let wave = |i: usize| (i as f64 * 0.618_033_988_75) % 1.0;
        let pair = |i: usize| {
            let estimate = wave(i);
            (estimate, ((i as f64 * 0.414_213_562) % 1.0 - 0.5) * (0.1 + 0.1 * estimate))
        };
        let pairs: Vec<(f64, f64)> = (0..4_000).map(pair).collect();
        let (lower, upper) = ends(pairs.clone(), 90);
        for part in 0..4 {
            let inside = |&&(estimate, residual): &&(f64, f64)| {
                let place = (estimate * (ENDS - 1) as f64).round() as usize;
                residual >= -lower[place].0 && residual <= upper[place].0
            };
            let here: Vec<_> = pairs.iter().filter(|pair| (pair.0 * 4.0) as usize == part).collect();
            let share = here.iter().copied().filter(|pair| inside(pair)).count() as f64 / here.len() as f64;
            assert!((0.85..0.96).contains(&share), "{share} in quarter {part}");
        }
        assert!(upper[ENDS - 1].0 > 1.4 * upper[0].0);
    }
}
