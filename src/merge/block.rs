//! Walks a stretch block by block: which packets are near, how much they weigh, what they sum to.
//!
//! What is done for sixteen packets side by side is a [`Unit`]'s: [`super::simd`] has one for AVX2,
//! [`super::lanes`] one in plain Rust. Everything around it, the proof that packets may be skipped
//! and the borders of spans, is here, once.
//!
//! A block is up to 128 packets, whose sums fit 32 bits: w <= 2^12, and a value less 32,768 lies in
//! [-2^15, 2^15), so a register's lane, which takes two products of each of eight groups, stays
//! within [-2^31, 2^31). The offset comes back exactly as 32,768 times the sum of the weights.

use super::columns::Columns;
use super::cpu::Job;
use super::groups::{GROUP, PAIRS};
use super::reach::{Reach, support};
use super::stretch::{Stretch, tally};
use super::tally::{ROW_HEAD, Tallies};
use crate::embed::rows;
use crate::limits::{CASES_MAX, KERNEL_ENTRIES, SLOTS, WEIGHT_ONE};
use std::ops::Range;

/// Groups of a block.
pub const GROUPS: usize = 8;
const BLOCK: usize = GROUPS * GROUP;
/// Questions that go through a block together.
const QUESTIONS: usize = 40;
/// Fewer packets of a span than this are summed one by one.
const VECTOR_PACKETS_MIN: usize = 12;

/// Bounds of balls that are tried before it is known whether they pay, and the share that must.
const TRIED_MIN: u64 = 2_048;
const SKIPPED_SHARE_MIN: u64 = 8;

// A group's two lanes, for each of the groups.
const _: () = assert!(2 * GROUPS as i64 * WEIGHT_ONE as i64 * (1 << 15) <= 1 << 31);
const _: () = assert!(2 * GROUPS as i64 * WEIGHT_ONE as i64 * (CASES_MAX as i64) < 1 << 31);

/// One number per packet of a block.
pub type Row<T = u16> = [[T; GROUP]; GROUPS];

/// A question as units read it.
#[repr(C, align(64))]
pub struct Question {
    /// -2 q, so that D = |q|^2 + |p|^2 + (-2 q) p.
    pub pairs: [[i16; 2]; PAIRS],
}

/// What all blocks of a job share.
pub struct Shared<'a, 'b> {
    pub job: &'a Job<'b>,
    pub columns: &'a Columns,
    pub questions: Vec<Question>,
    /// |q|^2 of each.
    pub norms: Vec<u32>,
    /// Twice the kernel's table.
    pub table: [i16; KERNEL_ENTRIES],
    /// Entries of the table up to the last that is not 0.
    pub support: u16,
    reach: Option<Reach>,
    pub embeddings: &'a [[i8; SLOTS]],
    values: &'a [u16],
}

/// The packets of a block, as sums need them.
pub struct Factors<'a> {
    pub columns: usize,
    /// Values less 32,768 for packets of one case; else the lower 16 bits of n x less 32,768. Groups x
    /// columns.
    pub low: &'a [[i16; GROUP]],
    /// Where a packet has several cases.
    pub several: Option<Several<'a>>,
}

/// Packets of several cases: n x has up to 28 bits.
pub struct Several<'a> {
    pub cases: &'a [[u16; GROUP]],
    /// The upper bits of n x, as [`Factors::low`].
    pub high: &'a [[i16; GROUP]],
    /// The number of cases is taken in so many digits of [`DIGIT_BITS`], where lanes are narrow.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "plain Rust has wide lanes"))]
    pub digits: u32,
}

/// A weight times a digit stays within 15 bits.
pub const DIGIT_BITS: u32 = 3;
pub const DIGIT_MAX: u16 = (1 << DIGIT_BITS) - 1;
const _: () = assert!((WEIGHT_ONE as u32) * (DIGIT_MAX as u32) < 1 << 15);
// The largest sum of one lane over a block: w w n.
const _: () =
    assert!(2 * GROUPS as u64 * (WEIGHT_ONE as u64) * (WEIGHT_ONE as u64) * (DIGIT_MAX as u64) < 1 << 31);

/// What is done for sixteen packets at a time.
pub trait Unit: Copy + Sync {
    /// Squared distances of some questions (indices into [`Shared::questions`]) from the centres of
    /// a group of balls: one row of `out` for each.
    fn distances(self, shared: &Shared, questions: Range<usize>, group: usize, out: &mut [[u32; GROUP]]);
    /// For each of `near` (questions counted from `first`) min(D >> shift, 1023) from the packets of a
    /// group, as the group number `place` of the question's row.
    fn indices(
        self,
        shared: &Shared,
        first: usize,
        near: &[u16],
        group: usize,
        rows: &mut [Row],
        place: usize,
    );
    /// Turns the indices of a row's first groups, as many as there are gains, into weights:
    /// w = (k g + 2048) >> 12, with gains times four. Returns whether any is above 0.
    fn weigh(self, shared: &Shared, gains: &[[i16; GROUP]], row: &mut Row) -> bool;
    /// Adds packets to a row of cells; a weight of 0 adds nothing. As many groups as there are weights,
    /// at most [`GROUPS`].
    fn sum(self, factors: &Factors, weights: &[[u16; GROUP]], cells: &mut [u64]);
}

/// The tallies of a job, by a unit; by the law where the factors leave their ranges.
///
/// # Panics
/// If the job's shapes do not fit ([`Job::check`]).
pub fn merge<U: Unit>(unit: U, job: &Job) -> Tallies {
    job.check();
    if !fits(job) {
        return super::cpu::merge(job);
    }
    let (embeddings, values) = (job.columns.embeddings(), job.columns.values());
    let values = values.as_slice().expect("rows in standard order");
    let shared = Shared::new(job, rows(&embeddings), values);
    tally(job, Scratch::new, |scratch, stretch, cells| add(unit, &shared, scratch, stretch, cells))
}

/// Whether the factors keep to their documented ranges, on which the widths here rest.
fn fits(job: &Job) -> bool {
    // No early end: whole vectors are compared faster than one by one.
    let largest = job.gains.iter().fold(0, |all, &gain| all.max(gain));
    largest <= WEIGHT_ONE
        && job.columns.cases_max() <= CASES_MAX
        && job.kernel.table.len() == KERNEL_ENTRIES
        && job.kernel.table.iter().fold(0, |all, &weight| all.max(weight)) <= WEIGHT_ONE
}

impl<'a, 'b> Shared<'a, 'b> {
    /// Of a job that [`fits`].
    fn new(job: &'a Job<'b>, embeddings: &'a [[i8; SLOTS]], values: &'a [u16]) -> Shared<'a, 'b> {
        let queries = rows(&job.queries);
        let question =
            |row: &[i8; SLOTS]| Question { pairs: bytemuck::cast(row.map(|slot| -2 * i16::from(slot))) };
        let questions: Vec<Question> = queries.iter().map(question).collect();
        let norm = |question: &Question| {
            let slots = question.pairs.as_flattened().iter();
            (slots.map(|&slot| i32::from(slot) * i32::from(slot)).sum::<i32>() / 4) as u32
        };
        Shared {
            job,
            columns: job.columns,
            norms: questions.iter().map(norm).collect(),
            questions,
            table: std::array::from_fn(|i| 2 * job.kernel.table[i] as i16),
            support: support(&job.kernel.table) as u16,
            reach: Reach::of(job.kernel).filter(|_| job.skip),
            embeddings,
            values,
        }
    }
}

/// What a thread keeps from stretch to stretch.
struct Scratch {
    near: Vec<u16>,
    rows: Vec<Row>,
    /// Bit i of a question: the packets of group i are near.
    near_groups: [u8; QUESTIONS],
    /// Four times the gains; 0 outside the stretch.
    gains: Row<i16>,
    /// Lower and upper bits of n x.
    products: [Vec<[i16; GROUP]>; 2],
    /// Of questions from the centres of a group of balls.
    distances: Vec<[u32; GROUP]>,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch {
            near: vec![],
            rows: vec![],
            near_groups: [0; QUESTIONS],
            gains: [[0; GROUP]; GROUPS],
            products: [vec![], vec![]],
            distances: vec![],
        }
    }

    /// Room for so many questions; one alone should not pay for 40.
    fn reserve(&mut self, questions: usize) {
        if self.rows.len() < questions {
            self.rows.resize(questions, [[0; GROUP]; GROUPS]);
            self.distances.resize(questions, [0; GROUP]);
        }
    }
}

/// One thread's way through a stretch.
struct Walk<'a, 'b, U> {
    unit: U,
    shared: &'a Shared<'a, 'b>,
    stretch: &'a Stretch<'a>,
    scratch: &'a mut Scratch,
    skip: Skip,
}

/// Adds a stretch to its rows of cells: for each span in order, one per question.
fn add<U: Unit>(unit: U, shared: &Shared, scratch: &mut Scratch, stretch: &Stretch, cells: &mut [u64]) {
    scratch.reserve(stretch.queries.len().min(QUESTIONS));
    // Fewer packets than a group of balls holds are sooner read than bounded.
    let reach = shared.reach.filter(|_| stretch.packets.len() >= GROUP * GROUP);
    let skip = Skip { reach, tried: 0, skipped: 0, measured: None };
    let mut walk = Walk { unit, shared, stretch, scratch, skip };
    for first in stretch.queries.clone().step_by(QUESTIONS) {
        let questions = first..(first + QUESTIONS).min(stretch.queries.end);
        walk.skip.measured = None;
        // The first span that reaches into the block.
        let mut first_span = 0;
        let mut start = stretch.packets.start;
        while start < stretch.packets.end {
            let packets = start..block_end(start, stretch.packets.end);
            while stretch.spans[first_span].packets.end <= start {
                first_span += 1;
            }
            walk.block(questions.clone(), packets.clone(), first_span, cells);
            start = packets.end;
        }
    }
}

/// A block ends with the packets or where a whole one would begin, counted from the first packet of
/// all: so long stretches read each group of balls once.
fn block_end(start: usize, end: usize) -> usize {
    if end.div_ceil(GROUP) - start / GROUP <= GROUPS { end } else { (start / BLOCK + 1) * BLOCK }
}

impl<U: Unit> Walk<'_, '_, U> {
    fn block(
        &mut self,
        questions: Range<usize>,
        packets: Range<usize>,
        first_span: usize,
        cells: &mut [u64],
    ) {
        let Shared { job, columns, .. } = *self.shared;
        let groups = packets.start / GROUP..packets.end.div_ceil(GROUP);
        let Scratch { near, rows, near_groups, gains: all_gains, products, distances } = &mut *self.scratch;
        let near_groups = &mut near_groups[..questions.len()];
        near_groups.fill(0);
        for (place, group) in groups.clone().enumerate() {
            self.skip.near(self.unit, self.shared, &questions, group, distances, near);
            if !near.is_empty() {
                self.unit.indices(self.shared, questions.start, near, group, rows, place);
                near.iter().for_each(|&question| near_groups[usize::from(question)] |= 1 << place);
            }
        }
        if near_groups.iter().all(|&groups| groups == 0) {
            return;
        }
        let from = packets.start % GROUP;
        let gains = all_gains.as_flattened_mut();
        gains[..from].fill(0);
        gains[from + packets.len()..].fill(0);
        for (to, &gain) in gains[from..].iter_mut().zip(&job.gains[packets.clone()]) {
            *to = 4 * gain as i16;
        }
        let factors = factors(columns, groups.clone(), products);
        let gains = &all_gains[..groups.len()];
        let every = u8::MAX >> (GROUPS - groups.len());
        let of_stretch = self.stretch.queries.len();
        let stride = ROW_HEAD + factors.columns;
        for (index, question) in questions.clone().enumerate() {
            let (row, near) = (&mut rows[index], near_groups[index]);
            if near == 0 {
                continue;
            }
            if near != every {
                let far = (0..groups.len()).filter(|place| near >> place & 1 == 0);
                far.for_each(|place| row[place] = [KERNEL_ENTRIES as u16 - 1; GROUP]);
            }
            if !self.unit.weigh(self.shared, gains, row) {
                continue;
            }
            for (span_index, span) in self.stretch.spans.iter().enumerate().skip(first_span) {
                if span.packets.start >= packets.end {
                    break;
                }
                let at = span_index * of_stretch + question - self.stretch.queries.start;
                let cells = &mut cells[at * stride..][..stride];
                let part = span.packets.start.max(packets.start)..span.packets.end.min(packets.end);
                if part.len() < VECTOR_PACKETS_MIN {
                    sum_singly(self.shared, groups.start * GROUP, row, part, cells);
                } else if part == packets {
                    self.unit.sum(&factors, &row[..groups.len()], cells);
                } else {
                    let base = groups.start * GROUP;
                    sum_part(self.unit, &factors, row, part.start - base..part.end - base, cells);
                }
            }
        }
    }
}

/// What the sums of a block's packets need beside the weights.
fn factors<'a>(
    columns: &'a Columns,
    groups: Range<usize>,
    products: &'a mut [Vec<[i16; GROUP]>; 2],
) -> Factors<'a> {
    let count = columns.values().ncols();
    let planes = &columns.planes()[groups.start * count..groups.end * count];
    let cases = &columns.grouped_cases()[groups];
    let (all, some) = cases.as_flattened().iter().fold((0, 0), |(all, some), &n| (all | n, some | (n ^ 1)));
    if some == 0 {
        return Factors { columns: count, low: planes, several: None };
    }
    let [low, high] = products;
    low.resize(planes.len(), [0; GROUP]);
    high.resize(planes.len(), [0; GROUP]);
    for (index, plane) in planes.iter().enumerate() {
        let cases = &cases[index / count];
        for i in 0..GROUP {
            let product = u32::from(cases[i]) * u32::from(plane[i] as u16 ^ 0x8000);
            low[index][i] = (product as u16 ^ 0x8000) as i16;
            high[index][i] = (product >> 16) as i16;
        }
    }
    let digits = (u16::BITS - all.leading_zeros()).div_ceil(DIGIT_BITS);
    Factors { columns: count, low, several: Some(Several { cases, high, digits }) }
}

impl<'a> Factors<'a> {
    /// Those of some groups only.
    fn part(&self, groups: Range<usize>) -> Factors<'a> {
        let planes = groups.start * self.columns..groups.end * self.columns;
        let several = self.several.as_ref().map(|several| Several {
            cases: &several.cases[groups],
            high: &several.high[planes.clone()],
            digits: several.digits,
        });
        Factors { columns: self.columns, low: &self.low[planes], several }
    }
}

/// Some of a block's packets, counted from its first group.
fn sum_part<U: Unit>(unit: U, factors: &Factors, weights: &Row, part: Range<usize>, cells: &mut [u64]) {
    let groups = part.start / GROUP..part.end.div_ceil(GROUP);
    let base = groups.start * GROUP;
    let mut inside = [[0; GROUP]; GROUPS];
    inside[..groups.len()].copy_from_slice(&weights[groups.clone()]);
    inside.as_flattened_mut()[..part.start - base].fill(0);
    inside.as_flattened_mut()[part.end - base..].fill(0);
    unit.sum(&factors.part(groups.clone()), &inside[..groups.len()], cells);
}

/// A few packets, as the law does it; `base` is the packet of the first weight.
fn sum_singly(shared: &Shared, base: usize, weights: &Row, packets: Range<usize>, cells: &mut [u64]) {
    let (head, sums) = cells.split_at_mut(ROW_HEAD);
    let columns = sums.len();
    for packet in packets {
        let w = u64::from(weights.as_flattened()[packet - base]);
        if w == 0 {
            continue;
        }
        let wn = w * u64::from(shared.columns.cases()[packet]);
        head[0] += 1;
        head[1] += wn;
        head[2] += w * wn;
        for (sum, &x) in sums.iter_mut().zip(&shared.values[packet * columns..][..columns]) {
            *sum += wn * u64::from(x);
        }
    }
}

/// Which questions must read a group of packets.
struct Skip {
    /// `None` where nothing can be skipped, or too little to pay.
    reach: Option<Reach>,
    tried: u64,
    skipped: u64,
    /// The group of centres whose distances are at hand.
    measured: Option<usize>,
}

impl Skip {
    /// Leaves in `near` the questions, counted from the first, for which the packets of a group may
    /// count.
    fn near(
        &mut self,
        unit: impl Unit,
        shared: &Shared,
        questions: &Range<usize>,
        group: usize,
        distances: &mut [[u32; GROUP]],
        near: &mut Vec<u16>,
    ) {
        near.clear();
        let Some(reach) = self.reach else {
            near.extend(0..questions.len() as u16);
            return;
        };
        if self.measured != Some(group / GROUP) {
            unit.distances(shared, questions.clone(), group / GROUP, distances);
            self.measured = Some(group / GROUP);
        }
        let radius = shared.columns.balls().radii()[group];
        for (question, distances) in distances[..questions.len()].iter().enumerate() {
            if !reach.excludes(distances[group % GROUP], radius) {
                near.push(question as u16);
            }
        }
        self.tried += questions.len() as u64;
        self.skipped += (questions.len() - near.len()) as u64;
        if self.tried >= TRIED_MIN && self.skipped * SKIPPED_SHARE_MIN < self.tried {
            self.reach = None;
        }
    }
}
