//! The effect of an action against another, from their estimates.
//!
//! For one outcome the effect is the difference of the two estimates, with
//!
//! - variance v_a + v_b: the two rest on different packets;
//! - degrees of freedom (v_a + v_b)^2 / (v_a^2 / d_a + v_b^2 / d_b) (Welch, Biometrika 34, 1947);
//! - interval: difference +- t(level, degrees) sqrt(variance), cut to what a difference can be.
//!
//! It is the effect of the action, and not of who was given it, where actions were dealt out by chance,
//! or by nothing that matters beyond the situation. Each estimate is drawn toward its action's plain
//! mean, so a difference is drawn toward the plain difference where cases are few. [`super::robust`] has
//! the estimate that corrects for unlike cases within the kernel's reach.

use super::finish::Finished;
use super::quantile::student_quantile;

/// An effect as fractions of the outcome's range, -1 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    pub estimate: f64,
    pub lower: f64,
    pub upper: f64,
    pub standard_error: f64,
    /// Student's degrees of freedom, at least 1.
    pub degrees: f64,
}

impl Effect {
    /// An estimate with its interval at a level in per cent.
    pub fn new(estimate: f64, standard_error: f64, degrees: f64, level_percent: u8) -> Effect {
        let half_width = student_quantile(f64::from(level_percent) / 100.0, degrees) * standard_error;
        let (lower, upper) = ((estimate - half_width).max(-1.0), (estimate + half_width).min(1.0));
        Effect { estimate, lower, upper, standard_error, degrees }
    }
}

/// The effect of one action against another on an outcome.
pub fn difference(action: &Finished, against: &Finished, level_percent: u8) -> Effect {
    let variance = |finished: &Finished| finished.standard_error * finished.standard_error;
    let (one, other) = (variance(action), variance(against));
    let both = one + other;
    let shares = one * one / action.degrees + other * other / against.degrees;
    let degrees = if shares > 0.0 { (both * both / shares).max(1.0) } else { 1.0 };
    Effect::new(action.estimate - against.estimate, libm::sqrt(both), degrees, level_percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::finish::{Moments, PlainMean, finish};

    #[test]
    fn the_difference_is_that_of_welch() {
        let side = |values: &[u16]| {
            let one = |&y: &u16| Moments {
                count: 1,
                weight: 4_096,
                squared: 4_096 * 4_096,
                mean: 4_096 * u64::from(y),
                second: 4_096 * (u64::from(y) * u64::from(y) / 65_535),
                ..Moments::default()
            };
            let authors: Vec<Moments> = values.iter().map(one).collect();
            finish(&authors, PlainMean { mean: 0.0, variance: 0.0, cases: 0.0 }, 90)
        };
        let a = side(&[40_000, 42_000, 44_000, 46_000]);
        let b = side(&[30_000, 31_000, 32_000]);
        let effect = difference(&a, &b, 90);
        let range = 65_535.0;
        // Sample variances over n, by hand: 4 authors around 43,000; 3 around 31,000.
        let va = 20_000_000.0 / 3.0 / 4.0;
        let vb = 2_000_000.0 / 2.0 / 3.0;
        assert!((effect.estimate * range - 12_000.0).abs() < 1e-6);
        assert!((effect.standard_error * range - libm::sqrt(va + vb)).abs() < 1.0, "{effect:?}");
        let degrees = (va + vb) * (va + vb) / (va * va / 3.0 + vb * vb / 2.0);
        assert!((effect.degrees - degrees).abs() < 0.01, "{effect:?} {degrees}");
        let back = difference(&b, &a, 90);
        assert_eq!((back.estimate, back.lower, back.upper), (-effect.estimate, -effect.upper, -effect.lower));
    }
}
