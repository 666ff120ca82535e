//! Packets, stores and swarms for tests over real sockets.
#![allow(dead_code)]

#[cfg(unix)]
pub mod processes;

use qis::address::Address;
use qis::net::{Config, Identity, Multiaddr, NetHandle, Storage, start};
use qis::packet::{AuthorKey, Draft, Id, Kind, Verified};
use qis::store::MemoryStore;
use std::sync::Arc;
use std::time::Duration;

/// Packets of one author, each its own evidence.
pub fn packets(author: u8, range: std::ops::Range<u32>) -> Vec<Verified> {
    let key = AuthorKey::from_seed([author; 32]);
    range
        .map(|sequence| {
            let mut draft = Draft::new(Kind::Observed, [1; 32], 1);
            draft.sequence = sequence;
            draft.reference = *blake3::hash(&[&[author][..], &sequence.to_le_bytes()].concat()).as_bytes();
            draft.values[0] = Some((sequence as u16, 0));
            key.sign(&draft).expect("a draft by the rules")
        })
        .collect()
}

pub fn at(address: Address, packets: &[Verified]) -> Vec<(Address, Verified)> {
    packets.iter().map(|packet| (address, *packet)).collect()
}

pub fn ids(packets: &[Verified]) -> Vec<Id> {
    let mut ids: Vec<Id> = packets.iter().map(|packet| packet.id()).collect();
    ids.sort_unstable();
    ids
}

pub fn storage(identity: &Identity) -> Storage {
    Storage {
        store: Arc::new(MemoryStore::new([identity.key().0[0]; 32])),
        admission: Arc::new(|_, _, _| Ok(())),
    }
}

pub fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

/// A node with a store in memory; it greets `peers`.
pub async fn node(seed: u8, peers: Vec<Multiaddr>) -> NetHandle {
    let identity = identity(seed);
    let storage = storage(&identity);
    start(Config::node(identity, storage, peers)).await.expect("a node on a free port")
}

/// A swarm in which everybody knows everybody; all but the first were given the first alone.
pub async fn swarm(count: u8) -> Vec<NetHandle> {
    let mut nodes = vec![node(1, vec![]).await];
    for seed in 2..=count {
        nodes.push(node(seed, nodes[0].dial_addresses()).await);
    }
    for node in &nodes {
        wait_for(|| node.peers().len() == usize::from(count) - 1, "full membership").await;
    }
    nodes
}

pub async fn client(peers: Vec<Multiaddr>) -> NetHandle {
    let client = start(Config::client(Identity::random(), peers)).await.expect("a client");
    assert!(client.settled(Duration::from_secs(5)).await, "the client finds the swarm");
    client
}

pub async fn wait_for(mut done: impl FnMut() -> bool, what: &str) {
    for _ in 0..400 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("waited ten seconds for {what}");
}
