//! What the pool is told. Every event is a value, so that a run can be recorded and replayed.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta, SubnetId};
use crate::kernel::HostRoute;
use crate::time::Mono;

/// One waiting caller. Unique for the life of the agent; the executor finds the caller's channel by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// One action handed to an executor and not yet reported back. Never reused, also not after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u64);

/// What an interface is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum InterfaceKind {
    /// An ordinary interface: pods may have its addresses.
    #[default]
    Interface,
    /// The trunk that carries branch interfaces.
    Trunk,
    /// Elastic Fabric Adapter with an IP stack.
    Efa,
    /// Elastic Fabric Adapter without one: holds a slot, never an address.
    EfaOnly,
}

/// All that is known of one attached interface, from whichever source (own journal, IMDS, EC2, a create answer).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InterfaceFacts {
    /// Its id.
    pub id: EniId,
    /// Its MAC address, lower case, `02:00:00:00:00:01`.
    pub mac: String,
    /// Where it is attached on its card.
    pub device: DeviceIndex,
    /// Its card.
    pub card: CardIndex,
    /// Its subnet.
    pub subnet: SubnetId,
    /// The subnet's IPv4 CIDR: the gateway is its base + 1.
    pub subnet_cidr: Ipv4Net,
    /// Its own address; never handed to a pod.
    pub primary_address: Ipv4Addr,
    /// Is it the instance's primary interface (device 0 on card 0)?
    pub is_primary: bool,
    /// What it is for.
    pub kind: InterfaceKind,
    /// False for an interface somebody else looks after (tag `node.k8s.amazonaws.com/no_manage`).
    pub managed: bool,
    /// Secondary IPv4 addresses, the primary one not among them.
    pub addresses: Vec<Ipv4Addr>,
    /// Delegated IPv4 prefixes (/28).
    pub prefixes: Vec<Ipv4Net>,
    /// Delegated IPv6 prefixes (/80).
    pub ipv6_prefixes: Vec<Ipv6Net>,
    /// The routing table of its pods, where it is not [`crate::route_table`]'s: on network cards after the first the operating
    /// system's image may have set one up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
}

/// Where facts about an interface come from, and so what they may change (law 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Evidence {
    /// IMDS, which lags, may list what is gone and miss what is there: it adds, it never takes away.
    Imds,
    /// The answer of an EC2 call that we made about this interface just now.
    Ec2,
}

/// Which cards a pod's addresses come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Cards {
    /// One address, from the lowest card that has one.
    #[default]
    Any,
    /// One address from every managed card (multi-NIC pods).
    Every,
}

/// How an action failed, which decides what is tried next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FailureClass {
    /// Worth repeating: time-out, lost answer, 5xx, connection refused. Whether it took effect is unknown.
    Retry,
    /// `RequestLimitExceeded` and its like. Had no effect.
    Throttled,
    /// The subnet has no free address, or no free contiguous /28. Had no effect.
    SubnetExhausted,
    /// The interface or the instance is at its limit: EC2 and we disagree on what is there.
    LimitReached,
    /// Another interface, which we do not know, is attached at the device index. The one we made is there, unattached.
    DeviceTaken,
    /// What was decided no longer fits what the executor has learnt since (the subnet was excluded). Not tried: had no effect. It
    /// is decided anew.
    Overtaken,
    /// The executor could not begin, for a reason of its own (the journal could not be written). Had no effect.
    NotBegun,
    /// Not allowed, or the request is wrong: repeating it unchanged will not help.
    Refused,
    /// The thing named is gone.
    Gone,
}

/// What an action achieved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The interface is attached, its link is there and set up: pods can use it.
    InterfaceReady(InterfaceFacts),
    /// These addresses now belong to the interface.
    Assigned {
        /// Secondary addresses.
        addresses: Vec<Ipv4Addr>,
        /// /28 prefixes.
        prefixes: Vec<Ipv4Net>,
    },
    /// These IPv6 prefixes now belong to the interface.
    AssignedIpv6 {
        /// /80 prefixes.
        prefixes: Vec<Ipv6Net>,
    },
    /// Released or deleted, as asked.
    Gone,
    /// What EC2 says of the interface (answer to `Describe`); `None`: EC2 does not know it.
    Described(Option<InterfaceFacts>),
}

/// How far a `CreateInterface` has come; journalled, so that a crash leaves a record and not a leak.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Stage {
    /// `CreateNetworkInterface` answered.
    Created {
        /// The new interface.
        eni: EniId,
    },
    /// `AttachNetworkInterface` answered.
    Attached {
        /// `eni-attach-…`
        attachment: String,
    },
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// ADD: a pod wants an address by `deadline`.
    PodWants {
        /// The caller to answer.
        request: RequestId,
        /// Its sandbox.
        key: PodKey,
        /// Its name.
        meta: PodMeta,
        /// When the wait ends with a refusal.
        deadline: Mono,
        /// From which cards.
        cards: Cards,
    },
    /// The caller of a `PodWants` hung up before it was answered.
    RequestGone {
        /// Which caller.
        request: RequestId,
    },
    /// The reply to `request` could not be delivered, though it was decided: the caller had hung up.
    ReplyLost {
        /// Which caller.
        request: RequestId,
        /// Its sandbox. Its address stays with it until DEL or the next start, as after any ADD that failed late.
        key: PodKey,
    },
    /// DEL: the sandbox is going or gone.
    PodGone {
        /// The caller to answer.
        request: RequestId,
        /// Its sandbox.
        key: PodKey,
        /// Its name, by which an owner rebuilt from its host veth is found.
        meta: PodMeta,
    },
    /// An interface is there, as far as `evidence` goes.
    InterfaceSeen {
        /// What is known of it.
        facts: InterfaceFacts,
        /// Who says so.
        evidence: Evidence,
    },
    /// All interfaces `evidence` lists have been reported; those it did not list are worth a `Describe`. A pool that
    /// was not restored from a journal plans nothing before this: it would ask for what it is about to be shown.
    InterfacesListed {
        /// The whole list.
        ids: Vec<EniId>,
        /// Who says so.
        evidence: Evidence,
    },
    /// An action got further.
    Progress {
        /// Which.
        id: ActionId,
        /// How far.
        stage: Stage,
    },
    /// A call of an action failed in passing, and the executor is still at it. Ended by the action's next report, of whatever kind.
    Stalled {
        /// Which.
        id: ActionId,
        /// How.
        class: FailureClass,
        /// For people: EC2's code and message, or the transport's error.
        message: String,
        /// When the call is made again, if that is known.
        retry_at: Option<Mono>,
    },
    /// An action that had stalled goes on.
    Resumed {
        /// Which.
        id: ActionId,
    },
    /// An action ended well.
    ActionDone {
        /// Which.
        id: ActionId,
        /// With what.
        outcome: Outcome,
    },
    /// An action ended badly.
    ActionFailed {
        /// Which.
        id: ActionId,
        /// How.
        class: FailureClass,
        /// For people: EC2's code and message, or the transport's error.
        message: String,
        /// Not before this time (the shared back-off of the EC2 action).
        retry_at: Option<Mono>,
    },
    /// The targets changed.
    TargetsChanged(crate::targets::Targets),
    /// What a subnet has left.
    SubnetFacts {
        /// Which.
        subnet: SubnetId,
        /// `AvailableIpAddressCount`.
        free_addresses: u32,
        /// How many free /28s are among them, where somebody knows: EC2 does not say.
        free_prefixes: Option<u32>,
    },
    /// The checkpoint could not be written: what `keys` were just given is taken back, what `released` gave up is theirs
    /// again. The executor refuses their callers, whose answers it has not sent. Fed before any other event.
    CheckpointFailed {
        /// Owners added since the last good checkpoint.
        keys: Vec<PodKey>,
        /// DELs since the last good checkpoint whose owners must stay.
        released: Vec<PodKey>,
        /// Why.
        message: String,
    },
    /// The host veths there are now: confirms owners that could not be confirmed at start, and puts those in doubt that
    /// are known by their veth only.
    VethSeen {
        /// Host names of all links that may be a pod's, not only of new ones.
        names: Vec<String>,
        /// The host routes to pods there are now: a link bears its pod's name, so only its route tells whose sandbox's it is.
        #[serde(default)]
        pods: Vec<HostRoute>,
    },
    /// Time went by.
    Tick,
}
