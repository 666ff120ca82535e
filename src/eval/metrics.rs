//! How good predictions were.

use crate::domain::{OutcomeKind, Schema};
use serde::Serialize;

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
}

/// One test row: per outcome (estimate, truth), each where known, in the outcome's unit.
pub type Scored = Vec<(Option<f64>, Option<f64>)>;

/// All metrics that apply, over `rows` of one method.
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
        mean(binary.iter().filter_map(|&outcome| measure(&chances(outcome))))
    };
    Metrics {
        auc: mean_of(auc),
        brier: mean_of(|pairs| mean(pairs.iter().map(|&(p, t)| (p - f64::from(t)).powi(2)))),
        log_loss: mean_of(|pairs| {
            mean(pairs.iter().map(|&(p, t)| {
                let p = p.clamp(1e-6, 1.0 - 1e-6);
                -(if t { p } else { 1.0 - p }).ln()
            }))
        }),
        rmse: other
            .first()
            .and_then(|&outcome| mean(pairs(outcome).iter().map(|(p, t)| (p - t).powi(2))))
            .map(f64::sqrt),
        accuracy: match binary[..] {
            [] => None,
            [one] => mean(chances(one).iter().map(|&(p, t)| f64::from((p > 0.5) == t))),
            _ => one_of_many(&binary, rows),
        },
    }
}

fn indices(schema: &Schema, wanted: impl Fn(OutcomeKind) -> bool) -> Vec<usize> {
    (0..schema.outcomes.len()).filter(|&i| wanted(schema.outcomes[i].kind)).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), x| (sum + x, count + 1));
    (count > 0).then(|| sum / count as f64)
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
    mean(hits.into_iter())
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
    let over = |metric: fn(&Metrics) -> Option<f64>| -> (Option<f64>, Option<f64>) {
        let values: Vec<f64> = splits.iter().filter_map(metric).collect();
        let Some(centre) = mean(values.iter().copied()) else { return (None, None) };
        let n = values.len() as f64;
        let error = (n > 1.0).then(|| {
            let squares: f64 = values.iter().map(|x| (x - centre).powi(2)).sum();
            (squares / (n - 1.0) / n).sqrt()
        });
        (Some(centre), error)
    };
    let [auc, brier, log_loss, rmse, accuracy] =
        [over(|m| m.auc), over(|m| m.brier), over(|m| m.log_loss), over(|m| m.rmse), over(|m| m.accuracy)];
    (
        Metrics { auc: auc.0, brier: brier.0, log_loss: log_loss.0, rmse: rmse.0, accuracy: accuracy.0 },
        Metrics { auc: auc.1, brier: brier.1, log_loss: log_loss.1, rmse: rmse.1, accuracy: accuracy.1 },
    )
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
}
