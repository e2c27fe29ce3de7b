//! `vpcnet-bench soak`: pods come and go on two nodes of a lab for an hour while EC2, IMDS, the subnets and one of the agents fail by a
//! plan that a seed makes. It judges, and ends with exit code 1 when one of these does not hold:
//!
//! * **leak 0**: after each round of troubles, and at the end, every address of the nodes' interfaces, as EC2 has them, is an
//!   interface's own, a living pod's or in the agent's pool; the pool, the checkpoint, the kernel and the pods name the same owners;
//!   no interface is attached to nothing; packets go everywhere (`vpcnet lab check`). Without pods there is no owner and no rule.
//! * **memory**: the resident set of the agent that lives through the whole run is at its end what it was after the start,
//!   within 1 MiB.
//! * **no failed ADD that had an address to give**: each failed ADD named its reason, and the pool had nothing free.
//! * connections opened at the beginning between pods, and from pods to the internet, are still there at the end.
//!
//! Needs root and the built binaries side by side.

mod churn;
mod dice;
mod flat;
mod judge;
mod laws;
mod report;
mod run;
mod script;
mod stream;
mod troubles;
mod world;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::agent::field;
use dice::Dice;
use flat::Reading;
use laws::Snapshot;
use run::{Run, lock};
use script::{SHAKEN, STEADY};
use stream::Stream;
use world::{NODES, Pod, World, of_node};

/// Pods that live through the whole run, on each node.
const KEPT: usize = 8;
/// Pods between the first and the second half of those, so that the second half lies on another interface.
const BETWEEN: usize = 16;
/// Who adds and removes pods, on each node.
const WORKERS: u64 = 3;
/// A round of troubles at most, and at least.
const ROUND: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(150));
/// How long after the troubles everything must be in its place. The agent's pauses after refusals are a minute at most.
const SETTLED: Duration = Duration::from_secs(180);
/// Between two readings of memory.
const READ_EVERY: Duration = Duration::from_secs(15);
/// The agent's first minutes do not count for its memory; a tenth of a run that is shorter than fifty minutes.
const WARM_UP: Duration = Duration::from_secs(300);

#[derive(Args)]
pub(crate) struct Arguments {
    /// How long it lasts.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Makes the plan; the same seed, the same troubles. Default: a new one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Where the built binaries lie side by side.
    #[arg(long, default_value = "target/vpcnet")]
    bin: PathBuf,
    /// State directory of the lab; `vpcnet-lab --dir DIR down` clears up after a run that was killed.
    #[arg(long, default_value = "/run/vpcsoak")]
    lab: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/soak/report.json")]
    report: PathBuf,
}

/// What a look waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Every address is in its place. Pools may go on growing and shrinking: that is minutes, with a pause after each step.
    InPlace,
    /// And no agent has anything under way.
    AtRest,
}

/// A look after a round.
struct Look {
    at: Duration,
    settled_after: Duration,
    pods: usize,
    packets: u64,
    /// Addresses that EC2 gave by an assignment it did twice, and of which the agent does not know yet.
    unknown: usize,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let bin = arguments.bin.canonicalize().map_err(|e| {
        let bin = arguments.bin.display();
        io::Error::new(e.kind(), format!("{bin}: {e}; run `make build` first"))
    })?;
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |d| d.as_secs())
    });
    let length = Duration::from_secs(arguments.minutes * 60);
    eprintln!("{} minutes with seed {seed}", arguments.minutes);
    let run = Run::new(World::up(bin, arguments.lab.clone(), seed)?);
    let mut dice = Dice::new(seed);

    for node in NODES {
        run.world.start_agent(node)?;
    }
    let kept = kept_pods(&run)?;
    let streams = streams(&run, &kept)?;
    let steady = agent(&run, STEADY)?;
    let (mut looks, readings) = troubled_time(&run, &mut dice, length)?;

    run.say("all pods of the churn go");
    let mut last = dice.split();
    for node in NODES {
        while let Some(pod) = run.take(node, 0) {
            churn::remove(&run, &pod, &mut last);
        }
    }
    looks.extend(look(&run, Wanted::InPlace));
    let mut figures = Vec::new();
    for stream in streams {
        let title = stream.title.clone();
        match stream.close() {
            Ok(of_stream) => figures.push((title, of_stream)),
            Err(e) => run.fail(format!("the connection {title}: {e}")),
        }
    }
    run.say("the last pods go");
    for pod in &kept {
        churn::remove(&run, pod, &mut last);
    }
    looks.extend(look(&run, Wanted::AtRest));
    nothing_left(&run);
    if agent(&run, STEADY)? != steady {
        run.fail(format!(
            "the agent of {STEADY} is another process than at the start"
        ));
    }
    let warm = WARM_UP.min(length / 10);
    let growth = flat::growth(&readings.steady, warm);
    match growth {
        Some(growth) if growth.is_flat() => {}
        Some(growth) => run.fail(format!(
            "the agent of {STEADY} grew by {:.2} MiB, from {:.2} to {:.2}",
            growth.mib(),
            growth.first_mib,
            growth.last_mib
        )),
        None => run.fail("too few readings of the agent's memory".to_owned()),
    }
    let report = report::whole(
        &run,
        &report::Parts {
            seed,
            minutes: arguments.minutes,
            looks: &looks,
            readings: &readings,
            warm,
            growth,
            streams: &figures,
            calls: run.world.status()?.get("calls").cloned().unwrap_or_default(),
        },
    );
    if let Some(directory) = arguments.report.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&arguments.report, serde_json::to_vec_pretty(&report)?)?;
    println!(
        "{}\nreport: {}",
        report::table(&report),
        arguments.report.display()
    );
    match run.failures().len() {
        0 => Ok(()),
        count => Err(io::Error::other(format!("{count} failures; the seed was {seed}"))),
    }
}

/// Readings of both agents.
#[derive(Default)]
struct Readings {
    steady: Vec<Reading>,
    shaken: Vec<Reading>,
}

/// Rounds of troubles, each followed by a look, until the time is over.
fn troubled_time(run: &Run, dice: &mut Dice, length: Duration) -> io::Result<(Vec<Look>, Readings)> {
    troubles::calm(run)?;
    let round = (length / 4).clamp(ROUND.0, ROUND.1);
    let mut looks = Vec::new();
    let readings = std::thread::scope(|scope| {
        for node in NODES {
            for worker in 0..WORKERS {
                let dice = dice.split();
                scope.spawn(move || churn::work(run, node, worker, dice));
            }
            let dice = dice.split();
            scope.spawn(move || wave(run, node, dice));
        }
        let memory = scope.spawn(|| read_memory(run));
        while run.start.elapsed() < length {
            troubles::carry_out(run, &script::round(dice, round));
            if let Err(e) = troubles::calm(run) {
                run.fail(format!("ending the round's troubles: {e}"));
            }
            let none_under_way = run.turn.write();
            looks.extend(look(run, Wanted::InPlace));
            drop(none_under_way);
        }
        run.stop.store(true, Ordering::Relaxed);
        memory.join().unwrap_or_default()
    });
    Ok((looks, readings))
}

/// How many pods are wanted goes up and down, now and then beyond what fits on the node.
fn wave(run: &Run, node: &'static str, mut dice: Dice) {
    while !run.stop.load(Ordering::Relaxed) {
        let most = if dice.percent(15) { world::ROOM as u64 } else { 30 };
        lock(&run.wanted).insert(node, dice.between(0, most) as usize);
        let until = Instant::now() + Duration::from_secs(dice.between(10, 45));
        while Instant::now() < until && !run.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn agent(run: &Run, node: &str) -> io::Result<Option<i64>> {
    let status = run.world.status()?;
    Ok(of_node(&status, node).and_then(|n| n.pointer("/agent/pid")?.as_i64()))
}

fn read_memory(run: &Run) -> Readings {
    let mut readings = Readings::default();
    while !run.stop.load(Ordering::Relaxed) {
        let at = run.start.elapsed();
        for (node, to) in [(STEADY, &mut readings.steady), (SHAKEN, &mut readings.shaken)] {
            // One that is away, or just going, has none.
            let status = agent(run, node)
                .ok()
                .flatten()
                .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
            let rss = status.and_then(|status| field(&status, "VmRSS:").ok());
            to.extend(rss.map(|kib| Reading {
                at,
                rss_mib: kib / 1024.0,
            }));
        }
        while run.start.elapsed() < at + READ_EVERY && !run.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    readings
}

/// The pods that stay: half of them on the primary interfaces, half on others.
fn kept_pods(run: &Run) -> io::Result<Vec<Pod>> {
    let mut kept = Vec::new();
    for node in NODES {
        let must = |name: &str| {
            churn::add(run, node, name).ok_or_else(|| io::Error::other(format!("{name} got no address")))
        };
        for number in 0..KEPT / 2 {
            kept.push(must(&format!("kept-{node}-{number}"))?);
        }
        let between = (0..BETWEEN)
            .map(|number| must(&format!("between-{node}-{number}")))
            .collect::<io::Result<Vec<Pod>>>()?;
        for number in KEPT / 2..KEPT {
            kept.push(must(&format!("kept-{node}-{number}"))?);
        }
        for pod in between {
            run.lay_down(node, pod);
        }
    }
    Ok(kept)
}

/// Connections on a node, between nodes and to the internet, from pods on primary and on other interfaces.
fn streams(run: &Run, kept: &[Pod]) -> io::Result<Vec<Stream>> {
    let status = run.world.status()?;
    let internet = |key: &str| {
        let found = status
            .pointer(&format!("/internet/{key}"))
            .and_then(Value::as_str);
        found.ok_or_else(|| io::Error::other(format!("the lab's status names no {key} of the internet")))
    };
    let path = |netns: &str| format!("/run/netns/{netns}");
    let pod = |node: usize, number: usize| {
        kept.get(node * KEPT + number)
            .ok_or_else(|| io::Error::other("a kept pod is missing"))
    };
    let between = |a: &Pod, b: &Pod| {
        let address = b.address.parse().map_err(io::Error::other)?;
        Stream::open(
            format!("{} to {}", a.name, b.name),
            &path(&a.netns),
            &path(&b.netns),
            address,
        )
    };
    let mut all = Vec::new();
    for (from, to) in [
        ((0, 0), (0, 1)),
        ((0, 1), (0, 7)),
        ((0, 6), (1, 2)),
        ((1, 3), (0, 5)),
        ((1, 0), (1, 6)),
        ((1, 5), (1, 4)),
    ] {
        all.push(between(pod(from.0, from.1)?, pod(to.0, to.1)?)?);
    }
    let far = path(internet("namespace")?);
    let address: std::net::IpAddr = internet("host")?.parse().map_err(io::Error::other)?;
    for (number, near) in [pod(0, 2)?, pod(0, 4)?, pod(1, 1)?, pod(1, 7)?]
        .into_iter()
        .enumerate()
    {
        let title = format!("{} to the internet", near.name);
        all.push(Stream::open_at(
            title,
            &path(&near.netns),
            &far,
            address,
            number as u16 + 1,
        )?);
    }
    Ok(all)
}

/// Waits until everything is in its place, and says what is not when that takes too long.
fn look(run: &Run, wanted: Wanted) -> Option<Look> {
    let start = Instant::now();
    let doubled = lock(&run.doubled).clone();
    let snapshot = loop {
        let snapshot = Snapshot::take(&run.world);
        let broken = match &snapshot {
            Ok(snapshot) if wanted == Wanted::AtRest => {
                [snapshot.broken(&doubled), snapshot.under_way()].concat()
            }
            Ok(snapshot) => snapshot.broken(&doubled),
            Err(e) => vec![e.to_string()],
        };
        if broken.is_empty() {
            break snapshot.ok()?;
        }
        if start.elapsed() > SETTLED {
            let seconds = SETTLED.as_secs();
            run.fail(format!("{seconds} s after the troubles: {}", broken.join("; ")));
            return None;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    let settled_after = start.elapsed();
    let unknown: usize = NODES.iter().map(|node| snapshot.unknown(node).len()).sum();
    lock(&run.doubled).retain(|node| !snapshot.unknown(node).is_empty());
    let packets = packets(run);
    run.say(&format!(
        "all in its place {:.1} s after the troubles: {} pods, {packets} packet checks, {unknown} addresses of doubled calls",
        settled_after.as_secs_f64(),
        snapshot.pods.len(),
    ));
    Some(Look {
        at: run.start.elapsed(),
        settled_after,
        pods: snapshot.pods.len(),
        packets,
        unknown,
    })
}

/// The lab's packet matrix; how many checks it made.
fn packets(run: &Run) -> u64 {
    let output = run.world.lab.output(&["check", "--json"]);
    let report: Option<Value> = output.ok().and_then(|o| serde_json::from_slice(&o.stdout).ok());
    let number = |key: &str| report.as_ref().and_then(|r| r.get(key)?.as_u64());
    match (number("checks"), number("failed")) {
        (Some(checks), Some(0)) => checks,
        (checks, failed) => {
            let told = report.as_ref().and_then(|r| r.get("failures")?.get(0).cloned());
            run.fail(format!(
                "{} of {} packet checks failed, the first: {}",
                failed.unwrap_or_default(),
                checks.unwrap_or_default(),
                told.unwrap_or_default()
            ));
            checks.unwrap_or_default()
        }
    }
}

/// When all pods are gone: no owner, no rule, no link.
fn nothing_left(run: &Run) {
    match Snapshot::take(&run.world) {
        Err(e) => run.fail(format!("the look at what is left: {e}")),
        Ok(snapshot) => {
            for (name, node) in &snapshot.nodes {
                let owners = node.pool.owners.len() + node.checkpoint.len();
                let kernel = &node.kernel;
                let rules = kernel.to.len() + kernel.from.len() + kernel.routes.len() + kernel.links.len();
                if owners + rules + snapshot.pods.len() > 0 {
                    run.fail(format!(
                        "without pods {name} has {owners} owners and {rules} rules, routes and links of pods"
                    ));
                }
            }
        }
    }
}
