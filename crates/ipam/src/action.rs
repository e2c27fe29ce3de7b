//! What the pool decides: actions for the executors, and answers for the callers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::event::{ActionId, RequestId};
use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta, SubnetId};

/// Something to be done. Executors may fail or repeat; they report back by events that carry the same id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Create an interface, attach it, set delete-on-termination, wait for its link, set the link up.
    CreateInterface {
        /// Reported back with it.
        id: ActionId,
        /// On this card,
        card: CardIndex,
        /// at this free device index.
        device: DeviceIndex,
        /// In this subnet; `None` (in what earlier versions began): the primary interface's.
        subnet: Option<SubnetId>,
        /// With these security groups; empty: the primary interface's.
        groups: Vec<String>,
        /// With this many secondary addresses,
        addresses: u32,
        /// or with this many /28 prefixes.
        prefixes: u32,
        /// `ClientToken` (at most 64 ASCII characters): the same for every repeat of this intent, so a lost answer makes no second one.
        client_token: String,
        /// How far an earlier life of the agent came with it.
        done: Vec<crate::event::Stage>,
    },
    /// Add secondary addresses (`AssignPrivateIpAddresses`).
    AssignAddresses {
        /// Reported back with it.
        id: ActionId,
        /// To this interface,
        eni: EniId,
        /// this many.
        count: u32,
    },
    /// Add /28 prefixes (`AssignPrivateIpAddresses` with `Ipv4PrefixCount`).
    AssignPrefixes {
        /// Reported back with it.
        id: ActionId,
        /// To this interface,
        eni: EniId,
        /// this many.
        count: u32,
    },
    /// Add one /80 (`AssignIpv6Addresses` with `Ipv6PrefixCount` 1).
    AssignIpv6Prefix {
        /// Reported back with it.
        id: ActionId,
        /// To this interface.
        eni: EniId,
    },
    /// Give secondary addresses back (`UnassignPrivateIpAddresses`). None of them has an owner or is cooling.
    ReleaseAddresses {
        /// Reported back with it.
        id: ActionId,
        /// From this interface,
        eni: EniId,
        /// these.
        addresses: Vec<Ipv4Addr>,
    },
    /// Give prefixes back.
    ReleasePrefixes {
        /// Reported back with it.
        id: ActionId,
        /// From this interface,
        eni: EniId,
        /// these.
        prefixes: Vec<Ipv4Net>,
    },
    /// Detach and delete an interface that no pod uses.
    DeleteInterface {
        /// Reported back with it.
        id: ActionId,
        /// This one.
        eni: EniId,
    },
    /// Ask EC2 what an interface really holds: evidence contradicts us, or a call's effect is unknown.
    Describe {
        /// Reported back with it.
        id: ActionId,
        /// This one.
        eni: EniId,
    },
    /// Answer a caller. Sent only after a checkpoint that holds what it says was written.
    Reply {
        /// Which caller.
        request: RequestId,
        /// Its answer.
        answer: Answer,
    },
}

impl Action {
    /// What it is reported back by; a reply is not.
    #[must_use]
    pub fn id(&self) -> Option<ActionId> {
        match self {
            Self::CreateInterface { id, .. }
            | Self::AssignAddresses { id, .. }
            | Self::AssignPrefixes { id, .. }
            | Self::AssignIpv6Prefix { id, .. }
            | Self::ReleaseAddresses { id, .. }
            | Self::ReleasePrefixes { id, .. }
            | Self::DeleteInterface { id, .. }
            | Self::Describe { id, .. } => Some(*id),
            Self::Reply { .. } => None,
        }
    }
}

/// The answer to a caller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// ADD: these addresses, one a card asked for.
    Assigned(Vec<Lease>),
    /// DEL: these were given back.
    Released(Vec<Lease>),
    /// DEL: no such owner (nothing to do; not an error for the runtime).
    UnknownPod,
    /// ADD: no, and why.
    Refused(Refusal),
}

/// An address in a pod's hands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// The interface whose address it is.
    pub eni: EniId,
    /// Its position.
    pub device: DeviceIndex,
    /// Its card.
    pub card: CardIndex,
    /// The routing table of that interface: 254 (main) for the primary, see [`crate::route_table`].
    pub route_table: u32,
    /// The sandbox.
    pub key: PodKey,
    /// The pod.
    pub meta: PodMeta,
    /// Which of the pod's interfaces has it, from 0; `None`: not known, as addresses of the pod are missing, or none, as the pod
    /// has a later sandbox whose links took the place.
    pub interface: Option<u32>,
}

/// Why a pod gets no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RefusalCause {
    /// All interfaces the instance can have are full.
    InstanceFull,
    /// No subnet has an address left.
    SubnetExhausted,
    /// EC2 throttles us.
    Throttled,
    /// EC2 does not answer, or not sensibly.
    Ec2Unreachable,
    /// EC2 refuses the call.
    Ec2Refused,
    /// Free addresses exist but are cooling down.
    CoolingDown,
    /// The deadline passed while an action that would have served it was under way.
    StillWorking,
    /// A target (max-pods, MAX_ENI) forbids more.
    TargetReached,
    /// A DEL for the same sandbox came while it waited.
    Deleted,
    /// The checkpoint could not be written.
    CheckpointFailed,
    /// The request itself is wrong.
    BadRequest,
}

/// A refusal: what, which thing, and when it is tried again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub cause: RefusalCause,
    /// For people: one sentence that names the thing (subnet, interface, EC2's code and message).
    pub message: String,
    /// When the pool itself tries again, from now; `None`: when something changes.
    pub retry_in: Option<Duration>,
}
