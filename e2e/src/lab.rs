//! A lab that lives as long as a value.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::bin::binary;

/// A lab command that failed, with all it said.
#[derive(Debug, thiserror::Error)]
#[error("vpcnet-lab {command}: exit code {code:?}\nstdout: {stdout}\nstderr: {stderr}")]
pub struct Failure {
    /// Its arguments.
    pub command: String,
    /// Its exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

/// What a lab is brought up with: the options of `vpcnet-lab up`.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// Passed on as they are.
    pub arguments: &'a [&'a str],
    /// `KEY=VALUE` of the agents.
    pub env: &'a [&'a str],
}

/// One lab at a time: two cores do not carry several, and deadlines would tell of the machine and not of vpcnet.
static TURN: Mutex<()> = Mutex::new(());

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    // Dropped after `drop` has taken the lab down.
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// Brings a lab up.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn up(options: &Options<'_>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            directory: PathBuf::from(format!("/run/vt{}-{number}", std::process::id())),
            // A test that failed has taken its lab down all the same.
            _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let mut arguments = vec!["up"];
        arguments.extend(options.arguments);
        for pair in options.env {
            arguments.extend(["--env", pair]);
        }
        lab.run(&arguments);
        lab
    }

    /// Its state directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command of this lab, to be started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("vpcnet-lab"));
        command.env("VPCNET_LAB_DIR", &self.directory).args(arguments);
        command
    }

    /// Runs a lab command and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started or ends with another code than 0.
    pub fn try_run(&self, arguments: &[&str]) -> Result<String, Failure> {
        let command = arguments.join(" ");
        match self.command(arguments).output() {
            Err(e) => Err(Failure {
                command,
                code: None,
                stdout: String::new(),
                stderr: e.to_string(),
            }),
            Ok(Output {
                status,
                stdout,
                stderr,
            }) => {
                let stdout = String::from_utf8_lossy(&stdout).into_owned();
                if status.success() {
                    return Ok(stdout);
                }
                let stderr = String::from_utf8_lossy(&stderr).into_owned();
                Err(Failure {
                    command,
                    code: status.code(),
                    stdout,
                    stderr,
                })
            }
        }
    }

    /// Like [`Self::try_run`], for what must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Runs a lab command that prints JSON.
    ///
    /// # Panics
    /// When it fails or prints something else.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.run(arguments);
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {printed}"))
    }

    /// The last lines of every log of this lab, for a failure's message.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut out = String::new();
        let Ok(entries) = std::fs::read_dir(self.directory.join("log")) else {
            return out;
        };
        for entry in entries.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(30).collect();
            out.push_str(&format!("--- {}\n", entry.path().display()));
            for line in lines.iter().rev() {
                out.push_str(line);
                out.push('\n');
            }
        }
        out
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if let Err(e) = self.try_run(&["down"]) {
            eprintln!("{e}");
        }
    }
}
