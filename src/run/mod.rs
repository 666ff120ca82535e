//! What running nodes do: the live loop, serving mailboxes, depositing a packet file.
//!
//! - [`learner`]: the loop of one node
//! - [`known`]: what it has read of mailboxes, kept warm
//! - [`scopes`]: questions across several scopes
//! - [`author`]: an author's key and sequence counter on disk
//! - [`places`]: the addresses of packets under the views of domain files, and admission by them
//! - [`swarm`]: the swarm key, and the signed lists as files
//! - [`files`]: small files that are replaced as a whole
//! - [`key`]: a node's own key, kept in its store's folder
//! - [`node`]: a node on a disk, from start to shutdown
//! - [`outbox`]: a gateway's packet files on their way
//! - [`status`]: the picture that a running node gives of itself
//! - [`deposit`]: a packet file on its way into the mailboxes

pub mod author;
pub mod deposit;
pub(crate) mod files;
pub mod key;
pub mod known;
pub mod learner;
pub mod node;
pub mod outbox;
pub mod places;
pub mod scopes;
pub mod status;
pub mod swarm;
#[cfg(test)]
mod tests;

pub use author::{AuthorError, AuthorFile};
pub use learner::{Learner, LearnerError};

use std::io;

/// The asynchronous runtime of a command.
///
/// # Errors
/// The system gives no threads or no event queue.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Resolves when the user or the system asks the process to stop: Ctrl-C, or SIGTERM.
///
/// # Errors
/// The system does not let us listen for signals.
pub async fn asked_to_stop() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
