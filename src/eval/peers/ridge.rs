//! Ridge regression over all packets: least squares with a penalty on the weights, not on the mean.
//!
//! The penalty is share x total cases, the share being that of [`SHARES`] with the least squared error
//! (weighted by cases) in cross-validation over four folds, a tie taking the larger. A fold is a quarter
//! of the nodes (node mod 4), so that a node's packets are predicted by a model that has seen none of
//! them; with fewer than four nodes, each fold is a quarter of the packets instead. For binary outcomes the
//! score is cut to 0..=1.

use super::Linear;
use super::dot;
use super::solve::solve;
use super::training::Target;

/// Penalties tried, as shares of the total cases; slots are standardised.
pub const SHARES: [f64; 9] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0];
const FOLDS: usize = 4;

/// Sums that a fit needs; those of folds subtract.
#[derive(Clone)]
struct Sums {
    /// Rows' products, slots x slots, row-major, lower triangle.
    products: Vec<f64>,
    /// Rows' products with the outcome.
    outcome: Vec<f64>,
    /// Sums of the rows.
    rows: Vec<f64>,
    total: f64,
    cases: f64,
}

impl Sums {
    fn of(target: &Target, wanted: impl Fn(usize) -> bool) -> Sums {
        let slots = target.scales.len();
        let mut sums = Sums {
            products: vec![0.0; slots * slots],
            outcome: vec![0.0; slots],
            rows: vec![0.0; slots],
            total: 0.0,
            cases: 0.0,
        };
        for index in (0..target.rows.len()).filter(|&index| wanted(index)) {
            let (row, value, cases) = (&target.rows[index], target.values[index], target.cases[index]);
            for (i, &x) in row.iter().enumerate() {
                let weighted = cases * x;
                sums.outcome[i] += weighted * value;
                sums.rows[i] += weighted;
                let products = &mut sums.products[i * slots..][..=i];
                products.iter_mut().zip(row).for_each(|(sum, y)| *sum += weighted * y);
            }
            sums.total += cases * value;
            sums.cases += cases;
        }
        sums
    }

    fn without(&self, other: &Sums) -> Sums {
        let less = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
        Sums {
            products: less(&self.products, &other.products),
            outcome: less(&self.outcome, &other.outcome),
            rows: less(&self.rows, &other.rows),
            total: self.total - other.total,
            cases: self.cases - other.cases,
        }
    }

    /// Weights and intercept under a penalty.
    fn fit(&self, share: f64) -> (Vec<f64>, f64) {
        let slots = self.rows.len();
        let mean = self.total / self.cases;
        // Centred: the intercept carries no penalty.
        let mut matrix = self.products.clone();
        let mut right = self.outcome.clone();
        for i in 0..slots {
            for j in 0..=i {
                matrix[i * slots + j] -= self.rows[i] * self.rows[j] / self.cases;
            }
            matrix[i * slots + i] += share * self.cases;
            right[i] -= self.rows[i] * mean;
        }
        // Positive definite by the penalty, but for rounding: then the mean must do.
        let weights = solve(matrix, right).unwrap_or_else(|| vec![0.0; slots]);
        let intercept = mean - dot(&weights, &self.rows) / self.cases;
        (weights, intercept)
    }
}

/// The fit with the penalty that cross-validation chooses.
pub fn fit(target: &Target) -> Linear {
    let all = Sums::of(target, |_| true);
    let mut nodes: Vec<usize> = target.node.clone();
    nodes.dedup();
    let by_node = nodes.len() >= FOLDS;
    // Nodes that have packets are numbered anew: else folds might be empty.
    let place =
        |index: usize| if by_node { nodes.binary_search(&target.node[index]).unwrap_or(0) } else { index };
    let mut errors = [0.0; SHARES.len()];
    for fold in 0..FOLDS {
        let outside = |index: usize| place(index) % FOLDS == fold;
        let inside = all.without(&Sums::of(target, outside));
        if inside.cases < 0.5 {
            continue;
        }
        for (error, share) in errors.iter_mut().zip(SHARES) {
            let (weights, intercept) = inside.fit(share);
            for index in (0..target.rows.len()).filter(|&index| outside(index)) {
                let predicted = (intercept + dot(&weights, &target.rows[index])).clamp(0.0, 1.0);
                let residual = predicted - target.values[index];
                *error += target.cases[index] * residual * residual;
            }
        }
    }
    let best = (0..SHARES.len()).reduce(|a, b| if errors[b] <= errors[a] { b } else { a }).unwrap_or(0);
    let (weights, intercept) = all.fit(SHARES[best]);
    Linear { scales: target.scales.clone(), weights, intercept, logistic: false }
}
