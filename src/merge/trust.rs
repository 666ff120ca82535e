//! How much each author is trusted: by how well its outcomes agree with what others would predict.
//!
//! A packet's prediction b comes from the fit that did not see its author's fold, so agreement is
//! judged by others' evidence. Three stories are compared for each author, over all its live packets:
//! *honest*, outcomes follow b apart from the author's own level d; *reversed*, they follow it upside
//! down, again apart from a level; *noise*, they do not follow b at all. A level costs d^2 / (2 spread^2),
//! spread being how far honest authors differ, so that a site with more of the sick stays honest. With the
//! likelihoods L and the chances [`HONEST`], [`OTHERWISE`] and [`OTHERWISE`] before any evidence, p is the chance
//! of *honest* after it; trust falls from 1 at p = [`DOUBTED`] to 0 at [`DISMISSED`]. Authors with few cases stay
//! where they began, at full trust.
//!
//! Binary outcomes: sums of cases and of outcomes in 64 classes of b, exact in any order, then
//! Bernoulli likelihoods with the level on the logit (its best value by Newton's method). Others: exact
//! first and second moments of y and b, then normal likelihoods with the spread of all residuals.

use super::batch::Batch;
use super::residual::logistic;
use crate::domain::prior::Link;
use crate::domain::view::Trust;
use crate::limits::WEIGHT_ONE;

/// Chance that an author is honest before any evidence, and of each other story.
const HONEST: f64 = 0.95;
const OTHERWISE: f64 = 0.025;
/// Trust begins to fall below the first chance of honesty, and is none at the second: one rare outcome makes nobody a
/// liar, and leaving out who saw it would make rare outcomes rarer.
const DOUBTED: f64 = 0.5;
const DISMISSED: f64 = 0.1;
/// Classes of a prediction.
const CLASSES: usize = 64;
/// Steps of Newton's method for an author's level.
const STEPS: usize = 6;

/// What one author said of one outcome beside what was predicted.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Per class of b: cases, and the sum of n y in u16 units.
    Binary(Box<[[u64; 2]; CLASSES]>),
    /// Sums of n, n y, n b, n y y, n y b, n b b in u16 units.
    Real([u128; 6]),
}

impl Record {
    pub fn new(link: Link) -> Record {
        match link {
            Link::Logistic => Record::Binary(Box::new([[0; 2]; CLASSES])),
            Link::Identity => Record::Real([0; 6]),
        }
    }

    /// Takes a packet of `n` cases with the mean `y` and the prediction `b`.
    pub fn add(&mut self, n: u16, y: u16, b: u16) {
        match self {
            Record::Binary(classes) => {
                let class = &mut classes[(usize::from(b) * CLASSES) >> 16];
                class[0] += u64::from(n);
                class[1] += u64::from(n) * u64::from(y);
            }
            Record::Real(sums) => {
                let [n, y, b] = [n, y, b].map(u128::from);
                for (sum, x) in sums.iter_mut().zip([n, n * y, n * b, n * y * y, n * y * b, n * b * b]) {
                    *sum += x;
                }
            }
        }
    }

    /// Log-likelihoods of the three stories, in nats; `spread` of honest levels, `variance` of residuals
    /// as a fraction of the range squared.
    fn stories(&self, spread: f64, variance: f64) -> [f64; 3] {
        match self {
            Record::Binary(classes) => binary(classes, spread),
            Record::Real(sums) => real(&sums.map(|sum| sum as f64), spread, variance),
        }
    }
}

/// Trust per author, 0..=4,096, from its records (one per outcome each) and its number of cases.
pub fn trust(records: &[Vec<Record>], cases: &[u64], trust: Trust, variances: &[f64]) -> Vec<u16> {
    let one = |(records, &cases): (&Vec<Record>, &u64)| {
        let mut stories = [0.0; 3];
        for (record, &variance) in records.iter().zip(variances) {
            let found = record.stories(trust.spread.0, variance);
            stories.iter_mut().zip(found).for_each(|(sum, x)| *sum += x);
        }
        let [honest, reversed, noise] = stories;
        let odds = (OTHERWISE * libm::exp((reversed - honest).min(700.0))
            + OTHERWISE * libm::exp((noise - honest).min(700.0)))
            / HONEST;
        let agreed = ((1.0 / (1.0 + odds) - DISMISSED) / (DOUBTED - DISMISSED)).clamp(0.0, 1.0);
        let share = f64::from(trust.cases_max) / (cases.max(1) as f64);
        (f64::from(WEIGHT_ONE) * agreed * share.min(1.0)).round() as u16
    };
    records.iter().zip(cases).map(one).collect()
}

/// Trust of a batch's authors; full for all where the batch has no predictions to compare with.
pub fn of_batch(batch: &Batch, options: Trust) -> Vec<u16> {
    let Some(scores) = batch.layout.scores() else { return vec![WEIGHT_ONE; batch.authors.len()] };
    let links: Vec<Link> = scores.outcomes.iter().map(|outcome| outcome.link).collect();
    let empty: Vec<Record> = links.iter().map(|&link| Record::new(link)).collect();
    let mut records = vec![empty; batch.authors.len()];
    let mut cases = vec![0u64; batch.authors.len()];
    let mut spread = vec![[0u128; 2]; links.len()];
    let values = batch.columns.values();
    for row in (0..batch.len()).filter(|&row| batch.is_live(row)) {
        let author = batch.author[row] as usize;
        let n = batch.columns.cases()[row];
        cases[author] += u64::from(n);
        for (outcome, record) in records[author].iter_mut().enumerate() {
            let places = batch.layout.places(outcome);
            let Some([b, _, residual]) = places.scored.filter(|_| batch.mask(row) >> outcome & 1 == 1) else {
                continue;
            };
            record.add(n, values[[row, places.mean]], values[[row, b]]);
            spread[outcome][0] += u128::from(n);
            spread[outcome][1] += u128::from(n) * u128::from(values[[row, residual]]);
        }
    }
    let variances: Vec<f64> =
        spread.iter().map(|&[n, sum]| sum as f64 / (n.max(1) as f64) / 65_535.0).collect();
    trust(&records, &cases, options, &variances)
}

/// Stories of a binary outcome.
fn binary(classes: &[[u64; 2]; CLASSES], spread: f64) -> [f64; 3] {
    let filled: Vec<(f64, f64, f64)> = classes
        .iter()
        .enumerate()
        .filter(|(_, [n, _])| *n > 0)
        .map(|(class, &[n, y])| {
            let b = (class as f64 + 0.5) / CLASSES as f64;
            (libm::log(b / (1.0 - b)), n as f64, y as f64 / 65_535.0)
        })
        .collect();
    let honest = levelled(filled.iter().copied(), spread);
    let reversed = levelled(filled.iter().map(|&(logit, n, y)| (logit, n, n - y)), spread);
    let cases: f64 = filled.iter().map(|&(_, n, _)| n).sum();
    [honest, reversed, -cases * core::f64::consts::LN_2]
}

/// Log-likelihood of classes (logit, cases, positives) at the best level.
fn levelled(classes: impl Iterator<Item = (f64, f64, f64)> + Clone, spread: f64) -> f64 {
    let precision = 1.0 / (spread * spread).max(1e-4);
    let mut level: f64 = 0.0;
    for _ in 0..STEPS {
        let (mut slope, mut curvature) = (-precision * level, precision);
        for (logit, n, y) in classes.clone() {
            let p = logistic(logit + level);
            slope += y - n * p;
            curvature += n * p * (1.0 - p);
        }
        level = (level + (slope / curvature).clamp(-2.0, 2.0)).clamp(-8.0, 8.0);
    }
    let mut sum = -0.5 * precision * level * level;
    for (logit, n, y) in classes {
        let p = logistic(logit + level).clamp(1e-6, 1.0 - 1e-6);
        sum += y * libm::log(p) + (n - y) * libm::log(1.0 - p);
    }
    sum
}

/// Stories of an outcome that is not binary.
fn real(sums: &[f64; 6], spread: f64, variance: f64) -> [f64; 3] {
    let [n, y, b, yy, yb, bb] = *sums;
    if n == 0.0 {
        return [0.0; 3];
    }
    let one = 65_535.0;
    let [y, b, yy, yb, bb] = [y / one, b / one, yy / one / one, yb / one / one, bb / one / one];
    let variance = variance.max(1e-6);
    let precision = variance / (spread * spread).max(1e-6);
    // Least squares of t - s b - d with a level d that costs precision d^2.
    let fit = |t: f64, tt: f64, tb: f64, slope: f64| {
        let mean = t - slope * b;
        let square = tt - 2.0 * slope * tb + slope * slope * bb;
        -(square - mean * mean / (n + precision)).max(0.0) / (2.0 * variance)
    };
    // Upside down: t = 1 - y.
    let (t, tt, tb) = (n - y, n - 2.0 * y + yy, b - yb);
    // Noise: not even the slope, around the middle of what was predicted, as wide as predictions and residuals are.
    let middle = b / n;
    let wide = variance + (bb / n - middle * middle).max(0.0);
    let square = (yy - 2.0 * middle * y + n * middle * middle).max(0.0);
    let noise = -square / (2.0 * wide) - 0.5 * n * libm::log(wide / variance);
    [fit(y, yy, yb, 1.0), fit(t, tt, tb, 1.0), noise]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::view::Bits;

    const OPTIONS: Trust = Trust { spread: Bits(0.7), cases_max: 1_000 };

    /// An author of `n` cases with predictions from .1 to .9, whose outcomes are what `outcome` makes of each
    /// prediction and a counter.
    fn author(n: u64, outcome: impl Fn(f64, u64) -> bool) -> (Vec<Record>, u64) {
        let mut record = Record::new(Link::Logistic);
        for i in 0..n {
            let b = 0.1 + 0.8 * ((i * 7 % n) as f64 / n as f64);
            record.add(1, if outcome(b, i) { 65_535 } else { 0 }, (b * 65_535.0) as u16);
        }
        (vec![record], n)
    }

    fn trusted((records, cases): (Vec<Record>, u64)) -> u16 {
        trust(&[records], &[cases], OPTIONS, &[0.2])[0]
    }

    #[test]
    fn reversed_authors_lose_trust_and_those_that_differ_keep_it() {
        // Outcomes as predicted: the share of cases below b in steps of the golden ratio.
        let as_predicted = |b: f64, i: u64| ((i as f64 * 0.618) % 1.0) < b;
        assert_eq!(trusted(author(40, as_predicted)), WEIGHT_ONE);
        assert_eq!(trusted(author(40, |b, i| !as_predicted(b, i))), 0);
        let often = |b: f64, i: u64| as_predicted((b * 1.6).min(0.97), i);
        assert!(trusted(author(40, often)) > 3_500, "a site with more of the sick");
        assert!(trusted(author(1, |_, _| true)) > 3_500, "one case says little");
        assert!(trusted(author(200, |b, i| as_predicted(b, i) ^ (i % 2 == 0))) < 500, "half reversed");
    }

    #[test]
    fn a_flood_counts_as_much_as_the_cap() {
        let as_predicted = |b: f64, i: u64| ((i as f64 * 0.618) % 1.0) < b;
        assert_eq!(trusted(author(4_000, as_predicted)), WEIGHT_ONE / 4);
    }

    #[test]
    fn outcomes_on_a_scale_are_judged_alike() {
        let author = |outcome: fn(f64) -> f64| {
            let mut record = Record::new(Link::Identity);
            for i in 0..30 {
                let b = 0.1 + 0.8 * f64::from(i * 7 % 30) / 30.0;
                record.add(1, (outcome(b) * 65_535.0) as u16, (b * 65_535.0) as u16);
            }
            let options = Trust { spread: Bits(0.1), cases_max: 100 };
            trust(&[vec![record]], &[30], options, &[0.01])[0]
        };
        assert_eq!(author(|b| b), WEIGHT_ONE);
        assert_eq!(author(|b| 1.0 - b), 0);
        assert!(author(|b| (b + 0.08).min(1.0)) > 3_500, "another level");
    }
}
