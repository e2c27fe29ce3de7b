//! `lab check`: the packet matrix. Every pair of endpoints that should talk does, with the right source address, and
//! packets that must be dropped are, with the right reason.

mod imds;
mod metadata;
mod negative;
mod plan;
mod ports;
mod report;
mod wire;

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use ipnet::Ipv4Net;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::control::{self, Ask, NodeStatus, Status};
use crate::error::LabError;
use crate::pods::{self, Pod};
use crate::state::Dir;
use metadata::metadata;
use plan::{Endpoint, Kind, Probe};
use ports::OpenPorts;
use report::named;
pub use report::{Count, Failure, Report};
use wire::{Outcome, Seen};

/// Runs all checks. `untranslated`: where pods go with their own address, though it is outside the VPC.
///
/// # Errors
/// When the lab itself cannot do what the checks need; failed checks are in the report.
pub fn run(dir: &Dir, untranslated: &[Ipv4Net]) -> Result<Report, LabError> {
    raise_file_limit();
    let start = Instant::now();
    let status: Status = control::ask(dir, &Ask::Status)?;
    let pods = pods::list(dir)?;
    let mut report = Report::default();
    family(dir, &status, &pods, Family::V4(untranslated), &mut report)?;
    if status.vpc_ipv6.is_some() {
        report.prefix = "ipv6-";
        family(dir, &status, &pods, Family::V6, &mut report)?;
        report.prefix = "";
    }
    for fault in &status.model_faults {
        let failure = named(
            "model",
            "the lab",
            "its own rules",
            "all hold".to_owned(),
            fault.clone(),
        );
        report.note("model", Err(failure));
    }
    report
        .failures
        .sort_by(|a, b| (&a.kind, &a.from, &a.to).cmp(&(&b.kind, &b.from, &b.to)));
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Which addresses are tried.
#[derive(Clone, Copy)]
enum Family<'a> {
    /// And where pods are not to be translated.
    V4(&'a [Ipv4Net]),
    /// Nothing is translated.
    V6,
}

/// All checks of one family: pods have addresses of one, nodes of both.
fn family(
    dir: &Dir,
    status: &Status,
    pods: &[Pod],
    family: Family<'_>,
    report: &mut Report,
) -> Result<(), LabError> {
    let (v6, untranslated) = match family {
        Family::V4(untranslated) => (false, untranslated),
        Family::V6 => (true, Default::default()),
    };
    let endpoints = endpoints(status, pods, v6, report);
    let ports = plan::node_ports(&endpoints);
    let _open = OpenPorts::open(&endpoints, &ports)?;
    let probes = plan::probes(&endpoints, &ports, untranslated);
    let seen = Seen::default();
    with_responders(&endpoints, &seen, || {
        matrix(&endpoints, &probes, report);
        // IMDS is asked at its IPv4 address.
        if !v6 {
            metadata(dir, status, &endpoints, report)?;
        }
        forbidden(dir, status, &endpoints, untranslated, &seen, report)
    })
}

/// A few descriptors for each endpoint; the usual soft limit of 1024 would end at some hundred pods.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

fn endpoints(status: &Status, pods: &[Pod], v6: bool, report: &mut Report) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = status
        .nodes
        .iter()
        .filter_map(|n| {
            if v6 {
                node_endpoint_ipv6(status, n)
            } else {
                node_endpoint(status, n)
            }
        })
        .collect();
    let outside = |name: &str, o: &control::Outside, kind| Endpoint {
        name: name.to_owned(),
        address: o.host,
        namespace: o.namespace.clone(),
        kind,
        further: false,
    };
    let nodes = all.len();
    if v6 {
        let internet = status.internet_ipv6.iter();
        all.extend(internet.map(|i| outside("internet", i, Kind::Internet)));
    } else {
        all.push(outside("internet", &status.internet, Kind::Internet));
        all.extend(status.peer.iter().map(|p| outside("peer", p, Kind::Peer)));
    }
    // One without an address is told of in the first of both.
    let mine = |pod: &&Pod| pod.address.map_or(!v6, |address| address.is_ipv6() == v6);
    for pod in pods.iter().filter(mine) {
        let name = format!("pod/{}", pod.name);
        let node = all.iter().take(nodes).position(|e| e.name == pod.node);
        let mut addresses = pod.addresses();
        addresses.retain(|address| address.is_ipv6() == v6);
        let (Some(node), false) = (node, addresses.is_empty()) else {
            let why = "it has no address or its node is gone".to_owned();
            report.note(
                "pod-address",
                Err(named(
                    "pod-address",
                    &name,
                    &pod.node,
                    "an address".to_owned(),
                    why,
                )),
            );
            continue;
        };
        for (number, address) in addresses.into_iter().enumerate() {
            let name = if number == 0 {
                name.clone()
            } else {
                format!("{name}#{number}")
            };
            let owner = status
                .nodes
                .iter()
                .find(|n| n.name == pod.node)
                .and_then(|n| n.interfaces.iter().find(|i| i.owns(address)));
            // Whoever gave the pod an address that its node does not own made the fault all others would follow from.
            let owned = owner.map(|_| ()).ok_or_else(|| {
                let expected = format!("{address} belongs to an interface of the node");
                named(
                    "pod-address",
                    &name,
                    &pod.node,
                    expected,
                    "no interface owns it".to_owned(),
                )
            });
            report.note("pod-address", owned);
            let subnet = owner.and_then(|o| status.subnets.iter().find(|s| s.id == o.subnet));
            let kind = Kind::Pod {
                node,
                interface: owner.map(|o| (o.card, o.device)),
                alone: subnet
                    .filter(|s| !s.public)
                    .map(|_| IpAddr::V4(status.nat_public)),
            };
            all.push(Endpoint {
                name,
                address,
                namespace: pod.netns.clone(),
                kind,
                further: number > 0,
            });
        }
    }
    all
}

fn node_endpoint(status: &Status, node: &NodeStatus) -> Option<Endpoint> {
    let subnet = status.subnets.iter().find(|s| s.id == node.subnet)?;
    let (public, seen_as) = if subnet.public {
        (node.public.map(IpAddr::V4), node.public.map(IpAddr::V4))
    } else {
        (None, Some(IpAddr::V4(status.nat_public)))
    };
    let kind = Kind::Node { public, seen_as };
    Some(Endpoint {
        name: node.name.clone(),
        address: node.primary?.into(),
        namespace: node.namespace.clone(),
        kind,
        further: false,
    })
}

/// By IPv6 a node's own address is the public one, where the gateway lets others in.
fn node_endpoint_ipv6(status: &Status, node: &NodeStatus) -> Option<Endpoint> {
    let subnet = status.subnets.iter().find(|s| s.id == node.subnet)?;
    let own = IpAddr::V6(node.primary_ipv6?);
    Some(Endpoint {
        name: node.name.clone(),
        address: own,
        namespace: node.namespace.clone(),
        kind: Kind::Node {
            public: subnet.public.then_some(own),
            seen_as: Some(own),
        },
        further: false,
    })
}

/// Runs `work` while every endpoint answers.
fn with_responders(
    endpoints: &[Endpoint],
    seen: &Seen,
    work: impl FnOnce() -> Result<(), LabError>,
) -> Result<(), LabError> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ready, readies) = mpsc::channel();
        let stop_flag = &stop;
        for (index, endpoint) in endpoints.iter().enumerate() {
            let ready = ready.clone();
            scope.spawn(move || wire::respond(index, endpoint, stop_flag, seen, &ready));
        }
        drop(ready);
        let listening = readies
            .iter()
            .take(endpoints.len())
            .collect::<Result<Vec<()>, LabError>>();
        let result = listening.and_then(|_| work());
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn matrix(endpoints: &[Endpoint], probes: &[Probe], report: &mut Report) {
    let results: Mutex<Vec<(&Probe, Outcome)>> = Mutex::default();
    std::thread::scope(|scope| {
        for (index, endpoint) in endpoints.iter().enumerate() {
            let mine: Vec<&Probe> = probes.iter().filter(|p| p.from == index).collect();
            let results = &results;
            scope.spawn(move || {
                // Numbers of different askers differ, so no answer is taken for another's.
                let outcomes = wire::ask(endpoint, &mine, (index as u64 + 1) << 32);
                let mut all = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.extend(mine.into_iter().zip(outcomes));
            });
        }
    });
    for (probe, outcome) in results
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        report.note(probe.kind, judge(endpoints, probe, &outcome));
    }
}

fn judge(endpoints: &[Endpoint], probe: &Probe, outcome: &Outcome) -> Result<(), Failure> {
    let name = |index: usize| endpoints.get(index).map_or("?", |e| e.name.as_str());
    let expected = format!(
        "an answer over {} of {} that sees {}",
        if probe.transport == plan::Transport::Udp {
            "UDP"
        } else {
            "TCP"
        },
        name(probe.answers),
        probe.seen
    );
    let got = match outcome {
        Outcome::Silence(why) => why.clone(),
        Outcome::Answer {
            seen,
            name: who,
            from,
        } => {
            let right = *seen == probe.seen && who == name(probe.answers) && *from == probe.to;
            if right {
                return Ok(());
            }
            format!("an answer from {from} of {who} that sees {seen}")
        }
    };
    Err(named(
        probe.kind,
        name(probe.from),
        &format!("{} ({})", name(probe.answers), probe.to),
        expected,
        got,
    ))
}

fn forbidden(
    dir: &Dir,
    status: &Status,
    endpoints: &[Endpoint],
    untranslated: &[Ipv4Net],
    seen: &Seen,
    report: &mut Report,
) -> Result<(), LabError> {
    let now: Status = control::ask(dir, &Ask::Status)?;
    let mut sent = Vec::new();
    for (i, bad) in negative::plan(endpoints, status, untranslated)
        .into_iter()
        .enumerate()
    {
        let number = u64::MAX - i as u64;
        negative::send(endpoints, &bad, number)?;
        sent.push((bad, number));
    }
    // A good packet each way after the bad ones: when its answer is there, the bad ones before it have fared.
    let after: Vec<Probe> = plan::probes(endpoints, &[], untranslated)
        .into_iter()
        .filter(|p| p.kind == "node-to-node")
        .collect();
    matrix(endpoints, &after, report);
    let wrong = negative::verdicts(dir, endpoints, &sent, now.uptime_ms, seen)?;
    for (i, (bad, _)) in sent.iter().enumerate() {
        let from = endpoints.get(bad.from).map_or("?", |e| e.name.as_str());
        let to = bad
            .source
            .map_or_else(|| bad.to.to_string(), |s| format!("{} as {s}", bad.to));
        let failure = |got: &String| {
            let expected = bad
                .reason
                .map_or("dropped".to_owned(), |r| format!("dropped for '{r}'"));
            named(bad.kind, from, &to, expected, got.clone())
        };
        let result = wrong
            .iter()
            .find(|(w, _)| *w == i)
            .map_or(Ok(()), |(_, got)| Err(failure(got)));
        report.note(bad.kind, result);
    }
    Ok(())
}
