//! A service account token exchanged for credentials: STS `AssumeRoleWithWebIdentity`
//! (<https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>). The call is not signed; the token is the proof.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use http_body_util::Full;
use serde::Deserialize;

use super::{Credentials, CredentialsError, Secret};
use crate::clock::parse_rfc3339;
use crate::endpoint::{parse, regional};
use crate::error::{ConfigError, ErrorClass, class_of, own};
use crate::http::HttpClient;
use crate::percent::encode_into;
use crate::xml::{self, ErrorDocument};
use crate::{CallReport, Observer, Service};

const ANSWER_CAP: usize = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(5);

/// A role, and the token file that stands for the identity that may assume it.
#[derive(Clone)]
pub struct WebIdentitySource {
    token_file: PathBuf,
    role_arn: String,
    session_name: String,
    endpoint: Uri,
}

impl fmt::Debug for WebIdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebIdentitySource")
            .field("role_arn", &self.role_arn)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    assume_role_with_web_identity_result: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    credentials: Issued,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Issued {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

impl WebIdentitySource {
    /// The session's name shows in CloudTrail; `vpcnet` where none is given. STS is the region's own, or `endpoint`.
    ///
    /// # Errors
    /// If the region or the endpoint cannot be used.
    pub(super) fn new(
        token_file: PathBuf,
        role_arn: String,
        session_name: Option<String>,
        region: &str,
        endpoint: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let endpoint = match endpoint {
            Some(text) => parse(text)?,
            None => regional("sts", region)?,
        };
        Ok(Self {
            token_file,
            role_arn,
            session_name: session_name.unwrap_or_else(|| "vpcnet".to_owned()),
            endpoint,
        })
    }

    pub(super) async fn fetch(
        &self,
        origin: &'static str,
        http: &HttpClient,
        observer: &dyn Observer,
    ) -> Result<Credentials, CredentialsError> {
        // Read each time: the kubelet replaces it before it ends.
        let token = std::fs::read_to_string(&self.token_file).map_err(|cause| {
            let file = self.token_file.display();
            CredentialsError::passing(origin, format!("the token cannot be read from {file}: {cause}"))
        })?;
        let mut body = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15".to_owned();
        let fields = [
            ("RoleArn", self.role_arn.as_str()),
            ("RoleSessionName", &self.session_name),
            ("WebIdentityToken", token.trim()),
        ];
        for (name, value) in fields {
            body.push('&');
            body.push_str(name);
            body.push('=');
            encode_into(&mut body, value, false);
        }
        let request = Request::post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| CredentialsError::lasting(origin, "the request cannot be written"))?;
        let began = Instant::now();
        let answer = http.send(request, ANSWER_CAP, TIMEOUT).await;
        let status = answer.as_ref().ok().map(|a| a.status);
        let refusal = answer
            .as_ref()
            .ok()
            .filter(|a| a.status != 200)
            .map(|a| ErrorDocument::parse(&a.body));
        let error = match (&refusal, status) {
            (Some(Some(document)), _) => Some(document.code.as_str()),
            (Some(None), _) => Some(own::HTTP),
            (None, Some(_)) => None,
            (None, None) => Some(own::CONNECT),
        };
        let api = "AssumeRoleWithWebIdentity";
        observer.call(CallReport {
            service: Service::Credentials,
            api,
            status,
            error,
            latency: began.elapsed(),
        });
        let answer = answer.map_err(|cause| CredentialsError::passing(origin, cause.to_string()))?;
        match refusal {
            Some(document) => Err(self.refused(origin, answer.status, document)),
            None => read(origin, &answer.body),
        }
    }

    fn refused(
        &self,
        origin: &'static str,
        status: u16,
        document: Option<ErrorDocument>,
    ) -> CredentialsError {
        let Some(document) = document else {
            return CredentialsError::passing(
                origin,
                format!("HTTP status {status} without an error document"),
            );
        };
        let cause = format!("{}: {} (role {})", document.code, document.message, self.role_arn);
        match class_of(&document.code, &document.message, status) {
            ErrorClass::Retry | ErrorClass::Throttled => CredentialsError::passing(origin, cause),
            _ => CredentialsError::lasting(origin, cause),
        }
    }
}

fn read(origin: &'static str, body: &[u8]) -> Result<Credentials, CredentialsError> {
    // The parser's message may quote the document, and that holds the key.
    let response: Response = xml::parse(body)
        .map_err(|_| CredentialsError::passing(origin, "the answer is no credentials document"))?;
    let issued = response.assume_role_with_web_identity_result.credentials;
    let expires = parse_rfc3339(&issued.expiration)
        .ok_or_else(|| CredentialsError::passing(origin, "the answer's Expiration is no time"))?;
    Ok(Credentials {
        access_key_id: issued.access_key_id,
        secret_access_key: Secret::new(issued.secret_access_key),
        session_token: Some(Secret::new(issued.session_token)),
        expires: Some(expires),
    })
}
