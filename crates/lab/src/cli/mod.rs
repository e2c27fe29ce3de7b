//! The command line: what `vpcnet lab …` runs.

mod demo;
mod down;
mod fault;
mod kubernetes;
mod node;
mod picture;
mod pod;
mod show;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ipnet::Ipv4Net;

use crate::control::AgentAction;
use crate::daemon::options::Options;
use crate::error::LabError;
use crate::state::Dir;

/// A VPC on this machine: nodes, interfaces, pods, EC2 and IMDS, for any VPC CNI to run against.
#[derive(Debug, Parser)]
#[command(name = "vpcnet lab", version, disable_help_subcommand = true)]
struct Line {
    /// State directory; its name is also the beginning of the namespaces' names [env: VPCNET_LAB_DIR]
    /// [default: /run/vpcnet-lab]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a VPC with nodes up, in the background
    Up(Options),
    /// Remove everything the lab made, also after a crash
    Down,
    /// Show the VPC: subnets, nodes, interfaces, addresses, pods, calls, drops
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what is needed to start any agent in a node by hand
    Env {
        /// The node
        node: String,
    },
    /// Start, stop or kill the agent of a node
    Agent {
        #[command(subcommand)]
        action: Agent,
    },
    /// Add or remove nodes
    Node {
        #[command(subcommand)]
        action: node::Command,
    },
    /// Add, remove and list pods
    Pod {
        #[command(subcommand)]
        action: pod::Command,
    },
    /// Run a command in a node, a pod, the internet or the peered network
    Exec {
        /// NODE, pod/NAME, internet or peer; kubelet/NODE for a node as its kubelet sees it
        place: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Send packets between everything and judge how they fare; exit code 1 if any check fails
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Outside the VPC, pods go there with their own address, as the agents' AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS says; 0.0.0.0/0 with
        /// AWS_VPC_K8S_CNI_EXTERNALSNAT. May be repeated
        #[arg(long, value_name = "CIDR")]
        untranslated: Vec<Ipv4Net>,
    },
    /// Make an EC2 call as the lab's administrator and print EC2's XML
    Ec2 {
        /// DescribeNetworkInterfaces, CreateNetworkInterface, …
        action: String,
        /// Parameters as in the Query API: SubnetId=subnet-…, PrivateIpAddress.1=10.0.0.9
        #[arg(value_name = "NAME=VALUE")]
        parameters: Vec<String>,
    },
    /// Make calls fail, hang, lag or lose their answers
    Fault {
        #[command(subcommand)]
        action: fault::Command,
    },
    /// Show the IAM policy of the nodes' role, or put another one in force
    Policy {
        /// The new one (JSON)
        file: Option<PathBuf>,
    },
    /// Show the calls to EC2 and IMDS
    Calls {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Only those from this many milliseconds after the lab's start on
        #[arg(long, value_name = "MS", default_value_t = 0)]
        since: u64,
    },
    /// Show the packets the VPC dropped, and why
    Drops {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Only those from this many milliseconds after the lab's start on
        #[arg(long, value_name = "MS", default_value_t = 0)]
        since: u64,
    },
    /// kubectl for the cluster of `up --kubernetes`
    #[command(disable_help_flag = true)]
    Kubectl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Container images of the nodes of `up --kubernetes`
    Image {
        #[command(subcommand)]
        action: kubernetes::Image,
    },
    /// Stop, kill and start the programs of `up --kubernetes`: kubelets, the API server and others
    Component {
        #[command(subcommand)]
        action: kubernetes::Component,
    },
    /// Everything once: two nodes, pods on each, a picture, the check; then clear up
    Demo(demo::Command),
    /// (internal) the process behind `up`
    #[command(hide = true)]
    Daemon {
        #[command(flatten)]
        options: Options,
        /// The agent's program
        #[arg(long)]
        agent_program: PathBuf,
    },
    /// (internal) the process that keeps a node's namespaces
    #[command(hide = true)]
    Hold { namespace: String, logs: PathBuf },
    /// (internal) the process that makes a machine for Kubernetes
    #[command(hide = true)]
    Machine { spec: String },
    /// (internal) pid 1 of such a machine
    #[command(hide = true)]
    MachineInit { spec: String },
}

#[derive(Debug, Subcommand)]
enum Agent {
    /// Start it and wait until it serves
    Start {
        /// The node
        node: String,
        /// For its environment; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        env: Vec<String>,
        /// Do not wait until its socket answers
        #[arg(long)]
        no_wait: bool,
    },
    /// Send SIGTERM and wait until it has ended
    Stop {
        /// The node
        node: String,
    },
    /// Send SIGKILL
    Kill {
        /// The node
        node: String,
    },
}

/// Parses the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let line = Line::parse();
    match run(line) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("vpcnet lab: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(line: Line) -> Result<ExitCode, LabError> {
    let from_env = || std::env::var_os("VPCNET_LAB_DIR").map(PathBuf::from);
    let chosen = line.dir.or_else(from_env);
    if let Command::Demo(command) = line.command {
        return demo::run(chosen, &command);
    }
    let dir = Dir::new(&chosen.unwrap_or_else(|| PathBuf::from("/run/vpcnet-lab")))?;
    match line.command {
        Command::Up(options) => up::run(&dir, &options)?,
        Command::Down => down::run(&dir)?,
        Command::Status { json } => show::status(&dir, json)?,
        Command::Env { node } => show::env(&dir, &node)?,
        Command::Agent { action } => match action {
            Agent::Start { node, env, no_wait } => node::agent_start(&dir, &node, env, !no_wait)?,
            Agent::Stop { node } => node::agent_end(&dir, &node, AgentAction::Stop)?,
            Agent::Kill { node } => node::agent_end(&dir, &node, AgentAction::Kill)?,
        },
        Command::Node { action } => node::run(&dir, action)?,
        Command::Pod { action } => return pod::run(&dir, action),
        Command::Exec { place, command } => show::exec(&dir, &place, &command)?,
        Command::Check { json, untranslated } => return show::check(&dir, json, &untranslated),
        Command::Ec2 { action, parameters } => show::ec2(&dir, &action, &parameters)?,
        Command::Policy { file } => show::policy(&dir, file.as_deref())?,
        Command::Fault { action } => fault::run(&dir, action)?,
        Command::Calls { json, since } => show::calls(&dir, json, since)?,
        Command::Drops { json, since } => show::drops(&dir, json, since)?,
        Command::Daemon {
            options,
            agent_program,
        } => crate::daemon::run(&dir, &options, &agent_program)?,
        Command::Kubectl { arguments } => kubernetes::kubectl(&dir, &arguments)?,
        Command::Image { action } => kubernetes::image(&dir, action)?,
        Command::Component { action } => kubernetes::component(&dir, action)?,
        Command::Machine { spec } => return crate::kubernetes::machine::run(&spec),
        Command::MachineInit { spec } => crate::kubernetes::init::run(&spec)?,
        Command::Hold { namespace, logs } => crate::fabric::node::hold(&namespace, &logs)?,
        Command::Demo(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails without root, saying what would be changed and why that takes root.
fn need_root() -> Result<(), LabError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(LabError::Usage(
        "this needs root. It would make network namespaces (one for the VPC, one for the internet, one for a peered \
         network, one for each node and pod) under /run/netns, virtual Ethernet pairs, routes and nftables rules inside \
         them, private mounts for each node's processes, and a state directory; only root may make namespaces, \
         interfaces and mounts. The machine's own interfaces, routes and firewall are not touched, and 'vpcnet lab down' \
         removes all of it. Run it with sudo."
            .to_owned(),
    ))
}

/// Prints a value as JSON, indented.
fn print_json<T: serde::Serialize>(value: &T) -> Result<(), LabError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| LabError::Refused(e.to_string()))?;
    println!("{text}");
    Ok(())
}
