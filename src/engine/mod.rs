//! The three computations on the chosen backend: embed, fingerprint, merge.
//!
//! The bits do not depend on the choice; the time does. Nothing falls back in silence: what ran is
//! in [`Engine::ran`], and every command that computes prints it.

mod accelerator;
mod instructions;
mod known_answer;

pub use accelerator::Accelerator;
pub use instructions::Instructions;
pub use known_answer::{KNOWN_ANSWER, known_answer};

use crate::domain::Metric;
use crate::fingerprint::Fingerprint;
use crate::gpu::GpuError;
use crate::merge::{Job, Tallies};
use ndarray::{Array2, ArrayView2};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals or embeddings of one call from which `auto` takes the GPU. A packet is 128 bytes, about
/// 13 ns over PCIe; a core fingerprints it in 1.3 us (measured; with AVX2 in 0.3 us), and opening the
/// device costs some 100 ms, once. Estimated, not yet measured on a real adapter.
pub const AUTO_GPU_ROWS_MIN: usize = 1 << 17;
/// Query-packet pairs of one job from which `auto` takes the GPU. A pair takes a core 37 ns (measured;
/// with AVX2 6 ns), so this is half a second (a tenth) of one core. Estimated like the others.
pub const AUTO_GPU_PAIRS_MIN: u64 = 1 << 24;
/// Questions per packet below which the upload costs more than the merge saves.
pub const AUTO_GPU_QUERIES_PER_PACKET_MIN: u64 = 8;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    Cpu,
    Gpu,
    /// The GPU where a real adapter is there and the job is large enough, else the CPU.
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
        let large = signals.nrows() >= AUTO_GPU_ROWS_MIN;
        if self.on_gpu(large, signals.nrows(), |gpu| gpu.embed(metric, signals, out.view_mut())).is_none() {
            self.on_cpu(|| self.instructions.embed(metric, signals, out.view_mut()));
        }
        out
    }

    /// Fingerprints n x 128 embeddings.
    pub fn fingerprint(&self, embeddings: ArrayView2<i8>) -> Vec<Fingerprint> {
        let mut out = vec![[0; 32]; embeddings.nrows()];
        let large = embeddings.nrows() >= AUTO_GPU_ROWS_MIN;
        if self.on_gpu(large, out.len(), |gpu| gpu.fingerprint(embeddings, &mut out)).is_none() {
            self.on_cpu(|| self.instructions.fingerprint(embeddings, &mut out));
        }
        out
    }

    /// The tallies of a job.
    pub fn merge(&self, job: &Job) -> Tallies {
        let pairs = job.pairs();
        let packets = job.columns.len() as u64;
        let large = pairs >= AUTO_GPU_PAIRS_MIN && pairs / packets.max(1) >= AUTO_GPU_QUERIES_PER_PACKET_MIN;
        let tallies = self.on_gpu(large, job.rows(), |gpu| gpu.merge(job));
        tallies.unwrap_or_else(|| self.on_cpu(|| self.instructions.merge(job)))
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

    fn on_cpu<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.ran_cpu.store(true, Ordering::Relaxed);
        self.threads.install(work)
    }

    /// The result, if the GPU is the choice for this job and did it.
    fn on_gpu<T>(
        &self,
        large: bool,
        rows: usize,
        work: impl FnOnce(&Accelerator) -> Result<T, GpuError>,
    ) -> Option<T> {
        let chosen = match self.backend {
            Backend::Cpu => false,
            Backend::Gpu => rows > 0,
            Backend::Auto => large,
        };
        if !chosen || self.failed.load(Ordering::Relaxed) {
            return None;
        }
        let accelerator = self.accelerator.get_or_init(open_quietly).as_ref()?;
        match work(accelerator) {
            Ok(result) => {
                self.ran_gpu.store(true, Ordering::Relaxed);
                Some(result)
            }
            Err(error) => {
                if !self.failed.swap(true, Ordering::Relaxed) {
                    eprintln!("qis: {}: {error}; going on with the CPU", accelerator.name());
                }
                None
            }
        }
    }
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
