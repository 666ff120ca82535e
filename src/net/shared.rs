//! What the event loop shares with mailboxes and servers: a picture of the swarm, and a way to ask.

use super::counters::Counters;
use super::wire::{Code, Refusal, Request, Response};
use crate::node::{Contact, NodeKey};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot};

/// The swarm as a node sees it at one moment.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Members but ourselves, ascending.
    pub members: Vec<NodeKey>,
    pub silent: HashSet<NodeKey>,
    pub contacts: Vec<Contact>,
    pub settled: bool,
}

/// Orders to the event loop.
pub(super) enum Command {
    Ask {
        to: NodeKey,
        request: Request,
        reply: oneshot::Sender<Result<Response, AskError>>,
    },
    /// A reader gave up waiting for these nodes. `noted` resolves when they count as silent.
    Stalled {
        nodes: Vec<NodeKey>,
        noted: oneshot::Sender<()>,
    },
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
    pub fn code(&self) -> Option<Code> {
        match self {
            AskError::Refused(refusal) => Some(refusal.code),
            AskError::NoAnswer(_) => None,
        }
    }
}

/// One per node.
#[derive(Debug)]
pub(super) struct Shared {
    pub local: NodeKey,
    pub counters: Arc<Counters>,
    view: RwLock<Arc<View>>,
    commands: mpsc::Sender<Command>,
    pub changed: tokio::sync::Notify,
}

impl Shared {
    pub fn new(local: NodeKey, counters: Arc<Counters>, commands: mpsc::Sender<Command>) -> Shared {
        let view = RwLock::default();
        Shared { local, counters, view, commands, changed: tokio::sync::Notify::new() }
    }

    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_view(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        self.changed.notify_waiters();
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

    pub async fn shut_down(&self) {
        // A loop that has ended needs no order.
        let _ = self.commands.send(Command::Shutdown).await;
    }

    /// Returns once the nodes count as silent: the next reader does not wait for them again.
    pub async fn stalled(&self, nodes: Vec<NodeKey>) {
        let (noted, done) = oneshot::channel();
        // A loop that has ended has no use for it.
        let _ = self.commands.send(Command::Stalled { nodes, noted }).await;
        let _ = done.await;
    }
}
