//! Pods as the lab keeps them: a namespace each, and a record on disk with what the runtime must remember for DEL.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LabError;
use crate::fabric::netns;
use crate::state::Dir;

/// A pod.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Pod {
    /// Its name, unique in the lab.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its node.
    pub node: String,
    /// Its network namespace.
    pub netns: String,
    /// Container id: 64 hex digits, new with each sandbox.
    pub container_id: String,
    /// Its interface.
    pub ifname: String,
    /// Annotations the runtime passes on.
    pub annotations: serde_json::Map<String, Value>,
    /// The plugin's configuration as it was for ADD.
    pub config: Value,
    /// What ADD answered, cached for DEL and CHECK as libcni does; none while ADD runs.
    pub result: Option<Value>,
    /// Its first address, of IPv4 if it has one.
    pub address: Option<IpAddr>,
    /// How long ADD took.
    pub add_ms: Option<f64>,
}

impl Pod {
    fn file(dir: &Dir, name: &str) -> PathBuf {
        dir.pods().join(format!("{name}.json"))
    }

    /// All its IPv4 addresses, in the order of its interfaces.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let all = self
            .result
            .as_ref()
            .map(crate::cni::addresses)
            .unwrap_or_default();
        if all.is_empty() {
            self.address.into_iter().collect()
        } else {
            all
        }
    }

    /// Records a new pod, before anything is made for it.
    ///
    /// # Errors
    /// [`LabError::Usage`] when the name is taken or cannot be a pod's.
    pub fn record_new(&self, dir: &Dir) -> Result<(), LabError> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if self.name.is_empty()
            || self.name.len() > 150
            || !self.name.chars().all(label)
            || self.name.starts_with('.')
        {
            return Err(LabError::Usage(format!(
                "'{}' cannot be a pod's name: use lower-case letters, digits, '-' and '.'",
                self.name
            )));
        }
        let file = Self::file(dir, &self.name);
        match fs::File::options().write(true).create_new(true).open(&file) {
            Ok(_) => self.write(dir),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(LabError::Usage(format!("there is a pod '{}' already", self.name)))
            }
            Err(e) => Err(LabError::file("create", file)(e)),
        }
    }

    /// Writes the record anew.
    ///
    /// # Errors
    /// [`LabError::File`].
    pub fn write(&self, dir: &Dir) -> Result<(), LabError> {
        let (file, new) = (
            Self::file(dir, &self.name),
            dir.pods().join(format!(".{}.new", self.name)),
        );
        let text = serde_json::to_vec_pretty(self).map_err(|e| LabError::file("write", &file)(e.into()))?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(LabError::file("write", &file))
    }

    /// Removes namespace and record.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn forget(&self, dir: &Dir) -> Result<(), LabError> {
        netns::delete(&self.netns)?;
        self.unrecord(dir)
    }

    /// Removes the record alone.
    ///
    /// # Errors
    /// [`LabError::File`].
    pub fn unrecord(&self, dir: &Dir) -> Result<(), LabError> {
        let file = Self::file(dir, &self.name);
        fs::remove_file(&file).map_err(LabError::file("remove", file))
    }
}

/// All pods of the lab, by node and name.
///
/// # Errors
/// [`LabError::File`].
pub fn list(dir: &Dir) -> Result<Vec<Pod>, LabError> {
    let entries = match fs::read_dir(dir.pods()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(LabError::file("read", dir.pods()))?,
    };
    let mut pods: Vec<Pod> = entries
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "json"))
        // One that another process is just making or removing is none yet, or no more.
        .filter_map(|e| serde_json::from_slice(&fs::read(e.path()).ok()?).ok())
        .collect();
    pods.sort_by(|a, b| (&a.node, digits(&a.name)).cmp(&(&b.node, digits(&b.name))));
    Ok(pods)
}

/// Sorts `pod-2` before `pod-10`.
fn digits(name: &str) -> (String, u64, String) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name
        .get(stem.len()..)
        .and_then(|n| n.parse().ok())
        .unwrap_or_default();
    (stem.to_owned(), number, name.to_owned())
}

/// The pod of that name.
///
/// # Errors
/// [`LabError::Unknown`] with the names there are.
pub fn find(dir: &Dir, name: &str) -> Result<Pod, LabError> {
    let pods = list(dir)?;
    let known = pods.iter().map(|p| p.name.clone()).collect();
    pods.into_iter()
        .find(|p| p.name == name)
        .ok_or_else(|| LabError::Unknown {
            kind: "pod",
            name: name.to_owned(),
            known,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_sort_by_their_number() {
        let mut names = vec!["web-10", "web-9", "web", "db-11"];
        names.sort_by_key(|n| digits(n));
        assert_eq!(names, vec!["db-11", "web", "web-9", "web-10"]);
    }
}
