//! Whether intervals keep what they promise.
//!
//! *Single outcomes* (real and count outcomes; the first of them counts). The interval of a single new
//! outcome is estimate +- t(level, max(1, n - 1)) sqrt(s^2 + e^2), cut to the declared range: n the effective
//! cases, s^2 the variance of a single case, e the standard error of the estimate, all from
//! [`crate::merge::finish`], and t Student's quantile; where a view is calibrated, the interval that the answer
//! itself gives ([`crate::merge::residual`]). *Coverage* is the share of test rows whose outcome
//! lies inside, *width* the mean width in the outcome's unit.
//!
//! *Rates* (binary outcomes). A binary outcome is never inside an interval of its rate, so groups are
//! compared: the test rows of a split, in ascending order of the estimate (ties in the order of the
//! rows), are cut into ten groups as equal as can be (fewer where there are fewer than ten rows each).
//! A group's observed rate r, over its k rows, is covered where |r - p| <= sqrt(h^2 + z^2 p (1 - p)/k): p is
//! the mean estimate, h the mean distance from the estimate to the end of its interval on the side of r, z
//! the normal quantile of the level; the second part is the chance of k draws. Errors within a
//! group are taken as equal, for they rest on the same packets; where they are independent, coverage is above
//! the level. *Rate coverage* is the share of groups covered, over all binary outcomes, *rate width*
//! the mean width of the rows' intervals.

use super::field::Row;
use super::metrics::{Metrics, indices};
use super::statistics::mean;
use crate::domain::{OutcomeKind, Schema};
use crate::merge::Estimate;
use crate::merge::quantile::{normal_quantile, student_quantile};

/// Groups that a binary outcome's test rows are cut into.
pub const GROUPS: usize = 10;
/// Rows that a group has at least, where there are as many.
const GROUP_ROWS_MIN: usize = 10;

/// The interval of one new outcome in its unit, lower and upper end: see the module's doc.
pub fn single_interval(schema: &Schema, outcome: usize, estimate: &Estimate, level: u8) -> (f64, f64) {
    if let Some(single) = estimate.single {
        return single;
    }
    let outcome = &schema.outcomes[outcome];
    let found = &estimate.finished;
    let variance = found.case_variance + found.standard_error * found.standard_error;
    let degrees = (found.effective_cases - 1.0).max(1.0);
    let half = student_quantile(f64::from(level) / 100.0, degrees) * libm::sqrt(variance);
    let range = outcome.high - outcome.low;
    (
        (estimate.estimate - half * range).max(outcome.low),
        (estimate.estimate + half * range).min(outcome.high),
    )
}

/// Fills the fields of coverage and width from predictions and truths (one per outcome and row, `None`
/// where unknown or not wanted). Methods without intervals leave them absent.
pub fn cover(metrics: &mut Metrics, schema: &Schema, rows: &[Row], truths: &[Vec<Option<f64>>], level: u8) {
    let other = indices(schema, |kind| kind != OutcomeKind::Binary);
    // The first outcome that anything is known of: the others may have been turned off.
    let known = |&outcome: &usize| truths.iter().any(|row| row[outcome].is_some());
    if let Some(outcome) = other.into_iter().find(known) {
        let pairs: Vec<((f64, f64), f64)> = rows
            .iter()
            .zip(truths)
            .filter_map(|(row, truth)| Some((row[outcome]?.single?, truth[outcome]?)))
            .collect();
        let inside = |&((low, high), truth): &((f64, f64), f64)| f64::from((low..=high).contains(&truth));
        metrics.coverage = mean(&pairs.iter().map(inside).collect::<Vec<_>>());
        metrics.width = mean(&pairs.iter().map(|((low, high), _)| high - low).collect::<Vec<_>>());
    }
    let (mut covered, mut widths) = (vec![], vec![]);
    for outcome in indices(schema, |kind| kind == OutcomeKind::Binary) {
        let declared = &schema.outcomes[outcome];
        let unit = |x: f64| (x - declared.low) / (declared.high - declared.low);
        let chances: Vec<Chance> = rows
            .iter()
            .zip(truths)
            .filter_map(|(row, truth)| {
                let (found, truth) = (row[outcome]?, truth[outcome]?);
                let (lower, upper) = found.interval?;
                let [estimate, lower, upper] = [found.estimate, lower, upper].map(unit);
                Some(Chance { estimate, lower, upper, truth: unit(truth) > 0.5 })
            })
            .collect();
        covered.extend(groups_covered(&chances, level));
        widths.extend(chances.iter().map(|chance| chance.upper - chance.lower));
    }
    metrics.rate_coverage = mean(&covered);
    metrics.rate_width = mean(&widths);
}

/// A binary outcome's estimate and interval as probabilities, and what came.
#[derive(Clone, Copy)]
struct Chance {
    estimate: f64,
    lower: f64,
    upper: f64,
    truth: bool,
}

/// 1 or 0 for each group.
fn groups_covered(chances: &[Chance], level: u8) -> Vec<f64> {
    let z = normal_quantile(0.5 + f64::from(level) / 200.0);
    groups(chances, |chance| chance.estimate)
        .iter()
        .map(|group| {
            let k = group.len() as f64;
            let over = |value: fn(&Chance) -> f64| group.iter().map(value).sum::<f64>() / k;
            let (rate, p) = (over(|chance| f64::from(chance.truth)), over(|chance| chance.estimate));
            let reach = if rate > p {
                over(|chance| chance.upper - chance.estimate)
            } else {
                over(|chance| chance.estimate - chance.lower)
            };
            let bound = libm::sqrt(reach * reach + z * z * p * (1.0 - p) / k);
            f64::from((rate - p).abs() <= bound)
        })
        .collect()
}

/// Items in ascending order of a value, cut into at most [`GROUPS`] groups that differ by one at most.
pub fn groups<T: Copy>(items: &[T], value: impl Fn(&T) -> f64) -> Vec<Vec<T>> {
    let mut sorted = items.to_vec();
    sorted.sort_by(|a, b| value(a).total_cmp(&value(b)));
    let count = (sorted.len() / GROUP_ROWS_MIN).clamp(1, GROUPS);
    let cut = |group: usize| group * sorted.len() / count;
    (0..count).map(|group| sorted[cut(group)..cut(group + 1)].to_vec()).filter(|g| !g.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_equal_and_ordered() {
        let items: Vec<usize> = (0..103).rev().collect();
        let found = groups(&items, |&x| x as f64);
        assert_eq!(found.len(), 10);
        assert!(found.iter().all(|group| (10..=11).contains(&group.len())));
        assert_eq!(found.concat(), (0..103).collect::<Vec<_>>());
        assert_eq!(groups(&items[..5], |&x| x as f64).len(), 1);
        assert!(groups(&[] as &[usize], |_| 0.0).is_empty());
    }

    /// Rates as promised are covered; rates that are off by far more than interval and chance are not.
    #[test]
    fn a_wrong_rate_is_not_covered() {
        let chance = |i: usize, every: usize| Chance {
            estimate: 0.25,
            lower: 0.2,
            upper: 0.3,
            truth: i.is_multiple_of(every),
        };
        let good: Vec<Chance> = (0..1000).map(|i| chance(i, 4)).collect();
        assert!(groups_covered(&good, 90).iter().all(|&covered| covered == 1.0));
        let bad: Vec<Chance> = (0..1000).map(|i| chance(i, 2)).collect();
        assert!(groups_covered(&bad, 90).iter().all(|&covered| covered == 0.0));
    }
}
