//! The agent as a child: signals go to it, and its end is ours.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

/// Shells' way to tell of an end by a signal.
const BY_SIGNAL: i32 = 128;

/// Signals that are passed on.
pub(super) struct Signals {
    terminate: Listener,
    interrupt: Listener,
    hang_up: Listener,
    quit: Listener,
    user_1: Listener,
    user_2: Listener,
}

impl Signals {
    /// From here on they no longer end this process.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.hang_up.recv() => Signal::HUP,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.user_1.recv() => Signal::USR1,
            _ = self.user_2.recv() => Signal::USR2,
        }
    }
}

/// The running agent.
pub(super) struct Agent {
    child: Child,
    signals: Signals,
}

impl Agent {
    /// Starts it with our environment and standard streams.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start(program: &Path, signals: Signals) -> io::Result<Self> {
        let child = Command::new(program).spawn()?;
        Ok(Self { child, signals })
    }

    /// Passes signals on until it ends. May be given up and called again.
    pub(super) async fn ended(&mut self) -> ExitCode {
        loop {
            tokio::select! {
                status = self.child.wait() => return exit_code(status),
                signal = self.signals.next() => {
                    let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
                    if let Some(pid) = pid {
                        // It is gone already if this fails, and the next turn hears of it.
                        let _ = kill_process(pid, signal);
                    }
                }
            }
        }
    }
}

fn exit_code(status: io::Result<ExitStatus>) -> ExitCode {
    let code = match status {
        Ok(status) => status
            .code()
            .or_else(|| status.signal().map(|n| BY_SIGNAL.saturating_add(n))),
        Err(_) => None,
    };
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_exit_code_is_ours() {
        let code = |raw| format!("{:?}", exit_code(Ok(ExitStatus::from_raw(raw))));
        let is = |n| format!("{:?}", ExitCode::from(n));
        assert_eq!(code(0), is(0));
        assert_eq!(code(3 << 8), is(3));
        assert_eq!(code(9), is(137));
    }
}
