//! Agents of the nodes: started in the node's namespaces, watched until they end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::control::AgentStatus;
use crate::error::LabError;
use crate::fabric::netns::Place;
use crate::process::Process;

/// How long an agent may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// All agents of the lab, by node.
#[derive(Clone, Debug)]
pub(crate) struct Agents {
    program: PathBuf,
    logs: PathBuf,
    all: Arc<Mutex<BTreeMap<String, Agent>>>,
}

#[derive(Debug, Default)]
struct Agent {
    running: Option<Process>,
    starts: u32,
    ended: Option<String>,
}

impl Agents {
    pub(crate) fn new(program: &Path, logs: &Path) -> Self {
        Self {
            program: program.to_owned(),
            logs: logs.to_owned(),
            all: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Agent>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, node: &str) -> PathBuf {
        self.logs.join(format!("agent-{node}.log"))
    }

    /// Starts the node's agent with that environment and nothing else but PATH.
    pub(crate) fn start(&self, node: &str, place: &Place, env: &[(String, String)]) -> Result<(), LabError> {
        let mut all = self.lock();
        let agent = all.entry(node.to_owned()).or_default();
        if agent.running.as_ref().is_some_and(Process::alive) {
            return Err(LabError::Usage(format!("the agent of {node} runs already")));
        }
        let log = self.log(node);
        let file = fs::File::options()
            .append(true)
            .create(true)
            .open(&log)
            .map_err(LabError::file("open", &log))?;
        let spawn = |source| LabError::Spawn {
            program: self.program.display().to_string(),
            source,
        };
        let errors = file.try_clone().map_err(spawn)?;
        let mut child = place.run(|| {
            Command::new(&self.program)
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .envs(env.iter().map(|(k, v)| (k, v)))
                .stdin(Stdio::null())
                .stdout(file)
                .stderr(errors)
                .spawn()
                .map_err(spawn)
        })?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let Some(process) = Process::of(pid) else {
            let _ = child.wait();
            return Err(LabError::Tool {
                program: self.program.display().to_string(),
                namespace: place.name().to_owned(),
                message: format!("it ended at once; see {}", log.display()),
            });
        };
        agent.running = Some(process.clone());
        agent.starts += 1;
        agent.ended = None;
        drop(all);
        self.watch(node, process, child)
    }

    /// Reaps the agent when it ends and notes how.
    fn watch(&self, node: &str, process: Process, mut child: Child) -> Result<(), LabError> {
        let (agents, node) = (self.clone(), node.to_owned());
        let wait = move || {
            let how = child.wait().map_or_else(|e| e.to_string(), describe);
            tracing::info!(node, how, "agent ended");
            if let Some(agent) = agents.lock().get_mut(&node)
                && agent.running.as_ref() == Some(&process)
            {
                agent.running = None;
                agent.ended = Some(how);
            }
        };
        std::thread::Builder::new()
            .spawn(wait)
            .map(drop)
            .map_err(LabError::socket("watch the agent"))
    }

    /// Ends the node's agent, by SIGTERM or SIGKILL, and waits for it.
    pub(crate) fn end(&self, node: &str, signal: Signal) -> Result<(), LabError> {
        let running = self.lock().get(node).and_then(|a| a.running.clone());
        let Some(process) = running.filter(Process::alive) else {
            return Err(LabError::Usage(format!("the agent of {node} does not run")));
        };
        process.signal(signal);
        if process.wait_end(GRACE) {
            return Ok(());
        }
        let what = format!(
            "the end of the agent of {node} (process {}) after {signal:?}",
            process.pid
        );
        Err(LabError::TooLate {
            what,
            seconds: GRACE.as_secs(),
            log: self.log(node),
        })
    }

    /// Ends all agents side by side; those that do not end are left to `down`.
    pub(crate) fn end_all(&self) {
        let running: Vec<Process> = self.lock().values().filter_map(|a| a.running.clone()).collect();
        for process in &running {
            process.signal(Signal::TERM);
        }
        for process in &running {
            process.end(Duration::from_secs(3));
        }
    }

    pub(crate) fn status(&self, node: &str) -> AgentStatus {
        let all = self.lock();
        let log = self.log(node).display().to_string();
        let Some(agent) = all.get(node) else {
            return AgentStatus {
                log,
                ..AgentStatus::default()
            };
        };
        let pid = agent.running.as_ref().filter(|p| p.alive()).map(|p| p.pid);
        AgentStatus {
            pid,
            starts: agent.starts,
            ended: agent.ended.clone(),
            log,
        }
    }

    pub(crate) fn forget(&self, node: &str) {
        self.lock().remove(node);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}
