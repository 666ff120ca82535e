//! The GPU side of the engine: an open device with its three shaders.

use crate::domain::{Kernel, Metric};
use crate::fingerprint::Fingerprint;
use crate::gpu::{Gpu, GpuError, Times};
use crate::limits::{SLOTS, WEIGHT_ONE};
use crate::merge::arena::Residency;
use crate::merge::{Columns, Job, Span, Tallies};
use crate::{embed, fingerprint, merge};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};

/// An open device with the three shaders compiled.
pub struct Accelerator {
    pub(super) gpu: Gpu,
    embed: embed::gpu::Shader,
    fingerprint: fingerprint::gpu::Shader,
    merge: merge::gpu::Shader,
    /// Whether the sizes were measured or given.
    tuned: AtomicBool,
}

/// What is chosen by measurement on an adapter. The bits do not depend on it, the time does; it may
/// be kept in a file, by adapter and driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunings {
    pub fingerprint: fingerprint::gpu::Entry,
    pub merge: merge::Tuning,
}

/// Packets and questions of the tuning run: many times the launch on a large device, and still below
/// a second on a software one.
const TUNE_PACKETS: usize = 8_192;
const TUNE_QUERIES: usize = 128;
const TUNE_COLUMNS: usize = 8;
/// Pairs of a call from which an adapter that was not tuned is tuned first: the run is a small part
/// of such a job. Estimated.
const TUNE_PAIRS_MIN: u64 = 1 << 28;
/// The same in rows of a fingerprint call.
const TUNE_ROWS_MIN: usize = 1 << 22;

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
            tuned: AtomicBool::new(false),
            gpu,
        })
    }

    /// Times the candidates on a small job of fixed numbers and uses the fastest for the life of the
    /// process. Happens by itself before the first job that is many times as large.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn calibrate(&self) -> Result<Tunings, GpuError> {
        self.tuned.store(true, Ordering::Relaxed);
        let slots = |rows: usize| {
            let slot = |(row, slot): (usize, usize)| (row * 31 + slot * 17 + row * slot) as i8 % 41;
            Array2::from_shape_fn((rows, SLOTS), slot)
        };
        let packets = slots(TUNE_PACKETS);
        let fingerprint = self.fingerprint.measure(&self.gpu, packets.view())?;
        let values = Array2::from_shape_fn((TUNE_PACKETS, TUNE_COLUMNS), |(i, j)| (i * 7_919 + j) as u16);
        let columns = Columns::new(packets, vec![3; TUNE_PACKETS], values);
        let queries = slots(TUNE_QUERIES);
        let merge = self.merge.measure(
            &self.gpu,
            &Job {
                kernel: &Kernel::gaussian(250.0),
                columns: &columns,
                gains: &[WEIGHT_ONE; TUNE_PACKETS],
                queries: queries.view(),
                spans: &[Span { queries: 0..TUNE_QUERIES, packets: 0..TUNE_PACKETS }],
                skip: false,
            },
        )?;
        Ok(Tunings { fingerprint, merge })
    }

    /// What is used.
    pub fn tunings(&self) -> Tunings {
        Tunings { fingerprint: self.fingerprint.entry(), merge: self.merge.tuning() }
    }

    /// Uses what an earlier process has measured; false, and nothing changes, where it is not sound.
    pub fn tune(&self, tunings: Tunings) -> bool {
        if tunings.merge.is_sound() {
            self.fingerprint.choose(tunings.fingerprint);
            self.merge.tune(tunings.merge);
            self.tuned.store(true, Ordering::Relaxed);
        }
        tunings.merge.is_sound()
    }

    /// [`Accelerator::calibrate`], unless it has been done or was handed in.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn tune_once(&self) -> Result<(), GpuError> {
        self.tune_before(true)
    }

    fn tune_before(&self, large: bool) -> Result<(), GpuError> {
        if large && !self.tuned.swap(true, Ordering::Relaxed) {
            self.calibrate()?;
        }
        Ok(())
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
        self.tune_before(out.len() >= TUNE_ROWS_MIN)?;
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
        self.tune_before(jobs.iter().map(Job::pairs).sum::<u64>() >= TUNE_PAIRS_MIN)?;
        self.merge.merge(&self.gpu, jobs)
    }

    /// Device time since this was last called, and nothing at the first call, from which on runs are
    /// timed; `None` where the adapter has no timestamps.
    pub fn take_times(&self) -> Option<Times> {
        self.gpu.take_times()
    }

    /// Runs are no longer timed, until times are taken again.
    pub fn stop_times(&self) {
        self.gpu.stop_times();
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

    /// Whether these columns are on the device already, so that a merge brings none of them.
    pub fn resident(&self, columns: &Columns) -> bool {
        self.merge.holds(columns)
    }
}
