//! Changes, their meaning in words, and their bytes.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::model::{Device, Neighbour, Route, Rule};
use crate::Mac;

/// A veth pair whose second end is born in another namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// Name of the end in the socket's namespace; it is up at once.
    pub name: String,
    /// MAC of that end. Given, so that udev does not rewrite it and nothing has to be read back.
    pub mac: Mac,
    /// Name of the other end; it is down.
    pub peer_name: String,
    /// MAC of the other end.
    pub peer_mac: Mac,
    /// Descriptor of the other end's namespace; must stay open until the request is answered.
    pub peer_netns: RawFd,
    /// MTU of both ends, bytes.
    pub mtu: u32,
}

/// One change. Displays as what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A new veth pair in one message.
    CreateVeth(Veth),
    /// Delete a link, and with it its routes, addresses and its peer.
    DeleteLink(Device),
    /// Set a link up or down, or its MTU.
    SetLink {
        /// The link.
        device: Device,
        /// Up or down; none leaves it.
        up: Option<bool>,
        /// MTU in bytes; none leaves it.
        mtu: Option<u32>,
    },
    /// Ask for a link, without looking at the answer. When a veth's second end comes up, the kernel lets the first one
    /// send only some time later, from a work queue; asked for the link, Linux 6.8 and newer do that work at once.
    AwaitCarrier(Device),
    /// Add an address; EEXIST if the link has it.
    AddAddress {
        /// The link.
        device: Device,
        /// The address with its prefix length.
        net: IpNet,
        /// IPv6: do not ask the link whether somebody else has it (IFA_F_NODAD).
        no_dad: bool,
        /// Make no route to the address' subnet (IFA_F_NOPREFIXROUTE), now or when the link comes up again.
        no_prefix_route: bool,
    },
    /// Add an address of link scope: the kernel chooses it as a source only towards that link, though it may stand on many.
    AddLinkAddress {
        /// The link.
        device: Device,
        /// The address with its prefix length.
        net: IpNet,
    },
    /// Take an address away.
    DeleteAddress {
        /// The link.
        device: Device,
        /// The address with its prefix length.
        net: IpNet,
    },
    /// Add a route; EEXIST if there is one with the same destination.
    AddRoute(Route),
    /// Add a route in the place of any with the same destination.
    ReplaceRoute(Route),
    /// Delete the first route with this destination, gateway and device; scope and protocol are not compared.
    DeleteRoute(Route),
    /// Add a rule; EEXIST if the same is there. Rules have no replace.
    AddRule(Rule),
    /// Delete the first rule that matches.
    DeleteRule(Rule),
    /// Set a neighbour in the place of any other.
    SetNeighbour(Neighbour),
}

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;

const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
/// `RT_SCOPE_NOWHERE`: in a delete, any scope.
const ANY_SCOPE: u8 = 255;

impl Request {
    /// Appends the message to `out` with NLM_F_REQUEST and NLM_F_ACK.
    pub(super) fn encode(&self, sequence: u32, out: &mut Vec<u8>) {
        match self {
            Self::CreateVeth(veth) => message(out, RTM_NEWLINK, CREATE | EXCL, sequence, &veth_message(veth)),
            Self::DeleteLink(device) => message(out, RTM_DELLINK, 0, sequence, &link_message(device)),
            Self::SetLink { device, up, mtu } => {
                let mut link = link_message(device);
                if let Some(up) = up {
                    link.header.change_mask = LinkFlags::Up;
                    link.header.flags = if *up { LinkFlags::Up } else { LinkFlags::empty() };
                }
                link.attributes.extend(mtu.map(LinkAttribute::Mtu));
                message(out, RTM_NEWLINK, 0, sequence, &link);
            }
            Self::AwaitCarrier(device) => {
                let mut link = link_message(device);
                link.attributes
                    .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
                message(out, RTM_GETLINK, 0, sequence, &link);
            }
            Self::AddAddress {
                device,
                net,
                no_dad,
                no_prefix_route,
            } => {
                let mut address = address_message(device, net);
                let mut flags = AddressFlags::empty();
                flags.set(AddressFlags::Nodad, *no_dad);
                flags.set(AddressFlags::Noprefixroute, *no_prefix_route);
                if !flags.is_empty() {
                    // The header's byte has no room for all of them.
                    address.attributes.push(AddressAttribute::Flags(flags));
                }
                message(out, RTM_NEWADDR, CREATE | EXCL, sequence, &address);
            }
            Self::AddLinkAddress { device, net } => {
                let mut address = address_message(device, net);
                address.header.scope = AddressScope::Link;
                message(out, RTM_NEWADDR, CREATE | EXCL, sequence, &address);
            }
            Self::DeleteAddress { device, net } => {
                message(out, RTM_DELADDR, 0, sequence, &address_message(device, net));
            }
            Self::AddRoute(route) => {
                message(out, RTM_NEWROUTE, CREATE | EXCL, sequence, &route_message(route))
            }
            Self::ReplaceRoute(route) => message(
                out,
                RTM_NEWROUTE,
                CREATE | REPLACE,
                sequence,
                &route_message(route),
            ),
            Self::DeleteRoute(route) => {
                let mut body = route_message(route);
                body.header.scope = RouteScope::from(ANY_SCOPE);
                body.header.protocol = RouteProtocol::Unspec;
                body.header.kind = RouteType::Unspec;
                message(out, RTM_DELROUTE, 0, sequence, &body);
            }
            Self::AddRule(rule) => message(out, RTM_NEWRULE, CREATE | EXCL, sequence, &rule_message(rule)),
            Self::DeleteRule(rule) => {
                let mut body = rule_message(rule);
                if rule.table.is_none() {
                    body.header.action = RuleAction::Unspec;
                }
                message(out, RTM_DELRULE, 0, sequence, &body);
            }
            Self::SetNeighbour(neighbour) => {
                message(
                    out,
                    RTM_NEWNEIGH,
                    CREATE | REPLACE,
                    sequence,
                    &neighbour_message(neighbour),
                );
            }
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateVeth(v) => write!(
                f,
                "create veth {} with peer {} in the pod, mtu {}",
                v.name, v.peer_name, v.mtu
            ),
            Self::DeleteLink(device) => write!(f, "delete link {device}"),
            Self::SetLink { device, up, mtu } => {
                write!(f, "set link {device}")?;
                match up {
                    Some(true) => write!(f, " up")?,
                    Some(false) => write!(f, " down")?,
                    None => {}
                }
                mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
            }
            Self::AwaitCarrier(device) => write!(f, "wait for link {device} to carry packets"),
            Self::AddAddress { device, net, .. } | Self::AddLinkAddress { device, net } => {
                write!(f, "add address {net} dev {device}")
            }
            Self::DeleteAddress { device, net } => write!(f, "delete address {net} dev {device}"),
            Self::AddRoute(route) => write!(f, "add route {route}"),
            Self::ReplaceRoute(route) => write!(f, "replace route {route}"),
            Self::DeleteRoute(route) => write!(f, "delete route {route}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
            Self::DeleteRule(rule) => write!(f, "delete rule {rule}"),
            Self::SetNeighbour(n) => {
                write!(f, "set neighbour {} lladdr {} dev {}", n.address, n.mac, n.device)
            }
        }
    }
}

/// Header and body of one message. The lengths are those the body claims, so nothing can run over.
pub(super) fn message(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &impl Emitable) {
    const REQUEST_ACK: u16 = 0x5;
    let start = out.len();
    let length = 16 + body.buffer_len();
    // Bodies are whole numbers of 4 bytes: fixed headers are, and attributes are padded.
    out.extend_from_slice(&(length as u32).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(flags | REQUEST_ACK).to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.resize(start + length, 0);
    if let Some(space) = out.get_mut(start + 16..) {
        body.emit(space);
    }
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

fn link_message(device: &Device) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = device.index;
    if device.index == 0 {
        link.attributes.push(LinkAttribute::IfName(device.name.clone()));
    }
    link
}

fn veth_message(veth: &Veth) -> LinkMessage {
    let mut peer = LinkMessage::default();
    // IFF_UP here would fail with ENOTCONN: the kernel joins the ends afterwards.
    peer.attributes = vec![
        LinkAttribute::IfName(veth.peer_name.clone()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::Address(veth.peer_mac.0.to_vec()),
        LinkAttribute::TxQueueLen(0),
        LinkAttribute::NetNsFd(veth.peer_netns),
    ];
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![
        LinkAttribute::IfName(veth.name.clone()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::Address(veth.mac.0.to_vec()),
        // No queue: a veth hands over at once. The AWS VPC CNI sends the same.
        LinkAttribute::TxQueueLen(0),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    link
}

fn address_message(device: &Device, net: &IpNet) -> AddressMessage {
    let mut body = AddressMessage::default();
    body.header.family = family(net.addr().is_ipv6());
    body.header.prefix_len = net.prefix_len();
    body.header.index = device.index;
    body.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    if let IpNet::V4(v4) = net
        && v4.prefix_len() < 31
    {
        body.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
    }
    body
}

/// The table's number where the header has room for it; larger ones stand in the attribute alone.
fn table8(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(0)
}

pub(super) fn route_message(route: &Route) -> RouteMessage {
    let mut body = RouteMessage::default();
    body.header.address_family = family(route.to.addr().is_ipv6());
    body.header.destination_prefix_length = route.to.prefix_len();
    body.header.table = table8(route.table);
    body.header.protocol = RouteProtocol::from(route.protocol);
    body.header.scope = RouteScope::from(route.scope.number());
    body.header.kind = RouteType::Unicast;
    if route.onlink {
        body.header.flags = RouteFlags::Onlink;
    }
    if route.to.prefix_len() > 0 {
        body.attributes
            .push(RouteAttribute::Destination(route.to.network().into()));
    }
    body.attributes.extend(
        route
            .gateway
            .map(|gateway| RouteAttribute::Gateway(gateway.into())),
    );
    body.attributes.extend(
        route
            .source
            .map(|source| RouteAttribute::PrefSource(source.into())),
    );
    body.attributes.extend(
        route
            .device
            .as_ref()
            .map(|device| RouteAttribute::Oif(device.index)),
    );
    body.attributes.push(RouteAttribute::Table(route.table));
    body
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut body = RuleMessage::default();
    body.header.family = family(rule.v6);
    body.header.dst_len = rule.to.map_or(0, |net| net.prefix_len());
    body.header.src_len = rule.from.map_or(0, |net| net.prefix_len());
    body.header.table = rule.table.map_or(0, table8);
    body.header.action = RuleAction::ToTable;
    body.attributes
        .extend(rule.to.map(|net| RuleAttribute::Destination(net.network())));
    body.attributes
        .extend(rule.from.map(|net| RuleAttribute::Source(net.network())));
    body.attributes.push(RuleAttribute::Priority(rule.priority));
    if let Some((value, mask)) = rule.mark {
        body.attributes.push(RuleAttribute::FwMark(value));
        body.attributes.push(RuleAttribute::FwMask(mask));
    }
    body.attributes
        .extend(rule.iif.clone().map(RuleAttribute::Iifname));
    body.attributes.extend(rule.table.map(RuleAttribute::Table));
    body
}

fn neighbour_message(neighbour: &Neighbour) -> NeighbourMessage {
    let mut body = NeighbourMessage::default();
    body.header.family = family(neighbour.address.is_ipv6());
    body.header.ifindex = neighbour.device.index;
    body.header.state = if neighbour.permanent {
        NeighbourState::Permanent
    } else {
        NeighbourState::Reachable
    };
    let address = match neighbour.address {
        IpAddr::V4(v4) => netlink_packet_route::neighbour::NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => netlink_packet_route::neighbour::NeighbourAddress::Inet6(v6),
    };
    body.attributes = vec![
        NeighbourAttribute::Destination(address),
        NeighbourAttribute::LinkLayerAddress(neighbour.mac.0.to_vec()),
    ];
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(request: &Request) -> Vec<u8> {
        let mut out = Vec::new();
        request.encode(7, &mut out);
        out
    }

    #[test]
    fn a_message_states_its_own_length_and_sequence() {
        let out = bytes(&Request::AddRule(Rule::to(512, "10.0.1.5".parse().unwrap(), 254)));
        assert_eq!(
            u32::from_ne_bytes(out[..4].try_into().unwrap()) as usize,
            out.len()
        );
        assert_eq!(u32::from_ne_bytes(out[8..12].try_into().unwrap()), 7);
        assert_eq!(out.len() % 4, 0, "the next message of a batch must be aligned");
    }

    #[test]
    fn a_table_beyond_a_byte_stands_in_the_attribute_only() {
        let out = bytes(&Request::AddRule(Rule::from(
            1536,
            "10.0.1.5".parse().unwrap(),
            10_103,
        )));
        assert_eq!(out[16 + 4], 0, "fib_rule_hdr.table");
        assert!(out.windows(4).any(|w| w == 10_103u32.to_ne_bytes()));
    }

    #[test]
    fn deleting_a_rule_without_a_table_matches_any_action() {
        let rule = Rule {
            table: None,
            ..Rule::from(1536, "10.0.1.5".parse().unwrap(), 0)
        };
        assert_eq!(
            bytes(&Request::DeleteRule(rule))[16 + 7],
            0,
            "fib_rule_hdr.action"
        );
    }

    #[test]
    fn a_request_reads_as_the_ip_command_would() {
        let device = Device::new(9, "eniabc");
        let route = Route::on_link("10.0.1.5/32".parse().unwrap(), device.clone(), 254);
        let rule = Rule {
            mark: Some((0x80, 0x80)),
            ..Rule::bare(1024, false, Some(254))
        };
        let default = Route::default_by("169.254.1.1".parse().unwrap(), Device::new(2, ""), 254, true);
        for (request, text) in [
            (
                Request::ReplaceRoute(route),
                "replace route 10.0.1.5/32 dev eniabc table 254",
            ),
            (
                Request::AddRule(rule),
                "add rule 1024: from all fwmark 0x80/0x80 table 254",
            ),
            (
                Request::AddRoute(default),
                "add route default via 169.254.1.1 dev #2 table 254",
            ),
            (
                Request::SetLink {
                    device,
                    up: Some(true),
                    mtu: Some(9001),
                },
                "set link eniabc up mtu 9001",
            ),
        ] {
            assert_eq!(request.to_string(), text);
        }
    }
}
