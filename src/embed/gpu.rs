//! Binds `shaders/embed.wgsl`, which equals [`super::cpu::embed`] bit for bit.

use super::rows;
use crate::domain::Metric;
use crate::gpu::{Binding, Gpu, GpuError, Program, prelude};
use crate::limits::SLOTS;
use ndarray::{ArrayView2, ArrayViewMut2};

const LANES: u32 = 64;
/// Signals that one lane works on, one after the other.
const SIGNALS_PER_LANE: u32 = 4;
/// Words of four slots.
const SLOT_WORDS: u32 = SLOTS as u32 / 4;
const SIGNALS_PER_WORKGROUP: u32 = LANES / SLOT_WORDS * SIGNALS_PER_LANE;
const _: () = assert!(LANES.is_multiple_of(SLOT_WORDS));

/// The uniform of the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    pub signals: u32,
    pub diagonal: u32,
    pub shift: u32,
    pub rounding: i32,
}

/// The whole WGSL text.
pub fn source() -> String {
    let constants = [
        ("LANES", LANES),
        ("SLOT_WORDS", SLOT_WORDS),
        ("SLOT_VECTORS", SLOT_WORDS / 4),
        ("SIGNALS_PER_LANE", SIGNALS_PER_LANE),
    ];
    prelude(&constants) + include_str!("../../shaders/embed.wgsl")
}

/// The compiled shader.
pub struct Shader(Program);

impl Shader {
    /// # Errors
    /// The driver refuses the shader.
    pub fn new(gpu: &Gpu) -> Result<Shader, GpuError> {
        gpu.program("embed", &source()).map(Shader)
    }

    /// Embeds n signals (n x 128, i8 in [-127, 127]) into `out` (n x 128). Identity is a copy and
    /// asks nothing of the GPU.
    ///
    /// # Errors
    /// The GPU fails; `out` may be partly written then.
    ///
    /// # Panics
    /// As [`super::cpu::embed`].
    pub fn embed(
        &self,
        gpu: &Gpu,
        metric: &Metric,
        signals: ArrayView2<i8>,
        mut out: ArrayViewMut2<i8>,
    ) -> Result<(), GpuError> {
        assert_eq!(signals.dim(), out.dim(), "one embedding per signal");
        assert!(metric.is_sound(), "a metric of the wrong size");
        let (diagonal, shift, weights) = match metric {
            Metric::Identity => {
                out.assign(&signals);
                return Ok(());
            }
            Metric::Diagonal { shift, weights } => (1, u32::from(*shift), weights),
            Metric::Full { shift, matrix } => (0, u32::from(*shift), matrix),
        };
        let rounding = if shift == 0 { 0 } else { 1 << (shift - 1) };
        let out: &mut [[i8; SLOTS]] =
            bytemuck::cast_slice_mut(out.as_slice_mut().expect("rows in standard order"));
        let room = gpu.binding_bytes_max() / SLOTS as u64;
        let step = room.min(u64::from(gpu.workgroups_max()) * u64::from(SIGNALS_PER_WORKGROUP)) as usize;
        for (signals, out) in rows(&signals).chunks(step).zip(out.chunks_mut(step)) {
            let parameters = Parameters { signals: signals.len() as u32, diagonal, shift, rounding };
            let bindings = [
                Binding::Uniform(bytemuck::bytes_of(&parameters)),
                Binding::Input(bytemuck::cast_slice(weights)),
                Binding::Input(bytemuck::cast_slice(signals)),
                Binding::Output(size_of_val(signals) as u64),
            ];
            let workgroups = parameters.signals.div_ceil(SIGNALS_PER_WORKGROUP);
            let out: &mut [u8] = bytemuck::cast_slice_mut(out);
            gpu.run(&self.0, &bindings, workgroups, |bytes| out.copy_from_slice(bytes))?;
        }
        Ok(())
    }
}
