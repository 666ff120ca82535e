//! Buffers that live on between runs: allocating one costs more than a small run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Usage {
    Storage,
    /// Uniforms and inputs of one run, side by side.
    Inputs,
    /// Mapped for writing while it waits in the pool.
    Upload,
    Download,
    /// Takes timestamps.
    Resolve,
}

/// Bytes that wait in a pool at most; beyond, buffers are given back to the driver.
const IDLE_BYTES_MAX: u64 = 1 << 30;

#[derive(Default)]
struct Idle {
    buffers: HashMap<(Usage, u64), Vec<wgpu::Buffer>>,
    bytes: u64,
}

/// Idle buffers by usage and size.
#[derive(Clone)]
pub(super) struct Pool {
    idle: Arc<Mutex<Idle>>,
    buffer_bytes_max: u64,
}

impl Pool {
    pub(super) fn new(buffer_bytes_max: u64) -> Pool {
        Pool { idle: Arc::default(), buffer_bytes_max: buffer_bytes_max & !3 }
    }

    /// A buffer of at least `bytes`. Upload buffers come mapped; the content is anything.
    pub(super) fn take(&self, device: &wgpu::Device, usage: Usage, bytes: u64) -> wgpu::Buffer {
        // Powers of two, so that runs of similar size share buffers.
        let size = bytes.max(256).next_power_of_two().min(self.buffer_bytes_max).max(bytes);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = idle.buffers.get_mut(&(usage, size)).and_then(Vec::pop) {
            idle.bytes -= size;
            return buffer;
        }
        drop(idle);
        use wgpu::BufferUsages as Flags;
        let flags = match usage {
            Usage::Storage => Flags::STORAGE | Flags::COPY_DST | Flags::COPY_SRC,
            Usage::Inputs => Flags::STORAGE | Flags::UNIFORM | Flags::COPY_DST,
            Usage::Upload => Flags::MAP_WRITE | Flags::COPY_SRC,
            Usage::Download => Flags::MAP_READ | Flags::COPY_DST,
            Usage::Resolve => Flags::QUERY_RESOLVE | Flags::COPY_SRC,
        };
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: flags,
            mapped_at_creation: usage == Usage::Upload,
        })
    }

    /// Takes a buffer back that no run uses any more.
    pub(super) fn give_back(&self, usage: Usage, buffer: wgpu::Buffer) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.bytes + buffer.size() <= IDLE_BYTES_MAX {
            idle.bytes += buffer.size();
            idle.buffers.entry((usage, buffer.size())).or_default().push(buffer);
        }
    }
}
