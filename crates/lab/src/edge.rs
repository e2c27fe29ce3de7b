//! The only unsafe code of the lab: leaving namespaces that other threads share.

#![allow(unsafe_code)]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// What a thread leaves behind for one of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own {
    /// A new, empty network namespace.
    Network,
    /// A copy of the mount namespace (and of the root and working directory, which go with it).
    Mounts,
    /// A root and working directory of its own, which the kernel asks for before a thread may enter a mount namespace.
    FsInfo,
    /// Mounts as above, host name, IPC and control groups; and process ids, for the processes it starts from then on.
    Machine,
}

/// Gives the calling thread its own copy of `what`.
///
/// # Errors
/// What `unshare(2)` answers; EPERM without CAP_SYS_ADMIN.
pub(crate) fn unshare(what: Own) -> io::Result<()> {
    let flags = match what {
        Own::Network => UnshareFlags::NEWNET,
        Own::Mounts => UnshareFlags::NEWNS | UnshareFlags::FS,
        Own::FsInfo => UnshareFlags::FS,
        Own::Machine => {
            UnshareFlags::NEWNS
                | UnshareFlags::FS
                | UnshareFlags::NEWUTS
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWCGROUP
                | UnshareFlags::NEWPID
        }
    };
    // SAFETY: `unshare` is unsound with CLONE_FILES only, as other threads would then keep using descriptors this
    // thread no longer has; none of the flags above holds it.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}
