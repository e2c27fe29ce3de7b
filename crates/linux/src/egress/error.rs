//! Why a pod's egress link could not be made, unmade or checked.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::netlink::NetlinkError;
use crate::netns::NetnsError;
use crate::sysctl::SysctlError;

/// The parts of the work, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Looking at what is there.
    Look,
    /// Letting the node forward.
    Forwarding,
    /// Deleting a link that an earlier ADD of the container left.
    Stale,
    /// Making the veth pair.
    Veth,
    /// Kernel parameters of both ends.
    Parameters,
    /// Address, routes and neighbour in the pod.
    Pod,
    /// Address, route and neighbour on the host.
    Host,
    /// Taking it away.
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Look => "reading the egress link",
            Self::Forwarding => "letting the node forward",
            Self::Stale => "removing an earlier egress link of the container",
            Self::Veth => "making the egress link",
            Self::Parameters => "setting the egress link's kernel parameters",
            Self::Pod => "setting up the pod's end of the egress link",
            Self::Host => "setting up the host's end of the egress link",
            Self::Remove => "removing the egress link",
        })
    }
}

/// A pod's egress link could not be made, unmade or checked. After an error of [`super::add()`] the kernel is as before the
/// call, but for what `undo` names.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// An interface with the wanted name exists in the pod. Nothing was changed.
    #[error("interface {name} exists already in network namespace {}; was ADD called twice for this container?", .netns.display())]
    NameTaken {
        /// The interface's name.
        name: String,
        /// The namespace's path.
        netns: PathBuf,
    },
    /// A link of the host has the wanted name, but is no veth. Nothing was changed.
    #[error("the host has a {kind} link named {name}, which is not a pod's; it is left alone, so rename it")]
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
    #[error("link {name} vanished while it was being set up{}", undone(.undo))]
    Vanished {
        /// The link.
        name: String,
        /// What could not be undone.
        undo: Vec<String>,
    },
    /// An IPv6 address did not become usable.
    #[error("address {address} did not become usable in the pod; is the node overloaded?{}", undone(.undo))]
    NotReady {
        /// The address.
        address: IpAddr,
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

impl EgressError {
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

    pub(super) fn sysctl(step: Step) -> impl Fn(SysctlError) -> Self {
        move |source| Self::Sysctl {
            step,
            source,
            undo: Vec::new(),
        }
    }

    pub(super) fn with_undo(mut self, left: Vec<String>) -> Self {
        if let Self::Kernel { undo, .. }
        | Self::Sysctl { undo, .. }
        | Self::Vanished { undo, .. }
        | Self::NotReady { undo, .. } = &mut self
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
