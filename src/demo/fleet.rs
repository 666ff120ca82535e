//! Nodes that a demo can start, use and kill.

use crate::domain::Domain;
use crate::mailbox::Mailbox;
use crate::net::{Config, Identity, NetHandle, NetMailbox, Remembered, Storage, start};
use crate::run::places::admit;
use crate::store::DiskStore;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long nodes may take to know each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// Running nodes, by number from 0.
pub trait Fleet {
    type Mailbox: Mailbox;
    /// A node's way to the mailboxes of the swarm.
    fn mailbox(&self, node: usize) -> Self::Mailbox;
    /// Ends a node at once, without goodbye.
    fn kill(&mut self, node: usize);
}

/// A node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("node {node}: {source}")]
    Store { node: usize, source: crate::store::StoreError },
    #[error("node {node}: {source}")]
    Net { node: usize, source: crate::net::NetError },
    #[error("node {node} found only {found} of {wanted} others within {} s", PATIENCE.as_secs())]
    Alone { node: usize, found: usize, wanted: usize },
}

/// Nodes on loopback QUIC, each with its own key and its own store on disk.
pub struct QuicFleet {
    nodes: Vec<Option<NetHandle>>,
    mailboxes: Vec<NetMailbox>,
}

impl QuicFleet {
    /// Starts `count` nodes with stores under `folder`, and waits until they know each other.
    ///
    /// # Errors
    /// A store or a socket that cannot be opened; nodes that do not find each other.
    pub async fn start(count: usize, folder: &Path, domain: &Domain) -> Result<QuicFleet, FleetError> {
        let admission = admit([domain]);
        let mut nodes: Vec<NetHandle> = Vec::with_capacity(count);
        for node in 0..count {
            let (store, _) = DiskStore::open(&folder.join(format!("node-{node}")))
                .map_err(|source| FleetError::Store { node, source })?;
            let storage = Storage { store: Arc::new(store), admission: admission.clone() };
            let peers = nodes.first().map(NetHandle::dial_addresses).unwrap_or_default();
            let mut config = Config::node(Identity::random(), storage, peers);
            // Each node checks signatures for itself, as it would on its own machine.
            config.remembered = Arc::new(Remembered::default());
            nodes.push(start(config).await.map_err(|source| FleetError::Net { node, source })?);
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for (node, handle) in nodes.iter().enumerate() {
            handle.settled(PATIENCE).await;
            while handle.peers().len() + 1 < count {
                if tokio::time::Instant::now() > deadline {
                    return Err(FleetError::Alone { node, found: handle.peers().len(), wanted: count - 1 });
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let mailboxes = nodes.iter().map(NetHandle::mailbox).collect();
        Ok(QuicFleet { nodes: nodes.into_iter().map(Some).collect(), mailboxes })
    }
}

impl Fleet for QuicFleet {
    type Mailbox = NetMailbox;

    fn mailbox(&self, node: usize) -> NetMailbox {
        self.mailboxes[node].clone()
    }

    fn kill(&mut self, node: usize) {
        // Dropping a handle ends its event loop between two packets: no goodbye is sent.
        self.nodes[node] = None;
    }
}
