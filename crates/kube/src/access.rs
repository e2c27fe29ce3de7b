//! Where the API server is, and as whom it is asked. Nothing here connects.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use http::Uri;

use crate::kubeconfig;

/// Where the kubelet mounts the service account of a pod (Kubernetes, "Accessing the API from within a Pod").
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Certificates or a key in PEM form. A file is read again when a connection cannot be made: its content may have been renewed.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// The text itself.
    Text(Vec<u8>),
    /// A file with it.
    File(PathBuf),
}

/// Keys are not for logs.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Pem {
    /// The text.
    ///
    /// # Errors
    /// [`AccessError::Read`].
    pub(crate) fn read(&self) -> Result<Vec<u8>, AccessError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => read(path),
        }
    }
}

/// As whom.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// As nobody.
    None,
    /// By a bearer token.
    Token(String),
    /// By a bearer token in a file, which is read for each request: bound service account tokens live for an hour.
    TokenFile(PathBuf),
    /// By a client certificate.
    Certificate {
        /// It, and those between it and the authority.
        chain: Pem,
        /// Its private key.
        key: Pem,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::TokenFile(path) => f.debug_tuple("TokenFile").field(path).finish(),
            Self::Certificate { .. } => f.write_str("Certificate(…)"),
        }
    }
}

/// Where and as whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// `https://host:port`, perhaps with a path.
    pub server: Uri,
    /// Who signs the server's certificate; `None`: the public authorities.
    pub authority: Option<Pem>,
    /// As whom.
    pub credential: Credential,
    /// The namespace of the pod, where there is one.
    pub namespace: Option<String>,
}

/// What the environment says, each value as it is set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    /// `KUBECONFIG`: one file.
    pub kubeconfig: Option<PathBuf>,
    /// `CLUSTER_ENDPOINT`: takes the place of the server's address.
    pub endpoint: Option<String>,
    /// `KUBERNETES_SERVICE_HOST`: name or address, IPv6 without brackets.
    pub host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`; 443 when not set.
    pub port: Option<String>,
}

/// The API server cannot be asked with these settings.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// A URL is none.
    #[error("{name}={value:?} is not a URL of an API server ({reason}): expected https://HOST:PORT")]
    Url {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The kubeconfig says something else than was expected.
    #[error("KUBECONFIG={}: {field}: {reason}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Where in it.
        field: String,
        /// What is wrong there.
        reason: String,
    },
    /// Certificates or keys of no use.
    #[error("{what}: {reason}")]
    Pem {
        /// Which.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Access {
    /// How this process reaches the API server: by `KUBECONFIG`, else by the service account of its pod. `None` where it has neither: then
    /// there is no Kubernetes here.
    ///
    /// # Errors
    /// [`AccessError`] where it has one that cannot be used.
    pub fn find(environment: &Environment) -> Result<Option<Self>, AccessError> {
        Self::find_in(environment, Path::new(SERVICE_ACCOUNT))
    }

    fn find_in(environment: &Environment, account: &Path) -> Result<Option<Self>, AccessError> {
        let mut access = match &environment.kubeconfig {
            Some(path) => kubeconfig::read(path)?,
            None => match in_cluster(environment, account)? {
                Some(access) => access,
                None => return Ok(None),
            },
        };
        if let Some(endpoint) = &environment.endpoint {
            access.server = url("CLUSTER_ENDPOINT", endpoint)?;
        }
        Ok(Some(access))
    }
}

/// A pod has a service account's token, and variables with the service `kubernetes` of its cluster.
fn in_cluster(environment: &Environment, account: &Path) -> Result<Option<Access>, AccessError> {
    let token = account.join("token");
    if !token.exists() {
        return Ok(None);
    }
    let server = match (&environment.host, &environment.endpoint) {
        (Some(host), _) => {
            let port = environment.port.as_deref().unwrap_or("443");
            let host = match host.contains(':') {
                true => format!("[{host}]"),
                false => host.clone(),
            };
            url("KUBERNETES_SERVICE_HOST", &format!("https://{host}:{port}"))?
        }
        // Replaced by the caller.
        (None, Some(_)) => Uri::default(),
        (None, None) => return Ok(None),
    };
    let namespace = read(&account.join("namespace")).ok();
    Ok(Some(Access {
        server,
        authority: Some(Pem::File(account.join("ca.crt"))),
        credential: Credential::TokenFile(token),
        namespace: namespace.map(|n| String::from_utf8_lossy(&n).trim().to_owned()),
    }))
}

/// Reads a URL of an API server. Plain HTTP is for proxies such as `kubectl proxy`.
///
/// # Errors
/// [`AccessError::Url`].
pub(crate) fn url(name: &'static str, value: &str) -> Result<Uri, AccessError> {
    let bad = |reason| AccessError::Url {
        name,
        value: value.to_owned(),
        reason,
    };
    let uri: Uri = value.trim().parse().map_err(|_| bad("it cannot be parsed"))?;
    match uri.scheme_str() {
        Some("https" | "http") => {}
        _ => return Err(bad("it does not begin with https://")),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad("it names no host"));
    }
    if uri.query().is_some() {
        return Err(bad("it has a query"));
    }
    Ok(uri)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, AccessError> {
    std::fs::read(path).map_err(|source| AccessError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn account() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "secret").unwrap();
        std::fs::write(dir.path().join("namespace"), "kube-system\n").unwrap();
        dir
    }

    fn environment(host: Option<&str>, endpoint: Option<&str>) -> Environment {
        Environment {
            host: host.map(str::to_owned),
            endpoint: endpoint.map(str::to_owned),
            port: Some("6443".into()),
            ..Environment::default()
        }
    }

    #[test]
    fn a_process_without_service_account_and_kubeconfig_has_no_kubernetes() {
        let nowhere = Path::new("/nonexistent");
        let found = Access::find_in(&environment(Some("10.0.0.1"), Some("https://api:1")), nowhere).unwrap();
        assert_eq!(found, None);
        let account = account();
        assert_eq!(
            Access::find_in(&environment(None, None), account.path()).unwrap(),
            None
        );
    }

    #[test]
    fn a_pod_asks_the_clusters_service_as_its_service_account() {
        let account = account();
        for (host, server) in [
            ("172.20.0.1", "https://172.20.0.1:6443/"),
            ("fd00::1", "https://[fd00::1]:6443/"),
            ("api.example", "https://api.example:6443/"),
        ] {
            let access = Access::find_in(&environment(Some(host), None), account.path())
                .unwrap()
                .unwrap();
            assert_eq!(access.server.to_string(), server);
            assert_eq!(
                access.credential,
                Credential::TokenFile(account.path().join("token"))
            );
            assert_eq!(access.namespace.as_deref(), Some("kube-system"));
        }
    }

    #[test]
    fn the_clusters_endpoint_goes_before_its_services_address() {
        let account = account();
        for host in [Some("172.20.0.1"), None] {
            let environment = environment(host, Some("https://api.example:443"));
            let access = Access::find_in(&environment, account.path()).unwrap().unwrap();
            assert_eq!(access.server.to_string(), "https://api.example:443/");
        }
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_refused_by_name_and_value() {
        let account = account();
        for (endpoint, reason) in [
            ("api.example:443", "https://"),
            ("ftp://api.example", "https://"),
            ("https://", "parsed"),
            ("https://api.example/?x=1", "query"),
        ] {
            let error = Access::find_in(&environment(None, Some(endpoint)), account.path()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("CLUSTER_ENDPOINT") && text.contains(endpoint) && text.contains(reason),
                "{text}"
            );
        }
    }

    #[test]
    fn secrets_are_not_for_logs() {
        let access = Access {
            server: Uri::default(),
            authority: Some(Pem::Text(b"hidden".to_vec())),
            credential: Credential::Token("hidden".into()),
            namespace: None,
        };
        assert!(!format!("{access:?}").contains("hidden"));
    }
}
