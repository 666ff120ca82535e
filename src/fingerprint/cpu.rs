//! The law for fingerprints: plain integer code, read beside `shaders/fingerprint.wgsl`.

use super::{BLOCKS, Fingerprint, ROUNDS, STREAM};
use crate::embed::rows;
use crate::limits::SLOTS;
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::sync::LazyLock;

/// +1 or -1 per (block, round, slot), from the stream's bits.
static SIGNS: LazyLock<[[[i32; SLOTS]; ROUNDS]; BLOCKS]> = LazyLock::new(|| {
    std::array::from_fn(|block| {
        std::array::from_fn(|round| {
            let bytes = &STREAM[16 * (ROUNDS * block + round)..][..16];
            std::array::from_fn(|i| if bit(bytes, i) { -1 } else { 1 })
        })
    })
});

/// Bit i, least significant first in byte order.
pub fn bit(bytes: &[u8], i: usize) -> bool {
    bytes[i / 8] >> (i % 8) & 1 == 1
}

/// Fingerprints of n embeddings (n x 128, i8 in [-127, 127]) into `out` (n), on the current pool.
///
/// # Panics
/// If the lengths differ.
pub fn fingerprint(embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) {
    assert_eq!(embeddings.nrows(), out.len(), "one fingerprint per embedding");
    rows(&embeddings)
        .par_iter()
        .zip(out)
        .with_min_len(256)
        .for_each(|(embedding, bits)| *bits = fingerprint_one(embedding));
}

/// One embedding's fingerprint.
pub fn fingerprint_one(embedding: &[i8; SLOTS]) -> Fingerprint {
    let mut bits = [0; 32];
    for block in 0..BLOCKS {
        let x = project(embedding, block);
        let ties = &STREAM[96 + 16 * block..][..16];
        for (byte, out) in bits[16 * block..][..16].iter_mut().enumerate() {
            for j in 0..8 {
                let x = x[8 * byte + j];
                let one = x > 0 || (x == 0 && ties[byte] >> j & 1 == 1);
                *out |= u8::from(one) << j;
            }
        }
    }
    bits
}

/// The 128 projections of one block: their signs are the bits, their sizes order the probes.
pub fn project(embedding: &[i8; SLOTS], block: usize) -> [i32; SLOTS] {
    let mut x: [i32; SLOTS] = std::array::from_fn(|i| i32::from(embedding[i]));
    for signs in &SIGNS[block] {
        for (x, sign) in x.iter_mut().zip(signs) {
            *x *= sign;
        }
        hadamard(&mut x);
    }
    x
}

/// The 128-point Walsh-Hadamard transform in natural order, unscaled, in place.
fn hadamard(x: &mut [i32; SLOTS]) {
    let mut half = 1;
    while half < SLOTS {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}
