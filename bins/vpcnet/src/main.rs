//! `vpcnet`: the command line. It asks the agent of this node over its introspection server and never touches the kernel
//! or the cloud itself; `vpcnet lab` is another program.
//!
//! Exit codes: 0 done; 1 it could not be done, the reason is on stderr; 2 wrong usage; 3 (`status`) the agent answers but
//! does not serve pods yet.
#![forbid(unsafe_code)]

mod http;
mod lab;
mod plan;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Where the agent answers unless it was told otherwise.
const DEFAULT_ADDRESS: &str = "127.0.0.1:61679";

/// VPC addresses for pods: the lab, the agent's status and its next plan.
#[derive(Parser)]
#[command(
    name = "vpcnet",
    version,
    after_help = "Exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage,\n3 (status) the agent answers but does not serve pods yet."
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
                std::env::var("INTROSPECTION_BIND_ADDRESS")
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
    #[error("the agent's answer cannot be read: {0}; is it of another version than this command?")]
    Answer(#[from] serde_json::Error),
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    #[error("cannot print: {0}")]
    Print(std::io::Error),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        // Whoever reads us (`| head`) has had enough.
        Err(Failure::Print(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vpcnet: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    if let Command::Lab { arguments } = cli.command {
        return Err(lab::exec(&arguments).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
        match cli.command {
            Command::Lab { .. } => Ok(ExitCode::SUCCESS),
            Command::Status { agent, json } => status::run(&agent.address(), json).await,
            Command::Plan {
                agent,
                why,
                json,
                file,
            } => plan::run(&agent.address(), file.as_deref(), why, json).await,
        }
    })
}

/// Prints, and says so when it cannot be printed.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::Print)
}
