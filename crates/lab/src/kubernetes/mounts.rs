//! The file system of a machine: the computer's own, with everything of its own that Kubernetes' programs write to, at the usual
//! paths. Two machines meet in no file, and nothing is made on the computer itself.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_change,
    move_mount, open_tree,
};

use super::machine::Spec;
use crate::error::LabError;
use crate::fabric::node::{at, overlay};

/// Directories with a copy of their own, of which only the differences are kept: network configurations and plugins lie in them.
const COPIED: &[&str] = &["/etc", "/opt"];

/// What containerd, the kubelet and plugins keep, by the directory's name on the machine's disk.
const KEPT: &[(&str, &str)] = &[
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
    ("cni", "/var/lib/cni"),
    ("pod-logs", "/var/log/pods"),
    ("container-logs", "/var/log/containers"),
];

/// What the node has in `/run` and shares with the machine on top of it, so that an agent that the lab starts in the node and the
/// plugin that containerd starts on the machine meet.
const SHARED_RUN: &[&str] = &["aws-node", "xtables.lock"];

/// Settings of the whole computer that the kubelet sets; on a machine they are files of its own with the values it wants.
const SYSCTLS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

const NO_PROGRAMS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Mounts all of it, in a mount namespace that is the machine's own already.
pub(super) fn of_machine(spec: &Spec) -> Result<(), LabError> {
    // What is mounted here must not show in the node; what pods mount must show on the machine where they ask for it.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(at("/"))?;
    mount("proc", "/proc", "proc", NO_PROGRAMS, None).map_err(at("/proc"))?;
    if spec.runs_containers() {
        cgroups(&spec.groups)?;
        run(spec)?;
        disk(spec)?;
        sysctls()?;
        plugins(&spec.plugins)?;
    }
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared).map_err(at("/"))
}

/// The control groups as this namespace sees them: the machine's own as roots.
fn cgroups(groups: &[super::cgroups::Group]) -> Result<(), LabError> {
    let root = Path::new("/sys/fs/cgroup");
    if groups.iter().any(|g| g.unified) {
        return mount("cgroup2", root, "cgroup2", NO_PROGRAMS, None).map_err(at(root));
    }
    let entries = fs::read_dir(root).map_err(LabError::file("read", root))?;
    // Links (`cpu` to `cpu,cpuacct`) stand for directories that are listed, too.
    let all: Vec<(OsString, Option<PathBuf>)> = entries
        .flatten()
        .map(|e| (e.file_name(), fs::read_link(e.path()).ok()))
        .collect();
    mount("tmpfs", root, "tmpfs", NO_PROGRAMS, Some(c"mode=0755")).map_err(at(root))?;
    for (name, link) in all {
        let target = root.join(&name);
        if let Some(link) = link {
            std::os::unix::fs::symlink(link, &target).map_err(LabError::file("create", target))?;
            continue;
        }
        fs::create_dir(&target).map_err(LabError::file("create", &target))?;
        match name.to_str().unwrap_or_default() {
            "unified" => mount("cgroup2", &target, "cgroup2", NO_PROGRAMS, None),
            "systemd" => mount(
                "cgroup",
                &target,
                "cgroup",
                NO_PROGRAMS,
                Some(c"none,name=systemd"),
            ),
            controllers => mount(
                "cgroup",
                &target,
                "cgroup",
                NO_PROGRAMS,
                Some(option(controllers)?.as_c_str()),
            ),
        }
        .map_err(at(target))?;
    }
    Ok(())
}

fn option(text: &str) -> Result<CString, LabError> {
    CString::new(text).map_err(|_| LabError::Usage(format!("'{text}' cannot be a mount's option")))
}

/// An empty `/run`, but for what the machine shares with the node and the lab.
fn run(spec: &Spec) -> Result<(), LabError> {
    let run = Path::new("/run");
    let lock = run.join("xtables.lock");
    fs::File::options()
        .append(true)
        .create(true)
        .open(&lock)
        .map_err(LabError::file("create", &lock))?;
    let shared = SHARED_RUN.iter().map(|name| run.join(name));
    let logs = spec.logs.starts_with(run).then(|| spec.logs.clone());
    let mut kept = Vec::new();
    for path in shared.chain(logs) {
        kept.push((tree(&path)?, path));
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", run, "tmpfs", flags, Some(c"mode=0755")).map_err(at(run))?;
    for (tree, path) in kept {
        put_back(&tree, &path)?;
    }
    let lock = run.join("lock");
    fs::create_dir(&lock).map_err(LabError::file("create", &lock))?;
    let var_run = Path::new("/var/run");
    if var_run.is_dir() && !var_run.is_symlink() {
        mount_bind("/run", var_run).map_err(at(var_run))?;
        for name in SHARED_RUN {
            let (from, to) = (run.join(name), var_run.join(name));
            mount_bind(from, &to).map_err(at(to))?;
        }
    }
    Ok(())
}

/// The mount at `path`, with those below it, to be put somewhere else.
fn tree(path: &Path) -> Result<OwnedFd, LabError> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(at(path))
}

fn put_back(tree: &OwnedFd, target: &Path) -> Result<(), LabError> {
    let proc = Path::new("/proc/self/fd").join(tree.as_raw_fd().to_string());
    if fs::metadata(&proc).is_ok_and(|m| m.is_dir()) {
        fs::create_dir_all(target).map_err(LabError::file("create", target))?;
    } else {
        fs::write(target, "").map_err(LabError::file("create", target))?;
    }
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(at(target))
}

fn disk(spec: &Spec) -> Result<(), LabError> {
    for path in COPIED {
        let name = path.trim_start_matches('/');
        let (upper, work) = (
            spec.disk.join(name).join("upper"),
            spec.disk.join(name).join("work"),
        );
        for made in [&upper, &work] {
            fs::create_dir_all(made).map_err(LabError::file("create", made))?;
        }
        let options = option(&format!(
            "lowerdir={path},upperdir={},workdir={}",
            upper.display(),
            work.display()
        ))?;
        mount(
            "overlay",
            *path,
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .map_err(at(*path))?;
    }
    // Opened before it is covered: the disk may lie below.
    let disk = open(
        &spec.disk,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(at(&spec.disk))?;
    let disk = Path::new("/proc/self/fd").join(disk.as_raw_fd().to_string());
    let own: Vec<(OsString, Option<PathBuf>)> = KEPT
        .iter()
        .filter_map(|(_, path)| Some((OsString::from(path.strip_prefix("/var/lib/")?), None)))
        .collect();
    overlay(Path::new("/var/lib"), &own, &[])?;
    for (name, path) in KEPT {
        let (from, target) = (disk.join(name), Path::new(path));
        for made in [from.as_path(), target] {
            fs::create_dir_all(made).map_err(LabError::file("create", made))?;
        }
        mount_bind(&from, target).map_err(at(target))?;
    }
    Ok(())
}

fn sysctls() -> Result<(), LabError> {
    let own = Path::new("/run/sysctls");
    for (name, value) in SYSCTLS {
        let (file, target) = (own.join(name), Path::new("/proc/sys").join(name));
        if !target.exists() {
            continue;
        }
        if let Some(above) = file.parent() {
            fs::create_dir_all(above).map_err(LabError::file("create", above))?;
        }
        fs::write(&file, value).map_err(LabError::file("write", &file))?;
        mount_bind(&file, &target).map_err(at(target))?;
    }
    // As the kubelet asks of a node; of this network namespace alone.
    let forward = "/proc/sys/net/ipv4/ip_forward";
    fs::write(forward, "1").map_err(LabError::file("write", forward))
}

/// The CNI project's plugins where a node's image has them, and the directory of network configurations, empty.
fn plugins(from: &Path) -> Result<(), LabError> {
    let (bin, configurations) = (Path::new("/opt/cni/bin"), Path::new("/etc/cni/net.d"));
    for made in [bin, configurations] {
        fs::create_dir_all(made).map_err(LabError::file("create", made))?;
    }
    // What the computer itself has configured is not for this machine.
    let old = fs::read_dir(configurations).map_err(LabError::file("read", configurations))?;
    for entry in old.flatten() {
        fs::remove_file(entry.path()).map_err(LabError::file("remove", entry.path()))?;
    }
    let found = fs::read_dir(from).map_err(LabError::file("read", from))?;
    for entry in found.flatten() {
        let target = bin.join(entry.file_name());
        if !target.exists() {
            std::os::unix::fs::symlink(entry.path(), &target).map_err(LabError::file("create", target))?;
        }
    }
    Ok(())
}
