//! The GPU side of the engine: an open device with its three shaders.

use crate::domain::Metric;
use crate::fingerprint::Fingerprint;
use crate::gpu::{Gpu, GpuError};
use crate::merge::{Columns, Job, Tallies};
use crate::{embed, fingerprint, merge};
use ndarray::{ArrayView2, ArrayViewMut2};

/// An open device with the three shaders compiled.
pub struct Accelerator {
    pub(super) gpu: Gpu,
    embed: embed::gpu::Shader,
    fingerprint: fingerprint::gpu::Shader,
    merge: merge::gpu::Shader,
}

impl Accelerator {
    /// Opens the adapter that [`crate::gpu::verdicts`] takes for this name.
    ///
    /// # Errors
    /// No adapter, no device, or the driver refuses a shader.
    pub fn open(name: Option<&str>) -> Result<Accelerator, GpuError> {
        let gpu = Gpu::open(name)?;
        Ok(Accelerator {
            embed: embed::gpu::Shader::new(&gpu)?,
            fingerprint: fingerprint::gpu::Shader::new(&gpu)?,
            merge: merge::gpu::Shader::new(&gpu)?,
            gpu,
        })
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.gpu.description().name
    }

    /// The driver with its version, as it names itself.
    pub fn driver(&self) -> &str {
        &self.gpu.description().driver
    }

    /// As [`embed::cpu::embed`].
    ///
    /// # Errors
    /// The GPU fails.
    pub fn embed(
        &self,
        metric: &Metric,
        signals: ArrayView2<i8>,
        out: ArrayViewMut2<i8>,
    ) -> Result<(), GpuError> {
        self.embed.embed(&self.gpu, metric, signals, out)
    }

    /// As [`fingerprint::cpu::fingerprint`].
    ///
    /// # Errors
    /// The GPU fails.
    pub fn fingerprint(&self, embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) -> Result<(), GpuError> {
        self.fingerprint.fingerprint(&self.gpu, embeddings, out)
    }

    /// As [`merge::cpu::merge`].
    ///
    /// # Errors
    /// The GPU fails.
    pub fn merge(&self, job: &Job) -> Result<Tallies, GpuError> {
        self.merge.merge(&self.gpu, job)
    }

    /// The tallies of several jobs, in their order, each as [`merge::cpu::merge`] gives them.
    ///
    /// # Errors
    /// The GPU fails; nothing of any job is given then.
    pub fn merge_many(&self, jobs: &[Job]) -> Result<Vec<Tallies>, GpuError> {
        jobs.iter().map(|job| self.merge(job)).collect()
    }

    /// Whether these columns are on the device already, so that a merge brings none of them.
    pub fn resident(&self, _columns: &Columns) -> bool {
        false
    }
}
