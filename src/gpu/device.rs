//! An open device and its compiled programs.

use super::pool::Pool;
use super::times::{Clock, Times};
use super::{Adapter, BINDING_BYTES_MAX, Description, GpuError, Verdict, list, trusted, verdicts};
use std::sync::{Arc, Mutex, PoisonError};

/// What every adapter allows; more would only make single dispatches long.
const WORKGROUPS_MAX: u32 = 65_535;

/// What the driver reported outside any call, first report first.
pub(super) type Reports = Arc<Mutex<Option<GpuError>>>;

/// An open device. Shared between threads; each run is on its own.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pool: Pool,
    /// Where the adapter has timestamps.
    pub(super) clock: Option<Clock>,
    /// Where a binding may begin within a buffer, in bytes.
    pub(super) offset_alignment: u64,
    description: Description,
    binding_bytes_max: u64,
    workgroups_max: u32,
    reports: Reports,
}

/// A compiled shader.
pub struct Program {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl Gpu {
    /// Opens the adapter that [`verdicts`] takes.
    ///
    /// # Errors
    /// No adapter may be taken, none bears the name, or the driver gives no device.
    pub fn open(name: Option<&str>) -> Result<Gpu, GpuError> {
        let adapters = list();
        let descriptions: Vec<Description> = adapters.iter().map(|a| a.description().clone()).collect();
        let verdicts = verdicts(&descriptions, name);
        let taken = verdicts.iter().position(|verdict| *verdict == Verdict::Taken);
        match taken.map(|index| &adapters[index]) {
            Some(adapter) => Gpu::open_adapter(adapter),
            None => Err(refusal(&descriptions, &verdicts, name)),
        }
    }

    /// Opens this adapter.
    ///
    /// # Errors
    /// The driver gives no device.
    pub fn open_adapter(adapter: &Adapter) -> Result<Gpu, GpuError> {
        let limits = adapter.inner.limits();
        let timestamps = adapter.inner.features() & wgpu::Features::TIMESTAMP_QUERY;
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: limits.clone(),
            required_features: timestamps,
            ..Default::default()
        };
        let opened = pollster::block_on(adapter.inner.request_device(&descriptor));
        let (device, queue) = opened.map_err(|e| GpuError::NoDevice {
            adapter: adapter.description.name.clone(),
            reason: e.to_string(),
        })?;
        let reports = Reports::default();
        let sink = reports.clone();
        device.on_uncaptured_error(Arc::new(move |error| report(&sink, classify(error))));
        let sink = reports.clone();
        device.set_device_lost_callback(move |_, message| {
            let message = if message.is_empty() { "the driver gives no reason".into() } else { message };
            report(&sink, GpuError::Lost(message));
        });
        let binding_bytes_max =
            limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(BINDING_BYTES_MAX);
        Ok(Gpu {
            pool: Pool::new(limits.max_buffer_size),
            clock: (!timestamps.is_empty()).then(|| Clock::new(&queue)),
            offset_alignment: u64::from(
                limits.min_storage_buffer_offset_alignment.max(limits.min_uniform_buffer_offset_alignment),
            ),
            device,
            queue,
            description: adapter.description.clone(),
            // Whole words, since buffers are copied in words.
            binding_bytes_max: binding_bytes_max & !3,
            workgroups_max: limits.max_compute_workgroups_per_dimension.min(WORKGROUPS_MAX),
            reports,
        })
    }

    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Largest binding of a run, in bytes; larger jobs are cut.
    pub fn binding_bytes_max(&self) -> u64 {
        self.binding_bytes_max
    }

    /// Most workgroups of a run.
    pub fn workgroups_max(&self) -> u32 {
        self.workgroups_max
    }

    /// Device time since this was last called, and nothing at the first call, from which on runs are
    /// timed; `None` where the adapter has no timestamps.
    pub fn take_times(&self) -> Option<Times> {
        self.clock.as_ref().map(Clock::take)
    }

    /// Runs are no longer timed, until times are taken again.
    pub fn stop_times(&self) {
        if let Some(clock) = &self.clock {
            clock.stop();
        }
    }

    /// Compiles one entry point of a shader, with values for its `override` constants. The source is
    /// one of the crate's own, since it runs unchecked.
    ///
    /// # Errors
    /// The driver refuses it.
    pub(crate) fn program(
        &self,
        entry: &str,
        source: &str,
        overrides: &[(&str, u32)],
    ) -> Result<Program, GpuError> {
        let constants: Vec<(&str, f64)> =
            overrides.iter().map(|&(name, value)| (name, f64::from(value))).collect();
        self.guard(|| {
            let module = trusted::compile(&self.device, entry, source);
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants,
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
            Ok(Program { layout: pipeline.get_bind_group_layout(0), pipeline })
        })
    }

    /// Ends the device as a crashed driver would.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        self.device.destroy();
    }

    /// Runs `work` and turns whatever the driver reports meanwhile into an error.
    pub(super) fn guard<T>(&self, work: impl FnOnce() -> Result<T, GpuError>) -> Result<T, GpuError> {
        self.reported()?;
        let filters =
            [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        // wgpu panics where a device is lost during a wait.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // The scopes are a stack, so they end in reverse; out of memory explains whatever else there is.
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
        let errors: Vec<GpuError> = errors.map(classify).collect();
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        self.reported()?;
        result.unwrap_or_else(|_| Err(GpuError::Lost("the driver gave up during a wait".into())))
    }

    fn reported(&self) -> Result<(), GpuError> {
        let report = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        report.clone().map_or(Ok(()), Err)
    }
}

fn report(sink: &Reports, error: GpuError) {
    sink.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

fn classify(error: wgpu::Error) -> GpuError {
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory,
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            GpuError::Refused(description.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    }
}

fn refusal(adapters: &[Description], verdicts: &[Verdict], name: Option<&str>) -> GpuError {
    if let Some(name) = name {
        let names: Vec<&str> = adapters.iter().map(|adapter| adapter.name.as_str()).collect();
        let found = if names.is_empty() { "no adapter at all".into() } else { names.join(", ") };
        return GpuError::NotNamed { name: name.into(), found };
    }
    let reasons = adapters.iter().zip(verdicts).filter_map(|(adapter, verdict)| match verdict {
        Verdict::Refused(reason) => Some(format!("{}: {reason}", adapter.name)),
        Verdict::Taken => None,
    });
    let reasons: Vec<String> = reasons.collect();
    let list = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
    GpuError::NoAdapter(list)
}
