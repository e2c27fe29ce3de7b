//! Network cards after the first, which are used with `ENABLE_MULTI_NIC`: which of them, the routing tables of their interfaces, and
//! where their owners are written down.

use std::net::IpAddr;
use std::path::Path;

use vpcnet_ipam::{CardIndex, InterfaceFacts, InterfaceKind, Limits, route_table};
use vpcnet_linux::host::{ENI_RULE, rules_from};
use vpcnet_linux::netlink::Socket;

use crate::state::Machine;
use crate::store::FileStore;

/// Of what the type allows, what the pool may use.
#[must_use]
pub fn managed(all: &Limits, multi_nic: bool) -> Limits {
    let used = if multi_nic { all.cards.len() } else { 1 };
    Limits {
        cards: all.cards.iter().take(used).copied().collect(),
        ..all.clone()
    }
}

/// Looks which routing tables the kernel's rules name for interfaces of such cards: images set some up themselves, and older
/// releases of the AWS VPC CNI numbered them otherwise. What is there is used.
pub fn adopt_tables<'a>(interfaces: impl IntoIterator<Item = &'a mut InterfaceFacts>, machine: &Machine) {
    let used = |i: &InterfaceFacts| i.card.0 > 0 && i.managed && i.kind != InterfaceKind::EfaOnly;
    let mut others = interfaces.into_iter().filter(|i| used(i)).peekable();
    if others.peek().is_none() {
        return;
    }
    let rules = match Socket::open().and_then(|mut socket| socket.rules(false)) {
        Ok(rules) => rules,
        Err(error) => {
            tracing::warn!(%error, "rules not read: interfaces of further network cards get routing tables of the usual numbers");
            return;
        }
    };
    let per_card = vpcnet_limits::lookup(&machine.instance_type).map(|known| known.interfaces);
    for facts in others {
        let found: Vec<(u32, u32)> = rules_from(&rules, IpAddr::V4(facts.primary_address)).collect();
        facts.table = adopted(facts, per_card, &found);
        if let Some(table) = facts.table {
            tracing::info!(eni = %facts.id, table, "the routing table that a rule names for it is used");
        }
    }
}

/// The table to use in the place of the usual one, given the rules (priority, table) from the interface's own address. With it the
/// rules are left as they are, as the AWS VPC CNI does. `per_card`: interfaces of the first card.
fn adopted(facts: &InterfaceFacts, per_card: Option<u32>, found: &[(u32, u32)]) -> Option<u32> {
    let usual = route_table(facts.card, facts.device);
    match found {
        [] => None,
        // Made by us, in an earlier life.
        [(ENI_RULE, table)] if *table == usual => None,
        [(_, table)] => Some(*table),
        several => {
            let earlier = per_card.map(|n| facts.device.0 + 1 + facts.card.0 * n);
            let is_there = |wanted: &u32| several.iter().any(|(_, table)| table == wanted);
            Some(earlier.filter(is_there).unwrap_or(usual))
        }
    }
}

/// The checkpoint of a card beside the first one's: `ipam.json`, `ipam-nic-1.json`, as the AWS VPC CNI names them.
#[must_use]
pub fn checkpoint(first: &FileStore, card: CardIndex) -> FileStore {
    let name = format!("{}{}{card}{SUFFIX}", stem(first.path()), INFIX);
    FileStore::new(first.path().with_file_name(name))
}

/// The cards whose checkpoints lie beside the first one's, in order.
#[must_use]
pub fn checkpoints_beside(first: &FileStore) -> Vec<CardIndex> {
    let directory = match first.path().parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let stem = stem(first.path());
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut cards: Vec<CardIndex> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name
                .to_str()?
                .strip_prefix(&stem)?
                .strip_prefix(INFIX)?
                .strip_suffix(SUFFIX)?;
            let card: u32 = number.parse().ok()?;
            // Not "+1" or "01", which nobody writes, nor the first card, whose file has no number.
            (card > 0 && card.to_string() == number).then_some(CardIndex(card))
        })
        .collect();
    cards.sort();
    cards
}

const INFIX: &str = "-nic-";
const SUFFIX: &str = ".json";

fn stem(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    name.strip_suffix(SUFFIX).map(str::to_owned).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use vpcnet_ipam::{CardLimits, DeviceIndex, EniId, SubnetId};

    use super::*;

    fn on(card: u32, device: u32) -> InterfaceFacts {
        InterfaceFacts {
            id: EniId("eni-1".into()),
            mac: "02:00:00:00:00:01".into(),
            device: DeviceIndex(device),
            card: CardIndex(card),
            subnet: SubnetId("subnet-1".into()),
            subnet_cidr: "10.0.0.0/20".parse().unwrap(),
            primary_address: [10, 0, 0, 9].into(),
            is_primary: false,
            kind: InterfaceKind::Interface,
            managed: true,
            addresses: Vec::new(),
            prefixes: Vec::new(),
            ipv6_prefixes: Vec::new(),
            table: None,
        }
    }

    #[test]
    fn other_cards_are_used_only_when_asked_for() {
        let cards = [0, 1].map(|card| CardLimits {
            card: CardIndex(card),
            interfaces: 8,
        });
        let all = Limits {
            cards: cards.into(),
            ipv4_per_interface: 50,
        };
        assert_eq!(managed(&all, true), all);
        assert_eq!(managed(&all, false).cards, [cards[0]]);
    }

    #[test]
    fn a_rule_that_is_there_names_the_table() {
        let facts = on(1, 2);
        for (found, table) in [
            (&[][..], None),
            (&[(ENI_RULE, 10_102)], None),
            // Of an image: by another priority, or to another table.
            (&[(10_101, 10_102)], Some(10_102)),
            (&[(ENI_RULE, 7)], Some(7)),
            // The earlier releases' number, 2 + 1 + 1 × 8.
            (&[(100, 5), (ENI_RULE, 11)], Some(11)),
            (&[(100, 5), (ENI_RULE, 6)], Some(10_102)),
        ] {
            assert_eq!(adopted(&facts, Some(8), found), table, "{found:?}");
        }
        assert_eq!(adopted(&facts, None, &[(100, 5), (ENI_RULE, 11)]), Some(10_102));
    }

    #[test]
    fn checkpoints_are_named_and_found_by_card() {
        let dir = tempfile::tempdir().unwrap();
        let first = FileStore::new(dir.path().join("ipam.json"));
        let names = |cards: &[u32]| -> Vec<PathBuf> {
            let paths = cards
                .iter()
                .map(|c| checkpoint(&first, CardIndex(*c)).path().to_path_buf());
            paths.collect()
        };
        assert_eq!(
            names(&[1, 12]),
            [
                dir.path().join("ipam-nic-1.json"),
                dir.path().join("ipam-nic-12.json")
            ]
        );
        for name in [
            "ipam.json",
            "ipam-nic-1.json",
            "ipam-nic-12.json",
            "ipam-nic-01.json",
            "ipam-nic-0.json",
            "ipam-nic-2.json.broken-1",
            "ipam-nic-x.json",
            "other-nic-3.json",
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(checkpoints_beside(&first), [CardIndex(1), CardIndex(12)]);
        let odd = FileStore::new(dir.path().join("owners"));
        assert_eq!(
            checkpoint(&odd, CardIndex(1)).path(),
            dir.path().join("owners-nic-1.json")
        );
    }
}
