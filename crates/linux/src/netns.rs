//! Network namespaces by path, and short visits of one thread to another namespace.
//!
//! A netlink socket keeps the namespace it was opened in, so a visit lasts only for `socket()` (7 µs with the
//! way there and back); the changes themselves are made from outside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `NSFS_MAGIC` of linux/magic.h: the file system of namespace files.
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// `NS_GET_NSTYPE` of linux/nsfs.h: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace; it lives as long as this value, even when its path is unmounted.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error("network namespace {path}: cannot open it: {source}; was the sandbox already removed?")]
    Open {
        /// The path as given.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The path is a file of another kind.
    #[error("{path} is no namespace: it does not lie on the kernel's namespace file system (nsfs)")]
    NotNamespace {
        /// The path as given.
        path: PathBuf,
    },
    /// A namespace, but of processes, mounts or the like.
    #[error("{path} is a namespace, but not one of the network kind")]
    NotNetwork {
        /// The path as given.
        path: PathBuf,
    },
    /// The kernel refused to say what the file is.
    #[error("network namespace {path}: cannot examine it: {source}")]
    Examine {
        /// The path as given.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The thread was refused entry.
    #[error("network namespace {path}: cannot enter it: {source}; this needs CAP_SYS_ADMIN")]
    Enter {
        /// The path as given.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The thread could not come back. It must not be used further: its sockets would lie in the wrong namespace.
    #[error("the thread is stuck in network namespace {path}: {source}; the process must end")]
    Stuck {
        /// The namespace the thread is in.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Netns {
    /// Opens the namespace at `path` (`/var/run/netns/…`, `/proc/PID/ns/net`) and proves that it is one.
    ///
    /// # Errors
    /// [`NetnsError::Open`], [`NetnsError::NotNamespace`], [`NetnsError::NotNetwork`], [`NetnsError::Examine`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let path = path.as_ref().to_path_buf();
        // Not blocking, or a FIFO at the path would hold the plugin for ever.
        let file =
            std::os::unix::fs::OpenOptionsExt::custom_flags(File::options().read(true), libc::O_NONBLOCK)
                .open(&path)
                .map_err(|source| NetnsError::Open {
                    path: path.clone(),
                    source,
                })?;
        let examine = |source: io::Error| NetnsError::Examine {
            path: path.clone(),
            source,
        };
        let kind = rustix::fs::fstatfs(&file).map_err(|e| examine(e.into()))?.f_type;
        #[allow(clippy::unnecessary_cast)] // the field's type differs between C libraries
        if kind as i64 != NSFS_MAGIC {
            return Err(NetnsError::NotNamespace { path });
        }
        let nstype = kind_of_namespace(&file);
        if nstype < 0 {
            return Err(examine(io::Error::last_os_error()));
        }
        if nstype != libc::CLONE_NEWNET {
            return Err(NetnsError::NotNetwork { path });
        }
        let meta = file.metadata().map_err(examine)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            file,
            path,
        })
    }

    /// The namespace the calling thread is in.
    ///
    /// # Errors
    /// `/proc` is not mounted, or as [`Netns::open`].
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(OWN)
    }

    /// Whether both are the same namespace, whatever their paths.
    pub fn same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether the calling thread is in this namespace: [`Netns::same`] with the thread's own, for one look at a path.
    ///
    /// # Errors
    /// [`NetnsError::Open`]: `/proc` is not mounted.
    pub fn is_current(&self) -> Result<bool, NetnsError> {
        let own = std::fs::metadata(OWN).map_err(no_own)?;
        Ok((self.device, self.inode) == (own.dev(), own.ino()))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `visit` with the calling thread inside this namespace, and brings the thread back.
    ///
    /// # Errors
    /// [`NetnsError::Enter`]; [`NetnsError::Stuck`], after which the thread must not be used further.
    pub fn within<T>(&self, visit: impl FnOnce() -> T) -> Result<T, NetnsError> {
        // Nothing but a namespace of the network kind lies there: it needs no examination to be a way back.
        let home = File::open(OWN).map_err(no_own)?;
        self.enter().map_err(|source| NetnsError::Enter {
            path: self.path.clone(),
            source,
        })?;
        let result = visit();
        enter(&home).map_err(|source| NetnsError::Stuck {
            path: self.path.clone(),
            source,
        })?;
        Ok(result)
    }

    /// Moves the calling thread here, for good.
    ///
    /// # Errors
    /// The kernel's refusal, mostly EPERM.
    pub fn enter(&self) -> io::Result<()> {
        enter(&self.file)
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

fn no_own(source: io::Error) -> NetnsError {
    NetnsError::Open {
        path: OWN.into(),
        source,
    }
}

/// The `CLONE_NEW*` flag of the namespace a file of nsfs stands for; negative on failure, see `errno`.
#[allow(unsafe_code)] // no safe wrapper has this ioctl
fn kind_of_namespace(file: &File) -> libc::c_int {
    // SAFETY: NS_GET_NSTYPE takes no argument and returns a number; the descriptor is open.
    unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(file), NS_GET_NSTYPE as _) }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_itself_by_any_path() {
        let one = Netns::current().unwrap();
        let two = Netns::open("/proc/self/ns/net").unwrap();
        assert!(one.same(&two));
        assert!(one.is_current().unwrap());
    }

    #[test]
    fn a_missing_path_is_named() {
        let error = Netns::open("/nonexistent/netns").unwrap_err();
        assert!(matches!(error, NetnsError::Open { .. }));
        assert!(error.to_string().contains("/nonexistent/netns"));
    }

    #[test]
    fn a_plain_file_is_no_namespace() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            Netns::open(file.path()),
            Err(NetnsError::NotNamespace { .. })
        ));
    }

    #[test]
    fn a_fifo_does_not_hold_the_caller() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(matches!(Netns::open(&path), Err(NetnsError::NotNamespace { .. })));
    }

    #[test]
    fn a_namespace_of_another_kind_is_told_apart() {
        assert!(matches!(
            Netns::open("/proc/self/ns/uts"),
            Err(NetnsError::NotNetwork { .. })
        ));
    }
}
