//! One HTTP/2 connection, mostly over a unix socket: all that a plugin's single call needs.
//!
//! tonic's own channel (balancing, buffering, reconnecting, a background worker) costs the plugin start-up time and size
//! for things a process that lives for one call has no use for.

use std::io;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Authority;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::Status;
use tonic::body::Body;

use crate::method::Method;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket is missing, nobody listens on it, or the host is not known.
    #[error("cannot connect: {0}")]
    Dial(#[source] io::Error),
    /// Somebody listens and does not speak HTTP/2.
    #[error("the other side does not speak gRPC: {0}")]
    Handshake(#[source] hyper::Error),
    /// No answer to the dial within this time (a listener whose queue is full).
    #[error("no connection within {0:?}")]
    Deadline(Duration),
}

/// Runs hyper's connection on the caller's tokio runtime; a current-thread one is enough.
#[derive(Clone, Copy)]
struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// A connection to a gRPC server, without TLS. Clones share it. Give it to a generated client.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Body>,
    /// HTTP/2's `:authority`.
    authority: Authority,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("closed", &self.send.is_closed())
            .finish()
    }
}

impl Connection {
    /// Connects to `socket` within `deadline`. Must run inside a tokio runtime with I/O and time. While the listener's
    /// queue is full, it is tried again.
    ///
    /// # Errors
    /// See [`ConnectError`]. A server that accepts and then says nothing shows only in the call's own deadline.
    pub async fn unix(socket: &Path, deadline: Duration) -> Result<Self, ConnectError> {
        // The convention where there is no host.
        let authority = Authority::from_static("localhost");
        Self::over(within(deadline, dial(socket)).await?, authority).await
    }

    /// Connects to `address`, `host:port`, within `deadline`, as [`Connection::unix`] does to a socket.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn tcp(address: &str, deadline: Duration) -> Result<Self, ConnectError> {
        let authority = Authority::try_from(address)
            .map_err(|error| ConnectError::Dial(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = within(deadline, TcpStream::connect(address)).await?;
        // A call is one small write, and its answer is waited for.
        stream.set_nodelay(true).map_err(ConnectError::Dial)?;
        Self::over(stream, authority).await
    }

    async fn over<S>(stream: S, authority: Authority) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // Answers are a few hundred bytes: the protocol's default windows do, and asking for others is one more frame.
        let (send, connection) = http2::Builder::new(Executor)
            .initial_stream_window_size(None)
            .initial_connection_window_size(None)
            .max_send_buf_size(16 * 1024)
            .handshake(Io::new(stream))
            .await
            .map_err(ConnectError::Handshake)?;
        // Its error also reaches the call in flight, which is where it can be told.
        tokio::spawn(async move {
            let _reported_by_the_call = connection.await;
        });
        Ok(Self { send, authority })
    }
}

async fn within<S>(deadline: Duration, dial: impl Future<Output = io::Result<S>>) -> Result<S, ConnectError> {
    match tokio::time::timeout(deadline, dial).await {
        Ok(connected) => connected.map_err(ConnectError::Dial),
        Err(_) => Err(ConnectError::Deadline(deadline)),
    }
}

/// A unix socket that does not block has no waiting room: the kernel answers EAGAIN when the listener's queue is full.
async fn dial(socket: &Path) -> io::Result<UnixStream> {
    const PAUSE: Duration = Duration::from_millis(10);
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

impl Connection {
    /// One call. For those that go by [`Method`] and not by a generated client.
    ///
    /// # Errors
    /// The server's refusal; a broken connection has a source.
    pub async fn unary<Q, A>(&self, method: &Method<Q, A>, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.clone());
        grpc.ready()
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        let path = http::uri::PathAndQuery::from_static(method.path());
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let reply = grpc.unary(tonic::Request::new(request), path, codec).await?;
        Ok(reply.into_inner())
    }
}

impl tonic::codegen::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // HTTP/2 wants :scheme and :authority.
        let path = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = path.or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        Box::pin(self.send.send_request(request))
    }
}

/// How often the other tasks get their turn before something is sent.
const TURNS: u8 = 2;

/// Tokio's stream as hyper's: hyper-util has such an adapter, for the price of another crate in the plugin.
///
/// What is written is held for two turns of the connection's task: preface, settings, headers and body of a call come
/// from three tasks, one after the other, and would be four writes, each of which wakes the server. Held back they
/// go out as one.
struct Io<S> {
    stream: S,
    held: Vec<u8>,
    turns_left: u8,
}

impl<S: AsyncWrite + Unpin> Io<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            held: Vec::with_capacity(512),
            turns_left: TURNS,
        }
    }

    /// Sends what is held, all of it.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let stream = std::pin::Pin::new(&mut self.stream);
            match AsyncWrite::poll_write(stream, cx, &self.held) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => drop(self.held.drain(..sent)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for Io<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper's buffer may be uninitialised, and filling it in place needs unsafe code. A copy of at most 4 KiB
        // from the stack costs nothing beside the call.
        let mut bytes = [0u8; 4096];
        let room = buf.remaining().min(bytes.len());
        let mut staged = tokio::io::ReadBuf::new(bytes.get_mut(..room).unwrap_or_default());
        match AsyncRead::poll_read(std::pin::Pin::new(&mut self.stream), cx, &mut staged) {
            Poll::Ready(Ok(())) => {
                buf.put_slice(staged.filled());
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for Io<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // More than one call writes: do not hoard.
        const MOST_HELD: usize = 64 * 1024;
        if self.held.len() >= MOST_HELD && self.send(cx)?.is_pending() {
            return Poll::Pending;
        }
        self.held.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(left) = self.turns_left.checked_sub(1) {
            self.turns_left = left;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let sent = self.send(cx);
        if sent.is_ready() {
            self.turns_left = TURNS;
        }
        sent
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.send(cx) {
            Poll::Ready(Ok(())) => AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut self.stream), cx),
            other => other,
        }
    }
}
