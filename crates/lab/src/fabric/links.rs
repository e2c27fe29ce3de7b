//! From one wanted state to the next, for links, routes and neighbours: pure.
//!
//! The routes of the VPC's namespace are the VPC's mapping service: an address is routed to the link of the interface
//! that owns it, with the interface's MAC as its permanent neighbour, so nodes need not answer ARP for what they own.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::names::link_name;
use crate::model::{EniId, FabricInterface, FabricNode, FabricView, InstanceId, InterfaceKind};

/// MTU of everything inside the VPC (EC2 user guide, "Network maximum transmission unit").
pub(crate) const VPC_MTU: u32 = 9001;
/// MTU of what leaves through the internet gateway, same source.
pub(crate) const INTERNET_MTU: u32 = 1500;
/// The router's MAC on every link; each link is an Ethernet of its own, so one serves all.
pub(crate) const ROUTER_MAC: &str = "0a:76:70:63:00:01";

/// What to do, in this order.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Steps {
    /// Nodes that are gone.
    pub nodes_gone: Vec<InstanceId>,
    /// Nodes that are new.
    pub nodes_new: Vec<FabricNode>,
    /// Lines for `ip -batch` in the VPC's namespace that remove links and routes.
    pub remove: Vec<String>,
    /// Interfaces to make.
    pub attach: Vec<FabricInterface>,
    /// Lines that add routes.
    pub route: Vec<String>,
}

impl Steps {
    /// True when there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The steps from `old` to `new`.
pub(crate) fn steps(old: Option<&FabricView>, new: &FabricView) -> Steps {
    let mut steps = Steps::default();
    let old_nodes: &[FabricNode] = old.map_or(&[], |v| &v.nodes);
    let old_interfaces: &[FabricInterface] = old.map_or(&[], |v| &v.interfaces);
    let kept = |n: &&FabricNode| !new.nodes.iter().any(|m| m.id == n.id);
    steps.nodes_gone = old_nodes.iter().filter(kept).map(|n| n.id.clone()).collect();
    let unknown = |n: &&FabricNode| !old_nodes.iter().any(|m| m.id == n.id);
    steps.nodes_new = new.nodes.iter().filter(unknown).cloned().collect();

    let before = links(old_interfaces);
    let after = links(&new.interfaces);
    for (eni, interface) in &before {
        let stays = after.get(eni).is_some_and(|i| same_link(i, interface));
        // A link goes with its node's namespace at the latest, but the name is wanted free at once.
        if !stays {
            steps.remove.push(format!("link delete dev {}", link_name(eni)));
        }
    }
    for interface in after.values() {
        match before.get(&interface.eni).filter(|i| same_link(i, interface)) {
            None => steps.attach.push((*interface).clone()),
            Some(had) => {
                let (had, wanted) = (owned(had), owned(interface));
                steps.remove.extend(
                    had.difference(&wanted)
                        .map(|net| format!("route delete {net} dev {}", link_name(&interface.eni))),
                );
                let added = wanted.difference(&had).copied();
                steps.route.extend(added.filter_map(|net| route(interface, net)));
                if let Some(old) = before.get(&interface.eni) {
                    let (gone, new) = super::links6::changes(old, interface);
                    steps.remove.extend(gone);
                    steps.route.extend(new);
                }
            }
        }
    }
    steps
}

/// The interfaces that are links in their nodes: an adapter for EFA only is no network device there ("Elastic Fabric Adapter", EC2
/// user guide).
fn links(interfaces: &[FabricInterface]) -> BTreeMap<&EniId, &FabricInterface> {
    let shown = interfaces.iter().filter(|i| i.kind != InterfaceKind::EfaOnly);
    shown.map(|i| (&i.eni, i)).collect()
}

/// True when the link itself, and what hangs on its primary address, can stay.
fn same_link(a: &FabricInterface, b: &FabricInterface) -> bool {
    (&a.node, a.device_index, a.card, a.mac, a.primary) == (&b.node, b.device_index, b.card, b.mac, b.primary)
}

fn owned(interface: &FabricInterface) -> BTreeSet<Ipv4Net> {
    interface.addresses.iter().map(Ipv4Net::trunc).collect()
}

/// The route to something the interface owns. All but the primary address go by the primary's neighbour entry.
fn route(interface: &FabricInterface, net: Ipv4Net) -> Option<String> {
    let (link, primary) = (link_name(&interface.eni), interface.primary?);
    Some(if net == Ipv4Net::from(primary) {
        format!("route replace {net} dev {link} scope link")
    } else {
        format!("route replace {net} via {primary} dev {link} onlink")
    })
}

/// Lines that make an interface: the pair, its end in the node named `name` there and down, the VPC's end up.
pub(crate) fn attach_lines(interface: &FabricInterface, node_namespace: &str, name: &str) -> Vec<String> {
    let (link, mac) = (link_name(&interface.eni), interface.mac);
    let mut lines = vec![
        format!(
            "link add name {link} mtu {VPC_MTU} address {ROUTER_MAC} type veth peer name {name} mtu {VPC_MTU} \
             address {mac} netns {node_namespace}"
        ),
        format!("link set dev {link} up"),
    ];
    if let Some(primary) = interface.primary {
        lines.push(format!(
            "neighbour replace {primary} lladdr {mac} dev {link} nud permanent"
        ));
        lines.extend(route(interface, Ipv4Net::from(primary)));
        let others = owned(interface)
            .into_iter()
            .filter(|net| *net != Ipv4Net::from(primary));
        lines.extend(others.filter_map(|net| route(interface, net)));
    }
    lines
}

/// Lines for the node's own namespace that bring its primary interface up as a DHCP client would.
pub(crate) fn boot_lines(view: &FabricView, interface: &FabricInterface, name: &str) -> Vec<String> {
    let subnet = view.subnets.iter().find(|s| s.id == interface.subnet);
    let (Some(subnet), Some(primary)) = (subnet, interface.primary) else {
        return Vec::new();
    };
    let mut lines = vec![
        format!(
            "address add {primary}/{} broadcast + dev {name}",
            subnet.cidr.prefix_len()
        ),
        format!("link set dev {name} up"),
        format!(
            "route add default via {} dev {name} src {primary}",
            subnet.gateway
        ),
    ];
    lines.extend(super::links6::boot_lines(interface, name));
    lines
}

/// Lines for the VPC's namespace that make the links to the internet and the peer, and the router's own addresses.
pub(crate) fn router_lines(view: &FabricView, internet: &str, peer: &str) -> Vec<String> {
    let mut lines: Vec<String> = view
        .subnets
        .iter()
        .map(|s| format!("address add {}/32 dev lo", s.gateway))
        .collect();
    // IMDS, and the EC2 face for the nodes.
    lines.push("address add 169.254.169.254/32 dev lo".to_owned());
    lines.push("address add 169.254.169.249/32 dev lo".to_owned());
    lines.extend(neighbour_link(
        super::names::INTERNET_LINK,
        INTERNET_MTU,
        internet,
        INTERNET_SIDE_MAC,
    ));
    // Also what nobody in the VPC owns goes there, as far as the rules, which drop it and say so.
    lines.push(format!(
        "route add default via {FAR} dev {} onlink",
        super::names::INTERNET_LINK
    ));
    lines.extend(neighbour_link(
        super::names::PEER_LINK,
        VPC_MTU,
        peer,
        PEER_SIDE_MAC,
    ));
    if let Some(net) = view.peer {
        lines.push(format!(
            "route add {net} via {FAR} dev {} onlink",
            super::names::PEER_LINK
        ));
    }
    lines.extend(super::links6::router_lines(view));
    lines
}

/// Next hops that exist as neighbour entries only, of the range that is never routed (RFC 5737, TEST-NET-1).
const NEAR: &str = "192.0.2.1";
const FAR: &str = "192.0.2.2";
pub(super) const INTERNET_SIDE_MAC: &str = "0a:76:70:63:00:02";
const PEER_SIDE_MAC: &str = "0a:76:70:63:00:03";

fn neighbour_link(link: &str, mtu: u32, namespace: &str, far_mac: &str) -> Vec<String> {
    let vpc = super::names::VPC_LINK;
    vec![
        format!(
            "link add name {link} mtu {mtu} address {ROUTER_MAC} type veth peer name {vpc} mtu {mtu} \
             address {far_mac} netns {namespace}"
        ),
        format!("link set dev {link} up"),
        format!("neighbour replace {FAR} lladdr {far_mac} dev {link} nud permanent"),
    ]
}

/// Lines for the internet's or the peer's namespace: all addresses of `hosts` are its own, `reach` is behind the VPC.
pub(crate) fn outside_lines(hosts: Ipv4Net, reach: &[Ipv4Net]) -> Vec<String> {
    let (vpc, host) = (super::names::VPC_LINK, host_of(hosts));
    let mut lines = vec![
        format!("address add {host}/32 dev lo"),
        format!("route add local {hosts} dev lo"),
        format!("link set dev {vpc} up"),
        format!("neighbour replace {NEAR} lladdr {ROUTER_MAC} dev {vpc} nud permanent"),
    ];
    lines.extend(
        reach
            .iter()
            .map(|net| format!("route add {net} via {NEAR} dev {vpc} onlink src {host}")),
    );
    lines
}

/// The address an outside network's own connections come from: the tenth of its range.
pub(crate) fn host_of(hosts: Ipv4Net) -> std::net::Ipv4Addr {
    hosts.hosts().nth(9).unwrap_or_else(|| hosts.addr())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::fabric::testing::{interface, view, views};

    /// What the VPC's namespace holds, told by the lines alone: links, and routes with the link they go by.
    #[derive(Default, PartialEq, Eq, Debug)]
    struct Kernel {
        links: BTreeSet<String>,
        routes: BTreeMap<String, String>,
    }

    impl Kernel {
        fn run(&mut self, line: &str) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| {
                words
                    .iter()
                    .position(|w| *w == word)
                    .and_then(|at| words.get(at + 1))
                    .map(ToString::to_string)
            };
            match words[..2] {
                ["link", "add"] => assert!(self.links.insert(after("name").unwrap()), "twice: {line}"),
                ["link", "delete"] => {
                    let link = after("dev").unwrap();
                    assert!(self.links.remove(&link), "no such link: {line}");
                    self.routes.retain(|_, by| *by != link);
                }
                ["route", "replace"] => {
                    let link = after("dev").unwrap();
                    assert!(self.links.contains(&link), "no such link: {line}");
                    self.routes.insert(words[2].to_owned(), link);
                }
                ["route", "delete"] => {
                    assert_eq!(
                        self.routes.get(words[2]),
                        after("dev").as_ref(),
                        "not there: {line}"
                    );
                    self.routes.remove(words[2]);
                }
                _ => {}
            }
        }

        fn follow(&mut self, old: Option<&FabricView>, new: &FabricView) {
            let steps = steps(old, new);
            steps.remove.iter().for_each(|l| self.run(l));
            for interface in &steps.attach {
                attach_lines(interface, "ns", "eth0")
                    .iter()
                    .for_each(|l| self.run(l));
            }
            steps.route.iter().for_each(|l| self.run(l));
        }
    }

    proptest! {
        #[test]
        fn following_the_changes_ends_where_starting_afresh_would(views in views()) {
            let mut followed = Kernel::default();
            let mut old = None;
            for new in &views {
                followed.follow(old, new);
                old = Some(new);
            }
            let mut fresh = Kernel::default();
            fresh.follow(None, old.unwrap());
            prop_assert_eq!(followed, fresh);
        }

        #[test]
        fn nothing_is_done_when_nothing_changed(views in views()) {
            for view in &views {
                prop_assert!(steps(Some(view), view).is_empty());
            }
        }
    }

    #[test]
    fn new_addresses_of_an_interface_leave_its_link_alone() {
        let before = interface(1, &["10.0.0.4/32"]);
        let after = interface(1, &["10.0.0.4/32", "10.0.0.9/32", "10.0.0.16/28"]);
        let steps = steps(Some(&view(vec![before])), &view(vec![after]));
        assert!(steps.attach.is_empty() && steps.remove.is_empty());
        assert_eq!(
            steps.route,
            vec![
                "route replace 10.0.0.9/32 via 10.0.0.4 dev e00000000000001 onlink",
                "route replace 10.0.0.16/28 via 10.0.0.4 dev e00000000000001 onlink",
            ]
        );
    }

    #[test]
    fn an_interface_for_efa_only_is_no_link() {
        let none = view(Vec::new());
        let with = view(vec![FabricInterface {
            kind: InterfaceKind::EfaOnly,
            ..interface(1, &[])
        }]);
        assert!(steps(Some(&none), &with).is_empty() && steps(Some(&with), &none).is_empty());
    }

    #[test]
    fn an_address_that_moves_is_taken_away_before_it_is_given() {
        let old = view(vec![
            interface(1, &["10.0.0.4/32", "10.0.0.9/32"]),
            interface(2, &["10.0.0.5/32"]),
        ]);
        let new = view(vec![
            interface(1, &["10.0.0.4/32"]),
            interface(2, &["10.0.0.5/32", "10.0.0.9/32"]),
        ]);
        let steps = steps(Some(&old), &new);
        assert_eq!(steps.remove, vec!["route delete 10.0.0.9/32 dev e00000000000001"]);
        assert_eq!(
            steps.route,
            vec!["route replace 10.0.0.9/32 via 10.0.0.5 dev e00000000000002 onlink"]
        );
    }
}
