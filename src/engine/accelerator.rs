//! The GPU side of the engine: an open device with its three shaders.

use crate::domain::Metric;
use crate::fingerprint::Fingerprint;
use crate::gpu::{Gpu, GpuError, Times};
use crate::merge::arena::Residency;
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

    /// Embeds n signals (n x 128) and fingerprints the embeddings where they lie. `embeddings`
    /// (n x 128) takes them where somebody reads them; without a reader they never leave the device.
    ///
    /// # Errors
    /// The GPU fails; the results may be partly written then.
    ///
    /// # Panics
    /// If the shapes differ or the metric is not sound.
    pub fn embed_and_fingerprint(
        &self,
        metric: &Metric,
        signals: ArrayView2<i8>,
        embeddings: Option<ArrayViewMut2<i8>>,
        fingerprints: &mut [Fingerprint],
    ) -> Result<(), GpuError> {
        let Some(weights) = embed::gpu::Weights::new(metric) else {
            if let Some(mut embeddings) = embeddings {
                embeddings.assign(&signals);
            }
            return self.fingerprint(signals, fingerprints);
        };
        let mut embeddings = embeddings;
        let rows = embeddings.as_mut().map(|array| {
            assert_eq!(array.dim(), signals.dim(), "one embedding per signal");
            bytemuck::cast_slice_mut(array.as_slice_mut().expect("rows in standard order"))
        });
        let Accelerator { gpu, embed, fingerprint, .. } = self;
        fingerprint.embed_and_fingerprint(gpu, embed, &weights, signals, rows, fingerprints)
    }

    /// Fingerprints of columns' embeddings, which stay on the device from then on, as after a merge.
    ///
    /// # Errors
    /// The GPU fails; `out` may be partly written then.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn fingerprint_columns(&self, columns: &Columns, out: &mut [Fingerprint]) -> Result<(), GpuError> {
        assert_eq!(columns.len(), out.len(), "one fingerprint per packet");
        let Accelerator { gpu, fingerprint, merge, .. } = self;
        merge.resident(gpu, columns, |embeddings, first, rows| {
            fingerprint.fingerprint_resident(gpu, embeddings, first, &mut out[rows])
        })
    }

    /// As [`merge::cpu::merge`]. The columns stay on the device for later merges.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn merge(&self, job: &Job) -> Result<Tallies, GpuError> {
        let tallies = self.merge_many(std::slice::from_ref(job))?;
        Ok(tallies.into_iter().next().expect("one job has one result"))
    }

    /// The tallies of several jobs over any columns, in their order; those of one kernel and number of
    /// value columns in common dispatches.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn merge_many(&self, jobs: &[Job]) -> Result<Vec<Tallies>, GpuError> {
        self.merge.merge(&self.gpu, jobs)
    }

    /// Device time since this was last called; `None` where the adapter has no timestamps.
    pub fn take_times(&self) -> Option<Times> {
        self.gpu.take_times()
    }

    /// What merges have left on the device.
    pub fn residency(&self) -> Residency {
        self.merge.residency()
    }

    /// Keeps at most so many bytes of embeddings on the device, and as many of values, and drops what
    /// is there.
    pub fn limit_residency(&self, bytes_max: u64) {
        self.merge.limit_residency(&self.gpu, bytes_max);
    }
}
