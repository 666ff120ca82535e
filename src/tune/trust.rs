//! Whether authors are to be trusted by their agreement, and how far honest ones may differ.

use super::levels::Residuals;
use super::sample::Sample;
use super::scores::Candidate;
use crate::domain::prior::Link;
use crate::domain::view::{Bits, Trust};
use crate::limits::WEIGHT_ONE;
use crate::merge::trust::{Record, trust};

/// With fewer authors nobody can be outvoted.
const AUTHORS_MIN: usize = 8;
/// Cases of one author count fully up to so many times the median author's.
const CASES_TIMES: f64 = 4.0;
const CASES_MIN: f64 = 30.0;
/// So many times the median author's cases may be a flood.
const FLOOD_TIMES: f64 = 6.0;
/// Spread of honest levels, in logits and as a fraction of the range, between these.
const SPREAD_LOGIT: (f64, f64) = (0.5, 1.5);
const SPREAD_SHARE: (f64, f64) = (0.05, 0.2);

/// What was found.
pub struct Found {
    pub options: Trust,
    /// Per author, 0..=4,096.
    pub trust: Vec<u16>,
    /// Authors that are not fully trusted for what they say (not for how much).
    pub doubted: usize,
}

/// Where some author has far more cases than most, lets none count more than the median author; says whether it did.
pub fn level_out(sample: &mut Sample) -> bool {
    let mut cases = vec![0u64; sample.authors];
    for row in 0..sample.len() {
        cases[sample.author[row]] += u64::from(sample.cases[row]);
    }
    let median = median(&cases);
    let flooded = sample.authors >= AUTHORS_MIN && cases.iter().any(|&n| n as f64 > FLOOD_TIMES * median);
    if flooded {
        let share = |&n: &u64| (4_096.0 * (median / n.max(1) as f64).min(1.0)).round() as u16;
        sample.trust(&cases.iter().map(share).collect::<Vec<_>>());
    }
    flooded
}

fn median(cases: &[u64]) -> f64 {
    let mut ordered = cases.to_vec();
    ordered.sort_unstable();
    ordered.get(ordered.len() / 2).map_or(0.0, |&n| n as f64)
}

/// Judges authors by the best prior of each outcome; `None` where there are too few of them.
pub fn choose(sample: &Sample, kinds: &[[Candidate; 4]], report: &mut Vec<String>) -> Option<Found> {
    if sample.authors < AUTHORS_MIN {
        return None;
    }
    let links: Vec<Link> =
        sample.outcomes.iter().map(|o| if o.binary { Link::Logistic } else { Link::Identity }).collect();
    let empty: Vec<Record> = links.iter().map(|&link| Record::new(link)).collect();
    let mut records = vec![empty; sample.authors];
    let mut cases = vec![0u64; sample.authors];
    for row in 0..sample.len() {
        let author = sample.author[row];
        cases[author] += u64::from(sample.cases[row]);
        for (outcome, values) in sample.outcomes.iter().enumerate() {
            let Some(y) = values.mean[row] else { continue };
            let b = values.predicted(kinds[outcome][2].margins[row]).clamp(0.0, 1.0);
            let whole = |x: f64| (x * 65_535.0).round() as u16;
            records[author][outcome].add(sample.cases[row], whole(y), whole(b));
        }
    }
    let variances: Vec<f64> = (0..kinds.len())
        .map(|outcome| {
            let residuals = Residuals::of(sample, outcome, &kinds[outcome][2].margins);
            let sum: f64 = residuals.residual.iter().map(|r| r * r).sum();
            sum / sample.len().max(1) as f64
        })
        .collect();
    let cases_max = (CASES_TIMES * median(&cases)).max(CASES_MIN).min(f64::from(u32::MAX)) as u32;
    let binary = sample.outcomes.iter().all(|outcome| outcome.binary);
    let spread = spread(sample, kinds, binary);
    let options = Trust { spread: Bits(spread), cases_max };
    let by_what_they_say = trust(&records, &vec![0; sample.authors], options, &variances);
    let found = trust(&records, &cases, options, &variances);
    let doubted = by_what_they_say.iter().filter(|&&trust| trust < WEIGHT_ONE / 2).count();
    report.push(format!(
        "trust: {doubted} of {} authors doubted, honest levels spread by {spread:.2}, {cases_max} cases of an author count fully",
        sample.authors
    ));
    Some(Found { options, trust: found, doubted })
}

/// Spread of authors' levels beyond chance, by the method of moments (DerSimonian and Laird, 1986), cut to what is
/// plausible: the median over authors, which a minority of liars cannot move far.
fn spread(sample: &Sample, kinds: &[[Candidate; 4]], binary: bool) -> f64 {
    let mut found: Vec<f64> = vec![];
    for (outcome, values) in sample.outcomes.iter().enumerate() {
        let residuals = Residuals::of(sample, outcome, &kinds[outcome][2].margins);
        let sums = residuals.by_author(sample);
        let plain = residuals.residual.iter().map(|r| r * r).sum::<f64>() / sample.len().max(1) as f64;
        let mut squares: Vec<f64> = sums
            .iter()
            .filter(|[_, v]| *v > 0.0)
            .map(|[r, v]| {
                let level = r / v;
                let chance = if values.binary { 1.0 / v } else { plain / v };
                level * level - chance
            })
            .collect();
        squares.sort_by(f64::total_cmp);
        // The median of a squared normal deviate is 0.455 of its mean.
        found.push(squares.get(squares.len() / 2).copied().unwrap_or(0.0).max(0.0) / 0.455);
    }
    let most = found.into_iter().fold(0.0, f64::max).sqrt();
    let (low, high) = if binary { SPREAD_LOGIT } else { SPREAD_SHARE };
    most.clamp(low, high)
}
