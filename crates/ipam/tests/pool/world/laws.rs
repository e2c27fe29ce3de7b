//! What is checked as the world goes: at each order, after each batch, and when all has come to rest.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use vpcnet_ipam::{Action, AddressState, Blocked, Cards, EniId, Event, FailureClass, Lease, Mode, SubnetId};

use super::super::cloud::primary_eni;
use super::World;

impl World {
    /// What must never be asked of EC2.
    pub(super) fn check_order(&self, action: &Action) {
        let held = |a: &Ipv4Addr| {
            let mut lives = self.kernel.values().filter(|l| !l.dead);
            lives.any(|l| l.addresses.contains(&IpAddr::V4(*a)))
        };
        match action {
            Action::ReleaseAddresses { eni, addresses, .. } => {
                let view = self.pool.view(self.now());
                let place = view.interfaces.iter().find(|i| i.id == *eni).unwrap();
                for at in addresses {
                    let it = place.addresses.iter().find(|a| a.address == *at).unwrap();
                    if it.state != AddressState::Releasing || held(at) {
                        self.wrong(&format!("{at} is released: {it:?}"));
                    }
                }
            }
            Action::ReleasePrefixes { eni, prefixes, .. } => {
                let view = self.pool.view(self.now());
                let place = view.interfaces.iter().find(|i| i.id == *eni).unwrap();
                for prefix in prefixes {
                    let of_it = place.addresses.iter().filter(|a| a.prefix == Some(*prefix));
                    for it in of_it {
                        if it.state != AddressState::Releasing || held(&it.address) {
                            self.wrong(&format!("{prefix} is released: {it:?}"));
                        }
                    }
                }
            }
            Action::DeleteInterface { eni, .. } => {
                let pods = self
                    .cloud
                    .enis
                    .get(eni)
                    .is_some_and(|e| e.all().any(|at| held(&at)));
                if pods || *eni == primary_eni() {
                    self.wrong(&format!("{eni} is deleted under a pod"));
                }
            }
            _ => {}
        }
    }

    /// The laws that hold at every moment.
    pub(super) fn check_step(&mut self) {
        let view = self.pool.view(self.now());
        let owners: Vec<_> = self.pool.owners().collect();
        let mut seen = BTreeMap::new();
        for lease in &owners {
            if let Some(other) = seen.insert(lease.address, &lease.key) {
                self.wrong(&format!(
                    "{} has two owners: {other} and {}",
                    lease.address, lease.key
                ));
            }
        }
        for live in self.kernel.values().filter(|l| !l.dead) {
            if let Some(at) = live.addresses.iter().find(|at| !seen.contains_key(at)) {
                self.wrong(&format!(
                    "{} lives with {at} and the pool does not know",
                    live.key
                ));
            }
        }
        let t = view.totals;
        let attached_or_coming = t.interfaces + t.creating;
        if attached_or_coming > self.size.interfaces().max(t.interfaces) {
            self.wrong(&format!("{attached_or_coming} interfaces"));
        }
        if self.pool.next_wake().is_some_and(|w| w.0 <= self.at) {
            self.wrong("a wake in the past");
        }
    }

    /// One address of any card, or one of each.
    pub(super) fn check_cards(&self, cards: Cards, leases: &[Lease]) {
        let mut of: Vec<u32> = leases.iter().map(|l| l.card.0).collect();
        of.sort_unstable();
        let all: Vec<u32> = (0..).take(self.size.cards.len()).collect();
        let right = match cards {
            Cards::Any => of.len() == 1,
            Cards::Every => of == all,
        };
        let ipv6 = self.pool.targets().mode == Mode::Ipv6;
        if let Some(lease) = leases.iter().find(|l| l.address.is_ipv6() != ipv6) {
            self.wrong(&format!("{} is of the other family", lease.address));
        }
        if !right {
            self.wrong(&format!("{cards:?} was asked for and {of:?} given"));
        }
    }

    /// Heals everything, lets the pool come to rest, and checks that it has, and that nothing is lost.
    pub(crate) fn settle(&mut self) {
        self.faults.clear();
        self.failing_writes = 0;
        for round in 0..3 {
            for _ in 0..600 {
                match self.next() {
                    Some(next) if !self.waits_for_the_subnet() => {
                        self.at = next.max(self.at);
                        self.advance();
                    }
                    _ => break,
                }
            }
            if round < 2 {
                self.at += 120_000; // Nothing lags any more.
                self.imds(0);
            }
        }
        if !self.waits_for_the_subnet() {
            if !self.jobs.is_empty() || self.pool.next_wake().is_some() {
                self.wrong(&format!("no rest: {:#?}", self.pool.explain(self.now())));
            }
            let more = self.pool.handle(self.now(), Event::Tick);
            if !more.is_empty() || self.pool.next_wake().is_some() {
                self.wrong(&format!("a pool at rest does {more:?}"));
            }
        }
        self.check_nothing_lost();
        if !self.waits_for_the_subnet() {
            self.check_nothing_unwanted();
        }
    }

    /// What the mode no longer asks for is there only as long as a pod lives in it.
    fn check_nothing_unwanted(&self) {
        let view = self.pool.view(self.now());
        if self.pool.targets().mode == Mode::Ipv6 || self.pool.targets().unschedulable {
            return; // Nothing is given back there.
        }
        for interface in view.interfaces.iter().filter(|i| self.is_barred(&i.id)) {
            if let Some(idle) = interface
                .addresses
                .iter()
                .find(|a| a.state != AddressState::Assigned && a.prefix.is_none())
            {
                self.wrong(&format!("{idle:?} of {} is not given back", interface.id));
            }
        }
        if self.pool.targets().mode == Mode::Prefixes {
            let barred: usize = view
                .interfaces
                .iter()
                .filter(|i| self.is_barred(&i.id))
                .map(|i| {
                    i.addresses
                        .iter()
                        .filter(|a| a.state != AddressState::Assigned)
                        .count()
                })
                .sum();
            if barred > 0 {
                return; // Of prefixes that pods live in.
            }
            if view.totals.draining > 0 {
                self.wrong(&format!("not given back: {:?}", view.totals));
            }
            return;
        }
        for interface in &view.interfaces {
            for prefix in &interface.prefixes {
                let mut of_it = interface.addresses.iter().filter(|a| a.prefix == Some(*prefix));
                if of_it.all(|a| a.state != AddressState::Assigned) {
                    self.wrong(&format!("{prefix} is not given back"));
                }
            }
        }
    }

    /// Pods are kept off it.
    pub(super) fn is_barred(&self, eni: &EniId) -> bool {
        let wanted = &self.pool.targets().subnets;
        let excluded = self.cloud.enis.get(eni).map(|e| &e.subnet);
        excluded.is_some_and(|s| wanted.excluded.contains(s))
            || (wanted.custom.is_some() && *eni == primary_eni())
    }

    /// The subnet that a step waits for has really nothing.
    fn is_dry(&self, blocked: &Blocked) -> bool {
        let mut words = blocked.what.split(' ');
        let Some(subnet) = words.find(|w| w.starts_with("subnet-")).map(SubnetId::from) else {
            return false;
        };
        let prefixes = self.pool.targets().mode == Mode::Prefixes;
        self.cloud.is_dry(&subnet) || (prefixes && self.cloud.whole(&subnet).is_empty())
    }

    /// All that is left to do is to ask a full subnet now and then.
    fn waits_for_the_subnet(&self) -> bool {
        let plan = vpcnet_ipam::plan(&self.pool, self.now());
        let full = !plan.blocked.is_empty()
            && plan
                .blocked
                .iter()
                .all(|b| b.class == FailureClass::SubnetExhausted);
        full && plan.blocked.iter().all(|b| self.is_dry(b))
            && self.jobs.is_empty()
            && self.plugins.is_empty()
            && self.pool.view(self.now()).waiting.is_empty()
            && self.pool.view(self.now()).intents.is_empty()
    }

    fn check_nothing_lost(&self) {
        let view = self.pool.view(self.now());
        let known: BTreeMap<Ipv4Addr, &vpcnet_ipam::EniId> = view
            .interfaces
            .iter()
            .flat_map(|i| i.addresses.iter().map(move |a| (a.address, &i.id)))
            .collect();
        for (id, eni) in &self.cloud.enis {
            if eni.device.is_none() && self.journal_was_lost {
                continue; // An interface in the making whose record is lost: for the search of leaked ones.
            }
            for address in &eni.all().collect::<Vec<_>>() {
                if known.get(address) != Some(&id) {
                    self.wrong(&format!("{address} of {id} is lost: {:?}", known.get(address)));
                }
            }
        }
        for interface in &view.interfaces {
            let there = self.cloud.enis.get(&interface.id).map(|e| &e.ipv6);
            if there.is_none_or(|t| !t.iter().eq(&interface.ipv6_prefixes)) {
                self.wrong(&format!("{there:?} is not {:?}", interface.ipv6_prefixes));
            }
        }
        for (address, eni) in known {
            if self.cloud.owner_of(address.into()) != Some(eni) {
                self.wrong(&format!("the pool has {address} on {eni}, the cloud has not"));
            }
        }
        for lease in self.pool.owners() {
            if self
                .kernel
                .values()
                .any(|l| l.addresses.contains(&lease.address) && l.dead)
            {
                continue; // Only the veth of a sandbox that no DEL came for is left of it.
            }
            if self.cloud.owner_of(lease.address) != Some(&lease.eni) {
                let at = lease.address;
                self.wrong(&format!("{at} of {} is not on {}", lease.key, lease.eni));
            }
        }
        if self.cloud.beyond_limits > 0 && !self.journal_was_lost {
            self.wrong("the pool asked for more than the instance can have");
        }
    }
}
