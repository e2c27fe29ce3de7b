//! `vpcnet handback`: the node goes back to amazon-vpc-cni-k8s. What is looked at, and what is removed, is `vpcnet-linux`'s.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::fs::{FlockOperation, flock};
use vpcnet_config::vars;
use vpcnet_linux::handback::{self, Lacking, Situation, Wants};
use vpcnet_linux::netlink::NetlinkError;
use vpcnet_linux::original::Programs;

use crate::{Failure, print};

/// Between looks. The older tables tell nobody of a change.
const PAUSE: Duration = Duration::from_millis(250);

/// How to hand back.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds to wait for aws-node's rules; 0: look once
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Whether aws-node runs with AWS_VPC_K8S_CNI_EXTERNALSNAT=true, so that it translates nothing [default: as vpcnet's table does]
    #[arg(long, value_name = "BOOL")]
    external_snat: Option<bool>,
    /// Whether aws-node runs with AWS_VPC_CNI_NODE_PORT_SUPPORT=true [default: as vpcnet's table does]
    #[arg(long, value_name = "BOOL")]
    node_ports: Option<bool>,
    /// vpcnetd's socket, by whose lock a running vpcnetd is known [default: VPCNET_SOCKET from the environment, else
    /// /var/run/aws-node/ipamd.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// The node was not handed back; ours is in force as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandbackError {
    #[error(
        "vpcnetd runs on this node and holds {}: stop it first (remove its DaemonSet), and start aws-node", .0.display()
    )]
    AgentRuns(PathBuf),
    #[error("cannot tell whether vpcnetd runs: {}: {source}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("{0}; this needs root (CAP_NET_ADMIN) in the node's network namespace")]
    Kernel(#[from] NetlinkError),
    #[error("not handed back within {seconds} s, and nothing was changed. Still lacking:{}", list(.lacking))]
    TimedOut { seconds: u64, lacking: Vec<Lacking> },
}

fn list(lacking: &[Lacking]) -> String {
    lacking.iter().map(|what| format!("\n  {what}")).collect()
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    // Held to the end, so that no vpcnetd starts meanwhile.
    let _lock = lock(&options.lock())?;
    let wants = Wants {
        translation: options.external_snat.map(|external| !external),
        node_ports: options.node_ports,
    };
    let end = Instant::now() + Duration::from_secs(options.timeout);
    let mut told: Option<Vec<Lacking>> = None;
    loop {
        let situation = look(wants)?;
        if situation.is_done() {
            let word = if told.is_some() {
                "nothing of vpcnet's is left"
            } else {
                "there is nothing to hand back"
            };
            print(&format!("{word}: no table of vpcnet's is on this node\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        if situation.lacking.is_empty() {
            let removed = handback::remove(&situation).map_err(HandbackError::from)?;
            print(&format!(
                "aws-node's rules are in force; removed {}\n",
                removed.join(", ")
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= end {
            let seconds = options.timeout;
            let lacking = situation.lacking;
            return Err(HandbackError::TimedOut { seconds, lacking }.into());
        }
        if told.as_ref() != Some(&situation.lacking) {
            let left = end.saturating_duration_since(Instant::now()).as_secs();
            let lacking = list(&situation.lacking);
            print(&format!("waiting, for {left} s at most:{lacking}\n"))?;
            told = Some(situation.lacking);
        }
        std::thread::sleep(PAUSE);
    }
}

fn look(wants: Wants) -> Result<Situation, HandbackError> {
    Ok(handback::look(&Programs::default(), wants)?)
}

impl Options {
    fn lock(&self) -> PathBuf {
        let socket = self.socket.clone().or_else(|| {
            let set = std::env::var_os(vars::VPCNET_SOCKET.name)?;
            (!set.is_empty()).then(|| set.into())
        });
        // As vpcnetd names it.
        socket
            .unwrap_or_else(|| vars::VPCNET_SOCKET.default.into())
            .with_extension("lock")
    }
}

/// The lock that a running vpcnetd holds; none if there never was one.
fn lock(path: &std::path::Path) -> Result<Option<File>, HandbackError> {
    let failed = |source| HandbackError::Lock {
        path: path.to_owned(),
        source,
    };
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(HandbackError::AgentRuns(path.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_agent_is_known_by_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipamd.lock");
        assert!(lock(&path).unwrap().is_none(), "there never was one");
        let agent = File::create(&path).unwrap();
        flock(&agent, FlockOperation::NonBlockingLockExclusive).unwrap();
        let error = lock(&path).unwrap_err();
        assert!(error.to_string().contains("vpcnetd runs on this node"), "{error}");
        drop(agent);
        let held = lock(&path).unwrap();
        assert!(held.is_some());
        assert!(lock(&path).is_err(), "no agent starts while it is held");
    }

    #[test]
    fn a_deadline_that_passed_names_all_that_is_lacking() {
        let error = HandbackError::TimedOut {
            seconds: 3,
            lacking: vec![Lacking::Restoring, Lacking::Rule(0x80)],
        };
        let text = error.to_string();
        assert!(
            text.starts_with("not handed back within 3 s, and nothing was changed"),
            "{text}"
        );
        assert!(
            text.contains("\n  it does not restore") && text.contains("\n  the rule 1024 for its mark 0x80")
        );
    }
}
