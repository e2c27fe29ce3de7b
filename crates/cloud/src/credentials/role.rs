//! The instance's role, from IMDS; and the JSON in which IMDS and container endpoints give credentials.

use serde::Deserialize;

use super::{Credentials, CredentialsError, Secret};
use crate::clock::parse_rfc3339;
use crate::{Imds, ImdsError};

const PATH: &str = "iam/security-credentials/";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    access_key_id: String,
    #[serde(default)]
    secret_access_key: String,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    expiration: Option<String>,
}

/// Reads credentials from JSON. The text is never part of an error, and neither is serde's message, which quotes it.
pub(super) fn parse(origin: &'static str, text: &str) -> Result<Credentials, CredentialsError> {
    let document: Document = serde_json::from_str(text).map_err(|cause| {
        let place = format!(
            "its answer is no credentials document (line {}, column {})",
            cause.line(),
            cause.column()
        );
        CredentialsError::passing(origin, place)
    })?;
    if let Some(code) = document.code.filter(|code| code != "Success") {
        let plain: String = code
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(64)
            .collect();
        return Err(CredentialsError::passing(
            origin,
            format!("it answered {plain}; check the role's trust policy"),
        ));
    }
    if document.access_key_id.is_empty() || document.secret_access_key.is_empty() {
        return Err(CredentialsError::passing(
            origin,
            "its answer lacks the access key",
        ));
    }
    let expires = match document.expiration.as_deref() {
        None | Some("") => None,
        Some(text) => Some(
            parse_rfc3339(text)
                .ok_or_else(|| CredentialsError::passing(origin, "its answer's Expiration is no time"))?,
        ),
    };
    Ok(Credentials {
        access_key_id: document.access_key_id,
        secret_access_key: Secret::new(document.secret_access_key),
        session_token: document.token.filter(|token| !token.is_empty()).map(Secret::new),
        expires,
    })
}

pub(super) async fn fetch(origin: &'static str, imds: &Imds) -> Result<Credentials, CredentialsError> {
    let unanswered = |error: ImdsError| match error.may_pass() {
        true => CredentialsError::passing(origin, error.to_string()),
        false => CredentialsError::lasting(origin, error.to_string()),
    };
    let no_role = || {
        let cause = "the instance has no role; attach an instance profile to it, or give the pod a role";
        CredentialsError::lasting(origin, cause)
    };
    let roles = imds.list(PATH).await.map_err(unanswered)?;
    let role = roles.first().ok_or_else(no_role)?;
    // The characters of role names (IAM API reference, RoleName).
    if !role
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
    {
        return Err(CredentialsError::lasting(
            origin,
            "what IMDS gives as the role's name is none",
        ));
    }
    let text = imds
        .get(&format!("{PATH}{role}"))
        .await
        .map_err(unanswered)?
        .ok_or_else(no_role)?;
    parse(origin, &text)
}
