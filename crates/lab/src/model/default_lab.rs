//! The lab of the documentation: what a [`VpcConfig`] is when nobody says otherwise.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::config::{
    AddressChoice, Buckets, GroupConfig, Protocol, RoleConfig, Rule, RulePeer, SubnetConfig, SubnetRoute,
    Timing, VpcConfig,
};

impl Default for VpcConfig {
    fn default() -> Self {
        Self {
            region: "us-west-2".to_owned(),
            account: "123456789012".to_owned(),
            epoch: 1_767_225_600,
            cidr: net(10, 0, 0, 0, 16),
            secondary_cidrs: Vec::new(),
            subnets: vec![
                subnet("subnet-a", net(10, 0, 0, 0, 20), 'a', SubnetRoute::Public),
                subnet("subnet-b", net(10, 0, 16, 0, 20), 'b', SubnetRoute::Private),
            ],
            node_subnets: 2,
            peer: Some(net(172, 31, 0, 0, 16)),
            internet: net(203, 0, 113, 0, 24),
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
}

fn net(a: u8, b: u8, c: u8, d: u8, len: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::new(a, b, c, d), len).unwrap_or_default()
}

fn subnet(name: &str, cidr: Ipv4Net, zone: char, route: SubnetRoute) -> SubnetConfig {
    SubnetConfig {
        name: name.to_owned(),
        cidr,
        zone,
        route,
        tags: BTreeMap::new(),
        reservations: Vec::new(),
    }
}

/// Nodes reach each other freely, the VPC and the peer reach them, and so does the internet on the NodePort range.
fn default_node_group() -> GroupConfig {
    let node_ports = |protocol| Rule {
        protocol,
        ports: Some((30000, 32767)),
        peer: RulePeer::Cidr(net(0, 0, 0, 0, 0)),
    };
    GroupConfig {
        name: "node".to_owned(),
        ingress: vec![
            Rule::all(RulePeer::Group("node".to_owned())),
            Rule::all(RulePeer::Cidr(net(10, 0, 0, 0, 16))),
            Rule::all(RulePeer::Cidr(net(172, 31, 0, 0, 16))),
            node_ports(Protocol::Tcp),
            node_ports(Protocol::Udp),
        ],
        egress: vec![Rule::all(RulePeer::Cidr(net(0, 0, 0, 0, 0)))],
    }
}

fn default_roles() -> Vec<RoleConfig> {
    // AmazonEKS_CNI_Policy, plus DescribeSubnets and DescribeVpcs, which its current version holds or node policies add.
    let node = [
        "AssignPrivateIpAddresses",
        "AttachNetworkInterface",
        "CreateNetworkInterface",
        "CreateTags",
        "DeleteNetworkInterface",
        "DescribeInstances",
        "DescribeInstanceTypes",
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeSubnets",
        "DescribeVpcs",
        "DetachNetworkInterface",
        "ModifyNetworkInterfaceAttribute",
        "UnassignPrivateIpAddresses",
    ];
    vec![
        RoleConfig {
            name: RoleConfig::ADMIN.to_owned(),
            actions: vec!["ec2:*".to_owned()],
        },
        RoleConfig {
            name: RoleConfig::NODE.to_owned(),
            actions: node.iter().map(|a| format!("ec2:{a}")).collect(),
        },
    ]
}
