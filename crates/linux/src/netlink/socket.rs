//! The blocking rtnetlink socket: batches of changes, and queries.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::rule::RuleMessage;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::error::{Errno, NetlinkError, Refusal};
use super::model::{Address, Link, Neighbour, Route, Rule};
use super::parse::{self, Frame};
use super::request::{Request, message};
use crate::netns::Netns;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTM_GETRULE: u16 = 34;
const DUMP: u16 = 0x300;
const DUMP_INTR: u16 = 0x10;
/// Answers lie in the socket's buffer (212 KB, less than 1 KB each with the kernel's book-keeping) before we read the first.
const BATCH: usize = 100;
/// The largest datagram of a dump (the kernel fits it to the reader's buffer, up to this).
const BUFFER: usize = 32 * 1024;
const DUMP_TRIES: u32 = 5;
const DUMP_PAUSE: Duration = Duration::from_millis(100);
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

/// Which routes a dump gives. The kernel filters (strict checking).
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteFilter {
    /// Only this table; else all.
    pub table: Option<u32>,
    /// Only by this link's index.
    pub device: Option<u32>,
}

impl Socket {
    /// A socket of the namespace the calling thread is in.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        let step = |step| move |source: io::Error| NetlinkError::Open { step, source };
        let inner =
            netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE).map_err(step("socket"))?;
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

    /// The link with this name.
    ///
    /// # Errors
    /// The query failed; a missing link is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut body = LinkMessage::default();
        body.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut link = None;
        match self.query(
            RTM_GETLINK,
            &body,
            || format!("get link {name}"),
            |b| link = parse::link_of(b),
        ) {
            Ok(()) => Ok(link),
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All links. Never for a pod's ADD: it would grow with the number of pods.
    ///
    /// # Errors
    /// The dump failed.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut body = LinkMessage::default();
        // Without the counters a link is a third as long.
        body.attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.dump(RTM_GETLINK, &body, "list links", parse::link_of)
    }

    /// The addresses of one link (by index), or of all.
    ///
    /// # Errors
    /// The dump failed.
    pub fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>, NetlinkError> {
        let mut body = AddressMessage::default();
        body.header.index = index.unwrap_or(0);
        self.dump(RTM_GETADDR, &body, "list addresses", parse::address_of)
    }

    /// Unicast routes with one next hop. A table that does not exist is empty.
    ///
    /// # Errors
    /// The dump failed.
    pub fn routes(&mut self, v6: bool, filter: RouteFilter) -> Result<Vec<Route>, NetlinkError> {
        let mut body = RouteMessage::default();
        body.header.address_family = family(v6);
        body.attributes.extend(filter.table.map(RouteAttribute::Table));
        body.attributes.extend(filter.device.map(RouteAttribute::Oif));
        match self.dump(RTM_GETROUTE, &body, "list routes", parse::route_of) {
            // "FIB table does not exist" (IPv6 says nothing at all); a filter link that is gone.
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NODEV)) => Ok(Vec::new()),
            Err(e) if v6 && is_no_ipv6(&e) => Ok(Vec::new()),
            // Older kernels filter in part only, and one without IPv6 may give the routes of all families it has.
            Ok(mut routes) => {
                routes.retain(|r| {
                    r.to.addr().is_ipv6() == v6
                        && filter.table.is_none_or(|t| t == r.table)
                        && filter
                            .device
                            .is_none_or(|d| r.device.as_ref().is_some_and(|x| x.index == d))
                });
                Ok(routes)
            }
            other => other,
        }
    }

    /// The rules of a family.
    ///
    /// # Errors
    /// The dump failed.
    pub fn rules(&mut self, v6: bool) -> Result<Vec<Rule>, NetlinkError> {
        let mut body = RuleMessage::default();
        body.header.family = family(v6);
        match self.dump(RTM_GETRULE, &body, "list rules", parse::rule_of) {
            Err(e) if v6 && is_no_ipv6(&e) => Ok(Vec::new()),
            Ok(mut rules) => {
                rules.retain(|rule| rule.v6 == v6);
                Ok(rules)
            }
            other => other,
        }
    }

    /// The neighbours on one link.
    ///
    /// # Errors
    /// The dump failed.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>, NetlinkError> {
        use netlink_packet_route::neighbour::NeighbourAttribute;
        let mut body = NeighbourMessage::default();
        body.attributes.push(NeighbourAttribute::IfIndex(index));
        self.dump(RTM_GETNEIGH, &body, "list neighbours", parse::neighbour_of)
    }

    /// The route a packet of this host to `to` takes, as it stands in its table. None if there is none.
    ///
    /// # Errors
    /// The query failed.
    pub fn route_to(&mut self, to: IpAddr) -> Result<Option<Route>, NetlinkError> {
        let mut route = None;
        self.look_up(to, |body| route = parse::route_of(body))?;
        Ok(route)
    }

    /// Whether packets to this address are for this host itself. For an IPv6 address of ours that is so only once the
    /// kernel is ready to receive by it.
    ///
    /// # Errors
    /// The query failed.
    pub fn is_local(&mut self, address: IpAddr) -> Result<bool, NetlinkError> {
        const RTN_LOCAL: u8 = 2;
        let mut local = false;
        self.look_up(address, |body| {
            local = parse::fixed_header(body, 7) == Some(RTN_LOCAL)
        })?;
        Ok(local)
    }

    /// Gives `on` the route to an address as it stands in its table, if there is one.
    fn look_up(&mut self, to: IpAddr, on: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        let mut body = RouteMessage::default();
        body.header.address_family = family(to.is_ipv6());
        body.header.destination_prefix_length = IpNet::from(to).prefix_len();
        body.header.flags = RouteFlags::FibMatch;
        if to.is_ipv4() {
            // IPv6 names the table unasked, and refuses the flag.
            body.header.flags |= RouteFlags::LookupTable;
        }
        body.attributes.push(RouteAttribute::Destination(to.into()));
        match self.query(RTM_GETROUTE, &body, || format!("look up the route to {to}"), on) {
            Err(e) if matches!(e.errno(), Some(Errno(libc::ENETUNREACH | libc::EHOSTUNREACH))) => Ok(()),
            outcome => outcome,
        }
    }

    fn next(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    /// One question with at most one data message as its answer.
    fn query(
        &mut self,
        kind: u16,
        body: &impl netlink_packet_core::Emitable,
        what: impl Fn() -> String,
        mut on: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        let sequence = self.next();
        let mut bytes = Vec::with_capacity(128);
        message(&mut bytes, kind, 0, sequence, body);
        self.send(&bytes, 1, &what)?;
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(&what, |frame| match frame.kind {
                _ if frame.sequence != sequence => {}
                NLMSG_ERROR => outcome = Some(acknowledgement(&frame, &what)),
                _ => on(frame.body),
            })?;
        }
        Ok(outcome.unwrap_or(Ok(()))?)
    }

    fn dump<T>(
        &mut self,
        kind: u16,
        body: &impl netlink_packet_core::Emitable,
        what: &str,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for attempt in 0..DUMP_TRIES {
            // At once the first time: the change that came between is mostly over.
            if attempt > 1 {
                std::thread::sleep(DUMP_PAUSE);
            }
            let sequence = self.next();
            let mut bytes = Vec::with_capacity(128);
            message(&mut bytes, kind, DUMP, sequence, body);
            self.send(&bytes, 1, || what.to_owned())?;
            let mut found = Vec::new();
            let mut interrupted = false;
            let mut outcome: Option<Result<(), Refusal>> = None;
            while outcome.is_none() {
                self.receive(
                    || what.to_owned(),
                    |frame| {
                        if frame.sequence != sequence {
                            return;
                        }
                        interrupted |= frame.flags & DUMP_INTR != 0;
                        match frame.kind {
                            NLMSG_ERROR | NLMSG_DONE => {
                                outcome = Some(acknowledgement(&frame, || what.to_owned()))
                            }
                            _ => found.extend(read(frame.body)),
                        }
                    },
                )?;
            }
            outcome.unwrap_or(Ok(()))?;
            #[cfg(feature = "faults")]
            {
                interrupted |= super::faults::interrupts();
            }
            if !interrupted {
                return Ok(found);
            }
        }
        Err(NetlinkError::Unsteady {
            request: what.to_owned(),
            tries: DUMP_TRIES,
        })
    }

    fn send(&mut self, bytes: &[u8], messages: usize, what: impl Fn() -> String) -> Result<(), NetlinkError> {
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
    fn receive(
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
fn acknowledgement(frame: &Frame<'_>, what: impl Fn() -> String) -> Result<(), Refusal> {
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

/// The kernel was built or started without IPv6.
fn is_no_ipv6(error: &NetlinkError) -> bool {
    matches!(error.errno(), Some(Errno(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)))
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}
