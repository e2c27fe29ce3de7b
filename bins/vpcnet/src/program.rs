//! Running a program and hearing what it says, for a bounded time.

use std::ffi::OsStr;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs it, hands `input` to it, and returns what it says.
///
/// # Errors
/// It cannot be run; [`io::ErrorKind::TimedOut`] when it takes longer than `limit`: it is ended then.
pub(crate) async fn run(command: &mut Command, input: &[u8], limit: Duration) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let all = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its input says by its answer what it thinks of that.
                let _ = stdin.write_all(input).await;
            }
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        output
    };
    tokio::time::timeout(limit, all).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s; it was ended", limit.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// A plugin, asked as a container runtime asks: nothing of our environment but what it needs to find others.
pub(crate) fn plugin(program: impl AsRef<OsStr>, verb: &str, directory: &OsStr) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_PATH", directory);
    command
}
