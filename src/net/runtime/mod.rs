//! The event loop of one node: performs what [`Members`] decides, hands requests to workers, and
//! carries questions and answers.

mod greetings;
mod kademlia;
mod requests;
mod start;

pub use start::start;

use super::codec::{Codec, PROTOCOL};
use super::counters::Counters;
use super::serve::Server;
use super::shared::{AskError, Command, Shared, View};
use super::wire::{Request, Response};
use crate::mailbox::{Clock, SystemClock, with_causes};
use crate::node::members::{Action, Input};
use crate::node::{Contact, Members, NodeKey};
use futures::StreamExt;
use greetings::{Greeting, reachable_at};
use libp2p::request_response::{
    self, InboundFailure, Message, OutboundFailure, OutboundRequestId, ResponseChannel,
};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, connection_limits, identify, kad};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// How long a goodbye may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    exchange: request_response::Behaviour<Codec>,
    kademlia: Toggle<kad::Behaviour<kad::store::MemoryStore>>,
}

/// What a finished worker hands back.
struct Finished {
    peer: PeerId,
    channel: ResponseChannel<Response>,
    response: Response,
    /// It was a subscription.
    waited: bool,
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
    waiting: HashMap<PeerId, usize>,
    waiting_total: usize,
    strikes: HashMap<PeerId, u32>,
    /// Look-ups on their way in the Kademlia network.
    lookups: HashMap<kad::QueryId, oneshot::Sender<Vec<NodeKey>>>,
    /// Nodes that look-ups have found, and that are no members of ours.
    looked_up: HashMap<NodeKey, Contact>,
    /// Members that were silent when the view was last published.
    silent: BTreeSet<NodeKey>,
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
                    Some(Command::Closest { address, reply }) => self.look_up(&address, reply),
                    Some(Command::Stalled { nodes, noted }) => {
                        nodes.into_iter().for_each(|key| self.decide(Input::Failed(key)));
                        // Whoever asked may have gone.
                        let _ = noted.send(());
                    }
                    Some(Command::ListsChanged) => self.on_lists_changed(),
                    Some(Command::Tables(reply)) => {
                        let _ = reply.send(self.table());
                    }
                    Some(Command::Shutdown) | None => break,
                },
                Some(finished) = self.finished.recv() => self.on_finished(finished),
                () = tokio::time::sleep_until(wake) => {
                    self.end_late_greetings();
                    self.decide(Input::Tick);
                    self.look_at_the_lists();
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
            self.publish_view();
        }
        for action in actions {
            match action {
                Action::Greet(key) => self.greet_member(key),
                Action::DialSeed(index) => self.dial_seed(index),
            }
        }
    }

    /// Shows mailboxes, servers and repair the swarm as it is now. In a swarm with a list of nodes its
    /// members are those on the list, whether we have spoken with them or not, so that all nodes place
    /// mailboxes alike; elsewhere those that have greeted us.
    fn publish_view(&mut self) {
        let listed = self.shared.gate.lists().filter(|lists| lists.nodes().is_some());
        let members: Vec<NodeKey> = match listed {
            Some(lists) => lists.node_keys(SystemClock.now_ms()),
            None => self.members.members().collect(),
        };
        let members: Vec<NodeKey> = members.into_iter().filter(|key| *key != self.shared.local).collect();
        let silent = |key: &&NodeKey| self.members.contact(key).is_none() || self.members.is_silent(key);
        let silent: BTreeSet<NodeKey> = members.iter().filter(silent).copied().collect();
        for key in self.silent.difference(&silent).filter(|key| members.contains(key)) {
            // Nobody may be listening.
            let _ = self.shared.returned.send(*key);
        }
        self.silent = silent;
        let silent = self.silent.iter().copied().collect();
        let contacts = members.iter().filter_map(|key| self.members.contact(key)).cloned().collect();
        let heard = |key: &NodeKey| {
            let at = self.members.heard_ms(key)?;
            Some((*key, (self.started + Duration::from_millis(at)).into_std()))
        };
        let heard = members.iter().filter_map(heard).collect();
        self.shared.set_view(View { members, silent, contacts, settled: self.members.settled(), heard });
    }

    /// Publishes anew when a list has come to admit or to drop somebody by its dates.
    fn look_at_the_lists(&mut self) {
        let Some(lists) = self.shared.gate.lists().filter(|lists| lists.nodes().is_some()) else { return };
        let now: Vec<NodeKey> = lists.node_keys(SystemClock.now_ms());
        let now = now.iter().filter(|key| **key != self.shared.local);
        if !now.eq(self.shared.view().members.iter()) {
            self.publish_view();
        }
    }

    fn on_lists_changed(&mut self) {
        self.publish_view();
        if self.storage && !self.shared.gate.admits_node(&self.shared.local) {
            tracing::warn!(
                "this node is not on the swarm's list: `qis swarm admit` its peer id, or nobody uses its mailboxes"
            );
        }
        self.pass_lists_on();
    }

    fn ask(&mut self, to: NodeKey, request: Request, reply: oneshot::Sender<Result<Response, AskError>>) {
        let contact = self.members.contact(&to).or_else(|| self.looked_up.get(&to));
        let failed = match contact.map(reachable_at) {
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
            SwarmEvent::Behaviour(BehaviourEvent::Kademlia(event)) => self.on_kademlia(event),
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
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error, .. } => {
                if let Some(peer) = peer_id {
                    self.forget_route(&peer);
                }
                if let Some(index) = self.seed_dials.remove(&connection_id) {
                    match error {
                        DialError::LocalPeerId { .. } => self.decide(Input::SeedIsSelf(index)),
                        error => self.on_seed_failed(index, &with_causes(&error)),
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
                    OutboundFailure::Io(error) => {
                        format!("its answer cannot be read: {}", with_causes(error))
                    }
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
}
