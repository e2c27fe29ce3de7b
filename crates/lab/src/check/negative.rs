//! Packets that must not get through: the fabric has to drop them, say why, and nobody may see them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, bind, sendto, socket};

use super::plan::{Endpoint, Kind, PORT, is_untranslated};
use super::wire::{Seen, packet};
use crate::control::{self, Ask, Status};
use crate::error::LabError;
use crate::fabric::DroppedPacket;
use crate::fabric::netns::Place;
use crate::state::Dir;

/// A packet to be dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bad {
    /// The family it belongs to.
    pub kind: &'static str,
    /// Who sends it: index among the endpoints.
    pub from: usize,
    /// Its source address as written into it; `None`: the sender's own.
    pub source: Option<IpAddr>,
    /// Its destination.
    pub to: SocketAddr,
    /// Who would see it if it got through: index among the endpoints.
    pub victim: Option<usize>,
    /// The reason the drop log must give; `None`: the sender's node may have dropped it before, as well.
    pub reason: Option<&'static str>,
}

/// How long the drop log may take to show a packet.
const PATIENCE: Duration = Duration::from_secs(3);

/// All packets to try. `untranslated`: where pods go with their own address.
pub(crate) fn plan(endpoints: &[Endpoint], status: &Status, untranslated: &[Ipv4Net]) -> Vec<Bad> {
    let mut all = Vec::new();
    let v6 = endpoints.iter().any(|e| e.address.is_ipv6());
    let nobody = if v6 {
        unowned_ipv6(status).map(IpAddr::V6)
    } else {
        unowned(status).map(IpAddr::V4)
    };
    for (from, sender) in endpoints.iter().enumerate() {
        let node = match sender.kind {
            Kind::Pod { node, .. } => node,
            Kind::Node { .. } => from,
            Kind::Internet | Kind::Peer => continue,
        };
        let is_pod = from != node;
        let to = |address: IpAddr| SocketAddr::new(address, PORT);
        let elsewhere = |(_, e): &(usize, &Endpoint)| match e.kind {
            Kind::Pod { node: n, .. } => n != node,
            Kind::Node { .. } => e.name != endpoint_name(endpoints, node),
            _ => false,
        };
        let victim = endpoints
            .iter()
            .enumerate()
            .filter(elsewhere)
            .max_by_key(|(_, e)| matches!(e.kind, Kind::Pod { .. }));
        if let Some((index, target)) = victim {
            let mut lies: Vec<(&'static str, IpAddr)> =
                vec![("spoofed-foreign-source", target_neighbour(endpoints, index))];
            lies.extend(nobody.map(|address| ("spoofed-unowned-source", address)));
            if let Some(other) = other_interface(status, sender, is_pod).filter(|_| !v6) {
                lies.push(("spoofed-own-other-interface", other.into()));
            }
            for (kind, source) in lies {
                // The node's own filters may be quicker than the VPC's for what its pods send.
                let reason = (!is_pod).then_some("source-check");
                let victim = Some(index);
                all.push(Bad {
                    kind,
                    from,
                    source: Some(source),
                    to: to(target.address),
                    victim,
                    reason,
                });
            }
        }
        if let Some(address) = nobody {
            let (kind, reason) = ("unowned-destination", Some("no-owner"));
            all.push(Bad {
                kind,
                from,
                source: None,
                to: to(address),
                victim: None,
                reason,
            });
        }
    }
    let internet = endpoints.iter().position(|e| e.kind == Kind::Internet);
    all.extend(without_public_address(endpoints, internet, untranslated));
    // No translation hides a private subnet: its gateway has to keep others out.
    let private = |e: &Endpoint| v6 && matches!(e.kind, Kind::Node { public: None, .. });
    for (index, endpoint) in endpoints.iter().enumerate().filter(|(_, e)| private(e)) {
        all.extend(internet.map(|from| Bad {
            kind: "internet-to-private-subnet",
            from,
            source: None,
            to: SocketAddr::new(endpoint.address, PORT),
            victim: Some(index),
            reason: Some("egress-only"),
        }));
    }
    for endpoint in endpoints {
        if let (
            Some(from),
            Kind::Node {
                public: Some(public), ..
            },
        ) = (internet, &endpoint.kind)
        {
            let (kind, reason) = ("internet-to-closed-port", Some("security-group"));
            // Below the NodePort range, which is all the default group opens to the internet.
            let to = SocketAddr::new(*public, 22);
            all.push(Bad {
                kind,
                from,
                source: None,
                to,
                victim: None,
                reason,
            });
        }
    }
    all
}

/// As itself a pod has no public address: the internet gateway lets nothing of it through.
fn without_public_address(
    endpoints: &[Endpoint],
    internet: Option<usize>,
    untranslated: &[Ipv4Net],
) -> Vec<Bad> {
    let Some((victim, address)) = internet.and_then(|i| Some((i, endpoints.get(i)?.address))) else {
        return Vec::new();
    };
    if address.is_ipv6() || !is_untranslated(address, untranslated) {
        return Vec::new();
    }
    let of_public = |e: &Endpoint| matches!(e.kind, Kind::Pod { alone: None, .. });
    let pods = endpoints.iter().enumerate().filter(|(_, e)| of_public(e));
    pods.map(|(from, _)| Bad {
        kind: "untranslated-pod-to-internet",
        from,
        source: None,
        to: SocketAddr::new(address, PORT),
        victim: Some(victim),
        reason: Some("no-public-address"),
    })
    .collect()
}

fn endpoint_name(endpoints: &[Endpoint], index: usize) -> &str {
    endpoints.get(index).map_or("", |e| e.name.as_str())
}

/// An address the target's side might believe in: another endpoint of the VPC, else the target itself.
fn target_neighbour(endpoints: &[Endpoint], target: usize) -> IpAddr {
    let others = endpoints.iter().enumerate().filter(|(i, _)| *i != target);
    let node = |e: &Endpoint| match e.kind {
        Kind::Pod { node, .. } => Some(node),
        _ => None,
    };
    let home = endpoints.get(target).and_then(node);
    let near = others
        .map(|(_, e)| e)
        .find(|e| node(e).is_some() && node(e) == home);
    near.or_else(|| endpoints.get(target))
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |e| e.address)
}

/// An address of the sending node that another interface than the primary owns.
fn other_interface(status: &Status, sender: &Endpoint, is_pod: bool) -> Option<Ipv4Addr> {
    if is_pod {
        return None;
    }
    let node = status.nodes.iter().find(|n| n.name == sender.name)?;
    node.interfaces
        .iter()
        .find(|i| (i.card, i.device) != (0, 0))?
        .primary
}

/// An address of a subnet that no interface owns, from the subnet's end.
fn unowned(status: &Status) -> Option<Ipv4Addr> {
    let taken: BTreeSet<Ipv4Addr> = status
        .nodes
        .iter()
        .flat_map(|n| &n.interfaces)
        .flat_map(|i| &i.addresses)
        .flat_map(|net| net.network().into_range(net.broadcast()))
        .collect();
    status.subnets.iter().find_map(|subnet| {
        let last = u32::from(subnet.cidr.broadcast());
        (2..200u32)
            .map(|back| Ipv4Addr::from(last.saturating_sub(back)))
            .find(|a| !taken.contains(a))
    })
}

/// The same by IPv6.
fn unowned_ipv6(status: &Status) -> Option<Ipv6Addr> {
    let owned = |address: &Ipv6Addr| {
        let interfaces = status.nodes.iter().flat_map(|n| &n.interfaces);
        interfaces.flat_map(|i| &i.ipv6).any(|net| net.contains(address))
    };
    status.subnets.iter().find_map(|subnet| {
        let last = subnet.ipv6?.broadcast().to_bits();
        (2..200u128)
            .map(|back| Ipv6Addr::from_bits(last.saturating_sub(back)))
            .find(|address| !owned(address))
    })
}

trait IntoRange {
    fn into_range(self, last: Ipv4Addr) -> Box<dyn Iterator<Item = Ipv4Addr>>;
}

impl IntoRange for Ipv4Addr {
    fn into_range(self, last: Ipv4Addr) -> Box<dyn Iterator<Item = Ipv4Addr>> {
        Box::new((u32::from(self)..=u32::from(last)).map(Ipv4Addr::from))
    }
}

/// Sends a bad packet with `number` as its payload.
///
/// # Errors
/// When it could not even be sent.
pub(crate) fn send(endpoints: &[Endpoint], bad: &Bad, number: u64) -> Result<(), LabError> {
    let Some(sender) = endpoints.get(bad.from) else {
        return Ok(());
    };
    let payload = format!("{number} ");
    Place::named(&sender.namespace)?.run(|| {
        let sent = || -> io::Result<()> {
            let family = if bad.to.is_ipv6() {
                AddressFamily::INET6
            } else {
                AddressFamily::INET
            };
            match bad.source {
                Some(source) => {
                    // Of protocol "raw": the packet's header is taken as it is (raw(7)).
                    let raw = socket(family, SocketType::RAW, Some(RAW))?;
                    let mixed = || io::Error::from(io::ErrorKind::InvalidInput);
                    let whole = packet(source, bad.to.ip(), payload.as_bytes()).ok_or_else(mixed)?;
                    // A port would be taken for a protocol.
                    let to = SocketAddr::new(bad.to.ip(), 0);
                    sendto(&raw, &whole, SendFlags::empty(), &to)?;
                }
                None => {
                    let udp = socket(family, SocketType::DGRAM, None)?;
                    if let Some(source) = sender.source() {
                        bind(&udp, &SocketAddr::new(source, 0))?;
                    }
                    sendto(&udp, payload.as_bytes(), SendFlags::empty(), &bad.to)?;
                }
            }
            Ok(())
        };
        sent().map_err(LabError::socket(format!(
            "send a bad packet from {}",
            sender.name
        )))
    })
}

const RAW: Protocol = rustix::net::ipproto::RAW;

/// What is wrong with how each packet fared, by its index; waits for the drop log to show those it must show.
pub(crate) fn verdicts(
    dir: &Dir,
    endpoints: &[Endpoint],
    sent: &[(Bad, u64)],
    since_ms: u64,
    seen: &Seen,
) -> Result<Vec<(usize, String)>, LabError> {
    let start = Instant::now();
    let missing = loop {
        let drops: Vec<DroppedPacket> = control::ask(dir, &Ask::Drops { since_ms })?;
        let missing: Vec<usize> = sent
            .iter()
            .enumerate()
            .filter(|(_, (bad, _))| !logged(endpoints, bad, &drops))
            .map(|(i, _)| i)
            .collect();
        if missing.is_empty() || start.elapsed() > PATIENCE {
            break missing;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let arrived = |bad: &Bad, number: u64| bad.victim.is_some_and(|v| seen.contains(&(v, number)));
    Ok(sent
        .iter()
        .enumerate()
        .filter_map(|(i, (bad, number))| {
            if arrived(bad, *number) {
                Some((i, "it arrived".to_owned()))
            } else if missing.contains(&i) {
                Some((
                    i,
                    format!("no drop for '{}' was logged", bad.reason.unwrap_or_default()),
                ))
            } else {
                None
            }
        })
        .collect())
}

fn logged(endpoints: &[Endpoint], bad: &Bad, drops: &[DroppedPacket]) -> bool {
    let Some(reason) = bad.reason else { return true };
    // Inside the VPC, and from the internet, nobody translates the sender's address.
    let source = bad.source.or_else(|| endpoints.get(bad.from).map(|e| e.address));
    drops.iter().any(|d| {
        d.reason == reason
            && d.source == source
            // The log shows the destination as the rule saw it, behind the gateway's translation.
            && (reason == "security-group" || d.destination == Some(bad.to.ip()))
            && d.destination_port == Some(bad.to.port())
    })
}
