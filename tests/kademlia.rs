//! Routing by Kademlia on real nodes: the same replicas as full membership, in few steps.

mod support;

use qis::mailbox::{Mailbox, Position, Receipt};
use qis::net::{Config, NetHandle, Routing, start};
use qis::node::{NodeKey, closest};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use support::*;

const NODES: u8 = 64;
const ADDRESSES: usize = 100;

async fn kademlia_node(seed: u8, peers: Vec<qis::net::Multiaddr>) -> NetHandle {
    let identity = identity(seed);
    let storage = storage(&identity);
    let mut config = Config::node(identity, storage, peers);
    config.routing = Routing::Kademlia;
    start(config).await.expect("a node on a free port")
}

fn distance(key: &NodeKey, target: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| key.0[i] ^ target[i])
}

/// Steps from one node to the closest of all, each to the closest that the last one knows.
fn hops(from: NodeKey, address: &[u8; 32], tables: &HashMap<NodeKey, Vec<NodeKey>>) -> (usize, NodeKey) {
    let target: [u8; 32] = Sha256::digest(address).into();
    let (mut at, mut steps) = (from, 0);
    loop {
        let next = tables[&at].iter().copied().chain([at]).min_by_key(|key| distance(key, &target)).unwrap();
        if next == at {
            return (steps, at);
        }
        (at, steps) = (next, steps + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_nodes_find_the_true_closest_eight() {
    let first = kademlia_node(1, vec![]).await;
    let seeds = first.dial_addresses();
    let mut nodes = vec![first];
    for seed in 2..=NODES {
        nodes.push(kademlia_node(seed, seeds.clone()).await);
        // Joins are staggered: many at once would all look themselves up in a network that is not there yet.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for node in &nodes {
        wait_for(|| node.peers().len() + 1 >= usize::from(NODES), "nodes that know each other").await;
    }
    let keys: Vec<NodeKey> = nodes.iter().map(NetHandle::key).collect();
    let mut tables = HashMap::new();
    for node in &nodes {
        tables.insert(node.key(), node.kademlia_table().await);
    }
    let known: usize = tables.values().map(Vec::len).sum();
    let address = |n: usize| *blake3::hash(&n.to_le_bytes()).as_bytes();

    let (mut found, mut steps, mut steps_max) = (0, 0, 0);
    let started = Instant::now();
    for n in 0..ADDRESSES {
        let node = &nodes[n * 7 % nodes.len()];
        let truth = closest(&address(n), keys.iter().copied(), 8);
        let replicas = node.mailbox().replicas(&address(n)).await.unwrap();
        found += replicas.iter().filter(|key| truth.contains(key)).count();
        let (hops, end) = hops(node.key(), &address(n), &tables);
        assert_eq!(end, truth[0], "greedy steps end at the closest node");
        steps += hops;
        steps_max = steps_max.max(hops);
    }
    let (recall, mean) = (found as f64 / (8 * ADDRESSES) as f64, steps as f64 / ADDRESSES as f64);
    println!(
        "64 nodes, {:.1} in a table: mean hops {mean:.2} (most {steps_max}), recall of the true 8 closest {recall}, \
         {:.1} ms a look-up",
        known as f64 / f64::from(NODES),
        started.elapsed().as_secs_f64() * 1e3 / ADDRESSES as f64,
    );
    assert_eq!(recall, 1.0);
    assert!(mean <= 1.3, "{mean}");

    // The loop works over it: deposit at one node, pull at another.
    let all = packets(1, 0..50);
    let receipts = nodes[3].mailbox().deposit(&at(address(1), &all)).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored));
    let pulled = nodes[40].mailbox().pull(&address(1), &Position::default()).await.unwrap();
    assert_eq!(ids(&pulled.packets), ids(&all));
}
