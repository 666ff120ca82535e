//! Learning what distance means: gradient descent on the error of a kernel mean of residuals.
//!
//! Metric learning for kernel regression (Weinberger and Tesauro, AISTATS 2007), where a packet is
//! predicted from the packets of *other* authors (or other folds, where authors are few): leaving only the
//! packet itself out over-fits the cases of one node, which resemble each other.
//!
//! Embeddings are A x; k = exp(-|A x_q - A x_p|^2). With the residuals r and cases n, the prediction of q
//! is P_q = sum_p k n r / (sum_p k n + c), and the gradient of the square error by A is
//! 2 sum_qp G_qp A (x_q - x_p)(x_q - x_p)^T with G_qp = -k n (r_p - P_q)(P_q - r_q) 2 / (sum k n + c).

use super::sample::Sample;
use ndarray::{Array1, Array2, Axis, s};
use rand::prelude::*;
use rand_chacha::ChaCha12Rng;

/// Packets that predictions are made from, and those predicted at a step.
const REFERENCES: usize = 4_096;
const QUERIES: usize = 256;
/// Steps of Adam (Kingma and Ba, 2015), its step size relative to the first scale, and how often what is learned
/// is kept.
const STEPS: usize = 160;
const RATE: f32 = 0.04;
const SNAPSHOTS: usize = 2;

/// A x for each varying slot: rows of the embedding x varying slots, in units of a signal's slot.
#[derive(Clone, Debug)]
pub struct Learned {
    pub matrix: Array2<f32>,
    pub diagonal: bool,
}

/// What is predicted: residuals by packet and outcome, of a mean square of about one; 0 where unknown.
pub struct Residuals {
    pub values: Array2<f32>,
}

/// Learns a metric from packets outside fold `left_out`; several stages of learning are given, the later
/// ones learned longer.
pub fn learn(
    sample: &Sample,
    residuals: &Residuals,
    start: &[f32],
    diagonal: bool,
    left_out: Option<usize>,
    apart: impl Fn(usize, usize) -> bool,
) -> Vec<Learned> {
    let mut generator = ChaCha12Rng::seed_from_u64(11);
    let columns = sample.slots.len();
    let mut rows: Vec<usize> = (0..sample.len()).filter(|&row| Some(sample.fold[row]) != left_out).collect();
    rows.shuffle(&mut generator);
    let references: Vec<usize> = rows.iter().copied().take(REFERENCES).collect();
    let x_of = |rows: &[usize]| {
        Array2::from_shape_fn((rows.len(), columns), |(i, column)| {
            f32::from(sample.signals[rows[i]][sample.slots[column]])
        })
    };
    let x_p = x_of(&references);
    let weights: Array1<f32> = references.iter().map(|&row| sample.weights[row] as f32).collect();
    let outcomes = residuals.values.ncols();
    let r_p = residuals.values.select(Axis(0), &references);
    let mut a = Array2::<f32>::zeros((columns, columns));
    for (column, &scale) in start.iter().enumerate() {
        a[[column, column]] = scale;
    }
    let unit = start.iter().copied().sum::<f32>() / columns.max(1) as f32;
    let mut log_cases = 1.0f32;
    let (mut first, mut second) = (Array2::<f32>::zeros(a.dim()), Array2::<f32>::zeros(a.dim()));
    let mut cases_moments = [0.0f32; 2];
    let mut kept = vec![];
    if references.len() < 2 {
        return kept;
    }
    for step in 1..=STEPS {
        let queries: Vec<usize> =
            (0..QUERIES.min(rows.len())).map(|_| rows[generator.random_range(0..rows.len())]).collect();
        let x_q = x_of(&queries);
        let r_q = residuals.values.select(Axis(0), &queries);
        let (e_q, e_p) = (x_q.dot(&a.t()), x_p.dot(&a.t()));
        let square = |e: &Array2<f32>| e.map_axis(Axis(1), |row| row.dot(&row));
        let (n_q, n_p) = (square(&e_q), square(&e_p));
        // k n, then G.
        let mut k = e_q.dot(&e_p.t());
        for (i, mut row) in k.outer_iter_mut().enumerate() {
            for (j, k) in row.iter_mut().enumerate() {
                let distance = (n_q[i] + n_p[j] - 2.0 * *k).max(0.0);
                let counts = distance < 20.0 && apart(queries[i], references[j]);
                *k = if counts { (-distance).exp() * weights[j] } else { 0.0 };
            }
        }
        let cases = log_cases.exp();
        let total = k.sum_axis(Axis(1));
        let sums = k.dot(&r_p);
        let mut cases_slope = 0.0;
        let mut factor = Array2::<f32>::zeros((queries.len(), outcomes));
        let mut constant = Array1::<f32>::zeros(queries.len());
        for i in 0..queries.len() {
            let below = total[i] + cases;
            for o in 0..outcomes {
                let predicted = sums[[i, o]] / below;
                let error = 2.0 * (predicted - r_q[[i, o]]) / below;
                factor[[i, o]] = error;
                constant[i] += error * predicted;
                cases_slope -= error * predicted * cases;
            }
        }
        // G = -k n sum_o error_o (r_p,o - predicted_o), averaged over the questions.
        let mut g = factor.dot(&r_p.t());
        let share = 1.0 / queries.len() as f32;
        for ((mut row, k), &constant) in g.outer_iter_mut().zip(k.outer_iter()).zip(&constant) {
            row.iter_mut().zip(k).for_each(|(g, &k)| *g = -k * (*g - constant) * share);
        }
        let (g_q, g_p) = (g.sum_axis(Axis(1)), g.sum_axis(Axis(0)));
        let weighted = |e: &Array2<f32>, g: &Array1<f32>| {
            let mut e = e.clone();
            e.outer_iter_mut().zip(g).for_each(|(mut row, &g)| row *= g);
            e
        };
        let across = g.dot(&x_p);
        let back = g.t().dot(&x_q);
        let slope = 2.0
            * (weighted(&e_q, &g_q).t().dot(&x_q) + weighted(&e_p, &g_p).t().dot(&x_p)
                - e_q.t().dot(&across)
                - e_p.t().dot(&back));
        // Adam; the step size falls to a tenth.
        let progress = step as f32 / STEPS as f32;
        let rate = RATE * unit * (1.0 - 0.9 * progress);
        let (b1, b2) = (0.9f32, 0.99f32);
        let (c1, c2) = (1.0 - b1.powi(step as i32), 1.0 - b2.powi(step as i32));
        ndarray::Zip::indexed(&mut a).and(&mut first).and(&mut second).and(&slope).for_each(
            |(i, j), a, m, v, &g| {
                if diagonal && i != j {
                    return;
                }
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *a -= rate * (*m / c1) / ((*v / c2).sqrt() + 1e-12);
            },
        );
        let g = cases_slope * share;
        cases_moments = [b1 * cases_moments[0] + (1.0 - b1) * g, b2 * cases_moments[1] + (1.0 - b2) * g * g];
        log_cases -= 0.05 * (cases_moments[0] / c1) / ((cases_moments[1] / c2).sqrt() + 1e-12);
        log_cases = log_cases.clamp(-3.0, 6.0);
        if step % (STEPS / SNAPSHOTS) == 0 {
            kept.push(Learned { matrix: a.slice(s![.., ..]).to_owned(), diagonal });
        }
    }
    kept
}
