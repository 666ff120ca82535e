//! How good predictions were.

use super::statistics::{Spread, mean, spread};
use crate::domain::{OutcomeKind, Schema};
use serde::Serialize;
use std::collections::BTreeMap;

/// Quality over all test rows of a split; what does not apply is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// Area under the receiver operating characteristic; over several outcomes their mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auc: Option<f64>,
    /// Mean squared difference of probability and outcome; over several outcomes their mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brier: Option<f64>,
    /// Mean negative log-likelihood in nats, probabilities cut to [1e-6, 1 - 1e-6].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_loss: Option<f64>,
    /// Root mean squared error in the outcome's unit (the first outcome that is not binary).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmse: Option<f64>,
    /// Share of rows whose outcome is on the predicted side of one half; where each row has exactly
    /// one of several binary outcomes, whose largest estimate is that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Share of rows whose outcome lies in the interval of single outcomes (the first outcome that is
    /// not binary): see [`super::coverage`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// Mean width of that interval in the outcome's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    /// Share of groups of rows whose rate of a binary outcome lies in the interval of the group's rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_coverage: Option<f64>,
    /// Mean width of the intervals of binary outcomes' rates, as a probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_width: Option<f64>,
}

/// One field of [`Metrics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    Auc,
    Accuracy,
    Brier,
    LogLoss,
    Rmse,
    Coverage,
    Width,
    RateCoverage,
    RateWidth,
}

impl Measure {
    /// In the order in which they are shown.
    pub const ALL: [Measure; 9] = [
        Measure::Auc,
        Measure::Accuracy,
        Measure::Brier,
        Measure::LogLoss,
        Measure::Rmse,
        Measure::Coverage,
        Measure::Width,
        Measure::RateCoverage,
        Measure::RateWidth,
    ];

    /// The name in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Measure::Auc => "auc",
            Measure::Accuracy => "accuracy",
            Measure::Brier => "brier",
            Measure::LogLoss => "log_loss",
            Measure::Rmse => "rmse",
            Measure::Coverage => "coverage",
            Measure::Width => "width",
            Measure::RateCoverage => "rate_coverage",
            Measure::RateWidth => "rate_width",
        }
    }

    /// The name in tables, with the unit where it is not a share.
    pub fn title(self) -> &'static str {
        match self {
            Measure::Auc => "AUC",
            Measure::Accuracy => "accuracy",
            Measure::Brier => "Brier",
            Measure::LogLoss => "log loss [nat]",
            Measure::Rmse => "RMSE",
            Measure::Coverage => "coverage",
            Measure::Width => "width",
            Measure::RateCoverage => "rate coverage",
            Measure::RateWidth => "rate width",
        }
    }

    /// Decimals to show.
    pub fn digits(self) -> usize {
        if matches!(self, Measure::Rmse | Measure::Width) { 3 } else { 4 }
    }

    /// Whether more of it is better.
    pub fn larger_is_better(self) -> bool {
        matches!(self, Measure::Auc | Measure::Accuracy | Measure::Coverage | Measure::RateCoverage)
    }

    pub fn of(self, metrics: &Metrics) -> Option<f64> {
        *self.field(&mut metrics.clone())
    }

    /// The field itself.
    pub fn field(self, metrics: &mut Metrics) -> &mut Option<f64> {
        match self {
            Measure::Auc => &mut metrics.auc,
            Measure::Accuracy => &mut metrics.accuracy,
            Measure::Brier => &mut metrics.brier,
            Measure::LogLoss => &mut metrics.log_loss,
            Measure::Rmse => &mut metrics.rmse,
            Measure::Coverage => &mut metrics.coverage,
            Measure::Width => &mut metrics.width,
            Measure::RateCoverage => &mut metrics.rate_coverage,
            Measure::RateWidth => &mut metrics.rate_width,
        }
    }
}

/// One test row: per outcome (estimate, truth), each where known, in the outcome's unit.
pub type Scored = Vec<(Option<f64>, Option<f64>)>;

/// All metrics of estimates that apply, over `rows` of one method.
pub fn metrics(schema: &Schema, rows: &[Scored]) -> Metrics {
    let binary: Vec<usize> = indices(schema, |kind| kind == OutcomeKind::Binary);
    let other: Vec<usize> = indices(schema, |kind| kind != OutcomeKind::Binary);
    let pairs = |outcome: usize| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|row| Some((row[outcome].0?, row[outcome].1?))).collect()
    };
    // Probabilities and 0/1 truths, whatever the two declared values are.
    let chances = |outcome: usize| -> Vec<(f64, bool)> {
        let o = &schema.outcomes[outcome];
        let unit = |x: f64| (x - o.low) / (o.high - o.low);
        pairs(outcome).into_iter().map(|(p, t)| (unit(p), unit(t) > 0.5)).collect()
    };
    let mean_of = |measure: fn(&[(f64, bool)]) -> Option<f64>| {
        mean_over(binary.iter().filter_map(|&outcome| measure(&chances(outcome))))
    };
    Metrics {
        auc: mean_of(auc),
        brier: mean_of(|pairs| {
            mean_over(pairs.iter().map(|&(p, t)| {
                let error = p - f64::from(t);
                error * error
            }))
        }),
        log_loss: mean_of(|pairs| {
            mean_over(pairs.iter().map(|&(p, t)| {
                let p = p.clamp(1e-6, 1.0 - 1e-6);
                -libm::log(if t { p } else { 1.0 - p })
            }))
        }),
        rmse: other
            .first()
            .and_then(|&outcome| mean_over(pairs(outcome).iter().map(|(p, t)| (p - t) * (p - t))))
            .map(libm::sqrt),
        accuracy: match binary[..] {
            [] => None,
            [one] => mean_over(chances(one).iter().map(|&(p, t)| f64::from((p > 0.5) == t))),
            _ => one_of_many(&binary, rows),
        },
        ..Metrics::default()
    }
}

/// Outcomes of the wanted kinds.
pub fn indices(schema: &Schema, wanted: impl Fn(OutcomeKind) -> bool) -> Vec<usize> {
    (0..schema.outcomes.len()).filter(|&i| wanted(schema.outcomes[i].kind)).collect()
}

fn mean_over(values: impl Iterator<Item = f64>) -> Option<f64> {
    mean(&values.collect::<Vec<_>>())
}

/// Accuracy of the largest estimate, where every row has exactly one true outcome.
fn one_of_many(outcomes: &[usize], rows: &[Scored]) -> Option<f64> {
    let mut hits = vec![];
    for row in rows {
        let truths: Vec<usize> = outcomes.iter().copied().filter(|&o| row[o].1 > Some(0.5)).collect();
        let [truth] = truths[..] else { return None };
        let estimate = |o: usize| row[o].0.unwrap_or(f64::NEG_INFINITY);
        // The first of equal estimates.
        let best = outcomes.iter().copied().reduce(|a, b| if estimate(b) > estimate(a) { b } else { a })?;
        hits.push(f64::from(best == truth));
    }
    mean(&hits)
}

/// Area under the receiver operating characteristic, from ranks (Mann-Whitney); ties count half.
/// `None` unless both classes occur.
pub fn auc(pairs: &[(f64, bool)]) -> Option<f64> {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = sorted.iter().filter(|(_, t)| *t).count() as f64;
    let negatives = sorted.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut rank_sum = 0.0;
    let mut start = 0;
    while start < sorted.len() {
        let end = start + sorted[start..].iter().take_while(|(p, _)| *p == sorted[start].0).count();
        // Ranks start + 1 ..= end share their mean.
        let rank = (start + 1 + end) as f64 / 2.0;
        rank_sum += rank * sorted[start..end].iter().filter(|(_, t)| *t).count() as f64;
        start = end;
    }
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// Mean and standard error of each metric over splits.
pub fn mean_and_error(splits: &[Metrics]) -> (Metrics, Metrics) {
    let (mut means, mut errors) = (Metrics::default(), Metrics::default());
    for measure in Measure::ALL {
        let values: Vec<f64> = splits.iter().filter_map(|split| measure.of(split)).collect();
        let found = spread(&values);
        *measure.field(&mut means) = found.map(|found| found.mean);
        *measure.field(&mut errors) = found.and_then(|found| found.se);
    }
    (means, errors)
}

/// `first` minus `second` by measure, paired: one difference for each split that has both.
///
/// # Panics
/// Unless both speak of the same splits.
pub fn differences(first: &[Metrics], second: &[Metrics]) -> BTreeMap<&'static str, Spread> {
    assert_eq!(first.len(), second.len(), "the same splits");
    let by_measure = |measure: Measure| {
        let pairs = first.iter().zip(second);
        let values: Vec<f64> = pairs.filter_map(|(a, b)| Some(measure.of(a)? - measure.of(b)?)).collect();
        Some((measure.key(), spread(&values)?))
    };
    Measure::ALL.into_iter().filter_map(by_measure).collect()
}

/// How much worse `after` is than `before`, by measure, paired as in [`differences`]: a positive number
/// is a loss, whatever the measure.
pub fn losses(before: &[Metrics], after: &[Metrics]) -> BTreeMap<&'static str, Spread> {
    let (mut lost, grown) = (differences(before, after), differences(after, before));
    for measure in Measure::ALL.into_iter().filter(|measure| !measure.larger_is_better()) {
        if let Some(&spread) = grown.get(measure.key()) {
            lost.insert(measure.key(), spread);
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_ordered_pairs() {
        assert_eq!(auc(&[(0.1, false), (0.9, true)]), Some(1.0));
        assert_eq!(auc(&[(0.9, false), (0.1, true)]), Some(0.0));
        assert_eq!(auc(&[(0.5, false), (0.5, true), (0.5, true)]), Some(0.5));
        assert_eq!(auc(&[(0.5, true)]), None);
        let pairs: Vec<(f64, bool)> = (0..60).map(|i| (f64::from(i * 7 % 13), i * 5 % 3 == 0)).collect();
        let mut won = (0.0, 0.0);
        for (p, _) in pairs.iter().filter(|pair| pair.1) {
            for (q, _) in pairs.iter().filter(|pair| !pair.1) {
                won.0 += if p > q {
                    1.0
                } else if p == q {
                    0.5
                } else {
                    0.0
                };
                won.1 += 1.0;
            }
        }
        assert!((auc(&pairs).unwrap() - won.0 / won.1).abs() < 1e-12);
    }

    /// A method that is always worse by the same amount differs by exactly that, however much splits
    /// vary: were the splits not paired, the interval would be wide.
    #[test]
    fn differences_are_paired() {
        let of = |auc: f64| Metrics { auc: Some(auc), brier: Some(1.0 - auc), ..Metrics::default() };
        let first: Vec<Metrics> = [0.5, 0.7, 0.9].map(of).to_vec();
        let second: Vec<Metrics> = [0.25, 0.45, 0.65].map(of).to_vec();
        let found = differences(&first, &second);
        assert_eq!(found.len(), 2);
        let auc = found["auc"];
        assert!((auc.mean - 0.25).abs() < 1e-12 && auc.high.unwrap() - auc.low.unwrap() < 1e-9, "{auc:?}");
        let lost = losses(&first, &second);
        assert!((lost["auc"].mean - 0.25).abs() < 1e-12 && (lost["brier"].mean - 0.25).abs() < 1e-12);
        // A split that one of them has no figure for does not count.
        let gap = [first[0], Metrics::default(), first[2]];
        assert!((differences(&gap, &second)["auc"].mean - 0.25).abs() < 1e-12);
    }
}
