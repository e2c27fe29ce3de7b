//! How many interfaces and addresses an EC2 instance type may have.
//!
//! The figures are AWS's own, as `DescribeInstanceTypes` publishes them; they lie in `instance-limits.tsv` beside this crate and are
//! compiled in as text. A look-up is a binary search over that text: it touches a dozen pages of read-only memory that the kernel
//! can drop again, and only rows that were asked for are ever turned into values. An agent asks for one row in its life, so the
//! table costs it next to nothing.
//!
//! This crate must not know EC2's API, files or the network: a type that is not in the table is answered with `None`, and the caller
//! decides whether to ask EC2 itself.

#![forbid(unsafe_code)]

mod table;

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

/// What the hypervisor of a type is. Prefix delegation needs Nitro (or bare metal).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hypervisor {
    /// The Nitro hypervisor.
    Nitro,
    /// Xen, on types of before 2018.
    Xen,
    /// None is published; so it is for bare-metal types, which have none.
    Unknown,
}

/// Interfaces that fit one network card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CardLimit {
    /// Network card index, from 0.
    pub card: u32,
    /// Most interfaces attached to this card at once, on card 0 the primary interface included.
    pub interfaces: u32,
}

/// The networking limits of one instance type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceLimits {
    /// The type's name, `m5.large`.
    pub instance_type: Cow<'static, str>,
    /// Most interfaces on the default card, the primary interface included. On types with one card: most interfaces at all.
    pub interfaces: u32,
    /// Most private IPv4 addresses on one interface, its primary address included. A /28 prefix takes the place of one.
    pub ipv4_per_interface: u32,
    /// Every network card, in order of its index; never empty.
    pub cards: Vec<CardLimit>,
    /// The card on which interfaces are made that name no card.
    pub default_card: u32,
    /// The hypervisor the type runs on.
    pub hypervisor: Hypervisor,
    /// Whether the instance is the whole machine.
    pub bare_metal: bool,
    /// Whether a trunk interface can be attached (security groups for pods); `None` where nothing is published.
    pub trunk_capable: Option<bool>,
    /// Branch interfaces of the trunk; `None` where nothing is published.
    pub branch_interfaces: Option<u32>,
}

/// The limits of `instance_type` (as EC2 spells it, lower case), or `None` if the table has no such type.
///
/// Each type asked for is kept for the life of the process (under 200 bytes), so the answer can be held without copying.
pub fn lookup(instance_type: &str) -> Option<&'static InstanceLimits> {
    static ASKED: Mutex<Vec<&'static InstanceLimits>> = Mutex::new(Vec::new());
    let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = asked.iter().find(|l| l.instance_type == instance_type) {
        return Some(known);
    }
    let limits: &'static InstanceLimits = Box::leak(Box::new(table::parse(table::find(instance_type)?)?));
    asked.push(limits);
    Some(limits)
}

/// Every type of the table in order of its name, each parsed as it is reached.
pub fn all() -> impl Iterator<Item = InstanceLimits> {
    table::rows().filter_map(table::parse)
}

/// Most pods that get an address of their own in secondary-address mode: every address of the default card's interfaces but each
/// one's primary, and two more for pods on the host network (`aws-node` and `kube-proxy`). It is the formula of EKS's
/// `eni-max-pods.txt`.
pub fn max_pods(limits: &InstanceLimits) -> u32 {
    limits
        .interfaces
        .saturating_mul(limits.ipv4_per_interface.saturating_sub(1))
        .saturating_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> &'static InstanceLimits {
        lookup(name).unwrap_or_else(|| panic!("{name} is in the table"))
    }

    #[test]
    fn common_types_have_the_published_limits() {
        let large = known("m5.large");
        assert_eq!((large.interfaces, large.ipv4_per_interface), (3, 10));
        assert_eq!(
            large.cards,
            [CardLimit {
                card: 0,
                interfaces: 3
            }]
        );
        assert_eq!((large.hypervisor, large.bare_metal), (Hypervisor::Nitro, false));
        assert_eq!(
            (large.trunk_capable, large.branch_interfaces),
            (Some(true), Some(9))
        );
        let bigger = known("m5.4xlarge");
        assert_eq!((bigger.interfaces, bigger.ipv4_per_interface), (8, 30));
    }

    #[test]
    fn multi_card_types_list_each_card_and_count_interfaces_on_the_default_one() {
        let p4d = known("p4d.24xlarge");
        assert_eq!(
            (p4d.interfaces, p4d.ipv4_per_interface, p4d.default_card),
            (15, 50, 0)
        );
        assert_eq!(
            p4d.cards,
            (0..4)
                .map(|card| CardLimit { card, interfaces: 15 })
                .collect::<Vec<_>>()
        );
        let p5 = known("p5.48xlarge");
        assert_eq!((p5.interfaces, p5.cards.len()), (2, 32));
        assert_eq!(
            p5.cards.last(),
            Some(&CardLimit {
                card: 31,
                interfaces: 2
            })
        );
    }

    #[test]
    fn what_is_not_published_is_none_and_old_types_are_xen() {
        let metal = known("c5a.metal");
        assert!(metal.bare_metal);
        assert_eq!((metal.trunk_capable, metal.branch_interfaces), (None, None));
        let old = known("c3.large");
        assert_eq!(
            (old.hypervisor, old.trunk_capable, old.branch_interfaces),
            (Hypervisor::Xen, Some(false), Some(0))
        );
    }

    #[test]
    fn unknown_types_are_none() {
        for name in [
            "",
            "m5",
            "m5.larg",
            "m5.largee",
            "M5.LARGE",
            "a",
            "zzz.large",
            "type",
            "#",
            "m5.large\t3",
            "m5.large\n",
            "é",
        ] {
            assert_eq!(lookup(name), None, "{name:?}");
        }
    }

    #[test]
    fn every_row_parses_and_is_found_by_its_name() {
        let mut seen = 0;
        for row in table::rows() {
            let name = row.split('\t').next().unwrap_or_default();
            let parsed = table::parse(row).unwrap_or_else(|| panic!("bad row {row:?}"));
            assert_eq!(table::find(name), Some(row), "{name} is found by its name");
            assert!(parsed.interfaces >= 1 && parsed.ipv4_per_interface >= 2, "{name}");
            assert!(!parsed.cards.is_empty(), "{name}");
            seen += 1;
        }
        assert!(seen > 1000, "only {seen} rows");
        assert_eq!(all().count(), seen);
    }

    #[test]
    fn the_table_is_sorted_by_bytes_and_its_sums_agree() {
        let mut last = "";
        for row in table::rows() {
            let mut fields = row.split('\t');
            let name = fields.next().unwrap_or_default();
            assert!(
                last < name,
                "{last} must come before {name}: the look-up halves the text"
            );
            let total: u32 = fields.next().and_then(|f| f.parse().ok()).unwrap_or_default();
            let cards: u32 = table::parse(row).map_or(0, |l| l.cards.iter().map(|c| c.interfaces).sum());
            assert_eq!(total, cards, "{name}: max_enis is the sum over the cards");
            last = name;
        }
    }

    #[test]
    fn broken_rows_are_refused_not_guessed() {
        let good = "x.large\t3\t10\t3\t0\tnitro\tfalse\ttrue\t9";
        assert!(table::parse(good).is_some());
        for bad in [
            "",
            "x.large",
            "x.large\tthree\t10\t3\t0\tnitro\tfalse\ttrue\t9",
            "x.large\t3\t10\t3,\t0\tnitro\tfalse\ttrue\t9",
            "x.large\t3\t10\t3\t1\tnitro\tfalse\ttrue\t9",
            "x.large\t3\t10\t3\t0\tkvm\tfalse\ttrue\t9",
            "x.large\t3\t10\t3\t0\tnitro\tno\ttrue\t9",
            "x.large\t3\t10\t3\t0\tnitro\tfalse\tmaybe\t9",
            "x.large\t3\t10\t3\t0\tnitro\tfalse\ttrue\t9\t9",
        ] {
            assert_eq!(table::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn max_pods_are_those_of_eks() {
        for (name, pods) in [
            ("m5.large", 29),
            ("t3.small", 11),
            ("m5.4xlarge", 234),
            ("c5.18xlarge", 737),
            ("p4d.24xlarge", 737),
            ("p5.48xlarge", 100),
        ] {
            assert_eq!(max_pods(known(name)), pods, "{name}");
        }
    }

    #[test]
    fn the_same_row_is_kept_once() {
        assert!(std::ptr::eq(known("m5.large"), known("m5.large")));
    }
}
