//! The law for embeddings: plain integer code, read beside `shaders/embed.wgsl`.

use super::{rounding, rows, rows_mut};
use crate::domain::Metric;
use crate::limits::SLOTS;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

/// Embeds n signals (n x 128, i8 in [-127, 127]) into `out` (n x 128), on the current rayon pool.
///
/// # Panics
/// If the shapes differ or the metric is not sound.
pub fn embed(metric: &Metric, signals: ArrayView2<i8>, mut out: ArrayViewMut2<i8>) {
    let out = rows_mut(metric, &signals, &mut out);
    rows(&signals)
        .par_iter()
        .zip(out)
        .with_min_len(64)
        .for_each(|(signal, embedding)| *embedding = embed_one(metric, signal));
}

/// One signal's embedding.
pub fn embed_one(metric: &Metric, signal: &[i8; SLOTS]) -> [i8; SLOTS] {
    match metric {
        Metric::Identity => *signal,
        Metric::Diagonal { shift, weights } => {
            std::array::from_fn(|i| shift_clamp(i32::from(weights[i]) * i32::from(signal[i]), *shift))
        }
        Metric::Full { shift, matrix } => std::array::from_fn(|i| {
            let row = &matrix[i * SLOTS..][..SLOTS];
            let sum = row.iter().zip(signal).map(|(&m, &s)| i32::from(m) * i32::from(s)).sum();
            shift_clamp(sum, *shift)
        }),
    }
}

/// (sum + r) >> shift, clamped to +-127. |sum| <= 128 * 127^2 < 2^21 and r < 2^22: no overflow.
fn shift_clamp(sum: i32, shift: u8) -> i8 {
    ((sum + rounding(shift)) >> shift).clamp(-127, 127) as i8
}
