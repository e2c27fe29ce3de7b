//! Questions to the kernel: single ones, and lists (dumps).

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::rule::RuleMessage;

use super::error::{Errno, NetlinkError, Refusal};
use super::model::{Address, Link, Neighbour, Route, Rule};
use super::parse;
use super::request::message;
use super::socket::{NLMSG_ERROR, Socket, acknowledgement};

const NLMSG_DONE: u16 = 3;
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTM_GETRULE: u16 = 34;
const DUMP: u16 = 0x300;
const DUMP_INTR: u16 = 0x10;
const DUMP_TRIES: u32 = 5;
const DUMP_PAUSE: Duration = Duration::from_millis(100);

/// Which routes a dump gives. The kernel filters (strict checking).
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteFilter {
    /// Only this table; else all.
    pub table: Option<u32>,
    /// Only by this link's index.
    pub device: Option<u32>,
}

impl Socket {
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

    /// One question with at most one data message as its answer.
    pub(crate) fn query(
        &mut self,
        kind: u16,
        body: &impl Emitable,
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

    pub(crate) fn dump<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
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
