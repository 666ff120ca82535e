//! Connections and answers, bounded whatever the client does.

use super::metrics;
use super::{CONNECTIONS_MAX, Read, Status};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// From the connection to the end of the request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A disk that answers no faster is not healthy.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A whole connection, reading and writing.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Before the next attempt to take a connection, where the system refuses one (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers on their way may take at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// A socket that others connect to.
pub trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for tokio::net::TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

/// Takes connections until `stopped` has lost its sender.
pub async fn accept(listener: impl Listener, server: Arc<Server>, mut stopped: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            stream = listener.next(), if connections.len() < CONNECTIONS_MAX => match stream {
                Ok(stream) => {
                    connections.spawn(serve(stream, server.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let answering = async { while connections.join_next().await.is_some() {} };
    // Who is slower is cut off.
    let _ = timeout(SHUTDOWN_TIMEOUT, answering).await;
}

/// One request: without keep-alive nobody holds a connection for longer than an answer takes.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, server: Arc<Server>) {
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection failed"),
        Err(_) => tracing::debug!("an HTTP connection took too long"),
    }
}

/// What all connections share.
pub struct Server {
    read: Read,
    /// One permit: a disk that hangs holds one thread up, not one for each request.
    turn: Arc<Semaphore>,
}

impl Server {
    pub fn new(read: Read) -> Server {
        Server { read, turn: Arc::new(Semaphore::new(1)) }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let route: fn(Status) -> Response<Full<Bytes>> = match request.uri().path() {
            "/status" => status,
            "/metrics" => openmetrics,
            "/healthz" => health,
            _ => return text(StatusCode::NOT_FOUND, "there are /status, /metrics and /healthz\n"),
        };
        if request.method() != Method::GET {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
            return refused;
        }
        match self.read().await {
            Ok(status) => route(status),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n")),
        }
    }

    async fn read(&self) -> Result<Status, String> {
        let (read, turn) = (self.read.clone(), self.turn.clone());
        let reading = async {
            let turn = turn.acquire_owned().await;
            // Held until it has been read, even where nobody waits any more.
            tokio::task::spawn_blocking(move || (read(), turn).0).await
        };
        match timeout(READ_TIMEOUT, reading).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(_)) => Err("reading the status broke off; the log says why".into()),
            Err(_) => Err(format!("the status could not be read within {} s", READ_TIMEOUT.as_secs())),
        }
    }
}

fn status(status: Status) -> Response<Full<Bytes>> {
    match serde_json::to_vec(&status) {
        Ok(body) => response(StatusCode::OK, JSON, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn openmetrics(status: Status) -> Response<Full<Bytes>> {
    match metrics::text(status) {
        Ok(body) => response(StatusCode::OK, metrics::CONTENT_TYPE, body.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn health(status: Status) -> Response<Full<Bytes>> {
    match status.health() {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n")),
    }
}

fn text(code: StatusCode, body: &str) -> Response<Full<Bytes>> {
    response(code, TEXT, body.into())
}

fn response(code: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
