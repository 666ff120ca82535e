//! Which action to take: the chance of each to be the best, and choosing by chance.
//!
//! What is believed of an action's benefit (see [`Belief`]) is a Student distribution around its
//! estimate, cut to the range 0 to 1 in which every benefit lies. Beliefs of different actions rest on
//! different packets and count as independent. Then
//!
//! P(a is best) = integral over x of the product of F_b(x) over b != a, dF_a(x)
//!
//! F being the cut distribution functions; the sum that stands for the integral is over a fixed list of
//! points, so that two machines find the same bits. *Thompson sampling* (Thompson, Biometrika 25, 1933)
//! draws one benefit per action and takes the action of the largest: each action is then taken with its
//! chance to be the best, so that actions that may yet prove better are tried as often as they may.

use super::answer::{Answer, Estimates};
use super::finish::THIN_EFFECTIVE_CASES;
use super::student::{student_at, student_below};
use crate::domain::{Direction, Schema};
use crate::limits::CHOICE_ACTIONS_MAX;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Points of an action's own distribution at which the integral is evaluated.
const POINTS: usize = 128;
/// Below it a belief is as good as certain.
const SCALE_MIN: f64 = 1e-9;

/// What is believed of one action's benefit: the mean, over the outcomes that have a direction, of the
/// estimate turned so that larger is better, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Belief {
    /// Index into the schema's actions.
    pub action: u16,
    pub mean: f64,
    /// Standard error of the mean, and with it what one more case could say: sqrt(s^2 + 1/4 / (n + 2)^2)
    /// with n effective cases, as 1/4 is the largest variance of a case. Without it an action whose few
    /// cases all ended alike would be certain for good. Errors of several outcomes of the same cases depend on each other,
    /// so that of their mean is taken as its bound, the mean of theirs.
    pub scale: f64,
    /// Student's degrees of freedom: the smallest of the outcomes'.
    pub degrees: f64,
    /// Whether any packet tells of the action.
    pub seen: bool,
}

/// How well the cases of an action cover the situation asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overlap {
    Enough,
    /// So few effective cases near the situation, below [`THIN_EFFECTIVE_CASES`].
    Thin(f64),
    /// Every case of the action lies farther away than the kernel reaches: what is said of it is the
    /// plain mean.
    OutOfReach,
}

/// How the cases of an action cover the situation, from its estimates.
pub fn overlap(estimates: &Estimates) -> Overlap {
    let near = || estimates.iter().flatten().map(|estimate| estimate.finished);
    let cases = near().map(|finished| finished.effective_cases).reduce(f64::min).unwrap_or(0.0);
    match near().map(|finished| finished.packets).max().unwrap_or(0) {
        0 => Overlap::OutOfReach,
        _ if cases < THIN_EFFECTIVE_CASES => Overlap::Thin(cases),
        _ => Overlap::Enough,
    }
}

/// Beliefs of the actions that packets tell of, ascending by action. Empty where no outcome has a
/// direction.
pub fn beliefs(schema: &Schema, answer: &Answer) -> Vec<Belief> {
    let seen = answer.actions.iter().filter_map(|(action, estimates)| {
        Some(Belief { seen: true, ..belief(schema, (*action)?, estimates, false)? })
    });
    seen.collect()
}

/// [`beliefs`] and those of the schema's other actions: an action that nobody tried is believed to do
/// what all actions together do here, with the spread of a single case and one degree of freedom.
/// At most [`CHOICE_ACTIONS_MAX`], those seen first.
pub fn beliefs_with_untried(schema: &Schema, answer: &Answer) -> Vec<Belief> {
    let mut beliefs = best(beliefs(schema, answer));
    let untried = (0..schema.actions.len() as u16)
        .filter(|&action| answer.actions.iter().all(|(of, _)| *of != Some(action)))
        .filter_map(|action| belief(schema, action, &answer.outcomes, true));
    let room = CHOICE_ACTIONS_MAX.saturating_sub(beliefs.len());
    beliefs.extend(untried.take(room));
    beliefs.sort_by_key(|belief| belief.action);
    beliefs
}

/// The belief in an action from its estimates, or of one untried from those of all together.
fn belief(schema: &Schema, action: u16, estimates: &Estimates, untried: bool) -> Option<Belief> {
    let (mut count, mut mean, mut scale, mut degrees) = (0.0, 0.0, 0.0, f64::INFINITY);
    for (outcome, estimate) in schema.outcomes.iter().zip(estimates) {
        let Some(finished) = estimate.as_ref().map(|estimate| estimate.finished) else { continue };
        mean += match outcome.direction {
            Direction::Higher => finished.estimate,
            Direction::Lower => 1.0 - finished.estimate,
            Direction::Neutral => continue,
        };
        count += 1.0;
        let further = 0.5 / (finished.effective_cases + 2.0);
        scale += match untried {
            true => libm::sqrt(finished.case_variance),
            false => libm::sqrt(finished.standard_error * finished.standard_error + further * further),
        };
        degrees = if untried { 1.0 } else { f64::min(degrees, finished.degrees) };
    }
    let scale = f64::max(scale / count, SCALE_MIN);
    (count > 0.0).then(|| Belief { action, mean: mean / count, scale, degrees, seen: !untried })
}

/// At most [`CHOICE_ACTIONS_MAX`] beliefs, those of the largest means, ascending by action.
fn best(mut beliefs: Vec<Belief>) -> Vec<Belief> {
    beliefs.sort_by(|a, b| b.mean.total_cmp(&a.mean).then(a.action.cmp(&b.action)));
    beliefs.truncate(CHOICE_ACTIONS_MAX);
    beliefs.sort_by_key(|belief| belief.action);
    beliefs
}

impl Belief {
    /// P(benefit <= x) before the cut.
    fn whole_below(&self, x: f64) -> f64 {
        student_below((x - self.mean) / self.scale, self.degrees)
    }

    /// The shares of the whole distribution at both ends of the range.
    fn ends(&self) -> (f64, f64) {
        (self.whole_below(0.0), self.whole_below(1.0))
    }
}

/// The chance of each action to be the best, as (action, chance), summing to 1. Of more than
/// [`CHOICE_ACTIONS_MAX`] actions those with the best estimates are compared, and the others have none.
pub fn chances(beliefs: &[Belief]) -> Vec<(u16, f64)> {
    let compared = best(beliefs.to_vec());
    // Few points suffice where many actions bring theirs.
    let points = (POINTS * 4 / compared.len().max(1)).clamp(32, POINTS);
    let mut at = vec![0.0, 1.0];
    for belief in &compared {
        at.extend((0..points).map(|point| {
            let z = (2.0 * point as f64 + 1.0) / points as f64 - 1.0;
            (belief.mean + belief.scale * z / ((1.0 - z) * (1.0 + z))).clamp(0.0, 1.0)
        }));
    }
    at.sort_by(f64::total_cmp);
    at.dedup();
    let ends: Vec<(f64, f64)> = compared.iter().map(Belief::ends).collect();
    let below = |x: f64| -> Vec<f64> {
        let one = |(belief, &(low, high)): (&Belief, &(f64, f64))| match high > low {
            true => ((belief.whole_below(x) - low) / (high - low)).clamp(0.0, 1.0),
            // All of it lies beyond one end.
            false => f64::from(x >= belief.mean.clamp(0.0, 1.0)),
        };
        compared.iter().zip(&ends).map(one).collect()
    };
    let mut sums = vec![0.0; compared.len()];
    let mut before = vec![0.0; compared.len()];
    for &x in &at {
        let here = below(x);
        for (index, sum) in sums.iter_mut().enumerate() {
            // The product of the others, in the middle of the step.
            let others = (0..here.len()).filter(|&other| other != index);
            let product: f64 = others.map(|other| 0.5 * (here[other] + before[other])).product();
            *sum += product * (here[index] - before[index]);
        }
        before = here;
    }
    let total: f64 = sums.iter().sum();
    compared.iter().zip(sums).map(|(belief, sum)| (belief.action, sum / total)).collect()
}

/// The action that Thompson sampling takes: a function of the beliefs, the seed and the row's number.
/// `None` without beliefs.
pub fn explore(beliefs: &[Belief], seed: u64, row: u64) -> Option<u16> {
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 explore");
    hasher.update(&seed.to_le_bytes()).update(&row.to_le_bytes());
    let mut generator = ChaCha20Rng::from_seed(hasher.finalize().into());
    let draw = |belief: &Belief| {
        // 53 bits, in the middle of their step: never 0 or 1.
        let share = ((generator.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (low, high) = belief.ends();
        let share = low + share * (high - low);
        let drawn = if share > 0.0 && share < 1.0 {
            belief.mean + belief.scale * student_at(share, belief.degrees)
        } else {
            belief.mean
        };
        (drawn.clamp(0.0, 1.0), belief.action)
    };
    // Of two equal draws the lower index.
    let drawn: Vec<(f64, u16)> = beliefs.iter().map(draw).collect();
    drawn.into_iter().max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map(|(_, action)| action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn belief(action: u16, mean: f64, scale: f64, degrees: f64) -> Belief {
        Belief { action, mean, scale, degrees, seen: true }
    }

    #[test]
    fn two_normal_beliefs_give_the_known_chance() {
        for (a, b, scale) in [(0.5, 0.5, 0.02), (0.52, 0.5, 0.02), (0.5, 0.46, 0.01), (0.9, 0.1, 0.01)] {
            let found = chances(&[belief(0, a, scale, 1e9), belief(1, b, scale, 1e9)]);
            // P(A > B) = Phi((a - b) / (scale sqrt 2)).
            let expected = 0.5 * libm::erfc(-(a - b) / (2.0 * scale));
            assert!((found[0].1 - expected).abs() < 2e-4, "{a} {b}: {found:?}, {expected}");
            assert!((found[0].1 + found[1].1 - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_beliefs_share_alike_and_a_certain_one_wins() {
        let alike: Vec<Belief> = (0..5).map(|action| belief(action, 0.4, 0.1, 2.0)).collect();
        for (_, chance) in chances(&alike) {
            assert!((chance - 0.2).abs() < 1e-9, "{chance}");
        }
        let sure = chances(&[belief(3, 0.9, SCALE_MIN, 40.0), belief(7, 0.2, SCALE_MIN, 40.0)]);
        assert!(sure[0].1 > 0.999_999 && sure[0].0 == 3, "{sure:?}");
        assert_eq!(chances(&[]), []);
        assert_eq!(chances(&[belief(2, 1.0, 0.3, 1.0)]), [(2, 1.0)]);
        let many: Vec<Belief> = (0..500).map(|a| belief(a, f64::from(a) / 600.0, 0.1, 3.0)).collect();
        let found = chances(&many);
        assert_eq!((found.len(), found[0].0), (CHOICE_ACTIONS_MAX, 500 - CHOICE_ACTIONS_MAX as u16));
    }

    /// The two ways to the same number, one by integration and one by draws.
    #[test]
    fn sampling_takes_each_action_with_its_chance() {
        let beliefs = [belief(0, 0.6, 0.1, 1.0), belief(1, 0.65, 0.05, 8.0), belief(4, 0.3, 0.4, 1.0)];
        let rows = 4_000;
        for (action, chance) in chances(&beliefs) {
            let taken = (0..rows).filter(|&row| explore(&beliefs, 7, row) == Some(action)).count();
            let share = taken as f64 / rows as f64;
            let error = libm::sqrt(chance * (1.0 - chance) / rows as f64);
            assert!((share - chance).abs() < 4.0 * error + 1e-3, "{action}: {share} {chance}");
        }
        assert_eq!(explore(&beliefs, 7, 3), explore(&beliefs, 7, 3));
        assert!((0..50).any(|row| explore(&beliefs, 7, row) != explore(&beliefs, 8, row)));
        assert_eq!(explore(&[], 7, 3), None);
    }
}
