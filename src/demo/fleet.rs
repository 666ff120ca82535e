//! Nodes that a demo can start, use and kill.

use crate::mailbox::Mailbox;

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
    #[error("node {node}: {reason}")]
    Start { node: usize, reason: String },
}
