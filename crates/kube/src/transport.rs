//! HTTP to the API server: one connection for all requests and watches (HTTP/2 where the server speaks it), TLS by ring.
//!
//! Whether the other side still lives is the kernel's to find out (TCP keepalive and user timeout): an idle agent is not woken for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::access::{Access, AccessError, Credential};

/// How long a TCP connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing moves is probed after this time, then each third of it; it is given up after the third probe,
/// or when what was sent is not acknowledged for so long.
const SILENCE: Duration = Duration::from_secs(30);
/// A connection that no request uses is closed after this time.
const IDLE: Duration = Duration::from_secs(90);
/// What the server may send ahead of our reading, for a stream and for the connection: a list of a node's pods, and no more.
const WINDOW: u32 = 256 * 1024;

pub(crate) type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What a TLS configuration is made of, as it was read.
#[derive(PartialEq, Eq)]
pub(crate) struct Material {
    authority: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    /// # Errors
    /// [`AccessError::Read`].
    pub(crate) fn read(access: &Access) -> Result<Self, AccessError> {
        let identity = match &access.credential {
            Credential::Certificate { chain, key } => Some((chain.read()?, key.read()?)),
            Credential::None | Credential::Token(_) | Credential::TokenFile(_) => None,
        };
        // Plain HTTP needs none.
        let authority = access.authority.as_ref();
        let authority = authority.filter(|_| access.server.scheme_str() == Some("https"));
        Ok(Self {
            authority: authority.map(crate::Pem::read).transpose()?,
            identity,
        })
    }

    /// # Errors
    /// [`AccessError::Pem`].
    pub(crate) fn client(&self) -> Result<Http, AccessError> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(SILENCE));
        tcp.set_keepalive_interval(Some(SILENCE / 3));
        tcp.set_keepalive_retries(Some(3));
        tcp.set_tcp_user_timeout(Some(SILENCE));
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls()?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        Ok(Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .build(tls))
    }

    fn tls(&self) -> Result<ClientConfig, AccessError> {
        let bad = |what, reason: String| AccessError::Pem { what, reason };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad("TLS", e.to_string()))?;
        let builder = match &self.authority {
            Some(pem) => builder.with_root_certificates(roots(pem)?),
            None => builder.with_webpki_roots(),
        };
        let Some((chain, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("client certificate", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad("client key", e.to_string()))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| bad("client certificate", e.to_string()))
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let bad = |reason: String| AccessError::Pem { what, reason };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| bad(e.to_string()))?;
    if found.is_empty() {
        return Err(bad("there is no certificate in it".into()));
    }
    Ok(found)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, AccessError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("certificate authority", pem)? {
        roots.add(certificate).map_err(|e| AccessError::Pem {
            what: "certificate authority",
            reason: e.to_string(),
        })?;
    }
    Ok(roots)
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
