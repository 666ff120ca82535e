//! Embedding -> fingerprint: 256 sign bits of structured random projections.
//!
//! Two blocks b of 128 bits, three rounds r each: x_i <- x_i d_i with d_i = -1 where bit i (least
//! significant first) of bytes [16 (3b + r) .. +16] of the stream is 1; then the 128-point
//! Walsh-Hadamard transform in natural (Sylvester) order, unscaled. Bit 128 b + j is x_j > 0, or,
//! where x_j = 0, bit j of stream bytes [96 + 16 b .. +16]. The stream is the output of BLAKE3
//! `derive_key("qis 1 fingerprint")`. By the L2 norm |x| <= 127 * 2^14 < 2^21: i32 never overflows.

pub mod cpu;
pub mod gpu;
pub mod lanes;
pub mod simd;
#[cfg(test)]
mod tests;

use crate::limits::FINGERPRINT_BYTES;
use std::sync::LazyLock;

/// 256 bits, least significant first in byte order.
pub type Fingerprint = [u8; FINGERPRINT_BYTES];

/// Rounds of signs and transform.
pub const ROUNDS: usize = 3;
/// Blocks of 128 bits.
pub const BLOCKS: usize = 2;

/// 6 x 16 bytes of signs, then 2 x 16 bytes that decide ties.
pub static STREAM: LazyLock<[u8; 128]> = LazyLock::new(|| {
    let mut bytes = [0; 128];
    blake3::Hasher::new_derive_key("qis 1 fingerprint").finalize_xof().fill(&mut bytes);
    bytes
});
