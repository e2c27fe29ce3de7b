//! What can go wrong between us and rtnetlink.

use std::fmt;
use std::io;

use crate::netns::NetnsError;

/// An error number of the kernel. Displays as `EEXIST (File exists)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// EEXIST: it is there already.
    pub const EXIST: Self = Self(libc::EEXIST);
    /// ENOENT: no such rule (or table).
    pub const NOENT: Self = Self(libc::ENOENT);
    /// ESRCH: no such route.
    pub const SRCH: Self = Self(libc::ESRCH);
    /// ENODEV: no such link.
    pub const NODEV: Self = Self(libc::ENODEV);
    /// EADDRNOTAVAIL: no such address on the link.
    pub const ADDRNOTAVAIL: Self = Self(libc::EADDRNOTAVAIL);

    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::ESRCH => "ESRCH",
            libc::EIO => "EIO",
            libc::ENXIO => "ENXIO",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EACCES => "EACCES",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::ENODEV => "ENODEV",
            libc::EINVAL => "EINVAL",
            libc::ENOSPC => "ENOSPC",
            libc::ERANGE => "ERANGE",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::EAFNOSUPPORT => "EAFNOSUPPORT",
            libc::EADDRINUSE => "EADDRINUSE",
            libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
            libc::ENETDOWN => "ENETDOWN",
            libc::ENETUNREACH => "ENETUNREACH",
            libc::ENOBUFS => "ENOBUFS",
            libc::ENOTCONN => "ENOTCONN",
            libc::EHOSTUNREACH => "EHOSTUNREACH",
            _ => return None,
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        match self.name() {
            Some(name) => write!(f, "{name} ({text})"),
            None => write!(f, "errno {} ({text})", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kernel's refusal of one request: what was asked, the error number, and the kernel's own words (extended
/// acknowledgement) where it gave any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{request}: {errno}{}", said(.text))]
pub struct Refusal {
    /// What was asked, in words.
    pub request: String,
    /// The error number.
    pub errno: Errno,
    /// The kernel's text.
    pub text: Option<String>,
}

fn said(text: &Option<String>) -> String {
    text.as_ref().map(|t| format!(": {t}")).unwrap_or_default()
}

/// A request that was not carried out, or whose outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket ({step}): {source}")]
    Open {
        /// The call that failed.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The namespace for the socket cannot be visited.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Sending or receiving failed.
    #[error("{request}: the netlink socket failed: {source}")]
    Transport {
        /// What was asked, in words.
        request: String,
        /// The system's answer.
        source: io::Error,
    },
    /// No answer within the time limit; it is not known whether the change was made.
    #[error("{request}: no answer from the kernel within {seconds} s")]
    NoAnswer {
        /// What was asked, in words.
        request: String,
        /// The limit.
        seconds: u64,
    },
    /// The kernel said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A list changed while it was read, again and again.
    #[error(
        "{request}: the list changed under each of {tries} readings; something on this machine changes it without end"
    )]
    Unsteady {
        /// What was asked, in words.
        request: String,
        /// How often it was tried.
        tries: u32,
    },
    /// An answer that cannot be read.
    #[error("{request}: the kernel's answer cannot be read: {detail}")]
    Malformed {
        /// What was asked, in words.
        request: String,
        /// What is wrong with it.
        detail: &'static str,
    },
}

impl NetlinkError {
    /// The kernel's error number, if this is a refusal.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_request_errno_and_the_kernels_words() {
        let refusal = Refusal {
            request: "add route 10.0.1.5/32 dev eniabc table 254".into(),
            errno: Errno::EXIST,
            text: Some("route is there".into()),
        };
        assert_eq!(
            refusal.to_string(),
            "add route 10.0.1.5/32 dev eniabc table 254: EEXIST (File exists): route is there"
        );
    }

    #[test]
    fn an_errno_without_a_name_shows_its_number() {
        assert!(Errno(libc::EXDEV).to_string().starts_with("errno 18 ("));
    }
}
