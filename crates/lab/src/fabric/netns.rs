//! Network namespaces by name, as iproute2 keeps them under `/run/netns`, and work done inside them.
//!
//! Work is done in threads of their own that end with it, so that no thread of the program is ever left in a foreign
//! namespace. Sockets opened in such a thread keep its namespace and may be used anywhere.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::net::{AddressFamily, SendFlags, SocketType, send, socket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::edge::{Own, unshare};
use crate::error::LabError;

/// Where namespaces have their names.
pub const DIR: &str = "/run/netns";

/// The file of a named namespace.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A namespace to work in: a network namespace, with or without a mount namespace.
#[derive(Debug)]
pub struct Place {
    name: String,
    net: OwnedFd,
    mounts: Option<OwnedFd>,
}

impl Place {
    /// The named network namespace, in the caller's mount namespace.
    ///
    /// # Errors
    /// [`LabError::Namespace`] when there is none.
    pub fn named(name: &str) -> Result<Self, LabError> {
        let net = open(path(name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .map_err(LabError::ns("open", name))?;
        Ok(Self {
            name: name.to_owned(),
            net,
            mounts: None,
        })
    }

    /// The named network namespace together with the mount namespace of process `holder`.
    ///
    /// # Errors
    /// [`LabError::Namespace`] when either is gone.
    pub fn of_node(name: &str, holder: i32) -> Result<Self, LabError> {
        let file = format!("/proc/{holder}/ns/mnt");
        let mounts = open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .map_err(LabError::ns("open", file))?;
        Ok(Self {
            mounts: Some(mounts),
            ..Self::named(name)?
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread in, for good.
    ///
    /// # Errors
    /// [`LabError::Namespace`] with the kernel's answer.
    pub fn enter(&self) -> Result<(), LabError> {
        move_into_link_name_space(self.net.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(io::Error::from)
            .map_err(LabError::ns("enter", &self.name))?;
        let Some(mounts) = &self.mounts else { return Ok(()) };
        unshare(Own::FsInfo).map_err(LabError::ns("enter", &self.name))?;
        move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(io::Error::from)
            .map_err(LabError::ns("enter the mounts of", &self.name))
    }

    /// Runs `work` in a thread inside and returns what it returns. Child processes it starts are inside too.
    ///
    /// # Errors
    /// [`LabError::Namespace`] when the thread cannot enter or does not come back, else the work's own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .spawn_scoped(scope, || self.enter().and_then(|()| work()))
                .map_err(LabError::ns("start a thread for", &self.name))?;
            let panicked = || io::Error::other("the thread working in it panicked");
            thread
                .join()
                .unwrap_or_else(|_| Err(LabError::ns("work in", &self.name)(panicked())))
        })
    }
}

/// Makes a namespace of that name, its loopback up.
///
/// # Errors
/// [`LabError::Namespace`]: the name is taken, or the kernel refuses.
pub fn create(name: &str) -> Result<(), LabError> {
    let lock = prepare_dir()?;
    let file = path(name);
    fs::File::options()
        .write(true)
        .create_new(true)
        .open(&file)
        .map_err(LabError::ns("create", name))?;
    let made = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .spawn_scoped(scope, || -> io::Result<()> {
                unshare(Own::Network)?;
                raise_loopback()?;
                Ok(mount_bind("/proc/thread-self/ns/net", &file)?)
            })?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread making it panicked")))
    });
    drop(lock);
    if made.is_err() {
        let _ = fs::remove_file(&file);
    }
    made.map_err(LabError::ns("create", name))
}

/// Removes the name; the namespace goes when the last process in it has gone. Fine when there is none.
///
/// # Errors
/// [`LabError::Namespace`] with the kernel's answer.
pub fn delete(name: &str) -> Result<(), LabError> {
    let file = path(name);
    match unmount(&file, UnmountFlags::DETACH).map_err(io::Error::from) {
        Err(e) if !matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            return Err(LabError::ns("unmount", name)(e));
        }
        _ => {}
    }
    match fs::remove_file(&file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LabError::ns("remove", name)(e)),
        _ => Ok(()),
    }
}

/// True when a namespace of that name exists.
#[must_use]
pub fn exists(name: &str) -> bool {
    path(name).exists()
}

/// Removes `/run/netns` itself when it is empty. Only for who made it.
pub fn remove_dir_if_empty() {
    let Ok(lock) = lock_dir() else { return };
    let empty = fs::read_dir(DIR).is_ok_and(|mut entries| entries.next().is_none());
    if empty {
        // The lock's own descriptor keeps the mount busy; detaching it is what iproute2's users do by hand, too.
        let _ = unmount(DIR, UnmountFlags::DETACH);
        let _ = fs::remove_dir(DIR);
    }
    drop(lock);
}

fn lock_dir() -> io::Result<OwnedFd> {
    let dir = open(
        DIR,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // iproute2 takes the same lock for the same purpose.
    flock(&dir, FlockOperation::LockExclusive)?;
    Ok(dir)
}

/// Makes `/run/netns` a shared mount, as `ip netns add` does, so that namespaces made later appear in the nodes'
/// mount namespaces. Returns its lock.
fn prepare_dir() -> Result<OwnedFd, LabError> {
    let lock = loop {
        fs::create_dir_all(DIR).map_err(LabError::file("create", DIR))?;
        let lock = lock_dir().map_err(LabError::file("lock", DIR))?;
        // Another lab may have removed it, empty, while this one waited for the lock; then this is the lock of nothing.
        let same = |a: rustix::fs::Stat, b: rustix::fs::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        if matches!((fstat(&lock), stat(DIR)), (Ok(held), Ok(named)) if same(held, named)) {
            break lock;
        }
    };
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if mount_change(DIR, shared).is_err() {
        mount_bind_recursive(DIR, DIR)
            .and_then(|()| mount_change(DIR, shared))
            .map_err(io::Error::from)
            .map_err(LabError::file("mount", DIR))?;
    }
    Ok(lock)
}

/// True when `/run/netns` is a mount, as it is from the first named namespace on.
#[must_use]
pub fn prepared() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(DIR))
}

/// Sets the loopback of the calling thread's namespace up: one RTM_NEWLINK for interface 1, flags IFF_UP.
fn raise_loopback() -> io::Result<()> {
    // No protocol is protocol 0, NETLINK_ROUTE.
    let route = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32u32.to_ne_bytes()); // length: header 16 + ifinfomsg 16
    message.extend_from_slice(&16u16.to_ne_bytes()); // RTM_NEWLINK
    message.extend_from_slice(&1u16.to_ne_bytes()); // NLM_F_REQUEST
    message.extend_from_slice(&[0; 8]); // sequence, port
    message.extend_from_slice(&[0; 4]); // family, padding, type
    message.extend_from_slice(&1i32.to_ne_bytes()); // the loopback is interface 1 in every namespace
    message.extend_from_slice(&1u32.to_ne_bytes()); // IFF_UP
    message.extend_from_slice(&1u32.to_ne_bytes()); // of which only this is to change
    send(&route, &message, SendFlags::empty())?;
    Ok(())
}
