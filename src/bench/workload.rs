//! Fingerprints and merges: inputs, the check of the results, and the figures.

use super::data::{self, Clusters, STREAM_FINGERPRINTS, STREAM_PACKETS, STREAM_QUERIES};
use super::inputs::Folder;
use super::limits::{self, Limits};
use super::record::{self, Clock, Limit};
use super::{BenchError, PAIRS_MAX, Plan, Record, Task};
use crate::domain::Kernel;
use crate::embed::rows;
use crate::engine::Engine;
use crate::fingerprint::cpu::fingerprint_one;
use crate::limits::{FINGERPRINT_BYTES, SLOTS, TALLY_PACKETS_MAX, WEIGHT_ONE};
use crate::merge::batch::second_moment;
use crate::merge::layout::COLUMNS_PER_OUTCOME;
use crate::merge::tally::ROW_HEAD;
use crate::merge::{Columns, Job, Span, Tallies, cpu};
use ndarray::{Array2, s};
use rayon::prelude::*;
use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Range;
use std::path::Path;

/// Outcomes of packets that are made up: mean and second moment each, eight value columns.
pub const OUTCOMES: usize = 4;
/// Twice the squared bandwidth of the kernel: a packet of the question's own kind weighs about 1/e,
/// one of another kind e^-3.3.
const KERNEL_WIDTH: f64 = 65_536.0;
/// The same where kinds lie far apart; weights end at nine times this distance.
const KERNEL_WIDTH_TIGHT: f64 = 4_096.0;
/// Pairs that the law works out for the check, about.
const CHECKED_PAIRS: u64 = 4_000_000;

/// Inputs that stay where they are from repetition to repetition.
pub enum Workload {
    /// Embeddings to fingerprint.
    Fingerprint(Array2<i8>),
    Merge(Box<Merge>),
}

/// Packets of some mailboxes and questions to them.
pub struct Merge {
    kernel: Kernel,
    columns: Columns,
    gains: Vec<u16>,
    queries: Array2<i8>,
    spans: Vec<Span>,
    skip: bool,
}

impl Workload {
    /// The inputs of a plan.
    ///
    /// # Errors
    /// Files of inputs that cannot be used, or hold less than was asked for.
    ///
    /// # Panics
    /// For ingest and signatures, which have inputs of their own.
    pub fn new(plan: &Plan) -> Result<Workload, BenchError> {
        match plan.task {
            Task::Fingerprint => fingerprints(plan).map(Workload::Fingerprint),
            Task::Merge | Task::Query => dense(plan).map(|merge| Workload::Merge(Box::new(merge))),
            Task::Ragged => ragged(plan).map(|merge| Workload::Merge(Box::new(merge))),
            Task::Ingest | Task::Verify => unreachable!("{:?} makes packets", plan.task),
        }
    }

    /// Does the work once.
    pub fn run(&self, engine: &Engine) {
        match self {
            Workload::Fingerprint(embeddings) => drop(black_box(engine.fingerprint(embeddings.view()))),
            Workload::Merge(merge) => drop(black_box(merge.tallies(engine))),
        }
    }

    /// The first of the checked rows at which the engine differs from the scalar law: all rows of
    /// fingerprints; of a merge the first and others evenly spread.
    pub fn wrong_row(&self, engine: &Engine) -> Option<usize> {
        match self {
            Workload::Fingerprint(embeddings) => {
                let fingerprints = engine.fingerprint(embeddings.view());
                let embeddings = embeddings.view();
                let pairs = rows(&embeddings).par_iter().zip(&fingerprints);
                engine
                    .install(|| pairs.position_first(|(embedding, bits)| fingerprint_one(embedding) != *bits))
            }
            Workload::Merge(merge) => merge.wrong_row(engine, &merge.tallies(engine)),
        }
    }

    /// Packets, or query-packet pairs.
    pub fn items(&self) -> u64 {
        match self {
            Workload::Fingerprint(embeddings) => embeddings.nrows() as u64,
            Workload::Merge(merge) => merge.job().pairs(),
        }
    }

    /// Bytes of input and output, each counted once.
    pub fn bytes(&self) -> u64 {
        match self {
            Workload::Fingerprint(embeddings) => (embeddings.nrows() * (SLOTS + FINGERPRINT_BYTES)) as u64,
            Workload::Merge(merge) => {
                let row = 8 * (ROW_HEAD + merge.columns.values().ncols());
                merge.packet_bytes() + (merge.queries.nrows() * SLOTS + merge.job().rows() * row) as u64
            }
        }
    }
}

impl Merge {
    fn job(&self) -> Job<'_> {
        Job {
            kernel: &self.kernel,
            columns: &self.columns,
            gains: &self.gains,
            queries: self.queries.view(),
            spans: &self.spans,
            skip: self.skip,
        }
    }

    pub(super) fn tallies(&self, engine: &Engine) -> Tallies {
        engine.merge(&self.job())
    }

    /// Embedding, cases, gain and values of every packet.
    fn packet_bytes(&self) -> u64 {
        (self.columns.len() * (SLOTS + 2 + 2 + 2 * self.columns.values().ncols())) as u64
    }

    pub(super) fn wrong_row(&self, engine: &Engine, tallies: &Tallies) -> Option<usize> {
        let step = self.job().pairs().div_ceil(CHECKED_PAIRS).max(1) as usize;
        let asked = self.spans.iter().flat_map(|span| span.queries.clone().map(move |query| (query, span)));
        let checked: Vec<_> = asked.enumerate().step_by(step).collect();
        let wrong = |(row, (query, span)): &(usize, (usize, &Span))| {
            tallies.row(*row) != self.law(*query, span.packets.clone())
        };
        engine.install(|| checked.par_iter().find_first(|row| wrong(row))).map(|found| found.0)
    }

    /// One question's tally, packet by packet.
    fn law(&self, query: usize, packets: Range<usize>) -> Vec<u64> {
        let (queries, embeddings) = (self.queries.view(), self.columns.embeddings());
        let query = &rows(&queries)[query];
        let mut cells = vec![0; ROW_HEAD + self.columns.values().ncols()];
        for packet in packets {
            let distance = cpu::distance(query, &rows(&embeddings)[packet]);
            let w = u64::from(cpu::weight(&self.kernel, distance, self.gains[packet]));
            let wn = w * u64::from(self.columns.cases()[packet]);
            cells[0] += u64::from(w > 0);
            cells[1] += wn;
            cells[2] += w * wn;
            for (sum, &x) in cells[ROW_HEAD..].iter_mut().zip(self.columns.values().row(packet)) {
                *sum += wn * u64::from(x);
            }
        }
        cells
    }
}

/// Checks and measures one of the four tasks.
pub(super) fn measure(engine: &Engine, limits: &Limits, plan: &Plan) -> Result<Record, BenchError> {
    let workload = Workload::new(plan)?;
    engine.forget_ran();
    if let Some(row) = workload.wrong_row(engine) {
        return Err(BenchError::differs(engine, row));
    }
    engine.forget_ran();
    let Ok(times) = record::repeat(plan, || {
        workload.run(engine);
        Ok::<(), Infallible>(())
    });
    let record = Record::new(plan, engine, workload.items(), workload.bytes(), times)
        .with_device_times(engine, || workload.run(engine));
    let merge = match &workload {
        Workload::Fingerprint(_) => return Ok(record.against(limit("additions", limits.fingerprints()))),
        Workload::Merge(merge) => merge,
    };
    let job = merge.job();
    let weighed: u64 = {
        let tallies = merge.tallies(engine);
        (0..tallies.rows()).map(|row| tallies.row(row)[0]).sum()
    };
    let record = Record {
        packets: merge.columns.len() as u64,
        queries: Some(merge.queries.nrows() as u64),
        addresses: (plan.task == Task::Ragged).then_some(merge.spans.len() as u64),
        value_columns: Some(merge.columns.values().ncols() as u64),
        skip: Some(merge.skip),
        weightless_share: Some(1.0 - weighed as f64 / job.pairs() as f64),
        ..record
    };
    if record.skip == Some(true) && record.weightless_share > Some(0.0) {
        // How many pairs were passed over is not known, so neither is what they would have cost.
        return Ok(record);
    }
    let multiply_adds = limit("multiply-adds of bytes", limits.pairs());
    if plan.task != Task::Query || record.backend != "cpu" {
        return Ok(record.against(multiply_adds));
    }
    // One question reads each packet once: from the cache where all of them fit, else from memory.
    let bytes = merge.packet_bytes();
    let rate = limits::bytes_read(engine, bytes as usize / limits.threads);
    let reading =
        limit("reading the packets over and over", rate / (bytes as f64 / merge.columns.len() as f64));
    Ok(record.against(if reading.value < multiply_adds.value { reading } else { multiply_adds }))
}

fn limit(name: &str, value: f64) -> Limit {
    Limit { name: name.into(), value, unit: Clock::Processor }
}

fn fingerprints(plan: &Plan) -> Result<Array2<i8>, BenchError> {
    match &plan.inputs {
        None => {
            let packets = plan.packets.unwrap_or(1_000_000);
            Ok(data::embeddings(STREAM_FINGERPRINTS, packets, Clusters::Loose))
        }
        Some(folder) => first_rows(Folder(folder).embeddings("A_X")?, plan.packets, folder, "packets"),
    }
}

/// One mailbox that every question reads.
fn dense(plan: &Plan) -> Result<Merge, BenchError> {
    let queries = if plan.task == Task::Query { Some(1) } else { plan.queries };
    let (queries, packets, outcomes) = match &plan.inputs {
        None => {
            let clusters = if plan.clustered { Clusters::Tight } else { Clusters::Loose };
            let packets = plan.packets.unwrap_or(100_000);
            let queries = queries.unwrap_or(1_000);
            bounded(packets, packets as u64 * queries as u64)?;
            let queries = data::embeddings(STREAM_QUERIES, queries, clusters);
            let outcomes = data::outcomes(packets, OUTCOMES);
            (queries, data::embeddings(STREAM_PACKETS, packets, clusters), outcomes)
        }
        Some(path) => {
            let folder = Folder(path);
            let packets = folder.embeddings("B_P")?;
            let outcomes = folder.outcomes("B_Y", packets.nrows())?;
            let queries = first_rows(folder.embeddings("B_Q")?, queries, path, "questions")?;
            let packets = first_rows(packets, plan.packets, path, "packets")?;
            let outcomes = outcomes.slice(s![..packets.nrows(), ..]).to_owned();
            (queries, packets, outcomes)
        }
    };
    let spans = vec![Span { queries: 0..queries.nrows(), packets: 0..packets.nrows() }];
    Ok(merge(plan, queries, packets, &outcomes, spans))
}

/// Many mailboxes with questions of their own.
fn ragged(plan: &Plan) -> Result<Merge, BenchError> {
    let span = |(queries, packets)| Span { queries, packets };
    let Some(path) = &plan.inputs else {
        let mailboxes = data::mailboxes(plan.addresses.unwrap_or(10_000), plan.packets.unwrap_or(100));
        let spans: Vec<Span> = mailboxes.into_iter().map(span).collect();
        let (asked, held) = spans.last().map_or((0, 0), |last| (last.queries.end, last.packets.end));
        let pairs = |span: &Span| span.queries.len() as u64 * span.packets.len() as u64;
        bounded(held, spans.iter().map(pairs).sum())?;
        let queries = data::embeddings(STREAM_QUERIES, asked, Clusters::Loose);
        let packets = data::embeddings(STREAM_PACKETS, held, Clusters::Loose);
        return Ok(merge(plan, queries, packets, &data::outcomes(held, OUTCOMES), spans));
    };
    let folder = Folder(path);
    let (queries, packets) = (folder.embeddings("C_Q")?, folder.embeddings("C_P")?);
    let outcomes = folder.outcomes("C_Y", packets.nrows())?;
    let asked = folder.ranges("C_qo", queries.nrows())?;
    let held = folder.ranges("C_po", packets.nrows())?;
    if asked.len() != held.len() {
        let problem = format!("offsets of {} mailboxes; C_po.npy has those of {}", asked.len(), held.len());
        return Err(super::InputError::Content { path: path.join("C_qo.npy"), problem }.into());
    }
    let count = plan.addresses.unwrap_or(held.len());
    if count > held.len() {
        return Err(too_few(path, "addresses", count, held.len()));
    }
    let spans: Vec<Span> = asked.into_iter().zip(held).take(count).map(span).collect();
    let (asked, held) = spans.last().map_or((0, 0), |last| (last.queries.end, last.packets.end));
    for (count, what) in [(asked, "questions"), (held, "packets")] {
        if count == 0 {
            return Err(BenchError::Empty { path: path.clone(), what });
        }
    }
    let rows = |array: Array2<i8>, count: usize| array.slice(s![..count, ..]).to_owned();
    let outcomes = outcomes.slice(s![..held, ..]).to_owned();
    Ok(merge(plan, rows(queries, asked), rows(packets, held), &outcomes, spans))
}

fn bounded(packets: usize, pairs: u64) -> Result<(), BenchError> {
    let packets = packets as u64;
    match packets > TALLY_PACKETS_MAX || pairs > PAIRS_MAX {
        true => Err(BenchError::TooLarge { packets, pairs }),
        false => Ok(()),
    }
}

/// The columns: inputs from files have one case each and full gains, as other programs take them.
fn merge(
    plan: &Plan,
    queries: Array2<i8>,
    embeddings: Array2<i8>,
    outcomes: &Array2<u16>,
    spans: Vec<Span>,
) -> Merge {
    let packets = embeddings.nrows();
    let values =
        Array2::from_shape_fn((packets, COLUMNS_PER_OUTCOME * outcomes.ncols()), |(packet, column)| {
            let y = outcomes[[packet, column / COLUMNS_PER_OUTCOME]];
            if column % COLUMNS_PER_OUTCOME == 0 { y } else { second_moment(y, 0) }
        });
    let (cases, gains) = match plan.inputs {
        None => (data::cases(packets, plan.cases_max), data::gains(packets)),
        Some(_) => (vec![1; packets], vec![WEIGHT_ONE; packets]),
    };
    let width = if plan.clustered { KERNEL_WIDTH_TIGHT } else { KERNEL_WIDTH };
    Merge {
        kernel: Kernel::gaussian((width / 2.0).sqrt()),
        columns: Columns::new(embeddings, cases, values),
        gains,
        queries,
        spans,
        skip: plan.skip,
    }
}

fn first_rows(
    array: Array2<i8>,
    count: Option<usize>,
    path: &Path,
    what: &'static str,
) -> Result<Array2<i8>, BenchError> {
    match count {
        _ if array.is_empty() => Err(BenchError::Empty { path: path.into(), what }),
        Some(wanted) if wanted > array.nrows() => Err(too_few(path, what, wanted, array.nrows())),
        Some(wanted) => Ok(array.slice(s![..wanted, ..]).to_owned()),
        None => Ok(array),
    }
}

fn too_few(path: &Path, what: &'static str, wanted: usize, held: usize) -> BenchError {
    BenchError::TooFew { path: path.into(), what, wanted, held }
}
