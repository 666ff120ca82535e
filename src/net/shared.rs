//! What the event loop shares with mailboxes, servers and repair: a picture of the swarm, and a way to
//! ask.

use super::PeerId;
use super::counters::Counters;
use super::gate::Gate;
use super::news::News;
use super::placement::Placement;
use super::wire::{Code, Refusal, Request, Response};
use crate::address::Address;
use crate::limits::REPLICAS;
use crate::node::placement::is_among_closest;
use crate::node::{Contact, NodeKey};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// A node that has just started knows nobody yet, and would take itself, or the few it has heard of, for all
/// there are: what needs the replicas of an address waits so long after the start for everybody heard of
/// to have been tried.
const SETTLING: Duration = Duration::from_secs(5);

/// The swarm as a node sees it at one moment.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Storage nodes but ourselves, ascending.
    pub members: Vec<NodeKey>,
    pub silent: HashSet<NodeKey>,
    pub contacts: Vec<Contact>,
    pub settled: bool,
    /// When members last spoke with us.
    pub heard: HashMap<NodeKey, Instant>,
}

impl View {
    /// Whether this node is among the `count` closest to an address.
    pub fn ranks(&self, address: &Address, local: NodeKey, count: usize) -> bool {
        is_among_closest(address, self.members.iter().copied().chain([local]), &local, count)
    }

    /// Whether another node should hold a mailbox.
    pub fn should_hold(&self, address: &Address, other: NodeKey, local: NodeKey) -> bool {
        is_among_closest(address, self.members.iter().copied().chain([local]), &other, REPLICAS)
    }
}

/// Orders to the event loop.
pub(super) enum Command {
    Ask {
        to: NodeKey,
        request: Request,
        reply: oneshot::Sender<Result<Response, AskError>>,
    },
    /// Looks the closest nodes of an address up in the Kademlia network.
    Closest {
        address: Address,
        reply: oneshot::Sender<Vec<NodeKey>>,
    },
    /// A reader gave up waiting for these nodes. `noted` resolves when they count as silent.
    Stalled {
        nodes: Vec<NodeKey>,
        noted: oneshot::Sender<()>,
    },
    /// Newer lists have been heard of.
    ListsChanged,
    Tables(oneshot::Sender<Vec<NodeKey>>),
    Shutdown,
}

/// Why a question to another node got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("{0}")]
    NoAnswer(String),
}

impl AskError {
    /// When the same question may be asked again, where the other one said so and it is soon.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            AskError::Refused(refusal) if (1..=2_000).contains(&refusal.retry_after_ms) => {
                Some(Duration::from_millis(refusal.retry_after_ms.into()))
            }
            _ => None,
        }
    }

    pub fn code(&self) -> Option<Code> {
        match self {
            AskError::Refused(refusal) => Some(refusal.code),
            AskError::NoAnswer(_) => None,
        }
    }
}

/// One per node.
pub(super) struct Shared {
    pub local: NodeKey,
    pub counters: Arc<Counters>,
    pub gate: Gate,
    pub news: Arc<News>,
    pub placement: Box<dyn Placement>,
    view: RwLock<Arc<View>>,
    peers: RwLock<HashMap<NodeKey, PeerId>>,
    commands: mpsc::Sender<Command>,
    /// Nodes that answer again after silence: repair hears of them here.
    pub returned: tokio::sync::broadcast::Sender<NodeKey>,
    pub changed: tokio::sync::Notify,
    started: Instant,
}

impl Shared {
    pub fn new(
        local: NodeKey,
        counters: Arc<Counters>,
        gate: Gate,
        placement: Box<dyn Placement>,
        commands: mpsc::Sender<Command>,
    ) -> Shared {
        Shared {
            local,
            counters,
            gate,
            news: Arc::default(),
            placement,
            view: RwLock::default(),
            peers: RwLock::default(),
            commands,
            returned: tokio::sync::broadcast::channel(64).0,
            changed: tokio::sync::Notify::new(),
            started: Instant::now(),
        }
    }

    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_view(&self, view: View) {
        let peer = |contact: &Contact| Some((contact.key(), PeerId::from_bytes(&contact.peer).ok()?));
        let peers = view.contacts.iter().filter_map(peer).collect();
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        self.changed.notify_waiters();
    }

    /// Waits until everybody heard of has been tried once, at most `patience`.
    pub async fn settled(&self, patience: Duration) {
        let settle = async {
            loop {
                let changed = self.changed.notified();
                if self.view().settled {
                    return;
                }
                changed.await;
            }
        };
        // Late or not, what is known by then is used.
        let _ = tokio::time::timeout(patience, settle).await;
    }

    /// The same for what goes on at a node's start; later there is no wait.
    pub async fn introduced(&self) {
        let left = SETTLING.saturating_sub(self.started.elapsed());
        if !left.is_zero() {
            self.settled(left).await;
        }
    }

    /// The peer id behind a key, where it is known.
    pub fn peer_id(&self, key: &NodeKey) -> Option<PeerId> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Asks another node; a refusal is an error here.
    pub async fn ask(&self, to: NodeKey, request: Request) -> Result<Response, AskError> {
        let stopped = || AskError::NoAnswer("this node has been shut down".into());
        let (reply, answer) = oneshot::channel();
        let command = Command::Ask { to, request, reply };
        self.commands.send(command).await.map_err(|_| stopped())?;
        match answer.await.map_err(|_| stopped())?? {
            Response::Error(refusal) => Err(AskError::Refused(refusal)),
            response => Ok(response),
        }
    }

    /// Gives an order whose answer comes by a channel; `None` once the loop has ended.
    pub async fn order<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Tells the loop, if it still runs.
    pub async fn tell(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }

    /// Returns once the event loop has ended.
    pub async fn stopped(&self) {
        self.commands.closed().await;
    }

    /// Returns once the nodes count as silent: the next reader does not wait for them again.
    pub async fn stalled(&self, nodes: Vec<NodeKey>) {
        // A loop that has ended has no use for it.
        let _ = self.order(|noted| Command::Stalled { nodes, noted }).await;
    }
}
