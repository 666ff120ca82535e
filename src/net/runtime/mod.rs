//! The event loop of one node: performs what [`Members`] decides, hands requests to workers, and
//! carries questions and answers.

mod requests;

use super::codec::{Codec, PROTOCOL};
use super::counters::Counters;
use super::handle::NetHandle;
use super::mailbox::NetMailbox;
use super::serve::Server;
use super::shared::{AskError, Command, Shared, View};
use super::wire::{Request, Response};
use super::{Config, NetError, is_quic, node_key};
use crate::limits::{
    CONNECTIONS_INCOMING_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX, MEMBER_ADDRESSES_MAX,
};
use crate::node::members::{Action, Input};
use crate::node::{Contact, Members, NodeKey};
use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{
    self, InboundFailure, Message, OutboundFailure, OutboundRequestId, ProtocolSupport, ResponseChannel,
};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, identify};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// A dead address costs a dial this long; libp2p's 5 s stall a lookup.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that died without a word is noticed after this time on an open connection.
const QUIC_IDLE_MS: u32 = 6_000;
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// From sending a request to its answer, the other's disk included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// A greeting needs no disk.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// Streams of one connection, both ways.
const STREAMS_MAX: usize = 32;
/// Bytes that a peer may have sent on one stream, and on one connection, before we read them.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How long a goodbye may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    exchange: request_response::Behaviour<Codec>,
}

/// Starts a node on the current tokio runtime; it listens when this returns.
///
/// # Errors
/// An address that cannot be listened on, by name.
pub async fn start(config: Config) -> Result<NetHandle, NetError> {
    let counters = Arc::<Counters>::default();
    let mut swarm = build(&config, &counters)?;
    let mut waiting = Vec::new();
    for address in &config.listen {
        let listener = swarm.listen_on(address.clone()).map_err(|error| listen_error(address, &error))?;
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
                    return Err(NetError::Listen { address: address.clone(), reason });
                }
            }
            _ => {}
        }
    }

    let peer_id = config.identity.peer_id();
    let local = config.identity.key();
    let (commands_in, commands) = mpsc::channel(256);
    let (finished_in, finished) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::new(local, counters.clone(), commands_in));
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let runtime = Runtime {
        swarm,
        started: Instant::now(),
        members: Members::new(local, config.peers.len(), 0),
        storage: config.storage.is_some(),
        server: config.storage.as_ref().map(|storage| {
            Arc::new(Server {
                local,
                storage: storage.clone(),
                remembered: config.remembered.clone(),
                counters: counters.clone(),
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
        strikes: HashMap::new(),
    };
    let mailbox = NetMailbox::new(shared.clone(), config.storage, config.remembered);
    let task = tokio::spawn(runtime.run());
    Ok(NetHandle { peer_id, listen, shared, mailbox, task })
}

/// An error with all its causes: libp2p's outermost line rarely says why.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let line = cause.to_string();
        if !text.contains(&line) {
            text = format!("{text}: {line}");
        }
        source = cause.source();
    }
    text
}

fn listen_error(address: &Multiaddr, error: &dyn std::error::Error) -> NetError {
    NetError::Listen { address: address.clone(), reason: causes(error) }
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
            }
        })
        .map_err(|error| NetError::SetUp(error.to_string()))
        .map(|builder| builder.with_swarm_config(|swarm| swarm.with_idle_connection_timeout(idle)).build())
}

/// What a finished worker hands back.
struct Finished {
    peer: PeerId,
    channel: ResponseChannel<Response>,
    response: Response,
}

/// A hello on its way.
struct Greeting {
    key: NodeKey,
    peer: PeerId,
    seed: Option<usize>,
    deadline: Instant,
}

/// A question of our own on its way.
struct Question {
    key: NodeKey,
    reply: oneshot::Sender<Result<Response, AskError>>,
}

struct Runtime {
    swarm: Swarm<Behaviour>,
    started: Instant,
    members: Members,
    storage: bool,
    server: Option<Arc<Server>>,
    seeds: Vec<Multiaddr>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    finished: mpsc::UnboundedReceiver<Finished>,
    finished_in: mpsc::UnboundedSender<Finished>,
    workers: Arc<Semaphore>,
    questions: HashMap<OutboundRequestId, Question>,
    greetings: HashMap<OutboundRequestId, Greeting>,
    seed_dials: HashMap<ConnectionId, usize>,
    remote: HashMap<ConnectionId, Multiaddr>,
    at_work: HashMap<PeerId, usize>,
    at_work_total: usize,
    strikes: HashMap<PeerId, u32>,
}

impl Runtime {
    async fn run(mut self) {
        self.decide(Input::Tick);
        loop {
            let wake = self.wake();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(Command::Ask { to, request, reply }) => self.ask(to, request, reply),
                    Some(Command::Stalled { nodes, noted }) => {
                        nodes.into_iter().for_each(|key| self.decide(Input::Failed(key)));
                        // Whoever asked may have gone.
                        let _ = noted.send(());
                    }
                    Some(Command::Shutdown) | None => break,
                },
                Some(finished) = self.finished.recv() => self.on_finished(finished),
                () = tokio::time::sleep_until(wake) => {
                    self.end_late_greetings();
                    self.decide(Input::Tick);
                }
            }
        }
        self.say_goodbye().await;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wake(&self) -> Instant {
        // Rounded up: waking a fraction early would find nothing to do, and spin.
        let members = self.started + Duration::from_millis(self.members.wake_ms().min(1 << 40) + 1);
        self.greetings.values().map(|greeting| greeting.deadline).fold(members, Instant::min)
    }

    async fn say_goodbye(&mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error means that the peer is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // Who does not hear the goodbye will notice by the idle timeout.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, closing).await;
    }

    /// Feeds the state machine and performs what it says.
    fn decide(&mut self, input: Input) {
        let changes = input != Input::Tick;
        let actions = self.members.step(input, self.now_ms());
        if changes {
            let members: Vec<NodeKey> = self.members.members().collect();
            let silent = members.iter().filter(|key| self.members.is_silent(key)).copied().collect();
            let contacts = members.iter().filter_map(|key| self.members.contact(key)).cloned().collect();
            self.shared.set_view(View { members, silent, contacts, settled: self.members.settled() });
        }
        for action in actions {
            match action {
                Action::Greet(key) => self.greet_member(key),
                Action::DialSeed(index) => self.dial_seed(index),
            }
        }
    }

    fn greet_member(&mut self, key: NodeKey) {
        match self.members.contact(&key).map(reachable_at) {
            Some((Ok(peer), addresses)) => self.greet(peer, addresses, None),
            _ => self.decide(Input::Failed(key)),
        }
    }

    fn greet(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, seed: Option<usize>) {
        let hello = Request::Hello { storage: self.storage, addresses: self.own_addresses() };
        Counters::add(&self.shared.counters.requests_sent, 1);
        let id = self.swarm.behaviour_mut().exchange.send_request_with_addresses(&peer, hello, addresses);
        let deadline = Instant::now() + GREETING_TIMEOUT;
        self.greetings.insert(id, Greeting { key: node_key(&peer), peer, seed, deadline });
    }

    fn own_addresses(&self) -> Vec<Vec<u8>> {
        self.swarm.listeners().take(MEMBER_ADDRESSES_MAX).map(Multiaddr::to_vec).collect()
    }

    fn dial_seed(&mut self, index: usize) {
        let Some(address) = self.seeds.get(index).cloned() else { return };
        let named = address.iter().find_map(|part| match part {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        match named {
            Some(peer) if peer == *self.swarm.local_peer_id() => self.decide(Input::SeedIsSelf(index)),
            Some(peer) => self.greet(peer, vec![address], Some(index)),
            None => {
                let dial = DialOpts::unknown_peer_id().address(address.clone()).build();
                self.seed_dials.insert(dial.connection_id(), index);
                let connection = dial.connection_id();
                if let Err(error) = self.swarm.dial(dial) {
                    self.seed_dials.remove(&connection);
                    self.on_seed_failed(index, &causes(&error));
                }
            }
        }
    }

    fn on_seed_failed(&mut self, index: usize, reason: &str) {
        if let Some(address) = self.seeds.get(index) {
            tracing::warn!(%address, reason, "a peer named with --peer does not answer; it is tried again");
        }
        self.decide(Input::SeedFailed(index));
    }

    /// A node that does not answer a greeting is dead or stuck: its connections are closed, so that
    /// the next attempt dials anew instead of waiting on a dead path.
    fn end_late_greetings(&mut self) {
        let now = Instant::now();
        let late: Vec<OutboundRequestId> = self
            .greetings
            .iter()
            .filter(|(_, greeting)| greeting.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(greeting) = self.greetings.remove(&id) {
                // An error means that it is not connected.
                let _ = self.swarm.disconnect_peer_id(greeting.peer);
                self.on_greeting_failed(greeting, "no answer in time");
            }
        }
    }

    fn on_greeting_failed(&mut self, greeting: Greeting, reason: &str) {
        Counters::add(&self.shared.counters.requests_failed, 1);
        tracing::debug!(peer = %greeting.peer, reason, "a greeting failed");
        self.decide(Input::Failed(greeting.key));
        if let Some(index) = greeting.seed {
            self.on_seed_failed(index, reason);
        }
    }

    fn ask(&mut self, to: NodeKey, request: Request, reply: oneshot::Sender<Result<Response, AskError>>) {
        let failed = match self.members.contact(&to).map(reachable_at) {
            Some((Ok(peer), addresses)) => {
                Counters::add(&self.shared.counters.requests_sent, 1);
                let exchange = &mut self.swarm.behaviour_mut().exchange;
                let id = exchange.send_request_with_addresses(&peer, request, addresses);
                self.questions.insert(id, Question { key: to, reply });
                return;
            }
            _ => AskError::NoAnswer("the node is not known any more".into()),
        };
        // Whoever asked may have gone.
        let _ = reply.send(Err(failed));
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Exchange(event)) => self.on_exchange(event),
            SwarmEvent::ConnectionEstablished { connection_id, peer_id, endpoint, .. } => {
                self.remote.insert(connection_id, endpoint.get_remote_address().clone());
                if let Some(index) = self.seed_dials.remove(&connection_id) {
                    self.greet(peer_id, vec![endpoint.get_remote_address().clone()], Some(index));
                }
            }
            SwarmEvent::ConnectionClosed { connection_id, peer_id, num_established, .. } => {
                self.remote.remove(&connection_id);
                if num_established == 0 {
                    self.strikes.remove(&peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(index) = self.seed_dials.remove(&connection_id) {
                    match error {
                        DialError::LocalPeerId { .. } => self.decide(Input::SeedIsSelf(index)),
                        error => self.on_seed_failed(index, &causes(&error)),
                    }
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "an incoming connection failed");
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "a listener closed; this node is not reachable there");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener reports an error"),
            _ => {}
        }
    }

    fn on_exchange(&mut self, event: request_response::Event<Request, Response>) {
        use request_response::Event;
        match event {
            Event::Message { peer, connection_id, message: Message::Request { request, channel, .. } } => {
                self.on_request(peer, connection_id, request, channel);
            }
            Event::Message { peer, connection_id, message: Message::Response { request_id, response } } => {
                if let Some(greeting) = self.greetings.remove(&request_id) {
                    self.on_greeting_answered(peer, connection_id, greeting, response);
                } else if let Some(question) = self.questions.remove(&request_id) {
                    // Whoever asked may have gone.
                    let _ = question.reply.send(Ok(response));
                }
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let reason = match &error {
                    OutboundFailure::Io(error) => format!("its answer cannot be read: {}", causes(error)),
                    OutboundFailure::UnsupportedProtocols => format!("it does not speak {PROTOCOL}"),
                    error => error.to_string(),
                };
                if let Some(greeting) = self.greetings.remove(&request_id) {
                    self.on_greeting_failed(greeting, &reason);
                } else if let Some(question) = self.questions.remove(&request_id) {
                    Counters::add(&self.shared.counters.requests_failed, 1);
                    tracing::warn!(%peer, reason, "a request failed");
                    let _ = question.reply.send(Err(AskError::NoAnswer(reason)));
                    self.decide(Input::Failed(question.key));
                }
            }
            Event::InboundFailure { peer, error, .. } => {
                if !matches!(error, InboundFailure::ConnectionClosed) {
                    tracing::debug!(%peer, %error, "an answer did not get through");
                }
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn on_greeting_answered(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        greeting: Greeting,
        response: Response,
    ) {
        let Response::Members { storage, addresses, members } = response else {
            tracing::warn!(%peer, "a greeting was answered with something else");
            return self.on_greeting_failed(greeting, "its answer is no list of members");
        };
        self.heard(peer, connection, storage, addresses);
        let near = self.is_loopback(connection);
        let introduced = members.into_iter().map(|mut contact| {
            contact.addresses = usable(contact.addresses, near);
            contact
        });
        // Only what can be dialled is worth remembering.
        let introduced = introduced.filter(|c| PeerId::from_bytes(&c.peer).is_ok()).collect();
        self.decide(Input::Introduced(introduced));
        // Last: before the introductions the list would look settled with the seed alone.
        if let Some(index) = greeting.seed {
            self.decide(Input::SeedReached(index));
        }
    }

    /// A node has told who it is, over a connection that proves its peer id.
    fn heard(&mut self, peer: PeerId, connection: ConnectionId, storage: bool, addresses: Vec<Vec<u8>>) {
        if !storage {
            return self.decide(Input::GreetedByClient(node_key(&peer)));
        }
        let mut addresses = usable(addresses, self.is_loopback(connection));
        if let Some(observed) = self.remote.get(&connection).map(without_peer)
            && !addresses.contains(&observed)
        {
            // QUIC dials from the listening port, so what we see is an address too; but the last to try.
            addresses.push(observed);
        }
        self.decide(Input::Greeted(Contact { peer: peer.to_bytes(), addresses }));
    }

    fn is_loopback(&self, connection: ConnectionId) -> bool {
        self.remote.get(&connection).is_some_and(is_loopback)
    }
}

fn reachable_at(contact: &Contact) -> (Result<PeerId, ()>, Vec<Multiaddr>) {
    let addresses = contact.addresses.iter().filter_map(|a| Multiaddr::try_from(a.clone()).ok()).collect();
    (PeerId::from_bytes(&contact.peer).map_err(|_| ()), addresses)
}

/// QUIC addresses only; loopback ones only from a node that speaks over loopback itself.
fn usable(addresses: Vec<Vec<u8>>, near: bool) -> Vec<Vec<u8>> {
    let usable = |bytes: &Vec<u8>| {
        Multiaddr::try_from(bytes.clone()).is_ok_and(|a| is_quic(&a) && (near || !is_loopback(&a)))
    };
    addresses.into_iter().filter(usable).collect()
}

fn without_peer(address: &Multiaddr) -> Vec<u8> {
    let parts = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
    parts.collect::<Multiaddr>().to_vec()
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}
