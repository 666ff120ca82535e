//! A first bandwidth for the kernel of a draft.

use crate::limits::SLOTS;

/// Signals that are compared with each other.
const SIGNALS_MAX: usize = 512;
/// Where in the sorted distances the bandwidth is taken.
const QUANTILE: f64 = 0.05;
/// Bandwidth by that distance.
const FACTOR: f64 = 0.5;

/// A bandwidth from the distances between sampled cases: half the distance below which the nearest
/// 5% of all pairs lie, so that these pairs have a weight of at least exp(-2). It lies within a
/// factor of 1.5 of the measured best on the seven shipped data sets; `qis eval` tells which is
/// best on others.
pub(super) fn typical(signals: &[[i8; SLOTS]]) -> f64 {
    let signals = &signals[..signals.len().min(SIGNALS_MAX)];
    let mut distances = Vec::with_capacity(signals.len() * signals.len() / 2);
    for (index, a) in signals.iter().enumerate() {
        for b in &signals[index + 1..] {
            let d: i32 = a.iter().zip(b).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum();
            distances.push(d);
        }
    }
    distances.sort_unstable();
    let place = (distances.len() as f64 * QUANTILE) as usize;
    let distance = distances.get(place).map_or(0.0, |&d| f64::from(d).sqrt());
    // Below 8 a kernel tells the levels of a single slot apart; there is no use in less.
    (FACTOR * distance).round().max(8.0)
}
