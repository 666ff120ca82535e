//! Fingerprints in plain Rust that compilers turn into whatever vectors a processor has: for those
//! without AVX2, equal to [`super::cpu::fingerprint`] bit for bit.
//!
//! Several packets lie side by side, and every inner loop runs over them. The passes over the slots,
//! the norms and the halving are those of [`super::simd`]; with plain instructions the second round's
//! first butterfly halves, for its inputs have the same parity: with s = (a + b) / 2 the other output
//! (a - b) / 2 is s - b. So values are at most 127 * 2^8 after eleven stages, which run on 16 bits.

use super::cpu::{SIGNS, TIES};
use super::{BLOCKS, Fingerprint};
use crate::embed::rows;
use crate::limits::SLOTS;
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::ops::{Add, Sub};

/// Packets side by side.
const LANES: usize = 16;
/// Packets that one thread takes at a time.
const PIECE: usize = 16 * LANES;
/// Slots of a `low` pass in a row.
const LOW: usize = 8;
/// Half the slots of a `high` pass, which lie `LOW` apart.
const HIGH: usize = 8;
/// From a slot of the lower half of a `high` pass to its partner in the upper half.
const FAR: usize = LOW * HIGH;

/// One value of each packet.
type Lanes<T> = [T; LANES];

/// As [`super::cpu::fingerprint`].
///
/// # Panics
/// If the lengths differ.
pub fn fingerprint(embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) {
    assert_eq!(embeddings.nrows(), out.len(), "one fingerprint per embedding");
    rows(&embeddings).par_chunks(PIECE).zip(out.par_chunks_mut(PIECE)).for_each(|(rows, out)| {
        // The last few packets leave lanes with what was there before, which nobody reads.
        let mut slots = [[0; LANES]; SLOTS];
        let mut x = [[0; LANES]; SLOTS];
        let mut y = [[0; LANES]; SLOTS];
        for (rows, out) in rows.chunks(LANES).zip(out.chunks_mut(LANES)) {
            for (lane, row) in rows.iter().enumerate() {
                slots.iter_mut().zip(row).for_each(|(slot, &value)| slot[lane] = value);
            }
            for block in 0..BLOCKS {
                let [first, second, third] = &SIGNS[block];
                low_first(first, &slots, &mut x);
                high_first_second(second, &mut x);
                low_second_third(third, &x, &mut y);
                high_third(&TIES[block], &y, |lane, octet, byte| {
                    if let Some(bits) = out.get_mut(lane) {
                        bits[16 * block + octet] = byte;
                    }
                });
            }
        }
    });
}

/// First round, bits 0..3 of the slot's index.
fn low_first(signs: &[i32; SLOTS], slots: &[Lanes<i8>; SLOTS], x: &mut [Lanes<i16>; SLOTS]) {
    let inputs = slots.as_chunks::<LOW>().0.iter().zip(signs.as_chunks::<LOW>().0);
    for ((slots, signs), x) in inputs.zip(x.as_chunks_mut::<LOW>().0) {
        let signs = signs.map(|sign| sign as i16);
        for lane in 0..LANES {
            let mut r: [i16; LOW] =
                std::array::from_fn(|k| (i16::from(slots[k][lane]) ^ signs[k]) - signs[k]);
            stages(&mut r);
            (0..LOW).for_each(|k| x[k][lane] = r[k]);
        }
    }
}

/// First round and second round, bits 3..7: bit 6 comes first in the first round, last in the second.
fn high_first_second(signs: &[i32; SLOTS], x: &mut [Lanes<i16>; SLOTS]) {
    for low in 0..LOW {
        let sums = high_side(low, 0, signs, x, |a, b| a + b);
        let differences = high_side(low, FAR, signs, x, |a, b| a - b);
        for k in 0..HIGH {
            let at = low + LOW * k;
            for lane in 0..LANES {
                x[at][lane] = sums[k][lane] + differences[k][lane];
            }
            for lane in 0..LANES {
                x[at + FAR][lane] = sums[k][lane] - differences[k][lane];
            }
        }
    }
}

/// The half of a `high` pass that begins with sums, or with differences.
#[inline(always)]
fn high_side(
    low: usize,
    far: usize,
    signs: &[i32; SLOTS],
    x: &[Lanes<i16>; SLOTS],
    first: impl Fn(i16, i16) -> i16,
) -> [Lanes<i16>; HIGH] {
    let mut side = [[0; LANES]; HIGH];
    let signs: [i16; HIGH] = std::array::from_fn(|k| signs[low + LOW * k + far] as i16);
    for lane in 0..LANES {
        let mut r: [i16; HIGH] =
            std::array::from_fn(|k| first(x[low + LOW * k][lane], x[low + LOW * k + FAR][lane]));
        stages(&mut r);
        for k in 0..HIGH {
            r[k] = (r[k] ^ signs[k]) - signs[k];
        }
        for k in (0..HIGH).step_by(2) {
            r[k] = (r[k] + r[k + 1]) >> 1;
            r[k + 1] = r[k] - r[k + 1];
        }
        stage(&mut r, 2);
        stage(&mut r, 4);
        (0..HIGH).for_each(|k| side[k][lane] = r[k]);
    }
    side
}

/// Second round and third round, bits 0..3.
fn low_second_third(signs: &[i32; SLOTS], x: &[Lanes<i16>; SLOTS], y: &mut [Lanes<i32>; SLOTS]) {
    let inputs = x.as_chunks::<LOW>().0.iter().zip(signs.as_chunks::<LOW>().0);
    for ((x, signs), y) in inputs.zip(y.as_chunks_mut::<LOW>().0) {
        for lane in 0..LANES {
            let mut r: [i32; LOW] = std::array::from_fn(|k| i32::from(x[k][lane]));
            stages(&mut r);
            for k in 0..LOW {
                r[k] = (r[k] ^ signs[k]) - signs[k];
            }
            stages(&mut r);
            (0..LOW).for_each(|k| y[k][lane] = r[k]);
        }
    }
}

/// Third round, bits 3..7, and the bits: calls `put(lane, octet of slots, byte)`.
fn high_third(ties: &[i32; SLOTS], y: &[Lanes<i32>; SLOTS], mut put: impl FnMut(usize, usize, u8)) {
    let sums = bits_side(0, ties, y, |a, b| a + b);
    let differences = bits_side(FAR, ties, y, |a, b| a - b);
    for (octet, bytes) in sums.iter().chain(&differences).enumerate() {
        bytes.iter().enumerate().for_each(|(lane, &byte)| put(lane, octet, byte as u8));
    }
}

/// The bytes of eight octets of slots.
#[inline(always)]
fn bits_side(
    far: usize,
    ties: &[i32; SLOTS],
    y: &[Lanes<i32>; SLOTS],
    first: impl Fn(i32, i32) -> i32,
) -> [Lanes<i32>; HIGH] {
    let mut bytes = [[0; LANES]; HIGH];
    for low in 0..LOW {
        let ties: [i32; HIGH] = std::array::from_fn(|k| ties[low + LOW * k + far]);
        for lane in 0..LANES {
            let mut r: [i32; HIGH] =
                std::array::from_fn(|k| first(y[low + LOW * k][lane], y[low + LOW * k + FAR][lane]));
            stages(&mut r);
            for k in 0..HIGH {
                bytes[k][lane] |= i32::from(r[k] + ties[k] > 0) << low;
            }
        }
    }
    bytes
}

/// Butterflies of values `stride` apart.
#[inline(always)]
fn stage<T: Copy + Add<Output = T> + Sub<Output = T>>(r: &mut [T; 8], stride: usize) {
    for i in 0..8 {
        if i & stride == 0 {
            (r[i], r[i + stride]) = (r[i] + r[i + stride], r[i] - r[i + stride]);
        }
    }
}

/// All three stages of eight values.
#[inline(always)]
fn stages<T: Copy + Add<Output = T> + Sub<Output = T>>(r: &mut [T; 8]) {
    for stride in [1, 2, 4] {
        stage(r, stride);
    }
}
