//! The API server: one GET of `/readyz`, with the pod's service account and the cluster's own authority.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use vpcnet_config::Config;

use super::Findings;

/// Where Kubernetes puts them.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const LIMIT: Duration = Duration::from_secs(5);

/// Looks.
pub(super) async fn look(config: &Config) -> Findings {
    let mut found = Findings::of("kubernetes");
    let Some((host, port)) = address(config) else {
        let text = "the API server: this does not run in a pod (KUBERNETES_SERVICE_HOST is not set), nor is CLUSTER_ENDPOINT";
        if config.needs_api_server() {
            found.warn(
                text,
                "run it in the agent's container: the settings need the API server",
            );
        } else {
            found.skipped(text);
        }
        return found;
    };
    let asked = tokio::time::timeout(LIMIT, ready(&host, port, Path::new(ACCOUNT))).await;
    let answer = asked.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())));
    match answer {
        Ok(status) if status.is_success() => found.ok(format!("the API server at {host}:{port} is ready")),
        Ok(status) => found.warn(
            format!("the API server at {host}:{port} says {status} to /readyz"),
            "look at its own health, and at what the service account may do (system:public-info-viewer)",
        ),
        Err(why) => {
            let text = format!("the API server at {host}:{port} cannot be asked: {why}");
            let remedy = "reach it from the node: route, security group; kube-proxy or CLUSTER_ENDPOINT";
            if config.needs_api_server() {
                found.problem(text, remedy);
            } else {
                found.warn(text, remedy);
            }
        }
    }
    found
}

fn address(config: &Config) -> Option<(String, u16)> {
    if let Some(endpoint) = &config.kubernetes.endpoint {
        let uri: http::Uri = endpoint.parse().ok()?;
        return Some((uri.host()?.to_owned(), uri.port_u16().unwrap_or(443)));
    }
    let host = std::env::var("KUBERNETES_SERVICE_HOST")
        .ok()
        .filter(|host| !host.is_empty())?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT")
        .ok()
        .and_then(|port| port.parse().ok());
    Some((host, port.unwrap_or(443)))
}

async fn ready(host: &str, port: u16, account: &Path) -> Result<http::StatusCode, String> {
    let file = |name: &str| {
        let path = account.join(name);
        std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&file("ca.crt")?) {
        let certificate = certificate.map_err(|e| format!("ca.crt: {e:?}"))?;
        roots.add(certificate).map_err(|e| format!("ca.crt: {e}"))?;
    }
    let token = String::from_utf8_lossy(&file("token")?).trim().to_owned();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // An IPv6 address in a URL has brackets.
    let host = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|e| e.to_string())?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|e| e.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/readyz")
        .header(header::HOST, host)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())
        // Not the error's own words: they might show the token.
        .map_err(|_| "the service account's token is no header's value".to_owned())?;
    let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
    driver.abort();
    Ok(answer.status())
}
