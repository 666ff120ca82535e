//! Packets, stores and swarms for tests over real sockets.
#![allow(dead_code)]

use qis::address::Address;
use qis::net::{Config, Identity, Multiaddr, NetHandle, Storage, start};
use qis::packet::{AuthorKey, Draft, Id, Kind, Verified};
use qis::store::{Cursor, Deposited, PacketStore, Page, Stat, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
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
        store: Arc::new(TestStore::new([identity.key().0[0]; 32])),
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

/// A mailbox is a list, a sequence its place plus one.
pub struct TestStore {
    replica: Id,
    mailboxes: Mutex<HashMap<Address, Vec<Verified>>>,
}

impl TestStore {
    pub fn new(replica: Id) -> TestStore {
        TestStore { replica, mailboxes: Mutex::default() }
    }
}

impl PacketStore for TestStore {
    fn deposit(&self, _: u64, batch: &[(Address, Verified)]) -> Result<Vec<Deposited>, StoreError> {
        let mut mailboxes = self.mailboxes.lock().unwrap();
        let mut seen: HashMap<Address, std::collections::HashSet<Id>> = HashMap::new();
        Ok(batch
            .iter()
            .map(|(address, packet)| {
                let mailbox = mailboxes.entry(*address).or_default();
                let seen = seen.entry(*address).or_insert_with(|| mailbox.iter().map(|p| p.id()).collect());
                if !seen.insert(packet.id()) {
                    return Deposited::Duplicate;
                }
                mailbox.push(*packet);
                Deposited::Stored
            })
            .collect())
    }

    fn pull(&self, address: &Address, cursor: Option<Cursor>, max: usize) -> Result<Page, StoreError> {
        if cursor.is_some_and(|cursor| (cursor.replica, cursor.epoch) != (self.replica, 1)) {
            return Err(StoreError::CursorExpired { given: cursor.map_or(0, |c| c.epoch), current: 1 });
        }
        let mailboxes = self.mailboxes.lock().unwrap();
        let mailbox = mailboxes.get(address).map_or(&[][..], Vec::as_slice);
        let from = cursor.map_or(0, |cursor| cursor.sequence as usize).min(mailbox.len());
        let to = mailbox.len().min(from + max);
        let cursor = Cursor { replica: self.replica, epoch: 1, sequence: to as u64 };
        Ok(Page { packets: mailbox[from..to].to_vec(), cursor, more: to < mailbox.len() })
    }

    fn stat(&self, address: &Address) -> Result<Stat, StoreError> {
        let packets = self.mailboxes.lock().unwrap().get(address).map_or(0, Vec::len) as u64;
        Ok(Stat { packets, observed: packets, ..Stat::default() })
    }
    fn start(&self) -> Cursor {
        Cursor { replica: self.replica, epoch: 1, sequence: 0 }
    }
}
