//! Does the kernel still show what ADD made?

use super::{EgressError, EgressLink, Step};
use crate::netlink::{Link, MAIN, Neighbour, Route, RouteFilter, Socket};
use crate::netns::Netns;
use crate::pod::Finding;
use crate::sysctl::Tree;

/// Compares the kernel with what [`super::add()`] makes of `link`. Not compared are MACs (neighbours are checked against the
/// ends as they are), and the pod end's MTU, which chained plugins such as `tuning` may change.
///
/// Gives all that differs; nothing means all is as it should be.
///
/// # Errors
/// Something could not be read.
pub fn check(host: &mut Socket, pod: &Netns, link: &EgressLink) -> Result<Vec<Finding>, EgressError> {
    let fail = EgressError::kernel(Step::Look);
    let mut inside = Socket::open_in(pod).map_err(&fail)?;
    let v6 = link.v6();
    let mut findings = Vec::new();
    let host_end = host.link(&link.host_name).map_err(&fail)?;
    let pod_end = inside.link(&link.name).map_err(&fail)?;
    state(
        &mut findings,
        &format!("link {} on the host", link.host_name),
        host_end.as_ref(),
        Some(link.mtu),
    );
    state(
        &mut findings,
        &format!("interface {} in the pod", link.name),
        pod_end.as_ref(),
        None,
    );
    let macs = (
        host_end.as_ref().and_then(|end| end.mac),
        pod_end.as_ref().and_then(|end| end.mac),
    );
    let filter = |end: &Link| RouteFilter {
        table: Some(MAIN),
        device: Some(end.index),
    };
    if let Some(end) = &pod_end {
        let addresses = inside.addresses(Some(end.index)).map_err(&fail)?;
        if !addresses.iter().any(|address| address.net == link.in_pod()) {
            missing(
                &mut findings,
                format!("address {} dev {} in the pod", link.in_pod(), link.name),
            );
        }
        // Without the host's end its MAC is not known, and with it the next hop.
        if let Some(host_mac) = macs.0 {
            let found = inside.routes(v6, filter(end)).map_err(&fail)?;
            for wanted in link.pod_routes(&end.device(), host_mac) {
                route(&mut findings, &wanted, &found, "in the pod");
            }
            let found = inside.neighbours(end.index).map_err(&fail)?;
            neighbour(
                &mut findings,
                &link.neighbour_in_pod(end.device(), host_mac),
                &found,
                "in the pod",
            );
        }
    }
    if let Some(end) = &host_end {
        if !v6 {
            let addresses = host.addresses(Some(end.index)).map_err(&fail)?;
            if !addresses.iter().any(|address| address.net == link.gateway.into()) {
                missing(
                    &mut findings,
                    format!("address {} dev {} on the host", link.gateway, link.host_name),
                );
            }
        }
        let found = host.routes(v6, filter(end)).map_err(&fail)?;
        route(
            &mut findings,
            &link.host_route(end.device()),
            &found,
            "on the host",
        );
        if let Some(mac) = macs.1 {
            let found = host.neighbours(end.index).map_err(&fail)?;
            neighbour(
                &mut findings,
                &link.neighbour_on_host(end.device(), mac),
                &found,
                "on the host",
            );
        }
    }
    forwarding(&mut findings, v6)?;
    Ok(findings)
}

fn missing(findings: &mut Vec<Finding>, what: String) {
    findings.push(Finding::Missing { what });
}

fn differs(findings: &mut Vec<Finding>, what: String, wanted: impl ToString, found: impl ToString) {
    findings.push(Finding::Differs {
        what,
        wanted: wanted.to_string(),
        found: found.to_string(),
    });
}

fn state(findings: &mut Vec<Finding>, what: &str, link: Option<&Link>, mtu: Option<u32>) {
    match (link, mtu) {
        (None, _) => missing(findings, what.to_owned()),
        (Some(link), _) if !link.up => differs(findings, format!("{what}: state"), "up", "down"),
        (Some(link), Some(mtu)) if link.mtu != mtu => {
            differs(findings, format!("{what}: mtu"), mtu, link.mtu);
        }
        _ => {}
    }
}

fn route(findings: &mut Vec<Finding>, wanted: &Route, found: &[Route], place: &str) {
    let same = |route: &&Route| route.to == wanted.to && route.gateway == wanted.gateway;
    if !found.iter().any(|route| same(&route)) {
        missing(findings, format!("route {wanted} {place}"));
    }
}

fn neighbour(findings: &mut Vec<Finding>, wanted: &Neighbour, found: &[Neighbour], place: &str) {
    let what = format!("neighbour {} dev {} {place}", wanted.address, wanted.device);
    match found.iter().find(|n| n.address == wanted.address && n.permanent) {
        None => missing(findings, what),
        Some(found) if found.mac != wanted.mac => differs(findings, what, wanted.mac, found.mac),
        Some(_) => {}
    }
}

fn forwarding(findings: &mut Vec<Finding>, v6: bool) -> Result<(), EgressError> {
    let key = if v6 {
        "net/ipv6/conf/all/forwarding"
    } else {
        "net/ipv4/ip_forward"
    };
    let found = Tree::default()
        .read(key)
        .map_err(EgressError::sysctl(Step::Look))?;
    if found != "1" {
        differs(findings, format!("sysctl {key} on the host"), 1, found);
    }
    Ok(())
}
