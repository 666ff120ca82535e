//! Fixed inputs and the digest of what they give: a machine, driver or compiler that computes
//! otherwise must not take part.

use super::Engine;
use crate::domain::{Kernel, Metric};
use crate::limits::{CASES_MAX, KERNEL_ENTRIES, SLOTS, WEIGHT_ONE};
use crate::merge::{Columns, Job, Span};
use crate::packet::Id;
use ndarray::Array2;

const PACKETS: usize = 1_000;
const QUERIES: usize = 11;
const COLUMNS: usize = 5;

/// The digest that [`known_answer`] gives on every backend: part of the format, since it fixes
/// embeddings, fingerprints and tallies.
pub const KNOWN_ANSWER: &str = "c9656c9b7c95386440e8300948aa876ed0aa9cc9bb3c87047ca49305750bd633";

/// BLAKE3 of embeddings (diagonal, full), fingerprints and tallies of fixed inputs, little-endian,
/// one after the other, on the engine's backend.
///
/// The inputs are the output stream of BLAKE3 `derive_key("qis 1 known answer")`.
pub fn known_answer(engine: &Engine) -> Id {
    let mut stream = blake3::Hasher::new_derive_key("qis 1 known answer").finalize_xof();
    let mut bytes = |count: usize| {
        let mut bytes = vec![0u8; count];
        stream.fill(&mut bytes);
        bytes
    };
    let slot = |byte: u8| (byte as i8).max(-127);
    let signals: Vec<i8> = bytes(PACKETS * SLOTS).into_iter().map(slot).collect();
    let matrix: Vec<i8> = bytes(SLOTS * SLOTS).into_iter().map(slot).collect();
    let factors = bytes(4 * PACKETS);
    let word = |at: usize| u16::from_le_bytes([factors[at], factors[at + 1]]);
    let gains: Vec<u16> = (0..PACKETS).map(|i| word(4 * i) % (WEIGHT_ONE + 1)).collect();
    let cases: Vec<u16> = (0..PACKETS).map(|i| 1 + word(4 * i + 2) % CASES_MAX).collect();
    let values: Vec<u16> = bytes(2 * PACKETS * COLUMNS)
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();

    let shape = |rows: usize| (rows, SLOTS);
    let signals = Array2::from_shape_vec(shape(PACKETS), signals).expect("a full array");
    let values = Array2::from_shape_vec((PACKETS, COLUMNS), values).expect("a full array");
    let diagonal = Metric::Diagonal { shift: 6, weights: matrix[..SLOTS].to_vec() };
    let full = Metric::Full { shift: 13, matrix };
    // Distances of random embeddings spread around 10^6: the table is met in all its parts.
    let mut table: Vec<u16> = (0..KERNEL_ENTRIES as u16).map(|i| WEIGHT_ONE - 4 * i).collect();
    table[KERNEL_ENTRIES - 1] = 0;
    let kernel = Kernel { shift: 10, table };

    let scaled = engine.embed(&diagonal, signals.view());
    let embeddings = engine.embed(&full, signals.view());
    let fingerprints = engine.fingerprint(embeddings.view());
    let columns = Columns::new(embeddings.clone(), cases, values);
    let tallies = engine.merge(&Job {
        kernel: &kernel,
        columns: &columns,
        gains: &gains,
        queries: embeddings.slice(ndarray::s![..QUERIES, ..]),
        spans: &[
            Span { queries: 0..QUERIES, packets: 0..PACKETS },
            Span { queries: 3..5, packets: 990..PACKETS },
            Span { queries: 0..1, packets: 7..8 },
        ],
        skip: true,
    });

    let mut hasher = blake3::Hasher::new();
    for array in [&scaled, &embeddings] {
        hasher.update(bytemuck::cast_slice(array.as_slice().expect("rows in standard order")));
    }
    hasher.update(fingerprints.as_flattened());
    hasher.update(bytemuck::cast_slice(tallies.cells()));
    *hasher.finalize().as_bytes()
}
