//! What the network of the VPC should look like now: the wanted state the fabric is made to match.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::config::{Protocol, Rule, RulePeer, SubnetRoute};
use super::ids::{EniId, GroupId, InstanceId, Mac, SubnetId};
use super::request::InterfaceKind;
use super::state::{Attachment, Interface};
use super::vpc::Vpc;

/// The whole wanted state. Two views are equal when nothing the packets can notice differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FabricView {
    /// All CIDRs of the VPC, the first one first.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Its IPv6 CIDR.
    pub ipv6: Option<Ipv6Net>,
    /// The peered network.
    pub peer: Option<Ipv4Net>,
    /// The internet's hosts.
    pub internet: Ipv4Net,
    /// Its IPv6 hosts, where the VPC has IPv6.
    pub internet_ipv6: Option<Ipv6Net>,
    /// The range public addresses come from.
    pub public_pool: Ipv4Net,
    /// The NAT gateway's public address.
    pub nat_public: Ipv4Addr,
    /// Subnets by id.
    pub subnets: Vec<FabricSubnet>,
    /// Instances that are pending, running or shutting down.
    pub nodes: Vec<FabricNode>,
    /// Interfaces whose attachment is complete.
    pub interfaces: Vec<FabricInterface>,
    /// Private to public address, one to one; only addresses of the interfaces above.
    pub public: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Security groups.
    pub groups: Vec<FabricGroup>,
}

/// A subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FabricSubnet {
    /// Its id.
    pub id: SubnetId,
    /// Its name.
    pub name: String,
    /// Its zone, `us-west-2a`.
    pub zone: String,
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// Its IPv6 addresses.
    pub ipv6: Option<Ipv6Net>,
    /// The implicit router's address in it: the first one after the network's.
    pub gateway: Ipv4Addr,
    /// Its default route.
    pub route: SubnetRoute,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FabricNode {
    /// Its instance id.
    pub id: InstanceId,
    /// Its name, `node-1`.
    pub name: String,
    /// Its instance type.
    pub instance_type: String,
}

/// An attached interface: a link in its node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FabricInterface {
    /// Its id.
    pub eni: EniId,
    /// The instance it is attached to.
    pub node: InstanceId,
    /// Position on its card; 0 on card 0 is the primary interface.
    pub device_index: u32,
    /// Network card.
    pub card: u32,
    /// What it is for. One for EFA only shows no link in the instance.
    pub kind: InterfaceKind,
    /// Its MAC.
    pub mac: Mac,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its primary address; none for an EFA-only interface.
    pub primary: Option<Ipv4Addr>,
    /// All it owns: the primary first, secondary addresses as /32, prefixes as /28.
    pub addresses: Vec<Ipv4Net>,
    /// Its own IPv6 address.
    pub primary_ipv6: Option<Ipv6Addr>,
    /// All it owns of IPv6: addresses as /128, prefixes as /80.
    pub ipv6: Vec<Ipv6Net>,
    /// False: it may send from and receive for addresses it does not own.
    pub source_dest_check: bool,
    /// Its security groups.
    pub groups: Vec<GroupId>,
}

/// A security group, its references to groups by id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FabricGroup {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// What may come in.
    pub ingress: Vec<FabricRule>,
    /// What may go out.
    pub egress: Vec<FabricRule>,
}

/// A rule of a security group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FabricRule {
    /// What it lets through.
    pub protocol: Protocol,
    /// First and last destination port; `None`: all.
    pub ports: Option<(u16, u16)>,
    /// The other side.
    pub peer: FabricPeer,
}

/// The other side of a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FabricPeer {
    /// IPv4 addresses.
    Cidr(Ipv4Net),
    /// IPv6 addresses.
    Ipv6(Ipv6Net),
    /// Every address of every interface in that group.
    Group(GroupId),
}

impl Vpc {
    /// What the fabric should look like now.
    #[must_use]
    pub fn fabric(&self) -> FabricView {
        let linked = || {
            self.interfaces
                .values()
                .filter_map(|i| i.linked().map(|a| (i, a)))
        };
        let mut interfaces: Vec<FabricInterface> = linked().map(|(i, a)| fabric_interface(i, a)).collect();
        interfaces.sort_by(|a, b| (&a.node, a.card, a.device_index).cmp(&(&b.node, b.card, b.device_index)));
        FabricView {
            vpc_cidrs: self.cidrs(),
            ipv6: self.config.ipv6,
            peer: self.config.peer,
            internet: self.config.internet,
            internet_ipv6: self.config.ipv6.map(|_| self.config.internet_ipv6),
            public_pool: self.config.public_pool,
            nat_public: self
                .config
                .public_pool
                .hosts()
                .next()
                .unwrap_or(Ipv4Addr::UNSPECIFIED),
            subnets: self
                .subnet_order
                .iter()
                .filter_map(|id| self.subnets.get(id))
                .map(|s| FabricSubnet {
                    id: s.id.clone(),
                    name: s.name.clone(),
                    zone: s.zone.clone(),
                    cidr: s.cidr,
                    ipv6: s.ipv6,
                    gateway: s.gateway(),
                    route: s.route,
                })
                .collect(),
            nodes: self
                .instances
                .values()
                .filter(|i| i.exists())
                .map(|i| FabricNode {
                    id: i.id.clone(),
                    name: i.name().to_owned(),
                    instance_type: i.instance_type.clone(),
                })
                .collect(),
            interfaces,
            public: linked()
                .filter_map(|(i, _)| Some((i.primary?, i.public?)))
                .collect(),
            groups: self
                .groups
                .values()
                .map(|g| FabricGroup {
                    id: g.id.clone(),
                    name: g.name.clone(),
                    ingress: self.fabric_rules(&g.ingress),
                    egress: self.fabric_rules(&g.egress),
                })
                .collect(),
        }
    }

    /// Rises with each change of [`Vpc::fabric`].
    #[must_use]
    pub const fn fabric_generation(&self) -> u64 {
        self.fabric_generation
    }

    /// Rules with groups by id; a rule for a group that does not exist lets nothing through and is left out.
    fn fabric_rules(&self, rules: &[Rule]) -> Vec<FabricRule> {
        rules
            .iter()
            .filter_map(|rule| {
                let peer = match &rule.peer {
                    RulePeer::Cidr(cidr) => FabricPeer::Cidr(*cidr),
                    RulePeer::Ipv6(cidr) => FabricPeer::Ipv6(*cidr),
                    RulePeer::Group(name) => FabricPeer::Group(self.group_named(name)?.clone()),
                };
                Some(FabricRule {
                    protocol: rule.protocol,
                    ports: rule.ports,
                    peer,
                })
            })
            .collect()
    }
}

fn fabric_interface(interface: &Interface, attachment: &Attachment) -> FabricInterface {
    FabricInterface {
        eni: interface.id.clone(),
        node: attachment.instance.clone(),
        device_index: attachment.device_index,
        card: attachment.card,
        kind: interface.kind,
        mac: interface.mac,
        subnet: interface.subnet.clone(),
        primary: interface.primary,
        addresses: interface
            .addresses()
            .map(Ipv4Net::from)
            .chain(interface.prefixes.iter().copied())
            .collect(),
        primary_ipv6: interface.ipv6.addresses.first().copied(),
        ipv6: interface.ipv6.nets().collect(),
        source_dest_check: interface.source_dest_check,
        groups: interface.groups.clone(),
    }
}
