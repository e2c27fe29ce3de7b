//! The few system calls the floor program needs, each wrapped once.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::message::Batch;

/// Moves this thread into the network namespace `ns`.
pub(crate) fn enter(ns: &File) -> io::Result<()> {
    // SAFETY: plain system call on a descriptor that `ns` keeps open.
    match unsafe { libc::setns(ns.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The index of the interface `name` in this thread's namespace.
pub(crate) fn index_of(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// A netlink socket of the namespace it was opened in.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: plain system call; the descriptor it returns is owned by nobody else yet.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is a new descriptor of ours, see above.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends the batch in one call and reads all its answers. Errors whose number is `tolerated` count as success.
    pub(crate) fn run(&self, batch: &Batch, tolerated: &[i32]) -> io::Result<()> {
        let bytes = batch.bytes();
        // SAFETY: pointer and length are those of one live slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut open = batch.count();
        let mut result = Ok(());
        let mut buffer = [0u8; 8192];
        while open > 0 {
            // SAFETY: pointer and length are those of one live, writable array.
            let got = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if got < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut rest = buffer.get(..got as usize).unwrap_or_default();
            while let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
                const NLMSG_ERROR: u16 = 2;
                if kind == NLMSG_ERROR {
                    open -= 1;
                    let errno = -(u32_at(rest, 16).unwrap_or_default() as i32);
                    if errno != 0 && !tolerated.contains(&errno) && result.is_ok() {
                        let number = u32_at(rest, 8).unwrap_or_default();
                        let cause = io::Error::from_raw_os_error(errno);
                        result = Err(io::Error::new(cause.kind(), format!("message {number}: {cause}")));
                    }
                }
                rest = rest
                    .get((length as usize).max(16).next_multiple_of(4)..)
                    .unwrap_or_default();
            }
        }
        result
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}
