//! What is odd at a start, for people.

use std::fmt;
use std::net::IpAddr;

use crate::graces::GRACE;
use crate::ids::{PodKey, PodMeta};

/// Something an operator may want to know about a start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestoreNote {
    /// The journal was not used.
    JournalDiscarded {
        /// Why.
        why: String,
    },
    /// The kernel shows no link of an owner, or one that leads to another sandbox of its pod.
    Unconfirmed {
        /// Which.
        key: PodKey,
        /// Its pod.
        meta: PodMeta,
        /// Its address, kept for the grace.
        address: IpAddr,
    },
    /// The kernel shows a pod's address that the checkpoint does not name.
    Rebuilt {
        /// Its address.
        address: IpAddr,
        /// Its host veth.
        host_veth: String,
    },
    /// The checkpoint names an owner, and the kernel shows another pod with the address: the checkpoint is the older.
    Stale {
        /// Whom the checkpoint names.
        key: PodKey,
        /// Its pod.
        meta: PodMeta,
        /// The address, kept for the pod that has it.
        address: IpAddr,
        /// That pod's host veth.
        host_veth: String,
    },
    /// An owner's address is on no interface that is known.
    Orphan {
        /// Which.
        key: PodKey,
        /// Its address, given to nobody else.
        address: IpAddr,
    },
    /// An EC2 call of the earlier life is settled or repeated.
    Resumed {
        /// What.
        what: String,
    },
}

impl fmt::Display for RestoreNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JournalDiscarded { why } => write!(f, "own state not used: {why}"),
            Self::Unconfirmed { key, meta, address } => write!(
                f,
                "{address} of pod {meta} (sandbox {key}): the kernel shows no link that leads to it; given up in {} s if none shows up",
                GRACE.as_secs()
            ),
            Self::Rebuilt { address, host_veth } => {
                write!(
                    f,
                    "{address} is in use behind {host_veth} but not in the checkpoint: kept for that pod"
                )
            }
            Self::Stale {
                key,
                meta,
                address,
                host_veth,
            } => write!(
                f,
                "{address} of pod {meta} (sandbox {key}) is in use behind {host_veth}, which is not its link: kept for the pod that has it"
            ),
            Self::Orphan { key, address } => {
                write!(
                    f,
                    "{address} of sandbox {key} is on no interface that is known: kept, given to nobody else"
                )
            }
            Self::Resumed { what } => write!(f, "the {what} of the earlier life is taken up again"),
        }
    }
}
