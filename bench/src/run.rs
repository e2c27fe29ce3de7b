//! One process from exec to exit, with what it cost.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one process cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
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
        cost: Cost { wall, cpu },
        stdout,
    })
}

/// The argument that makes this program weigh the command after it.
pub(crate) const WEIGH: &str = "weigh";

/// The same command, run by a fresh process of this program, which prints the command's peak to standard error.
///
/// The kernel counts what a process was before its exec into its peak, so a child of this process, grown by its measuring,
/// could not show a smaller peak than that. A fresh process is next to nothing.
pub(crate) fn weighed(command: &Command) -> io::Result<Command> {
    let mut outer = Command::new(std::env::current_exe()?);
    outer
        .arg(WEIGH)
        .arg(command.get_program())
        .args(command.get_args());
    outer.env_clear();
    outer.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    Ok(outer)
}

/// What `weighed` runs: the command with our standard input and output; its exit code is ours.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn weigh(program: &OsStr, arguments: &[OsString]) -> io::Result<bool> {
    let child = Command::new(program).args(arguments).spawn()?;
    let (status, usage) = wait4(child.id())?;
    eprintln!("{PEAK}{}", usage.ru_maxrss);
    Ok(status == 0)
}

const PEAK: &str = "peak_kib ";

/// Splits what a weighed command printed into its output and its peak, KiB.
///
/// # Errors
/// When no peak is in it.
pub(crate) fn peak(stdout: &[u8]) -> io::Result<(Vec<u8>, u64)> {
    let text = String::from_utf8_lossy(stdout);
    let at = text
        .rfind(PEAK)
        .ok_or_else(|| io::Error::other("no peak was printed"))?;
    let (output, last) = text.split_at(at);
    let kib = last
        .trim_start_matches(PEAK)
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    Ok((output.as_bytes().to_vec(), kib))
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
