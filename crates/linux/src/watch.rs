//! Links, addresses, routes and rules as they come and go: the kernel's multicast messages.
//!
//! The socket does not block, so that it can be waited for together with other things (`AsFd`, tokio's `AsyncFd`).
//! Open it first and list the present state after: then nothing falls between. After [`Event::Overrun`] list again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::Mac;
use crate::netlink::{Address, Link, Route, Rule, parse};

/// What to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Links.
    Link,
    /// IPv4 addresses.
    Address4,
    /// IPv4 routes.
    Route4,
    /// IPv4 rules.
    Rule4,
    /// IPv6 addresses.
    Address6,
    /// IPv6 routes.
    Route6,
    /// IPv6 rules.
    Rule6,
    /// `forwarding`, `rp_filter` and their like of IPv4.
    Parameters4,
    /// `forwarding` and its like of IPv6.
    Parameters6,
}

impl Group {
    /// `RTNLGRP_*`.
    fn number(self) -> u32 {
        match self {
            Self::Link => 1,
            Self::Address4 => 5,
            Self::Route4 => 7,
            Self::Rule4 => 8,
            Self::Address6 => 9,
            Self::Route6 => 11,
            Self::Rule6 => 19,
            Self::Parameters4 => 24,
            Self::Parameters6 => 25,
        }
    }
}

/// A link came, changed or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    /// The kernel's index.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// It is no more, or moved to another namespace.
    pub gone: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link.
    Link(LinkEvent),
    /// An address.
    Address {
        /// The address.
        address: Address,
        /// Taken away.
        gone: bool,
    },
    /// A unicast route with one next hop.
    Route {
        /// The route.
        route: Route,
        /// Taken away.
        gone: bool,
    },
    /// A rule.
    Rule {
        /// The rule.
        rule: Rule,
        /// Taken away.
        gone: bool,
    },
    /// A kernel parameter below `net/ipv4/conf` or `net/ipv6/conf`.
    Parameter {
        /// Of which link; none: `all` or `default`.
        index: Option<u32>,
    },
    /// The kernel dropped messages since we read too slowly: what is known may be wrong.
    Overrun,
}

/// A message, and who asked for the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub event: Event,
    /// Port of the netlink socket that asked for it, by default its process's id; 0: nobody did, the kernel acted by itself.
    pub port: u32,
}

/// A subscription.
#[derive(Debug)]
pub struct Watch {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
    events: VecDeque<Notice>,
}

/// The subscription failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch the kernel's network changes ({step}): {source}")]
pub struct WatchError {
    step: &'static str,
    source: io::Error,
}

impl WatchError {
    pub(crate) fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { step, source }
    }
}

impl Watch {
    /// Subscribes in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refused the socket or a group.
    pub fn open(groups: &[Group]) -> Result<Self, WatchError> {
        let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE)
            .map_err(WatchError::at("socket"))?;
        socket
            .set_non_blocking(true)
            .map_err(WatchError::at("non-blocking"))?;
        socket.bind_auto().map_err(WatchError::at("bind"))?;
        for group in groups {
            socket
                .add_membership(group.number())
                .map_err(WatchError::at("join"))?;
        }
        Ok(Self {
            socket,
            buffer: Vec::new(),
            events: VecDeque::new(),
        })
    }

    /// The next event; none if there is nothing to read now: wait until the descriptor is readable.
    ///
    /// # Errors
    /// Reading failed.
    pub fn next_event(&mut self) -> Result<Option<Notice>, WatchError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            self.buffer.clear();
            self.buffer.reserve(32 * 1024);
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => self.events.extend(parse::frames(&self.buffer).filter_map(|f| {
                    let event = event_of(f.kind, f.body)?;
                    Some(Notice { event, port: f.port })
                })),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    let event = Event::Overrun;
                    return Ok(Some(Notice { event, port: 0 }));
                }
                Err(source) => {
                    return Err(WatchError {
                        step: "receive",
                        source,
                    });
                }
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn event_of(kind: u16, body: &[u8]) -> Option<Event> {
    Some(match kind {
        // A bridge tells of its ports in messages of its own family, which say "gone" of links that are not.
        16 | 17 if body.first() == Some(&0) => Event::Link(link_event(parse::link_of(body)?, kind == 17)),
        20 | 21 => Event::Address {
            address: parse::address_of(body)?,
            gone: kind == 21,
        },
        24 | 25 => Event::Route {
            route: parse::route_of(body)?,
            gone: kind == 25,
        },
        32 | 33 => Event::Rule {
            rule: parse::rule_of(body)?,
            gone: kind == 33,
        },
        // netconf(7) has no page; include/uapi/linux/netconf.h: NETCONFA_IFINDEX is attribute 1, negative for all and default.
        80 | 81 => {
            let (_, value) = parse::attributes(body, 4).find(|(kind, _)| *kind == 1)?;
            let index = i32::from_ne_bytes(value.try_into().ok()?);
            Event::Parameter {
                index: u32::try_from(index).ok(),
            }
        }
        _ => return None,
    })
}

fn link_event(link: Link, gone: bool) -> LinkEvent {
    LinkEvent {
        index: link.index,
        name: link.name,
        mac: link.mac,
        mtu: link.mtu,
        up: link.up,
        gone,
    }
}
