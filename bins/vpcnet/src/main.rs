//! `vpcnet`: the command line, and the entry points of the image.
//!
//! What tells of a running agent asks it over its introspection server and touches neither kernel nor cloud. What is for a
//! node whose agent is not there, or not yet, looks for itself: `install`, `init`, `handback`. `config` and `max-pods` only read
//! what they are given. `lab` is another program.
//!
//! Exit codes: 0 done; 1 it could not be done, the reason is on stderr, or (`config check`) the agent would not start; 2 wrong
//! usage, or (`config check`) a file that cannot be read; 3 (`status`) the agent answers but does not serve pods yet.
#![forbid(unsafe_code)]

mod config;
mod doctor;
mod explain;
mod handback;
mod health;
mod http;
mod init;
mod install;
mod lab;
mod max_pods;
mod names;
mod node_address;
mod place;
mod plan;
mod primary;
mod program;
mod span;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vpcnet_config::vars;

/// Where the agent answers unless it was told otherwise.
const DEFAULT_ADDRESS: &str = vars::INTROSPECTION_BIND_ADDRESS.default;

/// VPC addresses for pods: the lab, the agent's status, its next plan, one pod explained, and its settings.
#[derive(Parser)]
#[command(
    name = "vpcnet",
    version,
    after_help = "Exit codes: 0 done, 1 failed (the reason is on stderr) or, of config\ncheck, the agent would not start, 2 wrong usage, 3 (status) the agent answers but\ndoes not serve pods yet."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A VPC on this machine to try vpcnet in (runs vpcnet-lab; see `vpcnet lab --help`)
    #[command(disable_help_flag = true)]
    Lab {
        /// Handed to vpcnet-lab as they are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },
    /// What the agent on this node has and does
    Status {
        #[command(flatten)]
        agent: Agent,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// What the agent would do next
    Plan {
        #[command(flatten)]
        agent: Agent,
        /// Print the arithmetic that leads there
        #[arg(long)]
        why: bool,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        /// A pool saved from `/v1/vpcnet/pool` instead of the live agent's; `-` reads stdin
        file: Option<PathBuf>,
    },
    /// Why something is as it is
    Explain {
        #[command(subcommand)]
        command: ExplainCommand,
    },
    /// Remove vpcnet's packet filter from this node, once amazon-vpc-cni-k8s has its own in force again
    ///
    /// To be run as root in the node's network namespace, after vpcnetd was stopped and aws-node was started. Waits until all
    /// that vpcnet's table does is done by aws-node too, and then removes the table in one transaction; connections go on. What
    /// else vpcnet has set up is aws-node's as well and stays. May be repeated.
    Handback(handback::Options),
    /// Put the plugins on the node, run the agent, and tell the container runtime once pods can be served
    ///
    /// The start of the agent's container: does not end before the agent does, and then with its exit code. Everything is set
    /// by the agent's environment.
    Install(install::Options),
    /// Prepare the node: the CNI project's plugins, kernel parameters
    ///
    /// The init container's part. Set by the agent's environment; may be repeated.
    Init(init::Options),
    /// Ask a gRPC health service, as grpc-health-probe does (see `vpcnet health -h`)
    #[command(disable_help_flag = true)]
    Health {
        /// As grpc-health-probe takes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        arguments: Vec<OsString>,
    },
    /// Whether vpcnet can run on this node, what would change here, and what to put right first
    ///
    /// Changes nothing. Set by the agent's environment. Exit codes: 0 it can, perhaps with warnings; 1 it cannot; 2 wrong usage.
    Doctor(doctor::Options),
    /// How many pods an instance type can have
    MaxPods(max_pods::Options),
    /// The agent's settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ExplainCommand {
    /// A pod of this node: its address and what the kernel has for it, or what it waits for, or why it was refused
    Pod {
        #[command(flatten)]
        agent: Agent,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        /// NAMESPACE/NAME
        pod: String,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// What an environment means to the agent, what of it is ignored, and why
    Check {
        /// NAME=VALUE lines, or a Kubernetes manifest in YAML or JSON, instead of this process's environment; `-` reads stdin
        #[arg(long)]
        file: Option<PathBuf>,
        /// The container of the manifest [default: aws-node or vpcnetd, else the only one]
        #[arg(long, requires = "file")]
        container: Option<String>,
    },
}

#[derive(Args)]
struct Agent {
    /// Introspection address of the agent, `host:port` or `unix:/path` [default: INTROSPECTION_BIND_ADDRESS from the
    /// environment, else 127.0.0.1:61679]
    #[arg(long)]
    address: Option<String>,
}

impl Agent {
    fn address(self) -> String {
        let text = self
            .address
            .or_else(|| {
                std::env::var(vars::INTROSPECTION_BIND_ADDRESS.name)
                    .ok()
                    .filter(|a| !a.is_empty())
            })
            .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        // `:61679` is how the agent is told to listen on all addresses; from here any of them will do.
        match text.strip_prefix(':') {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text,
        }
    }
}

/// What a command came to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Lab(#[from] lab::LabError),
    #[error(transparent)]
    Ask(#[from] http::AskError),
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    #[error(transparent)]
    Explain(#[from] explain::ExplainError),
    #[error(transparent)]
    Handback(#[from] handback::HandbackError),
    #[error(transparent)]
    Install(#[from] install::InstallError),
    #[error(transparent)]
    MaxPods(#[from] max_pods::MaxPodsError),
    #[error(transparent)]
    Init(#[from] init::InitError),
    #[error("the agent's answer cannot be read: {0}; is it of another version than this command?")]
    Answer(#[from] serde_json::Error),
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    #[error("cannot print: {0}")]
    Print(std::io::Error),
}

fn main() -> ExitCode {
    match run(Cli::parse_from(names::spelled_out(std::env::args_os().collect()))) {
        Ok(code) => code,
        // Whoever reads us (`| head`) has had enough.
        Err(Failure::Print(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vpcnet: {failure}");
            match failure {
                Failure::Explain(explain::ExplainError::Name { .. }) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Lab { arguments } => Err(lab::exec(&arguments).into()),
        Command::Config {
            command: ConfigCommand::Check { file, container },
        } => config::check(file, container.as_deref()),
        Command::Handback(options) => handback::run(&options),
        Command::Install(options) => asking(async { Ok(install::run(options).await?) }),
        Command::Init(options) => asking(async { Ok(init::run(options).await?) }),
        Command::Doctor(options) => asking(doctor::run(options)),
        Command::MaxPods(options) => asking(max_pods::run(options)),
        Command::Health { arguments } => asking(async { Ok(health::run(arguments).await) }),
        Command::Status { agent, json } => asking(async { status::run(&agent.address(), json).await }),
        Command::Explain {
            command: ExplainCommand::Pod { agent, json, pod },
        } => asking(async { explain::pod(&agent.address(), &pod, json).await }),
        Command::Plan {
            agent,
            why,
            json,
            file,
        } => asking(async { plan::run(&agent.address(), file.as_deref(), why, json).await }),
    }
}

/// Runs what asks the agent.
fn asking(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(command)
}

/// Prints, and says so when it cannot be printed.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::Print)
}
