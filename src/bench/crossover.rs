//! From which size on a GPU is worth its launch: measured and predicted times of both sides.

use crate::domain::Kernel;
use crate::engine::calibration::Found;
use crate::engine::{Engine, EngineError, Side, Size, merge_size};
use crate::gpu::GpuError;
use crate::limits::{SLOTS, WEIGHT_ONE};
use crate::merge::{Columns, Job, Span};
use ndarray::{Array2, s};
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};

/// Packets and questions of the merges, by their pairs.
const MERGES: [(usize, usize); 11] = [
    (1_000, 1),
    (10_000, 1),
    (1_000, 16),
    (100_000, 1),
    (10_000, 16),
    (1_000, 256),
    (1_000_000, 1),
    (100_000, 16),
    (10_000, 256),
    (1_000_000, 16),
    (100_000, 256),
];
/// Packets of the fingerprints.
const FINGERPRINTS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Sizes that one side is predicted to take longer for are left out, in seconds.
const LONG_S: f64 = 2.0;
/// Value columns: mean and second moment of two outcomes.
const COLUMNS: usize = 4;
const REPETITIONS_MAX: usize = 21;
const TIME_ENOUGH: Duration = Duration::from_millis(150);

/// One size on both sides; times in seconds.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Point {
    /// `crossover`, like the tasks of other measurements.
    pub task: &'static str,
    /// `merge` or `fingerprint`.
    pub work: &'static str,
    pub packets: usize,
    /// 0 for fingerprints.
    pub queries: usize,
    /// Query-packet pairs, or packets.
    pub items: u64,
    /// Whether the packets were on the GPU before; fingerprints always bring theirs.
    pub resident: bool,
    pub cpu_measured_s: f64,
    pub cpu_predicted_s: f64,
    pub gpu_measured_s: f64,
    pub gpu_predicted_s: f64,
    /// What `--backend auto` takes.
    pub chosen: Side,
    /// What was faster just now.
    pub faster: Side,
    pub adapter: String,
    pub instructions: &'static str,
    pub threads: usize,
    /// Always true: results that differ are [`CrossoverError::Differs`].
    pub checked: bool,
}

/// Why there is no curve.
#[derive(Debug, thiserror::Error)]
pub enum CrossoverError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(
        "{adapter} differs from the CPU in a {work} of {packets} packets: do not use it; `qis doctor` names the driver, and --backend cpu is right"
    )]
    Differs { adapter: String, work: &'static str, packets: usize },
}

/// Calibrates anew, then measures sizes one by one, each handed to `each`.
///
/// # Errors
/// No adapter, or it fails, or it gives other bits.
pub fn crossover(engine: &Engine, mut each: impl FnMut(&Point)) -> Result<Found, CrossoverError> {
    let found = engine.calibration(true)?;
    let measurement = Measurement { engine, found: &found };
    for (packets, queries) in MERGES {
        for point in measurement.merge(packets, queries)? {
            each(&point);
        }
    }
    for packets in FINGERPRINTS {
        if let Some(point) = measurement.fingerprint(packets)? {
            each(&point);
        }
    }
    Ok(found)
}

struct Measurement<'a> {
    engine: &'a Engine,
    found: &'a Found,
}

impl Measurement<'_> {
    /// One point, or two where the GPU keeps packets: brought there, and there already.
    fn merge(&self, packets: usize, queries: usize) -> Result<Vec<Point>, CrossoverError> {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let columns = Columns::new(
            slots(packets),
            (0..packets).map(|_| random.random_range(1..=6)).collect(),
            Array2::from_shape_simple_fn((packets, COLUMNS), || random.random()),
        );
        let gains: Vec<u16> =
            (0..packets).map(|_| random.random_range(WEIGHT_ONE / 2..=WEIGHT_ONE)).collect();
        let questions = slots(queries);
        let job = Job {
            // The distance of two such embeddings is near 140,000: nothing is skipped.
            kernel: &Kernel::gaussian(250.0),
            columns: &columns,
            gains: &gains,
            queries: questions.view(),
            spans: &[Span { queries: 0..queries, packets: 0..packets }],
            skip: true,
        };
        let size = |resident| merge_size(&job, resident);
        if self.too_long(size(false)) {
            return Ok(vec![]);
        }
        let right = self.engine.merge_on(Side::Cpu, &job)?;
        let began = Instant::now();
        let same = self.engine.merge_on(Side::Gpu, &job)? == right;
        let first = began.elapsed().as_secs_f64();
        if !same {
            return Err(self.differs("merge", packets));
        }
        let on = |side| least(|| self.engine.merge_on(side, &job).map(drop));
        let (cpu, gpu) = (on(Side::Cpu)?, on(Side::Gpu)?);
        let items = job.pairs();
        let point = |resident, gpu| {
            self.point("merge", (packets, queries, items), size(resident), resident, cpu, gpu)
        };
        if self.engine.resident(&columns) {
            return Ok(vec![point(false, first), point(true, gpu)]);
        }
        Ok(vec![point(false, gpu)])
    }

    fn fingerprint(&self, packets: usize) -> Result<Option<Point>, CrossoverError> {
        let size = Size::Fingerprint { rows: packets as u64 };
        if self.too_long(size) {
            return Ok(None);
        }
        let embeddings = slots(packets);
        let run = |side| self.engine.fingerprint_on(side, embeddings.view());
        if run(Side::Cpu)? != run(Side::Gpu)? {
            return Err(self.differs("fingerprint", packets));
        }
        let on = |side| least(|| run(side).map(drop));
        let (cpu, gpu) = (on(Side::Cpu)?, on(Side::Gpu)?);
        Ok(Some(self.point("fingerprint", (packets, 0, packets as u64), size, false, cpu, gpu)))
    }

    fn point(
        &self,
        work: &'static str,
        (packets, queries, items): (usize, usize, u64),
        size: Size,
        resident: bool,
        cpu_measured_s: f64,
        gpu_measured_s: f64,
    ) -> Point {
        let calibration = &self.found.calibration;
        let side = |gpu| if gpu { Side::Gpu } else { Side::Cpu };
        Point {
            task: "crossover",
            work,
            packets,
            queries,
            items,
            resident,
            cpu_measured_s,
            cpu_predicted_s: calibration.cpu.seconds(size),
            gpu_measured_s,
            gpu_predicted_s: calibration.gpu.seconds(size),
            chosen: side(calibration.prefers_gpu(size)),
            faster: side(gpu_measured_s < cpu_measured_s),
            adapter: calibration.machine.adapter.clone(),
            instructions: self.engine.instructions().name(),
            threads: calibration.machine.threads,
            checked: true,
        }
    }

    fn too_long(&self, size: Size) -> bool {
        let calibration = &self.found.calibration;
        calibration.cpu.seconds(size).max(calibration.gpu.seconds(size)) > LONG_S
    }

    fn differs(&self, work: &'static str, packets: usize) -> CrossoverError {
        CrossoverError::Differs { adapter: self.found.calibration.machine.adapter.clone(), work, packets }
    }
}

/// Seconds of the shortest of several repetitions, as the calibration takes them.
fn least(run: impl Fn() -> Result<(), GpuError>) -> Result<f64, GpuError> {
    let began = Instant::now();
    let mut least = f64::INFINITY;
    for repetition in 0..REPETITIONS_MAX {
        if repetition > 0 && began.elapsed() > TIME_ENOUGH {
            break;
        }
        let one = Instant::now();
        run()?;
        least = least.min(one.elapsed().as_secs_f64());
    }
    Ok(least)
}

/// Random slots in [-40, 40]; a thousand rows again and again, since only their number matters.
fn slots(rows: usize) -> Array2<i8> {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    let some = Array2::from_shape_simple_fn((rows.min(1_000), SLOTS), || random.random_range(-40i8..=40));
    let mut all = Array2::zeros((rows, SLOTS));
    for start in (0..rows).step_by(1_000) {
        let end = (start + 1_000).min(rows);
        all.slice_mut(s![start..end, ..]).assign(&some.slice(s![..end - start, ..]));
    }
    all
}
