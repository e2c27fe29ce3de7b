//! One kept connection to IMDS, and the token that opens it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::endpoint::host_header;
use crate::http::{ReadError, chain, read};

/// Longest answer read. The longest real one, an instance identity document's signature, is 2 KiB; a busy interface's prefixes 1 KiB.
pub(super) const CAP: usize = 64 << 10;
/// The longest life a token can have, in seconds.
const TOKEN_TTL: u64 = 21_600;
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// A token is renewed so long before its end.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

pub(super) enum WireError {
    Failed(String),
    Timeout,
    TooLong,
    Path,
    /// The request for a token was answered with this status.
    Token(u16),
}

enum Token {
    None,
    Held {
        value: HeaderValue,
        until: Instant,
    },
    /// IMDS knows no tokens (or a proxy before it does not): read without.
    Unknown,
}

pub(super) struct Wire {
    host: String,
    port: u16,
    host_header: String,
    allow_v1: bool,
    connection: Option<SendRequest<Empty<Bytes>>>,
    token: Token,
}

impl Wire {
    pub(super) fn new(endpoint: &Uri, allow_v1: bool) -> Self {
        // An IPv6 host stands in brackets in a URL, and without them in an address.
        let host = endpoint
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Self {
            host,
            port: endpoint.port_u16().unwrap_or(80),
            host_header: host_header(endpoint),
            allow_v1,
            connection: None,
            token: Token::None,
        }
    }

    /// Reads a path, with a token. A token that IMDS no longer knows (it was restarted, or time jumped) is replaced once.
    ///
    /// When this future is dropped, the connection it used is given up: what comes over it would be the answer to this request.
    pub(super) async fn get(&mut self, path: &str) -> Result<Reply, WireError> {
        let mut replaced = false;
        loop {
            let token = self.token().await?;
            let reply = self
                .exchange(Method::GET, path, token.map(|value| (TOKEN_HEADER, value)))
                .await?
                .0;
            if reply.status != 401 || replaced {
                return Ok(reply);
            }
            replaced = true;
            self.token = Token::None;
        }
    }

    async fn token(&mut self) -> Result<Option<HeaderValue>, WireError> {
        match &self.token {
            Token::Held { value, until } if Instant::now() < *until => return Ok(Some(value.clone())),
            Token::Unknown => return Ok(None),
            Token::Held { .. } | Token::None => {}
        }
        let (reply, ttl) = self
            .exchange(
                Method::PUT,
                "/latest/api/token",
                Some((TTL_HEADER, TOKEN_TTL.into())),
            )
            .await?;
        match reply.status {
            200 => {
                let mut value = HeaderValue::from_bytes(reply.body.trim_ascii())
                    .map_err(|_| WireError::Token(reply.status))?;
                value.set_sensitive(true);
                let life = Duration::from_secs(ttl.unwrap_or(TOKEN_TTL).min(TOKEN_TTL));
                let until = Instant::now() + life.saturating_sub(TOKEN_MARGIN).max(life / 2);
                self.token = Token::Held {
                    value: value.clone(),
                    until,
                };
                Ok(Some(value))
            }
            403..=405 if self.allow_v1 => {
                tracing::warn!(status = reply.status, "IMDS gives no token: going on with IMDSv1");
                self.token = Token::Unknown;
                Ok(None)
            }
            status => Err(WireError::Token(status)),
        }
    }

    /// One request on the kept connection. If that connection turns out to have been closed meanwhile, on a new one: every request here may be sent
    /// twice.
    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        header: Option<(&'static str, HeaderValue)>,
    ) -> Result<(Reply, Option<u64>), WireError> {
        if let Some(kept) = self.connection.take()
            && let Ok(answer) = self.exchange_on(kept, &method, path, header.as_ref()).await
        {
            return Ok(answer);
        }
        let new = self.connect().await?;
        self.exchange_on(new, &method, path, header.as_ref()).await
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, WireError> {
        let failed = |error: &dyn std::error::Error| WireError::Failed(chain(error));
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| failed(&e))?;
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        // Ends when the sender is dropped or IMDS closes; its error is seen by the request it broke.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn exchange_on(
        &mut self,
        mut connection: SendRequest<Empty<Bytes>>,
        method: &Method,
        path: &str,
        header: Option<&(&'static str, HeaderValue)>,
    ) -> Result<(Reply, Option<u64>), WireError> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(HOST, &self.host_header)
            .header(USER_AGENT, concat!("vpcnet/", env!("CARGO_PKG_VERSION")));
        if let Some((name, value)) = header {
            request = request.header(*name, value.clone());
        }
        let request = request.body(Empty::new()).map_err(|_| WireError::Path)?;
        let failed = |error: hyper::Error| WireError::Failed(chain(&error));
        connection.ready().await.map_err(failed)?;
        let answer = connection.send_request(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        let ttl = answer
            .headers()
            .get(TTL_HEADER)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.trim().parse().ok());
        let body = read(answer.into_body(), CAP).await.map_err(|error| match error {
            ReadError::TooLong => WireError::TooLong,
            ReadError::Broken(cause) => WireError::Failed(cause),
        })?;
        self.connection = Some(connection);
        Ok((Reply { status, body }, ttl))
    }
}
