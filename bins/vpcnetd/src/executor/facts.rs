//! EC2's view of an interface as the pool's facts.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use vpcnet_cloud::NetworkInterface;
use vpcnet_ipam::{CardIndex, DeviceIndex, EniId, InterfaceFacts, InterfaceKind, SubnetId};

/// Tag by which people keep an interface to themselves.
pub(crate) const NO_MANAGE_TAG: &str = "node.k8s.amazonaws.com/no_manage";
/// Tag with the instance an interface was made for.
pub const INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";

/// How interfaces of others are told from ours.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// Our instance.
    pub instance_id: String,
    /// Interfaces without tags are used too.
    pub manage_untagged: bool,
    /// Network cards after the first are used too.
    pub multi_nic: bool,
}

impl Ownership {
    /// Whether interfaces on a network card may be used at all.
    #[must_use]
    pub fn covers(&self, card: CardIndex) -> bool {
        self.multi_nic || card.0 == 0
    }
}

/// Whether the pool may use an interface. The primary one always; `no_manage` decides where it is set; then our
/// instance's tag; then the setting.
#[must_use]
pub fn manages(ownership: &Ownership, eni: &NetworkInterface, is_primary: bool) -> bool {
    if is_primary {
        return true;
    }
    match eni.tag(NO_MANAGE_TAG) {
        Some(value) => value != "true",
        None => ownership.manage_untagged || eni.tag(INSTANCE_TAG) == Some(ownership.instance_id.as_str()),
    }
}

/// The facts of an interface attached at `device` of `card`; `None` without an own IPv4 address. EFA-only interfaces have none
/// and no pod can use them, but they take a place and their card may be left alone for them: 0.0.0.0 stands for it.
#[must_use]
pub fn facts_of(
    eni: &NetworkInterface,
    card: CardIndex,
    device: DeviceIndex,
    subnet_cidr: Ipv4Net,
    ownership: &Ownership,
) -> Option<InterfaceFacts> {
    let is_primary = card.0 == 0 && device.0 == 0;
    let kind = kind_of(&eni.interface_type);
    let none = (kind == InterfaceKind::EfaOnly).then_some(Ipv4Addr::UNSPECIFIED);
    Some(InterfaceFacts {
        id: EniId(eni.id.clone()),
        mac: eni.mac_address.to_ascii_lowercase(),
        device,
        card,
        subnet: SubnetId(eni.subnet_id.clone()),
        subnet_cidr,
        primary_address: eni.private_ip_address.or(none)?,
        is_primary,
        kind,
        managed: ownership.covers(card) && manages(ownership, eni, is_primary),
        addresses: eni.secondary_addresses().collect(),
        prefixes: eni.ipv4_prefixes.clone(),
        ipv6_prefixes: eni.ipv6_prefixes.clone(),
        table: None,
    })
}

/// EC2's word for the kind; types it may add later carry no trunk and are ordinary to us.
#[must_use]
pub fn kind_of(interface_type: &str) -> InterfaceKind {
    match interface_type {
        "trunk" => InterfaceKind::Trunk,
        "efa" => InterfaceKind::Efa,
        "efa-only" => InterfaceKind::EfaOnly,
        _ => InterfaceKind::Interface,
    }
}
