//! `lab node` and `lab agent`.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::Value;

use super::need_root;
use crate::control::{self, AgentAction, AgentStatus, Ask, Status};
use crate::error::LabError;
use crate::fabric::netns::Place;
use crate::pods;
use crate::state::Dir;

/// Where agents of the AWS VPC CNI's kind serve, on every node.
const SOCKET: &str = "/var/run/aws-node/ipamd.sock";
/// How long an agent may take to serve.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start another node
    Add {
        /// Its name [default: the next free node-N]
        name: Option<String>,
        /// Its instance type [default: as for `up`]
        #[arg(long = "type", value_name = "TYPE")]
        instance_type: Option<String>,
        /// Name or id of its subnet [default: by turns]
        #[arg(long)]
        subnet: Option<String>,
        /// Start no agent on it, though the lab was started with agents
        #[arg(long)]
        no_agent: bool,
    },
    /// Terminate a node, its agent and its pods
    Remove {
        /// Its name
        name: String,
    },
}

pub(super) fn run(dir: &Dir, command: Command) -> Result<(), LabError> {
    need_root()?;
    match command {
        Command::Add {
            name,
            instance_type,
            subnet,
            no_agent,
        } => {
            let ask = Ask::NodeAdd {
                name,
                instance_type,
                subnet,
                agent: !no_agent,
            };
            let (name, agent): (String, bool) = control::ask(dir, &ask)?;
            if agent {
                wait_serving(dir, &name, START_LIMIT)?;
            }
            println!("{name} is up.");
        }
        Command::Remove { name } => {
            let _: Value = control::ask(dir, &Ask::NodeRemove { name: name.clone() })?;
            for pod in pods::list(dir)?.into_iter().filter(|p| p.node == name) {
                for process in crate::process::in_namespace(&crate::fabric::netns::path(&pod.netns)) {
                    process.signal(rustix::process::Signal::KILL);
                }
                pod.forget(dir)?;
            }
            println!("{name} is gone.");
        }
    }
    Ok(())
}

pub(super) fn agent_start(dir: &Dir, node: &str, env: Vec<String>, wait: bool) -> Result<(), LabError> {
    need_root()?;
    let start = Instant::now();
    let ask = Ask::Agent {
        node: node.to_owned(),
        action: AgentAction::Start,
        env,
    };
    let agent: AgentStatus = control::ask(dir, &ask)?;
    if wait {
        wait_serving(dir, node, START_LIMIT)?;
        super::kubernetes::install_plugin(dir, node)?;
    }
    let pid = agent.pid.unwrap_or_default();
    println!(
        "The agent of {node} runs as process {pid} after {} ms; its log is {}.",
        start.elapsed().as_millis(),
        agent.log
    );
    Ok(())
}

pub(super) fn agent_end(dir: &Dir, node: &str, action: AgentAction) -> Result<(), LabError> {
    need_root()?;
    let ask = Ask::Agent {
        node: node.to_owned(),
        action,
        env: Vec::new(),
    };
    let _: AgentStatus = control::ask(dir, &ask)?;
    println!("The agent of {node} has ended.");
    Ok(())
}

/// Waits until the node's agent answers on its socket; fails at once when it has ended.
pub(super) fn wait_serving(dir: &Dir, node: &str, limit: Duration) -> Result<(), LabError> {
    let start = Instant::now();
    loop {
        let status: Status = control::ask(dir, &Ask::Status)?;
        let node = status.node(node)?;
        if let Some(how) = &node.agent.ended {
            return Err(LabError::Refused(format!(
                "the agent of {} ended ({how}); its log is {}",
                node.name, node.agent.log
            )));
        }
        let place = Place::of_node(&node.namespace, node.holder)?;
        // Mostly it is a matter of milliseconds: stay in the node rather than ask the daemon each time.
        let serves = place.run(|| {
            let look = Instant::now();
            while look.elapsed() < Duration::from_millis(500) {
                if UnixStream::connect(SOCKET).is_ok() {
                    return Ok(true);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(false)
        })?;
        if serves {
            return Ok(());
        }
        if start.elapsed() > limit {
            return Err(LabError::TooLate {
                what: format!("the agent of {} serving on {SOCKET}", node.name),
                seconds: limit.as_secs(),
                log: node.agent.log.clone().into(),
            });
        }
    }
}
