//! The picture that a running node gives of itself.

use crate::limits::PACKET_BYTES;
use crate::net::NetHandle;
use crate::node::participation::{Participant, Row};
use crate::packet::hex;
use crate::serve::{
    self, Admission, Identity, Mode, Participation, Peer, Quotas, Ranges, Repair, Replication, Status, Store,
    Who,
};
use crate::store::{DiskStore, PacketStore};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counting the mailboxes of a store reads all their keys: not for every question.
const RANGES_FRESH: Duration = Duration::from_secs(15);

/// Where the picture comes from.
pub struct Source {
    handle: Arc<NetHandle>,
    store: Option<Arc<DiskStore>>,
    folder: PathBuf,
    mode: Mode,
    started: Instant,
    ranges: Mutex<Option<(Instant, Ranges)>>,
}

impl Source {
    pub fn new(handle: Arc<NetHandle>, store: Option<Arc<DiskStore>>, folder: PathBuf, mode: Mode) -> Source {
        Source { handle, store, folder, mode, started: Instant::now(), ranges: Mutex::default() }
    }

    /// Blocks on the disk.
    pub fn status(&self) -> Status {
        let traffic = self.handle.traffic();
        let ranges = self.ranges();
        let hand_offs = self.handle.mailbox().hand_offs();
        Status {
            identity: self.identity(),
            peers: self.peers(),
            store: self.store.as_ref().map(|store| self.store(store, ranges.held)),
            ranges,
            replication: Replication {
                deposits_acknowledged: traffic.deposits_acknowledged,
                hand_off_packets: hand_offs.packets as u64,
                oldest_hand_off_ms: (hand_offs.packets > 0).then_some(hand_offs.oldest_ms),
            },
            repair: self.repair(),
            admission: self.admission(),
            quotas: Quotas {
                refused: [("peer, subnet or author".to_string(), traffic.refused_quota)].into(),
            },
            participation: self.participation(),
            traffic: serve::traffic(&traffic),
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            peer: self.handle.peer_id().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            mode: self.mode,
            swarm: self.handle.lists().map(|lists| hex(lists.swarm())),
            uptime_s: self.started.elapsed().as_secs(),
            listen: self.handle.dial_addresses().iter().map(ToString::to_string).collect(),
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let peers = self.handle.peers().into_iter();
        peers
            .map(|peer| Peer {
                peer: peer.peer.to_string(),
                silent: peer.silent,
                addresses: peer.addresses.iter().map(ToString::to_string).collect(),
                last_heard_ms: peer.last_heard.and_then(|since| u64::try_from(since.as_millis()).ok()),
            })
            .collect()
    }

    fn store(&self, store: &DiskStore, mailboxes: u64) -> Store {
        let health = store.health();
        Store {
            packets: health.packets,
            mailboxes,
            disk_bytes: health.disk_bytes,
            disk_free_bytes: serve::disk_free_bytes(&self.folder),
            damaged_records: health.damaged_records,
            epoch: health.epoch,
            halted: health.halted,
        }
    }

    fn ranges(&self) -> Ranges {
        let Some(store) = &self.store else { return Ranges::default() };
        let mut kept = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, ranges)) = *kept
            && at.elapsed() < RANGES_FRESH
        {
            return ranges;
        }
        let mailboxes = store.addresses().unwrap_or_else(|error| {
            tracing::error!(%error, "the mailboxes cannot be counted");
            Vec::new()
        });
        let responsible = mailboxes.iter().filter(|(address, _)| self.handle.holds(address)).count();
        let ranges = Ranges { held: mailboxes.len() as u64, responsible: responsible as u64 };
        *kept = Some((Instant::now(), ranges));
        ranges
    }

    fn repair(&self) -> Repair {
        let Some(progress) = self.handle.repair() else { return Repair::default() };
        Repair {
            queue_mailboxes: progress.queue as u64,
            peers_due: progress.peers_due as u64,
            compared_mailboxes: progress.mailboxes_compared,
            differing_mailboxes: progress.mailboxes_differing,
            fetched_packets: progress.packets_fetched,
            fetched_bytes: progress.packets_fetched * PACKET_BYTES as u64,
            failures: progress.failures,
            last_comparison_ms: progress.since_completed_ms,
        }
    }

    fn admission(&self) -> Admission {
        let lists = self.handle.lists();
        let refused = [("author is not listed".to_string(), self.handle.traffic().refused_authors)].into();
        Admission {
            nodes_epoch: lists.as_ref().and_then(|lists| lists.nodes()).map(|list| list.epoch()),
            authors_epoch: lists.as_ref().and_then(|lists| lists.authors()).map(|list| list.epoch()),
            refused,
        }
    }

    fn participation(&self) -> Participation {
        let (rows, totals) = self.handle.participation();
        let row = |row: Row| {
            let (who, key) = match row.who {
                Participant::Peer(key) => (Who::Peer, hex(&key.0)),
                Participant::Author(key) => (Who::Author, hex(&key)),
            };
            let (deposits, asks) = (row.counts.deposited, row.counts.asked);
            serve::Participant { who, key, deposits, asks, deposits_per_ask: row.deposits_per_ask }
        };
        Participation {
            deposits: totals.deposited,
            asks: totals.asked,
            rows: rows.into_iter().map(row).collect(),
        }
    }
}
