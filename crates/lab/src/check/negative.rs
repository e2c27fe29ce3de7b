//! Packets that must not get through: the fabric has to drop them, say why, and nobody may see them.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, bind, sendto, socket};

use super::plan::{Endpoint, Kind, PORT};
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
    pub source: Option<Ipv4Addr>,
    /// Its destination.
    pub to: SocketAddrV4,
    /// Who would see it if it got through: index among the endpoints.
    pub victim: Option<usize>,
    /// The reason the drop log must give; `None`: the sender's node may have dropped it before, as well.
    pub reason: Option<&'static str>,
}

/// How long the drop log may take to show a packet.
const PATIENCE: Duration = Duration::from_secs(3);

/// All packets to try.
pub(crate) fn plan(endpoints: &[Endpoint], status: &Status) -> Vec<Bad> {
    let mut all = Vec::new();
    let nobody = unowned(status);
    for (from, sender) in endpoints.iter().enumerate() {
        let node = match sender.kind {
            Kind::Pod { node, .. } => node,
            Kind::Node { .. } => from,
            Kind::Internet | Kind::Peer => continue,
        };
        let is_pod = from != node;
        let to = |address: Ipv4Addr| SocketAddrV4::new(address, PORT);
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
            let mut lies: Vec<(&'static str, Ipv4Addr)> =
                vec![("spoofed-foreign-source", target_neighbour(endpoints, index))];
            lies.extend(nobody.map(|address| ("spoofed-unowned-source", address)));
            if let Some(other) = other_interface(status, sender, is_pod) {
                lies.push(("spoofed-own-other-interface", other));
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
            let to = SocketAddrV4::new(*public, 22);
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

fn endpoint_name(endpoints: &[Endpoint], index: usize) -> &str {
    endpoints.get(index).map_or("", |e| e.name.as_str())
}

/// An address the target's side might believe in: another endpoint of the VPC, else the target itself.
fn target_neighbour(endpoints: &[Endpoint], target: usize) -> Ipv4Addr {
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
        .map_or(Ipv4Addr::LOCALHOST, |e| e.address)
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
            match bad.source {
                Some(source) => {
                    // Of protocol "raw": the packet's header is taken as it is (raw(7)).
                    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(RAW))?;
                    let whole = packet(source, *bad.to.ip(), payload.as_bytes());
                    sendto(&raw, &whole, SendFlags::empty(), &bad.to)?;
                }
                None => {
                    let udp = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
                    if let Some(source) = sender.source() {
                        bind(&udp, &SocketAddrV4::new(source, 0))?;
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
            && (reason == "security-group" || d.destination == Some(*bad.to.ip()))
            && d.destination_port == Some(bad.to.port())
    })
}
