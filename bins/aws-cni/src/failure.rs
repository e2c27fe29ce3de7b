//! Everything that can go wrong, with the code the runtime gets and the words an operator reads.
//!
//! | code | meaning |
//! |---|---|
//! | 1, 4, 5, 6, 7, 8 | the specification's: version, environment, reading stdin, decoding, configuration, namespace |
//! | 11 | transient: agent away, starting or out of addresses, or its answer was lost; the runtime asks again |
//! | 50, 51 | STATUS: ADD cannot be served; and pods that run may be impaired too |
//! | 100 | the pod has a branch ENI, which this version does not support |
//! | 101 | the agent refused for a reason that asking again will not change |
//! | 102 | the agent's answer makes no sense |
//! | 103 | the kernel refused |
//! | 104 | the network policy agent did not do its part |
//! | 105 | CHECK found the pod's network changed |
//! | 106 | DEL or GC left something behind |
//! | 999 | a fault of the plugin itself |

use std::path::PathBuf;
use std::time::Duration;

use tonic::Code as Grpc;
use vpcnet_cni::{ArgsError, Code, ConfigError, DecodeError, EnvError};
use vpcnet_linux::netlink::NetlinkError;
use vpcnet_linux::netns::NetnsError;
use vpcnet_linux::pod::PodError;
use vpcnet_rpc::{ConnectError, direct};

const BRANCH: Code = Code(100);
const REFUSED: Code = Code(101);
const NONSENSE: Code = Code(102);
const KERNEL: Code = Code(103);
const NETWORK_POLICY: Code = Code(104);
const CHANGED: Code = Code(105);
const LEFT_BEHIND: Code = Code(106);
const INTERNAL: Code = Code(999);

/// A call over a socket did not give an answer to go on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody there.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The connection ended in mid-call: the other side was killed, or restarted.
    #[error("the connection broke before the answer came ({0})")]
    Broken(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// An answer, and it is no.
    #[error("{message}")]
    Status {
        /// gRPC's code.
        code: Grpc,
        /// The other side's words.
        message: String,
    },
}

impl From<direct::CallError> for CallError {
    fn from(error: direct::CallError) -> Self {
        match error {
            direct::CallError::Broken(why) => Self::Broken(why),
            direct::CallError::Deadline(deadline) => Self::Deadline(deadline),
            direct::CallError::Status { code, message } => Self::Status { code, message },
        }
    }
}

impl CallError {
    /// Whether asking again later can help.
    fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Deadline(_) => true,
            Self::Status { code, .. } => matches!(
                code,
                Grpc::Unavailable
                    | Grpc::ResourceExhausted
                    | Grpc::DeadlineExceeded
                    | Grpc::Aborted
                    | Grpc::Cancelled
            ),
        }
    }
}

/// Why a call of the runtime fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot read the network configuration from stdin: {0}")]
    Stdin(#[source] std::io::Error),
    #[error("{0}")]
    Env(#[from] EnvError),
    #[error("{0}")]
    Args(#[from] ArgsError),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("network configuration: {0}")]
    Settings(#[source] DecodeError),
    #[error("conf.VethPrefix {found:?} cannot be used: {why}")]
    VethPrefix { found: String, why: &'static str },
    #[error("CNI_ARGS: {key} is missing: the pod's host link is named after its namespace and name")]
    NoPod { key: &'static str },
    #[error("CNI_NETNS: {0}")]
    Netns(#[source] NetnsError),
    #[error("CNI_NETNS: {} is the plugin's own network namespace, not a pod's", .0.display())]
    OwnNetns(PathBuf),
    #[error("CNI_IFNAME: interface {name} exists already in network namespace {}; was ADD called twice for this container?", .netns.display())]
    NameTaken { name: String, netns: PathBuf },
    #[error("{call}: node agent on {}: {error}{}", .socket.display(), advice(.error))]
    Agent {
        call: &'static str,
        socket: PathBuf,
        error: CallError,
    },
    #[error("AddNetwork: node agent on {} gave no address and no reason (Success=false); its log says more, and the runtime will ask again", .socket.display())]
    NotGiven { socket: PathBuf },
    #[error("DelNetwork: node agent on {} did not free the address and gave no reason (Success=false); its log says more, and the runtime will ask again", .socket.display())]
    NotFreed { socket: PathBuf },
    #[error("{call}: the node agent's answer makes no sense: {why}")]
    Answer { call: &'static str, why: String },
    #[error(
        "branch-ENI pods are not supported by this version (VLAN {vlan}); take the limit vpc.amazonaws.com/pod-eni out of the pod, or use the AWS VPC CNI on this node"
    )]
    Branch { vlan: i64 },
    #[error("prevResult: {0}")]
    Recorded(String),
    #[error("failed to set up the pod's network: {0}")]
    Setup(#[source] PodError),
    #[error("cannot talk to the kernel: {0}")]
    Netlink(#[from] NetlinkError),
    #[error("random bytes for a MAC address: {0}")]
    Random(#[source] std::io::Error),
    #[error("failed to set up network policy: {call}: network policy agent on {}: {error}; is the second container of the aws-node pod running?", .socket.display())]
    Policy {
        call: &'static str,
        socket: PathBuf,
        error: CallError,
    },
    #[error("failed to set up network policy: {call}: the network policy agent on {} refused without a reason (Success=false); its log says more", .socket.display())]
    PolicyRefused { call: &'static str, socket: PathBuf },
    #[error("{cause}; and taking back what was done failed too: {}", .left.join("; "))]
    NotUndone { cause: Box<Failure>, left: Vec<String> },
    #[error("the pod's network is not as ADD left it: {}", .0.join("; "))]
    Changed(Vec<String>),
    #[error("reading the pod's network: {0}")]
    Look(#[source] PodError),
    #[error("not everything could be removed: {}", .0.join("; "))]
    LeftBehind(Vec<String>),
    #[error("cni.dev/valid-attachments is missing: without the list of what lives nothing is removed")]
    NoAttachments,
    #[error("the node agent on {} cannot serve pods now: {why}", .socket.display())]
    NotReady { socket: PathBuf, why: String },
    #[error("pods on this node may be impaired: {0}")]
    Impaired(String),
    #[error("fault in the plugin, please report it: {0}")]
    Internal(String),
}

/// What the operator can do, and when it is tried again.
fn advice(error: &CallError) -> &'static str {
    match error {
        CallError::Connect(_) => "; is the aws-node pod of this node running? The runtime will ask again",
        CallError::Broken(_) => "; did the agent restart? The runtime will ask again",
        CallError::Deadline(_) => "; the runtime will ask again",
        CallError::Status { .. } => "",
    }
}

impl Failure {
    /// For the error object.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Stdin(_) => Code::IO_FAILURE,
            Self::Env(_) | Self::Args(_) | Self::NoPod { .. } | Self::NameTaken { .. } => {
                Code::INVALID_ENVIRONMENT
            }
            Self::Config(error) => error.code(),
            Self::Settings(_) | Self::Recorded(_) => Code::DECODING_FAILURE,
            Self::VethPrefix { .. } | Self::NoAttachments => Code::INVALID_CONFIG,
            Self::Netns(_) | Self::OwnNetns(_) => Code::INVALID_NETNS,
            Self::Agent { error, .. } if error.is_transient() => Code::TRY_AGAIN_LATER,
            Self::Agent { .. } => REFUSED,
            Self::NotGiven { .. } | Self::NotFreed { .. } => Code::TRY_AGAIN_LATER,
            Self::Answer { .. } => NONSENSE,
            Self::Branch { .. } => BRANCH,
            Self::Setup(PodError::HostNamespace { .. } | PodError::Netns(_)) => Code::INVALID_NETNS,
            Self::Setup(PodError::NameTaken { .. }) => Code::INVALID_ENVIRONMENT,
            Self::Setup(_) | Self::Look(_) | Self::Netlink(_) | Self::Random(_) => KERNEL,
            Self::Policy { .. } | Self::PolicyRefused { .. } => NETWORK_POLICY,
            Self::NotUndone { cause, .. } => cause.code(),
            Self::Changed(_) => CHANGED,
            Self::LeftBehind(_) => LEFT_BEHIND,
            Self::NotReady { .. } => Code::NOT_AVAILABLE,
            Self::Impaired(_) => Code::LIMITED_CONNECTIVITY,
            Self::Internal(_) => INTERNAL,
        }
    }

    /// `details` of the error object: what the one-line message has no room for.
    pub(crate) fn details(&self) -> String {
        match self {
            Self::Agent {
                error: CallError::Status { code, .. },
                ..
            } => format!("gRPC status {code:?}"),
            _ => String::new(),
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
