//! From what is and what shall be to the smallest set of changes. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::{
    Change, ENI_RULE, HostWanted, MARK_RULE, Observed, OwnRule, Parameter, Plan, SERVICE_RULE, Secondary,
    sysctls,
};
use crate::Mac;
use crate::netlink::{Link, MAIN, Request, Route, Rule};

/// What to change so that `observed` becomes as `wanted`. Nothing if it is.
pub fn diff(observed: &Observed, wanted: &HostWanted) -> Plan {
    let mut plan = Plan::default();
    match find(observed, wanted.primary.mac) {
        Some(link) => {
            link_state(&mut plan, link, wanted.primary.mtu);
            parameters(&mut plan, observed, &link.name, wanted.ipv6);
        }
        None => plan.missing.push(wanted.primary.mac),
    }
    for secondary in &wanted.secondaries {
        match find(observed, secondary.mac) {
            Some(link) => interface(&mut plan, observed, link, secondary),
            None => plan.missing.push(secondary.mac),
        }
    }
    let of_marks = wanted.marks.iter().map(|mark| mark_rule(*mark, wanted.ipv6));
    rules_like(&mut plan, observed, of_marks.collect(), |found| {
        found.v6 == wanted.ipv6 && mark_of(found).is_some()
    });
    let of_services = wanted.services.iter().map(service_rule);
    rules_like(&mut plan, observed, of_services.collect(), |found| {
        *found
            == Rule {
                to: found.to,
                ..Rule::bare(SERVICE_RULE, false, Some(MAIN))
            }
    });
    let still_used = |address: &IpAddr| wanted.secondaries.iter().any(|s| s.address.addr() == *address);
    for address in wanted.gone.iter().filter(|address| !still_used(address)) {
        let left = own_rules(observed, *address).cloned().map(Request::DeleteRule);
        plan.changes.extend(left.map(Change::Netlink));
    }
    plan
}

impl Plan {
    fn push(&mut self, request: Request) {
        self.changes.push(Change::Netlink(request));
    }
}

/// A VLAN or macvlan has its parent's MAC; the interface itself is the one without a kind, or (in the lab) a veth.
fn find(observed: &Observed, mac: Mac) -> Option<&Link> {
    let mut same = observed
        .links
        .iter()
        .filter(|link| link.mac == Some(mac) && !link.loopback);
    same.find(|link| link.kind.as_deref().is_none_or(|kind| kind == "veth"))
}

fn link_state(plan: &mut Plan, link: &Link, mtu: u32) {
    let up = (!link.up).then_some(true);
    let mtu = (link.mtu != mtu).then_some(mtu);
    if up.is_some() || mtu.is_some() {
        plan.push(Request::SetLink {
            device: link.device(),
            up,
            mtu,
        });
    }
}

fn parameters(plan: &mut Plan, observed: &Observed, primary: &str, ipv6: bool) {
    for Parameter { key, value, unless } in sysctls(primary, ipv6) {
        let found = observed.sysctls.iter().find(|(k, _)| *k == key);
        // One that does not exist cannot be set.
        if found.is_some_and(|(_, v)| v != value && Some(v.as_str()) != unless) {
            plan.changes.push(Change::Sysctl {
                key,
                value: value.to_owned(),
            });
        }
    }
}

fn interface(plan: &mut Plan, observed: &Observed, link: &Link, wanted: &Secondary) {
    link_state(plan, link, wanted.mtu);
    addresses(plan, observed, link, wanted.address);

    let device = link.device();
    let on_link = Route::on_link(wanted.gateway.into(), device.clone(), wanted.table);
    let default = Route::default_by(wanted.gateway, device, wanted.table, false);
    for route in [on_link, default] {
        if !observed.routes.iter().any(|found| same_path(found, &route)) {
            plan.push(Request::ReplaceRoute(route));
        }
    }
    if wanted.own_rule == OwnRule::Foreign {
        return;
    }
    let own = Rule::from(ENI_RULE, wanted.address.addr(), wanted.table);
    let mut found: Vec<&Rule> = own_rules(observed, wanted.address.addr()).collect();
    if wanted.own_rule == OwnRule::Ours && !take(&mut found, &own) {
        plan.push(Request::AddRule(own));
    }
    for rule in found {
        plan.push(Request::DeleteRule(rule.clone()));
    }
}

/// The interface has its own address and no other that is routable: pods' addresses must not be the node's.
fn addresses(plan: &mut Plan, observed: &Observed, link: &Link, wanted: IpNet) {
    let v6 = wanted.addr().is_ipv6();
    let (mut there, mut renew) = (false, false);
    for found in observed
        .addresses
        .iter()
        .filter(|a| a.index == link.index && a.net.addr().is_ipv6() == v6)
    {
        if found.net == wanted {
            there = true;
        } else if is_routable(found.net.addr()) {
            // With the first address of an IPv4 subnet go the others of it (promote_secondaries is off by default).
            renew |= found.net.trunc() == wanted.trunc();
            plan.push(Request::DeleteAddress {
                device: link.device(),
                net: found.net,
            });
        }
    }
    if !there || renew {
        // Without the subnet's route: the main table's must stay the primary interface's, now and whenever the link
        // comes up again.
        plan.push(Request::AddAddress {
            device: link.device(),
            net: wanted,
            no_dad: v6,
            no_prefix_route: true,
        });
    }
    // An address that somebody else gave has made one.
    let connected = |route: &&Route| {
        route.table == MAIN
            && route.to == wanted.trunc()
            && route.gateway.is_none()
            && route.device.as_ref().is_some_and(|d| d.index == link.index)
            && (v6 || route.source.is_none_or(|source| source == wanted.addr()))
    };
    for route in observed.routes.iter().filter(connected) {
        let route = Route {
            device: Some(link.device()),
            ..route.clone()
        };
        plan.push(Request::DeleteRoute(route));
    }
}

fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_loopback(),
    }
}

/// Whether both send the same packets the same way. Who made the route is of no matter.
fn same_path(found: &Route, wanted: &Route) -> bool {
    let index = |route: &Route| route.device.as_ref().map(|device| device.index);
    (found.to, found.gateway, found.table, index(found))
        == (wanted.to, wanted.gateway, wanted.table, index(wanted))
}

/// The rules for an interface's own address, with no further selector.
fn own_rules(observed: &Observed, address: IpAddr) -> impl Iterator<Item = &Rule> {
    let plain = move |rule: &&Rule| {
        rule.priority == ENI_RULE
            && rule.from == Some(IpNet::from(address))
            && rule
                .table
                .is_some_and(|table| **rule == Rule::from(ENI_RULE, address, table))
    };
    observed.rules.iter().filter(plain)
}

/// The marks that rules of ours lead to the main table, of whichever setting they are.
pub fn marks(rules: &[Rule]) -> BTreeSet<u32> {
    rules.iter().filter_map(mark_of).collect()
}

fn mark_rule(mark: u32, v6: bool) -> Rule {
    Rule {
        mark: Some((mark, mark)),
        ..Rule::bare(MARK_RULE, v6, Some(MAIN))
    }
}

fn mark_of(rule: &Rule) -> Option<u32> {
    rule.mark
        .map(|(mark, _)| mark)
        .filter(|mark| *rule == mark_rule(*mark, rule.v6))
}

fn service_rule(service: &Ipv4Net) -> Rule {
    Rule {
        // The kernel tells of no destination where it is any.
        to: (service.prefix_len() > 0).then(|| IpNet::V4(service.trunc())),
        ..Rule::bare(SERVICE_RULE, false, Some(MAIN))
    }
}

/// Of the rules that are `ours`, exactly the wanted ones, each once. New ones first: there is no moment without.
fn rules_like(plan: &mut Plan, observed: &Observed, wanted: BTreeSet<Rule>, ours: impl Fn(&Rule) -> bool) {
    let mut found: Vec<&Rule> = observed.rules.iter().filter(|rule| ours(rule)).collect();
    for rule in wanted {
        if !take(&mut found, &rule) {
            plan.push(Request::AddRule(rule));
        }
    }
    for rule in found {
        plan.push(Request::DeleteRule(rule.clone()));
    }
}

/// Takes one of the rule out of the list, if it is there.
fn take(rules: &mut Vec<&Rule>, wanted: &Rule) -> bool {
    let at = rules.iter().position(|rule| *rule == wanted);
    at.map(|at| rules.remove(at)).is_some()
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
