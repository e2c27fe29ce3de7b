//! `lab up`: starts the daemon and waits until everything stands.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{down, kubernetes, need_root, node};
use crate::control::{self, Ask, Status};
use crate::daemon::options::{Options, program, program_path};
use crate::error::LabError;
use crate::process::Process;
use crate::state::{Dir, Records};
use crate::tool;

pub(super) fn run(dir: &Dir, options: &Options) -> Result<(), LabError> {
    let begin = Instant::now();
    start(dir, options)?;
    let status: Status = control::ask(dir, &Ask::Status)?;
    let nodes: Vec<&str> = status.nodes.iter().map(|n| n.name.as_str()).collect();
    println!(
        "The VPC {} is up with {}.",
        status.vpc.first().map(ToString::to_string).unwrap_or_default(),
        nodes.join(", ")
    );
    println!(
        "EC2 answers on {}, in the nodes on {}.",
        status.ec2_endpoint, status.ec2_endpoint_in_nodes
    );
    let lab = lab_command(dir);
    if status.kubernetes.is_some() {
        kubernetes::tell(&lab, &status, begin.elapsed());
        return Ok(());
    }
    let node = nodes.first().copied().unwrap_or("node-1");
    println!("\nNext:");
    if options.no_agent {
        println!("  {lab} env {node}               what an agent started by hand needs");
        println!("  {lab} agent start {node}       start vpcnet's own");
    }
    println!("  {lab} pod add {node} web-1     give a pod an address");
    println!("  {lab} status                  see the VPC");
    println!("  {lab} exec pod/web-1 -- ip addr");
    println!("  {lab} check                   send packets between everything");
    println!("  {lab} down                    remove it all");
    Ok(())
}

/// How to call this program for this lab again.
fn lab_command(dir: &Dir) -> String {
    if dir.path() == Path::new("/run/vpcnet-lab") || std::env::var_os("VPCNET_LAB_DIR").is_some() {
        "vpcnet lab".to_owned()
    } else {
        format!("vpcnet lab --dir {}", dir.path().display())
    }
}

/// Starts the daemon, waits until it and the agents are ready. On failure nothing is left.
pub(super) fn start(dir: &Dir, options: &Options) -> Result<(), LabError> {
    need_root()?;
    tool::check_present()?;
    if options.kubernetes {
        kubernetes::check_present()?;
    }
    // Without agents it is only needed when one is started, which will say that it is missing.
    let find = if options.with_agents() {
        program
    } else {
        program_path
    };
    let agent = find("vpcnetd", "VPCNETD")?;
    if let Some(made) = Records::load(dir)? {
        if let Some(daemon) = made.daemon.filter(Process::alive) {
            return Err(LabError::AlreadyUp {
                dir: dir.path().to_owned(),
                pid: daemon.pid,
            });
        }
        eprintln!(
            "vpcnet lab: clearing up after a lab in {} whose daemon is gone",
            dir.path().display()
        );
        down::remove(dir)?;
    }
    dir.create()?;
    let started = spawn(dir, options, &agent).and_then(|()| wait_for_agents(dir, options));
    if started.is_err() {
        down::remove(dir)?;
    }
    started
}

fn spawn(dir: &Dir, options: &Options, agent: &Path) -> Result<(), LabError> {
    let log = dir.log().join("lab.log");
    let file = fs::File::create(&log).map_err(LabError::file("create", &log))?;
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    let daemon = |source| LabError::Spawn {
        program: "the lab's daemon".to_owned(),
        source,
    };
    let mut child = Command::new("/proc/self/exe")
        .arg("--dir")
        .arg(dir.path())
        .arg("daemon")
        .arg("--agent-program")
        .arg(agent)
        .args(options.arguments(seed))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .map_err(daemon)?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(daemon)?;
    }
    match line.trim() {
        "ready" => Ok(()),
        said => {
            let _ = child.kill();
            let _ = child.wait();
            let why = said.strip_prefix("error: ").filter(|s| !s.is_empty());
            let last = || {
                fs::read_to_string(&log)
                    .unwrap_or_default()
                    .lines()
                    .last()
                    .unwrap_or("it said nothing")
                    .to_owned()
            };
            Err(LabError::Refused(format!(
                "the lab did not come up: {}",
                why.map_or_else(last, ToOwned::to_owned)
            )))
        }
    }
}

fn wait_for_agents(dir: &Dir, options: &Options) -> Result<(), LabError> {
    if !options.with_agents() {
        return Ok(());
    }
    let status: Status = control::ask(dir, &Ask::Status)?;
    status
        .nodes
        .iter()
        .try_for_each(|n| node::wait_serving(dir, &n.name, Duration::from_secs(60)))
}
