//! Federated averaging (McMahan et al., 2017): every node improves a shared model on its own packets, and
//! the models are averaged by the nodes' cases. The shared model moves on with a momentum of [`MOMENTUM`]
//! (Hsu et al., 2019), without which 100 rounds end far from where many more would.
//!
//! Logistic regression for binary outcomes, linear regression for others, from weights of zero and the
//! intercept 0. [`ROUNDS`] rounds; in each, every node takes [`LOCAL_STEPS`] steps of plain gradient
//! descent over all its packets (no drawing of batches: the result depends on nothing but the
//! packets), with a penalty of [`PENALTY`] / 2 times the squared weights beside the mean loss. The step is
//! 1 over a bound of the loss's curvature: the mean squared length of a row plus one, times 1/4 for
//! the logistic loss. Slots are standardised by the mean and deviation over all nodes, which nodes could
//! find by adding sums.

use super::training::Target;
use super::{Linear, dot, logistic};
use rayon::prelude::*;

/// Rounds of averaging.
pub const ROUNDS: usize = 100;
/// Steps of a node in one round.
pub const LOCAL_STEPS: usize = 5;
/// Share of the last move that the shared model repeats.
pub const MOMENTUM: f64 = 0.9;
/// Penalty on the squared weights.
pub const PENALTY: f64 = 1e-3;

/// Weights and, last, the intercept.
type Model = Vec<f64>;

/// The averaged model after all rounds.
pub fn fit(target: &Target, binary: bool) -> Linear {
    let slots = target.scales.len();
    let total: f64 = target.cases.iter().sum();
    let lengths = target.rows.iter().zip(&target.cases).map(|(row, cases)| cases * (dot(row, row) + 1.0));
    let curvature = lengths.sum::<f64>() / total * if binary { 0.25 } else { 1.0 } + PENALTY;
    let step = 1.0 / curvature;
    let mut of_node = vec![vec![]; target.nodes];
    for (index, &node) in target.node.iter().enumerate() {
        of_node[node].push(index);
    }
    of_node.retain(|rows: &Vec<usize>| !rows.is_empty());
    let mut shared: Model = vec![0.0; slots + 1];
    let mut velocity = shared.clone();
    for _ in 0..ROUNDS {
        let locals: Vec<(f64, Model)> =
            of_node.par_iter().map(|rows| improve(target, rows, &shared, step, binary)).collect();
        // Summed in the order of the nodes, whatever thread was first.
        let mut average = vec![0.0; shared.len()];
        for (cases, local) in &locals {
            average.iter_mut().zip(local).for_each(|(sum, x)| *sum += cases / total * x);
        }
        for ((x, v), target) in shared.iter_mut().zip(&mut velocity).zip(&average) {
            *v = MOMENTUM * *v + (target - *x);
            *x += *v;
        }
    }
    let intercept = shared.pop().unwrap_or(0.0);
    Linear { scales: target.scales.clone(), weights: shared, intercept, logistic: binary }
}

/// A node's cases, and the shared model after its steps.
fn improve(target: &Target, rows: &[usize], shared: &Model, step: f64, binary: bool) -> (f64, Model) {
    let cases: f64 = rows.iter().map(|&index| target.cases[index]).sum();
    let slots = shared.len() - 1;
    let mut model = shared.clone();
    let mut gradient = vec![0.0; model.len()];
    for _ in 0..LOCAL_STEPS {
        gradient.fill(0.0);
        for &index in rows {
            let row = &target.rows[index];
            let score = dot(&model[..slots], row) + model[slots];
            let predicted = if binary { logistic(score) } else { score };
            let pull = (predicted - target.values[index]) * target.cases[index] / cases;
            gradient.iter_mut().zip(row).for_each(|(sum, x)| *sum += pull * x);
            gradient[slots] += pull;
        }
        for (slot, (weight, slope)) in model.iter_mut().zip(&gradient).enumerate() {
            let penalty = if slot < slots { PENALTY * *weight } else { 0.0 };
            *weight -= step * (slope + penalty);
        }
    }
    (cases, model)
}
