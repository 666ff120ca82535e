//! The law for fingerprints: plain integer code, read beside `shaders/fingerprint.wgsl`.

use super::{BLOCKS, Fingerprint, ROUNDS, STREAM};
use crate::embed::rows;
use crate::limits::SLOTS;
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::sync::LazyLock;

/// 0 or -1 per (block, round, slot), from the stream's bits: (x ^ -1) - -1 = -x, and unlike a product
/// of 32 bits it is one instruction on every vector unit.
pub(super) static SIGNS: LazyLock<[[[i32; SLOTS]; ROUNDS]; BLOCKS]> = LazyLock::new(|| {
    std::array::from_fn(|block| {
        std::array::from_fn(|round| {
            let bytes = &STREAM[16 * (ROUNDS * block + round)..][..16];
            std::array::from_fn(|i| -i32::from(bit(bytes, i)))
        })
    })
});

/// The tie bits, 0 or 1 per (block, slot).
pub(super) static TIES: LazyLock<[[i32; SLOTS]; BLOCKS]> = LazyLock::new(|| {
    std::array::from_fn(|block| {
        let bytes = &STREAM[16 * (BLOCKS * ROUNDS + block)..][..16];
        std::array::from_fn(|i| i32::from(bit(bytes, i)))
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
        let eights = x.chunks_exact(8).zip(TIES[block].chunks_exact(8));
        for (out, (x, ties)) in bits[16 * block..].iter_mut().zip(eights) {
            // x > 0, or x = 0 and the tie bit is 1: for integers x + tie > 0.
            *out = (0..8).fold(0, |byte, j| byte | u8::from(x[j] + ties[j] > 0) << j);
        }
    }
    bits
}

/// The 128 projections of one block: their signs are the bits, their sizes order the probes.
pub fn project(embedding: &[i8; SLOTS], block: usize) -> [i32; SLOTS] {
    let mut x: [i32; SLOTS] = std::array::from_fn(|i| i32::from(embedding[i]));
    for signs in &SIGNS[block] {
        for (x, sign) in x.iter_mut().zip(signs) {
            *x = (*x ^ sign) - sign;
        }
        hadamard(&mut x);
    }
    x
}

/// The 128-point Walsh-Hadamard transform in natural order, unscaled, in place.
///
/// Seven equal stages: sums of neighbours into the lower half, differences into the upper. Each turns
/// the index bits by one place, so that after seven every bit has been the lowest one and stands
/// where it stood. Unlike the textbook's growing strides, every stage vectorises.
fn hadamard(x: &mut [i32; SLOTS]) {
    for _ in 0..SLOTS.ilog2() {
        let mut y = [0; SLOTS];
        let (sums, differences) = y.split_at_mut(SLOTS / 2);
        for ((pair, sum), difference) in x.chunks_exact(2).zip(sums).zip(differences) {
            *sum = pair[0] + pair[1];
            *difference = pair[0] - pair[1];
        }
        *x = y;
    }
}
