//! The HTTP/1.1 server both faces share: kept connections, one write for each answer, answers that get lost.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Largest request body taken, in bytes; EC2's calls are far smaller.
const LARGEST_BODY: usize = 1 << 20;

/// A request with its body read.
pub(crate) struct Call {
    pub(crate) head: hyper::http::request::Parts,
    pub(crate) body: Bytes,
    pub(crate) connection: Arc<Connection>,
}

/// Where a request came from.
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// Another handle on the socket, for what has to be set before an answer is written.
    pub(crate) socket: OwnedFd,
}

/// What becomes of a request.
pub(crate) enum Answer {
    /// This is sent.
    Send(Response<Full<Bytes>>),
    /// The connection is closed without an answer.
    Close,
    /// Nothing is sent, and the connection stays open.
    Silence,
}

/// A request whose answer is lost: the error ends the connection.
#[derive(Debug, thiserror::Error)]
#[error("the fault plan closed the connection")]
struct Lost;

/// Answers every connection of the listener until it is dropped, which ends them all.
pub(crate) async fn serve<H, F>(listener: TcpListener, handle: H) -> Infallible
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, peer, handle.clone()));
            }
            Err(error) => {
                // Out of descriptors, mostly: the connections that end make room.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection<H, F>(stream: TcpStream, peer: SocketAddr, handle: H)
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    // Without it Nagle and delayed acknowledgements cost a kept connection 40 ms for each answer.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "TCP_NODELAY is not set");
    }
    let socket = match stream.as_fd().try_clone_to_owned() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, %peer, "cannot serve a connection");
            return;
        }
    };
    let connection = Arc::new(Connection { peer, socket });
    let service = service_fn(move |request: Request<Incoming>| {
        let (handle, connection) = (handle.clone(), connection.clone());
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
                return Err(Lost);
            };
            match handle(Call {
                head,
                body: body.to_bytes(),
                connection,
            })
            .await
            {
                Answer::Send(response) => Ok(response),
                Answer::Close => Err(Lost),
                Answer::Silence => std::future::pending().await,
            }
        }
    });
    // `writev(false)`: head and body go out in one write.
    let served = http1::Builder::new()
        .writev(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "a connection ended");
    }
}
