//! `/v1/enis` in the original's shape, for the tools that read it. Sandbox ids are left out, as the original does since 1.23:
//! whoever knows one could ask for its deletion.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;
use serde_json::{Map, Value, json};
use vpcnet_ipam::{AddressState, AddressView, InterfaceKind, InterfaceView, OwnerView, PoolView};

use crate::clock::rfc3339;

/// Addresses of a /80.
const IPV6_PREFIX_SIZE: u64 = 1 << 48;

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) fn page(view: &PoolView) -> Value {
    let mut cards: BTreeMap<String, Vec<&InterfaceView>> = BTreeMap::new();
    for interface in view.interfaces.iter().filter(|i| i.managed) {
        cards
            .entry(interface.card.to_string())
            .or_default()
            .push(interface);
    }
    let cards = cards
        .into_iter()
        .map(|(card, interfaces)| (card, card_page(&interfaces)));
    Value::Object(cards.collect())
}

fn card_page(interfaces: &[&InterfaceView]) -> Value {
    let all = || {
        interfaces
            .iter()
            .flat_map(|i| &i.addresses)
            .filter(|a| a.state != AddressState::Releasing)
    };
    let assigned = all().filter(|a| a.state == AddressState::Assigned).count();
    let ipv6 = || interfaces.iter().flat_map(|i| &i.ipv6);
    let ipv6_assigned = ipv6().filter(|a| a.state == AddressState::Assigned).count();
    let prefixes: usize = interfaces.iter().map(|i| i.ipv6_prefixes.len()).sum();
    let total = all().count() as u64 + prefixes as u64 * IPV6_PREFIX_SIZE;
    let enis: Map<String, Value> = interfaces.iter().map(|i| (i.id.to_string(), eni(i))).collect();
    json!({ "TotalIPs": total, "AssignedIPs": assigned + ipv6_assigned, "ENIs": enis })
}

fn eni(i: &InterfaceView) -> Value {
    let cidrs: Map<String, Value> = i
        .addresses
        .iter()
        .map(|a| (format!("{}/32", a.address), cidr(a)))
        .collect();
    json!({
        "ID": i.id,
        "IsPrimary": i.is_primary,
        "IsTrunk": i.kind == InterfaceKind::Trunk,
        "IsEFA": matches!(i.kind, InterfaceKind::Efa | InterfaceKind::EfaOnly),
        "DeviceNumber": i.device,
        "AvailableIPv4Cidrs": cidrs,
        "IPv6Cidrs": ipv6_cidrs(i),
        "IsExcludedForPodIPs": false,
        "RouteTableID": i.route_table,
        "SubnetID": i.subnet,
    })
}

fn ipv6_cidrs(i: &InterfaceView) -> Map<String, Value> {
    let cidr = |prefix: &Ipv6Net| {
        let inside = i.ipv6.iter().filter(|a| prefix.contains(&a.address));
        let addresses: Map<String, Value> = inside
            .filter_map(|a| Some((a.address.to_string(), entry(&a.address, a.owner.as_ref()?))))
            .collect();
        json!({
            "Cidr": { "IP": prefix.network(), "Mask": "/////////////wAAAAAAAA==" },
            "IPAddresses": addresses,
            "IsPrefix": true,
            "AddressFamily": "6",
        })
    };
    i.ipv6_prefixes.iter().map(|p| (p.to_string(), cidr(p))).collect()
}

/// An address that somebody has or had.
fn entry(address: &impl serde::Serialize, owner: &OwnerView) -> Value {
    json!({
        "Address": address,
        "IPAMKey": { "networkName": owner.key.network, "containerID": "", "ifName": "" },
        "IPAMMetadata": {
            "k8sPodNamespace": owner.meta.namespace,
            "k8sPodName": owner.meta.name,
            "interfacesCount": owner.meta.interfaces,
        },
        "AssignedTime": time(owner.assigned_ns),
        "UnassignedTime": time(owner.released_ns),
    })
}

fn cidr(a: &AddressView) -> Value {
    let mut addresses = Map::new();
    // Only addresses somebody has or had are listed, as in the original.
    if let Some(owner) = &a.owner {
        addresses.insert(a.address.to_string(), entry(&a.address, owner));
    }
    json!({
        "Cidr": { "IP": a.address, "Mask": "/////w==" },
        "IPAddresses": addresses,
        "IsPrefix": false,
        "AddressFamily": "4",
    })
}

fn time(ns: i64) -> String {
    if ns == 0 { NEVER.to_owned() } else { rfc3339(ns) }
}
