//! Where a device's time goes, by its own clock.

use super::pool::{Pool, Usage};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Sums over the runs since they were last taken, from the first time on that they were. Seconds are differences of the device's own
/// timestamps; what the host does meanwhile is not in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Times {
    /// Between the start of the first and the end of the last dispatch of each run.
    pub kernel_seconds: f64,
    /// Copies from staging buffers into the device's, before the dispatches.
    pub upload_seconds: f64,
    /// Copies of the results into buffers that the host can read.
    pub download_seconds: f64,
    pub upload_bytes: u64,
    pub download_bytes: u64,
    pub runs: u64,
}

/// Timestamps of one run: before the upload, before and after the dispatches, after the download.
const MARKS: u32 = 4;
/// Bytes that they take at the end of the download.
pub(super) const MARKS_BYTES: u64 = MARKS as u64 * wgpu::QUERY_SIZE as u64;

/// Timestamps of an adapter that has them.
pub(super) struct Clock {
    seconds_per_tick: f64,
    /// Whether somebody has asked: marks cost a small run a part of its time.
    running: AtomicBool,
    idle: Mutex<Vec<wgpu::QuerySet>>,
    sums: Mutex<Times>,
}

/// The timestamps of one run while it is recorded.
pub(super) struct Marks {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl Clock {
    pub(super) fn new(queue: &wgpu::Queue) -> Clock {
        Clock {
            seconds_per_tick: f64::from(queue.get_timestamp_period()) * 1e-9,
            running: AtomicBool::new(false),
            idle: Mutex::default(),
            sums: Mutex::default(),
        }
    }

    /// The marks of a run; `None` before anybody has asked for times.
    pub(super) fn marks(&self, device: &wgpu::Device, pool: &Pool) -> Option<Marks> {
        if !self.running.load(Ordering::Relaxed) {
            return None;
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let set = idle.unwrap_or_else(|| {
            device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: MARKS,
            })
        });
        Some(Marks { set, resolved: pool.take(device, Usage::Resolve, MARKS_BYTES) })
    }

    /// Adds one run from its resolved timestamps and returns the kernels' part in seconds.
    pub(super) fn add(&self, ticks: &[u8], upload_bytes: u64, download_bytes: u64) -> f64 {
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(ticks);
        let seconds = |from: usize, to: usize| {
            // Some drivers' clocks step back between queues' power states; a negative time is no time.
            ticks[to].saturating_sub(ticks[from]) as f64 * self.seconds_per_tick
        };
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.upload_seconds += seconds(0, 1);
        sums.kernel_seconds += seconds(1, 2);
        sums.download_seconds += seconds(2, 3);
        sums.upload_bytes += upload_bytes;
        sums.download_bytes += download_bytes;
        sums.runs += 1;
        seconds(1, 2)
    }

    /// The sums, which begin again at zero; runs are timed from the first call on.
    pub(super) fn take(&self) -> Times {
        self.running.store(true, Ordering::Relaxed);
        std::mem::take(&mut *self.sums.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs are no longer timed.
    pub(super) fn stop(&self) {
        self.running.store(false, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, pool: &Pool, marks: Marks) {
        pool.give_back(Usage::Resolve, marks.resolved);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(marks.set);
    }
}

impl Marks {
    /// A mark between other commands: an empty pass, which needs no further feature.
    fn mark(&self, encoder: &mut wgpu::CommandEncoder, index: u32) {
        let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(index),
            end_of_pass_write_index: None,
        });
        drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes }));
    }

    pub(super) fn before_upload(&self, encoder: &mut wgpu::CommandEncoder) {
        self.mark(encoder, 0);
    }

    pub(super) fn around_kernels(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(1),
            end_of_pass_write_index: Some(2),
        }
    }

    /// The last mark, and all of them into the download at `offset`.
    pub(super) fn after_download(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        download: &wgpu::Buffer,
        offset: u64,
    ) {
        self.mark(encoder, 3);
        encoder.resolve_query_set(&self.set, 0..MARKS, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, download, offset, Some(MARKS_BYTES));
    }
}
