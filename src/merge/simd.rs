//! Merges with AVX2, equal to [`super::cpu::merge`] bit for bit.
//!
//! Packets are weighed in blocks of 128, four questions at a time, and then summed along the packets
//! with `madd`, which multiplies 16-bit numbers and adds neighbours in 32 bits. Values are taken
//! apart into bytes and numbers of cases into octal digits, so that no lane overflows within a block.
//! Spans that lie one behind the other and have the same questions (one per author is the usual
//! job) are weighed as one.
#![allow(unsafe_code)]

use super::cpu::Job;
use super::tally::Tallies;

/// As [`super::cpu::merge`], which also does the work where the processor has no AVX2.
///
/// # Panics
/// If the job's shapes do not fit ([`Job::check`]).
pub fn merge(job: &Job) -> Tallies {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && avx2::fits(job) {
        return avx2::merge(job);
    }
    super::cpu::merge(job)
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "an index stands for a register in several arrays")]
mod avx2 {
    use super::super::cpu::{Job, Span};
    use super::super::tally::{ROW_HEAD, Tallies};
    use crate::embed::rows;
    use crate::limits::{CASES_MAX, KERNEL_ENTRIES, SLOTS, WEIGHT_ONE};
    use rayon::prelude::*;
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Packets that are weighed at a time: their embeddings fit the first cache.
    pub const BLOCK: usize = 128;
    /// Questions that share the loads of a packet.
    const TILE: usize = 4;
    /// Lanes of 16 bits.
    const LANES: usize = 16;
    const VECTORS: usize = BLOCK / LANES;
    /// Fewer packets than this are summed one by one.
    const VECTOR_PACKETS_MIN: usize = 12;
    /// Pairs that one thread takes at a time, about.
    const PIECE_PAIRS: usize = 1 << 16;
    const PIECE_PACKETS: usize = 64 * BLOCK;
    const PIECE_QUERIES: usize = 64;

    /// The number of cases is taken in digits of three bits: times a weight, a digit stays within 15.
    const DIGIT_BITS: u32 = 3;
    const DIGIT_MAX: u16 = (1 << DIGIT_BITS) - 1;
    const _: () = assert!((WEIGHT_ONE as u32) * (DIGIT_MAX as u32) < 1 << 15);
    // The largest sum of one lane over a block: w w n.
    const _: () = assert!(
        (2 * VECTORS as u64) * (WEIGHT_ONE as u64) * (WEIGHT_ONE as u64) * (DIGIT_MAX as u64) < 1 << 31
    );

    /// Numbers of a block, one per packet.
    type Lanes = [[i16; LANES]; VECTORS];

    /// Spans of the same questions whose packets lie one behind the other.
    struct Stretch<'a> {
        spans: &'a [Span],
        queries: Range<usize>,
        packets: Range<usize>,
    }

    /// What all blocks of a job share.
    struct Shared<'a, 'b> {
        job: &'a Job<'b>,
        embeddings: &'a [[i8; SLOTS]],
        /// Questions widened to 16 bits.
        queries: Vec<[[i16; LANES]; SLOTS / LANES]>,
        values: &'a [u16],
        /// Twice the kernel's table.
        table: [i16; KERNEL_ENTRIES],
    }

    /// Whether the factors keep to their documented ranges, on which the widths below rest.
    pub fn fits(job: &Job) -> bool {
        job.gains.iter().all(|&gain| gain <= WEIGHT_ONE)
            && job.columns.cases().iter().all(|&cases| cases <= CASES_MAX)
            && job.kernel.table.iter().all(|&weight| weight <= WEIGHT_ONE)
            && job.kernel.table.len() == KERNEL_ENTRIES
    }

    pub fn merge(job: &Job) -> Tallies {
        job.check();
        let widen = |row: &[i8; SLOTS]| bytemuck::cast::<[i16; SLOTS], _>(row.map(i16::from));
        let (embeddings, values) = (job.columns.embeddings(), job.columns.values());
        let shared = Shared {
            job,
            embeddings: rows(&embeddings),
            queries: rows(&job.queries).iter().map(widen).collect(),
            values: values.as_slice().expect("rows in standard order"),
            table: std::array::from_fn(|i| 2 * job.kernel.table[i] as i16),
        };
        let mut tallies = Tallies::zero(job.rows(), job.columns.values().ncols());
        let stride = tallies.stride();
        let mut rest = tallies.cells_mut();
        let mut work = Vec::new();
        for stretch in stretches(job.spans) {
            let (cells, behind) = rest.split_at_mut(stretch.spans.len() * stretch.queries.len() * stride);
            rest = behind;
            work.push((stretch, cells));
        }
        work.into_par_iter().for_each(|(stretch, cells)| {
            if stretch.packets.len() * stretch.queries.len() <= 2 * PIECE_PAIRS || stretch.spans.len() > 1 {
                // SAFETY: the caller found AVX2.
                unsafe { add(&shared, &stretch, cells) }
            } else {
                let queries = stretch.queries.clone();
                cells.par_chunks_mut(PIECE_QUERIES * stride).enumerate().for_each(|(index, cells)| {
                    let first = queries.start + index * PIECE_QUERIES;
                    let last = (first + PIECE_QUERIES).min(queries.end);
                    add_pieces(&shared, first..last, stretch.packets.clone(), cells);
                });
            }
        });
        tallies
    }

    /// Neighbouring spans of the same questions together, as long as the work stays one thread's.
    fn stretches(spans: &[Span]) -> Vec<Stretch<'_>> {
        let mut stretches = Vec::new();
        let mut first = 0;
        for index in 1..=spans.len() {
            let (start, last) = (&spans[first], &spans[index - 1]);
            let joined = spans.get(index).is_some_and(|next| {
                next.queries == start.queries
                    && next.packets.start == last.packets.end
                    && next.packets.start <= next.packets.end
                    && last.packets.start <= last.packets.end
                    && (next.packets.end - start.packets.start) * start.queries.len() <= PIECE_PAIRS
            });
            if !joined {
                stretches.push(Stretch {
                    spans: &spans[first..index],
                    queries: start.queries.clone(),
                    packets: start.packets.start..last.packets.end,
                });
                first = index;
            }
        }
        stretches
    }

    /// Many packets of one span: the sum of its pieces, exact in any order.
    fn add_pieces(shared: &Shared, queries: Range<usize>, packets: Range<usize>, cells: &mut [u64]) {
        let pieces = packets.len().div_ceil(PIECE_PACKETS);
        let length = cells.len();
        let piece = |index: usize| {
            let start = packets.start + index * PIECE_PACKETS;
            let packets = start..(start + PIECE_PACKETS).min(packets.end);
            let spans = [Span { queries: queries.clone(), packets: packets.clone() }];
            let mut cells = vec![0; length];
            // SAFETY: the caller found AVX2.
            unsafe { add(shared, &Stretch { spans: &spans, queries: queries.clone(), packets }, &mut cells) };
            cells
        };
        let add = |mut a: Vec<u64>, b: Vec<u64>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        };
        let sum = (0..pieces).into_par_iter().map(piece).reduce(|| vec![0; length], add);
        cells.copy_from_slice(&sum);
    }

    /// The packets of a block, as the sums need them.
    struct Block {
        packets: Range<usize>,
        /// Four times the gains; 0 behind the last packet.
        gains: Lanes,
        /// Cases; anything behind the last packet.
        cases: Lanes,
        digits: u32,
        /// Per column the lower and the upper bytes of the values; empty until a sum needs them.
        values: Vec<[Lanes; 2]>,
        has_values: bool,
    }

    /// Adds a stretch to its rows of cells: for each span in order, one per question.
    #[target_feature(enable = "avx2")]
    fn add(shared: &Shared, stretch: &Stretch, cells: &mut [u64]) {
        let columns = shared.job.columns.values().ncols();
        let stride = ROW_HEAD + columns;
        let questions = stretch.queries.len();
        let mut block = Block {
            packets: 0..0,
            gains: [[0; LANES]; VECTORS],
            cases: [[0; LANES]; VECTORS],
            digits: 0,
            values: Vec::new(),
            has_values: false,
        };
        // The first span that reaches into the block.
        let mut first_span = 0;
        for start in stretch.packets.clone().step_by(BLOCK) {
            block.set(shared, start..(start + BLOCK).min(stretch.packets.end));
            while stretch.spans[first_span].packets.end <= start {
                first_span += 1;
            }
            for tile in (0..questions).step_by(TILE) {
                let count = (questions - tile).min(TILE);
                let weights = weigh(shared, &block, stretch.queries.start + tile, count);
                for (question, weights) in weights[..count].iter().enumerate() {
                    if is_zero(weights) {
                        continue;
                    }
                    for (index, span) in stretch.spans.iter().enumerate().skip(first_span) {
                        if span.packets.start >= block.packets.end {
                            break;
                        }
                        let row = index * questions + tile + question;
                        let cells = &mut cells[row * stride..][..stride];
                        let from = span.packets.start.max(start) - start;
                        let to = span.packets.end.min(block.packets.end) - start;
                        if to.saturating_sub(from) < VECTOR_PACKETS_MIN {
                            sum_singly(shared, &block, weights, from..to, cells);
                        } else if (from, to) == (0, block.packets.len()) {
                            sum(shared, &mut block, weights, cells);
                        } else {
                            let mut inside = *weights;
                            inside.as_flattened_mut()[..from].fill(0);
                            inside.as_flattened_mut()[to..].fill(0);
                            sum(shared, &mut block, &inside, cells);
                        }
                    }
                }
            }
        }
    }

    impl Block {
        #[inline]
        #[target_feature(enable = "avx2")]
        fn set(&mut self, shared: &Shared, packets: Range<usize>) {
            let gains = self.gains.as_flattened_mut();
            for (to, &gain) in gains.iter_mut().zip(&shared.job.gains[packets.clone()]) {
                *to = 4 * gain as i16;
            }
            gains[packets.len()..].fill(0);
            let mut all = 0;
            for (to, &cases) in
                self.cases.as_flattened_mut().iter_mut().zip(&shared.job.columns.cases()[packets.clone()])
            {
                *to = cases as i16;
                all |= cases;
            }
            self.digits = (u16::BITS - all.leading_zeros()).div_ceil(DIGIT_BITS);
            self.has_values = false;
            self.packets = packets;
        }

        /// Turns the rows of values into columns, eight at a time and the rest by halves.
        #[target_feature(enable = "avx2")]
        fn set_values(&mut self, shared: &Shared) {
            let columns = shared.job.columns.values().ncols();
            self.values.resize(columns, [[[0; LANES]; VECTORS]; 2]);
            let rows = &shared.values[self.packets.start * columns..self.packets.end * columns];
            let mut first = 0;
            while first < columns {
                let out = &mut self.values[first..];
                first += match columns - first {
                    8.. => set_columns::<8>(rows, columns, first, out),
                    4.. => set_columns::<4>(rows, columns, first, out),
                    2.. => set_columns::<2>(rows, columns, first, out),
                    _ => set_columns::<1>(rows, columns, first, out),
                };
            }
            self.has_values = true;
        }
    }

    /// Turns K columns from `first` on, and returns K.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn set_columns<const K: usize>(
        rows: &[u16],
        columns: usize,
        first: usize,
        out: &mut [[Lanes; 2]],
    ) -> usize {
        for (index, eight) in rows.chunks(8 * columns).enumerate() {
            let mut x = [_mm_setzero_si128(); 8];
            for (x, row) in x.iter_mut().zip(eight.chunks_exact(columns)) {
                let mut part = [0u16; 8];
                part[..K].copy_from_slice(&row[first..first + K]);
                *x = bytemuck::cast(part);
            }
            // Perfect shuffles, as those of fingerprints: three swap the bits of (row, column).
            for _ in 0..3 {
                let mut y = x;
                for i in 0..4 {
                    y[2 * i] = _mm_unpacklo_epi16(x[i], x[i + 4]);
                    y[2 * i + 1] = _mm_unpackhi_epi16(x[i], x[i + 4]);
                }
                x = y;
            }
            for (out, x) in out[..K].iter_mut().zip(x) {
                let parts = [_mm_and_si128(x, _mm_set1_epi16(0xFF)), _mm_srli_epi16::<8>(x)];
                for (out, part) in out.iter_mut().zip(parts) {
                    let part: [i16; 8] = bytemuck::cast(part);
                    out.as_flattened_mut()[8 * index..][..8].copy_from_slice(&part);
                }
            }
        }
        K
    }

    /// The weights of a block's packets for up to four questions.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn weigh(shared: &Shared, block: &Block, first: usize, count: usize) -> [Lanes; TILE] {
        let packets = &shared.embeddings[block.packets.clone()];
        let queries = &shared.queries[first..first + count];
        let mut distances = [[0; BLOCK]; TILE];
        match queries {
            [a] => measure::<1, 8>([a], packets, &mut distances),
            [a, b] => measure::<2, 4>([a, b], packets, &mut distances),
            [a, b, c] => measure::<4, 2>([a, b, c, c], packets, &mut distances),
            [a, b, c, d, ..] => measure::<4, 2>([a, b, c, d], packets, &mut distances),
            [] => {}
        }
        let mut weights = [[[0; LANES]; VECTORS]; TILE];
        let shift = _mm_cvtsi32_si128(i32::from(shared.job.kernel.shift));
        let last = _mm256_set1_epi32(KERNEL_ENTRIES as i32 - 1);
        for (weights, distances) in weights[..count].iter_mut().zip(&distances) {
            let indices: &[[i32; LANES / 2]] = distances.as_chunks().0;
            for ((weights, distances), gains) in
                weights.iter_mut().zip(indices.as_chunks::<2>().0).zip(&block.gains)
            {
                let indices: [[u32; LANES / 2]; 2] = distances.map(|distances| {
                    let index = _mm256_srl_epi32(bytemuck::cast(distances), shift);
                    bytemuck::cast(_mm256_min_epu32(index, last))
                });
                // One by one: a gather is no faster, and far slower where it has been mended.
                let mut kernel = [0; LANES];
                for (kernel, &index) in kernel.iter_mut().zip(indices.as_flattened()) {
                    *kernel = shared.table[index as usize % KERNEL_ENTRIES];
                }
                // (2k * 4g + 2^14) >> 15 = (k g + 2048) >> 12.
                let weight = _mm256_mulhrs_epi16(bytemuck::cast(kernel), bytemuck::cast(*gains));
                *weights = bytemuck::cast(weight);
            }
        }
        weights
    }

    /// Squared distances of Q questions from the packets of a block, P packets at a time. Whatever
    /// stands behind the last packet is of no use, but within a distance's bounds.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn measure<const Q: usize, const P: usize>(
        queries: [&[[i16; LANES]; SLOTS / LANES]; Q],
        packets: &[[i8; SLOTS]],
        out: &mut [[i32; BLOCK]; TILE],
    ) {
        const { assert!(Q * P == 8 && Q <= TILE) };
        for start in (0..packets.len()).step_by(P) {
            let rows: [&[i8; SLOTS]; P] =
                std::array::from_fn(|j| &packets[(start + j).min(packets.len() - 1)]);
            let mut sums = [_mm256_setzero_si256(); 8];
            for part in 0..SLOTS / LANES {
                let mut wide = [_mm256_setzero_si256(); P];
                for j in 0..P {
                    let lanes: &[[i8; LANES]] = rows[j].as_chunks().0;
                    wide[j] = _mm256_cvtepi8_epi16(bytemuck::cast(lanes[part]));
                }
                for q in 0..Q {
                    let query = bytemuck::cast(queries[q][part]);
                    for j in 0..P {
                        let difference = _mm256_sub_epi16(query, wide[j]);
                        let square = _mm256_madd_epi16(difference, difference);
                        sums[q * P + j] = _mm256_add_epi32(sums[q * P + j], square);
                    }
                }
            }
            let sums: [i32; 8] = bytemuck::cast(sum_each(sums));
            for q in 0..Q {
                out[q][start..start + P].copy_from_slice(&sums[q * P..][..P]);
            }
        }
    }

    /// The sum of each of eight registers, in order.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sum_each(x: [__m256i; 8]) -> __m256i {
        let pair = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let four = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        let a = four(pair(x[0], x[1]), pair(x[2], x[3]));
        let b = four(pair(x[4], x[5]), pair(x[6], x[7]));
        _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn is_zero(lanes: &Lanes) -> bool {
        let all = lanes.iter().fold(_mm256_setzero_si256(), |all, &lanes| {
            _mm256_or_si256(all, bytemuck::cast::<[i16; LANES], __m256i>(lanes))
        });
        _mm256_testz_si256(all, all) == 1
    }

    /// A few packets, as the law does it.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sum_singly(shared: &Shared, block: &Block, weights: &Lanes, packets: Range<usize>, cells: &mut [u64]) {
        let columns = shared.job.columns.values().ncols();
        let (head, sums) = cells.split_at_mut(ROW_HEAD);
        for index in packets {
            let w = weights.as_flattened()[index] as u64;
            if w == 0 {
                continue;
            }
            let packet = block.packets.start + index;
            let wn = w * u64::from(shared.job.columns.cases()[packet]);
            head[0] += 1;
            head[1] += wn;
            head[2] += w * wn;
            for (sum, &x) in sums.iter_mut().zip(&shared.values[packet * columns..][..columns]) {
                *sum += wn * u64::from(x);
            }
        }
    }

    /// All packets of a block; a weight of 0 adds nothing.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sum(shared: &Shared, block: &mut Block, weights: &Lanes, cells: &mut [u64]) {
        if !block.has_values {
            block.set_values(shared);
        }
        let (head, sums) = cells.split_at_mut(ROW_HEAD);
        let zero = _mm256_setzero_si256();
        let weights: [__m256i; VECTORS] = bytemuck::cast(*weights);
        let mut count = zero;
        for w in weights {
            count = _mm256_sub_epi16(count, _mm256_cmpgt_epi16(w, zero));
        }
        head[0] += sum_lanes(_mm256_madd_epi16(count, _mm256_set1_epi16(1)));
        for digit in 0..block.digits {
            let place = digit * DIGIT_BITS;
            let mut wn = weights;
            for (wn, &cases) in wn.iter_mut().zip(&block.cases) {
                let shift = _mm_cvtsi32_si128(place as i32);
                let n = _mm256_srl_epi16(bytemuck::cast(cases), shift);
                let n = _mm256_and_si256(n, _mm256_set1_epi16(DIGIT_MAX as i16));
                *wn = _mm256_mullo_epi16(*wn, n);
            }
            let ones = [_mm256_set1_epi16(1); VECTORS];
            head[1] += sum_lanes(products(&wn, &ones)) << place;
            head[2] += sum_lanes(products(&wn, &weights)) << place;
            for (sum, [low, high]) in sums.iter_mut().zip(&block.values) {
                let low = sum_lanes(products(&wn, &bytemuck::cast(*low)));
                let high = sum_lanes(products(&wn, &bytemuck::cast(*high)));
                *sum += (low + (high << 8)) << place;
            }
        }
    }

    /// Products of a block, summed within eight lanes; below 2^31 for the factors here.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn products(a: &[__m256i; VECTORS], b: &[__m256i; VECTORS]) -> __m256i {
        let mut sum = _mm256_setzero_si256();
        for (&a, &b) in a.iter().zip(b) {
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
        }
        sum
    }

    /// The sum of eight unsigned lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sum_lanes(x: __m256i) -> u64 {
        let even = _mm256_and_si256(x, _mm256_set1_epi64x(0xFFFF_FFFF));
        let sums: [u64; 4] = bytemuck::cast(_mm256_add_epi64(even, _mm256_srli_epi64::<32>(x)));
        sums.iter().sum()
    }
}
