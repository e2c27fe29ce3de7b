//! Figures of the pool for metrics: by subnet, by CIDR, and what is under way.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ids::SubnetId;
use crate::intent::{Phase, What};
use crate::interface::State;
use crate::pool::Pool;
use crate::time::{Mono, Now};

/// A subnet that the pool has to do with.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubnetView {
    /// Its id.
    pub id: String,
    /// Addresses that the subnet has left, by EC2's last count; `None`: nobody asked.
    pub left_addresses: Option<u32>,
    /// Free /28 blocks among them, where somebody knows.
    pub left_prefixes: Option<u32>,
    /// Interfaces of the pool in it.
    pub interfaces: u32,
    /// Addresses on these that no pod has.
    pub pool_free_addresses: u32,
    /// Prefixes on these that no pod has an address of.
    pub pool_free_prefixes: u32,
    /// A new interface may lie in it.
    pub candidate: bool,
    /// Pods are kept off it.
    pub excluded: bool,
    /// It had no address, or no prefix, left: EC2's word, and when it is asked again.
    pub dry: Option<String>,
}

/// How many intents of each sort an executor is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UnderWay {
    /// Interfaces, addresses and prefixes being added.
    pub growing: u32,
    /// Being given back.
    pub shrinking: u32,
    /// Questions to EC2 what an interface has.
    pub asking: u32,
}

/// How much there is: a difference between two of these is what evidence brought or took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// Known interfaces.
    pub interfaces: usize,
    /// Their IPv4 addresses for pods and IPv6 prefixes.
    pub addresses: usize,
}

impl Pool {
    /// The subnets of the pool's interfaces and those that it may use, by id.
    #[must_use]
    pub fn subnets(&self, now: Now) -> Vec<SubnetView> {
        let mut all: BTreeMap<&SubnetId, SubnetView> = BTreeMap::new();
        for (subnet, left) in &self.left {
            let view = all.entry(subnet).or_default();
            view.left_addresses = Some(left.addresses);
            view.left_prefixes = left.prefixes;
        }
        for subnet in self.new_subnets(self.targets.mode.kind()) {
            all.entry(subnet).or_default().candidate = true;
        }
        for subnet in &self.targets.subnets.excluded {
            all.entry(subnet).or_default().excluded = true;
        }
        for interface in self.interfaces.values() {
            let view = all.entry(&interface.subnet).or_default();
            view.interfaces += 1;
            if !interface.managed {
                continue;
            }
            for address in interface.addresses.values().filter(|a| a.counts()) {
                view.pool_free_addresses += u32::from(address.state != State::Owned);
            }
            let free = interface.prefix_uses(now.mono).filter(|u| u.is_free());
            view.pool_free_prefixes = view
                .pool_free_prefixes
                .saturating_add(crate::plan::count(free.count()));
        }
        for (subnet, dry) in &self.backoffs.subnets {
            let said: Vec<String> = [("addresses", &dry.addresses), ("prefixes", &dry.prefixes)]
                .into_iter()
                .filter_map(|(what, dry)| Some((what, dry.full.as_ref()?)))
                .map(|(what, block)| {
                    format!("no {what}: {} ({})", block.message, again(block.until, now.mono))
                })
                .collect();
            if !said.is_empty() {
                all.entry(subnet).or_default().dry = Some(said.join("; "));
            }
        }
        let named = |(id, view): (&SubnetId, SubnetView)| SubnetView {
            id: id.0.clone(),
            ..view
        };
        all.into_iter().map(named).collect()
    }

    /// How many addresses of each prefix, and which single addresses, pods have. Prefixes are there with none, too; single addresses
    /// are not.
    #[must_use]
    pub fn assigned_by_cidr(&self) -> BTreeMap<IpNet, u32> {
        let mut all: BTreeMap<IpNet, u32> = BTreeMap::new();
        for interface in self.interfaces.values().filter(|i| i.managed) {
            all.extend(interface.prefixes.iter().map(|p| (IpNet::V4(*p), 0)));
            all.extend(interface.ipv6_prefixes.iter().map(|p| (IpNet::V6(*p), 0)));
            for (at, _) in interface
                .addresses
                .iter()
                .filter(|(_, a)| a.state == State::Owned)
            {
                let cidr = interface
                    .prefix_of(*at)
                    .map_or_else(|| IpNet::from(std::net::IpAddr::V4(*at)), IpNet::V4);
                *all.entry(cidr).or_default() += 1;
            }
            for (at, _) in interface.ipv6.iter().filter(|(_, a)| a.state == State::Owned) {
                let mut prefixes = interface.ipv6_prefixes.iter();
                let cidr = prefixes
                    .find(|p| p.contains(at))
                    .copied()
                    .map_or_else(|| IpNet::from(std::net::IpAddr::V6(*at)), IpNet::V6);
                *all.entry(cidr).or_default() += 1;
            }
        }
        all
    }

    /// What executors are at.
    #[must_use]
    pub fn under_way_now(&self) -> UnderWay {
        let mut sums = UnderWay::default();
        let running = |phase: &Phase| matches!(phase, Phase::Running(_));
        for intent in self.intents.values().filter(|i| running(&i.phase)) {
            let sum = match &intent.what {
                What::Create(_) | What::Assign { .. } | What::AssignIpv6 { .. } => &mut sums.growing,
                What::Describe { .. } => &mut sums.asking,
                _ => &mut sums.shrinking,
            };
            *sum += 1;
        }
        sums
    }

    /// How much is known.
    #[must_use]
    pub fn size(&self) -> Size {
        let all = self.interfaces.values();
        Size {
            interfaces: self.interfaces.len(),
            addresses: all.map(|i| i.addresses.len() + i.ipv6_prefixes.len()).sum(),
        }
    }
}

fn again(until: Mono, now: Mono) -> String {
    if until > now {
        format!(
            "asked again in {} s at the latest",
            until.since(now).as_millis().div_ceil(1000)
        )
    } else {
        "asked again when one is wanted".to_owned()
    }
}
