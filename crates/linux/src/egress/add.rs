//! Making a pod's egress link: three sends, however many pods there are.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use super::{EgressError, EgressLink, Step};
use crate::netlink::{Device, Errno, MAIN, NetlinkError, Refusal, Request, Socket, Veth};
use crate::netns::Netns;
use crate::sysctl::{SysctlError, Tree};

/// How long an IPv6 address may stay unusable.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);
/// An address far away, which only a default route leads to.
const FAR_AWAY: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1));

/// Lets the node forward packets of the family. `host` must be a socket of the namespace the calling thread is in.
///
/// An IPv6 router ignores the router advertisements that its own default route may come from, unless the interface says
/// otherwise (`accept_ra` 2), and drops that route the moment it becomes one; so the interface with the default route is told
/// first. One that ignores them anyway (0: another program handles them) is left so.
///
/// # Errors
/// [`EgressError`]; mostly `/proc/sys` is read-only.
pub fn prepare(host: &mut Socket, v6: bool) -> Result<(), EgressError> {
    let fail = EgressError::sysctl(Step::Forwarding);
    let look = EgressError::kernel(Step::Forwarding);
    let tree = Tree::default();
    if !v6 {
        return tree.ensure("net/ipv4/ip_forward", "1").map(drop).map_err(fail);
    }
    const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
    if tree.read(FORWARDING).map_err(&fail)? == "1" {
        return Ok(());
    }
    if let Some(device) = host.route_to(FAR_AWAY).map_err(&look)?.and_then(|r| r.device) {
        let links = host.links().map_err(&look)?;
        for link in links.iter().filter(|link| link.index == device.index) {
            let key = format!("net/ipv6/conf/{}/accept_ra", link.name);
            if tree.read(&key).map_err(&fail)? == "1" {
                tree.write(&key, "2").map_err(&fail)?;
            }
        }
    }
    tree.write(FORWARDING, "1").map_err(fail)
}

/// Makes the link. `host` must be a socket of the namespace the calling thread is in, `inside` one of the pod's.
///
/// A host link of the same name, left by an earlier ADD of the container that was cut short, is deleted first. A route to the
/// address by another link, of an earlier owner whose namespace is about to end, is replaced.
///
/// # Errors
/// [`EgressError`]; the kernel is then as before the call, but for stale things, and for what the error names.
pub fn add(
    host: &mut Socket,
    pod: &Netns,
    inside: &mut Socket,
    link: &EgressLink,
) -> Result<(), EgressError> {
    let look = EgressError::kernel(Step::Look);
    if inside.index_of(&link.name).map_err(&look)?.is_some() {
        return Err(EgressError::NameTaken {
            name: link.name.clone(),
            netns: pod.path().to_path_buf(),
        });
    }
    remove_stale(host, &link.host_name)?;
    let made = host.run_one(Request::CreateVeth(Veth {
        name: link.host_name.clone(),
        mac: link.host_mac,
        peer_name: link.name.clone(),
        peer_mac: link.mac,
        peer_netns: pod.as_fd().as_raw_fd(),
        mtu: link.mtu,
    }));
    let mut quieted = false;
    let outcome = match made {
        Ok(()) => wire(host, pod, inside, link, &mut quieted),
        // Refused: then it was not made.
        Err(error @ NetlinkError::Refused(_)) => return Err(EgressError::kernel(Step::Veth)(error)),
        Err(error) => Err(EgressError::kernel(Step::Veth)(error)),
    };
    outcome.map_err(|error| error.with_undo(undo(host, pod, link, quieted)))
}

fn remove_stale(host: &mut Socket, name: &str) -> Result<(), EgressError> {
    let fail = EgressError::kernel(Step::Stale);
    // An ioctl for the common case; only a hit is worth a message.
    if host.index_of(name).map_err(&fail)?.is_none() {
        return Ok(());
    }
    let Some(found) = host.link(name).map_err(&fail)? else {
        return Ok(());
    };
    if found.kind.as_deref() != Some("veth") {
        return Err(EgressError::HostNameTaken {
            name: name.to_owned(),
            kind: found.kind.unwrap_or_else(|| "physical".to_owned()),
        });
    }
    match host.run_one(Request::DeleteLink(found.device())) {
        Err(error) if error.errno() == Some(Errno::NODEV) => Ok(()),
        outcome => outcome.map_err(fail),
    }
}

/// The link takes its peer, routes, addresses and neighbours along. Gives what stays, in words.
fn undo(host: &mut Socket, pod: &Netns, link: &EgressLink, quieted: bool) -> Vec<String> {
    let mut left = Vec::new();
    match host.run_one(Request::DeleteLink(Device::named(link.host_name.clone()))) {
        Err(error) if error.errno() != Some(Errno::NODEV) => left.push(error.to_string()),
        _ => {}
    }
    if quieted {
        match pod.within(|| Tree::default().write(&disable_ipv6(&link.beside), "0")) {
            Err(error) => left.push(error.to_string()),
            Ok(Err(error)) if !error.is_missing() => left.push(error.to_string()),
            Ok(_) => {}
        }
    }
    left
}

fn disable_ipv6(interface: &str) -> String {
    format!("net/ipv6/conf/{interface}/disable_ipv6")
}

fn wire(
    host: &mut Socket,
    pod: &Netns,
    inside: &mut Socket,
    link: &EgressLink,
    quieted: &mut bool,
) -> Result<(), EgressError> {
    let find = |socket: &Socket, name: &str| {
        let index = socket.index_of(name).map_err(EgressError::kernel(Step::Veth))?;
        let vanished = || EgressError::Vanished {
            name: name.to_owned(),
            undo: Vec::new(),
        };
        Ok::<_, EgressError>(Device::new(index.ok_or_else(vanished)?, name))
    };
    let ends = (find(host, &link.host_name)?, find(inside, &link.name)?);
    host_parameters(link)?;
    if link.v6() {
        *quieted = pod_parameters(pod, link)?;
    }
    run_all(inside, Step::Pod, &in_pod(link, ends.1))?;
    run_all(host, Step::Host, &on_host(link, ends.0))?;
    if link.v6() {
        await_address(inside, link.address.addr())?;
    }
    Ok(())
}

/// The host's end must not learn routes or addresses from what a pod sends. Written before the pod's end is up.
fn host_parameters(link: &EgressLink) -> Result<(), EgressError> {
    let tree = Tree::default();
    let parameters: &[(&str, &str)] = if link.v6() {
        // Distributions may have it off for new links.
        &[("accept_ra", "0"), ("disable_ipv6", "0")]
    } else {
        &[("accept_ra", "0")]
    };
    for (parameter, value) in parameters {
        let key = format!("net/ipv6/conf/{}/{parameter}", link.host_name);
        match tree.ensure(&key, value) {
            // No IPv6 in this kernel: nothing to keep quiet.
            Err(error) if error.is_missing() && !link.v6() => break,
            outcome => outcome.map(drop).map_err(EgressError::sysctl(Step::Parameters))?,
        }
    }
    Ok(())
}

/// IPv6 on the egress link and on loopback, none on the pod's own interface; says whether the last had to be written.
fn pod_parameters(pod: &Netns, link: &EgressLink) -> Result<bool, EgressError> {
    let written = pod.within(|| -> Result<bool, SysctlError> {
        let tree = Tree::default();
        tree.ensure(&disable_ipv6(&link.name), "0")?;
        tree.ensure(&disable_ipv6("lo"), "0")?;
        match tree.ensure(&disable_ipv6(&link.beside), "1") {
            // A plugin before us that makes no interface of this name has none to quiet.
            Err(error) if error.is_missing() => Ok(false),
            outcome => outcome,
        }
    })?;
    written.map_err(EgressError::sysctl(Step::Parameters))
}

fn in_pod(link: &EgressLink, device: Device) -> Vec<Request> {
    let mut requests = vec![
        Request::SetLink {
            device: device.clone(),
            up: Some(true),
            mtu: None,
        },
        Request::AddAddress {
            device: device.clone(),
            net: link.in_pod(),
            // Nobody else is on the link, and asking holds back the first packet for 1.8 s.
            no_dad: link.v6(),
            // The pod reaches the others of the range by the gateway, not on the link.
            no_prefix_route: !link.v6(),
        },
    ];
    let neighbour = link.neighbour_in_pod(device.clone(), link.host_mac);
    requests.push(Request::SetNeighbour(neighbour));
    let routes = link.pod_routes(&device, link.host_mac);
    requests.extend(routes.into_iter().map(Request::ReplaceRoute));
    requests
}

fn on_host(link: &EgressLink, device: Device) -> Vec<Request> {
    let mut requests = Vec::with_capacity(4);
    if !link.v6() {
        requests.push(Request::AddLinkAddress {
            device: device.clone(),
            net: link.gateway.into(),
        });
    }
    // Else the answer to the pod's first packet may be lost.
    requests.push(Request::AwaitCarrier(device.clone()));
    requests.push(Request::ReplaceRoute(link.host_route(device.clone())));
    requests.push(Request::SetNeighbour(link.neighbour_on_host(device, link.mac)));
    requests
}

fn run_all(socket: &mut Socket, step: Step, requests: &[Request]) -> Result<(), EgressError> {
    let fail = EgressError::kernel(step);
    let outcomes = socket.run(requests).map_err(&fail)?;
    let first: Result<(), Refusal> = outcomes.into_iter().collect();
    first.map_err(|refusal| fail(refusal.into()))
}

/// As for a pod's own IPv6 address: usable only after a work queue of the kernel's has looked at it.
fn await_address(inside: &mut Socket, address: IpAddr) -> Result<(), EgressError> {
    let begin = Instant::now();
    while !inside.is_local(address).map_err(EgressError::kernel(Step::Pod))? {
        if begin.elapsed() > ADDRESS_LIMIT {
            return Err(EgressError::NotReady {
                address,
                undo: Vec::new(),
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether the host's main table leads to this very address.
pub(super) fn leads_to(host: &mut Socket, address: IpAddr) -> Result<Option<Device>, NetlinkError> {
    let route = host.route_to(address)?;
    Ok(route
        .filter(|route| route.to == address.into() && route.table == MAIN)
        .and_then(|route| route.device))
}
