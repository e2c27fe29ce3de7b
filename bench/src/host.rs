//! Host namespaces of the peers, and threads that live in them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Makes an empty network namespace. It lives as long as the returned file.
pub(crate) fn new_namespace() -> io::Result<File> {
    std::thread::spawn(|| {
        // SAFETY: CLONE_NEWNET touches no descriptor or memory of the process; the thread ends right after.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        File::open("/proc/thread-self/ns/net")
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the thread that made a namespace panicked")))
}

/// Runs `work` in a thread inside `ns`; processes it spawns start there too.
pub(crate) fn within<T: Send>(ns: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a measuring thread panicked")))
    })
}

/// The network namespace this thread is in.
pub(crate) fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}
