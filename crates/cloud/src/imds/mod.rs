//! The instance metadata service: what this instance is, and which interfaces it has.
//!
//! IMDS is evidence, not truth: after an attachment it may lag for seconds, and in the middle of one it may list an interface whose fields it
//! does not have yet. [`Imds::interfaces`] therefore reports such interfaces as skipped and still answers with the others.
//!
//! One connection is kept and requests go over it one after another, so an idle node that re-reads its VPC's ranges costs IMDS neither a handshake nor a
//! token.

mod error;
mod facts;
mod interface;
#[cfg(feature = "fuzzing")]
pub(crate) mod values;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

pub use error::ImdsError;
pub use facts::{InstanceFacts, InstanceIdentity};
pub use interface::{ImdsInterface, InterfaceListing, SkippedInterface};
use wire::{Reply, Wire, WireError};

use crate::endpoint::{Environment, parse};
use crate::error::ConfigError;
use crate::gate::chance;
use crate::{CallReport, NoObserver, Observer, Service};

const DEFAULT_ENDPOINT: &str = "http://169.254.169.254";
const DEFAULT_ENDPOINT_IPV6: &str = "http://[fd00:ec2::254]";
/// How often a read is tried.
const TRIES: u32 = 3;
/// The first wait between tries is up to this, the second up to twice.
const PAUSE: Duration = Duration::from_millis(100);

/// How an [`Imds`] client behaves.
#[derive(Clone)]
pub struct ImdsConfig {
    /// URL instead of `http://169.254.169.254`.
    pub endpoint: Option<String>,
    /// Longest time for one try, token included.
    pub try_timeout: Duration,
    /// Longest time for one read with all its tries; the AWS VPC CNI's 5 s.
    pub timeout: Duration,
    /// Whether to go on without a token where IMDS refuses to give one by status 403, 404 or 405, as the AWS SDKs do.
    pub allow_v1: bool,
    /// Told of every request.
    pub observer: Arc<dyn Observer>,
}

impl Default for ImdsConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            try_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            allow_v1: true,
            observer: Arc::new(NoObserver),
        }
    }
}

impl ImdsConfig {
    /// What the AWS SDKs' variables say: `AWS_EC2_METADATA_SERVICE_ENDPOINT`, else `AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE`, and
    /// `AWS_EC2_METADATA_V1_DISABLED`.
    pub fn from_environment(environment: Environment<'_>) -> Self {
        let ipv6 = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
            .is_some_and(|m| m.eq_ignore_ascii_case("ipv6"));
        let endpoint = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .or_else(|| ipv6.then(|| DEFAULT_ENDPOINT_IPV6.to_owned()));
        let allow_v1 =
            environment("AWS_EC2_METADATA_V1_DISABLED").is_none_or(|v| !v.eq_ignore_ascii_case("true"));
        Self {
            endpoint,
            allow_v1,
            ..Self::default()
        }
    }
}

/// The metadata service. Cloning is cheap; clones share the connection and the token.
#[derive(Clone)]
pub struct Imds {
    inner: Arc<Inner>,
}

struct Inner {
    wire: Mutex<Wire>,
    endpoint: String,
    try_timeout: Duration,
    timeout: Duration,
    observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for Imds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Imds")
            .field("endpoint", &self.inner.endpoint)
            .finish_non_exhaustive()
    }
}

impl Imds {
    /// A client with the default deadlines. Makes no call.
    ///
    /// # Errors
    /// If the endpoint cannot be used.
    pub fn new(endpoint: Option<String>) -> Result<Self, ConfigError> {
        Self::with_config(ImdsConfig {
            endpoint,
            ..ImdsConfig::default()
        })
    }

    /// A client. Makes no call.
    ///
    /// # Errors
    /// If the endpoint cannot be used.
    pub fn with_config(config: ImdsConfig) -> Result<Self, ConfigError> {
        let endpoint = config.endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let uri = parse(&endpoint)?;
        if uri.scheme_str() != Some("http") || !matches!(uri.path(), "" | "/") {
            let reason = "the metadata service is plain http without a path";
            return Err(ConfigError::Endpoint { endpoint, reason });
        }
        Ok(Self {
            inner: Arc::new(Inner {
                wire: Mutex::new(Wire::new(&uri, config.allow_v1)),
                endpoint,
                try_timeout: config.try_timeout,
                timeout: config.timeout,
                observer: config.observer,
            }),
        })
    }

    /// The value at `path`, below `/latest/meta-data/` unless it begins with `/`; trimmed. `None` if IMDS has no such path (404).
    ///
    /// Tried three times where that may help, within the client's time-out in all.
    ///
    /// # Errors
    /// If IMDS gave no answer to use.
    pub async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let inner = &*self.inner;
        let deadline = Instant::now() + inner.timeout;
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match inner.attempt(path, deadline).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let pause = (PAUSE * tried).mul_f64(chance());
            if tried == TRIES || !error.may_pass() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The value at `path`, which must be there.
    ///
    /// # Errors
    /// Also [`ImdsError::Missing`] if it is not.
    pub async fn require(&self, path: &str) -> Result<String, ImdsError> {
        self.get(path).await?.ok_or_else(|| ImdsError::Missing {
            path: path.to_owned(),
        })
    }

    /// The list at `path`, split at white space; empty if IMDS has no such path.
    ///
    /// # Errors
    /// If IMDS gave no answer to use.
    pub async fn list(&self, path: &str) -> Result<Vec<String>, ImdsError> {
        let text = self.get(path).await?.unwrap_or_default();
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }
}

impl Inner {
    async fn attempt(&self, path: &str, deadline: Instant) -> Result<Option<String>, ImdsError> {
        let full = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/latest/meta-data/{path}")
        };
        let late = |within| ImdsError::Deadline {
            path: path.to_owned(),
            within,
        };
        // Another reader may hold the connection; its tries end, so this wait is bounded also without the deadline.
        let Ok(mut wire) = tokio::time::timeout_at(deadline.into(), self.wire.lock()).await else {
            return Err(late(self.timeout));
        };
        let began = Instant::now();
        let within = self.try_timeout.min(deadline.saturating_duration_since(began));
        let reply = match tokio::time::timeout(within, wire.get(&full)).await {
            Ok(reply) => reply,
            Err(_) => Err(WireError::Timeout),
        };
        drop(wire);
        self.report(&full, &reply, began.elapsed());
        let path = path.to_owned();
        match reply {
            Ok(Reply { status: 200, body }) => match std::str::from_utf8(&body) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(_) => Err(ImdsError::Malformed {
                    path,
                    reason: "it is not UTF-8".to_owned(),
                }),
            },
            Ok(Reply { status: 404, .. }) => Ok(None),
            Ok(Reply { status: 401, .. }) => Err(ImdsError::Unauthorized { path }),
            Ok(Reply { status, .. }) => Err(ImdsError::Status { path, status }),
            Err(WireError::Timeout) => Err(late(within)),
            Err(WireError::TooLong) => Err(ImdsError::Malformed {
                path,
                reason: format!("it is longer than {} bytes", wire::CAP),
            }),
            Err(WireError::Path) => Err(ImdsError::Malformed {
                path,
                reason: "it is not a path".to_owned(),
            }),
            Err(WireError::Token(status)) => Err(ImdsError::Token { path, status }),
            Err(WireError::Failed(cause)) => Err(ImdsError::Unreachable { path, cause }),
        }
    }

    fn report(&self, path: &str, reply: &Result<Reply, WireError>, latency: Duration) {
        let (status, error) = match reply {
            Ok(Reply {
                status: status @ (200 | 404),
                ..
            }) => (Some(*status), None),
            Ok(Reply { status, .. }) => (Some(*status), Some("HttpStatus")),
            Err(WireError::Token(status)) => (Some(*status), Some("TokenRefused")),
            Err(WireError::Timeout) => (None, Some(crate::error::own::TIMEOUT)),
            Err(WireError::TooLong | WireError::Path) => (None, Some(crate::error::own::MALFORMED)),
            Err(WireError::Failed(_)) => (None, Some(crate::error::own::CONNECT)),
        };
        self.observer.call(CallReport {
            service: Service::Imds,
            api: &api_name(path),
            status,
            error,
            latency,
        });
    }
}

/// A path as a metric's label: the parts that differ from node to node are replaced.
fn api_name(path: &str) -> String {
    let path = path.strip_prefix("/latest/").unwrap_or(path);
    let mut last = "";
    let mut parts = Vec::new();
    for part in path.split('/') {
        parts.push(match last {
            "macs" if !part.is_empty() => ":mac",
            "security-credentials" if !part.is_empty() => ":role",
            _ => part,
        });
        last = part;
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_hold_nothing_of_the_node() {
        assert_eq!(
            api_name("/latest/meta-data/network/interfaces/macs/06:aa:bb:cc:dd:ee/device-number"),
            "meta-data/network/interfaces/macs/:mac/device-number"
        );
        assert_eq!(
            api_name("/latest/meta-data/iam/security-credentials/my-role"),
            "meta-data/iam/security-credentials/:role"
        );
        assert_eq!(
            api_name("/latest/meta-data/iam/security-credentials/"),
            "meta-data/iam/security-credentials/"
        );
        assert_eq!(
            api_name("/latest/dynamic/instance-identity/document"),
            "dynamic/instance-identity/document"
        );
    }

    #[test]
    fn the_environment_chooses_endpoint_and_version() {
        let environment = |name: &str| match name {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE" => Some("IPv6".to_owned()),
            "AWS_EC2_METADATA_V1_DISABLED" => Some("TRUE".to_owned()),
            _ => None,
        };
        let config = ImdsConfig::from_environment(&environment);
        assert_eq!(
            (config.endpoint.as_deref(), config.allow_v1),
            (Some(DEFAULT_ENDPOINT_IPV6), false)
        );
        let config = ImdsConfig::from_environment(&|name| {
            (name == "AWS_EC2_METADATA_SERVICE_ENDPOINT").then(|| "http://x:1".to_owned())
        });
        assert_eq!(
            (config.endpoint.as_deref(), config.allow_v1),
            (Some("http://x:1"), true)
        );
    }

    #[test]
    fn an_endpoint_must_be_plain_http_without_a_path() {
        for bad in [
            "https://169.254.169.254",
            "http://169.254.169.254/latest",
            "169.254.169.254",
        ] {
            assert!(Imds::new(Some(bad.to_owned())).is_err(), "{bad}");
        }
        assert!(Imds::new(Some("http://127.0.0.1:1/".to_owned())).is_ok());
    }
}
