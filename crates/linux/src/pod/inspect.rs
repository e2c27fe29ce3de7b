//! What the host must have for an address of a pod, and whether it has it: for people who want to know why a pod has no
//! network. Nothing is changed.
//!
//! What is inside the pod is not looked at: that needs the pod's namespace, which only the runtime hands out. CHECK does it
//! ([`super::check()`]).

use std::net::IpAddr;

use ipnet::IpNet;

use super::{FROM_POD_RULE, TO_POD_RULE, is_main};
use crate::Mac;
use crate::netlink::{Link, MAIN, NetlinkError, RouteFilter, Rule, Socket};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The pod's address.
    pub address: IpAddr,
    /// The routing table of its interface; [`MAIN`], 0 or 1 for the primary.
    pub table: u32,
    /// The names that the host's end of its pair may have; the first one is what a new pod would get.
    pub host_names: Vec<String>,
    /// MAC of the network interface that the address lies on; none where that is not known.
    pub mac: Option<Mac>,
}

/// One thing that must be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Must {
    /// What must be there, or must not.
    pub what: String,
    /// Whether it is so.
    pub is_so: bool,
    /// What was found, where that says more.
    pub found: String,
}

/// Looks at the host's end, the route to the pod, its two rules, and the way out by its interface.
///
/// # Errors
/// Something could not be listed.
pub fn inspect(host: &mut Socket, question: &Question) -> Result<Vec<Must>, NetlinkError> {
    let links = host.links()?;
    let rules = host.rules(question.address.is_ipv6())?;
    let mut all = Vec::new();
    let end = question
        .host_names
        .iter()
        .find_map(|name| links.iter().find(|l| l.name == *name));
    all.push(host_end(question, end));
    all.push(route_to_pod(host, question, &links, end)?);
    all.push(to_rule(question, &rules));
    all.push(from_rule(question, &rules));
    if let Some(mac) = question.mac {
        let eni = links
            .iter()
            .find(|l| l.mac == Some(mac) && l.kind.as_deref() != Some("vlan"));
        all.push(eni_link(mac, eni));
        if let (Some(eni), false) = (eni, is_main(question.table)) {
            all.push(way_out(host, question, eni)?);
        }
    }
    Ok(all)
}

fn must(what: impl Into<String>, is_so: bool, found: impl Into<String>) -> Must {
    Must {
        what: what.into(),
        is_so,
        found: found.into(),
    }
}

fn host_end(question: &Question, end: Option<&Link>) -> Must {
    let expected = question.host_names.first().map_or("", String::as_str);
    match end {
        None => must(
            format!("link {expected}"),
            false,
            "there is no such link: the plugin has not made it yet, or somebody removed it",
        ),
        Some(link) if link.kind.as_deref() != Some("veth") => {
            let kind = link.kind.as_deref().unwrap_or("physical link");
            must(
                format!("link {}", link.name),
                false,
                format!("it is no veth but a {kind}"),
            )
        }
        Some(link) if !link.up => must(format!("link {} up", link.name), false, "it is down"),
        Some(link) => must(
            format!("link {} up", link.name),
            true,
            format!("mtu {}", link.mtu),
        ),
    }
}

fn route_to_pod(
    host: &mut Socket,
    question: &Question,
    links: &[Link],
    end: Option<&Link>,
) -> Result<Must, NetlinkError> {
    let net = IpNet::from(question.address);
    let name = end.map_or_else(
        || question.host_names.first().cloned().unwrap_or_default(),
        |l| l.name.clone(),
    );
    let what = format!("route {net} dev {name} table main");
    let found = host.route_to(question.address)?;
    Ok(match found {
        None => must(what, false, "there is no route to the pod"),
        Some(mut route) => {
            let by = route.device.as_ref().map(|d| d.index);
            let leads = end.is_some() && by == end.map(|l| l.index);
            let is_so = leads && route.to == net && route.table == MAIN;
            // The kernel tells the index only.
            if let (Some(device), Some(link)) =
                (&mut route.device, links.iter().find(|l| Some(l.index) == by))
            {
                device.name.clone_from(&link.name);
            }
            let found = if is_so {
                String::new()
            } else {
                format!("packets to it take: {route}")
            };
            must(what, is_so, found)
        }
    })
}

fn to_rule(question: &Question, rules: &[Rule]) -> Must {
    let wanted = Rule::to(TO_POD_RULE, question.address, MAIN);
    let is_so = rules.contains(&wanted);
    must(
        format!("rule {wanted}"),
        is_so,
        if is_so { "" } else { "it is missing" },
    )
}

fn from_rule(question: &Question, rules: &[Rule]) -> Must {
    let address = IpNet::from(question.address);
    let of_pod: Vec<&Rule> = rules
        .iter()
        .filter(|r| r.priority == FROM_POD_RULE && r.from == Some(address))
        .collect();
    let found = |why: &str| {
        let all: Vec<String> = of_pod.iter().map(ToString::to_string).collect();
        if all.is_empty() {
            why.to_owned()
        } else {
            format!("there is {}", all.join(" and "))
        }
    };
    if is_main(question.table) {
        let astray = of_pod
            .iter()
            .any(|r| r.table.is_some_and(|table| !is_main(table)));
        let what = format!("no rule {FROM_POD_RULE}: from {address} (its interface is the primary one)");
        return must(what, !astray, if astray { found("") } else { String::new() });
    }
    let wanted = Rule::from(FROM_POD_RULE, question.address, question.table);
    // The first of several decides.
    let is_so = of_pod.first().is_some_and(|first| **first == wanted);
    must(
        format!("rule {wanted}"),
        is_so,
        if is_so {
            String::new()
        } else {
            found("it is missing")
        },
    )
}

fn eni_link(mac: Mac, eni: Option<&Link>) -> Must {
    match eni {
        None => must(
            format!("a link with the interface's MAC {mac}"),
            false,
            "there is none: the interface is not attached, or in another namespace",
        ),
        Some(link) => must(
            format!("link {} of the interface up", link.name),
            link.up,
            if link.up { "" } else { "it is down" },
        ),
    }
}

fn way_out(host: &mut Socket, question: &Question, eni: &Link) -> Result<Must, NetlinkError> {
    let in_table = RouteFilter {
        table: Some(question.table),
        device: None,
    };
    let routes = host.routes(question.address.is_ipv6(), in_table)?;
    let default = routes.iter().find(|r| r.to.prefix_len() == 0);
    let what = format!("default route dev {} table {}", eni.name, question.table);
    Ok(match default {
        None => must(what, false, "the table has no default route"),
        Some(route) => {
            let is_so = route.device.as_ref().is_some_and(|d| d.index == eni.index);
            let by = route
                .gateway
                .map_or_else(|| "without a gateway".to_owned(), |g| format!("via {g}"));
            let other = if is_so { "" } else { ", by another link" };
            must(what, is_so, format!("{by}{other}"))
        }
    })
}
