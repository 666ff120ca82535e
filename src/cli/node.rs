//! `qis node`.

use super::{Failure, output, peer_address, start_log};
use crate::domain::Domain;
use crate::net::{Multiaddr, REPAIR_PACKETS_PER_SECOND, Routing, quic_address};
use crate::node::quota::{Allowance, Rate, Rates};
use crate::run::node::{NodeError, Plan, open};
use crate::run::{runtime, swarm};
use crate::serve::Mode;
use crate::store::Caps;
use clap::ValueEnum;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis node --store /var/lib/qis --listen 192.0.2.1:4001 --domain heart.toml --swarm ward.qsl
  qis node --store /var/lib/qis --listen 192.0.2.2:4001 --bootstrap 192.0.2.1:4001 --swarm ward.qsl
  qis node --mode gateway --store ~/qis --bootstrap 192.0.2.1:4001 --domain heart.toml
A gateway deposits every packet file that is put into the folder `outbox` of its store.")]
pub struct Arguments {
    /// Folder of the mailboxes and of the node's key; made where it is missing
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// `storage` keeps mailboxes; `gateway` only dials out, and works behind a NAT
    #[arg(long, value_enum, default_value_t)]
    mode: ModeName,
    /// UDP address to listen on; port 0 takes a free one. Other than loopback, every machine that
    /// reaches the address may ask, and in an open swarm deposit
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4001")]
    listen: Vec<SocketAddr>,
    /// A node of the swarm to join: IP:PORT or a multiaddress; one is enough, more make it sure
    #[arg(long, alias = "peer", value_name = "ADDRESS", value_parser = peer_address)]
    bootstrap: Vec<Multiaddr>,
    /// A domain whose packets are kept, each at its own addresses only [default: packets of every
    /// schema, addresses unchecked]
    #[arg(long, value_name = "FILE")]
    domain: Vec<PathBuf>,
    /// The signed lists of the swarm, as `qis swarm` makes them: who keeps mailboxes, whose packets
    /// are taken. Newer ones are heard of from other nodes [default: an open swarm]
    #[arg(long, value_name = "FILE")]
    swarm: Option<PathBuf>,
    /// How the replicas of a mailbox are found; the same for all nodes. `membership` knows every node,
    /// up to 1,024; `kademlia` looks them up, for larger and open networks
    #[arg(long, value_enum, default_value_t)]
    routing: RoutingName,
    /// Serve status and metrics on this TCP address too, beside the socket in the store's folder
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// Days after which a mailbox that belongs to other nodes now goes from this disk, as soon as each of its
    /// replicas has confirmed that it holds all of it; 0 keeps it for good
    #[arg(long, value_name = "N", default_value_t = 7)]
    hand_over_days: u32,
    #[command(flatten)]
    bounds: Bounds,
    /// Print one JSON line when ready
    #[arg(long)]
    json: bool,
}

/// What a node gives at most.
#[derive(clap::Args)]
#[command(next_help_heading = "Bounds (0 sets none)")]
struct Bounds {
    /// Packets of one mailbox
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    mailbox_packets: u64,
    /// Packets of one author in one mailbox
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    author_packets: u64,
    /// Bytes of the store on disk
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    disk_bytes: u64,
    /// Requests of one peer each second; a subnet may make four times as many
    #[arg(long, value_name = "N", default_value_t = Rates::default().peer.requests.per_second)]
    peer_requests: u64,
    /// Packets that one peer deposits each second; a subnet four times as many
    #[arg(long, value_name = "N", default_value_t = Rates::default().peer.packets.per_second)]
    peer_packets: u64,
    /// Packets of one author that are deposited each second, in the long run
    #[arg(long, value_name = "N", default_value_t = Rates::default().author.per_second)]
    author_rate: u64,
    /// Packets that repair fetches each second
    #[arg(long, value_name = "N", default_value_t = REPAIR_PACKETS_PER_SECOND)]
    repair_packets: u64,
}

impl Bounds {
    fn rates(&self) -> Rates {
        let defaults = Rates::default();
        let peer = |of: Allowance, factor: u64| Allowance {
            requests: scaled(of.requests, self.peer_requests.saturating_mul(factor)),
            packets: scaled(of.packets, self.peer_packets.saturating_mul(factor)),
            ..of
        };
        Rates {
            peer: peer(defaults.peer, 1),
            subnet: peer(defaults.subnet, 4),
            author: scaled(defaults.author, self.author_rate),
        }
    }
}

/// Another rate, with the burst in the same proportion, but never below a frame of packets.
fn scaled(rate: Rate, per_second: u64) -> Rate {
    let burst = u128::from(rate.burst) * u128::from(per_second) / u128::from(rate.per_second.max(1));
    let least = if rate.per_second >= 1_000 { crate::limits::FRAME_PACKETS_MAX as u64 } else { 1 };
    Rate::new(per_second, u64::try_from(burst).unwrap_or(u64::MAX).max(least))
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum ModeName {
    #[default]
    Storage,
    Gateway,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
pub enum RoutingName {
    #[default]
    Membership,
    Kademlia,
}

impl From<RoutingName> for Routing {
    fn from(name: RoutingName) -> Routing {
        match name {
            RoutingName::Membership => Routing::Membership,
            RoutingName::Kademlia => Routing::Kademlia,
        }
    }
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    start_log();
    let domains = arguments.domain.iter().map(Domain::load).collect::<Result<Vec<Domain>, _>>()?;
    let lists = arguments.swarm.as_deref().map(swarm::load).transpose().map_err(NodeError::from)?;
    let bounds = &arguments.bounds;
    let plan = Plan {
        folder: arguments.store,
        mode: match arguments.mode {
            ModeName::Storage => Mode::Storage,
            ModeName::Gateway => Mode::Gateway,
        },
        listen: arguments.listen.into_iter().map(quic_address).collect(),
        bootstrap: arguments.bootstrap,
        domains,
        lists,
        routing: arguments.routing.into(),
        http: arguments.http,
        caps: Caps { mailbox_packets: bounds.mailbox_packets, author_packets: bounds.author_packets },
        disk_bytes_max: bounds.disk_bytes,
        rates: bounds.rates(),
        repair_packets_per_second: bounds.repair_packets,
        hand_over_after: (arguments.hand_over_days > 0).then(|| DAY.saturating_mul(arguments.hand_over_days)),
    };
    let runtime = runtime().map_err(NodeError::Runtime)?;
    runtime.block_on(async {
        let node = open(plan).await?;
        let (peer, http) = (node.handle.peer_id().to_string(), node.http());
        let addresses = node.handle.dial_addresses();
        let addresses: Vec<String> = addresses.iter().map(Multiaddr::to_string).collect();
        if arguments.json {
            output::json(&json!({ "peer": peer, "listen": addresses, "http": http }));
        } else {
            output::line(&format!("peer   {peer}"));
            addresses.iter().for_each(|address| output::line(&format!("listen {address}")));
            http.iter().for_each(|address| output::line(&format!("http   {address}")));
        }
        node.serve().await.map_err(Failure::from)
    })
}
