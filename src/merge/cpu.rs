//! The law for merges: plain integer code, read beside `shaders/merge.wgsl`.

use super::columns::Columns;
use super::tally::{ROW_HEAD, Tallies};
use crate::domain::Kernel;
use crate::embed::rows;
use crate::limits::{SLOTS, TALLY_PACKETS_MAX};
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::ops::Range;

/// Questions that all read the same packets. Many spans of any sizes are one ragged job; one span
/// over everything is a dense one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Rows of [`Job::queries`].
    pub queries: Range<usize>,
    /// Rows of the packet columns.
    pub packets: Range<usize>,
}

/// One merge: columns of packets, embedded questions, and who reads what.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    pub kernel: &'a Kernel,
    pub columns: &'a Columns,
    /// g = (freshness x trust + 2048) >> 12 per packet, 0..=4,096.
    pub gains: &'a [u16],
    /// queries x 128, i8 in [-127, 127].
    pub queries: ArrayView2<'a, i8>,
    pub spans: &'a [Span],
    /// Whether packets that lie beyond the kernel's reach may be passed over in blocks, unread; the
    /// bits are the same. `false` computes every pair, for measurements.
    pub skip: bool,
}

impl Job<'_> {
    /// Rows of the result: for each span in order, one per question of the span.
    pub fn rows(&self) -> usize {
        self.spans.iter().map(|span| span.queries.len()).sum()
    }

    /// Query-packet pairs, the unit of a merge's work.
    pub fn pairs(&self) -> u64 {
        self.spans.iter().map(|span| span.queries.len() as u64 * span.packets.len() as u64).sum()
    }

    /// Whether shapes fit, spans lie inside, and no tally can overflow.
    ///
    /// # Panics
    /// If not: jobs are built by the engine.
    pub fn check(&self) {
        let packets = self.columns.len();
        assert_eq!(self.gains.len(), packets, "one gain per packet");
        for span in self.spans {
            assert!(span.queries.end <= self.queries.nrows(), "span beyond the queries");
            assert!(span.packets.end <= packets, "span beyond the packets");
            assert!(span.packets.len() as u64 <= TALLY_PACKETS_MAX, "more packets than a tally holds");
        }
    }
}

/// D = sum (q_i - p_i)^2, below 2^23.
#[inline]
pub fn distance(q: &[i8; SLOTS], p: &[i8; SLOTS]) -> u32 {
    distance_widened(&q.map(i16::from), p)
}

/// The same for a question widened once for many packets: vector units multiply and add differences
/// of 16 bits in pairs.
#[inline]
fn distance_widened(q: &[i16; SLOTS], p: &[i8; SLOTS]) -> u32 {
    let difference = |(&q, &p)| i32::from(q - i16::from(p));
    q.iter().zip(p).map(difference).map(|d| d * d).sum::<i32>() as u32
}

/// g = (freshness x trust + 2048) >> 12.
#[inline]
pub fn gain(freshness: u16, trust: u16) -> u16 {
    ((u32::from(freshness) * u32::from(trust) + 2_048) >> 12) as u16
}

/// w = (k g + 2048) >> 12.
#[inline]
pub fn weight(kernel: &Kernel, distance: u32, gain: u16) -> u16 {
    ((u32::from(kernel.weight(distance)) * u32::from(gain) + 2_048) >> 12) as u16
}

/// Packets that one thread tallies at a time where a span has more.
const PIECE_PACKETS: usize = 16_384;

/// The tallies of a job: for each span in order, one row per question. Runs on the current rayon
/// pool; the result does not depend on its size.
///
/// # Panics
/// If the job's shapes do not fit ([`Job::check`]).
pub fn merge(job: &Job) -> Tallies {
    job.check();
    let mut tallies = Tallies::zero(job.rows(), job.columns.values().ncols());
    let stride = tallies.stride();
    let work = job.spans.iter().flat_map(|span| span.queries.clone().map(move |query| (query, span)));
    let work: Vec<(usize, &Span)> = work.collect();
    tallies.cells_mut().par_chunks_mut(stride).zip(work).for_each(|(cells, (query, span))| {
        if span.packets.len() <= PIECE_PACKETS {
            tally(job, query, span.packets.clone(), cells);
        } else {
            cells.copy_from_slice(&tally_pieces(job, query, span.packets.clone(), stride));
        }
    });
    tallies
}

/// One row over many packets: the sum of its pieces, exact in any order.
fn tally_pieces(job: &Job, query: usize, packets: Range<usize>, stride: usize) -> Vec<u64> {
    let pieces = packets.len().div_ceil(PIECE_PACKETS);
    let piece = |index: usize| {
        let start = packets.start + index * PIECE_PACKETS;
        let mut cells = vec![0; stride];
        tally(job, query, start..(start + PIECE_PACKETS).min(packets.end), &mut cells);
        cells
    };
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    (0..pieces).into_par_iter().map(piece).reduce(|| vec![0; stride], add)
}

/// Adds the packets of a range to one row of cells, for one question.
fn tally(job: &Job, query: usize, packets: Range<usize>, cells: &mut [u64]) {
    let query = rows(&job.queries)[query].map(i16::from);
    let (embeddings, values) = (job.columns.embeddings(), job.columns.values());
    let embeddings = rows(&embeddings);
    let columns = values.ncols();
    let values = values.as_slice().expect("rows in standard order");
    let (head, sums) = cells.split_at_mut(ROW_HEAD);
    for packet in packets {
        let distance = distance_widened(&query, &embeddings[packet]);
        let w = u64::from(weight(job.kernel, distance, job.gains[packet]));
        if w == 0 {
            continue;
        }
        let wn = w * u64::from(job.columns.cases()[packet]);
        head[0] += 1;
        head[1] += wn;
        head[2] += w * wn;
        for (sum, &x) in sums.iter_mut().zip(&values[packet * columns..][..columns]) {
            *sum += wn * u64::from(x);
        }
    }
}
