//! How strongly authors differ in level: the strength toward which an author's own mean residual is
//! drawn, by how well the rest of its packets then predicts each packet.

use super::sample::Sample;
use super::scores::Candidate;

/// Strengths tried, in cases.
const STRENGTHS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
/// An own level must be better by so many standard errors.
const DEVIATIONS: f64 = 1.5;

/// Residuals and variances of one outcome's packets under a fit's margins; 0 where unknown.
pub struct Residuals {
    pub residual: Vec<f64>,
    pub variance: Vec<f64>,
    /// Mean variance of a case.
    pub mean_variance: f64,
}

impl Residuals {
    pub fn of(sample: &Sample, outcome: usize, margins: &[f64]) -> Residuals {
        let values = &sample.outcomes[outcome];
        let (mut residual, mut variance) = (vec![0.0; sample.len()], vec![0.0; sample.len()]);
        let (mut sum, mut total) = (0.0, 0.0);
        for row in 0..sample.len() {
            let Some(y) = values.mean[row] else { continue };
            let b = values.predicted(margins[row]);
            residual[row] = y - b;
            variance[row] = if values.binary { b * (1.0 - b) } else { 1.0 };
            sum += sample.weights[row] * variance[row];
            total += sample.weights[row];
        }
        Residuals { residual, variance, mean_variance: sum / f64::max(total, 1e-9) }
    }

    /// Sums of n r and n v by author.
    pub fn by_author(&self, sample: &Sample) -> Vec<[f64; 2]> {
        let mut sums = vec![[0.0; 2]; sample.authors];
        for row in 0..sample.len() {
            let sum = &mut sums[sample.author[row]];
            sum[0] += sample.weights[row] * self.residual[row];
            sum[1] += sample.weights[row] * self.variance[row];
        }
        sums
    }

    /// The level that an author's other packets give each packet.
    pub fn levels_of_others(&self, sample: &Sample, binary: bool, strength: f64) -> Vec<f64> {
        let sums = self.by_author(sample);
        let one = |row: usize| {
            let [r, v] = sums[sample.author[row]];
            let n = sample.weights[row];
            level(
                r - n * self.residual[row],
                v - n * self.variance[row],
                strength * self.mean_variance,
                binary,
            )
        };
        (0..sample.len()).map(one).collect()
    }
}

/// The step of [`crate::merge::residual`].
pub fn level(residual: f64, variance: f64, prior: f64, binary: bool) -> f64 {
    let below = variance + prior;
    match binary {
        _ if below < 1e-9 => 0.0,
        true => (residual / below).clamp(-4.0, 4.0),
        false => residual / below,
    }
}

/// The strength for all outcomes, under the best prior of each; `None` where levels do not help.
pub fn choose(sample: &Sample, kinds: &[[Candidate; 4]], report: &mut Vec<String>) -> Option<f64> {
    let most = sample.author.iter().fold(vec![0usize; sample.authors], |mut counts, &author| {
        counts[author] += 1;
        counts
    });
    if most.iter().all(|&count| count < 2) || sample.authors < 2 {
        return None;
    }
    // Losses over that of the mean, summed over the outcomes, per row.
    let losses = |strength: Option<f64>| -> Vec<f64> {
        let mut sums = vec![0.0; sample.len()];
        for (outcome, kinds) in kinds.iter().enumerate() {
            let values = &sample.outcomes[outcome];
            let best = &kinds[2];
            let levels = strength.map(|strength| {
                Residuals::of(sample, outcome, &best.margins).levels_of_others(
                    sample,
                    values.binary,
                    strength,
                )
            });
            for (row, sum) in sums.iter_mut().enumerate() {
                let level = levels.as_ref().map_or(0.0, |levels| levels[row]);
                let loss = values.loss(row, best.margins[row] + level);
                *sum += sample.weights[row] * loss / kinds[0].loss.max(1e-12);
            }
        }
        sums
    };
    let without = losses(None);
    let mut best: Option<(f64, Vec<f64>)> = None;
    for strength in STRENGTHS {
        let with = losses(Some(strength));
        report.push(format!(
            "own level of strength {strength}: {:+.5} of the loss of the mean",
            (with.iter().sum::<f64>() - without.iter().sum::<f64>()) / sample.len() as f64
        ));
        if best.as_ref().is_none_or(|(_, least)| with.iter().sum::<f64>() < least.iter().sum()) {
            best = Some((strength, with));
        }
    }
    let (strength, with) = best?;
    let chosen = super::is_better(&with, &without, DEVIATIONS).then_some(strength);
    report.push(format!("own level: chosen {chosen:?}"));
    chosen
}
