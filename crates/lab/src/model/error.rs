//! What EC2 says when it refuses.

use serde::Serialize;
use thiserror::Error;

/// A refusal as EC2 words it: a code clients match on, a message people read, and the HTTP status it travels with.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// `InvalidSubnetID.NotFound`.
    pub code: String,
    /// The sentence, naming the object in single quotes where EC2 does: clients parse it.
    pub message: String,
    /// 400, 403, 500 or 503 mostly.
    pub status: u16,
}

impl ApiError {
    /// A refusal with HTTP status 400, which nearly all have.
    #[must_use]
    pub fn client(code: &str, message: impl Into<String>) -> Self {
        Self::with_status(400, code, message)
    }

    /// A refusal with a status of its own.
    #[must_use]
    pub fn with_status(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            status,
        }
    }

    /// `InvalidParameterValue`, EC2's widest code.
    #[must_use]
    pub fn invalid_value(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterValue", message)
    }

    /// `MissingParameter`.
    #[must_use]
    pub fn missing(parameter: &str) -> Self {
        Self::client(
            "MissingParameter",
            format!("The request must contain the parameter {parameter}"),
        )
    }

    /// `InvalidParameterCombination`.
    #[must_use]
    pub fn combination(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterCombination", message)
    }

    /// The interface does not exist. The agent of amazon-vpc-cni-k8s reads the id between the quotes.
    #[must_use]
    pub fn no_interface(id: &str) -> Self {
        Self::client(
            "InvalidNetworkInterfaceID.NotFound",
            format!("The networkInterface ID '{id}' does not exist"),
        )
    }

    /// Several interfaces, or one, do not exist.
    #[must_use]
    pub fn no_interfaces(ids: &[&str]) -> Self {
        match ids {
            [one] => Self::no_interface(one),
            several => Self::client(
                "InvalidNetworkInterfaceID.NotFound",
                format!("The networkInterface IDs '{}' do not exist", several.join(", ")),
            ),
        }
    }

    /// The instance does not exist.
    #[must_use]
    pub fn no_instance(id: &str) -> Self {
        Self::client(
            "InvalidInstanceID.NotFound",
            format!("The instance ID '{id}' does not exist"),
        )
    }

    /// The subnet does not exist.
    #[must_use]
    pub fn no_subnet(id: &str) -> Self {
        Self::client(
            "InvalidSubnetID.NotFound",
            format!("The subnet ID '{id}' does not exist"),
        )
    }

    /// The security group does not exist.
    #[must_use]
    pub fn no_group(id: &str) -> Self {
        Self::client(
            "InvalidGroup.NotFound",
            format!("The security group '{id}' does not exist"),
        )
    }

    /// The attachment does not exist.
    #[must_use]
    pub fn no_attachment(id: &str) -> Self {
        Self::client(
            "InvalidAttachmentID.NotFound",
            format!("The attachment ID '{id}' does not exist"),
        )
    }

    /// An id that cannot be one.
    #[must_use]
    pub fn malformed(code: &str, id: &str, prefix: &str) -> Self {
        Self::client(code, format!("Invalid id: \"{id}\" (expecting \"{prefix}...\")"))
    }
}
