//! `lab check`: the packet matrix. Every pair of endpoints that should talk does, with the right source address, and
//! packets that must be dropped are, with the right reason.

mod imds;
mod negative;
mod plan;
mod wire;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::control::{self, Ask, NodeStatus, Status};
use crate::error::LabError;
use crate::fabric::netns::Place;
use crate::pods::{self, Pod};
use crate::state::Dir;
use crate::tool;
use plan::{Endpoint, Kind, NodePort, Probe};
use wire::{Outcome, Seen};

/// The result. Its JSON form is stable.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// How many checks were made.
    pub checks: usize,
    /// How many of them failed.
    pub failed: usize,
    /// By family.
    pub kinds: BTreeMap<String, Count>,
    /// The failed ones.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub seconds: f64,
}

/// Of one family of checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Count {
    /// How many were made.
    pub checks: usize,
    /// How many failed.
    pub failed: usize,
}

/// A failed check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// Its family.
    pub kind: String,
    /// Who asked.
    pub from: String,
    /// Who or what was asked.
    pub to: String,
    /// What should have come of it.
    pub expected: String,
    /// What came of it.
    pub got: String,
}

impl Report {
    fn note(&mut self, kind: &str, result: Result<(), Failure>) {
        let count = self.kinds.entry(kind.to_owned()).or_default();
        count.checks += 1;
        self.checks += 1;
        if let Err(failure) = result {
            count.failed += 1;
            self.failed += 1;
            self.failures.push(failure);
        }
    }
}

/// Runs all checks.
///
/// # Errors
/// When the lab itself cannot do what the checks need; failed checks are in the report.
pub fn run(dir: &Dir) -> Result<Report, LabError> {
    raise_file_limit();
    let start = Instant::now();
    let status: Status = control::ask(dir, &Ask::Status)?;
    let pods = pods::list(dir)?;
    let mut report = Report::default();
    let endpoints = endpoints(&status, &pods, &mut report);
    let ports = plan::node_ports(&endpoints);
    let _open = OpenPorts::open(&endpoints, &ports)?;
    let probes = plan::probes(&endpoints, &ports);
    let seen = Seen::default();
    with_responders(&endpoints, &seen, || {
        matrix(&endpoints, &probes, &mut report);
        metadata(dir, &status, &endpoints, &mut report)?;
        forbidden(dir, &status, &endpoints, &seen, &mut report)
    })?;
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

fn named(kind: &str, from: &str, to: &str, expected: String, got: String) -> Failure {
    Failure {
        kind: kind.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        expected,
        got,
    }
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

fn endpoints(status: &Status, pods: &[Pod], report: &mut Report) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = status
        .nodes
        .iter()
        .filter_map(|n| node_endpoint(status, n))
        .collect();
    let outside = |name: &str, o: &control::Outside, kind| Endpoint {
        name: name.to_owned(),
        address: o.host,
        namespace: o.namespace.clone(),
        kind,
    };
    let nodes = all.len();
    all.push(outside("internet", &status.internet, Kind::Internet));
    all.extend(status.peer.iter().map(|p| outside("peer", p, Kind::Peer)));
    for pod in pods {
        let name = format!("pod/{}", pod.name);
        let node = all.iter().take(nodes).position(|e| e.name == pod.node);
        let (Some(address), Some(node)) = (pod.address, node) else {
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
        let owner = status.nodes.iter().find(|n| n.name == pod.node).and_then(|n| {
            n.interfaces
                .iter()
                .find(|i| i.addresses.iter().any(|net| net.contains(&address)))
        });
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
        let kind = Kind::Pod {
            node,
            device: owner.map(|o| o.device),
        };
        all.push(Endpoint {
            name,
            address,
            namespace: pod.netns.clone(),
            kind,
        });
    }
    all
}

fn node_endpoint(status: &Status, node: &NodeStatus) -> Option<Endpoint> {
    let subnet = status.subnets.iter().find(|s| s.id == node.subnet)?;
    let (public, seen_as) = if subnet.public {
        (node.public, node.public)
    } else {
        (None, Some(status.nat_public))
    };
    let kind = Kind::Node { public, seen_as };
    Some(Endpoint {
        name: node.name.clone(),
        address: node.primary?,
        namespace: node.namespace.clone(),
        kind,
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
            let right = *seen == probe.seen && who == name(probe.answers) && *from == probe.to.into();
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

/// Pods and nodes get a token at hop limit 2, and at 1 the nodes only.
fn metadata(dir: &Dir, status: &Status, endpoints: &[Endpoint], report: &mut Report) -> Result<(), LabError> {
    let limits = HopLimits::remember(dir, status);
    limits.set(2)?;
    for (endpoint, got) in for_all(endpoints, imds::instance_id) {
        let node = match endpoint.kind {
            Kind::Pod { node, .. } => endpoints.get(node),
            _ => Some(endpoint),
        };
        let instance = node
            .and_then(|n| status.nodes.iter().find(|s| s.name == n.name))
            .map(|n| n.instance.clone());
        let kind = if matches!(endpoint.kind, Kind::Pod { .. }) {
            "pod-to-imds"
        } else {
            "node-to-imds"
        };
        let right = got.as_ref().ok() == instance.as_ref();
        let expected = format!("the id {}", instance.unwrap_or_default());
        let failure = || named(kind, &endpoint.name, "IMDS", expected, got.unwrap_or_else(|e| e));
        report.note(kind, right.then_some(()).ok_or_else(failure));
    }
    limits.set(1)?;
    let pods: Vec<Endpoint> = endpoints
        .iter()
        .filter(|e| matches!(e.kind, Kind::Pod { .. }))
        .cloned()
        .collect();
    for (endpoint, got) in for_all(&pods, imds::no_token) {
        let kind = "pod-to-imds-at-hop-limit-1";
        let failure = |got| named(kind, &endpoint.name, "IMDS", "no token".to_owned(), got);
        report.note(kind, got.map_err(failure));
    }
    let nodes: Vec<Endpoint> = endpoints
        .iter()
        .filter(|e| matches!(e.kind, Kind::Node { .. }))
        .cloned()
        .collect();
    for (endpoint, got) in for_all(&nodes, imds::instance_id) {
        let kind = "node-to-imds-at-hop-limit-1";
        let failure = |got| named(kind, &endpoint.name, "IMDS", "its instance id".to_owned(), got);
        report.note(kind, got.map(drop).map_err(failure));
    }
    Ok(())
}

/// Does `work` for every pod and node side by side.
fn for_all<T: Send>(
    endpoints: &[Endpoint],
    work: impl Fn(&Endpoint) -> Result<T, String> + Sync,
) -> Vec<(&Endpoint, Result<T, String>)> {
    let inside = endpoints
        .iter()
        .filter(|e| matches!(e.kind, Kind::Pod { .. } | Kind::Node { .. }));
    std::thread::scope(|scope| {
        let threads: Vec<_> = inside.map(|e| (e, scope.spawn(|| work(e)))).collect();
        let join = |t: std::thread::ScopedJoinHandle<'_, Result<T, String>>| {
            t.join()
                .unwrap_or_else(|_| Err("the asking thread panicked".to_owned()))
        };
        threads.into_iter().map(|(e, t)| (e, join(t))).collect()
    })
}

fn forbidden(
    dir: &Dir,
    status: &Status,
    endpoints: &[Endpoint],
    seen: &Seen,
    report: &mut Report,
) -> Result<(), LabError> {
    let now: Status = control::ask(dir, &Ask::Status)?;
    let mut sent = Vec::new();
    for (i, bad) in negative::plan(endpoints, status).into_iter().enumerate() {
        let number = u64::MAX - i as u64;
        negative::send(endpoints, &bad, number)?;
        sent.push((bad, number));
    }
    // A good packet each way after the bad ones: when its answer is there, the bad ones before it have fared.
    let after: Vec<Probe> = plan::probes(endpoints, &[])
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

/// Rules of the check's own that make ports of nodes lead to pods, as kube-proxy's do; gone when this is dropped.
struct OpenPorts {
    places: Vec<Place>,
}

impl OpenPorts {
    fn open(endpoints: &[Endpoint], ports: &[NodePort]) -> Result<Self, LabError> {
        let mut open = Self { places: Vec::new() };
        for (index, node) in endpoints.iter().enumerate() {
            let lines: String = ports
                .iter()
                .filter(|p| p.node == index)
                .filter_map(|p| Some((p.port, endpoints.get(p.pod)?.address)))
                .map(|(port, pod)| {
                    format!(
                        "fib daddr type local meta l4proto {{ tcp, udp }} th dport {port} dnat to {pod}:{}\n",
                        plan::PORT
                    )
                })
                .collect();
            if lines.is_empty() {
                continue;
            }
            let place = Place::named(&node.namespace)?;
            let table = "table ip vpcnet-lab-check";
            let chain = "type nat hook prerouting priority dstnat; policy accept;";
            let text = format!(
                "{table} {{ }}\ndelete {table}\n{table} {{\nchain ports {{\n{chain}\n{lines}}}\n}}\n"
            );
            tool::nft(&place, &text)?;
            open.places.push(place);
        }
        Ok(open)
    }
}

impl Drop for OpenPorts {
    fn drop(&mut self) {
        for place in &self.places {
            if let Err(e) = tool::nft(place, "delete table ip vpcnet-lab-check\n") {
                tracing::warn!(error = %e, "the check's rules stay in the node");
            }
        }
    }
}

/// Hop limits of all nodes, restored when this is dropped.
struct HopLimits<'a> {
    dir: &'a Dir,
    nodes: Vec<&'a str>,
    before: Mutex<BTreeMap<&'a str, u8>>,
}

impl<'a> HopLimits<'a> {
    fn remember(dir: &'a Dir, status: &'a Status) -> Self {
        let nodes = status.nodes.iter().map(|n| n.name.as_str()).collect();
        Self {
            dir,
            nodes,
            before: Mutex::default(),
        }
    }

    fn set(&self, hops: u8) -> Result<(), LabError> {
        for &node in &self.nodes {
            let was: u8 = control::ask(
                self.dir,
                &Ask::HopLimit {
                    node: node.to_owned(),
                    hops,
                },
            )?;
            self.before
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .entry(node)
                .or_insert(was);
        }
        Ok(())
    }
}

impl Drop for HopLimits<'_> {
    fn drop(&mut self) {
        for (node, hops) in self
            .before
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iter()
        {
            let ask = Ask::HopLimit {
                node: (*node).to_owned(),
                hops: *hops,
            };
            if let Err(e) = control::ask::<u8>(self.dir, &ask) {
                tracing::warn!(error = %e, node, "the hop limit stays changed");
            }
        }
    }
}
