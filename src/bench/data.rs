//! Made-up packets and questions, the same on every machine: each number is a function of (seed,
//! stream, index), so that a program in any language can make the same bytes (`benches/peers.py`
//! does).

use crate::limits::SLOTS;
use ndarray::Array2;
use rayon::prelude::*;
use std::ops::Range;

const SEED: u64 = 1;
/// Kinds of situations; each packet and question is one of them with noise.
const CENTRES: u64 = 1_024;
/// A centre's slots have a standard deviation of 24.
const CENTRE_SCALE: i32 = 29;
/// Noise with a standard deviation of 16: the slots of one kind overlap with those of others.
const NOISE_SCALE: i32 = 20;
/// Noise with a standard deviation of 4: kinds lie far apart.
const NOISE_SCALE_TIGHT: i32 = 5;

/// Streams of random numbers; those of rows take the next one too, for the kinds.
pub const STREAM_FINGERPRINTS: u64 = 16;
pub const STREAM_QUERIES: u64 = 32;
pub const STREAM_PACKETS: u64 = 48;
const STREAM_CENTRES: u64 = 1;
const STREAM_SIZES: u64 = 9;
const STREAM_OUTCOMES: u64 = 64;
const STREAM_GAINS: u64 = 80;
const STREAM_CASES: u64 = 81;

/// Where the rows of one kind lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clusters {
    /// Kinds overlap and every row is of any kind: most weights are above zero.
    Loose,
    /// Kinds lie far apart, and rows of one kind behind each other.
    Tight,
}

/// A random number by counting: the finaliser of SplitMix64 over seed, stream and index.
fn number(stream: u64, index: u64) -> u64 {
    let start = SEED.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(stream << 48).wrapping_add(index);
    let mut x = start.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Near a normal distribution, from the sum of eight bytes; standard deviation 209 scale / 256.
fn bell(stream: u64, index: u64, scale: i32) -> i32 {
    let sum: i32 = number(stream, index).to_le_bytes().map(i32::from).iter().sum();
    ((sum - 1_020) * scale) >> 8
}

/// Below `bound`, which is much smaller than 2^32.
fn below(stream: u64, index: u64, bound: u64) -> u64 {
    (number(stream, index) >> 20) % bound
}

/// Embeddings, rows x 128 in [-127, 127].
pub fn embeddings(stream: u64, rows: usize, clusters: Clusters) -> Array2<i8> {
    let centres: Vec<i32> =
        (0..CENTRES * SLOTS as u64).map(|i| bell(STREAM_CENTRES, i, CENTRE_SCALE)).collect();
    let mut out = vec![0i8; rows * SLOTS];
    out.par_chunks_exact_mut(SLOTS).enumerate().for_each(|(row, slots)| {
        let row = row as u64;
        let (kind, scale) = match clusters {
            Clusters::Loose => (below(stream + 1, row, CENTRES), NOISE_SCALE),
            Clusters::Tight => (row * CENTRES / rows as u64, NOISE_SCALE_TIGHT),
        };
        for (slot, value) in slots.iter_mut().enumerate() {
            let at = kind as usize * SLOTS + slot;
            let noise = bell(stream, row * SLOTS as u64 + slot as u64, scale);
            *value = (centres[at] + noise).clamp(-127, 127) as i8;
        }
    });
    Array2::from_shape_vec((rows, SLOTS), out).expect("a full array")
}

/// Outcome means as u16 over the declared range, packets x outcomes.
pub fn outcomes(packets: usize, outcomes: usize) -> Array2<u16> {
    Array2::from_shape_fn((packets, outcomes), |(packet, outcome)| {
        (number(STREAM_OUTCOMES, (packet * outcomes + outcome) as u64) >> 48) as u16
    })
}

/// Factors 2,048..=4,096 per packet, as of authors trusted differently and packets of any age.
pub fn gains(packets: usize) -> Vec<u16> {
    (0..packets as u64).map(|i| 2_048 + below(STREAM_GAINS, i, 2_049) as u16).collect()
}

/// Numbers of cases 1..=`cases_max` per packet.
pub fn cases(packets: usize, cases_max: u16) -> Vec<u16> {
    (0..packets as u64).map(|i| 1 + below(STREAM_CASES, i, cases_max.into()) as u16).collect()
}

/// Packets and questions of ragged mailboxes: sizes follow a power law (Pareto, alpha 1.5, at most 64
/// times the mean), and there are a tenth as many questions, at least one.
pub fn mailboxes(addresses: usize, mean: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let mean = mean as f64;
    let (mut packets, mut queries) = (0, 0);
    (0..addresses as u64)
        .map(|address| {
            let u = (number(STREAM_SIZES, address) >> 11) as f64 / (1u64 << 53) as f64;
            let size = (mean / 3.0 * libm::pow(1.0 - u, -1.0 / 1.5)).min(64.0 * mean) as usize + 1;
            let asked = (size / 10).max(1);
            (packets, queries) = (packets + size, queries + asked);
            (queries - asked..queries, packets - size..packets)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first rows of what `benches/peers.py --gen` writes: both must make the same bytes.
    #[test]
    fn the_bytes_are_those_of_the_peers() {
        let rows = embeddings(STREAM_PACKETS, 2, Clusters::Loose);
        assert_eq!(rows.as_slice().unwrap()[..8], [25, 5, 2, 7, -11, -57, -26, 54]);
        assert_eq!(
            outcomes(2, 4).as_slice().unwrap(),
            [19_223, 5_774, 9_401, 39_931, 1_373, 63_499, 20_229, 57_381]
        );
        let boxes = mailboxes(4, 100);
        let sizes: Vec<_> = boxes.iter().map(|(queries, packets)| (queries.len(), packets.len())).collect();
        assert_eq!(sizes, [(3, 38), (3, 39), (4, 44), (7, 79)]);
    }

    #[test]
    fn rows_of_one_kind_lie_together_where_that_is_wanted() {
        let distance = |rows: &Array2<i8>, a: usize, b: usize| -> i32 {
            let (a, b) = (rows.row(a), rows.row(b));
            a.iter().zip(b).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
        };
        let tight = embeddings(STREAM_PACKETS, 4 * 1_024, Clusters::Tight);
        assert!(distance(&tight, 0, 3) < 10_000, "{}", distance(&tight, 0, 3));
        assert!(distance(&tight, 3, 4) > 80_000, "{}", distance(&tight, 3, 4));
        assert!(cases(1_000, 6).iter().all(|n| (1..=6).contains(n)));
        assert!(gains(1_000).iter().all(|g| (2_048..=4_096).contains(g)));
    }
}
