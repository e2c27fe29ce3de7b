//! The whole benchmark: labs up and down, parts inside them, tables and report.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::Arguments;
use crate::lab::Lab;
use crate::{budget, report};

/// 8 interfaces of 30 addresses: 232 for pods.
const TYPE: &str = "m5.4xlarge";
const BINARIES: [&str; 6] = [
    "aws-cni",
    "egress-cni",
    "vpcnetd",
    "vpcnet",
    "vpcnet-lab",
    "vpcnet-floor",
];

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let bin = arguments.bin.canonicalize().map_err(|e| {
        io::Error::new(
            e.kind(),
            format!("{}: {e}; run `make build` first", arguments.bin.display()),
        )
    })?;
    let mut whole = Map::new();
    whole.insert("sizes_mib".to_owned(), sizes(&bin)?);

    eprintln!("idle for {} s …", arguments.idle);
    let lab = Lab::up(&bin, &["--type", TYPE])?;
    let calls_before = settled(&lab)?;
    let mut idle = part(&lab, "idle", arguments, &bin)?;
    let calls_after = calls(&lab)?;
    idle.insert("ec2_calls_before".to_owned(), json!(calls_before.0));
    idle.insert("ec2_calls".to_owned(), json!(calls_after.0 - calls_before.0));
    idle.insert("imds_calls".to_owned(), json!(calls_after.1 - calls_before.1));
    drop(lab);

    eprintln!("{} pods one by one, then 50 by 8 …", arguments.pods);
    let warm = format!("WARM_IP_TARGET={}", arguments.pods + 20);
    let lab = Lab::up(
        &bin,
        &["--type", TYPE, "--env", &warm, "--env", "IP_COOLDOWN_PERIOD=0"],
    )?;
    let steady = part(&lab, "steady", arguments, &bin)?;
    drop(lab);
    whole.extend(steady);
    if let (Some(Value::Object(agent)), Some(rss)) = (whole.get_mut("agent"), idle.get("rss_idle_mib")) {
        agent.insert("rss_idle_mib".to_owned(), rss.clone());
    }
    whole.insert("idle".to_owned(), idle.into());

    eprintln!("burst of 100 pods …");
    let lab = Lab::up(
        &bin,
        &[
            "--type",
            TYPE,
            "--ec2-latency",
            "400",
            "--imds-lag",
            "2000",
            "--attach-delay",
            "0",
        ],
    )?;
    let burst = part(
        &lab,
        "burst",
        &Arguments {
            pods: 100,
            command: None,
            ..clone(arguments)
        },
        &bin,
    )?;
    drop(lab);
    whole.insert("burst".to_owned(), burst.into());
    whole.insert("ipv6".to_owned(), ipv6(arguments, &bin)?);

    eprintln!("EC2 calls by occasion …");
    whole.insert("ec2_calls".to_owned(), budget::measure(&bin)?);

    let mut whole = Value::Object(whole);
    report::add_ratios(&mut whole);
    println!("{}", report::tables(&whole));
    if let Some(directory) = arguments.report.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&arguments.report, serde_json::to_vec_pretty(&whole)?)?;
    println!("\nreport: {}", arguments.report.display());
    Ok(())
}

/// An IPv6 cluster's node, and somebody outside the VPC to talk to.
fn ipv6(arguments: &Arguments, bin: &Path) -> io::Result<Value> {
    eprintln!("{} pods with IPv6 addresses …", arguments.pods);
    let max = format!("VPCNET_MAX_PODS={}", arguments.pods + 20);
    let lab = Lab::up(
        bin,
        &[
            "--type",
            TYPE,
            "--ipv6",
            "--env",
            &max,
            "--env",
            "IP_COOLDOWN_PERIOD=0",
        ],
    )?;
    let status: Value = serde_json::from_str(&lab.run(&["status", "--json"])?)?;
    let outside = |name: &str| {
        let found = status
            .pointer(&format!("/internet_ipv6/{name}"))
            .and_then(Value::as_str);
        found.ok_or_else(|| io::Error::other(format!("the lab's status names no {name} of the internet")))
    };
    let namespace = format!("/run/netns/{}", outside("namespace")?);
    let printed = lab.inside(&[
        "ipv6",
        "--bin",
        &bin.to_string_lossy(),
        "--cni",
        &arguments.cni.to_string_lossy(),
        "--pods",
        &arguments.pods.to_string(),
        "--idle",
        "0",
        "--outside",
        &namespace,
        "--outside-address",
        outside("host")?,
    ])?;
    Ok(serde_json::from_str(&printed)?)
}

fn clone(a: &Arguments) -> Arguments {
    let (bin, cni, report) = (a.bin.clone(), a.cni.clone(), a.report.clone());
    Arguments {
        command: None,
        pods: a.pods,
        idle: a.idle,
        bin,
        cni,
        report,
    }
}

fn part(lab: &Lab, name: &str, arguments: &Arguments, bin: &Path) -> io::Result<Map<String, Value>> {
    let (bin, cni) = (bin.to_string_lossy(), arguments.cni.to_string_lossy());
    let (pods, idle) = (arguments.pods.to_string(), arguments.idle.to_string());
    let printed = lab.inside(&[
        name, "--bin", &bin, "--cni", &cni, "--pods", &pods, "--idle", &idle,
    ])?;
    Ok(serde_json::from_str(&printed)?)
}

/// Waits until no call to EC2 has followed another for five seconds: the pool is as it should be. Returns the calls so far.
pub(crate) fn settled(lab: &Lab) -> io::Result<(u64, u64)> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut last, mut since) = (calls(lab)?, Instant::now());
    // A pool that holds nothing has not begun to fill: the start needs at least one call.
    while last.0 == 0 || since.elapsed() < Duration::from_secs(5) {
        if Instant::now() > deadline {
            return Err(io::Error::other(
                "the agent went on calling EC2 for 120 s: it never was idle",
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
        let now = calls(lab)?;
        if now.0 != last.0 {
            since = Instant::now();
        }
        last = now;
    }
    Ok(last)
}

/// EC2 and IMDS calls that the lab has seen so far.
pub(crate) fn calls(lab: &Lab) -> io::Result<(u64, u64)> {
    let printed: Value = serde_json::from_str(&lab.run(&["calls", "--json"])?)?;
    let calls = printed
        .as_array()
        .ok_or_else(|| io::Error::other(format!("`vpcnet-lab calls --json` printed no list: {printed}")))?;
    let of = |face: &str| {
        calls
            .iter()
            .filter(|c| c.get("face").and_then(Value::as_str) == Some(face))
            .count() as u64
    };
    Ok((of("ec2"), of("imds")))
}

fn sizes(bin: &Path) -> io::Result<Value> {
    let mut map = Map::new();
    for name in BINARIES {
        let bytes = std::fs::metadata(bin.join(name))
            .map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}; run `make build` first")))?
            .len();
        map.insert(name.to_owned(), json!(bytes as f64 / 1048576.0));
    }
    Ok(map.into())
}
