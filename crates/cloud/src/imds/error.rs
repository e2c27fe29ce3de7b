//! Why IMDS gave no answer to use.

use std::time::Duration;

/// A read from IMDS that failed. Never holds what IMDS answered: it may be a credential.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImdsError {
    /// No connection, or it broke.
    #[error("IMDS cannot be reached for {path}: {cause}; is 169.254.169.254 blocked on this node?")]
    Unreachable {
        /// The path asked for.
        path: String,
        /// What failed.
        cause: String,
    },
    /// No whole answer in time.
    #[error(
        "IMDS did not answer for {path} within {:.1} s; from a pod network namespace the instance's metadata hop limit must be 2 or more",
        within.as_secs_f64()
    )]
    Deadline {
        /// The path asked for.
        path: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// IMDS refuses to give a token.
    #[error(
        "IMDS refused to give a token (HTTP status {status}) to read {path}; is the instance's metadata service enabled?"
    )]
    Token {
        /// The path to be read.
        path: String,
        /// What the request for a token was answered.
        status: u16,
    },
    /// A fresh token was not accepted.
    #[error("IMDS did not accept its own token for {path} (HTTP status 401)")]
    Unauthorized {
        /// The path asked for.
        path: String,
    },
    /// A status that is neither success nor "not found".
    #[error("IMDS answered HTTP status {status} for {path}")]
    Status {
        /// The path asked for.
        path: String,
        /// The status.
        status: u16,
    },
    /// A path that every instance (or every interface) has is not there.
    #[error("IMDS has no {path}")]
    Missing {
        /// The path asked for.
        path: String,
    },
    /// The answer is not of the form this path has.
    #[error("IMDS answered {path} with something else than expected: {reason}; is it IMDS that answers?")]
    Malformed {
        /// The path asked for.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl ImdsError {
    /// Whether the same read may succeed when simply tried again.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } | Self::Unauthorized { .. } => true,
            Self::Status { status, .. } | Self::Token { status, .. } => *status == 429 || *status >= 500,
            Self::Missing { .. } | Self::Malformed { .. } => false,
        }
    }

    /// Whether IMDS did answer, and only what it said of this one thing cannot be used: what happens to an interface on its way in or out.
    pub(crate) fn is_about_one_thing(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. } | Self::Malformed { .. } | Self::Status { .. }
        )
    }
}
