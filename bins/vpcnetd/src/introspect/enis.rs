//! `/v1/enis` in the original's shape, for the tools that read it. Sandbox ids are left out, as the original does since 1.23:
//! whoever knows one could ask for its deletion.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use vpcnet_ipam::{AddressState, InterfaceKind, InterfaceView, OwnerView, PoolView};

use crate::clock::rfc3339;

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
    let excluded = |i: &InterfaceView| view.targets.subnets.excluded.contains(&i.subnet);
    let cards = cards.into_iter().map(|(card, interfaces)| {
        let enis = interfaces.iter().map(|i| (i.id.to_string(), eni(i, excluded(i))));
        let mut page = Map::new();
        page.insert("TotalIPs".into(), total(&interfaces).into());
        page.insert("AssignedIPs".into(), assigned(&interfaces).into());
        page.insert("ENIs".into(), Value::Object(enis.collect()));
        (card, Value::Object(page))
    });
    Value::Object(cards.collect())
}

/// All that pods could have: of a /80 that is more than anybody counts.
fn total(interfaces: &[&InterfaceView]) -> u64 {
    let of = |i: &&InterfaceView| {
        let v4 = i
            .addresses
            .iter()
            .filter(|a| a.state != AddressState::Releasing)
            .count();
        let v6 = i.ipv6_prefixes.iter().map(|p| {
            let bits = u32::from(p.max_prefix_len() - p.prefix_len());
            1_u64.checked_shl(bits).unwrap_or(u64::MAX)
        });
        v6.fold(u64::try_from(v4).unwrap_or(u64::MAX), u64::saturating_add)
    };
    interfaces.iter().map(of).fold(0, u64::saturating_add)
}

fn assigned(interfaces: &[&InterfaceView]) -> usize {
    let of = |i: &&InterfaceView| {
        let states = i
            .addresses
            .iter()
            .map(|a| a.state)
            .chain(i.ipv6.iter().map(|a| a.state));
        states.filter(|s| *s == AddressState::Assigned).count()
    };
    interfaces.iter().map(of).sum()
}

/// A CIDR with those of its addresses that somebody has or had: only these are listed, as in the original.
struct Cidr {
    net: ipnet::IpNet,
    addresses: Map<String, Value>,
}

impl Cidr {
    fn new(net: impl Into<ipnet::IpNet>) -> Self {
        Self {
            net: net.into(),
            addresses: Map::new(),
        }
    }

    fn add(&mut self, at: IpAddr, owner: Option<&OwnerView>) {
        if let Some(owner) = owner {
            self.addresses.insert(at.to_string(), address(at, owner));
        }
    }

    fn page(self) -> (String, Value) {
        let is_prefix = self.net.prefix_len() != self.net.max_prefix_len();
        let (family, mask) = match self.net {
            ipnet::IpNet::V4(net) => ("4", base64(&net.netmask().octets())),
            ipnet::IpNet::V6(net) => ("6", base64(&net.netmask().octets())),
        };
        let page = json!({
            "Cidr": { "IP": self.net.addr(), "Mask": mask },
            "IPAddresses": self.addresses,
            "IsPrefix": is_prefix,
            "AddressFamily": family,
        });
        (self.net.to_string(), page)
    }
}

fn eni(i: &InterfaceView, excluded: bool) -> Value {
    let mut v4: BTreeMap<ipnet::Ipv4Net, Cidr> =
        i.prefixes.iter().map(|net| (*net, Cidr::new(*net))).collect();
    for a in &i.addresses {
        let net = a.prefix.unwrap_or_else(|| a.address.into());
        let cidr = v4.entry(net).or_insert_with(|| Cidr::new(net));
        cidr.add(a.address.into(), a.owner.as_ref());
    }
    let mut v6: BTreeMap<ipnet::Ipv6Net, Cidr> = i
        .ipv6_prefixes
        .iter()
        .map(|net| (*net, Cidr::new(*net)))
        .collect();
    for a in &i.ipv6 {
        if let Some((_, cidr)) = v6.iter_mut().find(|(net, _)| net.contains(&a.address)) {
            cidr.add(a.address.into(), a.owner.as_ref());
        }
    }
    let v4: Map<String, Value> = v4.into_values().map(Cidr::page).collect();
    let v6: Map<String, Value> = v6.into_values().map(Cidr::page).collect();
    json!({
        "ID": i.id,
        "IsPrimary": i.is_primary,
        "IsTrunk": i.kind == InterfaceKind::Trunk,
        "IsEFA": matches!(i.kind, InterfaceKind::Efa | InterfaceKind::EfaOnly),
        "DeviceNumber": i.device,
        "AvailableIPv4Cidrs": v4,
        "IPv6Cidrs": v6,
        "IsExcludedForPodIPs": excluded,
        "RouteTableID": i.route_table,
        "SubnetID": i.subnet,
    })
}

fn address(at: IpAddr, owner: &OwnerView) -> Value {
    json!({
        "Address": at,
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

fn time(ns: i64) -> String {
    if ns == 0 { NEVER.to_owned() } else { rfc3339(ns) }
}

/// As Go writes bytes into JSON: the standard alphabet, padded.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let index = (bits >> (18 - 6 * n)) & 63;
            let letter = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
            text.push(if n > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn masks_are_written_as_go_writes_bytes() {
        assert_eq!(base64(&[255, 255, 255, 255]), "/////w==");
        assert_eq!(base64(&[255, 255, 255, 240]), "////8A==");
        assert_eq!(
            base64(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0]),
            "/////////////wAAAAAAAA=="
        );
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
    }
}
