//! Subnets: where new interfaces may lie, in which order, and which interfaces pods are kept off.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{CardIndex, SubnetId};
use crate::interface::Interface;
use crate::kind::Kind;
use crate::plan::primary;
use crate::pool::Pool;

/// Which subnets the pool may use. The default: the primary interface's and no other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subnets {
    /// Subnets a new interface may lie in (`ENABLE_SUBNET_DISCOVERY`: those of the node's zone that are tagged for it, and
    /// the primary interface's). Those with the most left are used first, as far as [`crate::Event::SubnetFacts`] told;
    /// else the earlier in the list. Empty: the primary interface's only.
    pub candidates: Vec<SubnetId>,
    /// Subnets tagged as not for pods: no new interface lies in them, and those that do are given no new pod and no new
    /// address. Pods they have stay.
    pub excluded: BTreeSet<SubnetId>,
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`: takes the place of `candidates`, and keeps pods off the primary interface.
    pub custom: Option<CustomNetwork>,
}

/// What an `ENIConfig` says. Unlike there, several subnets may be named.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomNetwork {
    /// Its name, for people.
    pub name: String,
    /// New interfaces lie in one of these; in none while nothing is named.
    pub subnets: Vec<SubnetId>,
    /// Named as well, and of no use: they are of another zone or VPC. For people.
    pub elsewhere: Vec<SubnetId>,
    /// With these security groups; empty: the primary interface's.
    pub security_groups: Vec<String>,
}

/// What a subnet has left, when it was last counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) addresses: u32,
    pub(crate) prefixes: Option<u32>,
}

impl Pool {
    /// Subnets a new interface may lie in, the best first.
    pub(crate) fn new_subnets(&self, kind: Kind) -> Vec<&SubnetId> {
        let wanted = &self.targets.subnets;
        let named = match &wanted.custom {
            Some(custom) => &custom.subnets,
            None => &wanted.candidates,
        };
        let own = primary(self).filter(|_| wanted.custom.is_none() && named.is_empty());
        let mut all: Vec<&SubnetId> = named.iter().chain(own.map(|i| &i.subnet)).collect();
        all.retain(|subnet| !wanted.excluded.contains(subnet));
        all.sort_by_key(|subnet| {
            let left = self.left.get(*subnet).copied().unwrap_or_default();
            let prefixes = left.prefixes.filter(|_| kind == Kind::Prefix).unwrap_or(0);
            (Reverse(prefixes), Reverse(left.addresses))
        });
        all
    }

    /// Are pods kept off an interface?
    pub(crate) fn is_barred(&self, interface: &Interface) -> bool {
        let wanted = &self.targets.subnets;
        wanted.excluded.contains(&interface.subnet) || (wanted.custom.is_some() && interface.is_primary)
    }

    /// Interfaces of a card whose addresses pods may have.
    pub(crate) fn serving(&self, card: CardIndex) -> impl Iterator<Item = &Interface> {
        let all = self.interfaces.values();
        all.filter(move |i| i.serves(card) && !self.is_barred(i))
    }

    /// Interfaces of a card that may be given more.
    pub(crate) fn growing(&self, card: CardIndex) -> impl Iterator<Item = &Interface> {
        self.serving(card).filter(move |i| i.grows(card))
    }

    /// Security groups of a new interface; empty: the primary interface's.
    pub(crate) fn security_groups(&self) -> Vec<String> {
        let custom = self.targets.subnets.custom.as_ref();
        custom.map(|c| c.security_groups.clone()).unwrap_or_default()
    }
}
