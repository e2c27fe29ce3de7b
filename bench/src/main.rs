//! `vpcnet-bench`: what an ADD and a DEL cost, beside a peer and a floor, in one run.
//!
//! * **ours**: `aws-cni`, exec'd as a runtime does, with a live agent in a lab node;
//! * **ptp**: the reference plugin `ptp` with `host-local`, from the distribution;
//! * **floor**: `vpcnet-floor`, the same kernel changes by raw netlink, without an agent.
//!
//! The three take turns pod by pod, each in a host namespace of its own, so that a noisy machine is noisy for all, and
//! the figures to read are the ratios. Needs root, the built binaries side by side, and `ptp`.
//!
//! Without arguments it brings up the lab, runs itself inside the node (`vpcnet-bench inside …`), prints the tables and
//! writes `target/bench/report.json`. Exit code 0 when all was measured: it never judges a figure. `vpcnet-bench soak` does: see
//! the module of that name.

mod agent;
mod budget;
mod host;
mod inside;
mod ipv6;
mod lab;
mod outside;
mod peers;
mod pods;
mod report;
mod run;
mod soak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "vpcnet-bench", about = "Times ADD and DEL beside a peer and a floor")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Pods of the sequential part.
    #[arg(long, default_value_t = 200)]
    pods: usize,
    /// Seconds of the idle part; anything but 60 is said so in the report.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Where the built binaries lie side by side.
    #[arg(long, default_value = "target/vpcnet")]
    bin: std::path::PathBuf,
    /// Where the distribution's CNI plugins lie.
    #[arg(long, default_value = "/usr/lib/cni")]
    cni: std::path::PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/bench/report.json")]
    report: std::path::PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// The part that runs inside the lab node; prints JSON.
    #[command(hide = true)]
    Inside(inside::Arguments),
    /// Churn on two lab nodes under faults for an hour: no leak, no growth, no ADD that fails without a reason
    Soak(soak::Arguments),
}

fn main() -> ExitCode {
    // First of all, and without the parser: this process is to be small.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == run::WEIGH)
        && let Some(program) = words.next()
    {
        return match run::weigh(&program, &words.collect::<Vec<_>>()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(e) => {
                eprintln!("vpcnet-bench: {}: {e}", program.display());
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Inside(inside)) => inside::run(inside),
        Some(Command::Soak(soak)) => soak::run(soak),
        None => outside::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vpcnet-bench: {e}");
            ExitCode::FAILURE
        }
    }
}
