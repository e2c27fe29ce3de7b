//! `lab down`: removes everything on record, whether the daemon lives, has crashed, or was killed.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::need_root;
use crate::error::LabError;
use crate::fabric::netns;
use crate::kubernetes;
use crate::pods;
use crate::process::{Process, in_namespace};
use crate::state::{Dir, Records};

/// How long the daemon may take to end its agents and itself.
const DAEMON_GRACE: Duration = Duration::from_secs(8);
/// How long processes may take to go after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn run(dir: &Dir) -> Result<(), LabError> {
    need_root()?;
    if remove(dir)? {
        println!(
            "The lab in {} is gone: its processes, namespaces, interfaces and files.",
            dir.path().display()
        );
    } else {
        println!("No lab is up in {}.", dir.path().display());
    }
    Ok(())
}

/// Removes the lab; false when there was none. Goes on past failures and returns the first.
pub(super) fn remove(dir: &Dir) -> Result<bool, LabError> {
    let Some(made) = Records::load(dir)? else {
        if dir.path().exists() {
            dir.remove()?;
        }
        return Ok(false);
    };
    let mut first = None;
    let mut note = |r: Result<(), LabError>| {
        if let Err(e) = r {
            eprintln!("vpcnet lab: {e}");
            first.get_or_insert(e);
        }
    };
    // Agents and daemon first: they would make new things while the old ones go.
    if let Some(daemon) = &made.daemon {
        daemon.end(DAEMON_GRACE);
    }
    // What the record says now, as the daemon may have written it while ending.
    let made = Records::load(dir)?.unwrap_or(made);
    let mut namespaces = made.namespaces.clone();
    namespaces.extend(pods::list(dir).unwrap_or_default().into_iter().map(|p| p.netns));
    note(end_processes(&namespaces, &made.processes));
    note(kubernetes::remove(&made.groups, &made.disks));
    for name in &namespaces {
        note(netns::delete(name));
    }
    if made.netns_dir {
        netns::remove_dir_if_empty();
    }
    match first {
        // The record stays, so that another `down` finds what is left.
        Some(e) => Err(e),
        None => dir.remove().map(|()| true),
    }
}

/// Ends all processes in the namespaces: agents, holders, shells, whatever was started there, on record or not.
fn end_processes(namespaces: &[String], recorded: &[(String, Process)]) -> Result<(), LabError> {
    let start = Instant::now();
    let own = std::process::id();
    loop {
        let inside = namespaces
            .iter()
            .flat_map(|name| in_namespace(&netns::path(name)));
        let recorded = recorded.iter().map(|(_, p)| p.clone()).filter(Process::alive);
        let left: Vec<Process> = inside
            .chain(recorded)
            .filter(|p| u32::try_from(p.pid) != Ok(own) && p.alive())
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > KILL_LIMIT {
            let pids: Vec<String> = left.iter().map(|p| p.pid.to_string()).collect();
            return Err(LabError::Refused(format!(
                "processes {} do not end; run 'down' again",
                pids.join(", ")
            )));
        }
        for process in &left {
            process.signal(Signal::KILL);
        }
        for process in &left {
            // One that is slow is looked at again in the next round.
            let _ = process.wait_end(Duration::from_secs(1));
        }
    }
}
