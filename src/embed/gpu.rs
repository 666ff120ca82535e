//! Binds `shaders/embed.wgsl`, which equals [`super::cpu::embed`] bit for bit.

use super::rows;
use crate::domain::Metric;
use crate::gpu::{
    Binding, Gpu, GpuError, PIECE_BYTES, Program, RUNS_IN_FLIGHT, Running, Step, Work, copy_out, prelude,
};
use crate::limits::SLOTS;
use ndarray::{ArrayView2, ArrayViewMut2};
use std::collections::VecDeque;

const LANES: u32 = 64;

/// The uniform of the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    pub signals: u32,
    pub diagonal: u32,
    pub shift: u32,
    pub rounding: i32,
}

/// A metric as the shader reads it; [`Metric::Identity`] has none.
pub struct Weights {
    parameters: Parameters,
    /// 128 x 128, of which a diagonal metric uses the first row.
    matrix: Vec<i8>,
}

impl Weights {
    /// # Panics
    /// If the metric is not sound.
    pub fn new(metric: &Metric) -> Option<Weights> {
        assert!(metric.is_sound(), "a metric of the wrong size");
        let (diagonal, shift, weights) = match metric {
            Metric::Identity => return None,
            Metric::Diagonal { shift, weights } => (1, u32::from(*shift), weights),
            Metric::Full { shift, matrix } => (0, u32::from(*shift), matrix),
        };
        let rounding = if shift == 0 { 0 } else { 1 << (shift - 1) };
        let mut matrix = weights.clone();
        matrix.resize(SLOTS * SLOTS, 0);
        Some(Weights { parameters: Parameters { signals: 0, diagonal, shift, rounding }, matrix })
    }

    /// The uniform of a run of so many signals.
    pub fn parameters(&self, signals: usize) -> Parameters {
        Parameters { signals: signals as u32, ..self.parameters }
    }

    /// The bytes of the metric.
    pub fn matrix(&self) -> &[u8] {
        bytemuck::cast_slice(&self.matrix)
    }
}

/// The whole WGSL text.
pub fn source() -> String {
    let constants = [("LANES", LANES), ("SLOTS", SLOTS as u32), ("SLOT_VECTORS", SLOTS as u32 / 16)];
    prelude(&constants) + include_str!("../../shaders/embed.wgsl")
}

/// The compiled shader.
pub struct Shader(Program);

impl Shader {
    /// # Errors
    /// The driver refuses the shader.
    pub fn new(gpu: &Gpu) -> Result<Shader, GpuError> {
        gpu.program("embed", &source(), &[]).map(Shader)
    }

    pub fn program(&self) -> &Program {
        &self.0
    }

    /// Workgroups for so many signals.
    pub fn workgroups(signals: usize) -> u32 {
        signals.div_ceil(LANES as usize) as u32
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
        let Some(weights) = Weights::new(metric) else {
            out.assign(&signals);
            return Ok(());
        };
        let out: &mut [[i8; SLOTS]] =
            bytemuck::cast_slice_mut(out.as_slice_mut().expect("rows in standard order"));
        let step = piece_rows(gpu, LANES);
        let mut flights: VecDeque<(Running, &mut [[i8; SLOTS]])> = VecDeque::new();
        for (signals, out) in rows(&signals).chunks(step).zip(out.chunks_mut(step)) {
            if flights.len() == RUNS_IN_FLIGHT {
                finish(flights.pop_front())?;
            }
            let parameters = weights.parameters(signals.len());
            let bindings = [
                Binding::Uniform(bytemuck::bytes_of(&parameters)),
                Binding::Uniform(weights.matrix()),
                Binding::Input(bytemuck::cast_slice(signals)),
                Binding::Output(size_of_val(signals) as u64),
            ];
            let workgroups = Shader::workgroups(signals.len());
            let steps = [Step { program: &self.0, bindings: &bindings, workgroups }];
            flights.push_back((gpu.submit(&Work { steps: &steps, ..Work::default() })?, out));
        }
        flights.into_iter().try_for_each(|flight| finish(Some(flight)))
    }
}

fn finish(flight: Option<(Running, &mut [[i8; SLOTS]])>) -> Result<(), GpuError> {
    let Some((running, out)) = flight else { return Ok(()) };
    running.finish(|results| copy_out(results[0], bytemuck::cast_slice_mut(out))).map(drop)
}

/// Rows of 128 bytes of one run, where each workgroup takes so many.
pub fn piece_rows(gpu: &Gpu, rows_per_workgroup: u32) -> usize {
    let room = PIECE_BYTES.min(gpu.binding_bytes_max()) / SLOTS as u64;
    room.min(u64::from(gpu.workgroups_max()) * u64::from(rows_per_workgroup)) as usize
}
