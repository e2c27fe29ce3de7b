//! A node's control groups: one below this process's own in every hierarchy, so that its kubelet finds a root of its own.
//!
//! Version 1 has a hierarchy for each controller, and what this process is in may be different in each. Version 2 has one, and there a
//! group with processes of its own cannot hand controllers on to groups below it; so the node's group is made below the root, and
//! the processes of the node move into one below that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::LabError;

const ROOT: &str = "/sys/fs/cgroup";

/// Where the node's own processes are in version 2.
const LEAF: &str = "supervisor";

/// How long groups may take to become empty after their processes were killed.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// A group for one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Its directory.
    pub path: PathBuf,
    /// Whether it is of version 2, with controllers.
    pub unified: bool,
}

/// The groups of a node called `name`, below those of this process.
///
/// # Errors
/// [`LabError::File`] when this process's own groups cannot be read.
pub(crate) fn of_node(name: &str) -> Result<Vec<Group>, LabError> {
    let own = "/proc/self/cgroup";
    let text = fs::read_to_string(own).map_err(LabError::file("read", own))?;
    let only_v2 = Path::new(ROOT).join("cgroup.controllers").exists();
    Ok(plan(&text, name, only_v2, |p| p.is_dir()))
}

/// From the lines of `/proc/self/cgroup`, `number:controllers:path` (cgroups(7)).
fn plan(text: &str, name: &str, only_v2: bool, is_dir: impl Fn(&Path) -> bool) -> Vec<Group> {
    let root = Path::new(ROOT);
    if only_v2 {
        return vec![Group {
            path: root.join(name),
            unified: true,
        }];
    }
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let hierarchy = match controllers.strip_prefix("name=").unwrap_or(controllers) {
            "" => "unified",
            some => some,
        };
        let hierarchy = root.join(hierarchy);
        is_dir(&hierarchy).then(|| Group {
            path: hierarchy.join(path.trim_start_matches('/')).join(name),
            unified: false,
        })
    };
    text.lines().filter_map(group).collect()
}

/// Makes the groups and moves this process into them.
pub(crate) fn join(groups: &[Group]) -> Result<(), LabError> {
    for Group { path, .. } in groups {
        fs::create_dir_all(path).map_err(LabError::file("create", path))?;
        inherit_cpuset(path)?;
        enter(path)?;
    }
    Ok(())
}

/// To be called after [`join`] and after the cgroup namespace was left for an own one, whose root is thus the node's group.
pub(crate) fn settle(groups: &[Group]) -> Result<(), LabError> {
    for Group { path, .. } in groups.iter().filter(|g| g.unified) {
        let leaf = path.join(LEAF);
        fs::create_dir_all(&leaf).map_err(LabError::file("create", &leaf))?;
        enter(&leaf)?;
        let file = path.join("cgroup.controllers");
        let controllers = fs::read_to_string(&file).map_err(LabError::file("read", file))?;
        let wanted: Vec<String> = controllers.split_whitespace().map(|c| format!("+{c}")).collect();
        let file = path.join("cgroup.subtree_control");
        fs::write(&file, wanted.join(" ")).map_err(LabError::file("write", file))?;
    }
    Ok(())
}

fn enter(path: &Path) -> Result<(), LabError> {
    let file = path.join("cgroup.procs");
    // 0 is whoever writes it.
    fs::write(&file, "0").map_err(LabError::file("write", file))
}

/// In version 1 a new group of this controller has no processors and no memory nodes, and takes no process.
fn inherit_cpuset(path: &Path) -> Result<(), LabError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (file, above) = (path.join(name), path.parent().unwrap_or(path).join(name));
        if let (Ok(own), Ok(value)) = (fs::read_to_string(&file), fs::read_to_string(above))
            && own.trim().is_empty()
        {
            fs::write(&file, value).map_err(LabError::file("write", file))?;
        }
    }
    Ok(())
}

/// Removes the groups and all below them, once what was in them has ended.
pub(crate) fn remove(groups: &[Group]) -> Result<(), LabError> {
    let end = Instant::now() + EMPTY_LIMIT;
    groups.iter().try_for_each(|group| {
        loop {
            match remove_tree(&group.path) {
                // EBUSY: the last process is on its way out.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other.map_err(LabError::file("remove", &group.path)),
            }
        }
    })
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let gone = |e: io::Error| (e.kind() == io::ErrorKind::NotFound).then_some(()).ok_or(e);
    let entries = match fs::read_dir(path) {
        Err(e) => return gone(e),
        Ok(entries) => entries,
    };
    for entry in entries.flatten() {
        // The files of a group go with it.
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path).or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_has_a_group_below_this_process_in_every_mounted_hierarchy() {
        let text = "9:name=systemd:/\n4:memory:/user/7\n2:cpu,cpuacct:/\n1:misc:/\n0::/init\n";
        let groups = plan(text, "lab-node-1", false, |p| !p.ends_with("misc"));
        let paths: Vec<_> = groups.iter().map(|g| g.path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/sys/fs/cgroup/systemd/lab-node-1",
                "/sys/fs/cgroup/memory/user/7/lab-node-1",
                "/sys/fs/cgroup/cpu,cpuacct/lab-node-1",
                "/sys/fs/cgroup/unified/init/lab-node-1",
            ]
        );
        assert!(groups.iter().all(|g| !g.unified));
    }

    #[test]
    fn version_2_has_one_below_the_root() {
        let groups = plan("0::/user.slice/session-1.scope\n", "lab-node-1", true, |_| true);
        assert_eq!(
            groups,
            [Group {
                path: "/sys/fs/cgroup/lab-node-1".into(),
                unified: true
            }]
        );
    }

    #[test]
    fn a_tree_is_removed_from_its_leaves_and_one_that_is_gone_is_fine() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("node");
        fs::create_dir_all(top.join("kubepods/burstable/pod-1")).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }
}
