//! Setting a node up: behaviours, bounds, listeners.

use super::{Behaviour, Runtime};
use crate::limits::{CONNECTIONS_INCOMING_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX};
use crate::mailbox::with_causes;
use crate::net::codec::{Codec, PROTOCOL};
use crate::net::counters::Counters;
use crate::net::gate::Gate;
use crate::net::handle::NetHandle;
use crate::net::mailbox::NetMailbox;
use crate::net::placement::{Kademlia, Membership, Placement};
use crate::net::serve::Server;
use crate::net::shared::Shared;
use crate::net::{Config, NetError, Routing, handover, repair};
use crate::node::Members;
use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, identify, kad};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// A dead address costs a dial this long; libp2p's 5 s stall a lookup.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that died without a word is noticed after this time on an open connection.
const QUIC_IDLE_MS: u32 = 6_000;
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// From sending a request to its answer, the other's disk included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Streams of one connection, both ways.
const STREAMS_MAX: usize = 32;
/// Bytes that a peer may have sent on one stream, and on one connection, before we read them.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const KADEMLIA_PROTOCOL: StreamProtocol = StreamProtocol::new("/qis/kad/1");
/// A look-up asks about O(log N) nodes; dead ones among them cost a handshake's time each.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts a node on the current tokio runtime; it listens when this returns.
///
/// # Errors
/// An address that cannot be listened on, by name.
pub async fn start(config: Config) -> Result<NetHandle, NetError> {
    let counters = Arc::<Counters>::default();
    let mut swarm = build(&config, &counters)?;
    let listen = listen(&mut swarm, &config.listen).await?;

    let peer_id = config.identity.peer_id();
    let local = config.identity.key();
    let (commands_in, commands) = mpsc::channel(256);
    let (finished_in, finished) = mpsc::unbounded_channel();
    let gate = Gate::new(config.lists, config.keep_lists, config.rates, counters.clone());
    let storage = config.storage.is_some();
    let placement: Box<dyn Placement> = match config.routing {
        Routing::Membership => Box::new(Membership { storage }),
        Routing::Kademlia => Box::new(Kademlia::new(storage)),
    };
    let shared = Arc::new(Shared::new(local, counters, gate, placement, commands_in));
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let mut runtime = Runtime {
        swarm,
        started: Instant::now(),
        members: Members::new(local, config.peers.len(), 0),
        storage,
        server: config.storage.as_ref().map(|storage| {
            Arc::new(Server {
                identity: config.identity.clone(),
                storage: storage.clone(),
                remembered: config.remembered.clone(),
                shared: shared.clone(),
            })
        }),
        seeds: config.peers,
        shared: shared.clone(),
        commands,
        finished,
        finished_in,
        workers: Arc::new(Semaphore::new(workers)),
        questions: HashMap::new(),
        greetings: HashMap::new(),
        seed_dials: HashMap::new(),
        remote: HashMap::new(),
        at_work: HashMap::new(),
        at_work_total: 0,
        waiting: HashMap::new(),
        waiting_total: 0,
        strikes: HashMap::new(),
        lookups: HashMap::new(),
        looked_up: HashMap::new(),
        silent: Default::default(),
    };
    runtime.publish_view();
    let mailbox = NetMailbox::new(shared.clone(), config.storage.clone(), config.remembered.clone());
    let repair = config.storage.clone().map(|storage| {
        repair::start(shared.clone(), storage, config.remembered, config.repair_packets_per_second)
    });
    let keeps = config.storage.zip(repair.as_ref()).zip(config.hand_over_after);
    let handover = keeps
        .map(|((storage, repair), grace)| handover::start(shared.clone(), storage, repair.wanted(), grace));
    let task = tokio::spawn(runtime.run());
    Ok(NetHandle { peer_id, listen, shared, mailbox, task, repair, _handover: handover })
}

async fn listen(swarm: &mut Swarm<Behaviour>, on: &[Multiaddr]) -> Result<Vec<Multiaddr>, NetError> {
    let failed = |address: &Multiaddr, reason: String| NetError::Listen { address: address.clone(), reason };
    let mut waiting = Vec::new();
    for address in on {
        let listener =
            swarm.listen_on(address.clone()).map_err(|error| failed(address, with_causes(&error)))?;
        waiting.push((listener, address.clone()));
    }
    let mut listen = Vec::new();
    while !waiting.is_empty() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                waiting.retain(|(id, _)| *id != listener_id);
                listen.push(address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                if let Some((_, address)) = waiting.iter().find(|(id, _)| *id == listener_id) {
                    let reason = reason.err().map_or("it closed at once".into(), |error| error.to_string());
                    return Err(failed(address, reason));
                }
            }
            _ => {}
        }
    }
    Ok(listen)
}

fn build(config: &Config, counters: &Arc<Counters>) -> Result<Swarm<Behaviour>, NetError> {
    let limits = ConnectionLimits::default()
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_incoming(Some(CONNECTIONS_INCOMING_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
        .with_max_pending_incoming(Some(256));
    let exchange = request_response::Behaviour::with_codec(
        Codec { counters: counters.clone() },
        [(PROTOCOL, ProtocolSupport::Full)],
        request_response::Config::default()
            .with_request_timeout(REQUEST_TIMEOUT)
            .with_max_concurrent_streams(STREAMS_MAX),
    );
    let idle = config.idle;
    let kademlia = (config.routing == Routing::Kademlia)
        .then(|| kademlia(config.identity.peer_id(), config.storage.is_some()));
    SwarmBuilder::with_existing_identity(config.identity.0.clone())
        .with_tokio()
        .with_quic_config(|mut quic| {
            quic.handshake_timeout = HANDSHAKE_TIMEOUT;
            quic.max_idle_timeout = QUIC_IDLE_MS;
            quic.keep_alive_interval = QUIC_KEEP_ALIVE;
            quic.max_concurrent_stream_limit = STREAMS_MAX as u32;
            quic.max_stream_data = STREAM_WINDOW_BYTES;
            quic.max_connection_data = CONNECTION_WINDOW_BYTES;
            quic
        })
        .with_behaviour(|key| {
            let agent = concat!("qis/", env!("CARGO_PKG_VERSION")).to_string();
            let identify = identify::Config::new("/qis/1".into(), key.public()).with_agent_version(agent);
            Behaviour {
                limits: connection_limits::Behaviour::new(limits),
                identify: identify::Behaviour::new(identify.with_cache_size(0)),
                exchange,
                kademlia: Toggle::from(kademlia),
            }
        })
        .map_err(|error| NetError::SetUp(error.to_string()))
        .map(|builder| builder.with_swarm_config(|swarm| swarm.with_idle_connection_timeout(idle)).build())
}

/// Kademlia for routing alone: its records hold one value per key, a mailbox holds many, so none are
/// stored. Only nodes that have greeted us enter the tables.
fn kademlia(local: PeerId, storage: bool) -> kad::Behaviour<kad::store::MemoryStore> {
    let mut config = kad::Config::new(KADEMLIA_PROTOCOL);
    config
        .set_query_timeout(LOOKUP_TIMEOUT)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_substreams_timeout(HANDSHAKE_TIMEOUT * 3)
        .set_parallelism(NonZeroUsize::new(3).expect("three is not zero"));
    let mut behaviour = kad::Behaviour::with_config(local, kad::store::MemoryStore::new(local), config);
    behaviour.set_mode(Some(if storage { kad::Mode::Server } else { kad::Mode::Client }));
    behaviour
}
