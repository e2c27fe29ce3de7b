//! The blocking rtnetlink socket: batches of changes. Queries are in `query`.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::error::{Errno, NetlinkError, Refusal};
use super::parse::{self, Frame};
use super::request::Request;
use crate::netns::Netns;

pub(super) const NLMSG_ERROR: u16 = 2;
/// Answers lie in the socket's buffer (212 KB, less than 1 KB each with the kernel's book-keeping) before we read the first.
const BATCH: usize = 100;
/// The largest datagram of a dump (the kernel fits it to the reader's buffer, up to this).
const BUFFER: usize = 32 * 1024;
/// The kernel has answered before `send` returns; a silence this long means a lost answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What a thread has sent: for metrics, and to prove that a pod's ADD does not grow with the number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Datagrams to the kernel.
    pub sends: u64,
    /// Messages in them.
    pub messages: u64,
    /// Messages from the kernel.
    pub answers: u64,
}

thread_local! {
    static TRAFFIC: Cell<Traffic> = const { Cell::new(Traffic { sends: 0, messages: 0, answers: 0 }) };
}

/// What the calling thread has sent and received since it began.
pub fn traffic_of_this_thread() -> Traffic {
    TRAFFIC.get()
}

fn count(sends: u64, messages: u64, answers: u64) {
    let t = TRAFFIC.get();
    TRAFFIC.set(Traffic {
        sends: t.sends + sends,
        messages: t.messages + messages,
        answers: t.answers + answers,
    });
}

/// An rtnetlink socket of one namespace, whichever the thread is in later.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket of the namespace the calling thread is in.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Self::of(netlink_sys::protocols::NETLINK_ROUTE)
    }

    /// The same for another of netlink's protocols.
    pub(crate) fn of(protocol: isize) -> Result<Self, NetlinkError> {
        let step = |step| move |source: io::Error| NetlinkError::Open { step, source };
        let inner = netlink_sys::Socket::new(protocol).map_err(step("socket"))?;
        inner
            .set_netlink_get_strict_chk(true)
            .map_err(step("NETLINK_GET_STRICT_CHK, Linux 4.20"))?;
        inner
            .set_ext_ack(true)
            .map_err(step("NETLINK_EXT_ACK, Linux 4.12"))?;
        inner
            .set_cap_ack(true)
            .map_err(step("NETLINK_CAP_ACK, Linux 4.3"))?;
        set_socket_timeout(&inner, Timeout::Recv, Some(ANSWER_LIMIT)).map_err(|e| NetlinkError::Open {
            step: "SO_RCVTIMEO",
            source: e.into(),
        })?;
        Ok(Self {
            inner,
            sequence: 1,
            buffer: Vec::new(),
        })
    }

    /// A socket of another namespace. The calling thread visits it and is back when this returns.
    ///
    /// # Errors
    /// [`NetlinkError::Netns`], [`NetlinkError::Open`].
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        netns.within(Self::open)?
    }

    /// The index of the link with this name, if there is one. An ioctl: no lock of the kernel's is waited for, and
    /// it costs 1 µs where RTM_GETLINK costs ten. It looks in the socket's namespace, not the thread's.
    ///
    /// # Errors
    /// [`NetlinkError::Transport`].
    pub fn index_of(&self, name: &str) -> Result<Option<u32>, NetlinkError> {
        match rustix::net::netdevice::name_to_index(self.inner.as_fd(), name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(e) => Err(NetlinkError::Transport {
                request: format!("find link {name}"),
                source: e.into(),
            }),
        }
    }

    /// Makes the changes in one send (up to 100; more take several) and gives the kernel's answer to each.
    /// A refused one does not stop those after it.
    ///
    /// # Errors
    /// [`NetlinkError::Transport`], [`NetlinkError::NoAnswer`]: then it is not known what was done.
    pub fn run(&mut self, requests: &[Request]) -> Result<Vec<Result<(), Refusal>>, NetlinkError> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for chunk in requests.chunks(BATCH) {
            let first = self.sequence;
            let mut bytes = Vec::with_capacity(chunk.len() * 128);
            for request in chunk {
                #[cfg(feature = "faults")]
                let start = bytes.len();
                request.encode(self.next(), &mut bytes);
                #[cfg(feature = "faults")]
                if super::faults::strikes()
                    && let Some(kind) = bytes.get_mut(start + 4..start + 6)
                {
                    kind.fill(0xff);
                }
            }
            let what = || chunk.first().map(Request::to_string).unwrap_or_default();
            self.send(&bytes, chunk.len(), what)?;
            let mut answers: Vec<Option<Result<(), Refusal>>> = chunk.iter().map(|_| None).collect();
            while let Some(open) = answers.iter().position(Option::is_none) {
                let pending = || chunk.get(open).map(Request::to_string).unwrap_or_default();
                self.receive(pending, |frame| {
                    let at = frame.sequence.wrapping_sub(first) as usize;
                    if let (NLMSG_ERROR, Some(request), Some(slot)) =
                        (frame.kind, chunk.get(at), answers.get_mut(at))
                    {
                        *slot = Some(acknowledgement(&frame, || request.to_string()));
                    }
                })?;
            }
            outcomes.extend(answers.into_iter().flatten());
        }
        Ok(outcomes)
    }

    /// As [`Socket::run`] for one change.
    ///
    /// # Errors
    /// As [`Socket::run`], and [`NetlinkError::Refused`].
    pub fn run_one(&mut self, request: Request) -> Result<(), NetlinkError> {
        for outcome in self.run(std::slice::from_ref(&request))? {
            outcome?;
        }
        Ok(())
    }

    pub(super) fn next(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        messages: usize,
        what: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        count(1, messages as u64, 0);
        loop {
            match self.inner.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(NetlinkError::Transport {
                        request: what(),
                        source,
                    });
                }
            }
        }
    }

    /// One datagram; `on` gets each message in it.
    pub(super) fn receive(
        &mut self,
        what: impl Fn() -> String,
        mut on: impl FnMut(Frame<'_>),
    ) -> Result<(), NetlinkError> {
        self.buffer.clear();
        self.buffer.reserve(BUFFER);
        let room = self.buffer.capacity();
        let length = loop {
            match self.inner.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Ok(length) => break length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(NetlinkError::NoAnswer {
                        request: what(),
                        seconds: ANSWER_LIMIT.as_secs(),
                    });
                }
                Err(source) => {
                    return Err(NetlinkError::Transport {
                        request: what(),
                        source,
                    });
                }
            }
        };
        if length > room {
            return Err(NetlinkError::Malformed {
                request: what(),
                detail: "longer than any datagram should be",
            });
        }
        let mut answers = 0;
        for frame in parse::frames(&self.buffer) {
            answers += 1;
            on(frame);
        }
        count(0, 0, answers);
        Ok(())
    }
}

/// The errno of NLMSG_ERROR or NLMSG_DONE, with the kernel's text.
pub(super) fn acknowledgement(frame: &Frame<'_>, what: impl Fn() -> String) -> Result<(), Refusal> {
    // Without the asker's message (NETLINK_CAP_ACK): errno, then for NLMSG_ERROR the asker's header.
    let fixed = if frame.kind == NLMSG_ERROR { 4 + 16 } else { 4 };
    match parse::read_u32(frame.body, 0).map(|n| (n as i32).wrapping_neg()) {
        None | Some(0) => Ok(()),
        Some(errno) => Err(Refusal {
            request: what(),
            errno: Errno(errno),
            text: parse::error_text(frame.body, fixed),
        }),
    }
}
