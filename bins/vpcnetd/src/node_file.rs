//! `VPCNET_NODE_FILE`: what holds for this node only. A value that somebody hands in: it is read at the start and whenever it
//! changes, also when it is replaced by a rename or by the directory's links, as mounted ConfigMaps are.
//!
//! ```json
//! {
//!   "targets": { "WARM_IP_TARGET": 4, "MAX_ENI": 2 },
//!   "eniConfig": { "name": "zone-a", "subnets": ["subnet-0123"], "securityGroups": ["sg-0123"] },
//!   "unschedulable": false
//! }
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use vpcnet_ipam::{CustomNetwork, SubnetId, TargetOverrides};

/// Before the watch is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Writers that do not rename need more than one write.
const SETTLE: Duration = Duration::from_millis(50);

/// What holds for this node only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeValues {
    /// Targets that differ from the environment's.
    pub targets: TargetOverrides,
    /// The node's ENIConfig.
    pub eni_config: Option<CustomNetwork>,
    /// The node has the taint `node.kubernetes.io/unschedulable:NoSchedule`.
    pub unschedulable: bool,
    /// How many pods its kubelet takes; the file has no word for it.
    pub max_pods: Option<u32>,
}

impl NodeValues {
    /// These, and `others` where these say nothing.
    #[must_use]
    pub fn over(&self, others: &Self) -> Self {
        let (a, b) = (&self.targets, &others.targets);
        Self {
            targets: TargetOverrides {
                warm_eni: a.warm_eni.or(b.warm_eni),
                warm_ip: a.warm_ip.or(b.warm_ip),
                minimum_ip: a.minimum_ip.or(b.minimum_ip),
                warm_prefix: a.warm_prefix.or(b.warm_prefix),
                max_eni: a.max_eni.or(b.max_eni),
                max_pods: a.max_pods.or(b.max_pods),
                cooldown: a.cooldown.or(b.cooldown),
                auto: a.auto.or(b.auto),
            },
            eni_config: self.eni_config.as_ref().or(others.eni_config.as_ref()).cloned(),
            unschedulable: self.unschedulable || others.unschedulable,
            max_pods: self.max_pods.or(others.max_pods),
        }
    }
}

/// The file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum NodeFileError {
    /// It cannot be read.
    #[error("cannot read VPCNET_NODE_FILE={}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// It is not JSON of this shape; the message names the field and the place.
    #[error("VPCNET_NODE_FILE={}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, where.
        source: serde_json::Error,
    },
}

/// The file as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Written {
    targets: WrittenTargets,
    eni_config: Option<WrittenConfig>,
    unschedulable: bool,
}

/// Under the names of the environment.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "SCREAMING_SNAKE_CASE", default)]
struct WrittenTargets {
    warm_eni_target: Option<u32>,
    warm_ip_target: Option<u32>,
    minimum_ip_target: Option<u32>,
    warm_prefix_target: Option<u32>,
    max_eni: Option<u32>,
    ip_cooldown_period: Option<u32>,
    vpcnet_max_pods: Option<u32>,
    vpcnet_warm_pool: Option<WarmPool>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum WarmPool {
    Targets,
    Auto,
}

/// An ENIConfig: its name and its `spec`. Several subnets may be named where `spec` has room for one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenConfig {
    name: String,
    #[serde(default)]
    subnet: Option<String>,
    #[serde(default)]
    subnets: Vec<String>,
    #[serde(default)]
    security_groups: Vec<String>,
}

impl From<Written> for NodeValues {
    fn from(written: Written) -> Self {
        let t = written.targets;
        Self {
            targets: TargetOverrides {
                warm_eni: t.warm_eni_target,
                warm_ip: t.warm_ip_target,
                minimum_ip: t.minimum_ip_target,
                warm_prefix: t.warm_prefix_target,
                max_eni: t.max_eni,
                max_pods: t.vpcnet_max_pods.filter(|n| *n > 0),
                cooldown: t.ip_cooldown_period.map(|s| Duration::from_secs(s.into())),
                auto: t.vpcnet_warm_pool.map(|w| w == WarmPool::Auto),
            },
            eni_config: written.eni_config.map(|c| {
                let mut subnets: Vec<SubnetId> = Vec::new();
                for id in c.subnet.into_iter().chain(c.subnets).map(SubnetId) {
                    if !subnets.contains(&id) {
                        subnets.push(id);
                    }
                }
                CustomNetwork {
                    name: c.name,
                    subnets,
                    security_groups: c.security_groups,
                    ..CustomNetwork::default()
                }
            }),
            unschedulable: written.unschedulable,
            max_pods: None,
        }
    }
}

/// Reads the file. A file that is not there says nothing, like an empty one.
///
/// # Errors
/// [`NodeFileError`].
pub fn read(path: &Path) -> Result<NodeValues, NodeFileError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(NodeValues::default()),
        Err(source) => {
            return Err(NodeFileError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(NodeValues::default());
    }
    serde_json::from_slice::<Written>(&bytes)
        .map(NodeValues::from)
        .map_err(|source| NodeFileError::Content {
            path: path.to_owned(),
            source,
        })
}

/// Calls `changed` with what the file says, now and after each change, for the agent's life.
pub async fn follow(path: PathBuf, mut changed: impl FnMut(Result<NodeValues, NodeFileError>)) {
    loop {
        match watch(&path) {
            Ok(watch) => {
                // After the watch began: nothing is missed between the two.
                changed(read(&path));
                if let Err(error) = wait_for_changes(&watch, || changed(read(&path))).await {
                    tracing::warn!(%error, path = %path.display(), "changes of the file are not seen for now");
                }
            }
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "no directory to watch");
                changed(read(&path));
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The directory is watched: the file itself is replaced.
// `AsyncFd::new` is deprecated for descriptors that are closed while they are registered; its successor is unsafe. An `OwnedFd` is
// closed only when it is dropped, which `AsyncFd` does after it has deregistered it.
#[allow(deprecated)]
fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(
        &fd,
        directory,
        WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR,
    )?;
    AsyncFd::new(fd)
}

/// Ends when the directory itself goes.
async fn wait_for_changes(watch: &AsyncFd<OwnedFd>, mut changed: impl FnMut()) -> io::Result<()> {
    loop {
        let mut ready = watch.readable().await?;
        let gone = drain(watch.get_ref())?;
        ready.clear_ready();
        drop(ready);
        // Several notices of one change are one change.
        tokio::time::sleep(SETTLE).await;
        let gone = drain(watch.get_ref())? || gone;
        changed();
        if gone {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its directory is gone"));
        }
    }
}

/// Takes all notices there are. Whether one says that the directory went.
fn drain(fd: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let mut gone = false;
    loop {
        match reader.next() {
            Ok(event) => {
                let ends = inotify::ReadFlags::DELETE_SELF
                    | inotify::ReadFlags::MOVE_SELF
                    | inotify::ReadFlags::IGNORED;
                gone |= event.events().intersects(ends);
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(gone),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type WarmIp = Result<Option<u32>, String>;

    fn of(text: &str) -> Result<NodeValues, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_that_is_missing_or_empty_says_nothing() {
        assert_eq!(
            read(Path::new("/nonexistent/node.json")).unwrap(),
            NodeValues::default()
        );
        assert_eq!(of(" \n").unwrap(), NodeValues::default());
        assert_eq!(of("{}").unwrap(), NodeValues::default());
    }

    #[test]
    fn everything_it_can_say() {
        let values = of(
            r#"{"targets": {"WARM_ENI_TARGET": 0, "WARM_IP_TARGET": 4, "MINIMUM_IP_TARGET": 9, "WARM_PREFIX_TARGET": 2,
                "MAX_ENI": 3, "IP_COOLDOWN_PERIOD": 5, "VPCNET_MAX_PODS": 40, "VPCNET_WARM_POOL": "auto"},
                "eniConfig": {"name": "a", "subnet": "subnet-1", "subnets": ["subnet-2", "subnet-1"], "securityGroups": ["sg-1"]},
                "unschedulable": true}"#,
        )
        .unwrap();
        assert_eq!(
            values,
            NodeValues {
                targets: TargetOverrides {
                    warm_eni: Some(0),
                    warm_ip: Some(4),
                    minimum_ip: Some(9),
                    warm_prefix: Some(2),
                    max_eni: Some(3),
                    max_pods: Some(40),
                    cooldown: Some(Duration::from_secs(5)),
                    auto: Some(true),
                },
                eni_config: Some(CustomNetwork {
                    name: "a".into(),
                    subnets: vec!["subnet-1".into(), "subnet-2".into()],
                    security_groups: vec!["sg-1".into()],
                    ..CustomNetwork::default()
                }),
                unschedulable: true,
                max_pods: None,
            }
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, names) in [
            (r#"{"targets": {"WARM_IPS": 1}}"#, ["WARM_IPS", "line 1"]),
            (r#"{"targets": {"MAX_ENI": -1}}"#, ["-1", "line 1"]),
            (r#"{"targets": {"VPCNET_WARM_POOL": "big"}}"#, ["big", "auto"]),
            (r#"{"eniConfig": {"subnet": "subnet-1"}}"#, ["name", "line 1"]),
            (r#"{"eniconfig": {}}"#, ["eniconfig", "eniConfig"]),
            ("{\n\"targets\": 7", ["`7`", "line 2"]),
            ("[", ["node.json", "line 1"]),
        ] {
            let error = of(text).unwrap_err();
            let all = names.iter().all(|n| error.contains(n));
            assert!(all && error.contains("VPCNET_NODE_FILE="), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn changes_are_seen_however_they_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(follow(path.clone(), move |values| {
            let _ = tell.send(values.map(|v| v.targets.warm_ip).map_err(|e| e.to_string()));
        }));
        let mut until = async |wanted: &dyn Fn(&WarmIp) -> bool| {
            tokio::time::timeout(Duration::from_secs(10), async {
                loop {
                    if wanted(&told.recv().await.unwrap()) {
                        return;
                    }
                }
            })
            .await
            .expect("it is told in time");
        };
        until(&|v| *v == Ok(None)).await;
        let text = |n: u32| format!(r#"{{"targets": {{"WARM_IP_TARGET": {n}}}}}"#);
        std::fs::write(&path, text(1)).unwrap();
        until(&|v| *v == Ok(Some(1))).await;
        // Replaced, as a careful writer does.
        std::fs::write(dir.path().join("new"), text(2)).unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        until(&|v| *v == Ok(Some(2))).await;
        std::fs::write(&path, "{").unwrap();
        until(&|v| v.is_err()).await;
        std::fs::remove_file(&path).unwrap();
        until(&|v| *v == Ok(None)).await;
        // As a mounted ConfigMap: the file is a link into a directory that is swapped.
        for (n, data) in [(3, "one"), (4, "two")] {
            std::fs::create_dir(dir.path().join(data)).unwrap();
            std::fs::write(dir.path().join(data).join("node.json"), text(n)).unwrap();
            std::os::unix::fs::symlink(data, dir.path().join("..tmp")).unwrap();
            std::fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
            if n == 3 {
                std::os::unix::fs::symlink("..data/node.json", &path).unwrap();
            }
            until(&|v| *v == Ok(Some(n))).await;
        }
    }
}
