//! `/v1/enis` in the original's shape, for the tools that read it. Sandbox ids are left out, as the original does since 1.23:
//! whoever knows one could ask for its deletion.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use vpcnet_ipam::{AddressState, AddressView, CardIndex, InterfaceKind, InterfaceView, PoolView};

use crate::clock::rfc3339;

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `managed`: the network cards that are; those without an interface too.
pub(super) fn page(view: &PoolView, managed: impl Iterator<Item = CardIndex>) -> Value {
    let mut cards: BTreeMap<String, Vec<&InterfaceView>> =
        managed.map(|card| (card.to_string(), Vec::new())).collect();
    // One for EFA only has nothing to show here, and may be all there is on a card that is left alone for it.
    let shown = |i: &&InterfaceView| i.managed && i.kind != InterfaceKind::EfaOnly;
    for interface in view.interfaces.iter().filter(shown) {
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
    let enis: Map<String, Value> = interfaces.iter().map(|i| (i.id.to_string(), eni(i))).collect();
    json!({ "TotalIPs": all().count(), "AssignedIPs": assigned, "ENIs": enis })
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
        "IPv6Cidrs": {},
        "IsExcludedForPodIPs": false,
        "RouteTableID": i.route_table,
        "SubnetID": i.subnet,
    })
}

fn cidr(a: &AddressView) -> Value {
    let mut addresses = Map::new();
    // Only addresses somebody has or had are listed, as in the original.
    if let Some(owner) = &a.owner {
        let entry = json!({
            "Address": a.address,
            "IPAMKey": { "networkName": owner.key.network, "containerID": "", "ifName": "" },
            "IPAMMetadata": {
                "k8sPodNamespace": owner.meta.namespace,
                "k8sPodName": owner.meta.name,
                "interfacesCount": owner.meta.interfaces,
            },
            "AssignedTime": time(owner.assigned_ns),
            "UnassignedTime": time(owner.released_ns),
        });
        addresses.insert(a.address.to_string(), entry);
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
