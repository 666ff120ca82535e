//! Asking a node what it says of itself.

use super::{SOCKET_FILE, Status};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longer than the other side takes to find that its disk hangs.
const TIMEOUT: Duration = Duration::from_secs(super::http::READ_TIMEOUT.as_secs() + 5);
/// Largest answer that is read: a thousand peers and participants take less than one MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where a node serves its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `HOST:PORT` of its TCP address.
    Http(String),
    /// Folder of its store.
    Store(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Place::Http(address) => write!(f, "{address}"),
            Place::Store(folder) => write!(f, "{}", folder.join(SOCKET_FILE).display()),
        }
    }
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}: no such folder")]
    NoFolder(PathBuf),
    #[error("no node runs at {place} ({source}): is `qis node` started there, and does it serve its status?")]
    NoNode { place: Place, source: io::Error },
    #[error("{place}: only the user who runs the node may ask there")]
    Forbidden { place: Place },
    #[error("{place}: this system has no Unix sockets: name the TCP address instead")]
    NoSockets { place: Place },
    #[error("{place}: no answer within {} s", TIMEOUT.as_secs())]
    Late { place: Place },
    #[error("{place}: the connection broke: {reason}")]
    Broken { place: Place, reason: String },
    #[error("{place}: answers {code}: {text}")]
    Refused { place: Place, code: u16, text: String },
    #[error("{place}: what answers there is no node of a known version: {reason}")]
    Unknown { place: Place, reason: String },
}

/// The status of the node at `place`, as it was sent and as this program understands it.
///
/// # Errors
/// Nobody is there, or what is there is not a node.
pub async fn fetch(place: &Place) -> Result<(serde_json::Value, Status), ClientError> {
    let body = match tokio::time::timeout(TIMEOUT, get(place, "/status")).await {
        Ok(answer) => answer?,
        Err(_) => return Err(ClientError::Late { place: place.clone() }),
    };
    let parsed = serde_json::from_slice::<serde_json::Value>(&body).and_then(|value| {
        let status = serde_json::from_value(value.clone())?;
        Ok((value, status))
    });
    parsed.map_err(|error| ClientError::Unknown { place: place.clone(), reason: error.to_string() })
}

async fn get(place: &Place, path: &str) -> Result<Bytes, ClientError> {
    let no_node = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden { place: place.clone() },
        _ => ClientError::NoNode { place: place.clone(), source },
    };
    match place {
        Place::Http(address) => {
            let stream = TcpStream::connect(address).await.map_err(no_node)?;
            exchange(place, path, address, stream).await
        }
        #[cfg(unix)]
        Place::Store(folder) => {
            if !folder.is_dir() {
                return Err(ClientError::NoFolder(folder.clone()));
            }
            let stream = tokio::net::UnixStream::connect(folder.join(SOCKET_FILE)).await;
            exchange(place, path, "localhost", stream.map_err(no_node)?).await
        }
        #[cfg(not(unix))]
        Place::Store(_) => Err(ClientError::NoSockets { place: place.clone() }),
    }
}

async fn exchange(
    place: &Place,
    path: &str,
    host: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Bytes, ClientError> {
    let broken = |reason: String| ClientError::Broken { place: place.clone(), reason };
    let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| broken(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
        match code {
            StatusCode::OK => Ok(body),
            code => {
                let text = String::from_utf8_lossy(&body);
                let text = text.chars().filter(|c| !c.is_control()).take(200).collect();
                Err(ClientError::Refused { place: place.clone(), code: code.as_u16(), text })
            }
        }
    };
    // The connection moves the bytes; its error, if any, reaches the answer too.
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}
