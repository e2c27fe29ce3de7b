//! What the kernel shows of pods: enough to rebuild who owns which address when the agent's own records are lost.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::{MAIN, NetlinkError, PROTO_BOOT, RouteFilter, Socket};
use crate::pod::{FROM_POD_RULE, TO_POD_RULE};

/// The host's route to a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// The pod's address.
    pub address: IpAddr,
    /// The host's end of its veth pair.
    pub host_veth: String,
}

/// A rule that leads a pod's packets to its interface's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FromRule {
    /// The pod's address.
    pub address: IpAddr,
    /// The table.
    pub table: u32,
}

/// What the kernel shows of pods. Sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pods {
    /// Routes to pods that have a link.
    pub routes: Vec<HostRoute>,
    /// Rules from pods, also of pods that are gone.
    pub from_rules: Vec<FromRule>,
    /// Addresses that a rule leads to, also of pods that are gone.
    pub to_rules: Vec<IpAddr>,
    /// All host ends.
    pub veths: Vec<String>,
}

/// Reads links, main-table routes and rules. A host end is a veth whose name begins with one of `prefixes`
/// (`eni`; `vlan` for pods with an interface of their own).
///
/// # Errors
/// A list could not be read.
pub fn pods(socket: &mut Socket, prefixes: &[&str]) -> Result<Pods, NetlinkError> {
    let is_host_end = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let links = socket.links()?;
    let ends: Vec<_> = links
        .iter()
        .filter(|l| l.kind.as_deref() == Some("veth") && is_host_end(&l.name))
        .collect();
    let mut pods = Pods {
        veths: ends.iter().map(|link| link.name.clone()).collect(),
        ..Pods::default()
    };
    for v6 in [false, true] {
        for route in socket.routes(
            v6,
            RouteFilter {
                table: Some(MAIN),
                device: None,
            },
        )? {
            let end = ends
                .iter()
                .find(|end| route.device.as_ref().is_some_and(|d| d.index == end.index));
            if let (Some(end), Some(address), None, PROTO_BOOT) =
                (end, single(Some(route.to)), route.gateway, route.protocol)
            {
                pods.routes.push(HostRoute {
                    address,
                    host_veth: end.name.clone(),
                });
            }
        }
        for rule in socket.rules(v6)? {
            match (rule.priority, single(rule.from), single(rule.to), rule.table) {
                (FROM_POD_RULE, Some(address), _, Some(table)) => {
                    pods.from_rules.push(FromRule { address, table })
                }
                (TO_POD_RULE, _, Some(address), Some(MAIN)) => pods.to_rules.push(address),
                _ => {}
            }
        }
    }
    pods.routes.sort();
    pods.from_rules.sort();
    pods.to_rules.sort();
    pods.veths.sort();
    Ok(pods)
}

/// The address of a prefix that holds just one.
fn single(net: Option<IpNet>) -> Option<IpAddr> {
    net.filter(|net| net.prefix_len() == net.max_prefix_len())
        .map(|net| net.addr())
}
