//! Taking a pod's egress link away.

use std::net::IpAddr;

use ipnet::IpNet;

use super::add::leads_to;
use super::{EgressError, Step, host_route};
use crate::netlink::{Device, Errno, MAIN, Request, RouteFilter, Socket};

/// Removes the host's route to the address; a missing one is no error. The link is left: it dies with the pod's
/// namespace, and deleting it would hold the kernel's lock of all network changes for some 10 ms.
///
/// # Errors
/// The kernel refused.
pub fn del(host: &mut Socket, address: IpAddr) -> Result<(), EgressError> {
    match host.run_one(Request::DeleteRoute(host_route(address, None))) {
        Err(error) if matches!(error.errno(), Some(Errno::SRCH | Errno::NOENT | Errno::NODEV)) => Ok(()),
        outcome => outcome.map_err(EgressError::kernel(Step::Remove)),
    }
}

/// Deletes the host's end, and with it the link, where the pod's namespace cannot be relied on to end. A missing one is no error;
/// a link of the name that is no veth is not ours.
///
/// # Errors
/// The kernel refused.
pub fn delete_link(host: &mut Socket, host_name: &str) -> Result<(), EgressError> {
    let fail = EgressError::kernel(Step::Remove);
    if host.index_of(host_name).map_err(&fail)?.is_none() {
        return Ok(());
    }
    let found = host.link(host_name).map_err(&fail)?;
    let Some(link) = found.filter(|link| link.kind.as_deref() == Some("veth")) else {
        return Ok(());
    };
    match host.run_one(Request::DeleteLink(Device::new(link.index, host_name))) {
        Err(error) if error.errno() == Some(Errno::NODEV) => Ok(()),
        outcome => outcome.map_err(fail),
    }
}

/// Whether the host has a route to this very address: it has none to an address that no pod uses.
///
/// # Errors
/// The query failed.
pub fn has_route(host: &mut Socket, address: IpAddr) -> Result<bool, EgressError> {
    let device = leads_to(host, address).map_err(EgressError::kernel(Step::Look))?;
    Ok(device.is_some())
}

/// Whether the host has a route to any address of `net`.
///
/// # Errors
/// The routes cannot be listed.
pub fn has_routes_into(host: &mut Socket, net: IpNet) -> Result<bool, EgressError> {
    let filter = RouteFilter {
        table: Some(MAIN),
        device: None,
    };
    let routes = host.routes(net.addr().is_ipv6(), filter);
    let routes = routes.map_err(EgressError::kernel(Step::Look))?;
    Ok(routes.iter().any(|route| net.contains(&route.to)))
}
