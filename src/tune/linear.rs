//! Linear scores: ridge regression, and logistic regression with a ridge penalty by Newton's method.

use super::sample::{Sample, Values};
use ndarray::{Array1, Array2};

/// Penalties tried, per unit of a standardised column and case, times the number of cases to the
/// power 1/2.
pub const PENALTIES: [f64; 7] = [30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.02];
/// Newton's steps at the first penalty, and at each later one.
const STEPS_FIRST: usize = 5;
const STEPS_NEXT: usize = 2;

/// A linear score: base + sum of weight x slot.
#[derive(Clone, Debug, Default)]
pub struct Linear {
    pub base: f64,
    /// One per slot in `Sample::slots`.
    pub weights: Vec<f64>,
}

impl Linear {
    pub fn margin(&self, sample: &Sample, row: usize) -> f64 {
        let signal = &sample.signals[row];
        let terms = sample.slots.iter().zip(&self.weights);
        self.base + terms.map(|(&slot, w)| w * f64::from(signal[slot])).sum::<f64>()
    }
}

/// One fit per penalty, from the strongest to the weakest, to the rows whose outcome is known.
pub fn path(sample: &Sample, values: &Values, rows: &[usize]) -> Vec<Linear> {
    let rows: Vec<usize> = rows.iter().copied().filter(|&row| values.mean[row].is_some()).collect();
    let columns = sample.slots.len();
    let total: f64 = rows.iter().map(|&row| sample.weights[row]).sum();
    let mean = values.plain_mean(rows.iter().copied(), &sample.weights);
    if rows.is_empty() || columns == 0 {
        return vec![Linear { base: values.margin(mean), weights: vec![0.0; columns] }; PENALTIES.len()];
    }
    // Standardised, so that one penalty suits all columns; a column's deviation is not below that of one packet that differs.
    let mut centre = vec![0.0; columns];
    let mut scale = vec![0.0; columns];
    for &row in &rows {
        for (column, &slot) in sample.slots.iter().enumerate() {
            let x = f64::from(sample.signals[row][slot]);
            centre[column] += sample.weights[row] * x / total;
            scale[column] += sample.weights[row] * x * x / total;
        }
    }
    for (scale, centre) in scale.iter_mut().zip(&centre) {
        *scale = (*scale - centre * centre).max(0.0).sqrt();
        *scale = if *scale > 1e-9 { 1.0 / *scale } else { 0.0 };
    }
    let x = Array2::from_shape_fn((rows.len(), columns + 1), |(row, column)| match column {
        0 => 1.0f32,
        _ => {
            let value = f64::from(sample.signals[rows[row]][sample.slots[column - 1]]);
            ((value - centre[column - 1]) * scale[column - 1]) as f32
        }
    });
    let mut beta = vec![0.0f64; columns + 1];
    beta[0] = values.margin(mean);
    let mut fits = Vec::with_capacity(PENALTIES.len());
    for (index, penalty) in PENALTIES.iter().enumerate() {
        let steps = match (values.binary, index) {
            (false, _) => 1,
            (true, 0) => STEPS_FIRST,
            (true, _) => STEPS_NEXT,
        };
        for _ in 0..steps {
            newton(sample, values, &rows, &x, penalty * total.sqrt(), &mut beta);
        }
        let weights: Vec<f64> = beta[1..].iter().zip(&scale).map(|(b, s)| b * s).collect();
        let shift: f64 = weights.iter().zip(&centre).map(|(w, c)| w * c).sum();
        fits.push(Linear { base: beta[0] - shift, weights });
    }
    fits
}

/// One step towards the penalised optimum; for an outcome that is not binary, the optimum.
fn newton(sample: &Sample, values: &Values, rows: &[usize], x: &Array2<f32>, penalty: f64, beta: &mut [f64]) {
    let coefficients = Array1::from_iter(beta.iter().map(|&b| b as f32));
    let margins = x.dot(&coefficients);
    let mut slope = Array1::<f32>::zeros(rows.len());
    let mut root = Array1::<f32>::zeros(rows.len());
    for (index, &row) in rows.iter().enumerate() {
        let w = sample.weights[row];
        let p = values.predicted(f64::from(margins[index]));
        let curvature = if values.binary { (p * (1.0 - p)).max(1e-5) } else { 1.0 };
        slope[index] = (w * (values.mean[row].unwrap_or(p) - p)) as f32;
        root[index] = (w * curvature).sqrt() as f32;
    }
    let gradient = x.t().dot(&slope);
    let mut weighted = x.clone();
    weighted.outer_iter_mut().zip(&root).for_each(|(mut row, &root)| row *= root);
    let hessian = weighted.t().dot(&weighted);
    let size = beta.len();
    let mut matrix = vec![0.0f64; size * size];
    for i in 0..size {
        for j in 0..size {
            matrix[i * size + j] = f64::from(hessian[[i, j]]);
        }
        // The base is not penalised; a trace of penalty keeps empty columns solvable.
        matrix[i * size + i] += if i == 0 { 1e-6 } else { penalty };
    }
    let right: Vec<f64> =
        (0..size).map(|i| f64::from(gradient[i]) - if i == 0 { 0.0 } else { penalty * beta[i] }).collect();
    if let Some(step) = solve(matrix, right) {
        beta.iter_mut().zip(step).for_each(|(b, s)| *b += s);
    }
}

/// Solves a symmetric positive definite system by Cholesky's decomposition; `None` where it is not.
pub fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for j in 0..n {
        for k in 0..j {
            let factor = a[j * n + k];
            for i in j..n {
                a[i * n + j] -= a[i * n + k] * factor;
            }
        }
        let pivot = a[j * n + j];
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        let root = pivot.sqrt();
        for i in j..n {
            a[i * n + j] /= root;
        }
    }
    for i in 0..n {
        for k in 0..i {
            b[i] -= a[i * n + k] * b[k];
        }
        b[i] /= a[i * n + i];
    }
    for i in (0..n).rev() {
        for k in i + 1..n {
            b[i] -= a[k * n + i] * b[k];
        }
        b[i] /= a[i * n + i];
    }
    Some(b)
}
