//! One HTTP client for EC2, STS and container credentials: pooled, TLS by ring, answers capped, every request with a deadline.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::error::ConfigError;

/// How long a TCP connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection unused for longer is not used again: AWS closes idle ones after about 20 s, and a request sent into a closing connection has an
/// unknown effect.
const IDLE: Duration = Duration::from_secs(15);

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// No connection was made, so nothing was sent.
    #[error("no connection to {host}: {cause}")]
    Connect { host: String, cause: String },
    /// The request, or a part of it, was sent and then the connection failed.
    #[error("the connection to {host} broke: {cause}")]
    Broken { host: String, cause: String },
    /// No whole answer in time.
    #[error("no answer from {host} within {:.1} s", within.as_secs_f64())]
    Timeout { host: String, within: Duration },
    /// The answer is longer than any sane answer is.
    #[error("the answer of {host} is longer than {cap} bytes")]
    TooLong { host: String, cap: usize },
}

#[derive(Clone)]
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpClient {
    /// # Errors
    /// If TLS cannot be set up.
    pub(crate) fn new() -> Result<Self, ConfigError> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.enforce_http(false);
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|cause| ConfigError::Tls(cause.to_string()))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // No pool timer: it would wake an idle node. Stale connections are dropped when the next request looks for one, or closed by AWS.
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(2)
            .build(tls);
        Ok(Self { client })
    }

    /// Sends a request and reads its answer, `cap` bytes at most, within `within`.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        cap: usize,
        within: Duration,
    ) -> Result<Answer, HttpError> {
        let host = request
            .uri()
            .authority()
            .map(|a| a.as_str().to_owned())
            .unwrap_or_default();
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| {
                let cause = chain(&error);
                match error.is_connect() {
                    true => HttpError::Connect {
                        host: host.clone(),
                        cause,
                    },
                    false => HttpError::Broken {
                        host: host.clone(),
                        cause,
                    },
                }
            })?;
            let (parts, body) = answer.into_parts();
            let body = read(body, cap).await.map_err(|error| match error {
                ReadError::TooLong => HttpError::TooLong {
                    host: host.clone(),
                    cap,
                },
                ReadError::Broken(cause) => HttpError::Broken {
                    host: host.clone(),
                    cause,
                },
            })?;
            Ok(Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
            })
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout {
                host: host.clone(),
                within,
            }),
        }
    }
}

pub(crate) enum ReadError {
    TooLong,
    Broken(String),
}

/// Reads a body to its end, `cap` bytes at most.
pub(crate) async fn read<B>(mut body: B, cap: usize) -> Result<Bytes, ReadError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ReadError::Broken(chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > cap {
                return Err(ReadError::TooLong);
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}

/// An error and its causes in one line: hyper's own texts leave the cause to `source`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
