//! The EC2 client: one typed method for each action.

mod call;
mod dry_run;
mod form;
mod instances;
mod interface_ops;
mod interfaces;
mod network;
#[cfg(feature = "fuzzing")]
mod shown;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

pub use dry_run::DryRun;
pub use form::Filter;
pub use instances::{Instance, InstanceInterface, InstanceType};
pub use interface_ops::{
    AddressRequest, AssignedIpv6, AssignedPrivateIpAddresses, AttachNetworkInterface, Attached,
    CreateNetworkInterface, InterfaceChange,
};
pub use interfaces::{
    Attachment, ConnectionTracking, NetworkInterface, PresentInterfaces, PrivateAddress, SecurityGroupRef,
};
pub use network::{SecurityGroup, Subnet, Vpc};
#[cfg(feature = "fuzzing")]
pub(crate) use shown::{SHOWN, shown};
pub use tags::Tag;

use crate::endpoint::{parse, regional};
use crate::error::ConfigError;
use crate::gate::Gates;
use crate::http::HttpClient;
use crate::{CredentialProvider, NoObserver, Observer};

/// Time a request may take when nothing else is said, from its first byte to the end of the answer; the AWS VPC CNI's `HTTP_TIMEOUT`.
pub const DEFAULT_HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// What an [`Ec2`] client needs.
#[derive(Clone)]
pub struct Ec2Config {
    /// URL of the API instead of AWS's own for `region`.
    pub endpoint: Option<String>,
    /// The node's region, from IMDS.
    pub region: String,
    /// Signs the calls.
    pub credentials: CredentialProvider,
    /// Longest time for one request. A read is tried three times and takes three of these at most.
    pub http_timeout: Duration,
    /// `User-Agent` header.
    pub user_agent: String,
    /// Told of every request.
    pub observer: Arc<dyn Observer>,
}

impl Ec2Config {
    /// A configuration with the default time-out, user agent and no observer.
    pub fn new(region: impl Into<String>, credentials: CredentialProvider) -> Self {
        Self {
            endpoint: None,
            region: region.into(),
            credentials,
            http_timeout: DEFAULT_HTTP_TIMEOUT,
            user_agent: concat!("vpcnet/", env!("CARGO_PKG_VERSION")).to_owned(),
            observer: Arc::new(NoObserver),
        }
    }
}

/// The EC2 API. Cloning is cheap; clones share connections, credentials and back-off.
#[derive(Clone)]
pub struct Ec2 {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    endpoint: Uri,
    region: String,
    credentials: CredentialProvider,
    http_timeout: Duration,
    user_agent: http::HeaderValue,
    observer: Arc<dyn Observer>,
    http: HttpClient,
    gates: Gates,
    skew: call::Skew,
}

impl std::fmt::Debug for Ec2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ec2")
            .field("endpoint", &self.inner.endpoint)
            .field("region", &self.inner.region)
            .finish_non_exhaustive()
    }
}

impl Ec2 {
    /// A client. Makes no call.
    ///
    /// # Errors
    /// If the endpoint or the region cannot be used.
    pub fn new(config: Ec2Config) -> Result<Self, ConfigError> {
        // The region is checked also where an endpoint is given: it is part of every signature.
        let regional = regional("ec2", &config.region)?;
        let endpoint = match &config.endpoint {
            Some(text) => parse(text)?,
            None => regional,
        };
        let user_agent = http::HeaderValue::from_str(&config.user_agent)
            .unwrap_or_else(|_| http::HeaderValue::from_static("vpcnet"));
        Ok(Self {
            inner: Arc::new(Inner {
                endpoint,
                region: config.region,
                credentials: config.credentials,
                http_timeout: config.http_timeout,
                user_agent,
                observer: config.observer,
                http: HttpClient::new()?,
                gates: Gates::new(),
                skew: call::Skew::default(),
            }),
        })
    }

    /// The URL called.
    pub fn endpoint(&self) -> String {
        self.inner.endpoint.to_string()
    }
}

#[cfg(test)]
mod damage;
