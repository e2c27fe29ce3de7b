//! Which source of credentials applies, in the order of the AWS SDKs.

use std::path::PathBuf;

use super::container::ContainerSource;
use super::web_identity::WebIdentitySource;
use super::{Credentials, CredentialsError, role};
use crate::endpoint::Environment;
use crate::error::ConfigError;
use crate::http::HttpClient;
use crate::{Imds, Observer};

/// Where credentials come from.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// A key given outright.
    Static(Credentials),
    /// A projected service account token, exchanged at STS (IAM roles for service accounts).
    WebIdentity(WebIdentitySource),
    /// An HTTP endpoint beside the workload: ECS, or EKS Pod Identity.
    Container(ContainerSource),
    /// The instance's role.
    ImdsRole(Imds),
}

impl CredentialSource {
    /// The source that the environment asks for. The first that applies:
    ///
    /// 1. `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for temporary keys, `AWS_SESSION_TOKEN`;
    /// 2. `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN` (`AWS_ROLE_SESSION_NAME`), at STS of `region` or `AWS_ENDPOINT_URL_STS`;
    /// 3. `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, else `AWS_CONTAINER_CREDENTIALS_FULL_URI`, with the token of
    ///    `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`, else `AWS_CONTAINER_AUTHORIZATION_TOKEN`;
    /// 4. the instance's role, from IMDS.
    ///
    /// Shared configuration files and profiles are not read: there are none on a node.
    ///
    /// # Errors
    /// If a source is asked for by half, or cannot be used.
    pub fn from_environment(
        environment: Environment<'_>,
        imds: &Imds,
        region: &str,
    ) -> Result<Self, ConfigError> {
        let both = |first: &'static str, second: &'static str| match (environment(first), environment(second))
        {
            (Some(a), Some(b)) => Ok(Some((a, b))),
            (Some(_), None) => Err(ConfigError::Incomplete {
                set: first,
                missing: second,
            }),
            (None, Some(_)) => Err(ConfigError::Incomplete {
                set: second,
                missing: first,
            }),
            (None, None) => Ok(None),
        };
        if let Some((id, secret)) = both("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")? {
            let token = environment("AWS_SESSION_TOKEN");
            return Ok(Self::Static(Credentials::new(&id, &secret, token.as_deref())));
        }
        // A role alone says nothing: profiles use the variable too.
        if let Some(file) = environment("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let role_arn = environment("AWS_ROLE_ARN").ok_or(ConfigError::Incomplete {
                set: "AWS_WEB_IDENTITY_TOKEN_FILE",
                missing: "AWS_ROLE_ARN",
            })?;
            let endpoint = environment("AWS_ENDPOINT_URL_STS");
            let session = environment("AWS_ROLE_SESSION_NAME");
            let source = WebIdentitySource::new(
                PathBuf::from(file),
                role_arn,
                session,
                region,
                endpoint.as_deref(),
            )?;
            return Ok(Self::WebIdentity(source));
        }
        if let Some(source) = ContainerSource::from_environment(environment)? {
            return Ok(Self::Container(source));
        }
        Ok(Self::ImdsRole(imds.clone()))
    }

    /// Its name, for people.
    pub(crate) fn origin(&self) -> &'static str {
        match self {
            Self::Static(_) => "the environment (AWS_ACCESS_KEY_ID)",
            Self::WebIdentity(_) => "STS with a web identity (AWS_ROLE_ARN)",
            Self::Container(_) => "the container credentials endpoint",
            Self::ImdsRole(_) => "the instance's role (IMDS)",
        }
    }

    pub(crate) async fn fetch(
        &self,
        http: &HttpClient,
        observer: &dyn Observer,
    ) -> Result<Credentials, CredentialsError> {
        match self {
            Self::Static(credentials) => Ok(credentials.clone()),
            Self::WebIdentity(source) => source.fetch(self.origin(), http, observer).await,
            Self::Container(source) => source.fetch(self.origin(), http, observer).await,
            Self::ImdsRole(imds) => role::fetch(self.origin(), imds).await,
        }
    }
}
