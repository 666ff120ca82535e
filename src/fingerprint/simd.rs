//! Fingerprints with AVX2, equal to [`super::cpu::fingerprint`] bit for bit.
//!
//! Sixteen packets lie side by side, one slot of all sixteen in one register, so that a butterfly is
//! one addition and one subtraction without a shuffle. By the L2 norm a value is at most 127 * 2^8
//! after nine butterfly stages: these run on 16 bits, the other twelve on 32.
#![allow(unsafe_code)]

use super::Fingerprint;
use ndarray::ArrayView2;

/// As [`super::cpu::fingerprint`], which also does the work where the processor has no AVX2.
///
/// # Panics
/// If the lengths differ.
pub fn fingerprint(embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return avx2::fingerprint(embeddings, out);
    }
    super::cpu::fingerprint(embeddings, out);
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "an index stands for a register and a slot")]
mod avx2 {
    use super::super::cpu::{SIGNS, TIES};
    use super::super::{BLOCKS, Fingerprint, ROUNDS};
    use crate::embed::rows;
    use crate::limits::SLOTS;
    use ndarray::ArrayView2;
    use rayon::prelude::*;
    use std::arch::x86_64::*;
    use std::sync::LazyLock;

    /// Packets side by side: 16-bit lanes of a register.
    const LANES: usize = 16;
    /// Packets that one thread takes at a time.
    const PIECE: usize = 16 * LANES;

    /// One slot of sixteen packets.
    type Slot = [i16; LANES];
    /// One slot of eight packets, in 32 bits.
    type HalfSlot = [i32; LANES / 2];

    struct Tables {
        /// Per (block, round, slot) a number whose sign is d, both as one i32 and as two i16.
        signs: [[[i32; SLOTS]; ROUNDS]; BLOCKS],
        /// Per (block, slot): the bit is 1 where x lies above this.
        limits: [[i32; SLOTS]; BLOCKS],
    }

    static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
        signs: SIGNS
            .map(|block| block.map(|round| round.map(|sign| if sign < 0 { -1 } else { 0x0001_0001 }))),
        limits: TIES.map(|block| block.map(|tie| -tie)),
    });

    pub fn fingerprint(embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) {
        assert_eq!(embeddings.nrows(), out.len(), "one fingerprint per embedding");
        let tables = &*TABLES;
        rows(&embeddings).par_chunks(PIECE).zip(out.par_chunks_mut(PIECE)).for_each(|(rows, out)| {
            // SAFETY: the caller found AVX2.
            unsafe { piece(tables, rows, out) }
        });
    }

    #[target_feature(enable = "avx2")]
    fn piece(tables: &Tables, rows: &[[i8; SLOTS]], out: &mut [Fingerprint]) {
        for (rows, out) in rows.chunks(LANES).zip(out.chunks_mut(LANES)) {
            // The last few are filled up with zeros, whose fingerprints nobody reads.
            let mut sixteen = [[0; SLOTS]; LANES];
            let mut bits = [[0; 32]; LANES];
            sixteen[..rows.len()].copy_from_slice(rows);
            let slots = transpose(&sixteen);
            for block in 0..BLOCKS {
                project(tables, &slots, block, &mut bits);
            }
            out.copy_from_slice(&bits[..out.len()]);
        }
    }

    /// Slot-major: element (slot, packet).
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose(rows: &[[i8; SLOTS]; LANES]) -> [[i8; LANES]; SLOTS] {
        let mut slots = [[0; LANES]; SLOTS];
        for first in (0..SLOTS).step_by(LANES) {
            let mut x = [_mm_setzero_si128(); LANES];
            for i in 0..LANES {
                let mut part = [0; LANES];
                part.copy_from_slice(&rows[i][first..first + LANES]);
                x[i] = bytemuck::cast(part);
            }
            // Each perfect shuffle turns the eight bits of (row, column) by one place; four swap them.
            for _ in 0..4 {
                let mut y = x;
                for i in 0..LANES / 2 {
                    y[2 * i] = _mm_unpacklo_epi8(x[i], x[i + LANES / 2]);
                    y[2 * i + 1] = _mm_unpackhi_epi8(x[i], x[i + LANES / 2]);
                }
                x = y;
            }
            for (slot, x) in slots[first..].iter_mut().zip(x) {
                *slot = bytemuck::cast(x);
            }
        }
        slots
    }

    /// One block of 128 bits of sixteen packets.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn project(tables: &Tables, slots: &[[i8; LANES]; SLOTS], block: usize, bits: &mut [Fingerprint; LANES]) {
        let signs = &tables.signs[block];
        let mut x: [Slot; SLOTS] = [[0; LANES]; SLOTS];
        // First round, strides 16, 32, 64.
        for i in 0..16 {
            let mut r = [_mm256_setzero_si256(); 8];
            for k in 0..8 {
                let slot = _mm256_cvtepi8_epi16(bytemuck::cast(slots[i + 16 * k]));
                r[k] = _mm256_sign_epi16(slot, _mm256_set1_epi32(signs[0][i + 16 * k]));
            }
            butterflies_16(&mut r, 8);
            for k in 0..8 {
                x[i + 16 * k] = bytemuck::cast(r[k]);
            }
        }
        // First round, strides 1 to 8; second round, strides 1 and 2.
        for first in (0..SLOTS).step_by(16) {
            let mut r = [_mm256_setzero_si256(); 16];
            for k in 0..16 {
                r[k] = bytemuck::cast(x[first + k]);
            }
            butterflies_16(&mut r, 16);
            for k in 0..16 {
                r[k] = _mm256_sign_epi16(r[k], _mm256_set1_epi32(signs[1][first + k]));
            }
            butterflies_16(&mut r, 4);
            for k in 0..16 {
                x[first + k] = bytemuck::cast(r[k]);
            }
        }
        for half in 0..2 {
            let mut y: [HalfSlot; SLOTS] = [[0; LANES / 2]; SLOTS];
            // Second round, strides 4 and 8.
            for first in (0..SLOTS).step_by(16) {
                for i in first..first + 4 {
                    let mut r = [_mm256_setzero_si256(); 4];
                    for k in 0..4 {
                        let part: [[i16; 8]; 2] = bytemuck::cast(x[i + 4 * k]);
                        r[k] = _mm256_cvtepi16_epi32(bytemuck::cast(part[half]));
                    }
                    butterflies_32(&mut r, 4);
                    for k in 0..4 {
                        y[i + 4 * k] = bytemuck::cast(r[k]);
                    }
                }
            }
            // Second and third round, strides 16, 32, 64.
            for i in 0..16 {
                let mut r = [_mm256_setzero_si256(); 8];
                for k in 0..8 {
                    r[k] = bytemuck::cast(y[i + 16 * k]);
                }
                butterflies_32(&mut r, 8);
                for k in 0..8 {
                    r[k] = _mm256_sign_epi32(r[k], _mm256_set1_epi32(signs[2][i + 16 * k]));
                }
                butterflies_32(&mut r, 8);
                for k in 0..8 {
                    y[i + 16 * k] = bytemuck::cast(r[k]);
                }
            }
            // Third round, strides 1 to 8, and the bits of sixteen slots.
            for first in (0..SLOTS).step_by(16) {
                let mut r = [_mm256_setzero_si256(); 16];
                for k in 0..16 {
                    r[k] = bytemuck::cast(y[first + k]);
                }
                butterflies_32(&mut r, 16);
                let mut word = _mm256_setzero_si256();
                for k in (0..16).rev() {
                    let above = _mm256_cmpgt_epi32(r[k], _mm256_set1_epi32(tables.limits[block][first + k]));
                    word = _mm256_sub_epi32(_mm256_add_epi32(word, word), above);
                }
                let words: [u32; 8] = bytemuck::cast(word);
                for (bits, word) in bits[8 * half..].iter_mut().zip(words) {
                    bits[16 * block + first / 8..][..2].copy_from_slice(&(word as u16).to_le_bytes());
                }
            }
        }
    }

    /// Walsh-Hadamard transforms of `size` neighbours each, on lanes of 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn butterflies_16<const N: usize>(r: &mut [__m256i; N], size: usize) {
        let mut stride = 1;
        while stride < size {
            for i in 0..N {
                if i & stride == 0 {
                    let (a, b) = (r[i], r[i + stride]);
                    r[i] = _mm256_add_epi16(a, b);
                    r[i + stride] = _mm256_sub_epi16(a, b);
                }
            }
            stride *= 2;
        }
    }

    /// The same on lanes of 32 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn butterflies_32<const N: usize>(r: &mut [__m256i; N], size: usize) {
        let mut stride = 1;
        while stride < size {
            for i in 0..N {
                if i & stride == 0 {
                    let (a, b) = (r[i], r[i + stride]);
                    r[i] = _mm256_add_epi32(a, b);
                    r[i + stride] = _mm256_sub_epi32(a, b);
                }
            }
            stride *= 2;
        }
    }
}
