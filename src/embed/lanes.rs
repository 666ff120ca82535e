//! Embeddings in plain Rust that compilers turn into whatever vectors a processor has: for those
//! without AVX2, equal to [`super::cpu::embed`] bit for bit.
//!
//! The metric is widened to 16 bits once, and sums are finished 128 at a time. A diagonal metric needs
//! no more than 16 bits: products are at most 127^2 = 16,129 < 2^14, so with a shift above 14 every
//! slot rounds to 0, and up to 14 the product plus r is at most 16,129 + 2^13 < 2^15.

use super::{rounding, rows, rows_mut};
use crate::domain::Metric;
use crate::limits::SLOTS;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

/// Signals that one thread takes at a time, by a diagonal and by a full metric.
pub(super) const PIECE_DIAGONAL: usize = 512;
const PIECE_FULL: usize = 64;
/// From here on a diagonal metric rounds everything to 0.
const DIAGONAL_SHIFT_MAX: u8 = 14;

/// As [`super::cpu::embed`].
///
/// # Panics
/// If the shapes differ or the metric is not sound.
pub fn embed(metric: &Metric, signals: ArrayView2<i8>, mut out: ArrayViewMut2<i8>) {
    let out = rows_mut(metric, &signals, &mut out);
    let signals = rows(&signals);
    match metric {
        Metric::Identity => out.copy_from_slice(signals),
        Metric::Diagonal { shift, weights } => {
            let pieces = signals.par_chunks(PIECE_DIAGONAL).zip(out.par_chunks_mut(PIECE_DIAGONAL));
            pieces.for_each(|(signals, out)| diagonal(weights, *shift, signals, out));
        }
        Metric::Full { shift, matrix } => {
            let matrix: Vec<[i16; SLOTS]> =
                matrix.as_chunks().0.iter().map(|row: &[i8; SLOTS]| row.map(i16::from)).collect();
            let pieces = signals.par_chunks(PIECE_FULL).zip(out.par_chunks_mut(PIECE_FULL));
            pieces.for_each(|(signals, out)| full(&matrix, *shift, signals, out));
        }
    }
}

/// Embeddings of signals by 128 weights. Inlined, so that it takes its caller's instructions.
#[inline(always)]
pub(super) fn diagonal(weights: &[i8], shift: u8, signals: &[[i8; SLOTS]], out: &mut [[i8; SLOTS]]) {
    if shift > DIAGONAL_SHIFT_MAX {
        return out.fill([0; SLOTS]);
    }
    let weights: [i16; SLOTS] = std::array::from_fn(|i| i16::from(weights[i]));
    let r = rounding(shift) as i16;
    for (signal, out) in signals.iter().zip(out) {
        for i in 0..SLOTS {
            out[i] = ((weights[i] * i16::from(signal[i]) + r) >> shift).clamp(-127, 127) as i8;
        }
    }
}

fn full(matrix: &[[i16; SLOTS]], shift: u8, signals: &[[i8; SLOTS]], out: &mut [[i8; SLOTS]]) {
    let r = rounding(shift);
    for (signal, out) in signals.iter().zip(out) {
        let signal = signal.map(i16::from);
        // Apart from the rounding, which would cut the vectors short.
        let mut sums = [0; SLOTS];
        for (row, sum) in matrix.iter().zip(&mut sums) {
            *sum = row.iter().zip(&signal).map(|(&m, &s)| i32::from(m) * i32::from(s)).sum();
        }
        for (sum, out) in sums.iter().zip(out) {
            *out = ((sum + r) >> shift).clamp(-127, 127) as i8;
        }
    }
}
