//! Owners of addresses, and pods that wait to become one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::action::{Lease, RefusalCause};
use crate::event::{Cards, RequestId};
use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta};
use crate::time::Mono;
use crate::why::Why;

/// Network name of owners that are not known by their sandbox. The AWS VPC CNI uses it for pods of the time before its
/// checkpoint and looks for it at DEL.
pub const MIGRATED_NETWORK: &str = "_migrated-from-cri";
/// Interface name of such owners.
pub const UNKNOWN_INTERFACE: &str = "unknown";

/// The key of an owner of which only the host veth is known.
#[must_use]
pub fn rebuilt_key(host_veth: &str) -> PodKey {
    PodKey {
        network: MIGRATED_NETWORK.to_owned(),
        container_id: host_veth.to_owned(),
        if_name: UNKNOWN_INTERFACE.to_owned(),
    }
}

/// How sure it is that an owner lives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// It asked for its address in this life of the agent, or nothing could show that it is gone.
    Confirmed,
    /// The checkpoint names it, and the kernel has shown its link.
    Seen,
    /// The checkpoint names it and the kernel does not show it: its plugin may be between our reply and the veth.
    Unconfirmed {
        /// Then it is given up.
        until: Mono,
    },
    /// The kernel shows it and the checkpoint does not name it. Its key holds its host veth's name.
    Rebuilt {
        /// A new sandbox of the same pod was given an address: the plugin replaces the veth, which ends this one.
        superseded: Option<Superseded>,
    },
}

/// Who takes a rebuilt owner's veth over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Superseded {
    pub(crate) by: PodKey,
    pub(crate) at: Mono,
}

/// An owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) meta: PodMeta,
    pub(crate) held: Vec<Held>,
    pub(crate) standing: Standing,
}

/// An address in an owner's hands, with the place it has or, if its interface is not known now, had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) address: IpAddr,
    /// Empty: never known.
    pub(crate) eni: EniId,
    pub(crate) device: DeviceIndex,
    pub(crate) card: CardIndex,
    pub(crate) table: u32,
    /// Nanoseconds since the Unix epoch; 0: not known.
    pub(crate) allocated_ns: i64,
    /// Why this address; not known of owners of an earlier life.
    #[serde(default)]
    pub(crate) why: Option<Why>,
}

impl Owner {
    pub(crate) fn leases(&self, key: &PodKey) -> Vec<Lease> {
        let complete = !self.lacks_addresses();
        let held = self.held.iter().zip(0..);
        held.map(|(h, n)| h.lease(key, &self.meta, complete.then_some(n)))
            .collect()
    }

    /// When it was given its last address; 0: not known.
    pub(crate) fn allocated_ns(&self) -> i64 {
        self.held.iter().map(|h| h.allocated_ns).max().unwrap_or_default()
    }

    /// Addresses in the order of the pod's interfaces, which is that of the cards.
    pub(crate) fn sort(&mut self) {
        self.held.sort_by_key(|held| held.card);
    }

    /// A pod of several network cards of which not every address is known: files of some cards are lost, or the agent ended
    /// between writing one and the next.
    pub(crate) fn lacks_addresses(&self) -> bool {
        crate::plan::count(self.held.len()) < self.meta.interfaces
    }

    pub(crate) fn is_rebuilt(&self) -> bool {
        matches!(self.standing, Standing::Rebuilt { .. })
    }
}

impl Held {
    fn lease(&self, key: &PodKey, meta: &PodMeta, interface: Option<u32>) -> Lease {
        Lease {
            address: self.address,
            eni: self.eni.clone(),
            device: self.device,
            card: self.card,
            route_table: self.table,
            key: key.clone(),
            meta: meta.clone(),
            interface,
        }
    }
}

/// A sandbox that waits for an address. Several callers may ask for the same one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Wait {
    pub(crate) key: PodKey,
    pub(crate) meta: PodMeta,
    pub(crate) cards: Cards,
    pub(crate) since: Mono,
    pub(crate) askers: Vec<Asker>,
    /// What it would be told were its time up.
    pub(crate) cause: RefusalCause,
}

/// One caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Asker {
    pub(crate) request: RequestId,
    pub(crate) deadline: Mono,
}

impl Wait {
    /// The last of its callers' deadlines: until then an address is of use.
    pub(crate) fn deadline(&self) -> Mono {
        self.askers.iter().map(|a| a.deadline).max().unwrap_or_default()
    }
}
