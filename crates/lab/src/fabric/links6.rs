//! IPv6 on the fabric's links, as [`super::links`] has it for IPv4: pure.
//!
//! The router has one link-local address on every link, which nodes take as their gateway and find by neighbour discovery. What an
//! interface owns is routed to it by a next hop that exists as a neighbour entry only, with the interface's MAC: so nodes are not
//! asked for the addresses of their pods, as in a VPC.

use std::collections::BTreeSet;

use ipnet::Ipv6Net;

use super::links::ROUTER_MAC;
use super::names::{INTERNET_LINK, VPC_LINK, link_name};
use crate::model::{FabricInterface, FabricView};

/// The router, on every link (VPC user guide: the router's link-local address is fe80:ec2::1).
pub(crate) const ROUTER: &str = "fe80:ec2::1";
/// Whoever is at the other end of a link of the router.
const OTHER_END: &str = "fe80:ec2::2";

fn owned(interface: &FabricInterface) -> BTreeSet<Ipv6Net> {
    interface.ipv6.iter().map(Ipv6Net::trunc).collect()
}

fn route(interface: &FabricInterface, net: Ipv6Net) -> String {
    format!(
        "route replace {net} via {OTHER_END} dev {} onlink",
        link_name(&interface.eni)
    )
}

/// Lines that take away what the interface no longer owns, and those that bring what is new. Its link stays.
pub(super) fn changes(before: &FabricInterface, after: &FabricInterface) -> (Vec<String>, Vec<String>) {
    let (had, wanted) = (owned(before), owned(after));
    let link = link_name(&after.eni);
    let gone = had.difference(&wanted);
    let new = wanted.difference(&had);
    (
        gone.map(|net| format!("route delete {net} dev {link}")).collect(),
        new.map(|net| route(after, *net)).collect(),
    )
}

/// Lines for the router's end of an interface's link; none in a VPC without IPv6.
pub(crate) fn attach_lines(view: &FabricView, interface: &FabricInterface) -> Vec<String> {
    if view.ipv6.is_none() {
        return Vec::new();
    }
    let link = link_name(&interface.eni);
    let mut lines = vec![
        // Nobody else can have it.
        format!("address add {ROUTER}/64 dev {link} nodad"),
        format!(
            "neighbour replace {OTHER_END} lladdr {} dev {link} nud permanent",
            interface.mac
        ),
    ];
    lines.extend(owned(interface).into_iter().map(|net| route(interface, net)));
    lines
}

/// Lines for the node's own namespace that give its primary interface what DHCPv6 and the router's advertisements would: the
/// address alone, as nothing is on the link but the router, and the way out.
pub(super) fn boot_lines(interface: &FabricInterface, name: &str) -> Vec<String> {
    let Some(primary) = interface.primary_ipv6 else {
        return Vec::new();
    };
    vec![
        // Nobody else can have it.
        format!("address add {primary}/128 dev {name} nodad"),
        format!("route add ::/0 via {ROUTER} dev {name} src {primary}"),
    ]
}

/// Lines for the VPC's namespace: the router's own addresses, which its ICMP errors come from, and the way to the internet.
pub(super) fn router_lines(view: &FabricView) -> Vec<String> {
    if view.ipv6.is_none() {
        return Vec::new();
    }
    let base = |net: Ipv6Net| std::net::Ipv6Addr::from_bits(net.network().to_bits() | 1);
    let own = view.subnets.iter().filter_map(|s| s.ipv6);
    let mut lines: Vec<String> = own
        .map(|net| format!("address add {}/128 dev lo nodad", base(net)))
        .collect();
    lines.extend([
        format!(
            "neighbour replace {OTHER_END} lladdr {} dev {INTERNET_LINK} nud permanent",
            super::links::INTERNET_SIDE_MAC
        ),
        // Also what nobody in the VPC owns goes there, as far as the rules, which drop it and say so.
        format!("route add ::/0 via {OTHER_END} dev {INTERNET_LINK} onlink"),
    ]);
    lines
}

/// Lines for the internet's namespace: all addresses of `hosts` are its own, the VPC's are behind its router.
pub(crate) fn outside_lines(hosts: Ipv6Net, reach: Ipv6Net) -> Vec<String> {
    let host = host_of(hosts);
    vec![
        format!("address add {host}/128 dev lo nodad"),
        format!("route add local {hosts} dev lo"),
        format!("neighbour replace {ROUTER} lladdr {ROUTER_MAC} dev {VPC_LINK} nud permanent"),
        format!("route add {reach} via {ROUTER} dev {VPC_LINK} onlink src {host}"),
    ]
}

/// The address the internet's own connections come from: the tenth of its range, as for IPv4.
pub(crate) fn host_of(hosts: Ipv6Net) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::from_bits(hosts.network().to_bits() | 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::testing::{interface, view};

    fn with(ipv6: &[&str]) -> FabricInterface {
        let mut made = interface(1, &["10.0.0.4/32"]);
        made.ipv6 = ipv6.iter().map(|net| net.parse().unwrap()).collect();
        made.primary_ipv6 = made.ipv6.first().map(Ipv6Net::addr);
        made
    }

    #[test]
    fn a_new_prefix_is_a_route_and_nothing_else() {
        let (before, after) = (
            with(&["2001:db8::4/128"]),
            with(&["2001:db8::4/128", "2001:db8:0:0:7::/80"]),
        );
        let (gone, new) = changes(&before, &after);
        assert!(gone.is_empty());
        assert_eq!(
            new,
            ["route replace 2001:db8:0:0:7::/80 via fe80:ec2::2 dev e00000000000001 onlink"]
        );
        let (gone, new) = changes(&after, &before);
        assert!(new.is_empty());
        assert_eq!(gone, ["route delete 2001:db8:0:0:7::/80 dev e00000000000001"]);
    }

    #[test]
    fn a_vpc_without_ipv6_has_none_on_its_links() {
        let made = with(&[]);
        let view = view(vec![made.clone()]);
        assert!(attach_lines(&view, &made).is_empty() && boot_lines(&made, "eth0").is_empty());
        assert!(router_lines(&view).is_empty());
    }
}
