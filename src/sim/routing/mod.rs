//! Hops and messages of Kademlia by the size of the network.
//!
//! Nodes are random 256-bit keys. A table has a bucket per distance class, and a bucket up to
//! [`BUCKET_CONTACTS`] random members of its sub-tree: what a network fills them with that has been
//! running for a while. Nobody is silent and every message arrives; what failures cost is measured
//! where they happen, on real nodes.
//!
//! - *Hops* are greedy steps: from a random node to the contact closest to a random target, until no
//!   contact is closer. That is then the closest node of the network ([`tables`] says why).
//! - *Messages* are the requests of the iterative look-up that libp2p's Kademlia does ([`lookup`]);
//!   each brings one answer with up to [`BUCKET_CONTACTS`] contacts.
//! - *Recall* is the share of the true [`REPLICAS`] closest nodes, found by brute search of the sorted
//!   keys, among the first that the look-up gives.
//!
//! Beside them stands what other designs pay for the same N: N(N-1)/2 links where everybody talks to
//! everybody, and N activations where a gate scores N experts for every question. Finding a mailbox
//! grows with log N. Pulling it does not depend on N at all: it grows with the packets pulled.

mod lookup;
mod tables;
#[cfg(test)]
mod tests;

use crate::limits::{PACKET_BYTES, REPLICAS};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;
use tables::{Key, Network};

/// Most contacts in a bucket, and in an answer: libp2p's `K_VALUE`.
pub const BUCKET_CONTACTS: usize = 20;
/// Sizes that are measured where none is named.
pub const SIZES: [usize; 11] = [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];
/// Largest network that is measured: its keys take 32 bytes a node.
pub const NODES_MAX: usize = 10_000_000;
/// Greedy walks per size.
const WALKS: u64 = 10_000;
/// Iterative look-ups per size and number wanted.
const LOOKUPS: u64 = 1_000;

/// Bytes of a request on its stream: length 1, type 2, key 34.
pub const REQUEST_BYTES: u64 = 1 + 2 + 34;
/// Bytes of a contact in an answer: tag and length 2, peer id 40, connection 2, and one address
/// `/ip4/../udp/../quic-v1` of 11 bytes with tag and length.
pub const CONTACT_BYTES: u64 = 2 + 40 + 2 + 13;
/// Bytes of an answer of a full table on its stream: length 2, type 2 and the contacts.
pub const ANSWER_BYTES: u64 = 2 + 2 + BUCKET_CONTACTS as u64 * CONTACT_BYTES;

/// What one size of network costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub nodes: usize,
    pub log2_nodes: f64,
    /// Greedy steps to the closest node, over 10,000 walks.
    pub mean_hops: f64,
    pub max_hops: u32,
    /// Mean requests of a look-up that wants 20 nodes, libp2p's default, over 1,000 look-ups.
    pub messages: f64,
    pub messages_max: u32,
    /// Mean duration of that look-up in round trips, where one takes 0.5 to 1.5.
    pub round_trips: f64,
    /// Share of the true 8 closest that it finds, 0..=1.
    pub recall: f64,
    /// The same where the look-up wants only the 8 replicas.
    pub messages_8_wanted: f64,
    pub round_trips_8_wanted: f64,
    pub recall_8_wanted: f64,
    /// N(N-1)/2: links where everybody talks to everybody.
    pub pairs: u64,
    /// Experts that a gate scores to choose, per question, in a mixture of N experts.
    pub expert_activations: usize,
    /// `messages` x ([`REQUEST_BYTES`] + [`ANSWER_BYTES`]): grows with log N. In a network of fewer
    /// than 20 contacts answers are shorter; this is the full length.
    pub lookup_bytes: f64,
    pub packets_pulled: u64,
    /// Packets pulled x 512: grows with them, not with N.
    pub packet_bytes: u64,
}

/// Measures a network of `nodes` random keys. `packets_pulled` is what a reader pulls then.
///
/// # Panics
/// Without nodes.
pub fn measure(nodes: usize, packets_pulled: u64, seed: u64) -> Row {
    assert!(nodes > 0, "a network has a node");
    let network = Network::new(nodes, seed);
    let hops: Vec<u32> = (0..WALKS).into_par_iter().map(|index| walk(&network, seed, index)).collect();
    let twenty = Lookups::run(&network, BUCKET_CONTACTS, seed);
    let eight = Lookups::run(&network, REPLICAS, seed);
    Row {
        nodes,
        log2_nodes: libm::log2(nodes as f64),
        mean_hops: mean(hops.iter().copied().map(u64::from)),
        max_hops: hops.iter().copied().max().unwrap_or_default(),
        messages: twenty.messages_mean,
        messages_max: twenty.messages_max,
        round_trips: twenty.round_trips_mean,
        recall: twenty.recall,
        messages_8_wanted: eight.messages_mean,
        round_trips_8_wanted: eight.round_trips_mean,
        recall_8_wanted: eight.recall,
        pairs: nodes as u64 * (nodes as u64 - 1) / 2,
        expert_activations: nodes,
        lookup_bytes: twenty.messages_mean * (REQUEST_BYTES + ANSWER_BYTES) as f64,
        packets_pulled,
        packet_bytes: packets_pulled * PACKET_BYTES as u64,
    }
}

/// The chance of one sample: its own stream, so that samples may run in any order.
fn sample(seed: u64, kind: u64, index: u64) -> ChaCha8Rng {
    let mut material = [0; 32];
    for (bytes, word) in material.chunks_exact_mut(8).zip([seed, kind, index]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(material)
}

/// Greedy steps from a random node until the closest to a random target.
fn walk(network: &Network, seed: u64, index: u64) -> u32 {
    let mut random = sample(seed, 1, index);
    let mut node = random.random_range(0..network.len());
    let target = Key::random(&mut random);
    let mut hops = 0;
    while let Some(closer) = network.next_hop(node, &target) {
        node = closer;
        hops += 1;
    }
    hops
}

/// Means over many look-ups.
struct Lookups {
    messages_mean: f64,
    messages_max: u32,
    round_trips_mean: f64,
    recall: f64,
}

impl Lookups {
    fn run(network: &Network, wanted: usize, seed: u64) -> Lookups {
        let one = |index| {
            let mut random = sample(seed, 2, index);
            let source = random.random_range(0..network.len());
            let target = Key::random(&mut random);
            let found = lookup::lookup(network, source, &target, wanted, random.next_u64());
            // The node that looks is none of its own contacts; it belongs where it is close.
            let mut ranked: Vec<usize> = found.closest.into_iter().chain([source]).collect();
            ranked.sort_unstable_by_key(|&node| network.key(node).distance(&target));
            ranked.truncate(REPLICAS);
            let truth = network.closest(&target, REPLICAS);
            let hits = truth.iter().filter(|node| ranked.contains(node)).count();
            (found.messages, found.milli_round_trips, hits, truth.len())
        };
        let all: Vec<(u32, u64, usize, usize)> = (0..LOOKUPS).into_par_iter().map(one).collect();
        let wanted: usize = all.iter().map(|sample| sample.3).sum();
        let hits: usize = all.iter().map(|sample| sample.2).sum();
        Lookups {
            messages_mean: mean(all.iter().map(|sample| u64::from(sample.0))),
            messages_max: all.iter().map(|sample| sample.0).max().unwrap_or_default(),
            round_trips_mean: mean(all.iter().map(|sample| sample.1)) / 1_000.0,
            recall: hits as f64 / wanted as f64,
        }
    }
}

/// Of integers, so that the order of addition does not matter.
fn mean(values: impl ExactSizeIterator<Item = u64>) -> f64 {
    let count = values.len();
    values.sum::<u64>() as f64 / count as f64
}

/// A straight line through (log2 N, mean hops).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// Hops at N = 1.
    pub a: f64,
    /// Hops per doubling of N.
    pub b: f64,
    /// Share of the variance that the line explains, 0..=1.
    pub r_squared: f64,
}

/// Least squares over the rows; `None` for fewer than three sizes, through which any line fits well.
pub fn fit(rows: &[Row]) -> Option<Fit> {
    if rows.len() < 3 {
        return None;
    }
    let count = rows.len() as f64;
    let (mut x_mean, mut y_mean) = (0.0, 0.0);
    for row in rows {
        x_mean += row.log2_nodes / count;
        y_mean += row.mean_hops / count;
    }
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for row in rows {
        let (x, y) = (row.log2_nodes - x_mean, row.mean_hops - y_mean);
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    if xx == 0.0 || yy == 0.0 {
        return None;
    }
    let b = xy / xx;
    Some(Fit { a: y_mean - b * x_mean, b, r_squared: xy * xy / (xx * yy) })
}
