//! What a node says of itself: one picture for `/status`, `/metrics`, `/healthz` and `qis status`.
//!
//! Counts run from the start of the process. Times are durations in milliseconds or seconds, never
//! dates, so that a reader needs no synchronised clock.

use crate::net::Traffic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub identity: Identity,
    /// The storage nodes known, but this one.
    pub peers: Vec<Peer>,
    /// `None` for a gateway, which keeps no mailboxes.
    pub store: Option<Store>,
    pub ranges: Ranges,
    pub replication: Replication,
    pub repair: Repair,
    pub admission: Admission,
    pub quotas: Quotas,
    pub participation: Participation,
    /// The counters of [`Traffic`] by the names of its fields: see [`traffic`].
    pub traffic: BTreeMap<String, u64>,
}

/// Whether a node keeps mailboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It keeps mailboxes and is reached by others.
    #[default]
    Storage,
    /// It deposits and asks; it may sit behind a NAT.
    Gateway,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Storage => "storage",
            Mode::Gateway => "gateway",
        }
    }
}

/// Who the node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Peer id, base58.
    pub peer: String,
    /// Version of the program.
    pub version: String,
    pub mode: Mode,
    /// The swarm's public key, hex; `None` for an open swarm, which admits everybody.
    pub swarm: Option<String>,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// Multiaddresses with the peer id, as others name them; none for a gateway.
    pub listen: Vec<String>,
}

/// A storage node, as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Peer id, base58.
    pub peer: String,
    /// The last attempt to speak with it failed.
    pub silent: bool,
    /// Multiaddresses.
    pub addresses: Vec<String>,
    /// Milliseconds since it last answered or asked; `None` if it never did.
    pub last_heard_ms: Option<u64>,
}

/// The mailboxes on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Packets in all mailboxes.
    pub packets: u64,
    /// Mailboxes that somebody has deposited to.
    pub mailboxes: u64,
    /// Bytes of the database's files.
    pub disk_bytes: u64,
    /// Bytes that the file system still gives this process: see [`disk_free_bytes`].
    pub disk_free_bytes: u64,
    /// Damaged records met since the store was opened and not replaced since.
    pub damaged_records: u64,
    /// Rises when the store has lost packets, so that old cursors expire.
    pub epoch: u64,
    /// Why writes stopped, if they did.
    pub halted: Option<String>,
}

/// Which mailboxes lie here, by placement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// Mailboxes on this node's disk.
    pub held: u64,
    /// Of those, the ones this node is a replica of.
    pub responsible: u64,
}

/// Deposits through this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replication {
    /// Packets, per mailbox, that enough disks have acknowledged.
    pub deposits_acknowledged: u64,
    /// Copies of packets that wait for a replica which does not answer.
    pub hand_off_packets: u64,
    /// Age in milliseconds of the oldest of them: the replication lag; `None` where none waits.
    pub oldest_hand_off_ms: Option<u64>,
}

/// Comparing mailboxes with other replicas and fetching what is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Mailboxes that are known to lack packets here, and wait for them.
    pub queue_mailboxes: u64,
    /// Peers to compare mailboxes with now.
    pub peers_due: u64,
    /// Mailboxes compared, once for each other replica.
    pub compared_mailboxes: u64,
    /// Of those, the ones that differed.
    pub differing_mailboxes: u64,
    /// Packets fetched because they were missing here.
    pub fetched_packets: u64,
    /// Bytes of these packets.
    pub fetched_bytes: u64,
    /// Comparisons and reconciliations that got no answer, or a wrong one.
    pub failures: u64,
    /// Milliseconds since a comparison with a peer was last completed; `None` before the first.
    pub last_comparison_ms: Option<u64>,
}

/// The signed lists of the swarm and what they turned away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Epoch of the list of storage nodes; `None` without one.
    pub nodes_epoch: Option<u64>,
    /// Epoch of the list of authors; `None` without one.
    pub authors_epoch: Option<u64>,
    /// Packets and peers refused, by reason: a few words in lower case, from a fixed set.
    pub refused: BTreeMap<String, u64>,
}

/// Requests beyond a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    /// Requests refused, by whose limit it was: peer, subnet, author, mailbox and the like.
    pub refused: BTreeMap<String, u64>,
}

/// Who deposits and who only asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Participation {
    /// Packets deposited with this node, by everybody.
    pub deposits: u64,
    /// Reads of mailboxes that were begun, by everybody.
    pub asks: u64,
    /// The most active, those first; bounded by the node.
    pub rows: Vec<Participant>,
}

impl Participation {
    /// Packets deposited for each question; `None` where nothing was asked.
    pub fn deposits_per_ask(&self) -> Option<f64> {
        (self.asks > 0).then(|| self.deposits as f64 / self.asks as f64)
    }
}

/// Whom a row of participation is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Whoever sent the requests.
    #[default]
    Peer,
    /// Whoever signed the packets. Authors do not ask: who asks does not tell who writes.
    Author,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Who::Peer => "peer",
            Who::Author => "author",
        }
    }
}

/// One peer or author.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Participant {
    pub who: Who,
    /// The peer's place in the key space, or the author's key, hex.
    pub key: String,
    /// Packets deposited.
    pub deposits: u64,
    /// Reads of mailboxes that were begun; 0 for authors.
    pub asks: u64,
    /// Packets deposited for each question; `None` where nothing was asked.
    pub deposits_per_ask: Option<f64>,
}

impl Status {
    /// # Errors
    /// Why this node should get no requests: its store takes no packets, or a gateway has nobody to ask.
    pub fn health(&self) -> Result<(), String> {
        if let Some(reason) = self.store.as_ref().and_then(|store| store.halted.as_ref()) {
            return Err(format!("the store takes no packets: {reason}"));
        }
        if self.identity.mode == Mode::Gateway && self.peers.iter().all(|peer| peer.silent) {
            return Err(format!("none of {} known storage nodes answers", self.peers.len()));
        }
        Ok(())
    }
}

/// The counters by name, so that one added to [`Traffic`] is shown everywhere without another word.
pub fn traffic(traffic: &Traffic) -> BTreeMap<String, u64> {
    let fields = serde_json::to_value(traffic).unwrap_or_default();
    let fields = fields.as_object().into_iter().flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
}

/// Bytes that the file system of `folder` still gives this process; 0 where it does not say.
pub fn disk_free_bytes(folder: &Path) -> u64 {
    fs4::available_space(folder).unwrap_or(0)
}
