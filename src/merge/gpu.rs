//! Binds `shaders/merge.wgsl`, which equals [`super::cpu::merge`] bit for bit.
//!
//! Packets stay on the device from ask to ask ([`super::arena`]): an ask costs its questions, the
//! gains if they differ from the last ones, and the packets appended since. Jobs over any columns
//! become runs of rows, short enough for a dispatch, and each run becomes tiles ([`super::tile`]).
//! Tallies of windows and runs add up, since they are exact.

use super::arena::{Arena, Place, Residency, State, groups};
use super::columns::Columns;
use super::cpu::Job;
use super::tally::{ROW_HEAD, Tallies};
use super::tile::{self, Piece};
use super::tuning::Tuning;
use crate::embed::rows;
use crate::gpu::{
    Binding, Gpu, GpuError, PIECE_BYTES, Program, RUNS_IN_FLIGHT, Resident, Running, Step, Work, Write,
    prelude,
};
use crate::limits::{KERNEL_ENTRIES, SLOTS};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A dispatch should stay below 200 ms, or a desktop's watchdog may end it.
const RUN_LONG: Duration = Duration::from_millis(100);
/// Shorter runs waste the launch.
const RUN_SHORT: Duration = Duration::from_millis(40);
/// Pairs of the first run on an unknown device, and the bounds within which they are adapted.
const RUN_PAIRS_FIRST: u64 = 1 << 22;
const RUN_PAIRS: Range<u64> = 1 << 16..1 << 32;
/// Bytes of a run's tallies or questions at most.
const RUN_BYTES_MAX: u64 = 64 << 20;
/// Repetitions of each candidate of a tuning run.
const MEASURED_RUNS: usize = 3;
/// Groups of value columns that one dispatch sums: more would not fit a lane's registers.
pub const DISPATCH_GROUPS_MAX: usize = 4;

/// The uniform of the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    pub columns: u32,
    pub groups: u32,
    pub first_group: u32,
    pub kernel_shift: u32,
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
        ("SLOT_VECTORS", SLOTS as u32 / 16),
        ("KERNEL_ENTRIES", KERNEL_ENTRIES as u32),
        ("KERNEL_VECTORS", KERNEL_ENTRIES as u32 / 8),
        ("ROW_HEAD", ROW_HEAD as u32),
    ];
    prelude(&constants) + include_str!("../../shaders/merge.wgsl")
}

/// Values of the shader's overrides.
pub fn overrides(tuning: &Tuning, groups: usize) -> [(&'static str, u32); 4] {
    [
        ("LANES", tuning.lanes),
        ("ROWS", tuning.rows),
        ("GROUPS", groups as u32),
        ("QUERIES_PER_LANE", tuning.queries_per_lane),
    ]
}

/// The shader, what is on the device, and what was learnt of its speed.
pub struct Shader {
    programs: Mutex<HashMap<(Tuning, usize), Arc<Program>>>,
    tuning: Mutex<Tuning>,
    arena: Mutex<State>,
    run_pairs: AtomicU64,
}

/// A part of a job, not yet dispatched.
#[derive(Clone, Copy)]
struct Part {
    job: usize,
    /// First row of the job's result.
    row: usize,
    rows: usize,
    /// First row of the job's questions.
    query: usize,
    place: Place,
    /// First packet, counted from the window's start.
    packet: usize,
    packets: usize,
}

/// What a run's rows belong to: the run's rows in order, as (job, first row, rows).
type Owners = Vec<(usize, usize, usize)>;

/// A run on its way.
struct Flight<'a> {
    running: Running<'a>,
    owners: Owners,
    pairs: u64,
    began: Instant,
}

impl Shader {
    /// # Errors
    /// The driver refuses the shader.
    pub fn new(gpu: &Gpu) -> Result<Shader, GpuError> {
        let shader = Shader {
            programs: Mutex::default(),
            tuning: Mutex::new(Tuning::default()),
            arena: Mutex::new(State::new(gpu.binding_bytes_max())),
            run_pairs: AtomicU64::new(RUN_PAIRS_FIRST),
        };
        shader.program(gpu, &Tuning::default(), 1)?;
        Ok(shader)
    }

    pub fn tuning(&self) -> Tuning {
        *lock(&self.tuning)
    }

    /// Uses these sizes from the next merge on.
    ///
    /// # Panics
    /// If they are not sound.
    pub fn tune(&self, tuning: Tuning) {
        assert!(tuning.is_sound(), "sizes that the shader is not made for: {tuning:?}");
        *lock(&self.tuning) = tuning;
    }

    /// Times the candidates on a small job and uses the fastest from then on. Columns and jobs are the
    /// caller's, so that it decides what is typical.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn measure(&self, gpu: &Gpu, job: &Job) -> Result<Tuning, GpuError> {
        let mut fastest = (Duration::MAX, self.tuning());
        for tuning in Tuning::CANDIDATES {
            self.tune(tuning);
            // The first run compiles and uploads; of the others the best is the least disturbed.
            self.merge(gpu, std::slice::from_ref(job))?;
            for _ in 0..MEASURED_RUNS {
                let began = Instant::now();
                self.merge(gpu, std::slice::from_ref(job))?;
                let elapsed = began.elapsed();
                if elapsed < fastest.0 {
                    fastest = (elapsed, tuning);
                }
            }
        }
        self.tune(fastest.1);
        Ok(fastest.1)
    }

    /// What is on the device.
    pub fn residency(&self) -> Residency {
        lock(&self.arena).residency()
    }

    /// Whether all packets of these columns are on the device, so that a merge brings none of them.
    pub fn holds(&self, columns: &Columns) -> bool {
        lock(&self.arena).holds(columns)
    }

    /// Keeps at most so many bytes of embeddings, and as many of values; drops what is there.
    pub fn limit_residency(&self, gpu: &Gpu, bytes_max: u64) {
        *lock(&self.arena) = State::new(bytes_max.min(gpu.binding_bytes_max()));
    }

    /// The tallies of jobs over any columns, in their order: for each span in order, one row per
    /// question. Jobs of one kernel table and number of columns share dispatches.
    ///
    /// # Errors
    /// The GPU fails; nothing counts as being on the device then.
    ///
    /// # Panics
    /// If a job's shapes do not fit ([`Job::check`]).
    pub fn merge(&self, gpu: &Gpu, jobs: &[Job]) -> Result<Vec<Tallies>, GpuError> {
        jobs.iter().for_each(Job::check);
        let zero = |job: &Job| Tallies::zero(job.rows(), job.columns.values().ncols());
        let mut tallies: Vec<Tallies> = jobs.iter().map(zero).collect();
        let mut done = vec![false; jobs.len()];
        for first in 0..jobs.len() {
            if done[first] {
                continue;
            }
            let alike = |job: &Job| {
                job.kernel == jobs[first].kernel
                    && job.columns.values().ncols() == jobs[first].columns.values().ncols()
            };
            let members: Vec<usize> = (first..jobs.len()).filter(|&i| !done[i] && alike(&jobs[i])).collect();
            members.iter().for_each(|&member| done[member] = true);
            let result = Merging::new(self, gpu, jobs, &mut tallies).all(&members);
            if let Err(error) = result {
                lock(&self.arena).clear();
                return Err(error);
            }
        }
        Ok(tallies)
    }

    /// Brings columns to the device and hands over, window by window, the buffer of embeddings, the
    /// window's first row in it, and the window's rows of the columns.
    ///
    /// # Errors
    /// The GPU fails, or `read` does; nothing counts as being on the device then.
    pub fn resident(
        &self,
        gpu: &Gpu,
        columns: &Columns,
        mut read: impl FnMut(&Resident, usize, Range<usize>) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let mut state = lock(&self.arena);
        let mut all = || {
            let mut arena = Arena::new(&mut state);
            let step = arena.window(groups(columns.values().ncols()));
            for window in 0..columns.len().div_ceil(step) {
                let place = arena.place(gpu, columns, window, None)?.ok_or(GpuError::OutOfMemory)?;
                let range = window * step..columns.len().min((window + 1) * step);
                arena.flush(|buffers, writes| {
                    gpu.upload(writes)?;
                    read(&buffers.embeddings, place.packet, range)
                })?;
                arena.unpin();
            }
            Ok(())
        };
        all().inspect_err(|_| state.clear())
    }

    fn program(&self, gpu: &Gpu, tuning: &Tuning, groups: usize) -> Result<Arc<Program>, GpuError> {
        let mut programs = lock(&self.programs);
        if let Some(program) = programs.get(&(*tuning, groups)) {
            return Ok(program.clone());
        }
        let program = Arc::new(gpu.program("merge", &source(), &overrides(tuning, groups))?);
        programs.insert((*tuning, groups), program.clone());
        Ok(program)
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One merge of jobs that share kernel table and number of columns.
struct Merging<'a, 'b> {
    shader: &'a Shader,
    gpu: &'a Gpu,
    jobs: &'a [Job<'b>],
    tallies: &'a mut [Tallies],
    tuning: Tuning,
    flights: VecDeque<Flight<'a>>,
    parts: VecDeque<Part>,
}

impl<'a, 'b> Merging<'a, 'b> {
    fn new(
        shader: &'a Shader,
        gpu: &'a Gpu,
        jobs: &'a [Job<'b>],
        tallies: &'a mut [Tallies],
    ) -> Merging<'a, 'b> {
        let (flights, parts) = (VecDeque::new(), VecDeque::new());
        Merging { shader, gpu, jobs, tallies, tuning: shader.tuning(), flights, parts }
    }

    fn all(mut self, members: &[usize]) -> Result<(), GpuError> {
        let shader = self.shader;
        // The device works in the order of submits, so the lock may go before the results are there.
        let mut state = lock(&shader.arena);
        let mut arena = Arena::new(&mut state);
        for &member in members {
            self.place(&mut arena, member)?;
        }
        self.dispatch(&mut arena)?;
        drop(state);
        while !self.flights.is_empty() {
            self.finish_oldest()?;
        }
        Ok(())
    }

    /// Brings what a job reads to the device and notes what is to be dispatched.
    fn place(&mut self, arena: &mut Arena<'_, 'b>, member: usize) -> Result<(), GpuError> {
        let job = self.jobs[member];
        let step = arena.window(groups(job.columns.values().ncols()));
        let read = || job.spans.iter().filter(|span| !span.queries.is_empty() && !span.packets.is_empty());
        let first = read().map(|span| span.packets.start).min().unwrap_or(0);
        let last = read().map(|span| span.packets.end).max().unwrap_or(0);
        for window in first / step..last.div_ceil(step) {
            let range = window * step..(window + 1) * step;
            let parts = |place: Place| {
                let mut row = 0;
                let mut parts = Vec::new();
                for span in job.spans {
                    let (rows, query) = (span.queries.len(), span.queries.start);
                    let start = span.packets.start.max(range.start);
                    let end = span.packets.end.min(range.end);
                    if start < end && rows > 0 {
                        let (packet, packets) = (start - range.start, end - start);
                        parts.push(Part { job: member, row, rows, query, place, packet, packets });
                    }
                    row += rows;
                }
                parts
            };
            let place = match arena.place(self.gpu, job.columns, window, Some(job.gains))? {
                Some(place) => place,
                None => {
                    self.dispatch(arena)?;
                    arena
                        .place(self.gpu, job.columns, window, Some(job.gains))?
                        .ok_or(GpuError::OutOfMemory)?
                }
            };
            self.parts.extend(parts(place));
            // A large upload goes on while the device sums what is there.
            if arena.pending_bytes() > PIECE_BYTES {
                self.dispatch(arena)?;
            }
        }
        Ok(())
    }

    /// Submits everything that was placed.
    fn dispatch(&mut self, arena: &mut Arena<'_, 'b>) -> Result<(), GpuError> {
        if arena.pending_bytes() > PIECE_BYTES {
            let gpu = self.gpu;
            arena.flush(|_, writes| gpu.upload(writes))?;
        }
        while !self.parts.is_empty() {
            if self.flights.len() == RUNS_IN_FLIGHT {
                self.finish_oldest()?;
            }
            let (parts, owners) = self.next_run();
            let began = Instant::now();
            let pairs = parts.iter().map(|part| part.rows as u64 * part.packets as u64).sum();
            let running = arena.flush(|buffers, writes| self.submit(buffers, writes, &parts))?;
            self.flights.push_back(Flight { running, owners, pairs, began });
        }
        arena.unpin();
        Ok(())
    }

    /// As many rows as one run takes; at least one.
    fn next_run(&mut self) -> (Vec<Part>, Owners) {
        let stride = ROW_HEAD + self.tallies[self.parts[0].job].columns();
        let row_bytes = (8 * stride).max(size_of::<Query>()) as u64;
        let rows_max = (self.gpu.binding_bytes_max().min(RUN_BYTES_MAX) / row_bytes) as usize;
        let tiles_max = self.gpu.workgroups_max() as usize / 2;
        let pairs_max = self.shader.run_pairs.load(Ordering::Relaxed);
        let (mut rows, mut tiles, mut pairs) = (0, 0, 0);
        let mut parts = Vec::new();
        let mut owners = Owners::new();
        while let Some(mut part) = self.parts.pop_front() {
            let by_pairs = ((pairs_max - pairs) / part.packets as u64) as usize;
            let by_tiles = (tiles_max - tiles) * (self.tuning.lanes * self.tuning.queries_per_lane) as usize;
            let room = by_pairs.min(by_tiles).min(rows_max - rows);
            let taken = part.rows.min(if parts.is_empty() { room.max(1) } else { room });
            if taken > 0 {
                owners.push((part.job, part.row, taken));
                parts.push(Part { rows: taken, ..part });
                rows += taken;
                tiles += tile::tiles_of_rows(taken, &self.tuning);
                pairs = (pairs + taken as u64 * part.packets as u64).min(pairs_max);
            }
            if taken < part.rows {
                part.row += taken;
                part.query += taken;
                part.rows -= taken;
                self.parts.push_front(part);
                break;
            }
        }
        (parts, owners)
    }

    fn submit(
        &self,
        buffers: &super::arena::Buffers,
        writes: &[Write],
        parts: &[Part],
    ) -> Result<Running<'a>, GpuError> {
        let job = &self.jobs[parts[0].job];
        let columns = job.columns.values().ncols();
        let groups = groups(columns);
        let (pieces, queries) = self.pieces(parts, groups);
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        let parameters: Vec<Parameters> =
            (0..groups).step_by(DISPATCH_GROUPS_MAX).map(|first| parameters(job, groups, first)).collect();
        // Where one question is asked of a span, the place for a second one would be idle work.
        let (single, several): (Vec<Piece>, Vec<Piece>) =
            pieces.into_iter().partition(|piece| piece.rows == 1);
        let one = Tuning { queries_per_lane: 1, ..self.tuning };
        let mut dispatches = Vec::new();
        for (pieces, tuning) in [(several, self.tuning), (single, one)] {
            if pieces.is_empty() {
                continue;
            }
            let (segments, tiles) = tile::tiles(&pieces, &tuning, self.gpu.workgroups_max());
            let mut programs = Vec::with_capacity(parameters.len());
            for parameters in &parameters {
                let groups = (groups - parameters.first_group as usize).min(DISPATCH_GROUPS_MAX);
                programs.push(self.shader.program(self.gpu, &tuning, groups)?);
            }
            dispatches.push((segments, tiles, programs));
        }
        let mut bindings: Vec<[Binding; 9]> = Vec::new();
        for (segments, tiles, _) in &dispatches {
            for parameters in &parameters {
                bindings.push([
                    Binding::Uniform(bytemuck::bytes_of(parameters)),
                    Binding::Keep(&buffers.embeddings),
                    Binding::Keep(&buffers.facts),
                    Binding::Keep(&buffers.gains),
                    Binding::Keep(&buffers.values),
                    Binding::Input(bytemuck::cast_slice(&queries)),
                    Binding::Input(bytemuck::cast_slice(segments)),
                    Binding::Input(bytemuck::cast_slice(tiles)),
                    match bindings.len() {
                        0 => Binding::Sums((8 * rows * (ROW_HEAD + columns)) as u64),
                        _ => Binding::Earlier(0),
                    },
                ]);
            }
        }
        let programs = dispatches
            .iter()
            .flat_map(|(_, tiles, programs)| programs.iter().map(move |p| (p, tiles.len() as u32)));
        let steps: Vec<Step> = bindings
            .iter()
            .zip(programs)
            .map(|(bindings, (program, workgroups))| Step { program, bindings, workgroups })
            .collect();
        self.gpu.submit(&Work { writes, steps: &steps, reads: &[] })
    }

    /// The parts as the device sees them, and the questions, each row of a job once.
    fn pieces(&self, parts: &[Part], groups: usize) -> (Vec<Piece>, Vec<Query>) {
        let mut queries: Vec<Query> = Vec::new();
        let mut pieces = Vec::with_capacity(parts.len());
        let mut row = 0;
        // Parts of one job lie one behind the other. Most ask the same questions, which are sent once;
        // where few are asked of many, each part brings its own.
        for same in parts.chunk_by(|a, b| a.job == b.job) {
            let job = &self.jobs[same[0].job];
            let questions = rows(&job.queries);
            let first = same.iter().map(|part| part.query).min().expect("a chunk is not empty");
            let last = same.iter().map(|part| part.query + part.rows).max().expect("a chunk is not empty");
            let shared = last - first <= same.iter().map(|part| part.rows).sum();
            let before = queries.len();
            if shared {
                queries.extend(questions[first..last].iter().map(query));
            }
            for part in same {
                let at = if shared { before + part.query - first } else { queries.len() };
                if !shared {
                    queries.extend(questions[part.query..part.query + part.rows].iter().map(query));
                }
                pieces.push(Piece {
                    row,
                    rows: part.rows as u32,
                    query: at as u32,
                    packet: (part.place.packet + part.packet) as u32,
                    packets: part.packets as u32,
                    values: (part.place.group + part.packet * groups) as u32,
                    groups: groups as u32,
                });
                row += part.rows as u32;
            }
        }
        (pieces, queries)
    }

    /// Waits for a run and adds its cells to the rows that they belong to.
    fn finish_oldest(&mut self) -> Result<(), GpuError> {
        let Some(Flight { running, owners, pairs, began }) = self.flights.pop_front() else { return Ok(()) };
        let alone = self.flights.is_empty();
        let tallies = &mut *self.tallies;
        let ((), kernels) = running.finish(|results| {
            // Low word first: on a little-endian host the pair is a u64. A mapped view may lie anywhere.
            let cells: Vec<u64> = bytemuck::pod_collect_to_vec(results[0]);
            let mut rest = &cells[..];
            for (job, row, rows) in owners {
                let stride = tallies[job].stride();
                let (part, behind) = rest.split_at(rows * stride);
                let sums = &mut tallies[job].cells_mut()[row * stride..][..rows * stride];
                sums.iter_mut().zip(part).for_each(|(sum, &x)| *sum += x);
                rest = behind;
            }
        })?;
        // Without timestamps a run that waited behind others would look long.
        if let Some(elapsed) = kernels.or(alone.then(|| began.elapsed())) {
            self.shader.adapt(pairs, elapsed);
        }
        Ok(())
    }
}

fn parameters(job: &Job, groups: usize, first_group: usize) -> Parameters {
    Parameters {
        columns: job.columns.values().ncols() as u32,
        groups: groups as u32,
        first_group: first_group as u32,
        kernel_shift: u32::from(job.kernel.shift),
        kernel_table: bytemuck::pod_read_unaligned(bytemuck::cast_slice(&job.kernel.table)),
    }
}

fn query(slots: &[i8; SLOTS]) -> Query {
    let norm = slots.iter().map(|&slot| i32::from(slot).pow(2)).sum::<i32>() as u32;
    Query { slots: bytemuck::pod_read_unaligned(bytemuck::cast_slice(slots)), norm, padding: [0; 3] }
}
