//! A running node, seen from outside.

use super::mailbox::NetMailbox;
use super::shared::Shared;
use super::{Multiaddr, PeerId, Traffic};
use crate::node::NodeKey;
use libp2p::multiaddr::Protocol;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Stops the node when dropped; [`NetHandle::shutdown`] also says goodbye.
pub struct NetHandle {
    pub(super) peer_id: PeerId,
    pub(super) listen: Vec<Multiaddr>,
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: NetMailbox,
    pub(super) task: JoinHandle<()>,
}

/// Another member of the swarm, as this node knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub peer: PeerId,
    pub addresses: Vec<Multiaddr>,
    /// The last attempt to speak with it failed.
    pub silent: bool,
}

impl NetHandle {
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    pub fn key(&self) -> NodeKey {
        self.shared.local
    }

    /// Where this node listens, with the ports it got.
    pub fn listen_addresses(&self) -> &[Multiaddr] {
        &self.listen
    }

    /// The same with the peer id: what others give to `--peer`.
    pub fn dial_addresses(&self) -> Vec<Multiaddr> {
        self.listen.iter().map(|address| address.clone().with(Protocol::P2p(self.peer_id))).collect()
    }

    /// Members but this node.
    pub fn peers(&self) -> Vec<Peer> {
        let view = self.shared.view();
        view.contacts
            .iter()
            .filter_map(|contact| {
                let peer = PeerId::from_bytes(&contact.peer).ok()?;
                let addresses =
                    contact.addresses.iter().filter_map(|a| Multiaddr::try_from(a.clone()).ok()).collect();
                Some(Peer { peer, addresses, silent: view.silent.contains(&contact.key()) })
            })
            .collect()
    }

    pub fn traffic(&self) -> Traffic {
        self.shared.counters.read()
    }

    /// The swarm's mailboxes, this node's own among them.
    pub fn mailbox(&self) -> NetMailbox {
        self.mailbox.clone()
    }

    /// Waits until every node heard of has been tried once, at most `patience`. Says whether somebody
    /// keeps mailboxes: for a client, whether there is anybody to ask.
    pub async fn settled(&self, patience: Duration) -> bool {
        let settle = async {
            loop {
                let changed = self.shared.changed.notified();
                if self.shared.view().settled {
                    return;
                }
                changed.await;
            }
        };
        // Late or not, what is known by then is used.
        let _ = tokio::time::timeout(patience, settle).await;
        !self.shared.view().members.is_empty()
    }

    /// Closes every connection and ends the event loop.
    pub async fn shutdown(mut self) {
        self.shared.shut_down().await;
        // A panic of the loop has been reported by the runtime.
        let _ = (&mut self.task).await;
    }
}

impl Drop for NetHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
