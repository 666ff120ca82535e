//! One job: upload, clear, dispatch, copy back; one encoder, one submit, one wait.

use super::pool::Usage;
use super::{Gpu, GpuError, Program};
use std::sync::mpsc;
use std::time::Duration;

/// How long to wait for a callback after the work is done, and how often.
const CALLBACK_WAIT: Duration = Duration::from_millis(20);
const CALLBACK_WAITS_MAX: usize = 500;

/// A buffer that keeps its content between runs.
pub struct Resident {
    buffer: wgpu::Buffer,
    bytes: u64,
}

/// What stands at one binding of a program; the index in the slice is the binding's number. Bytes
/// are whole words of four, at least one.
pub enum Binding<'a> {
    Uniform(&'a [u8]),
    Input(&'a [u8]),
    /// Written first, then bound: for a buffer that later runs read again.
    Fill(&'a Resident, &'a [u8]),
    Keep(&'a Resident),
    /// So many zero bytes at the start, read back at the end. Exactly one binding is the output.
    Output(u64),
}

/// A binding's buffer and what becomes of it after the run.
struct Bound<'a> {
    buffer: wgpu::Buffer,
    bytes: u64,
    upload: Option<&'a [u8]>,
    usage: Option<Usage>,
}

impl Gpu {
    /// A buffer of that many bytes, at most [`Gpu::binding_bytes_max`].
    ///
    /// # Errors
    /// Out of memory.
    pub fn reserve(&self, bytes: u64) -> Result<Resident, GpuError> {
        self.guard(|| {
            Ok(Resident {
                buffer: self.pool.take(&self.device, Usage::Storage, bytes.max(4)),
                bytes: bytes.max(4),
            })
        })
    }

    /// Gives a buffer back for others to use.
    pub fn release(&self, resident: Resident) {
        self.pool.give_back(Usage::Storage, resident.buffer);
    }

    /// Runs a program on `workgroups` groups in one dimension and hands the output's bytes to `read`.
    ///
    /// # Errors
    /// The driver refuses, runs out of memory or loses the device; nothing was read then.
    ///
    /// # Panics
    /// If a binding is empty or no whole number of words, or there is not exactly one output.
    pub fn run<T>(
        &self,
        program: &Program,
        bindings: &[Binding],
        workgroups: u32,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, GpuError> {
        let outputs = bindings.iter().filter(|binding| matches!(binding, Binding::Output(_))).count();
        assert_eq!(outputs, 1, "one output per run");
        assert!(workgroups <= self.workgroups_max(), "jobs are cut before they run");
        // The reader runs outside the guard, so that its own panics stay what they are.
        let download = self.guard(|| self.compute(program, bindings, workgroups))?;
        let (buffer, bytes) = download;
        let view = buffer.slice(..bytes).get_mapped_range();
        let view = view.map_err(|e| GpuError::Lost(e.to_string()))?;
        let result = read(&view);
        drop(view);
        buffer.unmap();
        self.pool.give_back(Usage::Download, buffer);
        Ok(result)
    }

    /// Everything up to the mapped output.
    fn compute(
        &self,
        program: &Program,
        bindings: &[Binding],
        workgroups: u32,
    ) -> Result<(wgpu::Buffer, u64), GpuError> {
        let bound: Vec<Bound> = bindings.iter().map(|binding| self.bind(binding)).collect();
        let entries: Vec<wgpu::BindGroupEntry> = bound.iter().enumerate().map(entry).collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &program.layout,
            entries: &entries,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut uploads = Vec::new();
        for part in &bound {
            if let Some(bytes) = part.upload {
                uploads.push(self.upload(&mut encoder, &part.buffer, bytes)?);
            }
        }
        let output = bindings.iter().position(|binding| matches!(binding, Binding::Output(_)));
        let output = &bound[output.expect("counted before")];
        encoder.clear_buffer(&output.buffer, 0, Some(output.bytes));
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&program.pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(workgroups, 1, 1);
        }
        let download = self.pool.take(&self.device, Usage::Download, output.bytes);
        encoder.copy_buffer_to_buffer(&output.buffer, 0, &download, 0, Some(output.bytes));
        self.queue.submit([encoder.finish()]);
        self.wait(&download, output.bytes, uploads)?;
        let bytes = output.bytes;
        for Bound { buffer, usage, .. } in bound {
            if let Some(usage) = usage {
                self.pool.give_back(usage, buffer);
            }
        }
        Ok((download, bytes))
    }

    fn bind<'a>(&self, binding: &Binding<'a>) -> Bound<'a> {
        let (usage, bytes, upload) = match *binding {
            Binding::Uniform(data) => (Usage::Uniform, data.len() as u64, Some(data)),
            Binding::Input(data) => (Usage::Storage, data.len() as u64, Some(data)),
            Binding::Output(bytes) => (Usage::Storage, bytes, None),
            Binding::Fill(resident, data) => {
                assert_eq!(resident.bytes, data.len() as u64, "a resident buffer is filled whole");
                return Bound {
                    buffer: resident.buffer.clone(),
                    bytes: resident.bytes,
                    upload: Some(data),
                    usage: None,
                };
            }
            Binding::Keep(resident) => {
                return Bound {
                    buffer: resident.buffer.clone(),
                    bytes: resident.bytes,
                    upload: None,
                    usage: None,
                };
            }
        };
        assert!(bytes > 0 && bytes.is_multiple_of(4), "bindings are whole words");
        assert!(bytes <= self.binding_bytes_max(), "jobs are cut before they run");
        Bound { buffer: self.pool.take(&self.device, usage, bytes), bytes, upload, usage: Some(usage) }
    }

    /// Through a mapped buffer of the pool: `write_buffer` would allocate and copy at each call.
    fn upload(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        target: &wgpu::Buffer,
        bytes: &[u8],
    ) -> Result<wgpu::Buffer, GpuError> {
        let size = bytes.len() as u64;
        let staging = self.pool.take(&self.device, Usage::Upload, size);
        let view = staging.slice(..size).get_mapped_range_mut();
        view.map_err(|_| GpuError::OutOfMemory)?.copy_from_slice(bytes);
        staging.unmap();
        encoder.copy_buffer_to_buffer(&staging, 0, target, 0, Some(size));
        Ok(staging)
    }

    /// Waits for the work and the mapping of its output; upload buffers map themselves again and go
    /// back to the pool.
    fn wait(&self, download: &wgpu::Buffer, bytes: u64, uploads: Vec<wgpu::Buffer>) -> Result<(), GpuError> {
        for staging in uploads {
            let pool = self.pool.clone();
            let mapped = staging.clone();
            staging.map_async(wgpu::MapMode::Write, .., move |result| {
                if result.is_ok() {
                    pool.give_back(Usage::Upload, mapped);
                }
            });
        }
        let (sender, receiver) = mpsc::channel();
        download.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            // The receiver is gone only if the wait itself has failed.
            let _ = sender.send(result);
        });
        let lost = |reason: String| GpuError::Lost(reason);
        // Another thread's poll may have taken our callback and be about to call it, so the answer
        // can come a moment after our own poll has returned.
        for _ in 0..CALLBACK_WAITS_MAX {
            self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| lost(e.to_string()))?;
            match receiver.recv_timeout(CALLBACK_WAIT) {
                Ok(mapped) => return mapped.map_err(|e| lost(e.to_string())),
                Err(mpsc::RecvTimeoutError::Timeout) => continue,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(lost("the driver did not give the result back".into()))
    }
}

fn entry<'a>((index, bound): (usize, &'a Bound)) -> wgpu::BindGroupEntry<'a> {
    wgpu::BindGroupEntry {
        binding: index as u32,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &bound.buffer,
            offset: 0,
            size: wgpu::BufferSize::new(bound.bytes),
        }),
    }
}
