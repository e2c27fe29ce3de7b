//! What is so now, for those who check what others believe: no call, no lag, no fault.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::ids::{EniId, InstanceId, SubnetId};
use super::space::Space;
use super::state::{Instance, Interface};
use super::vpc::Vpc;

impl Vpc {
    /// An interface as it is; `None`: there is none of that id.
    #[must_use]
    pub fn interface_now(&self, eni: &EniId) -> Option<&Arc<Interface>> {
        self.interfaces.get(eni)
    }

    /// Every interface as it is, by id.
    pub fn interfaces_now(&self) -> impl Iterator<Item = &Arc<Interface>> {
        self.interfaces.values()
    }

    /// An instance as it is; `None`: there never was one of that id.
    #[must_use]
    pub fn instance_now(&self, instance: &InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(instance)
    }

    /// The interface that has an address, as its own, a secondary one or within a prefix; `None`: nobody has it.
    #[must_use]
    pub fn owner_now(&self, address: Ipv4Addr) -> Option<&EniId> {
        self.spaces.values().find_map(|space| space.owner(address))
    }

    /// Free addresses of a subnet, and aligned /28s of which every address is free; `None`: there is no such subnet.
    /// CIDR reservations are not looked at.
    #[must_use]
    pub fn left_now(&self, subnet: &SubnetId) -> Option<(u32, u32)> {
        let space = self.spaces.get(subnet)?;
        Some((space.free(), space.blocks()))
    }

    /// Of these, how many EC2 would choose from: single addresses outside every CIDR reservation, and /28s of prefix reservations or
    /// outside every one.
    #[must_use]
    pub fn choosable_now(&self, subnet: &SubnetId) -> Option<(u32, u32)> {
        self.spaces.get(subnet).map(Space::choosable)
    }
}
