//! What the kernel shows of pods: enough to rebuild who owns which address when the agent's own records are lost.

use std::collections::{BTreeMap, BTreeSet};
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

/// What the names of pods' host ends begin with, whatever the present setting is, and how many pods have such. A pod's host end is
/// a veth with a route and a rule to the pod, and its name ends in eleven hexadecimal digits.
///
/// # Errors
/// A list could not be read.
pub fn prefixes(socket: &mut Socket) -> Result<BTreeMap<String, usize>, NetlinkError> {
    let mut rules = socket.rules(false)?;
    rules.extend(socket.rules(true)?);
    let to_pods: BTreeSet<IpAddr> = rules
        .iter()
        .filter(|rule| (rule.priority, rule.table) == (TO_POD_RULE, Some(MAIN)))
        .filter_map(|rule| single(rule.to))
        .collect();
    let mut prefixes = BTreeMap::new();
    if to_pods.is_empty() {
        return Ok(prefixes);
    }
    let links = socket.links()?;
    let main = RouteFilter {
        table: Some(MAIN),
        device: None,
    };
    let mut routes = socket.routes(false, main)?;
    routes.extend(socket.routes(true, main)?);
    for route in routes {
        let to_pod = single(Some(route.to)).is_some_and(|address| to_pods.contains(&address));
        let index = route.device.as_ref().map(|device| device.index);
        let end = links.iter().find(|link| Some(link.index) == index);
        let prefix = end
            .filter(|end| to_pod && end.kind.as_deref() == Some("veth"))
            .and_then(|end| prefix_of(&end.name));
        if let Some(prefix) = prefix {
            *prefixes.entry(prefix.to_owned()).or_default() += 1;
        }
    }
    Ok(prefixes)
}

/// Of `enicc21c2d7785` it is `eni`; none for names that are made otherwise, and for pods with a VLAN of their own.
fn prefix_of(name: &str) -> Option<&str> {
    let (prefix, digits) = name.split_at_checked(name.len().checked_sub(11)?)?;
    let hexadecimal = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    let made = digits.bytes().all(hexadecimal) && (1..=4).contains(&prefix.len());
    (made && prefix != "vlan").then_some(prefix)
}

/// The address of a prefix that holds just one.
fn single(net: Option<IpNet>) -> Option<IpAddr> {
    net.filter(|net| net.prefix_len() == net.max_prefix_len())
        .map(|net| net.addr())
}

#[cfg(test)]
mod tests {
    use super::prefix_of;

    #[test]
    fn a_host_ends_name_tells_its_prefix() {
        assert_eq!(prefix_of("enicc21c2d7785"), Some("eni"));
        assert_eq!(prefix_of("azcc21c2d7785"), Some("az"));
        for other in [
            "eth0",
            "vlancc21c2d7785",
            "cc21c2d7785",
            "enicc21c2d778X",
            "lo",
            "",
            "ééééééé",
        ] {
            assert_eq!(prefix_of(other), None, "{other}");
        }
    }
}
