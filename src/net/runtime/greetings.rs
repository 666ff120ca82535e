//! Greetings: saying who we are, hearing who the others are, and passing the swarm's lists on.

use super::Runtime;
use crate::limits::MEMBER_ADDRESSES_MAX;
use crate::mailbox::with_causes;
use crate::net::counters::Counters;
use crate::net::shared::Command;
use crate::net::wire::{Epochs, Introduction, Request, Response};
use crate::net::{is_quic, node_key};
use crate::node::members::Input;
use crate::node::{Contact, NodeKey};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId};
use std::time::Duration;
use tokio::time::Instant;

/// A greeting needs no disk.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// Members that a node gives new lists to; they give them on in their turn.
const LISTS_GIVEN_TO: usize = 8;

/// A hello on its way.
pub(super) struct Greeting {
    key: NodeKey,
    peer: PeerId,
    seed: Option<usize>,
    pub(super) deadline: Instant,
}

impl Runtime {
    pub(super) fn greet_member(&mut self, key: NodeKey) {
        match self.members.contact(&key).map(reachable_at) {
            Some((Ok(peer), addresses)) => self.greet(peer, addresses, None),
            _ => self.decide(Input::Failed(key)),
        }
    }

    pub(super) fn greet(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, seed: Option<usize>) {
        let hello = Request::Hello(self.introduction());
        Counters::add(&self.shared.counters.requests_sent, 1);
        let id = self.swarm.behaviour_mut().exchange.send_request_with_addresses(&peer, hello, addresses);
        let deadline = Instant::now() + GREETING_TIMEOUT;
        self.greetings.insert(id, Greeting { key: node_key(&peer), peer, seed, deadline });
    }

    pub(super) fn introduction(&self) -> Introduction {
        let listeners = self.swarm.listeners().take(MEMBER_ADDRESSES_MAX);
        Introduction {
            storage: self.storage,
            epochs: self.shared.gate.epochs(),
            addresses: listeners.map(Multiaddr::to_vec).collect(),
        }
    }

    pub(super) fn dial_seed(&mut self, index: usize) {
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
                    self.on_seed_failed(index, &with_causes(&error));
                }
            }
        }
    }

    pub(super) fn on_seed_failed(&mut self, index: usize, reason: &str) {
        if let Some(address) = self.seeds.get(index) {
            tracing::warn!(%address, reason, "a peer named with --peer does not answer; it is tried again");
        }
        self.decide(Input::SeedFailed(index));
    }

    /// A node that does not answer a greeting is dead or stuck: its connections are closed, so that
    /// the next attempt dials anew instead of waiting on a dead path.
    pub(super) fn end_late_greetings(&mut self) {
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

    pub(super) fn on_greeting_failed(&mut self, greeting: Greeting, reason: &str) {
        Counters::add(&self.shared.counters.requests_failed, 1);
        tracing::debug!(peer = %greeting.peer, reason, "a greeting failed");
        self.forget_route(&greeting.peer);
        self.decide(Input::Failed(greeting.key));
        if let Some(index) = greeting.seed {
            self.on_seed_failed(index, reason);
        }
    }

    pub(super) fn on_greeting_answered(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        greeting: Greeting,
        response: Response,
    ) {
        let Response::Members { introduction, members } = response else {
            tracing::warn!(%peer, "a greeting was answered with something else");
            return self.on_greeting_failed(greeting, "its answer is no list of members");
        };
        self.heard(peer, connection, introduction);
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
    pub(super) fn heard(&mut self, peer: PeerId, connection: ConnectionId, introduction: Introduction) {
        let key = node_key(&peer);
        let Introduction { storage, epochs, addresses } = introduction;
        let admitted = storage && self.shared.gate.admits_node(&key);
        if admitted {
            let mut addresses = usable(addresses, self.is_loopback(connection));
            if let Some(observed) = self.remote.get(&connection).map(without_peer)
                && !addresses.contains(&observed)
            {
                // QUIC dials from the listening port, so what we see is an address too; but the last to try.
                addresses.push(observed);
            }
            self.remember_route(&peer, &addresses);
            self.decide(Input::Greeted(Contact { peer: peer.to_bytes(), addresses }));
        } else {
            if storage {
                tracing::info!(%peer, "a node that is not on the swarm's list offers mailboxes: not used");
            }
            self.decide(Input::GreetedByClient(key));
        }
        self.compare_epochs(key, epochs);
    }

    /// Asks a node for lists where its are newer.
    fn compare_epochs(&self, key: NodeKey, theirs: Epochs) {
        let ours = self.shared.gate.epochs();
        if self.shared.gate.lists().is_none()
            || (theirs.nodes <= ours.nodes && theirs.authors <= ours.authors)
        {
            return;
        }
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let Ok(Response::Lists(lists)) = shared.ask(key, Request::Lists(ours)).await else { return };
            let gate = shared.clone();
            let take = move || {
                let mut news = false;
                for list in lists {
                    match gate.gate.offer(&list) {
                        Ok(new) => news |= new,
                        Err(refusal) => {
                            tracing::warn!(?key, reason = %refusal, "a node gave us a wrong list")
                        }
                    }
                }
                news
            };
            if tokio::task::spawn_blocking(take).await.unwrap_or(false) {
                shared.tell(Command::ListsChanged).await;
            }
        });
    }

    /// Gives our lists to some members, others than any other node would choose: so all soon have them.
    pub(super) fn pass_lists_on(&self) {
        let lists = self.shared.gate.newer_than(Epochs::default());
        let view = self.shared.view();
        let mut members: Vec<&NodeKey> =
            view.members.iter().filter(|key| !view.silent.contains(key)).collect();
        members.sort_by_key(|key| blake3::hash(&[self.shared.local.0, key.0].concat()).as_bytes().to_owned());
        for &member in members.into_iter().take(LISTS_GIVEN_TO) {
            for list in lists.clone() {
                let shared = self.shared.clone();
                tokio::spawn(async move {
                    // Who does not hear of it now asks when it is greeted next.
                    let _ = shared.ask(member, Request::Offer(list)).await;
                });
            }
        }
    }

    fn is_loopback(&self, connection: ConnectionId) -> bool {
        self.remote.get(&connection).is_some_and(is_loopback)
    }
}

pub(super) fn reachable_at(contact: &Contact) -> (Result<PeerId, ()>, Vec<Multiaddr>) {
    let addresses = contact.addresses.iter().filter_map(|a| Multiaddr::try_from(a.clone()).ok()).collect();
    (PeerId::from_bytes(&contact.peer).map_err(|_| ()), addresses)
}

/// QUIC addresses only; loopback ones only from a node that speaks over loopback itself.
pub(super) fn usable(addresses: Vec<Vec<u8>>, near: bool) -> Vec<Vec<u8>> {
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
