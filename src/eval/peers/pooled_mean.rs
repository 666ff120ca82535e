//! The mean of all packets: what is predicted without looking at the situation.

use super::Linear;
use super::training::Target;

/// The mean outcome over cases.
pub fn fit(target: &Target) -> Linear {
    let weights = vec![0.0; target.scales.len()];
    Linear { scales: target.scales.clone(), weights, intercept: target.mean(), logistic: false }
}
