//! What must hold in a VPC at every moment, whatever was asked of it.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::EniId;
use super::state::{Interface, InterfaceStatus};
use super::vpc::{Due, Vpc};

impl Vpc {
    /// Every broken invariant as a sentence; empty: all is well.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut broken = Vec::new();
        self.check_addresses(&mut broken);
        self.check_ipv6(&mut broken);
        self.check_attachments(&mut broken);
        self.check_agenda(&mut broken);
        broken
    }

    /// Each address has one owner, each owned address belongs to an interface that lists it, none is lost.
    fn check_addresses(&self, broken: &mut Vec<String>) {
        let mut listed: BTreeMap<u32, &EniId> = BTreeMap::new();
        for interface in self.interfaces.values() {
            for address in all_addresses(interface) {
                if let Some(other) = listed.insert(address, &interface.id) {
                    broken.push(format!(
                        "{} is listed by {other} and by {}",
                        v4(address),
                        interface.id
                    ));
                }
                let owner = self
                    .spaces
                    .get(&interface.subnet)
                    .and_then(|s| s.owner(v4(address)));
                if owner != Some(&interface.id) {
                    broken.push(format!("{} lists {} of {owner:?}", interface.id, v4(address)));
                }
            }
        }
        let owned: usize = self.spaces.values().map(super::space::Space::owned).sum();
        if owned != listed.len() {
            broken.push(format!(
                "{owned} addresses are owned but {} are listed by interfaces",
                listed.len()
            ));
        }
        for (id, space) in &self.spaces {
            let Some(subnet) = self.subnets.get(id) else {
                continue;
            };
            let size = 1u64 << (32 - subnet.cidr.prefix_len());
            let used = u64::try_from(space.owned()).unwrap_or(u64::MAX);
            if u64::from(space.free()) + used + 5 != size {
                broken.push(format!(
                    "{id}: {} free, {used} owned, 5 kept of {size}",
                    space.free()
                ));
            }
        }
        let public: BTreeMap<_, _> = self
            .interfaces
            .values()
            .filter_map(|i| i.public.map(|p| (p, i.id.clone())))
            .collect();
        if public != self.public {
            broken.push(format!(
                "public addresses {:?} are taken but {public:?} are listed",
                self.public
            ));
        }
    }

    /// Bonds and statuses agree, positions are unique, limits hold.
    fn check_attachments(&self, broken: &mut Vec<String>) {
        let mut places = BTreeSet::new();
        let mut bonds = BTreeMap::new();
        for interface in self.interfaces.values() {
            let bound = interface.attachment.is_some();
            let free = matches!(
                interface.status,
                InterfaceStatus::Pending | InterfaceStatus::Available
            );
            if bound == free {
                broken.push(format!(
                    "{} is {:?} with {:?}",
                    interface.id, interface.status, interface.attachment
                ));
            }
            let Some(a) = &interface.attachment else { continue };
            bonds.insert(a.id.clone(), interface.id.clone());
            if !places.insert((a.instance.clone(), a.card, a.device_index)) {
                broken.push(format!(
                    "{} has two interfaces on card {} index {}",
                    a.instance, a.card, a.device_index
                ));
            }
            match self.instances.get(&a.instance) {
                Some(instance) if instance.exists() => {
                    if self
                        .slots_fit(&instance.instance_type, interface.slots())
                        .is_err()
                    {
                        broken.push(format!("{} has {} IPv4 slots", interface.id, interface.slots()));
                    }
                }
                _ => broken.push(format!(
                    "{} is bound to {}, which is gone",
                    interface.id, a.instance
                )),
            }
        }
        if bonds != self.attachments {
            broken.push(format!("bonds {bonds:?} but attachments {:?}", self.attachments));
        }
        for instance in self.instances.values().filter(|i| i.exists()) {
            let Some(limits) = vpcnet_limits::lookup(&instance.instance_type) else {
                continue;
            };
            for card in &limits.cards {
                let on_card = places
                    .range((instance.id.clone(), card.card, 0)..=(instance.id.clone(), card.card, u32::MAX));
                if on_card.count() > usize::try_from(card.interfaces).unwrap_or(usize::MAX) {
                    broken.push(format!(
                        "{} has too many interfaces on card {}",
                        instance.id, card.card
                    ));
                }
            }
            if !places.contains(&(instance.id.clone(), 0, 0)) {
                broken.push(format!("{} has no primary interface", instance.id));
            }
        }
    }

    /// Whatever is under way ends.
    fn check_agenda(&self, broken: &mut Vec<String>) {
        for interface in self.interfaces.values() {
            let under_way = !matches!(
                interface.status,
                InterfaceStatus::Available | InterfaceStatus::InUse
            );
            let ends = interface.due.is_some_and(|at| {
                at > self.now
                    && self
                        .timeline
                        .contains(&(at, Due::Interface(interface.id.clone())))
            });
            if under_way != ends {
                broken.push(format!(
                    "{} is {:?} until {:?}",
                    interface.id, interface.status, interface.due
                ));
            }
        }
        for instance in self.instances.values() {
            if let Some(at) = instance.due
                && !self.timeline.contains(&(at, Due::Instance(instance.id.clone())))
            {
                broken.push(format!("{} is {:?} until {at:?}", instance.id, instance.state));
            }
        }
    }
}

fn v4(address: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from(address)
}

fn all_addresses(interface: &Interface) -> impl Iterator<Item = u32> + '_ {
    let prefixes = interface
        .prefixes
        .iter()
        .flat_map(|p| u32::from(p.network())..=u32::from(p.broadcast()));
    interface.addresses().map(u32::from).chain(prefixes)
}
