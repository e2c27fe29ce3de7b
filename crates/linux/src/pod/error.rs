//! Why a pod's interfaces could not be made, unmade or checked.

use std::fmt;
use std::path::PathBuf;

use crate::netlink::NetlinkError;
use crate::netns::NetnsError;
use crate::sysctl::SysctlError;

/// The parts of the work, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Opening a socket in the pod's namespace and looking at the names in it.
    Look,
    /// Deleting the host link that an earlier pod of the same name left.
    Stale,
    /// Making the veth pair.
    Veth,
    /// IPv6 parameters of the host's end.
    Sysctl,
    /// Address, routes and neighbour in the pod.
    Pod,
    /// Route and rules of the host.
    Host,
    /// Taking the host's route and rules away.
    Remove,
    /// Reading the state back.
    Check,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Look => "looking into the pod's namespace",
            Self::Stale => "removing the link of an earlier pod",
            Self::Veth => "making the veth pair",
            Self::Sysctl => "setting up the host's end",
            Self::Pod => "setting up the pod's end",
            Self::Host => "routing to the pod",
            Self::Remove => "removing the pod's route and rules",
            Self::Check => "reading the pod's network",
        })
    }
}

/// A pod's interfaces could not be made, unmade or checked. After an error of [`super::add()`] the kernel is as before the
/// call, but for what `undo` names.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// A value cannot be used. Nothing was changed.
    #[error("{field} \"{value}\" cannot be used: {reason}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The pod's namespace is the host's: its network would be rewritten. Nothing was changed.
    #[error("network namespace {} is the host's own, not a pod's; pods of the host's network need no CNI", .path.display())]
    HostNamespace {
        /// The path as given.
        path: PathBuf,
    },
    /// An interface with the wanted name exists in the pod. Nothing was changed.
    #[error("interface {name} exists already in network namespace {}; was ADD called twice for this container?", .netns.display())]
    NameTaken {
        /// The interface's name.
        name: String,
        /// The namespace's path.
        netns: PathBuf,
    },
    /// A link of the host has the wanted name, but is no veth, so no earlier pod's. Nothing was changed.
    #[error(
        "the host has a {kind} link named {name}, which is not a pod's; it is left alone, so rename it or choose another vethPrefix"
    )]
    HostNameTaken {
        /// The link's name.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// The pod's namespace cannot be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refused.
    #[error("{step}: {source}{}", undone(.undo))]
    Kernel {
        /// Where.
        step: Step,
        /// What.
        source: NetlinkError,
        /// What could not be undone.
        undo: Vec<String>,
    },
    /// A kernel parameter could not be set.
    #[error("{step}: {source}{}", undone(.undo))]
    Sysctl {
        /// Where.
        step: Step,
        /// What.
        source: SysctlError,
        /// What could not be undone.
        undo: Vec<String>,
    },
    /// A link vanished while it was being set up: something else on this machine deletes links.
    #[error("{step}: link {name} vanished while it was being set up{}", undone(.undo))]
    Vanished {
        /// Where.
        step: Step,
        /// The link.
        name: String,
        /// What could not be undone.
        undo: Vec<String>,
    },
    /// An IPv6 address did not become usable.
    #[error("address {address} did not become usable in the pod; is the node overloaded?{}", undone(.undo))]
    NotReady {
        /// The address.
        address: std::net::IpAddr,
        /// What could not be undone.
        undo: Vec<String>,
    },
}

fn undone(left: &[String]) -> String {
    if left.is_empty() {
        String::new()
    } else {
        format!("; and could not be undone: {}", left.join("; "))
    }
}

impl PodError {
    pub(super) fn kernel(step: Step) -> impl Fn(NetlinkError) -> Self {
        move |source| match source {
            NetlinkError::Netns(error) => Self::Netns(error),
            source => Self::Kernel {
                step,
                source,
                undo: Vec::new(),
            },
        }
    }

    pub(super) fn with_undo(mut self, left: Vec<String>) -> Self {
        if let Self::Kernel { undo, .. } | Self::Sysctl { undo, .. } | Self::Vanished { undo, .. } = &mut self
        {
            *undo = left;
        }
        self
    }

    /// What could not be undone, in words; empty if the kernel is as before.
    pub fn left_behind(&self) -> &[String] {
        match self {
            Self::Kernel { undo, .. }
            | Self::Sysctl { undo, .. }
            | Self::Vanished { undo, .. }
            | Self::NotReady { undo, .. } => undo,
            _ => &[],
        }
    }
}
