//! The things rtnetlink deals in, as far as a VPC datapath needs them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Mac;

/// The main routing table.
pub const MAIN: u32 = 254;
/// Routes made by the kernel itself (RTPROT_KERNEL), such as an address' connected subnet.
pub const PROTO_KERNEL: u8 = 2;
/// Routes made "at boot" (RTPROT_BOOT): what `ip route` and the AWS VPC CNI leave when they name no protocol.
pub const PROTO_BOOT: u8 = 3;

/// A link by index, with its name for messages. Index 0 means: by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The kernel's index; 0 if not known.
    pub index: u32,
    /// The name; empty if not known.
    pub name: String,
}

impl Device {
    /// A link whose index is known.
    pub fn new(index: u32, name: impl Into<String>) -> Self {
        Self {
            index,
            name: name.into(),
        }
    }

    /// A link to be found by its name.
    pub fn named(name: impl Into<String>) -> Self {
        Self::new(0, name)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "#{}", self.index)
        } else {
            f.write_str(&self.name)
        }
    }
}

/// What the kernel tells of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index in its namespace.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The Ethernet address; none for links without one.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// The driver's kind, `veth`, `vlan`; none for physical links.
    pub kind: Option<String>,
}

impl Link {
    /// The link as the object of a request.
    pub fn device(&self) -> Device {
        Device::new(self.index, self.name.clone())
    }
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of the link that has it.
    pub index: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// Its scope; IPv6 link-local addresses have [`Scope::Link`].
    pub scope: Scope,
}

/// How far a route or an address reaches (`RT_SCOPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere, by a gateway.
    Universe,
    /// On the link.
    Link,
    /// This host.
    Host,
    /// A number of the site's own.
    Other(u8),
}

impl Scope {
    /// The kernel's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Universe => 0,
            Self::Link => 253,
            Self::Host => 254,
            Self::Other(n) => n,
        }
    }

    /// From the kernel's number.
    pub fn from_number(n: u8) -> Self {
        match n {
            0 => Self::Universe,
            253 => Self::Link,
            254 => Self::Host,
            n => Self::Other(n),
        }
    }
}

/// A unicast route with at most one next hop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The destination; prefix length 0 is the default route.
    pub to: IpNet,
    /// The next hop, if any.
    pub gateway: Option<IpAddr>,
    /// The link it leaves by; in a delete, none means any.
    pub device: Option<Device>,
    /// The routing table.
    pub table: u32,
    /// The scope. The kernel keeps none for IPv6.
    pub scope: Scope,
    /// Do not look whether the gateway is on the link (RTNH_F_ONLINK).
    pub onlink: bool,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
}

impl Route {
    /// A route to `to`, straight onto the link.
    pub fn on_link(to: IpNet, device: Device, table: u32) -> Self {
        Self {
            to,
            gateway: None,
            device: Some(device),
            table,
            scope: Scope::Link,
            onlink: false,
            source: None,
            protocol: PROTO_BOOT,
        }
    }

    /// The default route by `gateway`.
    pub fn default_by(gateway: IpAddr, device: Device, table: u32, onlink: bool) -> Self {
        Self {
            to: any(gateway),
            gateway: Some(gateway),
            device: Some(device),
            table,
            scope: Scope::Universe,
            onlink,
            source: None,
            protocol: PROTO_BOOT,
        }
    }
}

/// The prefix of length 0 in the address' family.
fn any(of: IpAddr) -> IpNet {
    match of {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.to.prefix_len() == 0 {
            write!(f, "default")?
        } else {
            write!(f, "{}", self.to)?
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(device) = &self.device {
            write!(f, " dev {device}")?;
        }
        write!(f, " table {}", self.table)
    }
}

/// A policy routing rule. In a delete, what is not given matches anything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The preference; lower is looked at first.
    pub priority: u32,
    /// Whether the rule is of IPv6.
    pub v6: bool,
    /// Source prefix.
    pub from: Option<IpNet>,
    /// Destination prefix.
    pub to: Option<IpNet>,
    /// Value and mask of the packet's mark.
    pub mark: Option<(u32, u32)>,
    /// The link the packet came in by.
    pub iif: Option<String>,
    /// The table to look in; none for other actions.
    pub table: Option<u32>,
}

impl Rule {
    /// Packets to `to` are looked up in `table`.
    pub fn to(priority: u32, to: IpAddr, table: u32) -> Self {
        Self {
            to: Some(to.into()),
            ..Self::bare(priority, to.is_ipv6(), Some(table))
        }
    }

    /// Packets from `from` are looked up in `table`.
    pub fn from(priority: u32, from: IpAddr, table: u32) -> Self {
        Self {
            from: Some(from.into()),
            ..Self::bare(priority, from.is_ipv6(), Some(table))
        }
    }

    /// A rule without selectors.
    pub fn bare(priority: u32, v6: bool, table: Option<u32>) -> Self {
        Self {
            priority,
            v6,
            from: None,
            to: None,
            mark: None,
            iif: None,
            table,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        match &self.from {
            Some(from) => write!(f, " from {from}")?,
            None => write!(f, " from all")?,
        }
        if let Some(to) = &self.to {
            write!(f, " to {to}")?;
        }
        if let Some((value, mask)) = self.mark {
            write!(f, " fwmark {value:#x}/{mask:#x}")?;
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        match self.table {
            Some(table) => write!(f, " table {table}"),
            None => Ok(()),
        }
    }
}

/// An entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The link it is on.
    pub device: Device,
    /// Whose address is known.
    pub address: IpAddr,
    /// Where it is.
    pub mac: Mac,
    /// Never forgotten nor asked for again (NUD_PERMANENT).
    pub permanent: bool,
}
