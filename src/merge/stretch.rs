//! Cuts a job into what one thread does at a time.
//!
//! Spans that lie one behind the other and have the same questions (one per author is the usual
//! job) are weighed as one stretch; long spans are cut into pieces whose tallies add up.

use super::cpu::{Job, Span};
use super::tally::Tallies;
use rayon::prelude::*;
use std::ops::Range;

/// Pairs that one thread takes at a time, about.
const PIECE_PAIRS: usize = 1 << 16;
/// Up to so many pairs a job is done where it is asked for.
const SMALL_PAIRS: u64 = 2 * PIECE_PAIRS as u64;
const PIECE_PACKETS: usize = 8_192;
const PIECE_QUERIES: usize = 80;

/// Spans of the same questions whose packets lie one behind the other.
pub struct Stretch<'a> {
    pub spans: &'a [Span],
    pub queries: Range<usize>,
    pub packets: Range<usize>,
}

/// Whether [`super::simd`] and [`super::lanes`] do a job on the calling thread, because waking another
/// would take longer.
pub fn is_small(job: &Job) -> bool {
    job.pairs() <= SMALL_PAIRS
}

/// The tallies of a job, with a scratch of each thread's own. `add` adds a stretch to its rows of cells: for each of its spans in order,
/// one per question.
pub fn tally<S>(
    job: &Job,
    scratch: impl Fn() -> S + Sync + Send,
    add: impl Fn(&mut S, &Stretch, &mut [u64]) + Sync,
) -> Tallies {
    let mut tallies = Tallies::zero(job.rows(), job.columns.values().ncols());
    let stride = tallies.stride();
    let mut rest = tallies.cells_mut();
    let mut work = Vec::new();
    for stretch in stretches(job.spans) {
        let (cells, behind) = rest.split_at_mut(stretch.spans.len() * stretch.queries.len() * stride);
        rest = behind;
        work.push((stretch, cells));
    }
    if is_small(job) {
        let mut scratch = scratch();
        work.into_iter().for_each(|(stretch, cells)| add(&mut scratch, &stretch, cells));
        return tallies;
    }
    work.into_par_iter().for_each_init(&scratch, |own, (stretch, cells)| {
        if stretch.packets.len() * stretch.queries.len() <= SMALL_PAIRS as usize || stretch.spans.len() > 1 {
            add(own, &stretch, cells);
        } else {
            let queries = stretch.queries.clone();
            cells.par_chunks_mut(PIECE_QUERIES * stride).enumerate().for_each(|(index, cells)| {
                let first = queries.start + index * PIECE_QUERIES;
                let last = (first + PIECE_QUERIES).min(queries.end);
                add_pieces(&scratch, &add, first..last, stretch.packets.clone(), cells);
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
fn add_pieces<S>(
    scratch: &(impl Fn() -> S + Sync + Send),
    add: &(impl Fn(&mut S, &Stretch, &mut [u64]) + Sync),
    queries: Range<usize>,
    packets: Range<usize>,
    cells: &mut [u64],
) {
    let pieces = packets.len().div_ceil(PIECE_PACKETS);
    let length = cells.len();
    let piece = |scratch: &mut S, index: usize| {
        let start = packets.start + index * PIECE_PACKETS;
        let packets = start..(start + PIECE_PACKETS).min(packets.end);
        let spans = [Span { queries: queries.clone(), packets: packets.clone() }];
        let mut cells = vec![0; length];
        add(scratch, &Stretch { spans: &spans, queries: queries.clone(), packets }, &mut cells);
        cells
    };
    let sum = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let all = (0..pieces).into_par_iter().map_init(scratch, piece).reduce(|| vec![0; length], sum);
    cells.copy_from_slice(&all);
}
