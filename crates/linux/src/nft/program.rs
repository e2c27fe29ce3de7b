//! Running `nft -j`: with what it says on stderr, and never for ever.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nftables::schema::Nftables;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

/// A transaction takes 9–13 ms; a machine on which it takes this long is stuck.
const LIMIT: Duration = Duration::from_secs(20);

/// The table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The configuration would make a harmful table. Nothing was changed.
    #[error("the SNAT table was not written: {reason}")]
    Invalid {
        /// Why.
        reason: &'static str,
    },
    /// The program could not be run.
    #[error("cannot run {}: {source}; the package is named nftables", .program.display())]
    Run {
        /// The program.
        program: OsString,
        /// The system's answer.
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error("{} {action} took longer than {seconds} s and was ended", .program.display())]
    Stuck {
        /// The program.
        program: OsString,
        /// What it was to do.
        action: String,
        /// The limit.
        seconds: u64,
    },
    /// It failed. A transaction that fails changes nothing.
    #[error("{} {action} failed: {stderr}; it needs CAP_NET_ADMIN and a kernel with nf_tables", .program.display())]
    Failed {
        /// The program.
        program: OsString,
        /// What it was to do.
        action: String,
        /// What it said.
        stderr: String,
    },
    /// What it printed, or was to be told, is not JSON.
    #[error("{} {action}: the JSON cannot be used: {source}", .program.display())]
    Json {
        /// The program.
        program: OsString,
        /// What it was to do.
        action: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The `nft` program. Not run by the packet crate's own helper, which loses what is said on stderr and waits for ever.
#[derive(Debug)]
pub(super) struct Program(pub(super) OsString);

impl Program {
    /// Writes one transaction.
    pub(super) fn apply(&self, transaction: &Nftables<'_>) -> Result<(), NftError> {
        let action = "-j -f - (writing table ip vpcnet)";
        let json = serde_json::to_vec(transaction).map_err(|source| self.json(action, source))?;
        let output = self.run(["-j", "-f", "-"], action, &json)?;
        if output.ok {
            Ok(())
        } else {
            Err(self.failed(action, output.stderr))
        }
    }

    /// Lists one table of the family `ip`; none if there is none.
    pub(super) fn list_table(&self, table: &str) -> Result<Option<Value>, NftError> {
        let action = format!("-j list table ip {table}");
        let output = self.run(["-j", "list", "table", "ip", table], &action, b"")?;
        if output.ok {
            return serde_json::from_slice(&output.stdout)
                .map(Some)
                .map_err(|source| self.json(&action, source));
        }
        // The text of ENOENT; in the C locale, which `run` sets.
        if output.stderr.contains("No such file or directory") {
            return Ok(None);
        }
        Err(self.failed(&action, output.stderr))
    }

    fn json(&self, action: &str, source: serde_json::Error) -> NftError {
        NftError::Json {
            program: self.0.clone(),
            action: action.to_owned(),
            source,
        }
    }

    fn failed(&self, action: &str, stderr: String) -> NftError {
        NftError::Failed {
            program: self.0.clone(),
            action: action.to_owned(),
            stderr,
        }
    }

    fn run<const N: usize>(
        &self,
        arguments: [&str; N],
        action: &str,
        input: &[u8],
    ) -> Result<Output, NftError> {
        let fail = |source| NftError::Run {
            program: self.0.clone(),
            source,
        };
        let mut child = start(&self.0, arguments).map_err(fail)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            // Each pipe by its own thread: none can fill up while another is waited for. They end with the child.
            scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input)));
            let out = scope.spawn(move || read(stdout));
            let err = scope.spawn(move || read(stderr));
            let in_time = ends_in_time(&child);
            if !matches!(in_time, Ok(true)) {
                // Ended already, if this fails.
                let _ = child.kill();
            }
            let status = child.wait().map_err(fail)?;
            if !in_time.map_err(fail)? {
                let seconds = LIMIT.as_secs();
                return Err(NftError::Stuck {
                    program: self.0.clone(),
                    action: action.to_owned(),
                    seconds,
                });
            }
            let stderr = String::from_utf8_lossy(&err.join().unwrap_or_default())
                .trim()
                .to_owned();
            Ok(Output {
                ok: status.success(),
                stdout: out.join().unwrap_or_default(),
                stderr,
            })
        })
    }
}

struct Output {
    ok: bool,
    stdout: Vec<u8>,
    stderr: String,
}

fn start<const N: usize>(program: &OsStr, arguments: [&str; N]) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came before a failure is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

fn ends_in_time(child: &Child) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec::try_from(LIMIT).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    loop {
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Program("/nonexistent/nft".into()).list_table("x").unwrap_err();
        assert!(matches!(error, NftError::Run { .. }));
        assert!(error.to_string().contains("/nonexistent/nft"));
    }

    #[test]
    fn what_a_failing_program_says_is_passed_on() {
        // `ls` has no option -j, and says so.
        let error = Program("ls".into()).list_table("x").unwrap_err();
        assert!(matches!(error, NftError::Failed { .. }));
        let text = error.to_string();
        assert!(
            text.contains("list table ip x failed: ls: ") && text.contains("option"),
            "{text}"
        );
    }
}
