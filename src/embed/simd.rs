//! Embeddings with AVX2, equal to [`super::cpu::embed`] bit for bit.
//!
//! A full metric is widened to 16 bits once and laid out as *panels* of sixteen rows. A multiply-add
//! takes two neighbouring slots of a signal, repeated over a register, times those slots of eight rows:
//! eight sums grow by two products, and never need to be added across a register. Six signals by
//! sixteen rows are twelve registers of sums. They begin with r; |sum| + r < 2^21 + 2^21 < 2^31.
#![allow(unsafe_code)]

use crate::domain::Metric;
use ndarray::{ArrayView2, ArrayViewMut2};

/// As [`super::cpu::embed`]; [`super::lanes::embed`] does the work where the processor has no AVX2.
///
/// # Panics
/// If the shapes differ or the metric is not sound.
pub fn embed(metric: &Metric, signals: ArrayView2<i8>, out: ArrayViewMut2<i8>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return avx2::embed(metric, signals, out);
    }
    super::lanes::embed(metric, signals, out);
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "an index stands for a register and a slot")]
mod avx2 {
    use super::super::lanes::{self, PIECE_DIAGONAL};
    use super::super::{rounding, rows, rows_mut};
    use crate::domain::Metric;
    use crate::limits::SLOTS;
    use ndarray::{ArrayView2, ArrayViewMut2};
    use rayon::prelude::*;
    use std::arch::x86_64::*;

    /// Signals side by side.
    const TILE: usize = 6;
    /// Signals that one thread takes at a time by a full metric: 24 KiB when widened.
    const PIECE: usize = 16 * TILE;
    /// Rows of a panel: the lanes of two registers of sums.
    const PANEL: usize = 16;
    /// Pairs of neighbouring slots.
    const PAIRS: usize = SLOTS / 2;

    /// Sixteen rows of a metric: by pair of slots, two registers of (row, slot of the pair).
    type Panel = [[__m256i; 2]; PAIRS];

    pub fn embed(metric: &Metric, signals: ArrayView2<i8>, mut out: ArrayViewMut2<i8>) {
        let out = rows_mut(metric, &signals, &mut out);
        let signals = rows(&signals);
        match metric {
            Metric::Identity => out.copy_from_slice(signals),
            Metric::Diagonal { shift, weights } => {
                let pieces = signals.par_chunks(PIECE_DIAGONAL).zip(out.par_chunks_mut(PIECE_DIAGONAL));
                // SAFETY: the caller found AVX2.
                pieces.for_each(|(signals, out)| unsafe { diagonal(weights, *shift, signals, out) });
            }
            Metric::Full { shift, matrix } => {
                // SAFETY: as above.
                let panels = unsafe { panels(matrix) };
                let pieces = signals.par_chunks(PIECE).zip(out.par_chunks_mut(PIECE));
                // SAFETY: as above.
                pieces.for_each(|(signals, out)| unsafe { full_piece(&panels, *shift, signals, out) });
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn diagonal(weights: &[i8], shift: u8, signals: &[[i8; SLOTS]], out: &mut [[i8; SLOTS]]) {
        lanes::diagonal(weights, shift, signals, out);
    }

    /// The order of rows is the one in which the pack instructions leave their sums one after the
    /// other: rows 0..4 and 8..12 in the first register, the others in the second.
    #[target_feature(enable = "avx2")]
    fn panels(matrix: &[i8]) -> Vec<Panel> {
        let mut panels = vec![[[_mm256_setzero_si256(); 2]; PAIRS]; SLOTS / PANEL];
        for (panel, rows) in panels.iter_mut().zip(matrix.chunks(PANEL * SLOTS)) {
            for (register, chunk) in [0, 1].into_iter().flat_map(|r| (0..PAIRS / 8).map(move |c| (r, c))) {
                let mut x = [_mm_setzero_si128(); 8];
                for (lane, x) in x.iter_mut().enumerate() {
                    let row = 4 * register + lane % 4 + lane / 4 * 8;
                    let mut part = [0; 16];
                    part.copy_from_slice(&rows[SLOTS * row + 16 * chunk..][..16]);
                    *x = bytemuck::cast(part);
                }
                // Each perfect shuffle turns the six bits of (row, pair) by one place; three swap them.
                for _ in 0..3 {
                    let mut y = x;
                    for i in 0..4 {
                        y[2 * i] = _mm_unpacklo_epi16(x[i], x[i + 4]);
                        y[2 * i + 1] = _mm_unpackhi_epi16(x[i], x[i + 4]);
                    }
                    x = y;
                }
                for (pair, x) in panel[8 * chunk..].iter_mut().zip(x) {
                    pair[register] = _mm256_cvtepi8_epi16(x);
                }
            }
        }
        panels
    }

    #[target_feature(enable = "avx2")]
    fn full_piece(panels: &[Panel], shift: u8, signals: &[[i8; SLOTS]], out: &mut [[i8; SLOTS]]) {
        // Pairs of slots in 16 bits. What is missing in the last tile stays 0 and is not read.
        let mut pairs = [[0_i32; PAIRS]; PIECE];
        for (pairs, signal) in pairs.iter_mut().zip(signals) {
            *pairs = bytemuck::cast(signal.map(i16::from));
        }
        let r = _mm256_set1_epi32(rounding(shift));
        let shift = _mm_cvtsi32_si128(shift.into());
        for (panel, first) in panels.iter().zip((0..SLOTS).step_by(PANEL)) {
            for (tile, out) in pairs.as_chunks::<TILE>().0.iter().zip(out.chunks_mut(TILE)) {
                let mut sums = [[r; 2]; TILE];
                for pair in 0..PAIRS {
                    for k in 0..TILE {
                        let slots = _mm256_set1_epi32(tile[k][pair]);
                        for half in 0..2 {
                            let products = _mm256_madd_epi16(panel[pair][half], slots);
                            sums[k][half] = _mm256_add_epi32(sums[k][half], products);
                        }
                    }
                }
                // Packing saturates to -128..=127, which leaves the lower end to be clamped.
                let packed = sums
                    .map(|[a, b]| _mm256_packs_epi32(_mm256_sra_epi32(a, shift), _mm256_sra_epi32(b, shift)));
                for (two, out) in packed.as_chunks::<2>().0.iter().zip(out.chunks_mut(2)) {
                    let bytes = _mm256_max_epi8(_mm256_packs_epi16(two[0], two[1]), _mm256_set1_epi8(-127));
                    let rows: [[i8; PANEL]; 2] =
                        bytemuck::cast(_mm256_permute4x64_epi64::<0b11_01_10_00>(bytes));
                    for (out, row) in out.iter_mut().zip(rows) {
                        out[first..][..PANEL].copy_from_slice(&row);
                    }
                }
            }
        }
    }
}
