//! Frames on a stream, with bounds on length and time before any memory is taken.

use super::counters::Counters;
use super::wire::{Code, Frame, HEADER_BYTES, Refusal, Request, Response, read_header};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/qis/mailbox/1");
/// How long a peer may take to send a request once it has opened a stream.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory grows by this much as bytes arrive: a length costs a liar what he sends.
const STEP_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub struct Codec {
    pub counters: Arc<Counters>,
}

/// The outer error is the stream's, the inner one the peer's.
async fn read_frame<T>(io: &mut T) -> io::Result<Result<(u8, Vec<u8>), Refusal>>
where
    T: AsyncRead + Unpin + Send,
{
    let mut header = [0; HEADER_BYTES];
    io.read_exact(&mut header).await?;
    let (kind, length) = match read_header(&header) {
        Ok(header) => header,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut body = Vec::new();
    while body.len() < length {
        let from = body.len();
        body.resize(length.min(from + STEP_BYTES.max(from)), 0);
        io.read_exact(&mut body[from..]).await?;
    }
    Ok(Ok((kind, body)))
}

impl Codec {
    async fn write<T>(&self, io: &mut T, frame: Frame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Counters::add(&self.counters.bytes_out, frame.bytes() as u64);
        io.write_all(&frame.head).await?;
        io.write_all(&frame.bulk).await?;
        io.flush().await
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    /// A request that cannot be read becomes [`Request::Malformed`]: libp2p would drop an error here
    /// without a word to the place that knows the peer.
    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let refusal = match tokio::time::timeout(READ_TIMEOUT, read_frame(io)).await {
            Ok(Ok(Ok((kind, body)))) => {
                Counters::add(&self.counters.bytes_in, (HEADER_BYTES + body.len()) as u64);
                match Request::read(kind, body) {
                    Ok(request) => return Ok(request),
                    Err(refusal) => refusal,
                }
            }
            Ok(Ok(Err(refusal))) => refusal,
            Ok(Err(error)) => Refusal::new(Code::Malformed, format!("the request breaks off: {error}")),
            Err(_) => Refusal::new(Code::Malformed, format!("no whole request within {READ_TIMEOUT:?}")),
        };
        Ok(Request::Malformed(refusal))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (kind, body) = read_frame(io).await?.map_err(invalid)?;
        Counters::add(&self.counters.bytes_in, (HEADER_BYTES + body.len()) as u64);
        Response::read(kind, body).map_err(invalid)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, request.into_frame()).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, answer.into_frame()).await
    }
}

fn invalid(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, refusal)
}
