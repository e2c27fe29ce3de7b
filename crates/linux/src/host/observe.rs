//! Reading what [`super::diff()`] compares.

use super::{HostError, HostWanted, Observed, sysctls};
use crate::netlink::{MAIN, RouteFilter, Socket};
use crate::sysctl::{SysctlError, Tree};

/// Reads the links, addresses, rules, the routes of the main table and of the wanted interfaces' tables, and the
/// kernel parameters.
///
/// # Errors
/// [`HostError`].
pub fn observe(socket: &mut Socket, tree: &Tree, wanted: &HostWanted) -> Result<Observed, HostError> {
    let links = socket.links()?;
    let addresses = socket.addresses(None)?;
    let v6 = wanted.ipv6 || wanted.secondaries.iter().any(|s| s.address.addr().is_ipv6());
    let mut rules = socket.rules(false)?;
    if v6 {
        rules.extend(socket.rules(true)?);
    }
    let mut routes = Vec::new();
    for secondary in &wanted.secondaries {
        let Some(link) = links.iter().find(|link| link.mac == Some(secondary.mac)) else {
            continue;
        };
        let family = secondary.address.addr().is_ipv6();
        routes.extend(socket.routes(
            family,
            RouteFilter {
                table: Some(secondary.table),
                device: None,
            },
        )?);
        // Not all of main: it has a route for every pod.
        routes.extend(socket.routes(
            family,
            RouteFilter {
                table: Some(MAIN),
                device: Some(link.index),
            },
        )?);
    }
    let mut parameters = Vec::new();
    if let Some(primary) = links.iter().find(|link| link.mac == Some(wanted.primary.mac)) {
        for parameter in sysctls(&primary.name, wanted.ipv6) {
            match tree.read(&parameter.key) {
                Ok(value) => parameters.push((parameter.key, value)),
                Err(SysctlError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(Observed {
        links,
        addresses,
        routes,
        rules,
        sysctls: parameters,
    })
}
