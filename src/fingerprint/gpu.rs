//! Binds `shaders/fingerprint.wgsl`, which equals [`super::cpu::fingerprint`] bit for bit.

use super::{BLOCKS, Fingerprint, ROUNDS, STREAM, cpu};
use crate::embed::gpu::{Weights, piece_rows};
use crate::embed::{self, rows};
use crate::gpu::{
    Binding, Gpu, GpuError, Program, RUNS_IN_FLIGHT, Resident, Running, Step, Work, copy_out, prelude,
};
use crate::limits::SLOTS;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const LANES: u32 = 64;
/// Repetitions of each candidate of a tuning run.
const MEASURED_RUNS: usize = 3;
/// Lanes that share one block of one packet, 16 values each.
const TEAM: u32 = SLOTS as u32 / 16;
const PACKETS_PER_WORKGROUP: u32 = LANES / TEAM / BLOCKS as u32;
/// Words of the stream: signs of each block and round, and ties of each block, one bit per slot.
const STREAM_WORDS: usize = (BLOCKS * ROUNDS + BLOCKS) * SLOTS / 32;
const SIGNS: usize = BLOCKS * ROUNDS * SLOTS;
const TIES: usize = BLOCKS * SLOTS;
// The arrangement of the shader is made for these.
const _: () = assert!(BLOCKS == 2 && ROUNDS == 3 && TEAM == 8);

/// Which entry point computes. The bits do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// One lane per packet, a block at a time in its registers.
    #[default]
    Lane,
    /// Eight lanes per block of a packet.
    Team,
}

impl Entry {
    /// What a first run on an adapter compares.
    pub const CANDIDATES: [Entry; 2] = [Entry::Lane, Entry::Team];

    fn packets_per_workgroup(self) -> u32 {
        match self {
            Entry::Lane => LANES,
            Entry::Team => PACKETS_PER_WORKGROUP,
        }
    }
}

/// The uniform of the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    pub packets: u32,
    pub first: u32,
    pub padding: [u32; 2],
    pub signs: [i32; SIGNS],
    pub ties: [i32; TIES],
    pub stream: [u32; STREAM_WORDS],
}

impl Parameters {
    fn new(first: usize, packets: usize) -> Parameters {
        // The law's signs are 0 and -1, to be used as masks.
        let signs = cpu::SIGNS.as_flattened().as_flattened();
        Parameters {
            packets: packets as u32,
            first: first as u32,
            padding: [0; 2],
            signs: std::array::from_fn(|i| 1 + 2 * signs[i]),
            ties: std::array::from_fn(|i| cpu::TIES.as_flattened()[i]),
            stream: bytemuck::pod_read_unaligned(&STREAM[..]),
        }
    }
}

/// The whole WGSL text.
pub fn source() -> String {
    let constants = [
        ("LANES", LANES),
        ("TEAM", TEAM),
        ("SLOT_WORDS", SLOTS as u32 / 4),
        ("SLOT_VECTORS", SLOTS as u32 / 16),
        ("PACKETS_PER_WORKGROUP", PACKETS_PER_WORKGROUP),
        ("STREAM_VECTORS", STREAM_WORDS as u32 / 4),
        ("SIGN_VECTORS", SIGNS as u32 / 4),
        ("TIE_VECTORS", TIES as u32 / 4),
    ];
    prelude(&constants) + include_str!("../../shaders/fingerprint.wgsl")
}

/// The compiled shader.
pub struct Shader {
    lane: Program,
    team: Program,
    entry: Mutex<Entry>,
}

/// Where a run's results go.
struct Flight<'a> {
    running: Running<'a>,
    embeddings: Option<&'a mut [[i8; SLOTS]]>,
    fingerprints: &'a mut [Fingerprint],
}

impl Shader {
    /// # Errors
    /// The driver refuses the shader.
    pub fn new(gpu: &Gpu) -> Result<Shader, GpuError> {
        let source = source();
        let lane = gpu.program("fingerprint", &source, &[])?;
        let team = gpu.program("fingerprint_team", &source, &[])?;
        Ok(Shader { lane, team, entry: Mutex::default() })
    }

    pub fn entry(&self) -> Entry {
        *self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses this entry point from the next call on.
    pub fn choose(&self, entry: Entry) {
        *self.entry.lock().unwrap_or_else(PoisonError::into_inner) = entry;
    }

    /// Times the candidates on these embeddings and uses the fastest from then on.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn measure(&self, gpu: &Gpu, embeddings: ArrayView2<i8>) -> Result<Entry, GpuError> {
        let mut out = vec![[0; 32]; embeddings.nrows()];
        let mut fastest = (Duration::MAX, self.entry());
        for entry in Entry::CANDIDATES {
            self.choose(entry);
            self.fingerprint(gpu, embeddings, &mut out)?;
            for _ in 0..MEASURED_RUNS {
                let began = Instant::now();
                self.fingerprint(gpu, embeddings, &mut out)?;
                if began.elapsed() < fastest.0 {
                    fastest = (began.elapsed(), entry);
                }
            }
        }
        self.choose(fastest.1);
        Ok(fastest.1)
    }

    fn program(&self, entry: Entry) -> &Program {
        match entry {
            Entry::Lane => &self.lane,
            Entry::Team => &self.team,
        }
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
        let entry = self.entry();
        let step = piece_rows(gpu, entry.packets_per_workgroup());
        let mut flights = VecDeque::new();
        for (embeddings, out) in rows(&embeddings).chunks(step).zip(out.chunks_mut(step)) {
            if flights.len() == RUNS_IN_FLIGHT {
                finish(flights.pop_front())?;
            }
            let parameters = Parameters::new(0, out.len());
            let bindings = [
                Binding::Uniform(bytemuck::bytes_of(&parameters)),
                Binding::Input(bytemuck::cast_slice(embeddings)),
                Binding::Output(size_of_val(out) as u64),
            ];
            let steps = [self.step(entry, &bindings, out.len())];
            let running = gpu.submit(&Work { steps: &steps, ..Work::default() })?;
            flights.push_back(Flight { running, embeddings: None, fingerprints: out });
        }
        flights.into_iter().try_for_each(|flight| finish(Some(flight)))
    }

    /// Embeds n signals (n x 128) and fingerprints the embeddings where they lie; both come back, the
    /// embeddings only where `embeddings` (n x 128) asks for them.
    ///
    /// # Errors
    /// The GPU fails; the results may be partly written then.
    ///
    /// # Panics
    /// If the lengths differ or the metric is not sound.
    pub fn embed_and_fingerprint(
        &self,
        gpu: &Gpu,
        embed: &embed::gpu::Shader,
        weights: &Weights,
        signals: ArrayView2<i8>,
        embeddings: Option<&mut [[i8; SLOTS]]>,
        fingerprints: &mut [Fingerprint],
    ) -> Result<(), GpuError> {
        assert_eq!(signals.nrows(), fingerprints.len(), "one fingerprint per signal");
        let rows_out = embeddings.as_ref().map_or(fingerprints.len(), |rows| rows.len());
        assert_eq!(signals.nrows(), rows_out, "one embedding per signal");
        let entry = self.entry();
        let step = piece_rows(gpu, entry.packets_per_workgroup().min(LANES));
        let mut embeddings = embeddings.map(|rows| rows.chunks_mut(step));
        let mut flights = VecDeque::new();
        for (signals, fingerprints) in rows(&signals).chunks(step).zip(fingerprints.chunks_mut(step)) {
            if flights.len() == RUNS_IN_FLIGHT {
                finish(flights.pop_front())?;
            }
            let count = signals.len();
            let embed_parameters = weights.parameters(count);
            let bytes = size_of_val(signals) as u64;
            let embeddings = embeddings.as_mut().and_then(|rows| rows.next());
            // Without a reader the embeddings stay in a buffer of the pool.
            let kept = if embeddings.is_none() { Some(gpu.reserve(bytes)?) } else { None };
            let output = || kept.as_ref().map_or(Binding::Output(bytes), Binding::Keep);
            let again = || kept.as_ref().map_or(Binding::Earlier(0), Binding::Keep);
            let first = [
                Binding::Uniform(bytemuck::bytes_of(&embed_parameters)),
                Binding::Uniform(weights.matrix()),
                Binding::Input(bytemuck::cast_slice(signals)),
                output(),
            ];
            let parameters = Parameters::new(0, count);
            let second = [
                Binding::Uniform(bytemuck::bytes_of(&parameters)),
                again(),
                Binding::Output(size_of_val(fingerprints) as u64),
            ];
            let workgroups = embed::gpu::Shader::workgroups(count);
            let steps = [
                Step { program: embed.program(), bindings: &first, workgroups },
                self.step(entry, &second, count),
            ];
            let running = gpu.submit(&Work { steps: &steps, ..Work::default() })?;
            // Later runs that take the buffer come after this one.
            kept.into_iter().for_each(|buffer| gpu.release(buffer));
            flights.push_back(Flight { running, embeddings, fingerprints });
        }
        flights.into_iter().try_for_each(|flight| finish(Some(flight)))
    }

    /// Fingerprints of embeddings that lie on the device: those from row `first` on, as many as `out`
    /// takes.
    ///
    /// # Errors
    /// The GPU fails; `out` may be partly written then.
    pub fn fingerprint_resident(
        &self,
        gpu: &Gpu,
        embeddings: &Resident,
        first: usize,
        out: &mut [Fingerprint],
    ) -> Result<(), GpuError> {
        let entry = self.entry();
        let step = gpu.workgroups_max() as usize * entry.packets_per_workgroup() as usize;
        let mut flights = VecDeque::new();
        let mut from = first;
        for out in out.chunks_mut(step) {
            if flights.len() == RUNS_IN_FLIGHT {
                finish(flights.pop_front())?;
            }
            let parameters = Parameters::new(from, out.len());
            from += out.len();
            let bindings = [
                Binding::Uniform(bytemuck::bytes_of(&parameters)),
                Binding::Keep(embeddings),
                Binding::Output(size_of_val(out) as u64),
            ];
            let steps = [self.step(entry, &bindings, out.len())];
            let running = gpu.submit(&Work { steps: &steps, ..Work::default() })?;
            flights.push_back(Flight { running, embeddings: None, fingerprints: out });
        }
        flights.into_iter().try_for_each(|flight| finish(Some(flight)))
    }

    fn step<'a>(&'a self, entry: Entry, bindings: &'a [Binding<'a>], packets: usize) -> Step<'a> {
        let workgroups = packets.div_ceil(entry.packets_per_workgroup() as usize) as u32;
        Step { program: self.program(entry), bindings, workgroups }
    }
}

fn finish(flight: Option<Flight>) -> Result<(), GpuError> {
    let Some(Flight { running, embeddings, fingerprints }) = flight else { return Ok(()) };
    let read = |results: &[&[u8]]| {
        let last = results.len() - 1;
        copy_out(results[last], bytemuck::cast_slice_mut(fingerprints));
        if let Some(embeddings) = embeddings {
            copy_out(results[0], bytemuck::cast_slice_mut(embeddings));
        }
    };
    running.finish(read).map(drop)
}
