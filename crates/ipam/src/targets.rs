//! What the operator wants of the pool, what the machine allows, and who the pool belongs to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::CardIndex;
use crate::overrides::TargetOverrides;
use crate::subnets::Subnets;

/// How pods get their addresses. Only what this pool can do exists: see [`Mode::of`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Mode {
    /// Each pod has a secondary IPv4 address of an interface.
    #[default]
    SecondaryIp,
    /// `ENABLE_PREFIX_DELEGATION`: each pod has an address of a /28 prefix of an interface; of a secondary address where
    /// the subnets have no free /28.
    Prefixes,
    /// `ENABLE_IPv6`: each pod has an address of a /80 prefix of the primary interface, on other cards of one interface
    /// each. The targets have no meaning there.
    Ipv6,
}

impl Mode {
    /// The mode the AWS VPC CNI's switches `ENABLE_PREFIX_DELEGATION` and `ENABLE_IPv6` ask for.
    ///
    /// # Errors
    /// [`ConfigError::Mode`] for a mode this pool does not manage.
    pub fn of(prefix_delegation: bool, ipv6: bool) -> Result<Self, ConfigError> {
        match (prefix_delegation, ipv6) {
            (false, false) => Ok(Self::SecondaryIp),
            (true, true) => Ok(Self::Ipv6),
            // As in the original.
            (false, true) => Err(ConfigError::Mode {
                mode: "IPv6 without prefixes",
                variable: "ENABLE_IPv6, or set ENABLE_PREFIX_DELEGATION",
            }),
            (true, false) => Ok(Self::Prefixes),
        }
    }
}

/// The pool cannot be built from this.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A mode that is not managed.
    #[error("{mode} is not managed by this agent; unset {variable}")]
    Mode {
        /// For people.
        mode: &'static str,
        /// The variable that asked for it.
        variable: &'static str,
    },
    /// The limits name no network card.
    #[error("the instance limits name no network card; without its limits no interface can be planned")]
    NoCard,
    /// One card is named twice.
    #[error("the instance limits name network card {card} twice; its interfaces would be counted twice")]
    SameCard {
        /// Which.
        card: CardIndex,
    },
    /// Interfaces without room for a pod's address.
    #[error(
        "{per_interface} IPv4 addresses an interface leave none for pods: the first is the interface's own"
    )]
    NoRoom {
        /// `ipv4_per_interface`.
        per_interface: u32,
    },
}

/// What the pool aims at. Names and meaning are those of the AWS VPC CNI's environment variables.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Targets {
    /// `WARM_ENI_TARGET`: this many interfaces' worth of free addresses; 0: grow when none is free. Without effect when
    /// `warm_ip` or `minimum_ip` is set.
    pub warm_eni: u32,
    /// `WARM_IP_TARGET`: this many free addresses; `None` or 0: not set.
    pub warm_ip: Option<u32>,
    /// `MINIMUM_IP_TARGET`: at least this many addresses in all; `None` or 0: not set.
    pub minimum_ip: Option<u32>,
    /// `WARM_PREFIX_TARGET`: this many wholly free prefixes; `None` or 0: grow when no address is free. With prefixes only,
    /// and without effect when `warm_ip` or `minimum_ip` is set.
    pub warm_prefix: Option<u32>,
    /// `MAX_ENI`: no more interfaces than this; counts only if at least 1 and below the instance's limit.
    pub max_eni: Option<u32>,
    /// The kubelet's `max-pods`: at this many addresses the pool stops growing. It never makes it shrink.
    pub max_pods: u32,
    /// `IP_COOLDOWN_PERIOD`: an address a pod gave back is given to nobody for this long.
    pub cooldown: Duration,
    /// The warm pool is sized by what comes, not by the targets above: as many free addresses as pods came in the busiest of
    /// the last ten minutes, a sixteenth of max-pods at least, one where a subnet runs low.
    pub auto: bool,
    /// How pods get their addresses.
    pub mode: Mode,
    /// False (`DISABLE_NETWORK_RESOURCE_PROVISIONING`, or the agent is stopping): the pool neither grows nor shrinks.
    pub provisioning: bool,
    /// `ENABLE_IMDS_ONLY_MODE`: EC2 is not asked anything. Implies that provisioning is off. IMDS's word then counts as
    /// EC2's does elsewhere: nothing of ours can be ahead of it.
    pub imds_only: bool,
    /// The node is cordoned and `AWS_MANAGE_ENIS_NON_SCHEDULABLE` is not set: no growth, and no interface is freed; single
    /// addresses and prefixes are given back.
    pub unschedulable: bool,
    /// `ENABLE_POD_ENI` on a type that can have a trunk interface: one interface's place is kept free for it until it is
    /// there.
    pub reserve_trunk_slot: bool,
    /// Which subnets pods' addresses may come from.
    pub subnets: Subnets,
    /// How long an ADD may wait; the executor makes the deadline of `PodWants` from it.
    pub pod_wait: Duration,
    /// What this node does otherwise than all do. It is in force already: this is only for people to see.
    pub overrides: TargetOverrides,
}

impl Default for Targets {
    /// The defaults the AWS VPC CNI ships.
    fn default() -> Self {
        Self {
            warm_eni: 1,
            warm_ip: None,
            minimum_ip: None,
            warm_prefix: None,
            max_eni: None,
            max_pods: 110,
            cooldown: Duration::from_secs(30),
            auto: false,
            mode: Mode::SecondaryIp,
            provisioning: true,
            imds_only: false,
            unschedulable: false,
            reserve_trunk_slot: false,
            subnets: Subnets::default(),
            pod_wait: Duration::from_secs(60),
            overrides: TargetOverrides::default(),
        }
    }
}

impl Targets {
    /// Does the pool ask EC2 for more, or give back?
    #[must_use]
    pub fn provisions(&self) -> bool {
        self.provisioning && !self.imds_only
    }

    /// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET` when either is set; the unset one counts 0.
    #[must_use]
    pub fn ip_targets(&self) -> Option<(u32, u32)> {
        let (warm, minimum) = (self.warm_ip.unwrap_or(0), self.minimum_ip.unwrap_or(0));
        (warm != 0 || minimum != 0).then_some((warm, minimum))
    }
}

/// A network card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CardLimits {
    /// Its index.
    pub card: CardIndex,
    /// How many interfaces it takes, the primary one counted.
    pub interfaces: u32,
}

impl CardLimits {
    /// Interfaces it may have under `MAX_ENI`, which counts for each card.
    pub(crate) fn under(&self, targets: &Targets) -> u32 {
        match targets.max_eni {
            Some(max) if max >= 1 => self.interfaces.min(max),
            _ => self.interfaces,
        }
    }
}

/// What the instance type allows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// The cards this pool manages: the primary interface's, and with `ENABLE_MULTI_NIC` the others. Interfaces on cards
    /// that are not named are left alone.
    pub cards: Vec<CardLimits>,
    /// IPv4 addresses an interface holds, its own included; a /28 prefix takes the room of one.
    pub ipv4_per_interface: u32,
}

impl Limits {
    /// Addresses for pods an interface holds.
    #[must_use]
    pub fn per_eni(&self) -> u32 {
        self.ipv4_per_interface.saturating_sub(1)
    }

    /// The first card: the primary interface's.
    pub(crate) fn card(&self) -> CardLimits {
        self.cards.first().copied().unwrap_or_default()
    }

    /// Interfaces the managed cards may have under `targets`.
    #[must_use]
    pub fn max_interfaces(&self, targets: &Targets) -> u32 {
        self.cards.iter().map(|c| c.under(targets)).sum()
    }

    /// The same limits, the cards in order.
    pub(crate) fn checked(mut self) -> Result<Self, ConfigError> {
        self.cards.sort_by_key(|c| c.card);
        if self.cards.is_empty() {
            return Err(ConfigError::NoCard);
        }
        if self.ipv4_per_interface < 2 {
            return Err(ConfigError::NoRoom {
                per_interface: self.ipv4_per_interface,
            });
        }
        let pairs = self.cards.iter().zip(self.cards.iter().skip(1));
        if let Some((twice, _)) = pairs.into_iter().find(|(a, b)| a.card == b.card) {
            return Err(ConfigError::SameCard { card: twice.card });
        }
        Ok(self)
    }
}

/// Whose pool it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Identity {
    /// `i-…`. A journal of another instance (a cloned disk) is not used.
    pub instance_id: String,
    /// Makes client tokens differ from those of an earlier life whose journal was lost. Tokens that are in the journal
    /// are kept as they are.
    pub token_salt: String,
    /// The kernel's `boot_id`. A [`crate::Mono`] means nothing in another boot.
    pub boot_id: String,
}
