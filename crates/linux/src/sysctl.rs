//! Kernel parameters under `/proc/sys`, named by path (`net/ipv4/ip_forward`), because an interface's name may hold dots.
//!
//! `/proc/sys/net` shows the namespace of the thread that looks. In a container `/proc/sys` is read-only; the
//! host's, mounted elsewhere, can be written with CAP_NET_ADMIN alone, hence [`Tree::at`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A tree of kernel parameters.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

/// A kernel parameter that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// It does not exist: the interface is gone, or the kernel has no such feature (IPv6 off).
    #[error("sysctl {key}: there is no such parameter")]
    Missing {
        /// The path below the tree's root.
        key: String,
    },
    /// It cannot be read.
    #[error("sysctl {key}: cannot read it: {source}")]
    Read {
        /// The path below the tree's root.
        key: String,
        /// The system's answer.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "sysctl {key}: cannot write \"{value}\": {source}; /proc/sys must be writable, with CAP_NET_ADMIN"
    )]
    Write {
        /// The path below the tree's root.
        key: String,
        /// What was to be written.
        value: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl SysctlError {
    /// Whether the parameter does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::at("/proc/sys")
    }
}

/// Where a container has the host's `/proc/sys/net`, by convention.
const MOUNTED: &str = "/host/proc/sys";

impl Tree {
    /// The host's tree as a container can write it: at `told`, else at `/host/proc/sys` where that has a `net`, else the
    /// process's own.
    pub fn of_the_host(told: Option<&Path>) -> Self {
        let mounted = Path::new(MOUNTED);
        match told {
            Some(root) => Self::at(root),
            None if mounted.join("net").is_dir() => Self::at(mounted),
            None => Self::default(),
        }
    }

    /// The tree mounted at `root`.
    pub fn at(root: impl AsRef<Path>) -> Self {
        Self {
            root: root.as_ref().to_path_buf(),
        }
    }

    /// The value, without the line's end.
    ///
    /// # Errors
    /// [`SysctlError::Missing`], [`SysctlError::Read`].
    pub fn read(&self, key: &str) -> Result<String, SysctlError> {
        match fs::read_to_string(self.root.join(key)) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(SysctlError::Missing { key: key.to_owned() })
            }
            Err(source) => Err(SysctlError::Read {
                key: key.to_owned(),
                source,
            }),
        }
    }

    /// Writes the value, whatever it was before.
    ///
    /// # Errors
    /// [`SysctlError::Missing`], [`SysctlError::Write`].
    pub fn write(&self, key: &str, value: &str) -> Result<(), SysctlError> {
        // One write(2): the kernel takes each as a whole value.
        let written = File::options()
            .write(true)
            .open(self.root.join(key))
            .and_then(|mut f| f.write_all(value.as_bytes()));
        written.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SysctlError::Missing { key: key.to_owned() },
            _ => SysctlError::Write {
                key: key.to_owned(),
                value: value.to_owned(),
                source,
            },
        })
    }

    /// Writes the value if another stands there; says whether it wrote. Some parameters do work on every write
    /// (`forwarding` walks all interfaces), so an equal one is left alone.
    ///
    /// # Errors
    /// As [`Tree::read`] and [`Tree::write`].
    pub fn ensure(&self, key: &str, value: &str) -> Result<bool, SysctlError> {
        if self.read(key)? == value {
            return Ok(false);
        }
        self.write(key, value).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("net/ipv4")).unwrap();
        fs::write(dir.path().join("net/ipv4/ip_forward"), "0\n").unwrap();
        let tree = Tree::at(dir.path());
        (dir, tree)
    }

    #[test]
    fn an_equal_value_is_not_written() {
        let (_dir, tree) = tree();
        assert!(!tree.ensure("net/ipv4/ip_forward", "0").unwrap());
        assert!(tree.ensure("net/ipv4/ip_forward", "1").unwrap());
        assert_eq!(tree.read("net/ipv4/ip_forward").unwrap(), "1");
    }

    #[test]
    fn the_hosts_tree_is_where_it_is_said_to_be_and_else_the_processs_own() {
        let (dir, _) = tree();
        let told = Tree::of_the_host(Some(dir.path()));
        assert_eq!(told.read("net/ipv4/ip_forward").unwrap(), "0");
        // Nothing is mounted at /host/proc/sys where tests run.
        assert_eq!(Tree::of_the_host(None).root, Path::new("/proc/sys"));
    }

    #[test]
    fn a_missing_parameter_is_told_apart_and_named() {
        let (_dir, tree) = tree();
        for error in [
            tree.read("net/ipv6/x").unwrap_err(),
            tree.write("net/ipv6/x", "1").unwrap_err(),
        ] {
            assert!(error.is_missing());
            assert!(error.to_string().contains("net/ipv6/x"));
        }
    }

    #[test]
    fn a_refused_write_names_parameter_and_value() {
        // A directory stands where the parameter should be: not writable even for root.
        let (_dir, tree) = tree();
        let error = tree.write("net/ipv4", "1").unwrap_err();
        assert!(!error.is_missing());
        assert!(
            error.to_string().contains("net/ipv4: cannot write \"1\""),
            "{error}"
        );
    }
}
