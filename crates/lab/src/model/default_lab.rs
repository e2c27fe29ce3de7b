//! The lab of the documentation: what a [`VpcConfig`] is when nobody says otherwise.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::config::{
    AddressChoice, Buckets, GroupConfig, Protocol, RoleConfig, Rule, RulePeer, SubnetConfig, SubnetRoute,
    Timing, VpcConfig,
};
use super::policy::Policy;

impl Default for VpcConfig {
    fn default() -> Self {
        Self {
            region: "us-west-2".to_owned(),
            account: "123456789012".to_owned(),
            epoch: 1_767_225_600,
            cidr: net(10, 0, 0, 0, 16),
            ipv6: None,
            secondary_cidrs: Vec::new(),
            subnets: vec![
                subnet("subnet-a", net(10, 0, 0, 0, 20), 'a', SubnetRoute::Public),
                subnet("subnet-b", net(10, 0, 16, 0, 20), 'b', SubnetRoute::Private),
            ],
            node_subnets: 2,
            peer: Some(net(172, 31, 0, 0, 16)),
            internet: net(203, 0, 113, 0, 24),
            internet_ipv6: net6([0x2001, 0xdb8, 0xfeed, 0], 64),
            public_pool: net(198, 51, 100, 0, 24),
            groups: vec![default_node_group()],
            roles: default_roles(),
            timing: Timing::default(),
            buckets: Buckets::default(),
            addresses: AddressChoice::default(),
            faults: Vec::new(),
            call_log: 2000,
        }
    }
}

impl VpcConfig {
    /// The default lab in which everything happens at once, addresses are the lowest free and nothing is throttled.
    #[must_use]
    pub fn instant() -> Self {
        Self {
            timing: Timing::instant(),
            addresses: AddressChoice::Lowest,
            buckets: Buckets {
                enabled: false,
                ..Buckets::default()
            },
            ..Self::default()
        }
    }

    /// The same VPC with IPv6 beside IPv4: a /56, a /64 for each subnet, and the `node` group opened to both as it is for IPv4.
    #[must_use]
    pub fn dual_stack(mut self) -> Self {
        let vpc = net6(VPC_IPV6, 56);
        self.ipv6 = Some(vpc);
        for (number, subnet) in (0_u16..=255).zip(&mut self.subnets) {
            let [a, b, c, d] = VPC_IPV6;
            subnet.ipv6 = Some(net6([a, b, c, d | number], 64));
        }
        if let Some(node) = self.groups.iter_mut().find(|g| g.name == "node") {
            let everybody = RulePeer::Ipv6(Ipv6Net::default());
            node.ingress.push(Rule::all(RulePeer::Ipv6(vpc)));
            node.ingress.extend(node_ports(&everybody));
            node.egress.push(Rule::all(everybody));
        }
        self
    }
}

/// First half of the VPC's IPv6 addresses, of the range for documentation (RFC 3849).
const VPC_IPV6: [u16; 4] = [0x2001, 0xdb8, 0xc10d, 0];

/// A net of a first half; the length is at most 64.
fn net6([a, b, c, d]: [u16; 4], len: u8) -> Ipv6Net {
    Ipv6Net::new(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), len).unwrap_or_default()
}

/// The range of NodePorts, for both protocols.
fn node_ports(peer: &RulePeer) -> [Rule; 2] {
    [Protocol::Tcp, Protocol::Udp].map(|protocol| Rule {
        protocol,
        ports: Some((30000, 32767)),
        peer: peer.clone(),
    })
}

fn net(a: u8, b: u8, c: u8, d: u8, len: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::new(a, b, c, d), len).unwrap_or_default()
}

fn subnet(name: &str, cidr: Ipv4Net, zone: char, route: SubnetRoute) -> SubnetConfig {
    SubnetConfig {
        name: name.to_owned(),
        cidr,
        ipv6: None,
        zone,
        route,
        tags: BTreeMap::new(),
        reservations: Vec::new(),
    }
}

/// Nodes reach each other freely, the VPC and the peer reach them, and so does the internet on the NodePort range.
fn default_node_group() -> GroupConfig {
    let mut ingress = vec![
        Rule::all(RulePeer::Group("node".to_owned())),
        Rule::all(RulePeer::Cidr(net(10, 0, 0, 0, 16))),
        Rule::all(RulePeer::Cidr(net(172, 31, 0, 0, 16))),
    ];
    ingress.extend(node_ports(&RulePeer::Cidr(net(0, 0, 0, 0, 0))));
    GroupConfig {
        name: "node".to_owned(),
        ingress,
        egress: vec![Rule::all(RulePeer::Cidr(net(0, 0, 0, 0, 0)))],
    }
}

fn default_roles() -> Vec<RoleConfig> {
    // AmazonEKS_CNI_Policy and its IPv6 counterpart, plus DescribeVpcs and DescribeSecurityGroups, which node policies add.
    let node = [
        "ec2:AssignIpv6Addresses",
        "ec2:AssignPrivateIpAddresses",
        "ec2:AttachNetworkInterface",
        "ec2:CreateNetworkInterface",
        "ec2:CreateTags",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        "ec2:DetachNetworkInterface",
        "ec2:ModifyNetworkInterfaceAttribute",
        "ec2:UnassignIpv6Addresses",
        "ec2:UnassignPrivateIpAddresses",
    ];
    vec![
        RoleConfig {
            name: RoleConfig::ADMIN.to_owned(),
            policy: Policy::allowing(&["ec2:*"]),
        },
        RoleConfig {
            name: RoleConfig::NODE.to_owned(),
            policy: Policy::allowing(&node),
        },
    ]
}
