//! Reading the kernel's answers, attribute by attribute. Everything here takes any bytes without panicking; what cannot be read is left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::NlasIterator;

use super::model::{Address, Device, Link, Neighbour, Route, Rule, Scope};
use crate::Mac;

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Of the socket that asked; 0: the kernel of its own accord. In notices.
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

/// Splits a datagram into its messages; ends at the first that claims more than there is.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let length = read_u32(datagram, 0)? as usize;
        let frame = Frame {
            kind: read_u16(datagram, 4)?,
            flags: read_u16(datagram, 6)?,
            sequence: read_u32(datagram, 8)?,
            port: read_u32(datagram, 12)?,
            body: datagram.get(16..length)?,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(frame)
    })
}

/// The attributes of a body after its fixed header, as (type, value).
pub(crate) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let attributes = NlasIterator::new(body.get(fixed..).unwrap_or_default());
    attributes.map_while(Result::ok).filter_map(|nla| {
        let length = usize::from(nla.length());
        let kind = nla.kind();
        nla.into_inner().get(4..length).map(|value| (kind, value))
    })
}

/// A byte of the body's fixed header.
pub(crate) fn fixed_header(body: &[u8], at: usize) -> Option<u8> {
    body.get(at).copied()
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

pub(super) fn error_text(body: &[u8], fixed: usize) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    attributes(body, fixed)
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, value)| text(value))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|o| Ipv4Addr::from(o).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|o| Ipv6Addr::from(o).into()),
        _ => None,
    }
}

/// Whether the body's family byte says IPv6; none for families that are not of the internet.
fn is_v6(body: &[u8]) -> Option<bool> {
    match i32::from(*body.first()?) {
        libc::AF_INET => Some(false),
        libc::AF_INET6 => Some(true),
        _ => None,
    }
}

fn prefix(address: Option<IpAddr>, length: u8, v6: bool) -> Option<IpNet> {
    let zero = if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    IpNet::new(address.unwrap_or(zero), length).ok()
}

/// RTM_NEWLINK or RTM_DELLINK.
pub(crate) fn link_of(body: &[u8]) -> Option<Link> {
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    let flags = read_u32(body, 8)?;
    let mut link = Link {
        index: read_u32(body, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        kind: None,
    };
    for (kind, value) in attributes(body, 16) {
        match kind {
            IFLA_ADDRESS => link.mac = Mac::from_slice(value),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = read_u32(value, 0)?,
            IFLA_LINKINFO => {
                link.kind = attributes(value, 0)
                    .find(|(k, _)| *k == IFLA_INFO_KIND)
                    .map(|(_, v)| text(v));
            }
            _ => {}
        }
    }
    Some(link)
}

/// RTM_NEWADDR.
pub(crate) fn address_of(body: &[u8]) -> Option<Address> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let v6 = is_v6(body)?;
    let mut address = None;
    let mut local = None;
    for (kind, value) in attributes(body, 8) {
        match kind {
            IFA_ADDRESS => address = ip(value),
            IFA_LOCAL => local = ip(value),
            _ => {}
        }
    }
    Some(Address {
        index: read_u32(body, 4)?,
        net: prefix(Some(local.or(address)?), fixed_header(body, 1)?, v6)?,
        scope: Scope::from_number(fixed_header(body, 3)?),
    })
}

/// RTM_NEWROUTE. Routes that are not unicast, or have several next hops, are left out: none of them is ours.
pub(crate) fn route_of(body: &[u8]) -> Option<Route> {
    const RTN_UNICAST: u8 = 1;
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PREFSRC: u16 = 7;
    const RTA_TABLE: u16 = 15;
    const RTNH_F_ONLINK: u32 = 4;
    const RTM_F_CLONED: u32 = 0x200;
    let v6 = is_v6(body)?;
    let flags = read_u32(body, 8)?;
    if fixed_header(body, 7)? != RTN_UNICAST || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut destination = None;
    let mut route = Route {
        to: prefix(None, 0, v6)?,
        gateway: None,
        device: None,
        table: u32::from(fixed_header(body, 4)?),
        scope: Scope::from_number(fixed_header(body, 6)?),
        onlink: flags & RTNH_F_ONLINK != 0,
        source: None,
        protocol: fixed_header(body, 5)?,
    };
    for (kind, value) in attributes(body, 12) {
        match kind {
            RTA_DST => destination = ip(value),
            RTA_OIF => route.device = read_u32(value, 0).map(|index| Device::new(index, "")),
            RTA_GATEWAY => route.gateway = ip(value),
            RTA_PREFSRC => route.source = ip(value),
            RTA_TABLE => route.table = read_u32(value, 0)?,
            _ => {}
        }
    }
    route.to = prefix(destination, fixed_header(body, 1)?, v6)?;
    route.device.is_some().then_some(route)
}

/// RTM_NEWRULE.
pub(crate) fn rule_of(body: &[u8]) -> Option<Rule> {
    const FRA_DST: u16 = 1;
    const FRA_SRC: u16 = 2;
    const FRA_IIFNAME: u16 = 3;
    const FRA_PRIORITY: u16 = 6;
    const FRA_FWMARK: u16 = 10;
    const FRA_TABLE: u16 = 15;
    const FRA_FWMASK: u16 = 16;
    const FR_ACT_TO_TBL: u8 = 1;
    let v6 = is_v6(body)?;
    let to_table = fixed_header(body, 7)? == FR_ACT_TO_TBL;
    // The kernel leaves the priority out when it is 0.
    let mut rule = Rule::bare(0, v6, None);
    let (mut from, mut to, mut mark, mut mask) = (None, None, None, None);
    let mut table = u32::from(fixed_header(body, 4)?);
    for (kind, value) in attributes(body, 12) {
        match kind {
            FRA_DST => to = ip(value),
            FRA_SRC => from = ip(value),
            FRA_IIFNAME => rule.iif = Some(text(value)),
            FRA_PRIORITY => rule.priority = read_u32(value, 0)?,
            FRA_FWMARK => mark = read_u32(value, 0),
            FRA_FWMASK => mask = read_u32(value, 0),
            FRA_TABLE => table = read_u32(value, 0)?,
            _ => {}
        }
    }
    rule.table = to_table.then_some(table);
    rule.to = to.and_then(|a| prefix(Some(a), *body.get(1)?, v6));
    rule.from = from.and_then(|a| prefix(Some(a), *body.get(2)?, v6));
    if mark.is_some() || mask.is_some() {
        rule.mark = Some((mark.unwrap_or(0), mask.unwrap_or(u32::MAX)));
    }
    Some(rule)
}

/// RTM_NEWNEIGH with an Ethernet address.
pub(crate) fn neighbour_of(body: &[u8]) -> Option<Neighbour> {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    const NUD_PERMANENT: u16 = 0x80;
    is_v6(body)?;
    let mut address = None;
    let mut mac = None;
    for (kind, value) in attributes(body, 12) {
        match kind {
            NDA_DST => address = ip(value),
            NDA_LLADDR => mac = Mac::from_slice(value),
            _ => {}
        }
    }
    Some(Neighbour {
        device: Device::new(read_u32(body, 4)?, ""),
        address: address?,
        mac: mac?,
        permanent: read_u16(body, 8)? & NUD_PERMANENT != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::request::Request;
    use proptest::prelude::*;

    fn body(request: &Request) -> Vec<u8> {
        let mut out = Vec::new();
        request.encode(1, &mut out);
        out.split_off(16)
    }

    fn nets() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<[u8; 4]>(), 1u8..=32).prop_map(|(a, l)| IpNet::new(a.into(), l).unwrap().trunc()),
            (any::<[u8; 16]>(), 1u8..=128).prop_map(|(a, l)| IpNet::new(a.into(), l).unwrap().trunc()),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(bytes: Vec<u8>) {
            for frame in frames(&bytes) {
                let _ = (link_of(frame.body), address_of(frame.body), route_of(frame.body));
            }
            let _ = (link_of(&bytes), address_of(&bytes), route_of(&bytes), rule_of(&bytes), neighbour_of(&bytes));
            let _ = error_text(&bytes, 4);
        }

        #[test]
        fn a_route_reads_back_as_written(to in nets(), index in 1u32.., table in 1u32.., onlink: bool, protocol: u8) {
            let mut route = Route::on_link(to, Device::new(index, ""), table);
            route.onlink = onlink;
            route.protocol = protocol;
            prop_assert_eq!(route_of(&body(&Request::AddRoute(route.clone()))), Some(route));
        }

        #[test]
        fn a_rule_reads_back_as_written(from in nets(), priority: u32, table in 1u32.., mark: Option<(u32, u32)>) {
            let v6 = from.addr().is_ipv6();
            let rule = Rule { from: Some(from), mark, ..Rule::bare(priority, v6, Some(table)) };
            prop_assert_eq!(rule_of(&body(&Request::AddRule(rule.clone()))), Some(rule));
        }
    }

    #[test]
    fn a_message_that_claims_too_much_ends_the_datagram() {
        let mut bytes = vec![0u8; 20];
        bytes[..4].copy_from_slice(&400u32.to_ne_bytes());
        assert_eq!(frames(&bytes).count(), 0);
        bytes[..4].copy_from_slice(&3u32.to_ne_bytes());
        assert_eq!(
            frames(&bytes).count(),
            0,
            "a length below the header's would never end"
        );
    }
}
