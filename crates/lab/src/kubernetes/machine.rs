//! A machine for Kubernetes: a lab node's network and mounts, and process ids, host name, IPC and control groups of its own.
//!
//! It is made in two steps. [`run`] is a process in the node that joins the machine's control groups, leaves the namespaces that are
//! to be its own, and starts the second, [`super::init`], which is pid 1 there. When the first ends, however it ends, the
//! kernel kills the second, and with it everything on the machine: containers, too, and their mounts.

use std::io::{BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cgroups;
pub use super::cgroups::Group;
use super::init::{Component, Order, Program, Reply};
use crate::edge::{Own, unshare};
use crate::error::LabError;
use crate::fabric::netns::Place;
use crate::process::Process;

/// What a machine is to be; handed on as one JSON argument.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The node's network namespace.
    pub namespace: String,
    /// The process that keeps the node's mounts.
    pub holder: i32,
    /// Its host name.
    pub hostname: String,
    /// Its control groups; empty for one that runs no containers.
    pub groups: Vec<Group>,
    /// The lab's logs, which it sees, too.
    pub logs: PathBuf,
    /// What it keeps on disk: images, containers, kubelet's files.
    pub disk: PathBuf,
    /// Plugins of the CNI project, which it has from the start.
    pub plugins: PathBuf,
}

impl Spec {
    /// Whether it runs containers.
    #[must_use]
    pub fn runs_containers(&self) -> bool {
        !self.groups.is_empty()
    }
}

/// The first step's whole life.
///
/// # Errors
/// What could not be entered, joined or left.
pub fn run(spec: &str) -> Result<ExitCode, LabError> {
    let read: Spec = serde_json::from_str(spec)
        .map_err(|e| LabError::Usage(format!("the machine's description makes no sense: {e}")))?;
    Place::of_node(&read.namespace, read.holder)?.enter()?;
    cgroups::join(&read.groups)?;
    unshare(Own::Machine).map_err(LabError::ns("leave the namespaces for", &read.namespace))?;
    cgroups::settle(&read.groups)?;
    let spawn = |source| LabError::Spawn {
        program: "a machine's first process".to_owned(),
        source,
    };
    // Standard input and output lead to the daemon.
    let status = Command::new("/proc/self/exe")
        .args(["machine-init", spec])
        .status()
        .map_err(spawn)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A running machine, as the daemon holds it.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The first step, which is a process of the daemon.
    pub(crate) process: Process,
    /// pid 1 of it, as seen from outside.
    pub(crate) init: i32,
    pub(crate) spec: Spec,
    lines: Mutex<Lines>,
    child: Mutex<Child>,
}

#[derive(Debug)]
struct Lines {
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Machine {
    /// Starts one and waits until it can be given orders. `record` is told of the process as soon as there is one.
    pub(crate) fn start(
        spec: Spec,
        record: impl FnOnce(&Process) -> Result<(), LabError>,
    ) -> Result<Self, LabError> {
        let text = serde_json::to_string(&spec).map_err(|e| LabError::Refused(e.to_string()))?;
        let spawn = |source| LabError::Spawn {
            program: format!("the machine {}", spec.hostname),
            source,
        };
        let mut child = Command::new("/proc/self/exe")
            .args(["machine", &text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(spawn)?;
        let process = i32::try_from(child.id()).ok().and_then(Process::of);
        let (Some(orders), Some(replies), Some(process)) = (child.stdin.take(), child.stdout.take(), process)
        else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(&spec, "it ended at once; see the lab's log"));
        };
        let recorded = record(&process);
        let mut machine = Self {
            init: 0,
            process,
            lines: Mutex::new(Lines {
                orders,
                replies: BufReader::new(replies),
            }),
            child: Mutex::new(child),
            spec,
        };
        recorded?;
        let up: String = machine.reply()?;
        tracing::info!(machine = machine.spec.hostname, up, "machine up");
        machine.init = machine.first_child();
        Ok(machine)
    }

    /// The only child of the first step is pid 1.
    fn first_child(&self) -> i32 {
        let pid = self.process.pid;
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or_default()
    }

    /// Starts a program on it.
    pub(crate) fn start_program(&self, program: Program) -> Result<(), LabError> {
        self.order(&Order::Start { program })
    }

    /// Starts again a program that was started before and has ended.
    pub(crate) fn start_again(&self, name: &str) -> Result<(), LabError> {
        self.order(&Order::StartAgain {
            name: name.to_owned(),
        })
    }

    /// Ends a program by a signal and waits for it.
    pub(crate) fn end_program(&self, name: &str, signal: i32, limit: Duration) -> Result<(), LabError> {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.order(&Order::End {
            name: name.to_owned(),
            signal,
            limit_ms,
        })
    }

    /// Its programs.
    pub(crate) fn components(&self) -> Result<Vec<Component>, LabError> {
        self.order(&Order::Status)
    }

    fn order<T: DeserializeOwned>(&self, order: &Order) -> Result<T, LabError> {
        let mut line = serde_json::to_string(order).map_err(|e| LabError::Refused(e.to_string()))?;
        line.push('\n');
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |e: std::io::Error| failed(&self.spec, &format!("it is gone: {e}"));
        lines
            .orders
            .write_all(line.as_bytes())
            .and_then(|()| lines.orders.flush())
            .map_err(gone)?;
        read(&self.spec, &mut lines.replies)
    }

    fn reply<T: DeserializeOwned>(&self) -> Result<T, LabError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        read(&self.spec, &mut lines.replies)
    }

    /// Ends all that runs on it.
    pub(crate) fn stop(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read<T: DeserializeOwned>(spec: &Spec, from: &mut impl std::io::BufRead) -> Result<T, LabError> {
    let mut line = String::new();
    let said = from
        .read_line(&mut line)
        .map_err(LabError::socket("read from a machine"))?;
    if said == 0 {
        return Err(failed(spec, "it ended; see the lab's log"));
    }
    let nonsense = |e: serde_json::Error| failed(spec, &format!("it said what makes no sense: {e}: {line}"));
    match serde_json::from_str::<Reply>(&line).map_err(nonsense)? {
        Reply::Ok(value) => serde_json::from_value::<T>(value).map_err(nonsense),
        Reply::Error(why) => Err(failed(spec, &why)),
    }
}

fn failed(spec: &Spec, message: &str) -> LabError {
    LabError::Tool {
        program: format!("the machine {}", spec.hostname),
        namespace: spec.namespace.clone(),
        message: message.to_owned(),
    }
}

/// For replies without content.
pub(crate) fn nothing() -> Value {
    Value::Null
}
