//! Which side does a job: the GPU where the user wants it, or where `auto` finds it faster.
//!
//! `auto` compares what [`Calibration`] predicts. Until enough work has come to pay for it, no adapter is
//! looked for and nothing is measured.

use super::calibration::{self, Calibration, Costs, Found, Machine, MergeCost, RowCost, Size};
use super::probe::{Probe, upload_bytes};
use super::{Accelerator, Backend, Engine, EngineError, open_quietly, say};
use crate::domain::Metric;
use crate::fingerprint::Fingerprint;
use crate::gpu::GpuError;
use crate::merge::{Columns, Job, Tallies};
use ndarray::{Array2, ArrayView2};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a core takes, in orders of magnitude: only to tell when it may pay to look for a GPU.
const CORE: Costs = Costs {
    merge: MergeCost { fixed_s: 0.0, packet_s: 2e-9, pair_s: 4e-9 },
    fingerprint: RowCost { fixed_s: 0.0, row_s: 2e-7 },
    embed: RowCost { fixed_s: 0.0, row_s: 1e-6 },
    upload_byte_s: 0.0,
};
/// A shorter job is no longer than a launch with readback is uncertain: it goes to the CPU before
/// anything was measured, and pays for no measurement.
const MATTERS_S: f64 = 500e-6;
/// So much work on a core, by [`CORE`], pays for opening a device (some 100 ms) and measuring it (less
/// than a second), which the next process finds in the cache.
const LOOK_AFTER_S: f64 = 0.25;

/// What `auto` has learnt.
#[derive(Default)]
pub(super) struct Crossover {
    /// `None` inside where measuring failed.
    calibration: OnceLock<Option<Calibration>>,
    /// Somebody is measuring, or has.
    taken_up: AtomicBool,
    /// Work that has come by so far, in microseconds on a core.
    work_us: AtomicU64,
}

impl Crossover {
    /// Whether this job, with all before it, pays for looking for a GPU.
    fn pays(&self, size: Size) -> bool {
        let seconds = CORE.seconds(size);
        if seconds < MATTERS_S {
            return false;
        }
        // A job of ages saturates, as the sum does not within any process's life.
        let before = self.work_us.fetch_add((seconds * 1e6).min(1e12) as u64, Ordering::Relaxed);
        before as f64 * 1e-6 + seconds >= LOOK_AFTER_S
    }
}

/// CPU or GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Cpu,
    Gpu,
}

impl Engine {
    /// The accelerator, if it does this job of so many rows of result. `size` is asked for under
    /// `auto` only; it is given the accelerator once one is open.
    pub(super) fn accelerator_for(
        &self,
        rows: usize,
        size: impl Fn(Option<&Accelerator>) -> Size,
    ) -> Option<&Accelerator> {
        if rows == 0 || self.failed.load(Ordering::Relaxed) {
            return None;
        }
        match self.backend {
            Backend::Cpu => None,
            Backend::Gpu => self.accelerator.get()?.as_ref(),
            Backend::Auto => {
                let calibration = match self.crossover.calibration.get() {
                    Some(calibration) => calibration.as_ref()?,
                    None => {
                        if !self.crossover.pays(size(None)) {
                            return None;
                        }
                        let opened = self.accelerator.get_or_init(open_quietly).as_ref()?;
                        self.calibrated(opened)?
                    }
                };
                let accelerator = self.accelerator.get()?.as_ref()?;
                calibration.prefers_gpu(size(Some(accelerator))).then_some(accelerator)
            }
        }
    }

    /// The calibration, which the first to come finds; while it does, the others go on with the CPU.
    fn calibrated(&self, accelerator: &Accelerator) -> Option<&Calibration> {
        if let Some(calibration) = self.crossover.calibration.get() {
            return calibration.as_ref();
        }
        if self.crossover.taken_up.swap(true, Ordering::Relaxed) {
            return None;
        }
        let found = self.find(accelerator, calibration::folder().as_deref());
        let found = found.inspect_err(|error| say(accelerator.name(), error)).ok();
        if let Some(note) = found.as_ref().and_then(|found| found.note.as_ref()) {
            say("crossover", note);
        }
        self.crossover.calibration.get_or_init(|| found.map(|found| found.calibration)).as_ref()
    }

    fn find(&self, accelerator: &Accelerator, folder: Option<&Path>) -> Result<Found, GpuError> {
        // What is measured must be what will run.
        accelerator.tune_once()?;
        Calibration::find(self.machine(accelerator), folder, &Core(self), accelerator)
    }

    fn machine(&self, accelerator: &Accelerator) -> Machine {
        Machine {
            adapter: accelerator.name().into(),
            driver: accelerator.driver().into(),
            instructions: self.instructions.name().into(),
            threads: self.threads.current_num_threads(),
        }
    }

    /// The measured crossover of this engine, from the cache or, with `anew`, measured now and kept.
    /// From then on `auto` goes by it.
    ///
    /// # Errors
    /// There is no adapter, or it fails.
    pub fn calibration(&self, anew: bool) -> Result<Found, EngineError> {
        let accelerator = match self.accelerator.get() {
            Some(Some(accelerator)) => accelerator,
            _ => {
                let opened = Accelerator::open(None)?;
                let accelerator = self.accelerator.get_or_init(|| Some(opened)).as_ref();
                accelerator.ok_or(GpuError::NoAdapter(String::new()))?
            }
        };
        let folder = calibration::folder();
        if anew && let Some(folder) = &folder {
            Calibration::forget(&self.machine(accelerator), folder);
        }
        let found = self.find(accelerator, folder.as_deref())?;
        self.crossover.taken_up.store(true, Ordering::Relaxed);
        self.crossover.calibration.get_or_init(|| Some(found.calibration.clone()));
        Ok(found)
    }

    /// The same engine going by this calibration under `auto`, whatever was or would be measured.
    pub fn with_calibration(mut self, calibration: Calibration) -> Engine {
        self.crossover = Crossover { calibration: OnceLock::from(Some(calibration)), ..Crossover::default() };
        self
    }

    /// Computes tallies on one side, whatever the backend.
    ///
    /// # Errors
    /// The GPU fails, or there is none.
    pub fn merge_on(&self, side: Side, job: &Job) -> Result<Tallies, GpuError> {
        match side {
            Side::Cpu => Ok(self.on_cpu(|| self.instructions.merge(job))),
            Side::Gpu => self.opened()?.merge(job),
        }
    }

    /// Fingerprints on one side, whatever the backend.
    ///
    /// # Errors
    /// The GPU fails, or there is none.
    pub fn fingerprint_on(
        &self,
        side: Side,
        embeddings: ArrayView2<i8>,
    ) -> Result<Vec<Fingerprint>, GpuError> {
        let mut out = vec![[0; 32]; embeddings.nrows()];
        match side {
            Side::Cpu => self.on_cpu(|| self.instructions.fingerprint(embeddings, &mut out)),
            Side::Gpu => self.opened()?.fingerprint(embeddings, &mut out)?,
        }
        Ok(out)
    }

    /// Whether these columns are on the GPU already, so that a merge uploads none of them.
    pub fn resident(&self, columns: &Columns) -> bool {
        self.opened().is_ok_and(|accelerator| accelerator.resident(columns))
    }

    fn opened(&self) -> Result<&Accelerator, GpuError> {
        let opened = self.accelerator.get().and_then(Option::as_ref);
        opened.ok_or_else(|| GpuError::NoAdapter(": none was opened".into()))
    }
}

/// The size of a merge, for a GPU that has its columns or not.
pub fn merge_size(job: &Job, resident: bool) -> Size {
    let read = job.spans.iter().filter(|span| !span.queries.is_empty());
    Size::Merge {
        packets: read.map(|span| span.packets.len() as u64).sum(),
        pairs: job.pairs(),
        upload_bytes: if resident { 0 } else { upload_bytes(job.columns) },
    }
}

/// The CPU of an engine.
struct Core<'a>(&'a Engine);

impl Probe for Core<'_> {
    fn merge(&self, job: &Job) -> Result<Duration, GpuError> {
        timed(|| {
            drop(self.0.install(|| self.0.instructions.merge(job)));
            Ok(())
        })
    }
    fn fingerprint(&self, embeddings: ArrayView2<i8>) -> Result<Duration, GpuError> {
        let mut out = vec![[0; 32]; embeddings.nrows()];
        timed(|| {
            self.0.install(|| self.0.instructions.fingerprint(embeddings, &mut out));
            Ok(())
        })
    }
    fn embed(&self, metric: &Metric, signals: ArrayView2<i8>) -> Result<Duration, GpuError> {
        let mut out = Array2::zeros(signals.dim());
        timed(|| {
            self.0.install(|| self.0.instructions.embed(metric, signals, out.view_mut()));
            Ok(())
        })
    }
}

impl Probe for Accelerator {
    fn merge(&self, job: &Job) -> Result<Duration, GpuError> {
        timed(|| Accelerator::merge(self, job).map(drop))
    }
    fn fingerprint(&self, embeddings: ArrayView2<i8>) -> Result<Duration, GpuError> {
        let mut out = vec![[0; 32]; embeddings.nrows()];
        timed(|| Accelerator::fingerprint(self, embeddings, &mut out))
    }
    fn embed(&self, metric: &Metric, signals: ArrayView2<i8>) -> Result<Duration, GpuError> {
        let mut out = Array2::zeros(signals.dim());
        timed(|| Accelerator::embed(self, metric, signals, out.view_mut()))
    }
}

fn timed(work: impl FnOnce() -> Result<(), GpuError>) -> Result<Duration, GpuError> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}
