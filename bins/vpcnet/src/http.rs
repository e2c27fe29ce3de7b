//! One GET to the agent's introspection server, over TCP or a unix socket.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// The agent answers from memory: more than this means it hangs.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Far above what the largest instance's pool takes.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No connection.
    #[error(
        "cannot reach the agent at {address}: {source}\n  is vpcnetd running on this node, and in this network namespace?\n  \
         is its introspection on (DISABLE_INTROSPECTION) and at this address (INTROSPECTION_BIND_ADDRESS)? \
         another one can be given with --address"
    )]
    Unreachable {
        /// Where it was tried.
        address: String,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("the agent at {address} accepted the connection but did not answer within {}s; its log says why", TIMEOUT.as_secs())]
    Silent {
        /// Where it was tried.
        address: String,
    },
    /// Something answered that does not speak as the agent does.
    #[error("{address}{path}: {message}; is that vpcnetd?")]
    Answer {
        /// Where it was tried.
        address: String,
        /// What was asked for.
        path: String,
        /// What was wrong.
        message: String,
    },
    /// The agent said no, and why.
    #[error("the agent at {address} answers {status}: {message}")]
    Refused {
        /// Where it was tried.
        address: String,
        /// HTTP status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
}

/// Fetches `path` from `address` (`host:port` or `unix:/path`).
///
/// # Errors
/// [`AskError`], which says what to check.
pub(crate) async fn get(address: &str, path: &str) -> Result<Bytes, AskError> {
    tokio::time::timeout(TIMEOUT, connect_and_ask(address, path))
        .await
        .unwrap_or_else(|_| {
            Err(AskError::Silent {
                address: address.to_owned(),
            })
        })
}

async fn connect_and_ask(address: &str, path: &str) -> Result<Bytes, AskError> {
    let unreachable = |source| AskError::Unreachable {
        address: address.to_owned(),
        source,
    };
    match address.strip_prefix("unix:") {
        Some(socket) => {
            ask(
                UnixStream::connect(socket).await.map_err(unreachable)?,
                address,
                path,
            )
            .await
        }
        None => {
            ask(
                TcpStream::connect(address).await.map_err(unreachable)?,
                address,
                path,
            )
            .await
        }
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: &str,
    path: &str,
) -> Result<Bytes, AskError> {
    let wrong = |message: String| AskError::Answer {
        address: address.to_owned(),
        path: path.to_owned(),
        message,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| wrong(e.to_string()))?;
    let request = Request::get(path)
        .header(header::HOST, "vpcnetd")
        .body(Empty::<Bytes>::new())
        .map_err(|e| wrong(e.to_string()))?;
    let driver = tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .map_err(|e| wrong(e.to_string()))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY)
        .collect()
        .await
        .map_err(|e| wrong(e.to_string()))?
        .to_bytes();
    driver.abort();
    if status.is_success() {
        Ok(body)
    } else {
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        Err(AskError::Refused {
            address: address.to_owned(),
            status,
            message,
        })
    }
}
