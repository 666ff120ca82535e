//! Binds `shaders/merge.wgsl`, which equals [`super::cpu::merge`] bit for bit.
//!
//! A job is cut three times: into windows of packets that fit a binding and stay on the device while
//! they are needed; each of these into runs of rows, short enough for a dispatch; each run into
//! tiles ([`super::tile`]). Tallies of windows add up, since they are exact.

use super::cpu::Job;
use super::tally::{ROW_HEAD, Tallies};
use super::tile::{LANES, QUERIES_PER_SEGMENT, Tiles};
use crate::embed::rows;
use crate::gpu::{Binding, Gpu, GpuError, Program, Resident, prelude};
use crate::limits::{KERNEL_ENTRIES, SLOTS};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most packets of a window: one row over a window is the shortest dispatch there is.
const WINDOW_PACKETS_MAX: u64 = 1 << 19;
/// A dispatch should stay below 200 ms, or a desktop's watchdog may end it.
const RUN_LONG: Duration = Duration::from_millis(100);
/// Shorter runs waste the launch.
const RUN_SHORT: Duration = Duration::from_millis(40);
/// Pairs of the first run on an unknown device, and the bounds within which they are adapted.
const RUN_PAIRS_FIRST: u64 = 1 << 22;
const RUN_PAIRS: Range<u64> = 1 << 16..1 << 32;

/// The uniform of the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    pub stride: u32,
    pub columns: u32,
    pub kernel_shift: u32,
    pub padding: u32,
    pub kernel_table: [u32; KERNEL_ENTRIES / 2],
}

/// A question as the shader reads it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Query {
    pub slots: [u32; SLOTS / 4],
    pub norm: u32,
    pub padding: [u32; 3],
}

/// The whole WGSL text.
pub fn source() -> String {
    let constants = [
        ("LANES", LANES),
        ("QUERIES_PER_SEGMENT", QUERIES_PER_SEGMENT),
        ("SLOT_VECTORS", SLOTS as u32 / 16),
        ("KERNEL_ENTRIES", KERNEL_ENTRIES as u32),
        ("KERNEL_VECTORS", KERNEL_ENTRIES as u32 / 8),
        ("ROW_HEAD", ROW_HEAD as u32),
    ];
    prelude(&constants) + include_str!("../../shaders/merge.wgsl")
}

/// The compiled shader and what it has learnt of the device's speed.
pub struct Shader {
    program: Program,
    run_pairs: AtomicU64,
}

/// The columns of a window on the device: bytes to upload with the first run, then only kept.
struct Columns<'a> {
    buffers: [Resident; 3],
    bytes: Option<[Cow<'a, [u8]>; 3]>,
}

impl Shader {
    /// # Errors
    /// The driver refuses the shader.
    pub fn new(gpu: &Gpu) -> Result<Shader, GpuError> {
        let program = gpu.program("merge", &source())?;
        Ok(Shader { program, run_pairs: AtomicU64::new(RUN_PAIRS_FIRST) })
    }

    /// The tallies of a job: for each span in order, one row per question.
    ///
    /// # Errors
    /// The GPU fails.
    ///
    /// # Panics
    /// If the job's shapes do not fit ([`Job::check`]).
    pub fn merge(&self, gpu: &Gpu, job: &Job) -> Result<Tallies, GpuError> {
        job.check();
        let mut tallies = Tallies::zero(job.rows(), job.columns.values().ncols());
        let widest = (2 * job.columns.values().ncols()).max(SLOTS) as u64;
        let window = (gpu.binding_bytes_max() / widest).min(WINDOW_PACKETS_MAX) as usize;
        let read = job.spans.iter().filter(|span| !span.queries.is_empty() && !span.packets.is_empty());
        let first = read.clone().map(|span| span.packets.start).min().unwrap_or(0);
        let last = read.map(|span| span.packets.end).max().unwrap_or(0);
        for start in (first..last).step_by(window) {
            self.window(gpu, job, start..(start + window).min(last), &mut tallies)?;
        }
        Ok(tallies)
    }

    /// Adds what the packets of one window give to every row that reads any of them.
    fn window(
        &self,
        gpu: &Gpu,
        job: &Job,
        window: Range<usize>,
        tallies: &mut Tallies,
    ) -> Result<(), GpuError> {
        let mut columns = Columns::new(gpu, job, window.clone())?;
        let parameters = parameters(job);
        let row_bytes = (8 * tallies.stride()).max(size_of::<Query>()) as u64;
        let rows_max = (gpu.binding_bytes_max() / row_bytes) as usize;
        let mut pieces = pieces(job, &window);
        while !pieces.is_empty() {
            let pairs_max = self.run_pairs.load(Ordering::Relaxed);
            let mut tiles = Tiles::new(gpu.workgroups_max(), rows_max, pairs_max);
            let mut run_rows = Vec::new();
            let mut run_queries = Vec::new();
            while let Some(mut piece) = pieces.pop_front() {
                let taken = tiles.add(piece.rows.len(), piece.packets.clone());
                run_rows.extend(piece.rows.start..piece.rows.start + taken);
                run_queries.extend((piece.query..piece.query + taken).map(|query| self::query(job, query)));
                if taken < piece.rows.len() {
                    piece.rows.start += taken;
                    piece.query += taken;
                    pieces.push_front(piece);
                    break;
                }
            }
            self.run(gpu, &parameters, &mut columns, &run_queries, tiles, |cells| {
                add(tallies, &run_rows, cells);
            })?;
        }
        columns.buffers.into_iter().for_each(|buffer| gpu.release(buffer));
        Ok(())
    }

    fn run(
        &self,
        gpu: &Gpu,
        parameters: &Parameters,
        columns: &mut Columns,
        queries: &[Query],
        tiles: Tiles,
        read: impl FnOnce(&[u64]),
    ) -> Result<(), GpuError> {
        let pairs = tiles.pairs();
        let (segments, tiles) = tiles.finish();
        let [embeddings, factors, values] = match &columns.bytes {
            Some(bytes) => std::array::from_fn(|i| Binding::Fill(&columns.buffers[i], &bytes[i])),
            None => std::array::from_fn(|i| Binding::Keep(&columns.buffers[i])),
        };
        let bindings = [
            Binding::Uniform(bytemuck::bytes_of(parameters)),
            embeddings,
            factors,
            values,
            Binding::Input(bytemuck::cast_slice(queries)),
            Binding::Input(bytemuck::cast_slice(&segments)),
            Binding::Input(bytemuck::cast_slice(&tiles)),
            Binding::Output(8 * queries.len() as u64 * u64::from(parameters.stride)),
        ];
        let began = Instant::now();
        // Low word first: on a little-endian host the pair is a u64. A mapped view may lie anywhere.
        gpu.run(&self.program, &bindings, tiles.len() as u32, |bytes| {
            read(&bytemuck::pod_collect_to_vec::<u8, u64>(bytes));
        })?;
        columns.bytes = None;
        self.adapt(pairs, began.elapsed());
        Ok(())
    }

    /// Doubles or halves the pairs of the next run, to stay between short and long.
    fn adapt(&self, pairs: u64, elapsed: Duration) {
        let now = self.run_pairs.load(Ordering::Relaxed);
        let next = match elapsed {
            _ if elapsed > RUN_LONG => (now / 2).max(RUN_PAIRS.start),
            // A run that did not use what it was allowed says nothing.
            _ if elapsed < RUN_SHORT && pairs >= now / 2 => (now * 2).min(RUN_PAIRS.end),
            _ => now,
        };
        self.run_pairs.store(next, Ordering::Relaxed);
    }
}

/// One span within a window: rows of the result, the first question, packets counted from the
/// window's start.
struct Piece {
    rows: Range<usize>,
    query: usize,
    packets: Range<usize>,
}

fn pieces(job: &Job, window: &Range<usize>) -> VecDeque<Piece> {
    let mut row = 0;
    let pieces = job.spans.iter().filter_map(|span| {
        let rows = row..row + span.queries.len();
        row = rows.end;
        let start = span.packets.start.max(window.start);
        let end = span.packets.end.min(window.end);
        let used = start < end && !rows.is_empty();
        used.then(|| Piece {
            rows,
            query: span.queries.start,
            packets: start - window.start..end - window.start,
        })
    });
    pieces.collect()
}

impl<'a> Columns<'a> {
    fn new(gpu: &Gpu, job: &Job<'a>, window: Range<usize>) -> Result<Columns<'a>, GpuError> {
        let embeddings = job.columns.embeddings().to_slice().expect("rows in standard order");
        let embeddings = &embeddings[window.start * SLOTS..window.end * SLOTS];
        let gains = job.gains[window.clone()].iter().zip(&job.columns.cases()[window.clone()]);
        let factors: Vec<[u16; 2]> = gains.map(|(&gain, &cases)| [gain, cases]).collect();
        let columns = job.columns.values().ncols();
        let values = job.columns.values().to_slice().expect("rows in standard order");
        let values: &[u8] = bytemuck::cast_slice(&values[window.start * columns..window.end * columns]);
        let bytes = [
            Cow::Borrowed(bytemuck::cast_slice(embeddings)),
            Cow::Owned(bytemuck::cast_slice(&factors).to_vec()),
            whole_words(values),
        ];
        let reserve = |i: usize| gpu.reserve(bytes[i].len() as u64);
        Ok(Columns { buffers: [reserve(0)?, reserve(1)?, reserve(2)?], bytes: Some(bytes) })
    }
}

/// Padded to words of four bytes, one at least.
fn whole_words(bytes: &[u8]) -> Cow<'_, [u8]> {
    let length = bytes.len().next_multiple_of(4).max(4);
    if length == bytes.len() {
        return Cow::Borrowed(bytes);
    }
    let mut padded = bytes.to_vec();
    padded.resize(length, 0);
    Cow::Owned(padded)
}

fn parameters(job: &Job) -> Parameters {
    let columns = job.columns.values().ncols() as u32;
    Parameters {
        stride: ROW_HEAD as u32 + columns,
        columns,
        kernel_shift: u32::from(job.kernel.shift),
        padding: 0,
        kernel_table: bytemuck::pod_read_unaligned(bytemuck::cast_slice(&job.kernel.table)),
    }
}

fn query(job: &Job, query: usize) -> Query {
    let slots = &rows(&job.queries)[query];
    let norm = slots.iter().map(|&slot| i32::from(slot).pow(2)).sum::<i32>() as u32;
    Query { slots: bytemuck::pod_read_unaligned(bytemuck::cast_slice(slots)), norm, padding: [0; 3] }
}

/// Adds a run's cells to the rows that they belong to.
fn add(tallies: &mut Tallies, run_rows: &[usize], cells: &[u64]) {
    let stride = tallies.stride();
    let all = tallies.cells_mut();
    for (&row, part) in run_rows.iter().zip(cells.chunks_exact(stride)) {
        for (sum, &x) in all[row * stride..][..stride].iter_mut().zip(part) {
            *sum += x;
        }
    }
}
