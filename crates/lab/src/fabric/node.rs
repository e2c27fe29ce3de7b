//! A node: a network namespace and a mount namespace, kept by a process that does nothing else.
//!
//! In the node's mounts `/run/aws-node` (the original's socket and checkpoint have fixed paths there) and
//! `/var/log/aws-routed-eni` are its own, `/sys` shows its own links, and everything else is the machine's.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind,
    mount_bind_recursive, mount_change, move_mount, open_tree,
};

use super::netns::Place;
use crate::edge::{Own, unshare};
use crate::error::LabError;
use crate::process::Process;

/// Files of `/run` a node must have for itself even if the machine has them: a lock of iptables is per network
/// namespace in meaning.
const NOT_SHARED: &[&str] = &["aws-node", "xtables.lock"];

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its network namespace.
    pub namespace: String,
    /// The process that keeps its mount namespace.
    pub holder: Process,
    child: Child,
    // The holder ends when this end of its pipe closes, also when this process is killed.
    _lifeline: Option<ChildStdin>,
}

impl Node {
    /// Starts the holder in the namespace of that name, which exists. `logs` becomes `/var/log/aws-routed-eni`.
    ///
    /// # Errors
    /// When the holder cannot start or reports that a mount failed.
    pub fn start(namespace: &str, logs: &Path) -> Result<Self, LabError> {
        fs::create_dir_all(logs).map_err(LabError::file("create", logs))?;
        let spawn = |source| LabError::Spawn {
            program: "the node's holder".to_owned(),
            source,
        };
        let mut child = Command::new("/proc/self/exe")
            .arg("hold")
            .arg(namespace)
            .arg(logs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(spawn)?;
        let lifeline = child.stdin.take();
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(spawn)?;
        }
        let holder = i32::try_from(child.id()).ok().and_then(Process::of);
        match (line.trim(), holder) {
            ("ready", Some(holder)) => Ok(Self {
                namespace: namespace.to_owned(),
                holder,
                child,
                _lifeline: lifeline,
            }),
            (said, _) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(LabError::Tool {
                    program: "the node's holder".to_owned(),
                    namespace: namespace.to_owned(),
                    message: if said.is_empty() {
                        "it ended; see the lab's log".to_owned()
                    } else {
                        said.to_owned()
                    },
                })
            }
        }
    }

    /// Ends the holder, and with it the mount namespace when no other process is in it.
    pub fn stop(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The holder's whole life: enter, mount, say `ready`, wait until standard input ends.
///
/// # Errors
/// What could not be entered or mounted.
pub fn hold(namespace: &str, logs: &Path) -> Result<(), LabError> {
    Place::named(namespace)?.enter()?;
    unshare(Own::Mounts).map_err(LabError::ns("leave the mounts for", namespace))?;
    mounts(logs)?;
    let mut out = io::stdout();
    let said = writeln!(out, "ready").and_then(|()| out.flush());
    said.map_err(LabError::file("write", "standard output"))?;
    let mut nothing = Vec::new();
    io::stdin()
        .read_to_end(&mut nothing)
        .map_err(LabError::file("read", "standard input"))?;
    Ok(())
}

fn mounts(logs: &Path) -> Result<(), LabError> {
    // Slave, not private: pods' namespaces named later must show up here, as they do on a node.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(at("/"))?;
    own_sys()?;
    let logs = fs::canonicalize(logs).map_err(LabError::file("find", logs))?;
    overlay(
        Path::new("/run"),
        &[(OsString::from("aws-node"), None)],
        NOT_SHARED,
    )?;
    let var_run = Path::new("/var/run");
    if var_run.is_dir() && !var_run.is_symlink() {
        let shared = Some(PathBuf::from("/run/aws-node"));
        overlay(var_run, &[(OsString::from("aws-node"), shared)], NOT_SHARED)?;
    }
    overlay(
        Path::new("/var/log"),
        &[(OsString::from("aws-routed-eni"), Some(logs))],
        &["aws-routed-eni"],
    )
}

pub(crate) fn at(target: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> LabError {
    let target = target.into();
    move |e| LabError::Mount {
        target,
        source: e.into(),
    }
}

/// A `/sys` of this network namespace; control groups stay as they were, eBPF pins are the node's own.
fn own_sys() -> Result<(), LabError> {
    let cgroup = "/sys/fs/cgroup";
    let tree =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let cgroups = open_tree(CWD, cgroup, tree).ok();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("sysfs", "/sys", "sysfs", flags, None).map_err(at("/sys"))?;
    if let Some(tree) = cgroups {
        move_mount(&tree, "", CWD, cgroup, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(at(cgroup))?;
    }
    // Not every kernel has it, and only some agents need it.
    let _ = mount("bpf", "/sys/fs/bpf", "bpf", flags, None);
    Ok(())
}

/// Lays an empty tmpfs over `parent`, brings back what was there but `hidden`, and adds `own` directories: empty ones,
/// or bound from elsewhere. So nothing is made in the machine's `parent` itself.
pub(crate) fn overlay(
    parent: &Path,
    own: &[(OsString, Option<PathBuf>)],
    hidden: &[&str],
) -> Result<(), LabError> {
    // The descriptor still leads to what the tmpfs is going to cover.
    let old = open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(at(parent))?;
    let below = |name: &std::ffi::OsStr| under(&old, name);
    let entries = fs::read_dir(parent).map_err(LabError::file("read", parent))?;
    let entries: Vec<fs::DirEntry> = entries.flatten().collect();
    mount(
        "tmpfs",
        parent,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=0755"),
    )
    .map_err(at(parent))?;
    for entry in entries {
        let name = entry.file_name();
        if name.to_str().is_some_and(|n| hidden.contains(&n)) || own.iter().any(|(o, _)| *o == name) {
            continue;
        }
        bring_back(&below(&name), &parent.join(&name))?;
    }
    for (name, from) in own {
        let target = parent.join(name);
        fs::create_dir(&target).map_err(LabError::file("create", &target))?;
        if let Some(from) = from {
            mount_bind(from, &target).map_err(at(target))?;
        }
    }
    Ok(())
}

fn under(dir: &OwnedFd, name: &std::ffi::OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name)
}

fn bring_back(from: &Path, target: &Path) -> Result<(), LabError> {
    // What is gone since the directory was read needs no place here.
    let Ok(kind) = fs::symlink_metadata(from).map(|m| m.file_type()) else {
        return Ok(());
    };
    if kind.is_symlink() {
        let link = fs::read_link(from).map_err(LabError::file("read", from))?;
        return std::os::unix::fs::symlink(link, target).map_err(LabError::file("create", target));
    }
    let made = if kind.is_dir() {
        fs::create_dir(target)
    } else {
        fs::write(target, "")
    };
    made.map_err(LabError::file("create", target))?;
    match mount_bind_recursive(from, target) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => other.map_err(at(target)),
    }
}
