//! What others would make of the same packets: pooled models that see every packet, and federated
//! averaging, which sees each node's own in turn. None of them sees a raw row.
//!
//! Inputs are the slots of a packet's signal that vary over the packets, standardised by mean and
//! deviation (weighted by cases); the target is the packet's mean outcome as a fraction of its range,
//! weighted by its cases. Scope and action are no inputs, and time does not fade: the answers compared
//! are those over all actions together.

mod federated;
mod pooled_mean;
mod ridge;
mod solve;
mod training;

pub use federated::{LOCAL_STEPS, MOMENTUM, ROUNDS};
pub use training::Training;

use crate::domain::{OutcomeKind, Schema};
use crate::limits::SLOTS;
use rayon::prelude::*;
use training::Scales;

/// Which model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The mean outcome of all packets.
    PooledMean,
    /// Ridge regression over all packets, the penalty chosen by cross-validation over authors.
    Ridge,
    /// Federated averaging of logistic (binary outcomes) or linear regression over the nodes.
    FedAvg,
}

/// A score that is linear in the standardised slots.
#[derive(Clone, Debug, PartialEq)]
struct Linear {
    scales: Scales,
    /// One per standardised slot.
    weights: Vec<f64>,
    intercept: f64,
    /// Whether the score is a logit.
    logistic: bool,
}

impl Linear {
    /// The predicted fraction of the range, 0..=1.
    fn predict(&self, signal: &[i8; SLOTS]) -> f64 {
        let score = self.intercept + dot(&self.weights, &self.scales.row(signal));
        if self.logistic { logistic(score) } else { score.clamp(0.0, 1.0) }
    }
}

impl Peer {
    /// Per signal and outcome the predicted fraction of the range; `None` where no packet tells of the
    /// outcome. Outcomes are fitted in parallel, each of them in a fixed order.
    pub fn predict(
        self,
        schema: &Schema,
        training: &Training,
        signals: &[[i8; SLOTS]],
    ) -> Vec<Vec<Option<f64>>> {
        let models: Vec<Option<Linear>> = (0..schema.outcomes.len())
            .into_par_iter()
            .map(|outcome| {
                let target = training.target(outcome)?;
                let binary = schema.outcomes[outcome].kind == OutcomeKind::Binary;
                Some(match self {
                    Peer::PooledMean => pooled_mean::fit(&target),
                    Peer::Ridge => ridge::fit(&target),
                    Peer::FedAvg => federated::fit(&target, binary),
                })
            })
            .collect();
        signals
            .par_iter()
            .map(|signal| models.iter().map(|model| Some(model.as_ref()?.predict(signal))).collect())
            .collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn logistic(score: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-score))
}

#[cfg(test)]
mod tests;
