//! The part that runs inside the lab node, where the agent and its socket are.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::agent::{self, Agent};
use crate::peers::{Peer, Wired};
use crate::pods::Pod;
use crate::report::{per_second, summary};
use crate::run::Cost;

/// Rounds of the parallel part; the median of their rates is reported.
const ROUNDS: usize = 6;
/// Pods of a parallel round, and how many are under way at a time.
const PARALLEL: (usize, usize) = (50, 8);
/// Addresses of the primary interface of the benchmark's instance type that pods can have.
const PRIMARY_SLOTS: usize = 29;

#[derive(Args)]
pub(crate) struct Arguments {
    #[arg(value_enum)]
    part: Part,
    #[arg(long)]
    bin: PathBuf,
    #[arg(long)]
    cni: PathBuf,
    #[arg(long)]
    pods: usize,
    #[arg(long)]
    idle: u64,
    /// With `ipv6`: a namespace beyond the VPC.
    #[arg(long)]
    outside: Option<PathBuf>,
    /// With `ipv6`: its address.
    #[arg(long)]
    outside_address: Option<std::net::Ipv6Addr>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// One after the other and side by side, with the agent's memory.
    Steady,
    /// An idle agent.
    Idle,
    /// Many pods at once on a pool that must grow.
    Burst,
    /// IPv6 addresses.
    Ipv6,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let report = match arguments.part {
        Part::Steady => steady(arguments)?,
        Part::Idle => idle(arguments)?,
        Part::Burst => burst(arguments)?,
        Part::Ipv6 => with_ipv6(arguments)?,
    };
    println!("{report}");
    Ok(())
}

fn with_ipv6(arguments: &Arguments) -> io::Result<Value> {
    Agent::find()?;
    let missing = || io::Error::other("the part `ipv6` needs --outside and --outside-address");
    let outside = arguments.outside.as_deref().zip(arguments.outside_address);
    crate::ipv6::measure(&arguments.bin, outside.ok_or_else(missing)?, arguments.pods)
}

fn idle(arguments: &Arguments) -> io::Result<Value> {
    let agent = Agent::find()?;
    let before = agent.read()?;
    std::thread::sleep(Duration::from_secs(arguments.idle));
    let after = agent.read()?;
    Ok(json!({
        "seconds": arguments.idle,
        "cpu_ms": after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e3,
        "rss_idle_mib": after.rss_mib,
        "private_idle_mib": after.private_mib,
    }))
}

fn steady(arguments: &Arguments) -> io::Result<Value> {
    let agent = Agent::find()?;
    agent::wait_for_pool(arguments.pods as u64, arguments.pods as u64)?;
    let state = std::env::temp_dir().join(format!("vpcnet-bench-{}", std::process::id()));
    std::fs::create_dir_all(&state)?;
    let peers = [
        Peer::ours(&arguments.bin)?,
        Peer::floor(&arguments.bin, PRIMARY_SLOTS)?,
        Peer::ptp(&arguments.cni, &state)?,
    ];
    let result = measure_all(arguments, &agent, &peers);
    std::fs::remove_dir_all(&state)?;
    result
}

/// What is known of one peer so far.
struct Lane<'a> {
    peer: &'a Peer,
    wired: VecDeque<Wired>,
    adds: Vec<Cost>,
    dels: Vec<Cost>,
    rates: Vec<f64>,
}

impl<'a> Lane<'a> {
    fn new(peer: &'a Peer) -> Self {
        Self {
            peer,
            wired: VecDeque::new(),
            adds: Vec::new(),
            dels: Vec::new(),
            rates: Vec::new(),
        }
    }
}

/// The orders in which the peers take their turns. The kernel still cleans up after one (links, namespaces) while the
/// next runs, so each must follow each other one equally often: in a fixed order whoever came after `ptp` would pay for it.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn in_turn<'a>(
    lanes: &mut [Lane<'a>],
    number: usize,
    mut turn: impl FnMut(&mut Lane<'a>) -> io::Result<()>,
) -> io::Result<()> {
    for at in ORDERS.get(number % ORDERS.len()).into_iter().flatten() {
        lanes.get_mut(*at).map_or(Ok(()), &mut turn)?;
    }
    Ok(())
}

fn measure_all(arguments: &Arguments, agent: &Agent, peers: &[Peer]) -> io::Result<Value> {
    // Also warms everything up.
    let mut peaks = Vec::new();
    for peer in peers {
        let mut most = (0, 0);
        for number in 0..3 {
            let (add, del) = peer.weigh(Pod::new(&format!("w{}", peer.name), number)?)?;
            most = (most.0.max(add), most.1.max(del));
        }
        peaks.push(most);
    }
    let mut lanes: Vec<Lane<'_>> = peers.iter().map(Lane::new).collect();
    for number in 0..arguments.pods {
        in_turn(&mut lanes, number, |lane| {
            let (wired, cost) = lane
                .peer
                .add(Pod::new(&format!("s{}", lane.peer.name), number)?)?;
            lane.wired.push_back(wired);
            lane.adds.push(cost);
            Ok(())
        })?;
    }
    let full = agent.read()?;

    let mut gone = Vec::new();
    for number in 0..arguments.pods {
        in_turn(&mut lanes, number, |lane| {
            if let Some(wired) = lane.wired.pop_front() {
                let (pod, cost) = lane.peer.del(wired)?;
                gone.push(pod);
                lane.dels.push(cost);
            }
            Ok(())
        })?;
    }
    drop(gone);

    for round in 0..ROUNDS {
        in_turn(&mut lanes, round, |lane| {
            lane.rates.push(parallel_round(lane.peer, round)?);
            Ok(())
        })?;
    }
    let by_name = |values: Vec<Value>| -> Value {
        peers
            .iter()
            .map(|p| p.name.to_owned())
            .zip(values)
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    Ok(json!({
        "pods": arguments.pods,
        "add": by_name(lanes.iter().zip(&peaks).map(|(l, p)| summary(&l.adds, p.0)).collect()),
        "del": by_name(lanes.iter().zip(&peaks).map(|(l, p)| summary(&l.dels, p.1)).collect()),
        "add_parallel": by_name(lanes.iter().map(|l| per_second(&l.rates)).collect()),
        "agent": { "rss_200_pods_mib": full.rss_mib, "private_200_pods_mib": full.private_mib },
    }))
}

/// Pods a second, with several ADDs under way at a time.
fn parallel_round(peer: &Peer, round: usize) -> io::Result<f64> {
    let (count, width) = PARALLEL;
    let pods = (0..count)
        .map(|n| Pod::new(&format!("p{round}{}", peer.name), n))
        .collect::<io::Result<Vec<_>>>()?;
    let (wired, took) = add_side_by_side(peer, pods, width)?;
    for pod in wired {
        peer.del(pod?)?;
    }
    Ok(count as f64 / took.as_secs_f64())
}

/// Adds all pods, `width` at a time. Each pod's outcome, and the time until the last was done.
fn add_side_by_side(
    peer: &Peer,
    pods: Vec<Pod>,
    width: usize,
) -> io::Result<(Vec<io::Result<Wired>>, Duration)> {
    let queue = Mutex::new(VecDeque::from(pods));
    let done = Mutex::new(Vec::new());
    let poisoned = || io::Error::other("a measuring thread panicked");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while let Some(pod) = queue.lock().ok().and_then(|mut q| q.pop_front()) {
                    let outcome = peer.add(pod).map(|(wired, _)| wired);
                    if let Ok(mut done) = done.lock() {
                        done.push(outcome);
                    }
                }
            });
        }
    });
    let took = start.elapsed();
    Ok((done.into_inner().map_err(|_| poisoned())?, took))
}

fn burst(arguments: &Arguments) -> io::Result<Value> {
    Agent::find()?;
    agent::wait_for_pool(PRIMARY_SLOTS as u64, PRIMARY_SLOTS as u64)?;
    let peer = Peer::ours(&arguments.bin)?;
    let pods = (0..arguments.pods)
        .map(|n| Pod::new("burst", n))
        .collect::<io::Result<Vec<_>>>()?;
    let (outcomes, took) = add_side_by_side(&peer, pods, PARALLEL.1)?;
    let mut failed = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(wired) => drop(peer.del(wired)?),
            Err(e) => failed.push(e.to_string()),
        }
    }
    Ok(json!({
        "pods": arguments.pods, "at_a_time": PARALLEL.1,
        "all_ready_s": took.as_secs_f64(), "failed_adds": failed.len(), "first_failure": failed.first(),
    }))
}
