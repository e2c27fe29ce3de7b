//! Taking away what the host has for a pod's addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Gone, PodError, Step, TO_POD_RULE, any_from_rule};
use crate::netlink::{Errno, MAIN, NetlinkError, PROTO_BOOT, Request, Route, Rule, Scope, Socket};

/// A rule that can be there twice is deleted twice in the first send; more are deleted one by one, up to this.
const DUPLICATES: usize = 64;

/// Removes the host's route and rules of the addresses. `host_names` are the pod's host ends.
///
/// The veth itself is left: it dies with the pod's namespace, and deleting it here would cost 7–14 ms. An address whose
/// route leads to a link that is *not* in `host_names` has been given to another pod since (a DEL that comes late or again):
/// nothing of it is touched. With no names at all this cannot be told, and everything goes.
///
/// Goes on to the end; what is missing is no error.
pub fn del(host: &mut Socket, gone: &[Gone], host_names: &[&str]) -> Vec<PodError> {
    let mut errors = Vec::new();
    let mut fail = |error| errors.push(PodError::kernel(Step::Remove)(error));
    let mut ours = Vec::with_capacity(gone.len());
    for one in gone {
        match belongs_to_another(host, one.address, host_names) {
            Ok(true) => {}
            Ok(false) => ours.push(*one),
            Err(error) => fail(error),
        }
    }
    let rules: Vec<Rule> = ours.iter().flat_map(|one| rules_of(one.address)).collect();
    let routes = ours.iter().map(|one| Request::DeleteRoute(route_of(one.address)));
    let doubled = rules
        .iter()
        .flat_map(|rule| [rule, rule])
        .cloned()
        .map(Request::DeleteRule);
    let requests: Vec<Request> = doubled.chain(routes).collect();
    if requests.is_empty() {
        return errors;
    }
    match host.run(&requests) {
        Ok(outcomes) => {
            let deleted = |at: usize| outcomes.get(at).is_some_and(Result::is_ok);
            let many: Vec<&Rule> = rules
                .iter()
                .enumerate()
                .filter(|(i, _)| deleted(2 * i + 1))
                .map(|(_, r)| r)
                .collect();
            for rule in many {
                if let Err(error) = delete_all(host, rule) {
                    fail(error);
                }
            }
            for refusal in outcomes.into_iter().filter_map(Result::err) {
                if !is_missing(refusal.errno) {
                    fail(refusal.into());
                }
            }
        }
        Err(error) => fail(error),
    }
    errors
}

/// Rules are deleted whatever their table: the address has no owner now, so none of them is anybody's. The reply that
/// names the table may be that of an agent which set the ENI up anew since.
fn rules_of(address: IpAddr) -> [Rule; 2] {
    [
        Rule {
            table: None,
            ..Rule::to(TO_POD_RULE, address, MAIN)
        },
        any_from_rule(address),
    ]
}

fn route_of(address: IpAddr) -> Route {
    Route {
        to: IpNet::from(address),
        gateway: None,
        device: None,
        table: MAIN,
        scope: Scope::Link,
        onlink: false,
        source: None,
        protocol: PROTO_BOOT,
    }
}

fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::SRCH | Errno::NODEV)
}

fn delete_all(host: &mut Socket, rule: &Rule) -> Result<(), NetlinkError> {
    for _ in 0..DUPLICATES {
        match host.run_one(Request::DeleteRule(rule.clone())) {
            Ok(()) => {}
            Err(error) if error.errno().is_some_and(is_missing) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the host's route to exactly this address leads to a link that is not the pod's.
fn belongs_to_another(host: &mut Socket, address: IpAddr, host_names: &[&str]) -> Result<bool, NetlinkError> {
    if host_names.is_empty() {
        return Ok(false);
    }
    let Some(route) = host.route_to(address)? else {
        return Ok(false);
    };
    if route.to != IpNet::from(address) || route.table != MAIN {
        return Ok(false);
    }
    let mut own = Vec::with_capacity(host_names.len());
    for name in host_names {
        own.extend(host.index_of(name)?);
    }
    Ok(route.device.is_some_and(|device| !own.contains(&device.index)))
}
