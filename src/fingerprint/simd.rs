//! Fingerprints with AVX2, equal to [`super::cpu::fingerprint`] bit for bit.
//!
//! Sixteen packets lie side by side, one slot of all sixteen in one register, so that a butterfly is
//! one addition and one subtraction without a shuffle. The stages of a transform may come in any
//! order, for they work on different bits of the slot's index: `low` passes do bits 0..3 of it (eight
//! slots in a row), `high` passes bits 3..7 (sixteen slots, eight apart), so that four passes over the
//! slots do all three rounds.
//!
//! What keeps most of the 21 stages on 16 bits, where a register holds twice as many values:
//!
//! - *Norms.* A stage multiplies the L2 norm by sqrt 2, and no value exceeds the norm. The signal's is
//!   at most 127 * 2^3.5, so after the first round values are at most 127 * 2^7 = 16,256.
//! - *Halving.* All 128 outputs of a transform have the parity p of the sum of its inputs. Where the
//!   next signs d are applied, `mulhrs(x, d 2^14)` = (d x + 1) >> 1 = (d x + p) / 2, exactly, in one
//!   instruction. The surplus p / 2 in every slot is an input of its own; n stages later it is
//!   2^n p / 2 in those slots whose n bits of the index are 0, and nothing elsewhere: it is subtracted
//!   there. Halved values have the same signs. The norm with the surplus is at most
//!   (16,256 + 2^3.5) / 2 and four stages later 32,535 < 2^15: eleven stages on 16 bits.
//! - *Narrow packets.* Where all sixteen signals have a norm of at most 510, as most that come from a
//!   table do, values after the second round are at most 510 * 2^7 / 2 = 32,640. Halved again with the
//!   third signs, (32,640 + 2^3.5) / 2 grows to 32,652 in two more stages: sixteen stages on 16 bits.
//!   Wider ones go on with 32 bits after eleven; the one that widens is a multiply-add of pairs by
//!   +-1, which is widening and butterfly at once.
//!
//! The first stage is a multiply-add of pairs too, from 8 to 16 bits. The last values are packed
//! to bytes with saturation, which keeps what a bit depends on: above, equal to or below zero.
#![allow(unsafe_code)]

use super::Fingerprint;
use ndarray::ArrayView2;

/// As [`super::cpu::fingerprint`]; [`super::lanes::fingerprint`] does the work where the processor
/// has no AVX2.
///
/// # Panics
/// If the lengths differ.
pub fn fingerprint(embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return avx2::fingerprint(embeddings, out);
    }
    super::lanes::fingerprint(embeddings, out);
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "an index stands for a register and a slot")]
mod avx2 {
    use super::super::cpu::{SIGNS, TIES};
    use super::super::{BLOCKS, Fingerprint};
    use crate::embed::rows;
    use crate::limits::SLOTS;
    use ndarray::ArrayView2;
    use rayon::prelude::*;
    use std::arch::x86_64::*;
    use std::sync::LazyLock;

    /// Packets side by side: 16-bit lanes of a register.
    const LANES: usize = 16;
    /// Packets that one thread takes at a time: some 30 us of work.
    const PIECE: usize = 32 * LANES;
    /// Pairs of neighbouring slots.
    const PAIRS: usize = SLOTS / 2;
    /// Slots of a `low` pass in a row.
    const LOW: usize = 8;
    /// Half the slots of a `high` pass, which lie `LOW` apart.
    const HIGH: usize = 8;
    /// From a slot of the lower half of a `high` pass to its partner in the upper half.
    const FAR: usize = LOW * HIGH;
    /// A quarter of the squared norm up to which a packet is narrow.
    const NARROW_MAX: u16 = (510 * 510 / 4) as u16;

    /// One slot of sixteen packets, or two of eight.
    type Slots = [__m256i; SLOTS];
    /// Two neighbouring slots of sixteen packets, in bytes.
    type Pairs = [__m256i; PAIRS];
    /// 32-bit words, to be repeated over a register.
    type Words<const N: usize> = [i32; N];

    /// What one block of 128 bits needs.
    struct Tables {
        /// Signs of the first round for sum and difference of each pair, as bytes (d, d').
        first: [Words<2>; PAIRS],
        /// d 2^14 of the second and of the third round, twice 16 bits.
        halves: [Words<SLOTS>; 2],
        /// d of the third round.
        third: Words<SLOTS>,
        /// Per (slot of a low pass, half, register) the bytes above which a bit is 1.
        limits: [[[[i8; 32]; 2]; 2]; LOW],
    }

    static TABLES: LazyLock<[Tables; BLOCKS]> = LazyLock::new(|| {
        std::array::from_fn(|block| {
            let d = |round: usize, slot: usize| 2 * SIGNS[block][round][slot] as i16 + 1;
            let bytes = |x: i16, y: i16| i16::from_le_bytes([x as u8, y as u8]);
            let twice = |x: i16| bytemuck::cast::<[i16; 2], i32>([x, x]);
            Tables {
                first: std::array::from_fn(|pair| {
                    let (x, y) = (d(0, 2 * pair), d(0, 2 * pair + 1));
                    [twice(bytes(x, y)), twice(bytes(x, -y))]
                }),
                halves: [1, 2].map(|round| std::array::from_fn(|slot| twice(d(round, slot) << 14))),
                third: std::array::from_fn(|slot| i32::from(d(2, slot))),
                limits: std::array::from_fn(|low| {
                    std::array::from_fn(|half| {
                        std::array::from_fn(|register| {
                            std::array::from_fn(|byte| {
                                -TIES[block][low + LOW * octet(half, register, byte)] as i8
                            })
                        })
                    })
                }),
            }
        })
    });

    /// Which eight slots a byte of [`high_third`]'s registers stands for: the pack instructions put
    /// the values of four registers into quarters of each half of one.
    fn octet(half: usize, register: usize, byte: usize) -> usize {
        HIGH * half + register + [0, 4, 2, 6][byte % 16 / 4]
    }

    pub fn fingerprint(embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) {
        assert_eq!(embeddings.nrows(), out.len(), "one fingerprint per embedding");
        let tables = &*TABLES;
        rows(&embeddings).par_chunks(PIECE).zip(out.par_chunks_mut(PIECE)).for_each(|(rows, out)| {
            // SAFETY: the caller found AVX2.
            unsafe { piece(tables, rows, out) }
        });
    }

    /// Room for the values between two passes.
    struct Scratch {
        pairs: Pairs,
        /// 16 bits: one slot of sixteen packets.
        x: Slots,
        /// 32 bits: packets 0..4 and 8..12 of the sixteen, then the others.
        y: [Slots; 2],
    }

    #[target_feature(enable = "avx2")]
    fn piece(tables: &[Tables; BLOCKS], rows: &[[i8; SLOTS]], out: &mut [Fingerprint]) {
        let zero = _mm256_setzero_si256();
        let mut scratch = Scratch { pairs: [zero; PAIRS], x: [zero; SLOTS], y: [[zero; SLOTS]; 2] };
        let (sixteens, rest) = rows.as_chunks();
        let (outs, rest_out) = out.as_chunks_mut();
        for (rows, out) in sixteens.iter().zip(outs) {
            sixteen(tables, &mut scratch, rows, out);
        }
        if !rest.is_empty() {
            // Filled up with zeros, whose fingerprints nobody reads.
            let mut rows = [[0; SLOTS]; LANES];
            let mut out = [[0; 32]; LANES];
            rows[..rest.len()].copy_from_slice(rest);
            sixteen(tables, &mut scratch, &rows, &mut out);
            rest_out.copy_from_slice(&out[..rest.len()]);
        }
    }

    #[target_feature(enable = "avx2")]
    fn sixteen(
        tables: &[Tables; BLOCKS],
        scratch: &mut Scratch,
        rows: &[[i8; SLOTS]; LANES],
        out: &mut [Fingerprint; LANES],
    ) {
        let Scratch { pairs, x, y } = scratch;
        let narrow = transpose(rows, pairs);
        for (block, tables) in tables.iter().enumerate() {
            low_first(&tables.first, pairs, x);
            high_first_second(&tables.halves[0], x);
            if narrow {
                low_second_third_narrow(&tables.halves[1], x, y);
            } else {
                low_second_third_wide(&tables.third, x, y);
            }
            for (part, y) in y.iter().enumerate() {
                let packets = high_third(&tables.limits, y);
                for (packet, bits) in packets.into_iter().enumerate() {
                    let bits: [[u8; 16]; 2] = bytemuck::cast(bits);
                    out[4 * part + packet][16 * block..][..16].copy_from_slice(&bits[0]);
                    out[4 * part + packet + 8][16 * block..][..16].copy_from_slice(&bits[1]);
                }
            }
        }
    }

    /// Pairs of slots by (pair, packet), and whether all packets are narrow.
    #[target_feature(enable = "avx2")]
    fn transpose(rows: &[[i8; SLOTS]; LANES], pairs: &mut Pairs) -> bool {
        let mut quarter_norms = _mm256_setzero_si256();
        for (chunk, pairs) in pairs.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let part = |row: usize| -> __m128i {
                let mut part = [0; 16];
                part.copy_from_slice(&rows[row][16 * chunk..][..16]);
                bytemuck::cast(part)
            };
            let mut x = [_mm256_setzero_si256(); 8];
            for row in 0..8 {
                x[row] = _mm256_set_m128i(part(row + 8), part(row));
            }
            // Each perfect shuffle turns the six bits of (row, pair) by one place; three swap them.
            for _ in 0..3 {
                let mut y = x;
                for i in 0..4 {
                    y[2 * i] = _mm256_unpacklo_epi16(x[i], x[i + 4]);
                    y[2 * i + 1] = _mm256_unpackhi_epi16(x[i], x[i + 4]);
                }
                x = y;
            }
            *pairs = x;
            // Squares of a pair are at most 32,258. Averages round up and the sums saturate: a packet
            // may count as wide for nothing, but never as narrow.
            let mut means = [_mm256_setzero_si256(); 8];
            for i in 0..8 {
                let sizes = _mm256_abs_epi8(x[i]);
                means[i] = _mm256_maddubs_epi16(sizes, sizes);
            }
            for stride in [1, 2] {
                for i in (0..8).step_by(2 * stride) {
                    means[i] = _mm256_avg_epu16(means[i], means[i + stride]);
                }
            }
            quarter_norms = _mm256_adds_epu16(quarter_norms, _mm256_adds_epu16(means[0], means[4]));
        }
        let beyond = _mm256_subs_epu16(quarter_norms, _mm256_set1_epi16(NARROW_MAX as i16));
        _mm256_testz_si256(beyond, beyond) == 1
    }

    /// First round, bits 0..3.
    #[target_feature(enable = "avx2")]
    fn low_first(signs: &[Words<2>; PAIRS], pairs: &Pairs, x: &mut Slots) {
        let ones = _mm256_set1_epi8(1);
        let pairs = pairs.as_chunks::<{ LOW / 2 }>().0.iter().zip(signs.as_chunks::<{ LOW / 2 }>().0);
        for ((pairs, signs), x) in pairs.zip(x.as_chunks_mut::<LOW>().0) {
            let mut r = [ones; LOW];
            for k in 0..LOW {
                let signed = _mm256_sign_epi8(pairs[k / 2], _mm256_set1_epi32(signs[k / 2][k % 2]));
                r[k] = _mm256_maddubs_epi16(ones, signed);
            }
            stage_16(&mut r, 2);
            stage_16(&mut r, 4);
            *x = r;
        }
    }

    /// First round and second round, bits 3..7. Eight slots at a time, for sixteen leave no register
    /// free: bit 6 comes first in the first round and last in the second.
    #[target_feature(enable = "avx2")]
    fn high_first_second(halves: &Words<SLOTS>, x: &mut Slots) {
        for low in 0..LOW {
            let mut parity = _mm256_setzero_si256();
            let mut sides = [[parity; HIGH]; 2];
            for (half, r) in sides.iter_mut().enumerate() {
                for k in 0..HIGH {
                    let (a, b) = (x[low + LOW * k], x[low + LOW * k + FAR]);
                    r[k] = if half == 0 { _mm256_add_epi16(a, b) } else { _mm256_sub_epi16(a, b) };
                }
                for stride in [1, 2, 4] {
                    stage_16(r, stride);
                }
                parity = _mm256_and_si256(r[0], _mm256_set1_epi16(1));
                for k in 0..HIGH {
                    r[k] = _mm256_mulhrs_epi16(r[k], _mm256_set1_epi32(halves[low + LOW * k + FAR * half]));
                }
                for stride in [1, 2, 4] {
                    stage_16(r, stride);
                }
            }
            for k in 0..HIGH {
                x[low + LOW * k] = _mm256_add_epi16(sides[0][k], sides[1][k]);
                x[low + LOW * k + FAR] = _mm256_sub_epi16(sides[0][k], sides[1][k]);
            }
            // The surplus 2^4 p / 2.
            x[low] = _mm256_sub_epi16(x[low], _mm256_slli_epi16::<3>(parity));
        }
    }

    /// Second round and third round, bits 0..3, where 16 bits hold all but the last of these stages.
    #[target_feature(enable = "avx2")]
    fn low_second_third_narrow(halves: &Words<SLOTS>, x: &Slots, y: &mut [Slots; 2]) {
        let [y0, y1] = y.each_mut().map(|y| y.as_chunks_mut::<LOW>().0);
        let inputs = x.as_chunks::<LOW>().0.iter().zip(halves.as_chunks::<LOW>().0);
        for ((x, halves), (y0, y1)) in inputs.zip(y0.iter_mut().zip(y1)) {
            let mut r = *x;
            for stride in [1, 2, 4] {
                stage_16(&mut r, stride);
            }
            let parity = _mm256_and_si256(r[0], _mm256_set1_epi16(1));
            for k in 0..LOW {
                r[k] = _mm256_mulhrs_epi16(r[k], _mm256_set1_epi32(halves[k]));
            }
            stage_16(&mut r, 1);
            stage_16(&mut r, 2);
            // The surplus 2^2 p / 2.
            let surplus = _mm256_add_epi16(parity, parity);
            r[0] = _mm256_sub_epi16(r[0], surplus);
            r[4] = _mm256_sub_epi16(r[4], surplus);
            for k in 0..4 {
                [y0[k], y0[k + 4]] = widening_butterfly(_mm256_unpacklo_epi16(r[k], r[k + 4]));
                [y1[k], y1[k + 4]] = widening_butterfly(_mm256_unpackhi_epi16(r[k], r[k + 4]));
            }
        }
    }

    /// The same for packets of any norm.
    #[target_feature(enable = "avx2")]
    fn low_second_third_wide(signs: &Words<SLOTS>, x: &Slots, y: &mut [Slots; 2]) {
        for (part, y) in y.iter_mut().enumerate() {
            let inputs = x.as_chunks::<LOW>().0.iter().zip(signs.as_chunks::<LOW>().0);
            for ((x, signs), y) in inputs.zip(y.as_chunks_mut::<LOW>().0) {
                let mut r = *x;
                for k in 0..4 {
                    let (a, b) = (x[k], x[k + 4]);
                    let pairs =
                        if part == 0 { _mm256_unpacklo_epi16(a, b) } else { _mm256_unpackhi_epi16(a, b) };
                    [r[k], r[k + 4]] = widening_butterfly(pairs);
                }
                stage_32(&mut r, 1);
                stage_32(&mut r, 2);
                for k in 0..LOW {
                    r[k] = _mm256_sign_epi32(r[k], _mm256_set1_epi32(signs[k]));
                }
                for stride in [1, 2, 4] {
                    stage_32(&mut r, stride);
                }
                *y = r;
            }
        }
    }

    /// Third round, bits 3..7, and the bits: register `packet` holds those of the part's packets
    /// `packet` and `packet + 4`.
    #[target_feature(enable = "avx2")]
    fn high_third(limits: &[[[[i8; 32]; 2]; 2]; LOW], y: &Slots) -> [__m256i; 4] {
        let mut bytes = [[_mm256_setzero_si256(); 2]; 2];
        for low in 0..LOW {
            for half in 0..2 {
                let mut r = [_mm256_setzero_si256(); HIGH];
                for k in 0..HIGH {
                    let (a, b) = (y[low + LOW * k], y[low + LOW * k + FAR]);
                    r[k] = if half == 0 { _mm256_add_epi32(a, b) } else { _mm256_sub_epi32(a, b) };
                }
                for stride in [1, 2, 4] {
                    stage_32(&mut r, stride);
                }
                for register in 0..2 {
                    let pack = |k: usize| _mm256_packs_epi32(r[k], r[k + 4]);
                    let values = _mm256_packs_epi16(pack(register), pack(register + 2));
                    let above = _mm256_cmpgt_epi8(values, bytemuck::cast(limits[low][half][register]));
                    // (byte + 255 + 1) >> 1 sets the highest bit and moves the others down, and so
                    // does (byte + 0 + 1) >> 1 without setting it, while bit 0 is still empty.
                    bytes[half][register] = _mm256_avg_epu8(bytes[half][register], above);
                }
            }
        }
        // From the order of `octet` to sixteen bytes of each packet.
        let halves = bytes.map(|[a, b]| {
            let (even, odd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
            let (first, second) = (_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd));
            [_mm256_unpacklo_epi32(first, second), _mm256_unpackhi_epi32(first, second)]
        });
        let [[a, b], [c, d]] = halves;
        [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ]
    }

    /// Sum and difference of pairs of 16 bits in 32 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn widening_butterfly(pairs: __m256i) -> [__m256i; 2] {
        let sum = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x0001_0001));
        let difference = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0xFFFF_0001_u32 as i32));
        [sum, difference]
    }

    /// Butterflies of registers `stride` apart, on lanes of 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn stage_16(r: &mut [__m256i; 8], stride: usize) {
        for i in 0..8 {
            if i & stride == 0 {
                let (a, b) = (r[i], r[i + stride]);
                r[i] = _mm256_add_epi16(a, b);
                r[i + stride] = _mm256_sub_epi16(a, b);
            }
        }
    }

    /// The same on lanes of 32 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn stage_32(r: &mut [__m256i; 8], stride: usize) {
        for i in 0..8 {
            if i & stride == 0 {
                let (a, b) = (r[i], r[i + stride]);
                r[i] = _mm256_add_epi32(a, b);
                r[i + stride] = _mm256_sub_epi32(a, b);
            }
        }
    }
}
