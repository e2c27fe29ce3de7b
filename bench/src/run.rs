//! One process from exec to exit, with what it cost.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one process cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Largest resident set, KiB (`ru_maxrss`).
    pub(crate) peak_kib: i64,
}

/// A finished process.
pub(crate) struct Finished {
    pub(crate) cost: Cost,
    pub(crate) stdout: Vec<u8>,
}

/// Runs `command` with `stdin`, and waits for it. Standard input and output are files, so that no pipe is in the measure.
///
/// # Errors
/// When it cannot be started, or ends with another code than 0: then with what it printed.
pub(crate) fn measure(command: &mut Command, stdin: &[u8]) -> io::Result<Finished> {
    let mut input = memory_file("stdin")?;
    input.write_all(stdin)?;
    input.seek(SeekFrom::Start(0))?;
    let mut output = memory_file("stdout")?;
    command
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(output.try_clone()?));
    let start = Instant::now();
    let child = command.spawn()?;
    let (status, usage) = wait4(child.id())?;
    let wall = start.elapsed();
    let mut stdout = Vec::new();
    output.seek(SeekFrom::Start(0))?;
    output.read_to_end(&mut stdout)?;
    if status != 0 {
        let said = String::from_utf8_lossy(&stdout);
        return Err(io::Error::other(format!(
            "{command:?} ended with wait status {status:#x}: {said}"
        )));
    }
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    Ok(Finished {
        cost: Cost {
            wall,
            cpu,
            peak_kib: usage.ru_maxrss,
        },
        stdout,
    })
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map(File::from)?)
}

fn duration(t: libc::timeval) -> Duration {
    Duration::from_secs(t.tv_sec.unsigned_abs()) + Duration::from_micros(t.tv_usec.unsigned_abs())
}

fn wait4(pid: u32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live, writable values of the types the call expects; the child is ours, and nobody
    // else waits for it: `std::process::Child` does not on drop.
    match unsafe { libc::wait4(pid as libc::pid_t, &raw mut status, 0, &raw mut usage) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok((status, usage)),
    }
}
