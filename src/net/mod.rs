//! The QUIC exchange: one event loop per node, requests and responses in bounded frames.
//!
//! [`start`] runs a node: with [`Storage`] it keeps mailboxes and is a member of the swarm; without
//! it is a client that only asks. [`NetHandle`] shows and stops it, [`NetMailbox`] is the swarm as a
//! [`crate::mailbox::Mailbox`].
//!
//! - [`wire`]: the frames, byte by byte
//! - [`codec`]: frames on a stream, with bounds on length and time
//! - [`runtime`]: the event loop, which performs what [`crate::node`] decides
//! - [`gate`]: who may do what, and how much: lists, quotas, participation
//! - [`serve`], [`storage`], [`check`]: work on requests beside the loop; signatures, once each
//! - [`placement`]: where the replicas of an address come from
//! - [`mailbox`]: deposits, pulls and stats over the replicas
//! - [`repair`]: comparing mailboxes with other replicas, and fetching what is missing
//! - [`receipt`]: what a replica signs of a deposit
//!
//! Nothing that reads a disk or checks a signature runs on the event loop, and an idle node sleeps:
//! connections close after some seconds without a request, and the loop wakes for the next greeting.

mod check;
pub mod codec;
mod counters;
mod gate;
mod handle;
mod handover;
mod mailbox;
mod news;
mod placement;
pub mod receipt;
mod repair;
mod runtime;
mod serve;
mod shared;
mod storage;
pub mod wire;

pub use check::Remembered;
pub use counters::Traffic;
pub use gate::ListsKeeper;
pub use handle::{NetHandle, Peer};
pub use libp2p::{Multiaddr, PeerId};
pub use mailbox::{HandOffs, NetMailbox, Receipts};
pub use receipt::SignedReceipt;
pub use runtime::start;
pub use storage::{Admit, Storage};

use crate::node::NodeKey;
use crate::node::handover::GRACE_MS;
use crate::node::lists::Lists;
use crate::node::quota::Rates;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A node's own key, ed25519. It is never an author's key: who asks must not tell who writes.
#[derive(Clone)]
pub struct Identity(Keypair);

impl Identity {
    /// From the 32-byte ed25519 seed.
    pub fn from_seed(mut seed: [u8; 32]) -> Identity {
        // Every 32 bytes are an ed25519 seed, so only a wrong length could fail.
        Identity(Keypair::ed25519_from_bytes(&mut seed).unwrap_or_else(|_| Keypair::generate_ed25519()))
    }

    pub fn random() -> Identity {
        Identity(Keypair::generate_ed25519())
    }

    pub fn peer_id(&self) -> PeerId {
        self.0.public().to_peer_id()
    }

    /// The node's place in the key space, and its name in cursors.
    pub fn key(&self) -> NodeKey {
        node_key(&self.peer_id())
    }
}

/// The place of a peer in the key space.
pub fn node_key(peer: &PeerId) -> NodeKey {
    NodeKey::of_peer(&peer.to_bytes())
}

/// What a node needs to run.
pub struct Config {
    pub identity: Identity,
    /// UDP addresses to listen on; none for a client.
    pub listen: Vec<Multiaddr>,
    /// Nodes to greet first; one is enough, it names the others.
    pub peers: Vec<Multiaddr>,
    /// The mailboxes this node keeps; `None` for a client.
    pub storage: Option<Storage>,
    /// Signatures known to be good; nodes in one process may share them.
    pub remembered: Arc<Remembered>,
    /// A connection without requests is closed after this time.
    pub idle: Duration,
    /// How the replicas of an address are found; the same for all nodes of a swarm.
    pub routing: Routing,
    /// The signed lists of the swarm; `None` in an open swarm.
    pub lists: Option<Lists>,
    /// Told of newer lists.
    pub keep_lists: Option<Arc<ListsKeeper>>,
    /// What peers, subnets and authors may ask.
    pub rates: Rates,
    /// Packets that repair fetches per second at most, about; 0 sets no bound.
    pub repair_packets_per_second: u64,
    /// When a mailbox of which this node is no replica any more goes from its store, once each replica has
    /// confirmed that it holds all of it; `None` keeps it for good.
    pub hand_over_after: Option<Duration>,
}

/// How the replicas of an address are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// Every node knows every other: no message. Up to [`crate::limits::MEMBERS_MAX`] storage nodes.
    #[default]
    Membership,
    /// Looked up in O(log N) steps, for larger and for open networks.
    Kademlia,
}

/// What repair fetches per second unless told otherwise: 2 MB/s.
pub const REPAIR_PACKETS_PER_SECOND: u64 = 4_000;

impl Config {
    /// A client of the swarm that `peers` belong to.
    pub fn client(identity: Identity, peers: Vec<Multiaddr>) -> Config {
        let remembered = Arc::default();
        Config {
            identity,
            listen: Vec::new(),
            peers,
            storage: None,
            remembered,
            idle: Duration::from_secs(10),
            routing: Routing::default(),
            lists: None,
            keep_lists: None,
            rates: Rates::default(),
            repair_packets_per_second: REPAIR_PACKETS_PER_SECOND,
            hand_over_after: Some(Duration::from_millis(GRACE_MS)),
        }
    }

    /// A node that keeps mailboxes and listens on a free port of the loopback interface.
    pub fn node(identity: Identity, storage: Storage, peers: Vec<Multiaddr>) -> Config {
        let listen = vec![quic_address(SocketAddr::from(([127, 0, 0, 1], 0)))];
        Config { listen, storage: Some(storage), ..Config::client(identity, peers) }
    }
}

/// `/ip4/../udp/../quic-v1`.
pub fn quic_address(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Udp(address.port())).with(Protocol::QuicV1)
}

/// Reads `IP:PORT`, or a multiaddress such as `/ip4/192.0.2.7/udp/4001/quic-v1/p2p/12D3..`.
///
/// # Errors
/// Text that is neither, or a multiaddress without UDP and QUIC.
pub fn parse_address(text: &str) -> Result<Multiaddr, NetError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(quic_address(address));
    }
    match text.parse::<Multiaddr>() {
        Ok(address) if is_quic(&address) => Ok(address),
        _ => Err(NetError::Address(text.into())),
    }
}

/// `/ip4|ip6/../udp/../quic-v1`, with or without `/p2p/..`.
fn is_quic(address: &Multiaddr) -> bool {
    let parts: Vec<Protocol> = address.iter().collect();
    let body =
        matches!(parts[..], [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1, ..]);
    body && (parts.len() == 3 || matches!(parts[3..], [Protocol::P2p(_)]))
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error(
        "`{0}` is no address of a node: write IP:PORT, or a multiaddress like /ip4/192.0.2.7/udp/4001/quic-v1"
    )]
    Address(String),
    #[error("cannot listen on {address}: {reason}; choose another port, or 0 for any free one")]
    Listen { address: Multiaddr, reason: String },
    #[error("the network cannot be set up: {0}")]
    SetUp(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_both_forms() {
        let quic = "/ip4/127.0.0.1/udp/4001/quic-v1";
        assert_eq!(parse_address("127.0.0.1:4001").unwrap().to_string(), quic);
        assert_eq!(parse_address("[::1]:4001").unwrap().to_string(), "/ip6/::1/udp/4001/quic-v1");
        let with_peer = format!("{quic}/p2p/{}", Identity::from_seed([1; 32]).peer_id());
        assert_eq!(parse_address(&with_peer).unwrap().to_string(), with_peer);
        for wrong in ["", "127.0.0.1", "host:1", "/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/1"] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }

    /// The binary form of an ed25519 peer id is the identity multihash of the key's protobuf.
    #[test]
    fn a_node_key_is_the_kademlia_key_of_the_peer_id() {
        let identity = Identity::from_seed([1; 32]);
        let public = identity.0.public().try_into_ed25519().unwrap().to_bytes();
        let mut multihash = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        multihash.extend(public);
        assert_eq!(identity.peer_id().to_bytes(), multihash);
        assert_eq!(identity.key(), NodeKey::of_peer(&multihash));
    }
}
