//! The node's own part of the datapath: links and routing tables of its interfaces, three kinds of rules, sysctls.
//!
//! [`observe()`] reads, [`diff()`] decides (pure), [`apply()`] writes. What is not ours is left alone: other links, other
//! routes in the same tables, other rules.
//!
//! | rule | leads to | for |
//! |---|---|---|
//! | 1024, mark | main | replies that must leave by the primary interface |
//! | 1535, to a CIDR | main | services outside that are reached by the primary interface, from every pod |
//! | 32765, from a secondary interface's own address | its table | the interface's own replies |

mod apply;
mod diff;
mod observe;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::Mac;
use crate::netlink::{Address, Link, NetlinkError, Request, Route, Rule};
use crate::sysctl::SysctlError;

pub use apply::apply;
pub use diff::{diff, marks};
pub use observe::observe;

/// Priority of the rule that brings marked packets back to the primary interface.
pub const MARK_RULE: u32 = 1024;
/// Priority of the rules that lead to services outside by the primary interface; right before those from pods.
pub const SERVICE_RULE: u32 = 1535;
/// Priority of the rules for the secondary interfaces' own addresses. Also what `ip rule add` takes when none is
/// given, so rules of others stand there too.
pub const ENI_RULE: u32 = 32_765;

/// What the node shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostWanted {
    /// The primary network interface.
    pub primary: Primary,
    /// The other interfaces that are attached.
    pub secondaries: Vec<Secondary>,
    /// Pods have IPv6 addresses: rules and interfaces' addresses are of that family, and IPv6 is forwarded.
    pub ipv6: bool,
    /// The marks whose packets go to the main table: the present one, and those that connections of an earlier setting still need.
    pub marks: BTreeSet<u32>,
    /// Packets to these go to the main table, from whichever pod they are.
    pub services: Vec<Ipv4Net>,
    /// Own addresses of interfaces that were detached: no rule may lead packets from them.
    pub gone: Vec<IpAddr>,
}

/// The primary interface. Its addresses and routes are the operating system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Primary {
    /// Its MAC, by which the link is found.
    pub mac: Mac,
    /// Bytes.
    pub mtu: u32,
}

/// A secondary interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secondary {
    /// Its MAC, by which the link is found.
    pub mac: Mac,
    /// Bytes.
    pub mtu: u32,
    /// Its own (primary) address with the subnet's prefix length.
    pub address: IpNet,
    /// The subnet's router: IPv4 the subnet's base + 1, IPv6 `fe80:ec2::1`.
    pub gateway: IpAddr,
    /// The routing table of its pods.
    pub table: u32,
    /// The rule by which packets from its own address use its table.
    pub own_rule: OwnRule,
}

/// The rule for an interface's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnRule {
    /// There shall be one.
    Ours,
    /// There shall be none: so it is for trunks.
    None,
    /// Somebody else sees to it, the operating system's image perhaps: neither made nor removed.
    Foreign,
}

/// The rules that send an interface's own address to a routing table, whoever made them, in the kernel's order.
pub fn rules_from(rules: &[Rule], address: IpAddr) -> impl Iterator<Item = (u32, u32)> + '_ {
    rules
        .iter()
        .filter(move |rule| rule.from == Some(IpNet::from(address)) && rule.to.is_none())
        .filter_map(|rule| Some((rule.priority, rule.table?)))
}

/// What the kernel shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// Routes of the main table and of the secondaries' tables.
    pub routes: Vec<Route>,
    /// All rules.
    pub rules: Vec<Rule>,
    /// Kernel parameters we care for, by key; those that do not exist are left out.
    pub sysctls: Vec<(String, String)>,
}

/// One change. Displays as what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of links, addresses, routes, rules.
    Netlink(Request),
    /// Of a kernel parameter.
    Sysctl {
        /// The path below `/proc/sys`.
        key: String,
        /// The value.
        value: String,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Netlink(request) => request.fmt(f),
            Self::Sysctl { key, value } => write!(f, "set sysctl {key} to {value}"),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order. Empty if the kernel is as wanted.
    pub changes: Vec<Change>,
    /// Interfaces whose link is not there (yet): [`crate::watch`] tells when it comes.
    pub missing: Vec<Mac>,
}

/// The host's network could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// By netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// By `/proc/sys`.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// A kernel parameter that is wanted.
struct Parameter {
    key: String,
    value: &'static str,
    /// Left alone where it has this value.
    unless: Option<&'static str>,
}

/// The sysctls wanted, for a primary interface with this name, in the order in which they are to be written.
fn sysctls(primary: &str, ipv6: bool) -> Vec<Parameter> {
    let wanted = |key: String, value| Parameter {
        key,
        value,
        unless: None,
    };
    let mut all = vec![
        wanted("net/ipv4/ip_forward".to_owned(), "1"),
        // Loose: a reply to a pod on a secondary interface that went out by the primary comes back by it, where the
        // strict reverse path (rule 1536) leads elsewhere.
        wanted(format!("net/ipv4/conf/{primary}/rp_filter"), "2"),
    ];
    if ipv6 {
        all.extend([
            wanted("net/ipv6/conf/all/disable_ipv6".to_owned(), "0"),
            // A router takes no advertisements unless told so, and the way out that it has from one would go with the
            // next line. Where none are taken anyway, another program looks after them.
            Parameter {
                unless: Some("0"),
                ..wanted(format!("net/ipv6/conf/{primary}/accept_ra"), "2")
            },
            wanted("net/ipv6/conf/all/forwarding".to_owned(), "1"),
        ]);
    }
    all
}
