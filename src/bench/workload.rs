//! The inputs of a measurement, and the check of its results.

use super::{Plan, Task};
use crate::domain::Kernel;
use crate::engine::Engine;
use crate::fingerprint::cpu::fingerprint_one;
use crate::limits::{SLOTS, WEIGHT_ONE};
use crate::merge::tally::ROW_HEAD;
use crate::merge::{Columns, Job, Span, cpu};
use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use std::hint::black_box;

/// Value columns of a merge: mean and second moment of two outcomes.
pub const COLUMNS: usize = 4;
/// Questions whose tallies are checked, spread over all.
const CHECKED_QUERIES_MAX: usize = 16;

/// Packets of one mailbox and questions to it. Every weight is above zero, so nothing is skipped:
/// the slowest case.
pub struct Workload {
    task: Task,
    kernel: Kernel,
    columns: Columns,
    gains: Vec<u16>,
    queries: Array2<i8>,
    spans: [Span; 1],
}

impl Workload {
    pub fn new(plan: Plan) -> Workload {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let packets = plan.packets;
        let queries = if plan.task == Task::Merge { plan.queries } else { 0 };
        let mut slots =
            |rows| Array2::from_shape_simple_fn((rows, SLOTS), || random.random_range(-40i8..=40));
        let embeddings = slots(packets);
        let queries = slots(queries);
        Workload {
            task: plan.task,
            // The distance of two such embeddings is near 140,000.
            kernel: Kernel::gaussian(250.0),
            columns: Columns::new(
                embeddings,
                (0..packets).map(|_| random.random_range(1..=6)).collect(),
                Array2::from_shape_simple_fn((packets, COLUMNS), || random.random()),
            ),
            gains: (0..packets).map(|_| random.random_range(WEIGHT_ONE / 2..=WEIGHT_ONE)).collect(),
            spans: [Span { queries: 0..queries.nrows(), packets: 0..packets }],
            queries,
        }
    }

    fn job(&self) -> Job<'_> {
        Job {
            kernel: &self.kernel,
            columns: &self.columns,
            gains: &self.gains,
            queries: self.queries.view(),
            spans: &self.spans,
            skip: true,
        }
    }

    /// Does the work once.
    pub fn run(&self, engine: &Engine) {
        match self.task {
            Task::Fingerprint => drop(black_box(engine.fingerprint(self.columns.embeddings()))),
            Task::Merge => drop(black_box(engine.merge(&self.job()))),
        }
    }

    /// The first row at which the engine differs from the scalar law.
    pub fn wrong_row(&self, engine: &Engine) -> Option<usize> {
        match self.task {
            Task::Fingerprint => {
                let fingerprints = engine.fingerprint(self.columns.embeddings());
                let embeddings = self.columns.embeddings();
                let rows = crate::embed::rows(&embeddings).iter().zip(&fingerprints);
                rows.map(|(embedding, bits)| fingerprint_one(embedding) == *bits).position(|same| !same)
            }
            Task::Merge => {
                let tallies = engine.merge(&self.job());
                let step = self.queries.nrows().div_ceil(CHECKED_QUERIES_MAX).max(1);
                (0..self.queries.nrows()).step_by(step).find(|&query| tallies.row(query) != self.tally(query))
            }
        }
    }

    /// One question's tally, packet by packet.
    fn tally(&self, query: usize) -> Vec<u64> {
        let mut cells = vec![0; ROW_HEAD + COLUMNS];
        let queries = self.queries.view();
        let query = &crate::embed::rows(&queries)[query];
        for (packet, embedding) in crate::embed::rows(&self.columns.embeddings()).iter().enumerate() {
            let w = u64::from(cpu::weight(&self.kernel, cpu::distance(query, embedding), self.gains[packet]));
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

    /// Packets, or query-packet pairs.
    pub fn items(&self) -> u64 {
        match self.task {
            Task::Fingerprint => self.columns.len() as u64,
            Task::Merge => self.job().pairs(),
        }
    }

    /// Bytes of input and output, each counted once.
    pub fn bytes(&self) -> u64 {
        let packets = self.columns.len();
        let bytes = match self.task {
            Task::Fingerprint => packets * (SLOTS + 32),
            Task::Merge => {
                packets * (SLOTS + 4 + 2 * COLUMNS)
                    + self.queries.nrows() * (SLOTS + 8 * (ROW_HEAD + COLUMNS))
            }
        };
        bytes as u64
    }
}
