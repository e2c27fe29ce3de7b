//! The VPC's packet rules as an nftables table: a fixed frame, and sets, maps and chains that follow the wanted state.
//!
//! Pure: views in, text out. Addresses are not in it: who owns an address is told by the routes alone (the source
//! check asks the routing table back), so giving addresses to an interface changes no rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::names::{INTERNET_LINK, PEER_LINK, link_name};
use crate::model::{FabricGroup, FabricPeer, FabricRule, FabricView, GroupId, Protocol, SubnetRoute};

/// NFLOG group of the drop log, in each of the lab's namespaces that drops.
pub(crate) const LOG_GROUP: u16 = 47;

/// Which of the two tables: each family has one of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// `table ip vpc`.
    V4,
    /// `table ip6 vpc`.
    V6,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        })
    }
}

/// Why a packet is dropped.
pub(crate) const REASONS: &[(&str, &str)] = &[
    ("source-check", "the interface does not own the source address"),
    ("no-owner", "no interface owns the destination address"),
    (
        "security-group",
        "no rule of the interface's security groups lets it through",
    ),
    (
        "no-public-address",
        "no public address stands for it, so the internet gateway cannot pass it",
    ),
    ("private-source", "a private source address reached the internet"),
    ("no-transit", "a VPC does not pass packets between its neighbours"),
    ("multicast", "a VPC carries neither broadcast nor multicast"),
    ("no-service", "the VPC's router has no such service"),
    ("egress-only", "the egress-only internet gateway lets nobody in"),
];

/// The parts that follow the wanted state.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Rendered {
    /// Sets and maps by name: declaration and elements.
    sets: BTreeMap<String, (String, BTreeSet<Element>)>,
    /// Chains by name: their rules.
    chains: BTreeMap<String, Vec<String>>,
}

/// An element of a set or, with a value, of a map.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Element {
    key: String,
    value: Option<String>,
}

impl Element {
    fn text(&self) -> String {
        match &self.value {
            None => self.key.clone(),
            Some(value) => format!("{} : {value}", self.key),
        }
    }
}

pub(super) fn quoted(link: &str) -> String {
    format!("\"{link}\"")
}

impl Rendered {
    pub(super) fn set(
        &mut self,
        name: &str,
        kind: &str,
        declaration: &str,
        keys: impl IntoIterator<Item = String>,
    ) {
        let elements = keys.into_iter().map(|key| Element { key, value: None }).collect();
        self.sets
            .insert(name.to_owned(), (format!("{kind} {declaration}"), elements));
    }

    pub(super) fn map(
        &mut self,
        name: &str,
        declaration: &str,
        pairs: impl IntoIterator<Item = (String, String)>,
    ) {
        let elements = pairs
            .into_iter()
            .map(|(key, value)| Element {
                key,
                value: Some(value),
            })
            .collect();
        self.sets
            .insert(name.to_owned(), (format!("map {declaration}"), elements));
    }
}

/// What the rules should be for that view.
pub(crate) fn render(view: &FabricView) -> Rendered {
    let mut r = Rendered::default();
    let links = |wanted: &dyn Fn(&crate::model::FabricInterface) -> bool| -> Vec<String> {
        view.interfaces
            .iter()
            .filter(|i| wanted(i))
            .map(|i| quoted(&link_name(&i.eni)))
            .collect()
    };
    r.set("enis", "set", "type ifname;", links(&|_| true));
    r.set("checked", "set", "type ifname;", links(&|i| i.source_dest_check));
    r.set(
        "vpc",
        "set",
        "type ipv4_addr; flags interval;",
        view.vpc_cidrs.iter().map(ToString::to_string),
    );
    let natted = view.subnets.iter().filter(|s| s.route == SubnetRoute::Private);
    r.set(
        "natted",
        "set",
        "type ipv4_addr; flags interval;",
        natted.map(|s| s.cidr.to_string()),
    );
    r.set(
        "with-public",
        "set",
        "type ipv4_addr;",
        view.public.keys().map(ToString::to_string),
    );
    let out = view
        .public
        .iter()
        .map(|(private, public)| (private.to_string(), public.to_string()));
    r.map("public-of", "type ipv4_addr : ipv4_addr;", out);
    let back = view
        .public
        .iter()
        .map(|(private, public)| (public.to_string(), private.to_string()));
    r.map("private-of", "type ipv4_addr : ipv4_addr;", back);
    security_groups(Family::V4, view, &mut r);
    r
}

pub(super) fn security_groups(family: Family, view: &FabricView, r: &mut Rendered) {
    for group in &view.groups {
        let members = view.interfaces.iter().filter(|i| i.groups.contains(&group.id));
        let members: Vec<String> = members.map(|i| quoted(&link_name(&i.eni))).collect();
        r.set(&members_set(&group.id), "set", "type ifname;", members);
    }
    let (mut ins, mut outs) = (Vec::new(), Vec::new());
    for interface in &view.interfaces {
        let ids: BTreeSet<&GroupId> = interface.groups.iter().collect();
        let groups: Vec<&FabricGroup> = view.groups.iter().filter(|g| ids.contains(&g.id)).collect();
        let key = ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join("+");
        let (chain_in, chain_out) = (chain_name("in", &key), chain_name("out", &key));
        let link = quoted(&link_name(&interface.eni));
        ins.push((link.clone(), format!("jump {chain_in}")));
        outs.push((link, format!("jump {chain_out}")));
        r.chains.entry(chain_in).or_insert_with(|| {
            verdicts(
                family,
                groups.iter().flat_map(|g| &g.ingress),
                "saddr",
                "iifname",
                "in",
            )
        });
        r.chains.entry(chain_out).or_insert_with(|| {
            verdicts(
                family,
                groups.iter().flat_map(|g| &g.egress),
                "daddr",
                "oifname",
                "out",
            )
        });
    }
    r.map("groups-in", "type ifname : verdict;", ins);
    r.map("groups-out", "type ifname : verdict;", outs);
}

fn members_set(group: &GroupId) -> String {
    format!("members-{group}")
}

/// One chain serves all interfaces with the same groups. nft limits names to 127 characters, groups may be sixteen.
fn chain_name(direction: &str, groups: &str) -> String {
    // FNV-1a, 64 bits: stable from run to run, and there are a handful of combinations.
    let hash = groups.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{direction}-{hash:016x}")
}

/// `return` for what a rule lets through, so that the other side's groups are asked next; the rest is dropped.
fn verdicts<'a>(
    family: Family,
    rules: impl Iterator<Item = &'a FabricRule>,
    address: &str,
    link: &str,
    direction: &str,
) -> Vec<String> {
    let mut lines: Vec<String> = rules
        .filter_map(|rule| {
            let peer = match (family, &rule.peer) {
                // What is said of the other family means nothing here.
                (Family::V6, FabricPeer::Cidr(_)) | (Family::V4, FabricPeer::Ipv6(_)) => return None,
                (_, FabricPeer::Cidr(net)) if net.prefix_len() == 0 => String::new(),
                (_, FabricPeer::Ipv6(net)) if net.prefix_len() == 0 => String::new(),
                (_, FabricPeer::Cidr(net)) => format!("ip {address} {net} "),
                (_, FabricPeer::Ipv6(net)) => format!("ip6 {address} {net} "),
                // The source check has already tied each source to its interface, so a member's packets are those
                // of its link: no list of addresses is needed.
                (_, FabricPeer::Group(id)) => format!("{link} @{} ", members_set(id)),
            };
            Some(format!("{peer}{}return", protocol(rule)))
        })
        .collect();
    lines.push(format!("goto drop-security-group-{direction}"));
    lines
}

fn protocol(rule: &FabricRule) -> String {
    let name = match rule.protocol {
        Protocol::All => return String::new(),
        Protocol::Icmp if matches!(rule.peer, FabricPeer::Ipv6(_)) => {
            return "meta l4proto ipv6-icmp ".to_owned();
        }
        Protocol::Icmp => return "meta l4proto icmp ".to_owned(),
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match rule.ports {
        Some((first, last)) if (first, last) != (0, u16::MAX) => format!("{name} dport {first}-{last} "),
        _ => format!("meta l4proto {name} "),
    }
}

/// The smallest transaction that leads from one state to the other; empty when there is nothing to do.
pub(crate) fn transition(family: Family, old: &Rendered, new: &Rendered) -> String {
    let mut text = String::new();
    let mut line = |l: String| {
        let _ = writeln!(text, "{l}");
    };
    for (name, (declaration, _)) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        let (kind, rest) = declaration.split_once(' ').unwrap_or(("set", declaration));
        line(format!("add {kind} {family} vpc {name} {{ {rest} }}"));
    }
    for name in new.chains.keys().filter(|name| !old.chains.contains_key(*name)) {
        line(format!("add chain {family} vpc {name}"));
    }
    let none = BTreeSet::new();
    let elements = |of: &Rendered, name: &String| of.sets.get(name).map(|(_, e)| e.clone());
    for (name, (_, had)) in &old.sets {
        let wanted = elements(new, name).unwrap_or_default();
        let gone: Vec<String> = had.difference(&wanted).map(Element::text).collect();
        if !gone.is_empty() {
            line(format!(
                "delete element {family} vpc {name} {{ {} }}",
                gone.join(", ")
            ));
        }
    }
    for (name, rules) in &new.chains {
        if old.chains.get(name) == Some(rules) {
            continue;
        }
        line(format!("flush chain {family} vpc {name}"));
        for rule in rules {
            line(format!("add rule {family} vpc {name} {rule}"));
        }
    }
    for (name, (_, wanted)) in &new.sets {
        let had = elements(old, name).unwrap_or_else(|| none.clone());
        let added: Vec<String> = wanted.difference(&had).map(Element::text).collect();
        if !added.is_empty() {
            line(format!(
                "add element {family} vpc {name} {{ {} }}",
                added.join(", ")
            ));
        }
    }
    let chains_gone: Vec<&String> = old
        .chains
        .keys()
        .filter(|name| !new.chains.contains_key(*name))
        .collect();
    for name in &chains_gone {
        line(format!("flush chain {family} vpc {name}"));
    }
    for name in &chains_gone {
        line(format!("delete chain {family} vpc {name}"));
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
        line(format!("delete set {family} vpc {name}"));
    }
    text
}

pub(super) fn drop_chains(reasons: &[&str]) -> String {
    let mut text = String::new();
    for reason in reasons {
        let counter = reason.trim_end_matches("-in").trim_end_matches("-out");
        let _ = writeln!(
            text,
            "  chain drop-{reason} {{ counter name \"{counter}\" log prefix \"{reason}\" group {LOG_GROUP} snaplen 96 drop; }}"
        );
    }
    text
}

pub(super) fn counters() -> String {
    REASONS
        .iter()
        .map(|(reason, _)| format!("  counter {reason} {{ }}\n"))
        .collect()
}

/// The transaction that makes the VPC's table as `wanted` says, from nothing.
pub(crate) fn initial(view: &FabricView, wanted: &Rendered) -> String {
    // The sets' chains go to the drop chains and the hooks look into the sets: hence the order.
    let counters = counters();
    let drops = drop_chains(&[
        "source-check",
        "no-owner",
        "security-group-in",
        "security-group-out",
        "no-public-address",
        "no-transit",
        "multicast",
        "no-service",
    ]);
    let sets = transition(Family::V4, &Rendered::default(), wanted);
    format!(
        "table ip vpc {{\n{counters}{drops}}}\n{sets}{}",
        hooks(view.nat_public)
    )
}

/// The chains every packet passes; they know the state only through the sets.
fn hooks(nat: std::net::Ipv4Addr) -> String {
    format!(
        r#"table ip vpc {{
  chain source {{
    type filter hook prerouting priority raw; policy accept;
    iifname @enis fib daddr type {{ broadcast, multicast }} goto drop-multicast
    iifname @checked fib saddr . iif oif missing goto drop-source-check
  }}
  chain from-internet {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{INTERNET_LINK}" dnat ip to ip daddr map @private-of
  }}
  chain deliver {{
    type filter hook forward priority filter; policy drop;
    ip daddr @vpc oifname != @enis goto drop-no-owner
    ct state established,related accept
    iifname "{INTERNET_LINK}" ct status & dnat == 0 goto drop-no-public-address
    iifname {{ "{INTERNET_LINK}", "{PEER_LINK}" }} oifname != @enis goto drop-no-transit
    oifname "{INTERNET_LINK}" ip saddr != @natted ip saddr != @with-public goto drop-no-public-address
    oifname "{INTERNET_LINK}" ct state invalid goto drop-no-public-address
    iifname vmap @groups-out
    oifname vmap @groups-in
    accept
  }}
  chain services {{
    type filter hook input priority filter; policy accept;
    iifname "lo" accept
    ct state established,related accept
    ip daddr 169.254.169.254 tcp dport 80 iifname @enis accept
    ip daddr 169.254.169.249 tcp dport 8773 iifname @enis accept
    goto drop-no-service
  }}
  chain to-internet {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{INTERNET_LINK}" ip saddr @natted snat to {nat}
    oifname "{INTERNET_LINK}" snat ip to ip saddr map @public-of
  }}
}}
"#
    )
}

/// The internet's own table: private sources end here.
pub(crate) fn internet_frame() -> String {
    let counters = counters();
    let drops = drop_chains(&["private-source"]);
    format!(
        r"table ip vpc {{
{counters}{drops}
  chain source {{
    type filter hook prerouting priority raw; policy accept;
    ip saddr {{ 10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16 }} goto drop-private-source
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fabric::testing::views;

    /// Carries out a transaction on a rendered state, refusing what nft would refuse.
    fn carry_out(state: &mut Rendered, text: &str) {
        for line in text.lines() {
            let (what, rest) = line.split_once(" ip vpc ").unwrap();
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let braced = rest.trim().trim_start_matches('{').trim_end_matches('}').trim();
            let elements = || {
                braced.split(", ").map(|e| match e.split_once(" : ") {
                    Some((key, value)) => Element {
                        key: key.to_owned(),
                        value: Some(value.to_owned()),
                    },
                    None => Element {
                        key: e.to_owned(),
                        value: None,
                    },
                })
            };
            match what {
                "add set" | "add map" => {
                    let kind = what.trim_start_matches("add ");
                    let new = (format!("{kind} {braced}"), BTreeSet::new());
                    assert!(state.sets.insert(name.to_owned(), new).is_none(), "{line}");
                }
                "add chain" => assert!(
                    state.chains.insert(name.to_owned(), Vec::new()).is_none(),
                    "{line}"
                ),
                "flush chain" => state.chains.get_mut(name).unwrap().clear(),
                "add rule" => {
                    for set in rest.split_whitespace().filter_map(|w| w.strip_prefix('@')) {
                        assert!(state.sets.contains_key(set), "unknown set: {line}");
                    }
                    state.chains.get_mut(name).unwrap().push(rest.to_owned());
                }
                "add element" => {
                    for e in elements() {
                        if let Some(chain) = e.value.as_ref().and_then(|v| v.strip_prefix("jump ")) {
                            assert!(state.chains.contains_key(chain), "unknown chain: {line}");
                        }
                        let set = &mut state.sets.get_mut(name).unwrap().1;
                        assert!(!set.iter().any(|had| had.key == e.key), "a key twice: {line}");
                        set.insert(e);
                    }
                }
                "delete element" => {
                    for e in elements() {
                        assert!(state.sets.get_mut(name).unwrap().1.remove(&e), "{line}");
                    }
                }
                "delete chain" => {
                    let jumped = format!("jump {name}");
                    let used = state
                        .sets
                        .values()
                        .flat_map(|(_, e)| e)
                        .any(|e| e.value.as_ref() == Some(&jumped));
                    assert!(!used, "still jumped to: {line}");
                    assert_eq!(state.chains.remove(name), Some(Vec::new()), "{line}");
                }
                "delete set" => drop(state.sets.remove(name).unwrap()),
                other => panic!("{other}"),
            }
        }
    }

    proptest! {
        #[test]
        fn each_transaction_leads_exactly_to_the_next_state(views in views()) {
            let mut state = Rendered::default();
            let mut told = Rendered::default();
            for view in &views {
                let wanted = render(view);
                carry_out(&mut state, &transition(Family::V4, &told, &wanted));
                prop_assert_eq!(&state, &wanted);
                prop_assert_eq!(transition(Family::V4, &wanted, &wanted), "");
                told = wanted;
            }
        }

        #[test]
        fn addresses_alone_change_no_rule(views in views()) {
            for view in &views {
                let mut more = view.clone();
                for interface in &mut more.interfaces {
                    interface.addresses.push("10.0.9.9/32".parse().unwrap());
                }
                prop_assert_eq!(transition(Family::V4, &render(view), &render(&more)), "");
            }
        }
    }
}
