//! Everything that can go wrong, with the code the runtime gets and the words an operator reads.
//!
//! | code | meaning |
//! |---|---|
//! | 1, 4, 5, 6, 7, 8 | the specification's: version, environment, files, decoding, configuration, namespace |
//! | 2 | the specification's: what `host-local` would take in the configuration and this plugin does not |
//! | 11 | transient: no address left, or another process holds the lock; the runtime asks again |
//! | 50, 51 | STATUS: ADD cannot be served; and pods that run have no egress either |
//! | 103 | the kernel refused |
//! | 105 | CHECK found the pod's egress changed |
//! | 106 | DEL or GC left something behind |
//! | 999 | a fault of the plugin itself |

use std::path::PathBuf;
use std::time::Duration;

use vpcnet_cni::{Code, ConfigError, DecodeError, EnvError};
use vpcnet_linux::egress::EgressError;
use vpcnet_linux::netlink::NetlinkError;
use vpcnet_linux::netns::NetnsError;

const KERNEL: Code = Code(103);
const CHANGED: Code = Code(105);
const LEFT_BEHIND: Code = Code(106);
const INTERNAL: Code = Code(999);

/// Why a call of the runtime fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot read the network configuration from stdin: {0}")]
    Stdin(#[source] std::io::Error),
    #[error("{0}")]
    Env(#[from] EnvError),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("network configuration: {0}")]
    Settings(#[source] DecodeError),
    #[error("network configuration: {field} {found:?} cannot be used: {why}")]
    Field {
        field: &'static str,
        found: String,
        why: &'static str,
    },
    #[error("network configuration: {field} {found:?} is not supported: {why}")]
    Unsupported {
        field: String,
        found: String,
        why: &'static str,
    },
    #[error(
        "prevResult is missing: egress-cni must be called as a chained plugin, after the one that gives the pod its address"
    )]
    NotChained,
    #[error("CNI_NETNS: {0}")]
    Netns(#[source] NetnsError),
    #[error("CNI_NETNS: {} is the plugin's own network namespace, not a pod's", .0.display())]
    OwnNetns(PathBuf),
    #[error("{action} {}: {source}", .path.display())]
    Files {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is locked by another process for {} s already (`fuser -v` on it names the process); the runtime will ask again", .path.display(), .waited.as_secs())]
    Locked { path: PathBuf, waited: Duration },
    #[error("all {size} egress addresses of this node are in use, by files in {}; one is free again when a pod ends, and the runtime will ask again", .dir.display())]
    Full { size: u128, dir: PathBuf },
    #[error("failed to set up the pod's egress: {0}")]
    SetUp(#[source] EgressError),
    #[error("failed to set up the node's source NAT for egress: {0}")]
    Snat(#[source] NetlinkError),
    #[error("cannot talk to the kernel: {0}")]
    Netlink(#[from] NetlinkError),
    #[error("random bytes for a MAC address: {0}")]
    Random(#[source] std::io::Error),
    #[error("{cause}; and taking back what was done failed too: {}", .left.join("; "))]
    NotUndone { cause: Box<Failure>, left: Vec<String> },
    #[error("the pod's egress is not as ADD left it: {}", .0.join("; "))]
    Changed(Vec<String>),
    #[error("not everything could be removed: {}", .0.join("; "))]
    LeftBehind(Vec<String>),
    #[error("cni.dev/valid-attachments is missing: without the list of what lives nothing is removed")]
    NoAttachments,
    #[error("egress cannot be set up for new pods: {0}")]
    NotReady(Box<Failure>),
    #[error("pods on this node may have no egress, until the next pod is added or somebody restores it: {0}")]
    Impaired(String),
    #[error("fault in the plugin, please report it: {0}")]
    Internal(String),
}

impl Failure {
    /// For the error object.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Stdin(_) | Self::Files { .. } => Code::IO_FAILURE,
            Self::Env(_) | Self::SetUp(EgressError::NameTaken { .. }) => Code::INVALID_ENVIRONMENT,
            Self::Config(error) => error.code(),
            Self::Settings(_) => Code::DECODING_FAILURE,
            Self::Field { .. } | Self::NotChained | Self::NoAttachments => Code::INVALID_CONFIG,
            Self::Unsupported { .. } => Code::UNSUPPORTED_FIELD,
            Self::Netns(_) | Self::OwnNetns(_) | Self::SetUp(EgressError::Netns(_)) => Code::INVALID_NETNS,
            Self::Locked { .. } | Self::Full { .. } => Code::TRY_AGAIN_LATER,
            Self::SetUp(_) | Self::Snat(_) | Self::Netlink(_) | Self::Random(_) => KERNEL,
            Self::NotUndone { cause, .. } => cause.code(),
            Self::Changed(_) => CHANGED,
            Self::LeftBehind(_) => LEFT_BEHIND,
            Self::NotReady(_) => Code::NOT_AVAILABLE,
            Self::Impaired(_) => Code::LIMITED_CONNECTIVITY,
            Self::Internal(_) => INTERNAL,
        }
    }

    /// Adds what could not be taken back.
    pub(crate) fn and_left(self, left: Vec<String>) -> Self {
        if left.is_empty() {
            self
        } else {
            Self::NotUndone {
                cause: Box::new(self),
                left,
            }
        }
    }
}
