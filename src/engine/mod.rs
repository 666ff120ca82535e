//! The three computations on the chosen backend: embed, fingerprint, merge.
//!
//! The bits do not depend on the choice; the time does. Nothing falls back in silence: what ran is
//! in [`Engine::ran`], and every command that computes prints it.

use crate::domain::Metric;
use crate::fingerprint::Fingerprint;
use crate::merge::{Job, Tallies};
use ndarray::{Array2, ArrayView2};

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
}

/// Runs embeddings, fingerprints and merges.
pub struct Engine {
    threads: rayon::ThreadPool,
}

impl Engine {
    /// # Errors
    /// `--backend gpu` without a usable adapter; an adapter name that fits none.
    pub fn new(choice: &Choice) -> Result<Engine, EngineError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(choice.threads.unwrap_or(0))
            .build()
            .map_err(|e| EngineError::Threads(e.to_string()))?;
        Ok(Engine { threads })
    }

    /// Embeds n x 128 signals.
    pub fn embed(&self, metric: &Metric, signals: ArrayView2<i8>) -> Array2<i8> {
        let mut out = Array2::zeros(signals.dim());
        self.threads.install(|| crate::embed::cpu::embed(metric, signals, out.view_mut()));
        out
    }

    /// Fingerprints n x 128 embeddings.
    pub fn fingerprint(&self, embeddings: ArrayView2<i8>) -> Vec<Fingerprint> {
        let mut out = vec![[0; 32]; embeddings.nrows()];
        self.threads.install(|| crate::fingerprint::cpu::fingerprint(embeddings, &mut out));
        out
    }

    /// The tallies of a job.
    pub fn merge(&self, job: &Job) -> Tallies {
        self.threads.install(|| crate::merge::cpu::merge(job))
    }

    /// Runs other parallel work on the engine's threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    /// What has run so far: `cpu`, or the adapter's name and `gpu`.
    pub fn ran(&self) -> Ran {
        Ran { backend: "cpu", adapter: String::new(), threads: self.threads.current_num_threads() }
    }
}

/// Which backend did the work.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Ran {
    /// `cpu`, `gpu`, or `cpu+gpu` where `auto` used both.
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
