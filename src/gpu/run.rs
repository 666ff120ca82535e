//! One run: upload, dispatches, copy back; one encoder, one submit, one wait. Larger jobs are
//! several runs, of which the host prepares the next while the device works on the last.

use super::pool::Usage;
use super::times::{MARKS_BYTES, Marks};
use super::{Gpu, GpuError, Program};
use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::Duration;

/// Bytes of input from which a job is cut into pieces, whose uploads overlap with the dispatches
/// before them. Smaller pieces waste submits, larger ones leave the device waiting for the first.
pub const PIECE_BYTES: u64 = 16 << 20;
/// Runs in flight at a time: one computes, one is uploaded, one is prepared by the host.
pub const RUNS_IN_FLIGHT: usize = 3;

/// How long to wait for a callback after the work is done, and how often.
const CALLBACK_WAIT: Duration = Duration::from_millis(20);
const CALLBACK_WAITS_MAX: usize = 500;
/// Bytes from which copies to and from mapped memory use several threads, bytes that one thread takes
/// at a time, and most threads: the memory of a large machine is not faster with more.
const COPY_PARALLEL_BYTES: usize = 4 << 20;
const COPY_PART_BYTES: usize = 1 << 20;
const COPY_THREADS_MAX: usize = 8;

/// A buffer that keeps its content between runs.
pub struct Resident {
    buffer: wgpu::Buffer,
    bytes: u64,
}

impl Resident {
    /// Bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What stands at one binding of a program; the index in the slice is the binding's number. Bytes
/// are whole words of four, at least one.
pub enum Binding<'a> {
    Uniform(&'a [u8]),
    Input(&'a [u8]),
    /// Read or written by the program, kept afterwards.
    Keep(&'a Resident),
    /// So many bytes, each of which the program writes; read back at the end.
    Output(u64),
    /// So many bytes, zero at the start; read back at the end.
    Sums(u64),
    /// The output of an earlier binding of the same run, counted from 0.
    Earlier(usize),
}

/// Bytes into a part of a buffer that keeps its content; offset and length in whole words.
pub struct Write<'a> {
    pub target: &'a Resident,
    pub offset: u64,
    pub bytes: &'a [u8],
}

/// One dispatch, of `workgroups` groups in one dimension.
pub struct Step<'a> {
    pub program: &'a Program,
    pub bindings: &'a [Binding<'a>],
    pub workgroups: u32,
}

/// One run: first the writes, then the steps in order, then everything that is read back: the steps'
/// outputs in order, and behind them the first bytes of kept buffers.
#[derive(Default)]
pub struct Work<'a> {
    pub writes: &'a [Write<'a>],
    pub steps: &'a [Step<'a>],
    pub reads: &'a [(&'a Resident, u64)],
}

/// A run on its way. One that is dropped instead of finished still happens.
pub struct Running<'a> {
    gpu: &'a Gpu,
    index: wgpu::SubmissionIndex,
    /// Mapped when the run is done.
    download: wgpu::Buffer,
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    /// Lengths of the results, one behind the other.
    results: Vec<u64>,
    marks: Option<Marks>,
    upload_bytes: u64,
    /// Given back to the pool at the end.
    buffers: Vec<(Usage, wgpu::Buffer)>,
}

/// Where a binding lies.
enum Place {
    /// In the run's one input buffer.
    Inputs {
        offset: u64,
        bytes: u64,
    },
    Own {
        buffer: wgpu::Buffer,
        bytes: u64,
    },
}

/// A run while it is recorded.
#[derive(Default)]
struct Recording {
    buffers: Vec<(Usage, wgpu::Buffer)>,
    outputs: Vec<(wgpu::Buffer, u64)>,
    zeros: Vec<(wgpu::Buffer, u64)>,
}

impl Gpu {
    /// A buffer of that many bytes, at most [`Gpu::binding_bytes_max`]; the content is anything.
    ///
    /// # Errors
    /// Out of memory.
    pub fn reserve(&self, bytes: u64) -> Result<Resident, GpuError> {
        let bytes = bytes.max(4);
        self.guard(|| Ok(Resident { buffer: self.pool.take(&self.device, Usage::Storage, bytes), bytes }))
    }

    /// Gives a buffer back for others to use. Runs that were submitted before still read the old
    /// content, since the device works in order.
    pub fn release(&self, resident: Resident) {
        self.pool.give_back(Usage::Storage, resident.buffer);
    }

    /// Runs one program and hands the output's bytes to `read`.
    ///
    /// # Errors
    /// As [`Gpu::submit`].
    pub fn run<T>(
        &self,
        program: &Program,
        bindings: &[Binding],
        workgroups: u32,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, GpuError> {
        let steps = [Step { program, bindings, workgroups }];
        let running = self.submit(&Work { steps: &steps, ..Work::default() })?;
        running.finish(|results| read(results[0])).map(|(result, _)| result)
    }

    /// Uploads everything in pieces: while the device copies one, the host fills the next.
    ///
    /// # Errors
    /// As [`Gpu::submit`].
    pub fn upload(&self, writes: &[Write]) -> Result<(), GpuError> {
        let mut running = VecDeque::new();
        for write in writes {
            for (index, bytes) in write.bytes.chunks(PIECE_BYTES as usize).enumerate() {
                let offset = write.offset + index as u64 * PIECE_BYTES;
                let piece = [Write { target: write.target, offset, bytes }];
                if running.len() == RUNS_IN_FLIGHT {
                    finish_oldest(&mut running)?;
                }
                running.push_back(self.submit(&Work { writes: &piece, ..Work::default() })?);
            }
        }
        while !running.is_empty() {
            finish_oldest(&mut running)?;
        }
        Ok(())
    }

    /// Starts a run and returns while the device works. Runs happen in the order of their submits,
    /// whatever thread they come from.
    ///
    /// # Errors
    /// The driver refuses, runs out of memory or loses the device.
    ///
    /// # Panics
    /// If a binding is empty, too large or no whole number of words.
    pub fn submit<'a>(&'a self, work: &Work) -> Result<Running<'a>, GpuError> {
        for step in work.steps {
            assert!(step.workgroups <= self.workgroups_max(), "jobs are cut before they run");
        }
        self.guard(|| self.record(work))
    }

    fn record<'a>(&'a self, work: &Work) -> Result<Running<'a>, GpuError> {
        let mut recording = Recording::default();
        let mut inputs: Vec<(u64, &[u8])> = Vec::new();
        let mut input_bytes = 0;
        let mut places = Vec::with_capacity(work.steps.len());
        for step in work.steps {
            let place = |binding| self.place(&mut recording, &mut inputs, &mut input_bytes, binding);
            places.push(step.bindings.iter().map(place).collect::<Vec<Place>>());
        }
        let shared = (input_bytes > 0).then(|| self.pool.take(&self.device, Usage::Inputs, input_bytes));
        let groups: Vec<wgpu::BindGroup> = work
            .steps
            .iter()
            .zip(&places)
            .map(|(step, places)| self.group(step.program, places, shared.as_ref()))
            .collect();

        let mut encoder = self.device.create_command_encoder(&Default::default());
        let marks = self.clock.as_ref().and_then(|clock| clock.marks(&self.device, &self.pool));
        if let Some(marks) = &marks {
            marks.before_upload(&mut encoder);
        }
        let write_bytes: u64 = work.writes.iter().map(|write| write.bytes.len() as u64).sum();
        let upload_bytes = input_bytes + write_bytes;
        let staging = match upload_bytes {
            0 => None,
            bytes => {
                Some(self.stage(&mut encoder, bytes, &inputs, input_bytes, shared.as_ref(), work.writes)?)
            }
        };
        for (buffer, bytes) in &recording.zeros {
            encoder.clear_buffer(buffer, 0, Some(*bytes));
        }
        {
            let timestamp_writes = marks.as_ref().map(Marks::around_kernels);
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            for (step, group) in work.steps.iter().zip(&groups) {
                pass.set_pipeline(&step.program.pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(step.workgroups, 1, 1);
            }
        }
        let kept = work.reads.iter().map(|(resident, bytes)| (resident.buffer.clone(), *bytes));
        let reads: Vec<(wgpu::Buffer, u64)> = recording.outputs.into_iter().chain(kept).collect();
        let results: Vec<u64> = reads.iter().map(|(_, bytes)| *bytes).collect();
        let result_bytes: u64 = results.iter().sum();
        let marks_at = result_bytes.next_multiple_of(8);
        let download = self.pool.take(&self.device, Usage::Download, marks_at + MARKS_BYTES);
        let mut offset = 0;
        for (buffer, bytes) in &reads {
            encoder.copy_buffer_to_buffer(buffer, 0, &download, offset, Some(*bytes));
            offset += bytes;
        }
        if let Some(marks) = &marks {
            marks.after_download(&mut encoder, &download, marks_at);
        }
        let index = self.queue.submit([encoder.finish()]);

        if let Some(staging) = staging {
            let (pool, mapped) = (self.pool.clone(), staging.clone());
            staging.map_async(wgpu::MapMode::Write, .., move |result| {
                if result.is_ok() {
                    pool.give_back(Usage::Upload, mapped);
                }
            });
        }
        let (sender, mapped) = mpsc::channel();
        download.map_async(wgpu::MapMode::Read, ..marks_at + MARKS_BYTES, move |result| {
            // The receiver is gone only if nobody waits for this run.
            let _ = sender.send(result);
        });
        let mut buffers = recording.buffers;
        buffers.extend(shared.map(|buffer| (Usage::Inputs, buffer)));
        Ok(Running { gpu: self, index, download, mapped, results, marks, upload_bytes, buffers })
    }

    fn place<'b>(
        &self,
        recording: &mut Recording,
        inputs: &mut Vec<(u64, &'b [u8])>,
        input_bytes: &mut u64,
        binding: &Binding<'b>,
    ) -> Place {
        let bytes = match binding {
            Binding::Uniform(data) | Binding::Input(data) => data.len() as u64,
            Binding::Output(bytes) | Binding::Sums(bytes) => *bytes,
            Binding::Keep(resident) => resident.bytes,
            Binding::Earlier(output) => recording.outputs[*output].1,
        };
        assert!(bytes > 0 && bytes.is_multiple_of(4), "bindings are whole words");
        assert!(bytes <= self.binding_bytes_max(), "jobs are cut before they run");
        match binding {
            Binding::Uniform(data) | Binding::Input(data) => {
                // Steps of one run may share an input: it is uploaded once.
                if let Some((offset, _)) = inputs.iter().find(|(_, known)| std::ptr::eq(*known, *data)) {
                    return Place::Inputs { offset: *offset, bytes };
                }
                let offset = input_bytes.next_multiple_of(self.offset_alignment);
                inputs.push((offset, data));
                *input_bytes = offset + bytes;
                Place::Inputs { offset, bytes }
            }
            Binding::Output(_) | Binding::Sums(_) => {
                let buffer = self.pool.take(&self.device, Usage::Storage, bytes);
                recording.buffers.push((Usage::Storage, buffer.clone()));
                recording.outputs.push((buffer.clone(), bytes));
                if matches!(binding, Binding::Sums(_)) {
                    recording.zeros.push((buffer.clone(), bytes));
                }
                Place::Own { buffer, bytes }
            }
            Binding::Keep(resident) => Place::Own { buffer: resident.buffer.clone(), bytes },
            Binding::Earlier(output) => Place::Own { buffer: recording.outputs[*output].0.clone(), bytes },
        }
    }

    fn group(&self, program: &Program, places: &[Place], shared: Option<&wgpu::Buffer>) -> wgpu::BindGroup {
        let mut entries = Vec::with_capacity(places.len());
        for (index, place) in places.iter().enumerate() {
            let (buffer, offset, bytes) = match place {
                Place::Inputs { offset, bytes } => (shared.expect("there are inputs"), *offset, *bytes),
                Place::Own { buffer, bytes } => (buffer, 0, *bytes),
            };
            let part = wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(bytes) };
            entries.push(wgpu::BindGroupEntry {
                binding: index as u32,
                resource: wgpu::BindingResource::Buffer(part),
            });
        }
        let layout = &program.layout;
        self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
    }

    /// All of a run's bytes through one mapped buffer of the pool: `write_buffer` would allocate and
    /// copy at each call.
    fn stage(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        bytes: u64,
        inputs: &[(u64, &[u8])],
        input_bytes: u64,
        shared: Option<&wgpu::Buffer>,
        writes: &[Write],
    ) -> Result<wgpu::Buffer, GpuError> {
        let staging = self.pool.take(&self.device, Usage::Upload, bytes);
        let mut view = staging.slice(..bytes).get_mapped_range_mut().map_err(|_| GpuError::OutOfMemory)?;
        for (offset, data) in inputs {
            let at = *offset as usize;
            copy_in(view.slice(at..at + data.len()), data);
        }
        let mut offset = input_bytes;
        for write in writes {
            let at = offset as usize;
            copy_in(view.slice(at..at + write.bytes.len()), write.bytes);
            offset += write.bytes.len() as u64;
        }
        drop(view);
        staging.unmap();
        if let Some(shared) = shared {
            encoder.copy_buffer_to_buffer(&staging, 0, shared, 0, Some(input_bytes));
        }
        let mut offset = input_bytes;
        for write in writes {
            let bytes = write.bytes.len() as u64;
            encoder.copy_buffer_to_buffer(&staging, offset, &write.target.buffer, write.offset, Some(bytes));
            offset += bytes;
        }
        Ok(staging)
    }
}

impl Running<'_> {
    /// Waits for the run and hands its results to `read`; also the kernels' time by the device's
    /// clock, where it has one.
    ///
    /// # Errors
    /// The device is lost; nothing was read then.
    pub fn finish<T>(self, read: impl FnOnce(&[&[u8]]) -> T) -> Result<(T, Option<Duration>), GpuError> {
        // The reader runs outside the guard, so that its own panics stay what they are.
        self.gpu.guard(|| self.wait())?;
        let result_bytes: u64 = self.results.iter().sum();
        let marks_at = result_bytes.next_multiple_of(8);
        let view = self.download.slice(..marks_at + MARKS_BYTES).get_mapped_range();
        let view = view.map_err(|e| GpuError::Lost(e.to_string()))?;
        let mut results = Vec::with_capacity(self.results.len());
        let mut rest = &view[..result_bytes as usize];
        for &bytes in &self.results {
            let (result, behind) = rest.split_at(bytes as usize);
            results.push(result);
            rest = behind;
        }
        let result = read(&results);
        let Gpu { clock, pool, .. } = self.gpu;
        let mut kernels = None;
        if let (Some(clock), Some(marks)) = (clock, self.marks) {
            let ticks = &view[marks_at as usize..];
            let seconds = clock.add(ticks, self.upload_bytes, result_bytes);
            kernels = Some(Duration::from_secs_f64(seconds));
            clock.give_back(pool, marks);
        }
        drop(view);
        self.download.unmap();
        pool.give_back(Usage::Download, self.download);
        for (usage, buffer) in self.buffers {
            pool.give_back(usage, buffer);
        }
        Ok((result, kernels))
    }

    fn wait(&self) -> Result<(), GpuError> {
        let lost = |reason: String| GpuError::Lost(reason);
        // Another thread's poll may have taken our callback and be about to call it, so the answer
        // can come a moment after our own poll has returned.
        for _ in 0..CALLBACK_WAITS_MAX {
            let poll = wgpu::PollType::Wait { submission_index: Some(self.index.clone()), timeout: None };
            self.gpu.device.poll(poll).map_err(|e| lost(e.to_string()))?;
            match self.mapped.recv_timeout(CALLBACK_WAIT) {
                Ok(mapped) => return mapped.map_err(|e| lost(e.to_string())),
                Err(mpsc::RecvTimeoutError::Timeout) => continue,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(lost("the driver did not give the result back".into()))
    }
}

fn finish_oldest(running: &mut VecDeque<Running>) -> Result<(), GpuError> {
    running.pop_front().map_or(Ok(()), |oldest| oldest.finish(|_| ()).map(drop))
}

/// Into mapped memory; large ones by several threads, since one core does not fill the bus. Not by
/// rayon's: a worker that waits takes other work, which may want the same lock as its caller.
fn copy_in(mut target: wgpu::WriteOnly<[u8]>, bytes: &[u8]) {
    if bytes.len() < COPY_PARALLEL_BYTES {
        return target.copy_from_slice(bytes);
    }
    let (parts, mut rest) = target.into_chunks::<COPY_PART_BYTES>();
    let (whole, end) = bytes.split_at(bytes.len() - rest.len());
    let mut parts = parts.into_iter().zip(whole.chunks(COPY_PART_BYTES));
    let each = parts.len().div_ceil(copy_threads());
    std::thread::scope(|scope| {
        loop {
            let share: Vec<_> = parts.by_ref().take(each).collect();
            if share.is_empty() {
                break;
            }
            scope.spawn(|| {
                for (part, bytes) in share {
                    wgpu::WriteOnly::<[u8]>::from(part).copy_from_slice(bytes);
                }
            });
        }
        rest.copy_from_slice(end);
    });
}

/// Out of mapped memory, as into it.
///
/// # Panics
/// If the lengths differ.
pub fn copy_out(bytes: &[u8], target: &mut [u8]) {
    assert_eq!(bytes.len(), target.len(), "as many bytes as there is room");
    if bytes.len() < COPY_PARALLEL_BYTES {
        return target.copy_from_slice(bytes);
    }
    let each = bytes.len().div_ceil(copy_threads());
    std::thread::scope(|scope| {
        for (target, bytes) in target.chunks_mut(each).zip(bytes.chunks(each)) {
            scope.spawn(|| target.copy_from_slice(bytes));
        }
    });
}

fn copy_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(COPY_THREADS_MAX))
}
