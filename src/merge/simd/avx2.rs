//! Sixteen packets at a time with AVX2.
//!
//! D = |q|^2 + |p|^2 - 2 q p, by `madd`, which multiplies 16-bit numbers and adds neighbours in 32
//! bits; five questions share the packets' registers, two of eight packets. The distance is bound by
//! the two units that multiply: of all tiles that fit sixteen registers, 5 x 2 came nearest to them.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "an index stands for a register in several arrays")]

use super::super::block::{DIGIT_BITS, DIGIT_MAX, Factors, Row, Shared, Unit};
use super::super::groups::{GROUP, Group, PAIRS};
use super::super::tally::ROW_HEAD;
use crate::limits::KERNEL_ENTRIES;
use std::arch::x86_64::*;
use std::ops::Range;

/// Proof that the processor has AVX2: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    pub fn detect() -> Option<Avx2> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }
}

impl Unit for Avx2 {
    fn distances(self, shared: &Shared, questions: Range<usize>, group: usize, out: &mut [[u32; GROUP]]) {
        let centres = &shared.columns.balls().centres().groups()[group];
        // SAFETY: `self` exists only where the processor has AVX2.
        unsafe { distances(shared, questions, centres, out) }
    }

    fn indices(
        self,
        shared: &Shared,
        first: usize,
        near: &[u16],
        group: usize,
        rows: &mut [Row],
        place: usize,
    ) {
        let packets = &shared.columns.groups().groups()[group];
        // SAFETY: `self` exists only where the processor has AVX2.
        unsafe { indices(shared, first, near, packets, rows, place) }
    }

    fn weigh(self, shared: &Shared, gains: &[[i16; GROUP]], row: &mut Row) -> bool {
        // SAFETY: `self` exists only where the processor has AVX2.
        unsafe { weigh(shared, gains, row) }
    }

    fn sum(self, factors: &Factors, weights: &[[u16; GROUP]], cells: &mut [u64]) {
        // SAFETY: `self` exists only where the processor has AVX2.
        unsafe { sum(factors, weights, cells) }
    }
}

/// Questions that share a packet's registers.
const TILE: usize = 5;

#[target_feature(enable = "avx2")]
fn distances(shared: &Shared, questions: Range<usize>, group: &Group, out: &mut [[u32; GROUP]]) {
    let mut out = out;
    let mut first = questions.start;
    while first < questions.end {
        let taken = match questions.end - first {
            1 => store([first], shared, group, out),
            2 => store([first, first + 1], shared, group, out),
            3 => store([first, first + 1, first + 2], shared, group, out),
            4 => store([first, first + 1, first + 2, first + 3], shared, group, out),
            _ => store([first, first + 1, first + 2, first + 3, first + 4], shared, group, out),
        };
        first += taken;
        out = &mut out[taken..];
    }
}

/// The distances of Q questions, and Q.
#[inline]
#[target_feature(enable = "avx2")]
fn store<const Q: usize>(
    questions: [usize; Q],
    shared: &Shared,
    group: &Group,
    out: &mut [[u32; GROUP]],
) -> usize {
    measure(shared, questions, group, |q, a, b| out[q] = bytemuck::cast([a, b]));
    Q
}

#[target_feature(enable = "avx2")]
fn indices(shared: &Shared, first: usize, near: &[u16], group: &Group, rows: &mut [Row], place: usize) {
    for near in near.chunks(TILE) {
        match *near {
            [a, b, c, d, e] => tile(shared, first, [a, b, c, d, e], group, rows, place),
            [a, b, c, d] => tile(shared, first, [a, b, c, d], group, rows, place),
            [a, b, c] => tile(shared, first, [a, b, c], group, rows, place),
            [a, b] => tile(shared, first, [a, b], group, rows, place),
            [a] => tile(shared, first, [a], group, rows, place),
            _ => {}
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn tile<const Q: usize>(
    shared: &Shared,
    first: usize,
    near: [u16; Q],
    group: &Group,
    rows: &mut [Row],
    place: usize,
) {
    let shift = _mm_cvtsi32_si128(i32::from(shared.job.kernel.shift));
    let mut questions = [0; Q];
    for q in 0..Q {
        questions[q] = first + usize::from(near[q]);
    }
    measure(shared, questions, group, |q, a, b| {
        let (a, b) = (_mm256_srl_epi32(a, shift), _mm256_srl_epi32(b, shift));
        // Packing saturates, and takes the halves of its registers in turn.
        let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
        let index = _mm256_min_epu16(both, _mm256_set1_epi16(KERNEL_ENTRIES as i16 - 1));
        rows[usize::from(near[q])][place] = bytemuck::cast(index);
    });
}

/// Hands on the squared distances of each of Q questions from sixteen packets, eight and eight.
#[inline]
#[target_feature(enable = "avx2")]
fn measure<const Q: usize>(
    shared: &Shared,
    questions: [usize; Q],
    group: &Group,
    mut done: impl FnMut(usize, __m256i, __m256i),
) {
    let norms: [__m256i; 2] = bytemuck::cast(group.norms);
    let mut sums = [norms; Q];
    let mut pairs = [&shared.questions[questions[0]].pairs; Q];
    for q in 1..Q {
        pairs[q] = &shared.questions[questions[q]].pairs;
    }
    for k in 0..PAIRS {
        let [a, b]: [__m128i; 2] = bytemuck::cast(group.pairs[k]);
        let packets = [_mm256_cvtepi8_epi16(a), _mm256_cvtepi8_epi16(b)];
        for q in 0..Q {
            let pair = _mm256_set1_epi32(bytemuck::cast(pairs[q][k]));
            for i in 0..2 {
                sums[q][i] = _mm256_add_epi32(sums[q][i], _mm256_madd_epi16(packets[i], pair));
            }
        }
    }
    for q in 0..Q {
        let norm = _mm256_set1_epi32(shared.norms[questions[q]] as i32);
        done(q, _mm256_add_epi32(sums[q][0], norm), _mm256_add_epi32(sums[q][1], norm));
    }
}

#[target_feature(enable = "avx2")]
fn weigh(shared: &Shared, gains: &[[i16; GROUP]], row: &mut Row) -> bool {
    let support = _mm256_set1_epi16(shared.support as i16);
    let mut any = _mm256_setzero_si256();
    for (lanes, gains) in row.iter_mut().zip(gains) {
        let inside = _mm256_cmpgt_epi16(support, bytemuck::cast(*lanes));
        if _mm256_testz_si256(inside, inside) == 1 {
            *lanes = [0; GROUP];
            continue;
        }
        let kernel = look_up(&shared.table, lanes);
        // (2k * 4g + 2^14) >> 15 = (k g + 2048) >> 12.
        let weights = _mm256_mulhrs_epi16(kernel, bytemuck::cast(*gains));
        any = _mm256_or_si256(any, weights);
        *lanes = bytemuck::cast(weights);
    }
    _mm256_testz_si256(any, any) == 0
}

/// Entries of the table, one by one: a gather is no faster, and far slower where it has been mended.
/// Indices are taken from whole words and entries inserted lane by lane: through memory, a wide read
/// would wait for all the narrow writes.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(table: &[i16; KERNEL_ENTRIES], indices: &[u16; GROUP]) -> __m256i {
    let words: [u64; GROUP / 4] = bytemuck::cast(*indices);
    let mut x = [0; GROUP];
    for i in 0..GROUP {
        x[i] = table[(words[i / 4] >> (16 * (i % 4))) as usize % KERNEL_ENTRIES];
    }
    _mm256_setr_epi16(
        x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], x[9], x[10], x[11], x[12], x[13], x[14], x[15],
    )
}

#[target_feature(enable = "avx2")]
fn sum(factors: &Factors, weights: &[[u16; GROUP]], cells: &mut [u64]) {
    let (head, sums) = cells.split_at_mut(ROW_HEAD);
    let (zero, one) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
    let [mut count, mut all, mut squares, mut cases] = [zero; 4];
    for (index, &lanes) in weights.iter().enumerate() {
        let w: __m256i = bytemuck::cast(lanes);
        count = _mm256_sub_epi16(count, _mm256_cmpgt_epi16(w, zero));
        all = add_products(all, w, one);
        match &factors.several {
            None => squares = add_products(squares, w, w),
            Some(several) => cases = add_products(cases, w, bytemuck::cast(several.cases[index])),
        }
    }
    let [count, all, squares, cases] = sum_lanes([_mm256_madd_epi16(count, one), all, squares, cases]);
    head[0] += count;
    match &factors.several {
        None => {
            head[1] += all;
            head[2] += squares;
        }
        Some(several) => {
            head[1] += cases;
            for digit in 0..several.digits {
                let place = digit * DIGIT_BITS;
                let shift = _mm_cvtsi32_si128(place as i32);
                let mut squares = zero;
                for (&lanes, &cases) in weights.iter().zip(several.cases) {
                    let n = _mm256_srl_epi16(bytemuck::cast(cases), shift);
                    let n = _mm256_and_si256(n, _mm256_set1_epi16(DIGIT_MAX as i16));
                    let w: __m256i = bytemuck::cast(lanes);
                    squares = add_products(squares, w, _mm256_mullo_epi16(w, n));
                }
                head[2] += sum_lanes([squares, zero, zero, zero])[0] << place;
            }
            add_columns(several.high, weights, sums, |sum, part| *sum += part << 16);
        }
    }
    // The 32,768 that each value lacks.
    let offset = all << 15;
    add_columns(factors.low, weights, sums, |sum, part| *sum = sum.wrapping_add(part.wrapping_add(offset)));
}

/// Weighted sums of each column, eight at a time and the rest by halves.
#[inline]
#[target_feature(enable = "avx2")]
fn add_columns(
    planes: &[[i16; GROUP]],
    weights: &[[u16; GROUP]],
    sums: &mut [u64],
    add: impl Fn(&mut u64, u64) + Copy,
) {
    let columns = sums.len();
    let mut first = 0;
    while first < columns {
        let sums = &mut sums[first..];
        let (parts, taken) = match columns - first {
            8.. => (column_sums::<8>(planes, columns, first, weights), 8),
            4.. => (column_sums::<4>(planes, columns, first, weights), 4),
            2.. => (column_sums::<2>(planes, columns, first, weights), 2),
            _ => (column_sums::<1>(planes, columns, first, weights), 1),
        };
        for i in 0..taken {
            add(&mut sums[i], parts.as_flattened()[i]);
        }
        first += taken;
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn column_sums<const C: usize>(
    planes: &[[i16; GROUP]],
    columns: usize,
    first: usize,
    weights: &[[u16; GROUP]],
) -> [[u64; 4]; 2] {
    let mut sums = [_mm256_setzero_si256(); 8];
    let mut at = first;
    for &w in weights {
        let planes = &planes[at..at + C];
        for c in 0..C {
            sums[c] = add_products(sums[c], bytemuck::cast(w), bytemuck::cast(planes[c]));
        }
        at += columns;
    }
    let [a, b, c, d, e, f, g, h] = sums;
    [sum_lanes([a, b, c, d]), if C > 4 { sum_lanes([e, f, g, h]) } else { [0; 4] }]
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_products(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
}

/// The sums of each register's eight signed lanes, two's complement.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_lanes(x: [__m256i; 4]) -> [u64; 4] {
    // Each lane 2^31 larger is unsigned, and widens by a mask.
    let low = _mm256_set1_epi64x(0xFFFF_FFFF);
    let x = x.map(|x| {
        let x = _mm256_xor_si256(x, _mm256_set1_epi32(i32::MIN));
        _mm256_add_epi64(_mm256_and_si256(x, low), _mm256_srli_epi64::<32>(x))
    });
    let pair = |a, b| _mm256_add_epi64(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let (a, b) = (pair(x[0], x[1]), pair(x[2], x[3]));
    let halves = (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b));
    let sums = _mm256_add_epi64(halves.0, halves.1);
    bytemuck::cast(_mm256_sub_epi64(sums, _mm256_set1_epi64x(8 << 31)))
}
