//! What splits say together: mean, standard error, and the interval of a mean or of a difference.

use crate::merge::quantile::student_quantile;
use serde::Serialize;

/// Confidence level of the intervals over splits.
pub const LEVEL: f64 = 0.95;

/// A mean over splits with its uncertainty; one split has none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub mean: f64,
    /// Standard error of the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub se: Option<f64>,
    /// mean - t se, t being Student's quantile of [`LEVEL`] for one degree of freedom less than there
    /// are splits. Splits share rows, so that true coverage is somewhat below the level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// mean + t se.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// Mean, standard error and interval of one value per split; `None` without any.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let n = values.len() as f64;
    let mean = mean(values)?;
    if values.len() < 2 {
        return Some(Spread { mean, se: None, low: None, high: None });
    }
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    let se = libm::sqrt(squares / (n - 1.0) / n);
    let reach = student_quantile(LEVEL, n - 1.0) * se;
    Some(Spread { mean, se: Some(se), low: Some(mean - reach), high: Some(mean + reach) })
}

/// Mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_textbook() {
        let found = spread(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(found.mean, 3.0);
        let se = core::f64::consts::FRAC_1_SQRT_2;
        assert!((found.se.unwrap() - se).abs() < 1e-12);
        // t(.95, 4 degrees) = 2.77645.
        assert!((found.high.unwrap() - (3.0 + 2.776_45 * se)).abs() < 1e-3);
        assert_eq!(spread(&[7.0]), Some(Spread { mean: 7.0, se: None, low: None, high: None }));
        assert_eq!(spread(&[]), None);
    }
}
