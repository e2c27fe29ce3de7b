//! An interface and the addresses on it, as the pool keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::backoff::Block;
use crate::event::{InterfaceFacts, InterfaceKind};
use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta, SubnetId};
use crate::intent::IntentId;
use crate::names::route_table;
use crate::time::Mono;

/// How long after a pod gave an address back, and its cool-down ended, it is kept from EC2.
const UNDO: Duration = Duration::from_secs(1);

/// What may be done with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum State {
    /// It may be handed out.
    Free {
        /// Since when: the address that lay idle longest is handed out first.
        since: Mono,
    },
    /// A pod has it; `Pool::by_address` knows which.
    Owned,
    /// A pod gave it back; it may be handed out from `until` on. Nothing happens at that time: it is read, not ticked.
    Cooling {
        /// The end.
        until: Mono,
    },
    /// It is being given back to EC2.
    Leaving {
        /// By this intent.
        by: IntentId,
    },
}

/// An address of an interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) state: State,
    /// A pod has it, and the interface has not, as EC2 says, or may not, as it was about to be given back in an earlier life.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) disputed: bool,
    /// Only a list says it is here that may lag behind what a life without record gave back: nobody gets it before that is clear.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unsure: bool,
    /// Who had it last, for people and for undoing a release that could not be written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Box<LastOwner>>,
}

/// Who had an address before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LastOwner {
    pub(crate) key: PodKey,
    pub(crate) meta: PodMeta,
    pub(crate) allocated_ns: i64,
    pub(crate) released_ns: i64,
}

impl Address {
    pub(crate) fn free(since: Mono) -> Self {
        Self {
            state: State::Free { since },
            disputed: false,
            unsure: false,
            last: None,
        }
    }

    /// Is it in question whether the interface has it?
    pub(crate) fn is_doubted(&self) -> bool {
        self.disputed || self.unsure
    }

    /// Since when it could be handed out, if it can be now.
    pub(crate) fn idle_since(&self, now: Mono) -> Option<Mono> {
        match self.state {
            _ if self.is_doubted() => None,
            State::Free { since } => Some(since),
            State::Cooling { until } if until <= now => Some(until),
            _ => None,
        }
    }

    /// When its cool-down ends, if that lies ahead.
    pub(crate) fn cooling_until(&self, now: Mono) -> Option<Mono> {
        match self.state {
            State::Cooling { until } if until > now => Some(until),
            _ => None,
        }
    }

    /// Until when it is not given back to EC2, if that lies ahead: its cool-down, and a moment more when a pod had it, so
    /// that a release that could not be written down can be undone.
    pub(crate) fn rests_until(&self, now: Mono) -> Option<Mono> {
        let at = match self.state {
            State::Free { since } if self.last.is_some() => since.plus(UNDO),
            State::Cooling { until } => until.plus(UNDO),
            _ => return None,
        };
        Some(at).filter(|at| *at > now)
    }

    /// Is it part of the pool, whoever has it? One that is on its way out is not.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self.state, State::Leaving { .. })
    }
}

/// An attached interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) id: EniId,
    pub(crate) mac: String,
    pub(crate) device: DeviceIndex,
    pub(crate) card: CardIndex,
    pub(crate) subnet: SubnetId,
    pub(crate) subnet_cidr: Ipv4Net,
    pub(crate) primary_address: Ipv4Addr,
    pub(crate) is_primary: bool,
    pub(crate) kind: InterfaceKind,
    pub(crate) managed: bool,
    /// Its routing table, where that is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own_table: Option<u32>,
    pub(crate) addresses: BTreeMap<Ipv4Addr, Address>,
    /// Delegated prefixes. The addresses of each /28 are among `addresses`; others only take room.
    pub(crate) prefixes: BTreeSet<Ipv4Net>,
    pub(crate) ipv6_prefixes: BTreeSet<Ipv6Net>,
    /// Of a /80's addresses those that a pod has, or had lately.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) ipv6: BTreeMap<Ipv6Addr, Address>,
    /// When the pool first knew it.
    pub(crate) since: Mono,
    /// When EC2 last answered a call of ours that changed it: evidence that is not younger than the lag says nothing.
    pub(crate) sure_at: Option<Mono>,
    /// When EC2 is to be asked about it.
    pub(crate) verify_at: Option<Mono>,
    /// It is being detached and deleted.
    pub(crate) deleting: Option<IntentId>,
    /// Addresses given back lately: lagging evidence may still list them.
    pub(crate) departed: BTreeMap<Ipv4Addr, Mono>,
    /// The same for prefixes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) departed_prefixes: BTreeMap<Ipv4Net, Mono>,
    /// No addresses are asked for it before this ends.
    pub(crate) block: Option<Block>,
}

impl Interface {
    /// A new one, without addresses yet.
    pub(crate) fn new(facts: &InterfaceFacts, now: Mono) -> Self {
        Self {
            id: facts.id.clone(),
            mac: facts.mac.clone(),
            device: facts.device,
            card: facts.card,
            subnet: facts.subnet.clone(),
            subnet_cidr: facts.subnet_cidr,
            primary_address: facts.primary_address,
            is_primary: facts.is_primary,
            kind: facts.kind,
            managed: facts.managed,
            own_table: facts.table,
            addresses: BTreeMap::new(),
            prefixes: BTreeSet::new(),
            ipv6_prefixes: facts.ipv6_prefixes.iter().copied().collect(),
            ipv6: BTreeMap::new(),
            since: now,
            sure_at: None,
            verify_at: None,
            deleting: None,
            departed: BTreeMap::new(),
            departed_prefixes: BTreeMap::new(),
            block: None,
        }
    }

    /// What is known of it, in the form events have.
    pub(crate) fn facts(&self) -> InterfaceFacts {
        InterfaceFacts {
            id: self.id.clone(),
            mac: self.mac.clone(),
            device: self.device,
            card: self.card,
            subnet: self.subnet.clone(),
            subnet_cidr: self.subnet_cidr,
            primary_address: self.primary_address,
            is_primary: self.is_primary,
            kind: self.kind,
            managed: self.managed,
            addresses: self.singles().map(|(at, _)| *at).collect(),
            prefixes: self.prefixes.iter().copied().collect(),
            ipv6_prefixes: self.ipv6_prefixes.iter().copied().collect(),
            table: self.own_table,
        }
    }

    pub(crate) fn table(&self) -> u32 {
        self.own_table
            .unwrap_or_else(|| route_table(self.card, self.device))
    }

    /// May pods have its addresses?
    pub(crate) fn serves(&self, card: CardIndex) -> bool {
        self.managed && self.card == card && self.kind != InterfaceKind::EfaOnly && self.deleting.is_none()
    }

    /// May the pool ask for more addresses on it? The trunk's are left to branch interfaces.
    pub(crate) fn grows(&self, card: CardIndex) -> bool {
        self.serves(card) && self.kind != InterfaceKind::Trunk
    }

    /// Room for addresses, or for as many prefixes, given the limit without the interface's own.
    pub(crate) fn room(&self, per_eni: u32) -> u32 {
        let used = self.singles().count().saturating_add(self.prefixes.len());
        per_eni.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }

    /// Sorts interfaces in the order they are filled: primary, then by position.
    pub(crate) fn order(&self) -> (bool, CardIndex, DeviceIndex) {
        (!self.is_primary, self.card, self.device)
    }

    /// Every address that is kept, of both families.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Address> {
        self.addresses.values().chain(self.ipv6.values())
    }

    pub(crate) fn kept_mut(&mut self) -> impl Iterator<Item = &mut Address> {
        self.addresses.values_mut().chain(self.ipv6.values_mut())
    }

    pub(crate) fn address(&self, at: IpAddr) -> Option<&Address> {
        match at {
            IpAddr::V4(at) => self.addresses.get(&at),
            IpAddr::V6(at) => self.ipv6.get(&at),
        }
    }

    pub(crate) fn address_mut(&mut self, at: IpAddr) -> Option<&mut Address> {
        match at {
            IpAddr::V4(at) => self.addresses.get_mut(&at),
            IpAddr::V6(at) => self.ipv6.get_mut(&at),
        }
    }

    /// A pod has it from now on. Of a /80 any address may become one's.
    pub(crate) fn own(&mut self, at: IpAddr, since: Mono) {
        if let IpAddr::V6(v6) = at
            && self.ipv6_prefixes.iter().any(|p| p.contains(&v6))
        {
            self.ipv6.entry(v6).or_insert(Address::free(since));
        }
        if let Some(address) = self.address_mut(at) {
            address.state = State::Owned;
        }
    }

    pub(crate) fn owned(&self) -> usize {
        self.addresses
            .values()
            .filter(|a| a.state == State::Owned)
            .count()
    }
}
