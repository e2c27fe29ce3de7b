//! How a request can fail.

use std::time::Duration;

use serde::Deserialize;

use crate::access::AccessError;

/// A request of no use.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The settings, or files they name.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No connection, or it broke.
    #[error("the API server at {server} is not reached: {cause}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// Why.
        cause: String,
    },
    /// No answer in time.
    #[error("the API server at {server} does not answer within {} s", within.as_secs())]
    Timeout {
        /// Host and port.
        server: String,
        /// How long it had.
        within: Duration,
    },
    /// It refuses.
    #[error("the API server refuses {verb} of {what}: {status}")]
    Refused {
        /// `get`, `list`, `watch`, `create` or `patch`.
        verb: &'static str,
        /// Resource, and object if it is one.
        what: String,
        /// Its word.
        status: Status,
    },
    /// Its answer is not what was asked for.
    #[error("the API server's answer to {verb} of {what} is of no use: {cause}")]
    Answer {
        /// The request.
        verb: &'static str,
        /// Resource, and object if it is one.
        what: String,
        /// Why.
        cause: String,
    },
}

/// `meta/v1` `Status`: why the API server refuses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct Status {
    /// The HTTP status.
    #[serde(default)]
    pub code: u16,
    /// A word for programs: `Forbidden`, `NotFound`, `Expired`.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.message.as_str() {
            "" => write!(f, "status {}", self.code),
            message => write!(f, "{message} ({})", self.code),
        }
    }
}

impl ApiError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.code),
            _ => None,
        }
    }

    /// The object, or its kind, does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object changed meanwhile, or exists already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// A patch with `metadata.uid` or `metadata.resourceVersion` met another object of that name, which the API server calls invalid, or
    /// another state of it.
    #[must_use]
    pub fn met_another(&self) -> bool {
        self.is_conflict() || self.code() == Some(422)
    }

    /// Nobody answered, or nobody could: worth the same request later.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Access(_) => true,
            Self::Refused { status, .. } => status.code == 429 || status.code >= 500 || status.code == 401,
            Self::Answer { .. } => false,
        }
    }
}
