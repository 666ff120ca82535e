//! From exact sums to an answer where the view's prior is a score: version 2 of the formulas.
//!
//! What is averaged are residuals y - b, b being what the prior predicts of a packet by the fit that
//! did not see it. All is f64 in a fixed order, as in [`super::finish`]; values are fractions of the
//! range. With the sums of one author a over packets by weight, R_a = Y_a - B_a, and V_a the sum of
//! the variances b (1 - b) for a binary outcome, else of ones:
//!
//! | quantity | formula |
//! |---|---|
//! | effective cases n | W^2 / V (Kish), the prior is worth c cases |
//! | plain step g | N r / (N v + min(c, 16) v), N cases, r and v the plain means of residual and variance of all live packets of the action |
//! | author's level d_a | N_a (r_a - g v_a) / (N_a v_a + k v), from all its packets, k = the view's `own_offset`; 0 without |
//! | local step l | n r' / (n v' + c v), r' = sum_a (R_a - g V_a) / W, v' = sum_a V_a / W |
//! | estimate | score + g + l + d of the asking author, each step clipped to +-4; through the logistic function for a binary outcome |
//! | case variance s^2 | (n z' + c z) / (n + c), z' and z the local and the plain second moments of residuals |
//! | doubt of the score J | (c/(n+c))^2 (F-1)/F sum_f (f - mean of f)^2 over the F fits that left a fold out: the grouped jackknife (Quenouille 1956) |
//! | doubt of a level L | 1 / (N_a v_a + k v) on the logit, s^2 / (N_a + k) else; 0 without own levels, and in what anybody is told, which is the rate over all authors |
//! | variance of the estimate | (n/(n+c))^2 max(s^2/n, clustered by author) + J + L, J and L of a logit times (p (1 - p))^2; times scale^2, plus floor^2 s^2 |
//! | interval | as in version 1; for a binary outcome not beyond that of the logit, whose standard error is that of the estimate over p (1 - p) |
//! | single case | estimate - lower .. estimate + upper, both interpolated at the estimate in the view's calibration |
//!
//! The step for a binary outcome is one step of Newton's method on the logit.

use super::finish::{Finished, Moments, is_conflict};
use super::quantile::student_quantile;
use crate::domain::view::{Bits, Calibration};

/// What the prior is worth at most beside the plain step: without a kernel its worth has no bound, and actions still differ.
const PLAIN_CASES: f64 = 16.0;
/// Largest step on the logit.
const STEP_MAX: f64 = 4.0;
/// Below this variance a step on the logit is not taken.
const VARIANCE_MIN: f64 = 1e-9;

impl Moments {
    fn residual(&self) -> f64 {
        (self.mean as f64 - self.predicted as f64) / 65_535.0
    }

    fn variance(&self, binary: bool) -> f64 {
        if binary { self.variance as f64 / 65_535.0 } else { self.weight as f64 }
    }
}

/// What is the same for all questions about one action: plain sums over all live packets read.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    pub binary: bool,
    /// What the prior is worth, in cases.
    pub cases: f64,
    /// Mean variance of the prior's predictions.
    pub variance: f64,
    /// Mean second moment of residuals.
    pub second: f64,
    /// The plain step g.
    pub step: f64,
}

impl Plain {
    /// `None` without a case. `sums` counts every packet with its cases, whatever the question.
    pub fn of(sums: &Moments, cases: f64, binary: bool) -> Option<Plain> {
        let n = sums.weight as f64;
        if sums.weight == 0 {
            return None;
        }
        let variance = sums.variance(binary) / n;
        let residual = sums.residual() / n;
        let step = step(n * residual, (n + cases.min(PLAIN_CASES)) * variance, binary);
        let second = sums.residual_second as f64 / n / 65_535.0;
        Some(Plain { binary, cases, variance, second, step })
    }

    /// The doubt of a level, squared, from all its author's packets: 1 / (N v + k v), or 1 / (N + k); 0 for an author without
    /// any, who has no level of its own here.
    pub fn level_doubt(&self, own: &Moments, strength: f64) -> f64 {
        let below = match self.binary {
            true => own.variance(true) + strength * self.variance,
            false => own.weight as f64 + strength,
        };
        if own.weight == 0 || below < VARIANCE_MIN { 0.0 } else { 1.0 / below }
    }

    /// An author's own level beyond the plain step, from all its packets, drawn toward 0 as if `strength` cases said so.
    pub fn level(&self, own: &Moments, strength: f64) -> f64 {
        let variance = own.variance(self.binary);
        let residual = own.residual() - self.step * variance;
        step(residual, variance + strength * self.variance, self.binary)
    }
}

fn step(residual: f64, variance: f64, binary: bool) -> f64 {
    match binary {
        _ if variance < VARIANCE_MIN => 0.0,
        true => (residual / variance).clamp(-STEP_MAX, STEP_MAX),
        false => residual / variance,
    }
}

/// The logistic function.
pub fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// A question's own part of an estimate, in logits or as fractions of the range.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// What the prior says: the mean of all its fits.
    pub score: f64,
    /// The doubt of the score, squared: (F-1)/F sum_f (f - mean)^2.
    pub doubt: f64,
    /// The asking author's level, 0 where it is not known.
    pub level: f64,
    /// The doubt of the level, squared; of a fraction of the range, in units of the case variance.
    pub level_doubt: f64,
}

/// Finishes one outcome from its per-author sums.
pub fn finish(
    by_author: &[Moments],
    plain: Plain,
    asked: Asked,
    level_percent: u8,
    calibration: Option<&Calibration>,
) -> Finished {
    let Plain { binary, cases: c, .. } = plain;
    let mut all = Moments::default();
    let (mut residual, mut variances) = (0.0, 0.0);
    for sums in by_author.iter().filter(|sums| sums.weight > 0) {
        all.add(sums);
        let variance = sums.variance(binary);
        residual += sums.residual() - plain.step * variance;
        variances += variance;
    }
    let weight = all.weight as f64;
    let (n, r, v, second) = match all.weight {
        0 => (0.0, 0.0, 0.0, plain.second),
        _ => (
            weight * weight / all.squared as f64,
            residual / weight,
            variances / weight,
            all.residual_second as f64 / weight / 65_535.0,
        ),
    };
    let local = step(n * r, n * v + c * plain.variance, binary);
    let linear = asked.score + plain.step + local + asked.level;
    let estimate = if binary { logistic(linear) } else { linear.clamp(0.0, 1.0) };

    let total = n + c;
    let spread = |cases: f64| match n + cases {
        0.0 => plain.second,
        total => (n * second + cases * plain.second) / total,
    };
    let case_variance = if binary { estimate * (1.0 - estimate) } else { spread(c) };
    let mut authors = 0u64;
    let (mut concentration, mut clustered, mut between, mut chance) = (0.0, 0.0, 0.0, 0.0);
    for sums in by_author.iter().filter(|sums| sums.weight > 0) {
        authors += 1;
        let w = sums.weight as f64;
        let own = sums.residual() - plain.step * sums.variance(binary);
        let difference = own / w - r;
        let share = w / weight;
        concentration += share * share;
        clustered += share * share * difference * difference;
        between += share * difference * difference;
        chance += sums.squared as f64 / (w * weight);
    }
    let g = authors as f64;
    let clustered = if authors > 1 { clustered * g / (g - 1.0) } else { 0.0 };
    let shrink = if total > 0.0 { n / total } else { 0.0 };
    let independent = if n > 0.0 { case_variance / n } else { 0.0 };
    let kept = 1.0 - shrink;
    let unit = if binary { case_variance * case_variance } else { 1.0 };
    let level_unit = if binary { unit } else { case_variance };
    let doubt = kept * kept * asked.doubt * unit + asked.level_doubt * level_unit;
    let (scale, floor) = calibration.map_or((1.0, 0.0), |c| (c.scale.0, c.floor.0));
    let computed = shrink * shrink * independent.max(clustered) + doubt;
    let variance = scale * scale * computed + floor * floor * case_variance;
    let standard_error = libm::sqrt(variance);
    let degrees = if authors > 0 { (1.0 / concentration - 1.0 + c).max(1.0) } else { c.max(1.0) };
    // A calibrated error is that of a normal deviate already.
    let degrees = if calibration.is_some() { degrees.max(30.0) } else { degrees };
    let deviate = student_quantile(f64::from(level_percent) / 100.0, degrees);
    let (lower, upper) = if binary {
        let error = standard_error / (estimate * (1.0 - estimate)).max(1e-6);
        let (low, high) = (logistic(linear - deviate * error), logistic(linear + deviate * error));
        // Near 0 and 1 the logit has no bound: what is far there is near as a chance.
        let reach = deviate * standard_error;
        (low.max(estimate - reach).min(estimate), high.min(estimate + reach).max(estimate))
    } else {
        (
            (linear - deviate * standard_error).clamp(0.0, 1.0),
            (linear + deviate * standard_error).clamp(0.0, 1.0),
        )
    };
    let single = calibration.filter(|c| !binary && !c.lower.is_empty()).map(|c| {
        let reach = |ends: &[Bits]| {
            let place = estimate * (ends.len() - 1) as f64;
            let first = (place as usize).min(ends.len() - 1);
            let second = (first + 1).min(ends.len() - 1);
            ends[first].0 + (ends[second].0 - ends[first].0) * (place - first as f64)
        };
        ((estimate - reach(&c.lower)).max(0.0), (estimate + reach(&c.upper)).min(1.0))
    });
    Finished {
        estimate,
        lower,
        upper,
        half_width: (upper - lower) / 2.0,
        effective_cases: n,
        case_variance,
        standard_error,
        packets: all.count,
        authors,
        conflict: is_conflict(authors, between, case_variance * chance),
        single,
        degrees,
    }
}
