//! Cuts a job into what one thread does at a time.
//!
//! Spans that lie one behind the other and have the same questions (one per author is the usual
//! job) are weighed as one stretch; long spans are cut into pieces whose tallies add up.

use super::cpu::{Job, Span};
use super::tally::Tallies;
use rayon::prelude::*;
use std::ops::Range;

/// Pairs that one thread takes at a time, about: a job of twice as many is not cut at all.
const PIECE_PAIRS: usize = 1 << 16;
const PIECE_PACKETS: usize = 8_192;
const PIECE_QUERIES: usize = 60;

/// Spans of the same questions whose packets lie one behind the other.
pub struct Stretch<'a> {
    pub spans: &'a [Span],
    pub queries: Range<usize>,
    pub packets: Range<usize>,
}

/// The tallies of a job. `add` adds a stretch to its rows of cells: for each of its spans in order,
/// one per question. Small jobs stay on the calling thread, where waking another would take longer.
pub fn tally(job: &Job, add: impl Fn(&Stretch, &mut [u64]) + Sync) -> Tallies {
    let mut tallies = Tallies::zero(job.rows(), job.columns.values().ncols());
    let stride = tallies.stride();
    let mut rest = tallies.cells_mut();
    let mut work = Vec::new();
    for stretch in stretches(job.spans) {
        let (cells, behind) = rest.split_at_mut(stretch.spans.len() * stretch.queries.len() * stride);
        rest = behind;
        work.push((stretch, cells));
    }
    if job.pairs() <= 2 * PIECE_PAIRS as u64 {
        work.into_iter().for_each(|(stretch, cells)| add(&stretch, cells));
        return tallies;
    }
    work.into_par_iter().for_each(|(stretch, cells)| {
        if stretch.packets.len() * stretch.queries.len() <= 2 * PIECE_PAIRS || stretch.spans.len() > 1 {
            add(&stretch, cells);
        } else {
            let queries = stretch.queries.clone();
            cells.par_chunks_mut(PIECE_QUERIES * stride).enumerate().for_each(|(index, cells)| {
                let first = queries.start + index * PIECE_QUERIES;
                let last = (first + PIECE_QUERIES).min(queries.end);
                add_pieces(&add, first..last, stretch.packets.clone(), cells);
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
fn add_pieces(
    add: &(impl Fn(&Stretch, &mut [u64]) + Sync),
    queries: Range<usize>,
    packets: Range<usize>,
    cells: &mut [u64],
) {
    let pieces = packets.len().div_ceil(PIECE_PACKETS);
    let length = cells.len();
    let piece = |index: usize| {
        let start = packets.start + index * PIECE_PACKETS;
        let packets = start..(start + PIECE_PACKETS).min(packets.end);
        let spans = [Span { queries: queries.clone(), packets: packets.clone() }];
        let mut cells = vec![0; length];
        add(&Stretch { spans: &spans, queries: queries.clone(), packets }, &mut cells);
        cells
    };
    let sum = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let all = (0..pieces).into_par_iter().map(piece).reduce(|| vec![0; length], sum);
    cells.copy_from_slice(&all);
}
