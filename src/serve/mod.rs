//! What a node says of itself, over HTTP/1.1: to people, to programs that watch it, to its supervisor.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | a [`Status`] as JSON |
//! | `GET /metrics` | the same as OpenMetrics text ([`metrics`]) |
//! | `GET /healthz` | 200 `ok`, or 503 with the reason why this node should get no requests |
//! | another path | 404 |
//! | another method | 405 |
//!
//! It listens on a TCP address where one is given, and on the socket file `status.sock` in the store's
//! folder, which only the owner of the process may open. There is no TLS and no password: whoever
//! reaches the TCP address may read, so it should be a loopback one, or lie in a network of one's own.
//!
//! A client costs little, whatever it does: one request a connection, bounded in bytes and time, and
//! [`CONNECTIONS_MAX`] connections a listener; more of them wait in the system's queue. [`client`] is
//! the other side.

pub mod client;
mod http;
pub mod metrics;
#[cfg(unix)]
mod socket;
mod status;
#[cfg(test)]
mod tests;

pub use status::{
    Admission, Identity, Mode, Participant, Participation, Peer, Quotas, Ranges, Repair, Replication, Status,
    Store, Who, disk_free_bytes, traffic,
};

use http::Server;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Name of the socket file in the store's folder.
pub const SOCKET_FILE: &str = "status.sock";
/// Open connections of one listener.
pub const CONNECTIONS_MAX: usize = 16;

/// Gives the picture of the node now. It may read disks: it is called on a thread for blocking work,
/// never twice at a time.
pub type Read = Arc<dyn Fn() -> Status + Send + Sync>;

/// Where to listen.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// TCP address; port 0 takes a free one.
    pub address: Option<SocketAddr>,
    /// Folder that gets the socket file, in general the store's; it must be there. Ignored where the
    /// system has no Unix sockets.
    pub folder: Option<PathBuf>,
}

/// Why the status is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address} for HTTP: {source}; choose another port, or 0 for any free one")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{path}: a running node serves its status there; stop that one, or use another store")]
    InUse { path: PathBuf },
    #[error("{path}: is no socket, so it is not replaced; move it away")]
    NotASocket { path: PathBuf },
    #[error("{path}: the socket cannot be made: {source}")]
    Socket { path: PathBuf, source: io::Error },
    #[error("{path}: this path is too long for a socket (about 100 bytes); use a shorter one for the store")]
    TooLong { path: PathBuf },
}

/// A serving node. Dropping it stops it too, but cuts answers off.
pub struct Handle {
    address: Option<SocketAddr>,
    /// Dropped to stop the listeners.
    stop: watch::Sender<()>,
    listeners: Vec<JoinHandle<()>>,
    #[cfg(unix)]
    socket: Option<socket::SocketFile>,
}

/// Starts serving on the current tokio runtime; both listeners are open when this returns.
///
/// # Errors
/// An address or a socket file that cannot be had, by name.
pub async fn start(config: Config, read: Read) -> Result<Handle, ServeError> {
    let server = Arc::new(Server::new(read));
    let (stop, stopped) = watch::channel(());
    let mut handle = Handle {
        address: None,
        stop,
        listeners: vec![],
        #[cfg(unix)]
        socket: None,
    };
    if let Some(address) = config.address {
        let listen = async {
            let listener = TcpListener::bind(address).await?;
            Ok((listener.local_addr()?, listener))
        };
        let listening = listen.await.map_err(|source| ServeError::Listen { address, source })?;
        handle.address = Some(listening.0);
        handle.listeners.push(tokio::spawn(http::accept(listening.1, server.clone(), stopped.clone())));
    }
    #[cfg(unix)]
    if let Some(folder) = config.folder {
        let (file, listener) = socket::bind(&folder.join(SOCKET_FILE))?;
        handle.socket = Some(file);
        handle.listeners.push(tokio::spawn(http::accept(listener, server, stopped)));
    }
    Ok(handle)
}

impl Handle {
    /// The TCP address with the port it got.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The socket file, where there is one.
    pub fn socket(&self) -> Option<&Path> {
        #[cfg(unix)]
        return self.socket.as_ref().map(socket::SocketFile::path);
        #[cfg(not(unix))]
        None
    }

    /// Stops listening, gives answers on their way a second, and removes the socket file.
    pub async fn shutdown(self) {
        drop(self.stop);
        for listener in self.listeners {
            // A panic has been reported by the runtime.
            let _ = listener.await;
        }
    }
}
