//! The three computations on the chosen backend: embed, fingerprint, merge.
//!
//! The bits do not depend on the choice; the time does. Nothing falls back in silence: what ran is
//! in [`Engine::ran`], and every command that computes prints it. Under `auto` a job goes to the side
//! that a [`calibration`] finds faster for its size; on the GPU, asks that come together share a
//! dispatch.

mod accelerator;
pub mod calibration;
mod choose;
mod gather;
mod instructions;
mod known_answer;
mod probe;

pub use accelerator::{Accelerator, Tunings};
pub use calibration::{Calibration, Size};
pub use choose::{Side, merge_size};
pub use instructions::Instructions;
pub use known_answer::{KNOWN_ANSWER, known_answer};

use choose::Crossover;
use gather::{Gather, Present};

use crate::domain::Metric;
use crate::fingerprint::Fingerprint;
use crate::gpu::{GpuError, Times};
use crate::merge::{self, Answer, Asking, Job, Question, Situations, Tallies};
use ndarray::{Array2, ArrayView2};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    Cpu,
    Gpu,
    /// The GPU where a real adapter is there and was measured to be faster for the job, else the CPU.
    #[default]
    Auto,
}

/// Backend, adapter and threads as the user named them.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    pub backend: Backend,
    /// A part of the adapter's name, in any case. A software adapter is taken only when named.
    pub adapter: Option<String>,
    /// Threads of the CPU part; `None` is one per core.
    pub threads: Option<usize>,
}

/// Why the chosen backend is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{0}")]
    Threads(String),
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// Runs embeddings, fingerprints and merges.
pub struct Engine {
    threads: rayon::ThreadPool,
    instructions: Instructions,
    backend: Backend,
    /// Opened at once where the user named GPU or adapter, else by the first job that is large
    /// enough; `None` inside where there is none to be had.
    accelerator: OnceLock<Option<Accelerator>>,
    /// After a failure the CPU does everything: a lost device does not come back.
    failed: AtomicBool,
    ran_cpu: AtomicBool,
    ran_gpu: AtomicBool,
    crossover: Crossover,
    gather: Gather,
}

impl Engine {
    /// # Errors
    /// `--backend gpu` without a usable adapter; an adapter name that fits none.
    pub fn new(choice: &Choice) -> Result<Engine, EngineError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(choice.threads.unwrap_or(0))
            .build()
            .map_err(|e| EngineError::Threads(e.to_string()))?;
        let accelerator = OnceLock::new();
        let named = choice.backend == Backend::Auto && choice.adapter.is_some();
        if choice.backend == Backend::Gpu || named {
            let opened = Accelerator::open(choice.adapter.as_deref())?;
            accelerator.get_or_init(|| Some(opened));
        }
        Ok(Engine {
            threads,
            instructions: Instructions::best(),
            backend: choice.backend,
            accelerator,
            failed: AtomicBool::new(false),
            ran_cpu: AtomicBool::new(false),
            ran_gpu: AtomicBool::new(false),
            crossover: Crossover::default(),
            gather: Gather::new(gather::WAIT_MAX),
        })
    }

    /// The same threads with nothing but the law, to compare with.
    pub fn with_law(self) -> Engine {
        self.with_instructions(Instructions::Scalar)
    }

    /// The same threads on the CPU with these instructions, one of [`Instructions::available`].
    pub fn with_instructions(mut self, instructions: Instructions) -> Engine {
        assert!(Instructions::available().contains(&instructions), "instructions this processor has");
        self.backend = Backend::Cpu;
        self.instructions = instructions;
        self
    }

    /// What embeddings, fingerprints and merges are computed with where they run on the CPU.
    pub fn instructions(&self) -> Instructions {
        self.instructions
    }

    /// Embeds n x 128 signals.
    pub fn embed(&self, metric: &Metric, signals: ArrayView2<i8>) -> Array2<i8> {
        if *metric == Metric::Identity {
            return signals.to_owned();
        }
        let mut out = Array2::zeros(signals.dim());
        let rows = signals.nrows();
        // `auto` leaves other metrics to the CPU: see `calibration`.
        let measured = matches!(metric, Metric::Full { .. }) || self.backend == Backend::Gpu;
        let size = |_: Option<&Accelerator>| Size::Embed { rows: rows as u64 };
        let accelerator = if measured { self.accelerator_for(rows, size) } else { None };
        if self.on_gpu(accelerator, |gpu| gpu.embed(metric, signals, out.view_mut())).is_none() {
            self.on_cpu(|| self.instructions.embed(metric, signals, out.view_mut()));
        }
        out
    }

    /// Fingerprints n x 128 embeddings.
    pub fn fingerprint(&self, embeddings: ArrayView2<i8>) -> Vec<Fingerprint> {
        let mut out = vec![[0; 32]; embeddings.nrows()];
        let size = |_: Option<&Accelerator>| Size::Fingerprint { rows: embeddings.nrows() as u64 };
        let accelerator = self.accelerator_for(out.len(), size);
        if self.on_gpu(accelerator, |gpu| gpu.fingerprint(embeddings, &mut out)).is_none() {
            self.on_cpu(|| self.instructions.fingerprint(embeddings, &mut out));
        }
        out
    }

    /// The tallies of a job. On the GPU, jobs that several threads bring together share a dispatch.
    pub fn merge(&self, job: &Job) -> Tallies {
        self.merge_of(job, self.present())
    }

    /// [`Engine::merge`] for somebody who was announced, if a GPU is there to wait for.
    fn merge_of(&self, job: &Job, present: Option<Present>) -> Tallies {
        // A job that does not fit must not fail in the hands of whoever runs it with others.
        job.check();
        let size = |gpu: Option<&Accelerator>| merge_size(job, gpu.is_some_and(|g| g.resident(job.columns)));
        let gpu = self.accelerator_for(job.rows(), size);
        if job.pairs() > gather::PAIRS_MAX {
            drop(present);
            if let Some(tallies) = self.on_gpu(gpu, |gpu| gpu.merge(job)) {
                return tallies;
            }
        } else if let Some(gpu) = gpu {
            let _present = present.unwrap_or_else(|| self.gather.enter());
            let run = |jobs: &[Job]| self.on_gpu(Some(gpu), |gpu| gpu.merge_many(jobs));
            if let Some(tallies) = self.gather.merge(job, run) {
                return tallies;
            }
        } else {
            // Nobody on the way to the GPU has to wait for this one.
            drop(present);
        }
        if self.instructions.merges_at_once(job) {
            self.ran_cpu.store(true, Ordering::Relaxed);
            return self.instructions.merge(job);
        }
        self.on_cpu(|| self.instructions.merge(job))
    }

    /// Announces an ask to others that may go to the GPU, where one is open.
    fn present(&self) -> Option<Present<'_>> {
        let open = self.backend != Backend::Cpu && self.accelerator.get().is_some_and(Option::is_some);
        (open && !self.failed.load(Ordering::Relaxed)).then(|| self.gather.enter())
    }

    /// Answers each situation: [`crate::merge::answer()`] on this engine.
    pub fn answer(&self, question: Question, asked: Situations) -> Vec<Answer> {
        let mut present = self.present();
        if present.is_none() {
            return self.install(|| merge::answer(question, asked, |job| self.merge(job)));
        }
        // Who waits for others must not keep them from the engine's threads, so this one waits here.
        let asking = Asking::new(question, asked);
        let mut answers = Vec::with_capacity(asked.embeddings.nrows());
        for part in asking.parts() {
            let spans = asking.spans(&part);
            let present = present.take().or_else(|| self.present());
            let tallies = self.merge_of(&asking.job(&part, &spans), present);
            answers.extend(self.install(|| asking.finish(&part, &tallies)));
        }
        answers
    }

    /// Runs other parallel work on the engine's threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    /// What has run so far.
    pub fn ran(&self) -> Ran {
        let gpu = self.ran_gpu.load(Ordering::Relaxed);
        let backend = match (self.ran_cpu.load(Ordering::Relaxed), gpu) {
            (true, true) => "cpu+gpu",
            (false, true) => "gpu",
            // Before any work the CPU is what would run.
            (_, false) => "cpu",
        };
        let accelerator = self.accelerator.get().and_then(Option::as_ref).filter(|_| gpu);
        let adapter = accelerator.map(|accelerator| accelerator.name().to_owned()).unwrap_or_default();
        Ran { backend, adapter, threads: self.threads.current_num_threads() }
    }

    /// Forgets what has run so far, so that [`Engine::ran`] speaks of what comes next.
    pub fn forget_ran(&self) {
        self.ran_cpu.store(false, Ordering::Relaxed);
        self.ran_gpu.store(false, Ordering::Relaxed);
    }

    /// Time of the GPU's own work since this was last called, kernels and transfers apart; runs are
    /// timed from the first call on. `None` where no GPU is open or it has no timestamps.
    pub fn gpu_times(&self) -> Option<Times> {
        self.accelerator.get().and_then(Option::as_ref).and_then(Accelerator::take_times)
    }

    /// Runs on the GPU are no longer timed: marks take a part of a small run.
    pub fn stop_gpu_times(&self) {
        if let Some(accelerator) = self.accelerator.get().and_then(Option::as_ref) {
            accelerator.stop_times();
        }
    }

    fn on_cpu<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.ran_cpu.store(true, Ordering::Relaxed);
        self.threads.install(work)
    }

    /// The result, if the GPU is the choice for this job and did it.
    fn on_gpu<T>(
        &self,
        accelerator: Option<&Accelerator>,
        work: impl FnOnce(&Accelerator) -> Result<T, GpuError>,
    ) -> Option<T> {
        // It may have failed since it was chosen.
        let accelerator = accelerator.filter(|_| !self.failed.load(Ordering::Relaxed))?;
        match work(accelerator) {
            Ok(result) => {
                self.ran_gpu.store(true, Ordering::Relaxed);
                Some(result)
            }
            Err(error) => {
                if !self.failed.swap(true, Ordering::Relaxed) {
                    say(accelerator.name(), &format!("{error}; going on with the CPU"));
                }
                None
            }
        }
    }
}

/// One line for people: whatever command runs, they should know.
fn say(of: &str, what: &dyn std::fmt::Display) {
    eprintln!("qis: {of}: {what}");
}

/// What `auto` does where nobody named an adapter: having none is ordinary, having one that does not
/// open is worth a line.
fn open_quietly() -> Option<Accelerator> {
    match Accelerator::open(None) {
        Ok(accelerator) => Some(accelerator),
        Err(GpuError::NoAdapter(_)) => None,
        Err(error) => {
            eprintln!("qis: {error}; going on with the CPU");
            None
        }
    }
}

/// Which backend did the work.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Ran {
    /// `cpu`, `gpu`, or `cpu+gpu` where both took part.
    pub backend: &'static str,
    /// Empty where no adapter took part.
    pub adapter: String,
    pub threads: usize,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.backend)?;
        if !self.adapter.is_empty() {
            write!(f, " ({})", self.adapter)?;
        }
        write!(f, ", {} thread(s)", self.threads)
    }
}
#[cfg(test)]
mod tests;
