//! `lab demo`: everything once, then nothing is left.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{down, picture, pod, show, up};
use crate::check;
use crate::control::{self, Ask, Status};
use crate::daemon::options::Options;
use crate::error::LabError;
use crate::pods;
use crate::state::Dir;

#[derive(Clone, Debug, Args)]
pub(super) struct Command {
    /// Pods on each node
    #[arg(long, value_name = "N", default_value_t = 20)]
    pods: usize,
    /// Seed of everything random [default: a new one]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Leave the lab up at the end
    #[arg(long)]
    keep: bool,
}

/// Set by the terminal's interrupt; looked at between the steps, so that what was begun is also removed.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub(super) fn run(dir: Option<PathBuf>, command: &Command) -> Result<ExitCode, LabError> {
    super::need_root()?;
    let dir = Dir::new(&dir.unwrap_or_else(|| PathBuf::from("/run/vpcnet-demo")))?;
    watch_interrupts()?;
    let start = Instant::now();
    let options = Options {
        seed: command.seed,
        ..Options::usual()
    };
    println!(
        "A VPC with two {} nodes in two subnets of two zones, an agent on each …",
        options.instance_type
    );
    up::start(&dir, &options)?;
    let outcome = show_all(&dir, command);
    if command.keep && outcome.is_ok() {
        println!("The lab stays up in {}.", dir.path().display());
    } else {
        down::remove(&dir)?;
        println!(
            "Everything is removed again, {:.1} s after the start.",
            start.elapsed().as_secs_f64()
        );
    }
    let good = outcome? && !INTERRUPTED.load(Ordering::Relaxed);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The demo between up and down; true when nothing failed.
fn show_all(dir: &Dir, command: &Command) -> Result<bool, LabError> {
    let status: Status = control::ask(dir, &Ask::Status)?;
    let mut good = true;
    for node in &status.nodes {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let names: Vec<String> = (1..=command.pods)
            .map(|n| format!("{}-pod-{n}", node.name))
            .collect();
        let add = pod::Add {
            node: node.name.clone(),
            name: None,
            count: Some(command.pods),
            parallel: 4,
            prefix: String::new(),
            namespace: "default".to_owned(),
            annotate: Vec::new(),
            every_card: false,
            cni_version: "1.0.0".to_owned(),
            json: false,
        };
        let burst = pod::burst(dir, &add, &names)?;
        println!(
            "{} pods on {} after {:.0} ms (ADD median {:.1} ms), {} failed",
            burst.pods.len(),
            node.name,
            burst.all_ready_ms,
            burst.median_ms,
            burst.failed
        );
        for (name, why) in &burst.failures {
            println!("FAIL pod {name}: {why}");
        }
        good &= burst.failed == 0;
    }
    let status: Status = control::ask(dir, &Ask::Status)?;
    println!("\n{}", picture::draw(&status, &pods::list(dir)?));
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let report = check::run(dir, &[])?;
    show::print_report(&report);
    Ok(good && report.failed == 0)
}

fn watch_interrupts() -> Result<(), LabError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let Ok(mut term) = signal(SignalKind::terminate()) else {
                return;
            };
            loop {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = term.recv() => {}
                }
                eprintln!("vpcnet lab: ending after this step, then removing everything");
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    };
    std::thread::Builder::new()
        .spawn(run)
        .map(drop)
        .map_err(LabError::socket("watch for interrupts"))
}
