//! Device, buffers and dispatch: the only user of wgpu. It knows no word of the domain.
//!
//! The way through: [`list`] names the adapters, [`verdicts`] says which one is taken and why the
//! others are not, [`Gpu::open`] opens a device, [`Gpu::program`] compiles one of the shaders in
//! `shaders/`, and [`Gpu::run`] does one job: upload, dispatch and copy back in one encoder, one
//! submit, one wait. [`Gpu::submit`] starts a run without waiting, so that the host prepares the next
//! one meanwhile; [`Times`] tells where the device's time went.
//!
//! A failure is a [`GpuError`], never a panic; whoever computes goes on with the CPU.

mod adapter;
mod device;
mod pool;
mod run;
mod times;
mod trusted;

pub use adapter::{Adapter, AdapterKind, Description, Verdict, list, verdicts};
pub use device::{Gpu, Program};
pub use run::{Binding, PIECE_BYTES, RUNS_IN_FLIGHT, Resident, Running, Step, Work, Write, copy_out};
pub use times::Times;

/// Largest binding that is used even where the adapter allows more, in bytes.
pub const BINDING_BYTES_MAX: u64 = 1 << 30;

/// Why there is no GPU, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// Nothing usable was found; the list says why for each adapter.
    #[error("no usable GPU adapter{0}: `qis doctor` lists them; --backend cpu gives the same answers")]
    NoAdapter(String),
    #[error("no GPU adapter's name contains \"{name}\"; found: {found}")]
    NotNamed { name: String, found: String },
    #[error("the adapter {adapter} gives no device: {reason}; --backend cpu gives the same answers")]
    NoDevice { adapter: String, reason: String },
    #[error("out of memory on the GPU; fewer packets at a time, or --backend cpu, need less")]
    OutOfMemory,
    #[error("the GPU was lost: {0}")]
    Lost(String),
    /// The driver or the shader compiler refused what we asked: a defect of one of the two sides.
    #[error("the GPU refused the work: {0}")]
    Refused(String),
}

/// WGSL constants from Rust ones, to stand before a shader, so that no number is typed twice.
pub fn prelude(constants: &[(&str, u32)]) -> String {
    use std::fmt::Write;
    constants.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
        text
    })
}

#[cfg(test)]
mod tests;
