//! Does the kernel still show what ADD made?

use std::fmt;

use super::{FROM_POD_RULE, PodError, PodInterface, Step, TO_POD_RULE, validate};
use crate::netlink::{Link, MAIN, Neighbour, Route, RouteFilter, Rule, Socket};
use crate::netns::Netns;

/// One thing that is not as ADD left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is not there.
    Missing {
        /// What, and where: `route 10.0.1.5/32 dev eniabc table 254 on the host`.
        what: String,
    },
    /// It is there, but differs.
    Differs {
        /// What.
        what: String,
        /// As it should be.
        wanted: String,
        /// As it is.
        found: String,
    },
    /// It should not be there.
    Foreign {
        /// What.
        what: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { what } => write!(f, "{what} is missing"),
            Self::Differs { what, wanted, found } => write!(f, "{what} is {found}, not {wanted}"),
            Self::Foreign { what } => write!(f, "{what} should not be there"),
        }
    }
}

/// Compares the kernel with what [`super::add()`] makes of `interfaces`. Not compared are MACs (not known from a CNI
/// result; the neighbour entry is checked against the host end's) and the pod end's MTU, which chained plugins such as `tuning` may change.
///
/// Gives all that differs; nothing means all is as it should be.
///
/// # Errors
/// Something could not be read.
pub fn check(host: &mut Socket, pod: &Netns, interfaces: &[PodInterface]) -> Result<Vec<Finding>, PodError> {
    validate::interfaces(interfaces)?;
    let fail = PodError::kernel(Step::Check);
    let mut inside = Socket::open_in(pod).map_err(&fail)?;
    let mut findings = Vec::new();
    for one in interfaces {
        let v6 = one.address.is_ipv6();
        let ends = (
            host.link(&one.host_name).map_err(&fail)?,
            inside.link(&one.name).map_err(&fail)?,
        );
        link(
            &mut findings,
            &format!("link {} on the host", one.host_name),
            ends.0.as_ref(),
            Some(one.mtu),
        );
        link(
            &mut findings,
            &format!("interface {} in the pod", one.name),
            ends.1.as_ref(),
            None,
        );
        if let Some(end) = &ends.1 {
            let addresses = inside.addresses(Some(end.index)).map_err(&fail)?;
            if !addresses.iter().any(|address| address.net == one.net()) {
                missing(
                    &mut findings,
                    format!("address {} dev {} in the pod", one.net(), one.name),
                );
            }
            let filter = RouteFilter {
                table: Some(one.pod_table()),
                device: Some(end.index),
            };
            let routes = inside.routes(v6, filter).map_err(&fail)?;
            pod_routes(&mut findings, one, end, &routes);
            let neighbours = inside.neighbours(end.index).map_err(&fail)?;
            neighbour(&mut findings, one, ends.0.as_ref(), &neighbours);
            if let Some(rule) = one.pod_rule()
                && !inside.rules(v6).map_err(&fail)?.contains(&rule)
            {
                missing(&mut findings, format!("rule {rule} in the pod"));
            }
        }
        if let Some(end) = &ends.0 {
            let filter = RouteFilter {
                table: Some(MAIN),
                device: Some(end.index),
            };
            let routes = host.routes(v6, filter).map_err(&fail)?;
            if !routes
                .iter()
                .any(|route| route.to == one.net() && route.gateway.is_none())
            {
                missing(
                    &mut findings,
                    format!(
                        "route {} dev {} table {MAIN} on the host",
                        one.net(),
                        one.host_name
                    ),
                );
            }
        }
        host_rules(&mut findings, one, &host.rules(v6).map_err(&fail)?);
    }
    Ok(findings)
}

fn missing(findings: &mut Vec<Finding>, what: String) {
    findings.push(Finding::Missing { what });
}

fn link(findings: &mut Vec<Finding>, what: &str, link: Option<&Link>, mtu: Option<u32>) {
    let mut differs = |part: &str, wanted: String, found: String| {
        findings.push(Finding::Differs {
            what: format!("{what}: {part}"),
            wanted,
            found,
        });
    };
    match (link, mtu) {
        (None, _) => missing(findings, what.to_owned()),
        (Some(link), _) if !link.up => differs("state", "up".to_owned(), "down".to_owned()),
        (Some(link), Some(mtu)) if link.mtu != mtu => differs("mtu", mtu.to_string(), link.mtu.to_string()),
        _ => {}
    }
}

fn pod_routes(findings: &mut Vec<Finding>, one: &PodInterface, end: &Link, routes: &[Route]) {
    let device = end.device();
    let on_link = Route::on_link(one.gateway().into(), device.clone(), one.pod_table());
    let default = Route::default_by(one.gateway(), device, one.pod_table(), true);
    for wanted in [on_link, default] {
        if !routes
            .iter()
            .any(|route| route.to == wanted.to && route.gateway == wanted.gateway)
        {
            missing(findings, format!("route {wanted} in the pod"));
        }
    }
}

fn neighbour(
    findings: &mut Vec<Finding>,
    one: &PodInterface,
    host_end: Option<&Link>,
    neighbours: &[Neighbour],
) {
    let what = format!("neighbour {} dev {} in the pod", one.gateway(), one.name);
    let Some(found) = neighbours
        .iter()
        .find(|n| n.address == one.gateway() && n.permanent)
    else {
        return missing(findings, what);
    };
    if let Some(mac) = host_end.and_then(|link| link.mac)
        && mac != found.mac
    {
        findings.push(Finding::Differs {
            what,
            wanted: mac.to_string(),
            found: found.mac.to_string(),
        });
    }
}

fn host_rules(findings: &mut Vec<Finding>, one: &PodInterface, rules: &[Rule]) {
    let wanted: Vec<Rule> = one.host_rules().collect();
    for rule in &wanted {
        if !rules.contains(rule) {
            missing(findings, format!("rule {rule} on the host"));
        }
    }
    for rule in rules
        .iter()
        .filter(|rule| matches!(rule.priority, TO_POD_RULE | FROM_POD_RULE))
    {
        let names_us = rule.from == Some(one.net()) || rule.to == Some(one.net());
        if names_us && !wanted.contains(rule) {
            findings.push(Finding::Foreign {
                what: format!("rule {rule} on the host"),
            });
        }
    }
}
