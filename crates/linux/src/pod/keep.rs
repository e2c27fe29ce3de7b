//! Putting back what somebody took from, or changed in, a running pod's part of the host.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{FROM_POD_RULE, TO_POD_RULE, is_main};
use crate::netlink::{Errno, MAIN, NetlinkError, Request, Route, Rule, Socket};

/// What the host has for an address of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The address.
    pub address: IpAddr,
    /// The routing table of its interface; [`MAIN`], 0 or 1 for the primary.
    pub table: u32,
    /// Name of the host's end.
    pub host_name: String,
}

/// Writes those of the address's route and rules that are missing or lead elsewhere, and says which. Nothing, where the host's end is not there: the pod
/// is being made or is gone.
///
/// # Errors
/// Netlink's; the others were added.
pub fn keep(host: &mut Socket, kept: &Kept) -> Result<Vec<Request>, NetlinkError> {
    let Some(link) = host.link(&kept.host_name)? else {
        return Ok(Vec::new());
    };
    // Without its link up, the kernel refuses the route.
    if link.kind.as_deref() != Some("veth") || !link.up {
        return Ok(Vec::new());
    }
    let net = IpNet::from(kept.address);
    let there = host.route_to(kept.address)?.is_some_and(|found| {
        let leads_there = found
            .device
            .as_ref()
            .is_some_and(|device| device.index == link.index);
        found.to == net && found.table == MAIN && leads_there
    });
    let route = (!there).then(|| Request::ReplaceRoute(Route::on_link(net, link.device(), MAIN)));
    let from = (!is_main(kept.table)).then(|| Rule::from(FROM_POD_RULE, kept.address, kept.table));
    let rules = std::iter::once(Rule::to(TO_POD_RULE, kept.address, MAIN)).chain(from);
    // A rule is refused where it is there already.
    let requests: Vec<Request> = route.into_iter().chain(rules.map(Request::AddRule)).collect();
    let outcomes = host.run(&requests)?;
    let mut added = Vec::new();
    let mut failed = None;
    for (request, outcome) in requests.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => added.push(request),
            Err(refusal) if refusal.errno == Errno::EXIST => {}
            Err(refusal) => failed = Some(refusal.into()),
        }
    }
    failed.map_or(Ok(added), Err)
}

/// Whether the host's end is there and the address's route leads elsewhere. Takes no lock that an ADD needs, unlike [`keep`].
///
/// # Errors
/// Netlink's.
pub fn is_led_astray(host: &mut Socket, kept: &Kept) -> Result<bool, NetlinkError> {
    let Some(index) = host.index_of(&kept.host_name)? else {
        return Ok(false);
    };
    Ok(!leads_to(host, kept.address, index)?)
}

fn leads_to(host: &mut Socket, address: IpAddr, index: u32) -> Result<bool, NetlinkError> {
    Ok(host.route_to(address)?.is_some_and(|found| {
        let there = found.device.as_ref().is_some_and(|device| device.index == index);
        found.to == IpNet::from(address) && found.table == MAIN && there
    }))
}
