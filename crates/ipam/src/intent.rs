//! Intents: what the pool set out to do with EC2. Written down before the call, settled after it, so that a crash
//! between the two leaves a record and not a leak. An intent outlives the actions that try it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::arithmetic::PREFIX_SIZE;
use crate::backoff::Block;
use crate::event::{ActionId, FailureClass, Stage};
use crate::ids::{CardIndex, DeviceIndex, EniId, SubnetId};
use crate::kind::Kind;
use crate::time::Mono;

/// Something that fails this often is no longer counted on.
const HOPE: u32 = 3;

/// An intent. Never reused, also not after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct IntentId(pub(crate) u64);

/// What is to be done, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) what: What,
    pub(crate) since: Mono,
    pub(crate) phase: Phase,
    /// Failures so far, and the last one.
    pub(crate) trouble: Option<Block>,
}

/// Is an executor at it?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// By this action.
    Running(ActionId),
    /// Not before this time.
    Paused(Mono),
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// A new interface.
    Create(Create),
    /// More addresses.
    Assign {
        /// On this interface,
        eni: EniId,
        /// this many
        count: u32,
        /// of these.
        #[serde(default)]
        kind: Kind,
    },
    /// A /80.
    AssignIpv6 {
        /// On this interface.
        eni: EniId,
    },
    /// Giving addresses back; they are [`crate::interface::State::Leaving`].
    Release {
        /// From this interface,
        eni: EniId,
        /// these,
        addresses: Vec<Ipv4Addr>,
        /// or these.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        prefixes: Vec<Ipv4Net>,
        /// An earlier life may have done it already.
        unsure: bool,
    },
    /// Detaching and deleting.
    Delete {
        /// This interface.
        eni: EniId,
        /// It was never used, but may be attached on this card
        #[serde(default)]
        card: CardIndex,
        /// at this position.
        device: Option<DeviceIndex>,
    },
    /// Asking EC2 what an interface holds.
    Describe {
        /// This one.
        eni: EniId,
        /// Single addresses that an assignment of unknown effect may have brought,
        unsure: u32,
        /// and prefixes.
        #[serde(default)]
        unsure_prefixes: u32,
        /// Asked because a call about its addresses went wrong: until it is answered none are added to it.
        doubt: bool,
    },
}

/// A new interface in the making.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) card: CardIndex,
    pub(crate) device: DeviceIndex,
    /// `None`: the primary interface's, in what earlier versions began. A repeat has to name the same.
    pub(crate) subnet: Option<SubnetId>,
    /// Empty: the primary interface's.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// The subnet it will lie in.
    pub(crate) lies_in: SubnetId,
    pub(crate) addresses: u32,
    #[serde(default)]
    pub(crate) prefixes: u32,
    pub(crate) client_token: String,
    pub(crate) done: Vec<Stage>,
    /// An attempt's answer was lost: the interface may exist.
    pub(crate) unsure: bool,
}

impl Create {
    /// The interface EC2 made for it, if it came that far.
    pub(crate) fn created(&self) -> Option<&EniId> {
        self.done.iter().find_map(|s| match s {
            Stage::Created { eni } => Some(eni),
            Stage::Attached { .. } => None,
        })
    }

    /// What its interface will hold.
    pub(crate) fn kind(&self) -> Kind {
        if self.prefixes > 0 {
            Kind::Prefix
        } else {
            Kind::Address
        }
    }

    /// How much of it.
    pub(crate) fn count(&self) -> u32 {
        self.addresses.saturating_add(self.prefixes)
    }
}

impl Intent {
    /// Addresses it will bring, if it goes well.
    pub(crate) fn brings(&self) -> u32 {
        let (addresses, prefixes) = self.bears();
        addresses.saturating_add(prefixes.saturating_mul(PREFIX_SIZE))
    }

    /// The same as single addresses and prefixes: each takes the room of one.
    pub(crate) fn bears(&self) -> (u32, u32) {
        match &self.what {
            What::Create(c) => (c.addresses, c.prefixes),
            What::Assign { count, kind, .. } => match kind {
                Kind::Address => (*count, 0),
                Kind::Prefix => (0, *count),
            },
            What::Describe {
                unsure,
                unsure_prefixes,
                ..
            } => (*unsure, *unsure_prefixes),
            What::AssignIpv6 { .. } | What::Release { .. } | What::Delete { .. } => (0, 0),
        }
    }

    /// May it still go well soon?
    pub(crate) fn hopeful(&self) -> bool {
        let passing = |class| {
            matches!(
                class,
                FailureClass::Retry | FailureClass::Throttled | FailureClass::NotBegun
            )
        };
        self.trouble
            .as_ref()
            .is_none_or(|t| passing(t.class) && t.failures < HOPE)
    }

    /// The interface it is about, if that exists already.
    pub(crate) fn eni(&self) -> Option<&EniId> {
        match &self.what {
            What::Create(_) => None,
            What::Assign { eni, .. }
            | What::AssignIpv6 { eni }
            | What::Release { eni, .. }
            | What::Delete { eni, .. }
            | What::Describe { eni, .. } => Some(eni),
        }
    }

    /// The action that is at it.
    pub(crate) fn running(&self) -> Option<ActionId> {
        match self.phase {
            Phase::Running(action) => Some(action),
            Phase::Paused(_) => None,
        }
    }

    /// When it can go on: now if an executor is at it.
    pub(crate) fn ready_at(&self, now: Mono) -> Mono {
        match self.phase {
            Phase::Running(_) => now,
            Phase::Paused(until) => until.max(now),
        }
    }

    /// The action that tries it.
    pub(crate) fn action(&self, id: ActionId) -> Action {
        match &self.what {
            What::Create(c) => Action::CreateInterface {
                id,
                card: c.card,
                device: c.device,
                subnet: c.subnet.clone(),
                groups: c.groups.clone(),
                addresses: c.addresses,
                prefixes: c.prefixes,
                client_token: c.client_token.clone(),
                done: c.done.clone(),
            },
            What::Assign { eni, count, kind } => match kind {
                Kind::Address => Action::AssignAddresses {
                    id,
                    eni: eni.clone(),
                    count: *count,
                },
                Kind::Prefix => Action::AssignPrefixes {
                    id,
                    eni: eni.clone(),
                    count: *count,
                },
            },
            What::AssignIpv6 { eni } => Action::AssignIpv6Prefix { id, eni: eni.clone() },
            What::Release { eni, prefixes, .. } if !prefixes.is_empty() => Action::ReleasePrefixes {
                id,
                eni: eni.clone(),
                prefixes: prefixes.clone(),
            },
            What::Release { eni, addresses, .. } => Action::ReleaseAddresses {
                id,
                eni: eni.clone(),
                addresses: addresses.clone(),
            },
            What::Delete { eni, .. } => Action::DeleteInterface { id, eni: eni.clone() },
            What::Describe { eni, .. } => Action::Describe { id, eni: eni.clone() },
        }
    }

    /// For people.
    pub(crate) fn title(&self) -> String {
        match &self.what {
            What::Create(c) => {
                let (count, of) = (c.count(), c.kind());
                format!(
                    "creation of an interface at device {} with {count} {of}",
                    c.device
                )
            }
            What::AssignIpv6 { eni } => format!("assignment of a /80 to {eni}"),
            What::Assign { eni, count, kind } => format!("assignment of {count} {kind} to {eni}"),
            What::Release { eni, prefixes, .. } if !prefixes.is_empty() => {
                format!("release of {} prefixes of {eni}", prefixes.len())
            }
            What::Release { eni, addresses, .. } => {
                format!("release of {} addresses of {eni}", addresses.len())
            }
            What::Delete { eni, .. } => format!("deletion of {eni}"),
            What::Describe { eni, .. } => format!("question what {eni} holds"),
        }
    }
}
