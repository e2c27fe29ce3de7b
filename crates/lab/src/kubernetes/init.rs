//! pid 1 of a machine: mounts what is the machine's own, starts and ends programs as it is told on standard input, and reaps.
//!
//! One JSON line there, one back. It ends when its standard input does, and the kernel then kills all that runs on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, set_parent_process_death_signal, wait,
    waitid,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machine::{Spec, nothing};
use super::mounts;
use super::programs::PATH;
use crate::error::LabError;

/// A program to run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Program {
    /// What it is called in orders and in the status.
    pub name: String,
    /// Its file; without a slash it is looked for in the PATH.
    pub file: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where its words are appended to.
    pub log: PathBuf,
}

/// What pid 1 is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Start a program; one of that name must not run.
    Start {
        /// It.
        program: Program,
    },
    /// Start a program as it was started last.
    StartAgain {
        /// Its name.
        name: String,
    },
    /// Signal a program and wait until it has ended.
    End {
        /// Its name.
        name: String,
        /// The signal's number.
        signal: i32,
        /// How long to wait.
        limit_ms: u64,
    },
    /// → [`Component`]s.
    Status,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// It was done.
    Ok(Value),
    /// It was not, and why.
    Error(String),
}

/// A program of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its process on the machine while it runs.
    pub pid: Option<i32>,
    /// How often it was started.
    pub starts: u32,
    /// How it ended, when it did.
    pub ended: Option<String>,
    /// Its log.
    pub log: PathBuf,
}

#[derive(Debug)]
struct Entry {
    program: Program,
    pid: Option<Pid>,
    starts: u32,
    ended: Option<String>,
}

#[derive(Debug, Default)]
struct Programs {
    all: Mutex<BTreeMap<String, Entry>>,
    /// Told when a program was started or has ended.
    changed: Condvar,
}

/// The whole life of pid 1.
///
/// # Errors
/// What could not be mounted or read.
pub(crate) fn run(spec: &str) -> Result<(), LabError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| LabError::ns("tie a machine to", "its keeper")(e.into()))?;
    let spec: Spec = serde_json::from_str(spec)
        .map_err(|e| LabError::Usage(format!("the machine's description makes no sense: {e}")))?;
    let made = prepare(&spec);
    let failed = made.is_err();
    say(&match made {
        Ok(()) => Reply::Ok(Value::from("up")),
        Err(e) => Reply::Error(e.to_string()),
    });
    if failed {
        return Ok(());
    }
    let programs = Arc::new(Programs::default());
    let reaper = programs.clone();
    std::thread::Builder::new()
        .spawn(move || reaper.reap())
        .map_err(LabError::socket("start the reaper"))?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(LabError::file("read", "standard input"))?;
        let reply = match serde_json::from_str::<Order>(&line) {
            Ok(order) => programs.carry_out(order),
            Err(e) => Err(format!("an order makes no sense: {e}")),
        };
        say(&reply.map_or_else(Reply::Error, Reply::Ok));
    }
    Ok(())
}

fn prepare(spec: &Spec) -> Result<(), LabError> {
    let name = "/proc/sys/kernel/hostname";
    fs::write(name, &spec.hostname).map_err(LabError::file("write", name))?;
    mounts::of_machine(spec)
}

fn say(reply: &Reply) {
    let text = serde_json::to_string(reply).unwrap_or_default();
    let mut out = io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

impl Programs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, order: Order) -> Result<Value, String> {
        match order {
            Order::Start { program } => self.start(program).map(|()| nothing()),
            Order::StartAgain { name } => {
                let before = self.lock().get(&name).map(|e| e.program.clone());
                self.start(before.ok_or_else(|| self.unknown(&name))?)
                    .map(|()| nothing())
            }
            Order::End {
                name,
                signal,
                limit_ms,
            } => self
                .end(&name, signal, Duration::from_millis(limit_ms))
                .map(|()| nothing()),
            Order::Status => serde_json::to_value(self.components()).map_err(|e| e.to_string()),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<String> = self.lock().keys().cloned().collect();
        format!(
            "no program '{name}' was started here; there are: {}",
            known.join(", ")
        )
    }

    fn start(&self, program: Program) -> Result<(), String> {
        // Held until the child is on the list: the reaper takes nothing meanwhile, neither from here nor from the spawning.
        let mut all = self.lock();
        if all.get(&program.name).is_some_and(|e| e.pid.is_some()) {
            return Err(format!("{} runs already", program.name));
        }
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(&program.log)
            .map_err(|e| format!("cannot open {}: {e}", program.log.display()))?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        let child = Command::new(&program.file)
            .args(&program.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // What is typed at a terminal is not for it.
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", program.file.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let starts = all.get(&program.name).map_or(0, |e| e.starts) + 1;
        all.insert(
            program.name.clone(),
            Entry {
                program,
                pid,
                starts,
                ended: None,
            },
        );
        self.changed.notify_all();
        Ok(())
    }

    fn end(&self, name: &str, signal: i32, limit: Duration) -> Result<(), String> {
        let signal = Signal::from_named_raw(signal).ok_or_else(|| format!("there is no signal {signal}"))?;
        let mut all = self.lock();
        let Some(entry) = all.get(name) else {
            drop(all);
            return Err(self.unknown(name));
        };
        let Some(pid) = entry.pid else {
            return Err(format!("{name} does not run"));
        };
        kill_process(pid, signal).map_err(|e| format!("cannot signal {name}: {e}"))?;
        let end = Instant::now() + limit;
        while all.get(name).is_some_and(|e| e.pid == Some(pid)) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!(
                    "{name} still runs {} ms after the signal",
                    limit.as_millis()
                ));
            }
            let waited = self.changed.wait_timeout(all, left);
            all = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn components(&self) -> Vec<Component> {
        let all = self.lock();
        all.values()
            .map(|e| Component {
                name: e.program.name.clone(),
                pid: e.pid.map(|p| p.as_raw_nonzero().get()),
                starts: e.starts,
                ended: e.ended.clone(),
                log: e.program.log.clone(),
            })
            .collect()
    }

    /// Takes what has ended, for ever: its own programs, and what they left to pid 1.
    fn reap(&self) {
        loop {
            // Only looks: the child is taken under the lock, so that one that ends while it is being started is not missed.
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            match waitid(WaitId::All, look) {
                Ok(_) => self.take_ended(),
                Err(rustix::io::Errno::CHILD) => {
                    let all = self.lock();
                    // Nothing has been started yet, or nothing is left. Orphans come only of what was started.
                    let again = self.changed.wait_timeout(all, Duration::from_secs(1));
                    drop(again.unwrap_or_else(PoisonError::into_inner));
                }
                // Interrupted.
                Err(_) => {}
            }
        }
    }

    fn take_ended(&self) {
        let mut all = self.lock();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(entry) = all.values_mut().find(|e| e.pid == Some(pid)) {
                entry.pid = None;
                entry.ended = Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (_, Some(signal)) => format!("signal {signal}"),
                    _ => "for an unknown reason".to_owned(),
                });
            }
        }
        self.changed.notify_all();
    }
}
