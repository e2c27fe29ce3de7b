//! Secondary addresses and prefixes come to an interface and leave it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::error::ApiError;
use super::ids::EniId;
use super::interfaces::one_kind_of_secondary;
use super::request::{AssignPrivateIpAddresses, InterfaceKind, Wanted};
use super::response::Response;
use super::vpc::Vpc;

impl Vpc {
    pub(crate) fn assign(&mut self, wanted: &AssignPrivateIpAddresses) -> Result<Response, ApiError> {
        let interface = self.interface(&wanted.eni)?.clone();
        one_kind_of_secondary(&wanted.addresses, &wanted.prefixes)?;
        if interface.kind == InterfaceKind::EfaOnly {
            return Err(ApiError::combination(
                "An efa-only network interface cannot have an IP address",
            ));
        }
        // Naming what the interface already has is no error and takes no slot.
        let addresses = match &wanted.addresses {
            Wanted::Count(n) => Wanted::Count(*n),
            Wanted::These(list) => Wanted::These(
                unique(list)
                    .into_iter()
                    .filter(|a| !interface.secondary.contains(a))
                    .collect(),
            ),
        };
        let prefixes = match &wanted.prefixes {
            Wanted::Count(n) => Wanted::Count(*n),
            Wanted::These(list) => Wanted::These(
                unique(list)
                    .into_iter()
                    .filter(|p| !interface.prefixes.contains(p))
                    .collect(),
            ),
        };
        if let Some(attachment) = &interface.attachment {
            let kind = self.instance(&attachment.instance)?.instance_type.clone();
            self.slots_fit(&kind, interface.slots() + count(&addresses) + count(&prefixes))?;
        }
        if wanted.allow_reassignment
            && let Wanted::These(list) = &addresses
        {
            self.take_away(&wanted.eni, list)?;
        }
        let (addresses, prefixes) = self.take(&interface.subnet, &wanted.eni, &addresses, &prefixes)?;
        self.change_interface(&wanted.eni, |i| {
            i.secondary.extend(&addresses);
            i.prefixes.extend(&prefixes);
        });
        Ok(Response::Assigned {
            eni: wanted.eni.clone(),
            addresses,
            prefixes,
        })
    }

    /// Takes secondary addresses away from whichever interface of the same subnet has them.
    fn take_away(&mut self, receiver: &EniId, addresses: &[Ipv4Addr]) -> Result<(), ApiError> {
        let subnet = self.interface(receiver)?.subnet.clone();
        let mut moves = Vec::new();
        for address in addresses {
            let space = self
                .spaces
                .get(&subnet)
                .ok_or_else(|| ApiError::no_subnet(subnet.as_str()))?;
            let owner = match space.owner(*address) {
                Some(owner) => self.interface(owner)?.clone(),
                // Free, or no address of the subnet: taking it will tell.
                None => match space.usable_address(*address) {
                    Ok(()) => continue,
                    Err(_) => return Ok(()),
                },
            };
            if !owner.secondary.contains(address) {
                return Err(ApiError::invalid_value(format!(
                    "{address} is a primary address or part of a prefix and cannot be reassigned"
                )));
            }
            moves.push((owner.id.clone(), *address));
        }
        for (owner, address) in moves {
            self.change_interface(&owner, |i| i.secondary.retain(|a| *a != address));
            self.give_back(&subnet, &[address], &[]);
        }
        Ok(())
    }

    pub(crate) fn unassign(
        &mut self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        prefixes: &[Ipv4Net],
    ) -> Result<Response, ApiError> {
        let interface = self.interface(eni)?.clone();
        if addresses.is_empty() && prefixes.is_empty() {
            return Err(ApiError::missing("privateIpAddress or ipv4Prefix"));
        }
        if let Some(primary) = interface.primary.filter(|p| addresses.contains(p)) {
            return Err(ApiError::invalid_value(format!(
                "The address {primary} is the primary address of interface {eni} and cannot be unassigned"
            )));
        }
        let foreign: Vec<String> = addresses
            .iter()
            .filter(|a| !interface.secondary.contains(a))
            .map(ToString::to_string)
            .chain(
                prefixes
                    .iter()
                    .filter(|p| !interface.prefixes.contains(p))
                    .map(ToString::to_string),
            )
            .collect();
        if !foreign.is_empty() {
            return Err(ApiError::invalid_value(format!(
                "Some of [{}] are not assigned to interface {eni}",
                foreign.join(", ")
            )));
        }
        self.give_back(&interface.subnet, addresses, prefixes);
        self.change_interface(eni, |i| {
            i.secondary.retain(|a| !addresses.contains(a));
            i.prefixes.retain(|p| !prefixes.contains(p));
        });
        Ok(Response::Done)
    }
}

fn count<T>(wanted: &Wanted<T>) -> usize {
    match wanted {
        Wanted::Count(n) => usize::try_from(*n).unwrap_or(usize::MAX / 4),
        Wanted::These(list) => list.len(),
    }
}

fn unique<T: Copy + PartialEq>(list: &[T]) -> Vec<T> {
    let mut seen = Vec::new();
    for item in list {
        if !seen.contains(item) {
            seen.push(*item);
        }
    }
    seen
}
