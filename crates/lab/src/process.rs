//! Processes known by more than their number: a pid is taken again after its process has gone, so each record also
//! holds the start time, and signals go through a pidfd that was compared with it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

/// A process of this boot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc(5), field 22 of `stat`).
    pub start: u64,
    /// The boot it belongs to.
    pub boot: String,
}

impl Process {
    /// The process with that number now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            start: start_time(pid)?,
            boot: boot_id()?,
        })
    }

    /// This process.
    #[must_use]
    pub fn current() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    /// True while it runs; a zombie has ended.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.pidfd().is_some() && !zombie(self.pid)
    }

    /// Sends a signal; false when it has already gone.
    pub fn signal(&self, signal: Signal) -> bool {
        self.pidfd()
            .is_some_and(|fd| pidfd_send_signal(fd, signal).is_ok())
    }

    /// Waits until it has ended; false when it still runs after `limit`.
    #[must_use]
    pub fn wait_end(&self, limit: Duration) -> bool {
        let Some(fd) = self.pidfd() else { return true };
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(n) if n > 0 => return true,
                Err(e) if e != rustix::io::Errno::INTR => return !self.alive(),
                _ if left.is_zero() => return false,
                _ => {}
            }
        }
    }

    /// Asks it to end, and after `grace` makes it. False when even that did not help.
    pub fn end(&self, grace: Duration) -> bool {
        if self.signal(Signal::TERM) && self.wait_end(grace) {
            return true;
        }
        !self.signal(Signal::KILL) || self.wait_end(Duration::from_secs(5))
    }

    fn pidfd(&self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Compared after opening: from here on the descriptor cannot come to mean another process.
        (start_time(self.pid)? == self.start && boot_id()? == self.boot).then_some(fd)
    }
}

/// All processes whose main thread is in the network namespace of that file, by inode and device of the file.
#[must_use]
pub fn in_namespace(file: &std::path::Path) -> Vec<Process> {
    let Ok(wanted) = fs::metadata(file).map(|m| identity(&m)) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| identity(&m) == wanted))
        .filter_map(Process::of)
        .collect()
}

fn identity(m: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (m.dev(), m.ino())
}

fn stat_fields(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold anything, also blanks and parentheses.
    Some(stat.rsplit_once(')')?.1.to_owned())
}

fn start_time(pid: i32) -> Option<u64> {
    stat_fields(pid)?.split_whitespace().nth(19)?.parse().ok()
}

fn zombie(pid: i32) -> bool {
    stat_fields(pid).is_none_or(|rest| matches!(rest.split_whitespace().next(), Some("Z" | "X")))
}

fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .map(|s| s.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_is_not_taken_for_the_recorded_process() {
        let me = Process::current().unwrap();
        assert!(me.alive());
        let other = Process {
            start: me.start + 1,
            ..me.clone()
        };
        assert!(!other.alive());
        assert!(
            !other.signal(Signal::KILL),
            "a signal went to a process that was not meant"
        );
        let other_boot = Process {
            boot: "another".to_owned(),
            ..me
        };
        assert!(!other_boot.alive());
    }

    #[test]
    fn ending_a_process_waits_until_it_has_gone() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let p = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(p.alive());
        assert!(p.end(Duration::from_secs(20)));
        assert!(!p.alive());
        child.wait().unwrap();
    }

    #[test]
    fn this_process_is_found_in_its_own_namespace() {
        let found = in_namespace(std::path::Path::new("/proc/self/ns/net"));
        assert!(found.contains(&Process::current().unwrap()));
    }
}
