//! Running a program that reads from and writes to pipes: with what it says on stderr, and never for ever.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A transaction takes 9–13 ms; a machine on which it takes this long is stuck.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// How a program ended.
pub(crate) struct Output {
    pub(crate) ok: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Why a program gave no output.
pub(crate) enum Failure {
    /// It could not be run.
    Run(io::Error),
    /// It took longer than [`LIMIT`] and was ended.
    Stuck,
}

/// Runs it in the C locale, and hands `input` to it.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &OsStr,
    arguments: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Result<Output, Failure> {
    let mut child = start(program, arguments).map_err(Failure::Run)?;
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
        let status = child.wait().map_err(Failure::Run)?;
        if !in_time.map_err(Failure::Run)? {
            return Err(Failure::Stuck);
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

fn start<A: AsRef<OsStr>>(program: &OsStr, arguments: impl IntoIterator<Item = A>) -> io::Result<Child> {
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
