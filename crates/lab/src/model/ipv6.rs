//! IPv6 addresses and /80 prefixes come to an interface and leave it. A subnet with an IPv6 CIDR gives each interface that is made
//! in it an address (`AssignIpv6AddressOnCreation`); without one, asking for any is refused.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::error::ApiError;
use super::ids::{EniId, SubnetId};
use super::interfaces::{no_free_addresses, no_free_blocks, refuse_address};
use super::request::{AssignIpv6Addresses, InterfaceKind, Wanted};
use super::response::Response;
use super::state::Interface;
use super::vpc::Vpc;

/// IPv6 addresses and prefixes of one interface, oldest first; the first address is its own.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Ipv6 {
    /// Addresses.
    pub addresses: Vec<Ipv6Addr>,
    /// Prefixes, /80.
    pub prefixes: Vec<Ipv6Net>,
}

impl Ipv6 {
    /// Slots in use: each address and each prefix takes one.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.addresses.len() + self.prefixes.len()
    }

    /// All of it as nets.
    pub fn nets(&self) -> impl Iterator<Item = Ipv6Net> + '_ {
        let addresses = self.addresses.iter().copied().map(Ipv6Net::from);
        addresses.chain(self.prefixes.iter().copied())
    }
}

/// What a request wants of IPv6.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WantedIpv6 {
    /// Addresses.
    pub addresses: Wanted<Ipv6Addr>,
    /// Prefixes, /80.
    pub prefixes: Wanted<Ipv6Net>,
}

impl WantedIpv6 {
    /// Nothing is wanted.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        count(&self.addresses) == 0 && count(&self.prefixes) == 0
    }
}

impl Vpc {
    /// What a new interface gets: what is wanted, and an address of its own in any case where the subnet has them.
    pub(crate) fn ipv6_of_new(
        &mut self,
        subnet: &SubnetId,
        eni: &EniId,
        wanted: &WantedIpv6,
    ) -> Result<Ipv6, ApiError> {
        let mut wanted = wanted.clone();
        if self.ipv6_spaces.contains_key(subnet) && count(&wanted.addresses) == 0 {
            wanted.addresses = Wanted::Count(1);
        }
        self.take_ipv6(subnet, eni, &wanted)
    }

    /// Takes addresses and prefixes for an interface: all that is wanted, or nothing.
    fn take_ipv6(&mut self, subnet: &SubnetId, eni: &EniId, wanted: &WantedIpv6) -> Result<Ipv6, ApiError> {
        if wanted.is_nothing() {
            return Ok(Ipv6::default());
        }
        let choice = self.config.addresses;
        let space = self.ipv6_spaces.get_mut(subnet).ok_or_else(|| {
            ApiError::invalid_value(format!(
                "The subnet '{subnet}' does not have an IPv6 CIDR block associated with it"
            ))
        })?;
        let mut taken: Vec<Ipv6Net> = Vec::new();
        let rng = &mut self.rng;
        let mut attempt = || -> Result<(), ApiError> {
            for position in 0..count(&wanted.addresses) {
                let net = match &wanted.addresses {
                    Wanted::Count(_) => space.choose_address(choice, rng).ok_or_else(no_free_addresses)?,
                    Wanted::These(list) => {
                        let address = list.get(position).copied().ok_or_else(no_free_addresses)?;
                        let refuse = |why| refuse_address(&address.to_string(), why);
                        space.usable_net(address.into()).map_err(refuse)?;
                        address.into()
                    }
                };
                space.take(net, eni);
                taken.push(net);
            }
            for position in 0..count(&wanted.prefixes) {
                let net = match &wanted.prefixes {
                    Wanted::Count(_) => space.choose_prefix(choice, rng).ok_or_else(no_free_blocks)?,
                    Wanted::These(list) => {
                        let prefix = list.get(position).copied().ok_or_else(no_free_blocks)?;
                        let refuse = |why| refuse_address(&prefix.to_string(), why);
                        if prefix.prefix_len() == 128 {
                            return Err(refuse(super::space::Unusable::Outside));
                        }
                        space.usable_net(prefix).map_err(refuse)?;
                        prefix
                    }
                };
                space.take(net, eni);
                taken.push(net);
            }
            Ok(())
        };
        if let Err(error) = attempt() {
            for net in taken {
                space.release(net);
            }
            return Err(error);
        }
        let (addresses, prefixes): (Vec<Ipv6Net>, Vec<Ipv6Net>) =
            taken.into_iter().partition(|net| net.prefix_len() == 128);
        Ok(Ipv6 {
            addresses: addresses.iter().map(Ipv6Net::addr).collect(),
            prefixes,
        })
    }

    /// Frees addresses and prefixes of a subnet.
    pub(crate) fn give_back_ipv6(&mut self, subnet: &SubnetId, ipv6: &Ipv6) {
        if let Some(space) = self.ipv6_spaces.get_mut(subnet) {
            ipv6.nets().for_each(|net| space.release(net));
        }
    }

    pub(crate) fn assign_ipv6(&mut self, wanted: &AssignIpv6Addresses) -> Result<Response, ApiError> {
        let interface = self.interface(&wanted.eni)?.clone();
        if interface.kind == InterfaceKind::EfaOnly {
            return Err(ApiError::combination(
                "An efa-only network interface cannot have an IP address",
            ));
        }
        let own = &interface.ipv6;
        // Naming what the interface already has is no error and takes no slot.
        let new = WantedIpv6 {
            addresses: without(&wanted.ipv6.addresses, &own.addresses),
            prefixes: without(&wanted.ipv6.prefixes, &own.prefixes),
        };
        if let Some(attachment) = &interface.attachment {
            let kind = self.instance(&attachment.instance)?.instance_type.clone();
            // As many as IPv4 addresses (API reference, AssignIpv6Addresses).
            self.slots_fit(&kind, own.slots() + count(&new.addresses) + count(&new.prefixes))?;
        }
        let got = self.take_ipv6(&interface.subnet, &wanted.eni, &new)?;
        self.change_interface(&wanted.eni, |i| {
            i.ipv6.addresses.extend(&got.addresses);
            i.ipv6.prefixes.extend(&got.prefixes);
        });
        Ok(Response::AssignedIpv6 {
            eni: wanted.eni.clone(),
            ipv6: got,
        })
    }

    pub(crate) fn unassign_ipv6(&mut self, eni: &EniId, gone: &Ipv6) -> Result<Response, ApiError> {
        let interface = self.interface(eni)?.clone();
        if gone.slots() == 0 {
            return Err(ApiError::missing("ipv6Addresses or ipv6Prefixes"));
        }
        let own: Vec<Ipv6Net> = interface.ipv6.nets().collect();
        let foreign: Vec<String> = gone
            .nets()
            .filter(|net| !own.contains(net))
            .map(|net| net.to_string())
            .collect();
        if !foreign.is_empty() {
            return Err(ApiError::invalid_value(format!(
                "Some of [{}] are not assigned to interface {eni}",
                foreign.join(", ")
            )));
        }
        self.give_back_ipv6(&interface.subnet, gone);
        self.change_interface(eni, |i| {
            i.ipv6.addresses.retain(|a| !gone.addresses.contains(a));
            i.ipv6.prefixes.retain(|p| !gone.prefixes.contains(p));
        });
        Ok(Response::UnassignedIpv6 {
            eni: eni.clone(),
            ipv6: gone.clone(),
        })
    }

    /// Each owned address and prefix is listed by its interface, and the other way round.
    pub(crate) fn check_ipv6(&self, broken: &mut Vec<String>) {
        let mut listed = 0;
        for interface in self.interfaces.values() {
            listed += interface.ipv6.slots();
            for net in interface.ipv6.nets() {
                let space = self.ipv6_spaces.get(&interface.subnet);
                let owner = space.and_then(|s| s.owner(net));
                if owner != Some(&interface.id) {
                    broken.push(format!("{} lists {net} of {owner:?}", interface.id));
                }
            }
            if let Some(kind) = self.type_of(interface)
                && self.slots_fit(&kind, interface.ipv6.slots()).is_err()
            {
                broken.push(format!(
                    "{} has {} IPv6 slots",
                    interface.id,
                    interface.ipv6.slots()
                ));
            }
        }
        let owned: usize = self.ipv6_spaces.values().map(super::space6::Space6::owned).sum();
        if owned != listed {
            broken.push(format!(
                "{owned} IPv6 ranges are owned but {listed} are listed by interfaces"
            ));
        }
    }

    fn type_of(&self, interface: &Interface) -> Option<String> {
        let attachment = interface.attachment.as_ref()?;
        Some(self.instances.get(&attachment.instance)?.instance_type.clone())
    }
}

fn count<T>(wanted: &Wanted<T>) -> usize {
    match wanted {
        Wanted::Count(n) => usize::try_from(*n).unwrap_or(usize::MAX / 4),
        Wanted::These(list) => list.len(),
    }
}

/// What is wanted and not there already, each once.
fn without<T: Copy + PartialEq>(wanted: &Wanted<T>, own: &[T]) -> Wanted<T> {
    match wanted {
        Wanted::Count(n) => Wanted::Count(*n),
        Wanted::These(list) => {
            let mut new: Vec<T> = Vec::new();
            for item in list {
                if !own.contains(item) && !new.contains(item) {
                    new.push(*item);
                }
            }
            Wanted::These(new)
        }
    }
}
