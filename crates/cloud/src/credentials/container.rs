//! Credentials from an HTTP endpoint beside the workload: the ECS agent, or the EKS Pod Identity agent.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http::{Request, Uri};
use http_body_util::Full;

use super::{Credentials, CredentialsError, Secret, role};
use crate::endpoint::Environment;
use crate::error::{ConfigError, own};
use crate::http::HttpClient;
use crate::{CallReport, Observer, Service};

const ANSWER_CAP: usize = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Hosts that may be asked without TLS beside loopback: the ECS agent, and the EKS Pod Identity agent by IPv4 and IPv6.
const PLAIN_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// A container credentials endpoint.
#[derive(Clone)]
pub struct ContainerSource {
    uri: Uri,
    authorization: Authorization,
}

#[derive(Clone)]
enum Authorization {
    None,
    Token(Secret),
    /// Read for each renewal: the kubelet replaces it.
    File(PathBuf),
}

impl fmt::Debug for ContainerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSource")
            .field("host", &self.uri.host())
            .finish_non_exhaustive()
    }
}

impl ContainerSource {
    /// The endpoint that the environment names, if it names one.
    ///
    /// # Errors
    /// If it is no URL, or one that must not be sent a token.
    pub(super) fn from_environment(environment: Environment<'_>) -> Result<Option<Self>, ConfigError> {
        let url = match environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            Some(relative) => format!("http://169.254.170.2{relative}"),
            None => match environment("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
                Some(full) => full,
                None => return Ok(None),
            },
        };
        let authorization = match environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Authorization::File(PathBuf::from(file)),
            None => environment("AWS_CONTAINER_AUTHORIZATION_TOKEN").map_or(Authorization::None, |token| {
                Authorization::Token(Secret::new(token))
            }),
        };
        Ok(Some(Self {
            uri: check(&url)?,
            authorization,
        }))
    }

    fn authorization(&self, origin: &'static str) -> Result<Option<HeaderValue>, CredentialsError> {
        let token = match &self.authorization {
            Authorization::None => return Ok(None),
            Authorization::Token(token) => token.expose().to_owned(),
            Authorization::File(file) => std::fs::read_to_string(file).map_err(|cause| {
                CredentialsError::passing(
                    origin,
                    format!("its token cannot be read from {}: {cause}", file.display()),
                )
            })?,
        };
        // A line break within would begin another header; the value's own check would refuse it too, this says why.
        let mut value = HeaderValue::from_str(token.trim_end_matches(['\r', '\n'])).map_err(|_| {
            CredentialsError::lasting(
                origin,
                "its authorization token holds characters that no header may have",
            )
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    pub(super) async fn fetch(
        &self,
        origin: &'static str,
        http: &HttpClient,
        observer: &dyn Observer,
    ) -> Result<Credentials, CredentialsError> {
        let mut request = Request::get(self.uri.clone()).header(ACCEPT, "application/json");
        if let Some(value) = self.authorization(origin)? {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(Full::new(Bytes::new()))
            .map_err(|_| CredentialsError::lasting(origin, "the request cannot be written"))?;
        let began = Instant::now();
        let answer = http.send(request, ANSWER_CAP, TIMEOUT).await;
        let status = answer.as_ref().ok().map(|a| a.status);
        let error = match status {
            Some(200) => None,
            Some(_) => Some(own::HTTP),
            None => Some(own::CONNECT),
        };
        let api = "ContainerCredentials";
        observer.call(CallReport {
            service: Service::Credentials,
            api,
            status,
            error,
            latency: began.elapsed(),
        });
        let answer = answer.map_err(|cause| CredentialsError::passing(origin, cause.to_string()))?;
        match answer.status {
            200 => {
                let text = std::str::from_utf8(&answer.body)
                    .map_err(|_| CredentialsError::passing(origin, "its answer is not UTF-8"))?;
                role::parse(origin, text)
            }
            status @ (429 | 500..) => Err(CredentialsError::passing(origin, format!("HTTP status {status}"))),
            status => {
                let cause = format!("HTTP status {status}; check the pod's role association");
                Err(CredentialsError::lasting(origin, cause))
            }
        }
    }
}

fn check(url: &str) -> Result<Uri, ConfigError> {
    let bad = |reason| ConfigError::Endpoint {
        endpoint: url.to_owned(),
        reason,
    };
    let uri: Uri = url.trim().parse().map_err(|_| bad("it is not a URL"))?;
    let Some(authority) = uri.authority() else {
        return Err(bad("it must name a host"));
    };
    // `a@b` hides which host is meant.
    if authority.as_str().contains('@') {
        return Err(bad("it must name a host, without a user"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let local = host
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || PLAIN_HOSTS.iter().any(|h| h.parse() == Ok(ip)))
        || host == "localhost";
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if local => Ok(uri),
        Some("http") => Err(ConfigError::InsecureCredentialsEndpoint(host.to_owned())),
        _ => Err(bad("it must begin with http:// or https://")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_in_the_clear_to_local_addresses_only() {
        for good in [
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://169.254.170.2/v2/x?id=1",
            "http://127.0.0.1:8080/",
            "http://localhost/x",
            "https://credentials.example/x",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "http://169.254.169.254/x",
            "http://localhost.example/",
            "http://10.0.0.1/",
            "http://127.0.0.1@evil.example/",
            "/v1",
            "ftp://127.0.0.1/",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
