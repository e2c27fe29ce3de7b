//! Views for the tests of the pure parts.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use crate::model::{
    FabricGroup, FabricInterface, FabricPeer, FabricRule, FabricSubnet, FabricView, InterfaceKind, Mac,
    Protocol, SubnetRoute,
};

/// An interface of `i-1` with those addresses, the first one its primary.
pub(crate) fn interface(number: u8, addresses: &[&str]) -> FabricInterface {
    let addresses: Vec<Ipv4Net> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    FabricInterface {
        eni: format!("eni-{number:017x}").into(),
        node: "i-1".into(),
        device_index: u32::from(number),
        card: 0,
        kind: InterfaceKind::Interface,
        mac: Mac([2, 0, 0, 0, 0, number]),
        subnet: "subnet-1".into(),
        primary: addresses.first().map(Ipv4Net::addr),
        addresses,
        primary_ipv6: None,
        ipv6: Vec::new(),
        source_dest_check: true,
        groups: vec!["sg-1".into()],
    }
}

/// A VPC with those interfaces.
pub(crate) fn view(interfaces: Vec<FabricInterface>) -> FabricView {
    let rule = FabricRule {
        protocol: Protocol::All,
        ports: None,
        peer: FabricPeer::Group("sg-1".into()),
    };
    let group = |n: u8| FabricGroup {
        id: format!("sg-{n}").into(),
        name: format!("g{n}"),
        ingress: vec![rule.clone()],
        egress: Vec::new(),
    };
    FabricView {
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        ipv6: None,
        peer: Some("172.31.0.0/16".parse().unwrap()),
        internet: "203.0.113.0/24".parse().unwrap(),
        internet_ipv6: None,
        public_pool: "198.51.100.0/24".parse().unwrap(),
        nat_public: [198, 51, 100, 1].into(),
        subnets: vec![FabricSubnet {
            id: "subnet-1".into(),
            name: "subnet-a".to_owned(),
            zone: "us-west-2a".to_owned(),
            cidr: "10.0.0.0/20".parse().unwrap(),
            ipv6: None,
            gateway: [10, 0, 0, 1].into(),
            route: SubnetRoute::Public,
        }],
        nodes: Vec::new(),
        interfaces,
        public: BTreeMap::new(),
        groups: vec![group(1), group(2)],
    }
}

/// Histories of a VPC: interfaces come, go, and change addresses, groups and checks; no address has two owners.
pub(crate) fn views() -> impl Strategy<Value = Vec<FabricView>> {
    let owner = prop::option::of(0u8..4);
    let state = (
        prop::collection::vec(owner, 12),
        prop::collection::vec(any::<bool>(), 4),
        prop::collection::vec(0usize..4, 4),
        prop::collection::vec(any::<bool>(), 4),
    );
    let one = state.prop_map(|(owners, present, groups, checks)| {
        let interfaces = (0u8..4).filter(|n| present[usize::from(*n)]).map(|n| {
            let mut addresses = vec![format!("10.0.1.{}/32", n + 1)];
            let owned = owners.iter().enumerate().filter(|(_, o)| **o == Some(n));
            addresses.extend(owned.map(|(i, _)| match i {
                0..8 => format!("10.0.2.{i}/32"),
                _ => format!("10.0.3.{}/28", (i - 8) * 16),
            }));
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            let mut made = interface(n + 1, &addresses);
            made.source_dest_check = checks[usize::from(n)];
            made.groups = [
                vec![],
                vec!["sg-1".into()],
                vec!["sg-2".into()],
                vec!["sg-1".into(), "sg-2".into()],
            ][groups[usize::from(n)]]
            .clone();
            made
        });
        let mut view = view(interfaces.collect());
        view.public = (view.interfaces.iter())
            .filter_map(|i| Some((i.primary?, std::net::Ipv4Addr::new(198, 51, 100, i.mac.0[5]))))
            .collect();
        view
    });
    prop::collection::vec(one, 1..6)
}
