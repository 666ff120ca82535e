//! From exact sums to an answer for people: version 1 of the formulas; [`super::residual`] has version 2.
//!
//! Everything here is f64 in a fixed order, from integers, with + - x / sqrt and the pure-Rust `libm`
//! only, so that two machines print the same bits. Values are fractions of the declared range until
//! the very end. For one outcome, with the sums of [`super::tally`] over its packets, y_a an author's
//! own mean, and the plain mean m and variance v of all live packets read, worth c prior cases:
//!
//! | quantity | formula |
//! |---|---|
//! | effective cases n | W^2 / V (Kish) |
//! | kernel mean y | Y / (65535 W) |
//! | estimate | (n y + c m) / (n + c) |
//! | case variance s^2 | (n max(0, Z/(65535 W) - y^2) + c v) / (n + c) |
//! | independent variance | s^2 / n |
//! | clustered variance | G/(G-1) sum_a W_a^2 (y_a - y)^2 / W^2, G authors (linearised ratio, clusters = authors) |
//! | variance of the estimate | (n/(n+c))^2 max(independent, clustered) + c v/(n+c)^2 |
//! | degrees of freedom | W^2 / sum_a W_a^2 - 1 + c, at least 1 |
//! | interval | estimate +- t(level, degrees) sqrt(variance), cut to the range |
//! | between-author spread tau^2 | sum_a W_a (y_a - y)^2 / W - s^2 sum_a V_a / (W_a W) |
//!
//! *Further cases* is the smallest number k of new independent cases after which the choice differs
//! with a chance of at least 10%: new cases move the estimate by a normal deviate of variance
//! s^2 k / (N (N + k)), N = n + c, so k solves d = z(.9) times its root, d being the distance to the
//! choice's border ([`further_cases`]).
//!
//! The verdict is *conflict* where at least three authors spread by tau > 1/4 of the range and by
//! more than twice what chance gives; else *thin* with fewer than [`THIN_EFFECTIVE_CASES`] effective
//! cases, with one author only, or where [`THIN_FURTHER_CASES`] or fewer further cases would do; else
//! *answer*.

use super::layout::Places;
use super::quantile::{normal_quantile, student_quantile};
use super::tally::ROW_HEAD;
use crate::packet::Verdict;

/// Below this many effective cases an answer is thin.
pub const THIN_EFFECTIVE_CASES: f64 = 5.0;
/// If so few further cases may flip the choice, an answer is thin.
pub const THIN_FURTHER_CASES: u64 = 3;
/// The chance of a flip that further cases are counted for.
const FLIP_CHANCE: f64 = 0.10;
/// Authors needed before they can contradict each other.
const CONFLICT_AUTHORS: u64 = 3;
/// Between-author spread, as a fraction of the range, that is a conflict.
const CONFLICT_SPREAD: f64 = 0.25;
/// Between-author variance over what chance gives that is a conflict.
const CONFLICT_RATIO: f64 = 2.0;

/// Sums of one outcome over one author's packets, or over all, by weight: W, V = sum w w n, then of the
/// value columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    pub count: u64,
    pub weight: u64,
    pub squared: u64,
    pub mean: u64,
    pub second: u64,
    /// With a prior's scores: of its predictions, of their variances for a binary outcome, and of
    /// the squares of residuals.
    pub predicted: u64,
    pub variance: u64,
    pub residual_second: u64,
}

impl Moments {
    /// Those of a row of a tally.
    pub fn of(cells: &[u64], places: Places) -> Moments {
        let values = &cells[ROW_HEAD..];
        let [predicted, variance, residual_second] =
            places.scored.map_or([0; 3], |places| places.map(|place| values[place]));
        Moments {
            count: cells[0],
            weight: cells[1],
            squared: cells[2],
            mean: values[places.mean],
            second: values[places.second],
            predicted,
            variance,
            residual_second,
        }
    }

    /// Adds another part's sums; bounded as tallies are.
    pub fn add(&mut self, other: &Moments) {
        self.count += other.count;
        self.weight += other.weight;
        self.squared += other.squared;
        self.mean += other.mean;
        self.second += other.second;
        self.predicted += other.predicted;
        self.variance += other.variance;
        self.residual_second += other.residual_second;
    }
}

/// The plain mean and variance of an outcome over all live packets read, as fractions of its range;
/// what an estimate is drawn toward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlainMean {
    pub mean: f64,
    pub variance: f64,
    /// What it is worth, in cases.
    pub cases: f64,
}

/// One outcome's finished estimate, as fractions of the declared range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finished {
    pub estimate: f64,
    pub lower: f64,
    pub upper: f64,
    /// Half of the interval before it is cut to the range.
    pub half_width: f64,
    pub effective_cases: f64,
    /// Variance of a single case.
    pub case_variance: f64,
    /// Standard error of the estimate.
    pub standard_error: f64,
    /// Packets of weight above zero.
    pub packets: u64,
    /// Authors of those packets.
    pub authors: u64,
    /// Whether the authors contradict each other.
    pub conflict: bool,
    /// Student's degrees of freedom of the interval, at least 1.
    pub degrees: f64,
    /// Where a single case lies, where the view is calibrated for that and the outcome is not binary.
    pub single: Option<(f64, f64)>,
}

/// Whether authors spread by more than a conflict takes: `between` is the variance between them,
/// `expected` what chance gives, as fractions of the range squared.
pub(super) fn is_conflict(authors: u64, between: f64, expected: f64) -> bool {
    authors >= CONFLICT_AUTHORS
        && between - expected > CONFLICT_SPREAD * CONFLICT_SPREAD
        && between > CONFLICT_RATIO * expected
}

/// Finishes one outcome from its per-author sums.
pub fn finish(by_author: &[Moments], prior: PlainMean, level_percent: u8) -> Finished {
    let mut all = Moments::default();
    by_author.iter().for_each(|author| all.add(author));
    let c = prior.cases;
    let weight = all.weight as f64;
    let (n, y, within) = if all.weight == 0 {
        (0.0, prior.mean, 0.0)
    } else {
        let y = all.mean as f64 / weight / 65_535.0;
        let second = all.second as f64 / weight / 65_535.0;
        (weight * weight / all.squared as f64, y, (second - y * y).max(0.0))
    };
    let total = n + c;
    let estimate = if total > 0.0 { (n * y + c * prior.mean) / total } else { prior.mean };
    let case_variance = if total > 0.0 { (n * within + c * prior.variance) / total } else { prior.variance };

    let mut authors = 0u64;
    let mut concentration = 0.0;
    let mut clustered = 0.0;
    let mut between = 0.0;
    let mut chance = 0.0;
    for author in by_author.iter().filter(|author| author.weight > 0) {
        authors += 1;
        let w = author.weight as f64;
        let difference = author.mean as f64 / w / 65_535.0 - y;
        let share = w / weight;
        concentration += share * share;
        clustered += share * share * difference * difference;
        between += share * difference * difference;
        chance += author.squared as f64 / (w * weight);
    }
    let g = authors as f64;
    let clustered = if authors > 1 { clustered * g / (g - 1.0) } else { 0.0 };
    let variance = if n > 0.0 {
        let shrink = n / total;
        shrink * shrink * (case_variance / n).max(clustered) + c * prior.variance / (total * total)
    } else if c > 0.0 {
        prior.variance / c
    } else {
        1.0
    };
    let degrees = if authors > 0 { (1.0 / concentration - 1.0 + c).max(1.0) } else { c.max(1.0) };
    let standard_error = libm::sqrt(variance);
    let half_width = student_quantile(f64::from(level_percent) / 100.0, degrees) * standard_error;
    let expected = case_variance * chance;
    let conflict = is_conflict(authors, between, expected);
    Finished {
        estimate,
        lower: (estimate - half_width).max(0.0),
        upper: (estimate + half_width).min(1.0),
        half_width,
        effective_cases: n,
        case_variance,
        standard_error,
        packets: all.count,
        authors,
        conflict,
        single: None,
        degrees,
    }
}

/// The smallest number of further cases that flips a choice with a chance of at least 10%, where
/// the choice's border is `distance` away, cases vary by `case_variance` and `cases` (effective plus
/// prior) stand behind the estimate. `None` if no number would.
pub fn further_cases(distance: f64, case_variance: f64, cases: f64) -> Option<u64> {
    let deviate = normal_quantile(1.0 - FLIP_CHANCE);
    let needed = (distance / deviate) * (distance / deviate);
    if cases <= 0.0 {
        return Some(1);
    }
    let room = case_variance - needed * cases;
    if room <= 0.0 {
        return None;
    }
    Some(libm::ceil((needed * cases * cases / room).clamp(1.0, 1e15)) as u64)
}

/// The verdict of an answer: see the module's doc.
pub fn verdict(conflict: bool, effective_cases: f64, authors: u64, further: Option<u64>) -> Verdict {
    if conflict {
        Verdict::Conflict
    } else if effective_cases < THIN_EFFECTIVE_CASES
        || authors < 2
        || further.is_some_and(|k| k <= THIN_FURTHER_CASES)
    {
        Verdict::Thin
    } else {
        Verdict::Answer
    }
}
