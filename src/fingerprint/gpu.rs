//! Binds `shaders/fingerprint.wgsl`, which equals [`super::cpu::fingerprint`] bit for bit.

use super::{BLOCKS, Fingerprint, ROUNDS, STREAM};
use crate::embed::rows;
use crate::gpu::{Binding, Gpu, GpuError, Program, prelude};
use crate::limits::SLOTS;
use ndarray::ArrayView2;

const LANES: u32 = 64;
/// Lanes that share one block of one packet, 16 values each.
const TEAM: u32 = SLOTS as u32 / 16;
const PACKETS_PER_WORKGROUP: u32 = LANES / TEAM / BLOCKS as u32;
const STREAM_VECTORS: u32 = STREAM_WORDS as u32 / 4;
/// Words of the stream: signs of each block and round, and ties of each block, one bit per slot.
const STREAM_WORDS: usize = (BLOCKS * ROUNDS + BLOCKS) * SLOTS / 32;
// The arrangement of the shader is made for these.
const _: () = assert!(BLOCKS == 2 && ROUNDS == 3 && TEAM == 8);

/// The uniform of the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    pub packets: u32,
    pub padding: [u32; 3],
    pub stream: [u32; STREAM_WORDS],
}

/// The whole WGSL text.
pub fn source() -> String {
    let constants = [
        ("LANES", LANES),
        ("TEAM", TEAM),
        ("SLOT_WORDS", SLOTS as u32 / 4),
        ("PACKETS_PER_WORKGROUP", PACKETS_PER_WORKGROUP),
        ("STREAM_VECTORS", STREAM_VECTORS),
    ];
    prelude(&constants) + include_str!("../../shaders/fingerprint.wgsl")
}

/// The compiled shader.
pub struct Shader(Program);

impl Shader {
    /// # Errors
    /// The driver refuses the shader.
    pub fn new(gpu: &Gpu) -> Result<Shader, GpuError> {
        gpu.program("fingerprint", &source()).map(Shader)
    }

    /// Fingerprints of n embeddings (n x 128, i8 in [-127, 127]) into `out` (n).
    ///
    /// # Errors
    /// The GPU fails; `out` may be partly written then.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn fingerprint(
        &self,
        gpu: &Gpu,
        embeddings: ArrayView2<i8>,
        out: &mut [Fingerprint],
    ) -> Result<(), GpuError> {
        assert_eq!(embeddings.nrows(), out.len(), "one fingerprint per embedding");
        let room = gpu.binding_bytes_max() / SLOTS as u64;
        let step = room.min(u64::from(gpu.workgroups_max()) * u64::from(PACKETS_PER_WORKGROUP)) as usize;
        for (embeddings, out) in rows(&embeddings).chunks(step).zip(out.chunks_mut(step)) {
            let packets = embeddings.len() as u32;
            let stream = bytemuck::pod_read_unaligned(&STREAM[..]);
            let parameters = Parameters { packets, padding: [0; 3], stream };
            let bindings = [
                Binding::Uniform(bytemuck::bytes_of(&parameters)),
                Binding::Input(bytemuck::cast_slice(embeddings)),
                Binding::Output(size_of_val(out) as u64),
            ];
            let out: &mut [u8] = bytemuck::cast_slice_mut(out);
            let workgroups = packets.div_ceil(PACKETS_PER_WORKGROUP);
            gpu.run(&self.0, &bindings, workgroups, |bytes| out.copy_from_slice(bytes))?;
        }
        Ok(())
    }
}
