//! The addresses of one subnet: who owns which, and which is free to choose.
//!
//! EC2 keeps the first four and the last address of a subnet (VPC user guide, "Subnet sizing"). A prefix is an aligned
//! /28 and needs all of its sixteen addresses free, so single addresses strewn over a subnet leave no room for
//! prefixes even where most of it is free.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use serde::Serialize;

use super::config::{AddressChoice, Reservation, ReservationKind};
use super::ids::EniId;
use super::rng::Rng;

/// Length of a delegated IPv4 prefix.
pub(crate) const PREFIX_LEN: u8 = 28;
const PREFIX_SIZE: u32 = 16;
/// Addresses EC2 keeps at the start of a subnet: network, router, DNS, future use.
const KEPT_FIRST: u32 = 4;

/// Ownership of every address of a subnet.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Space {
    cidr: Ipv4Net,
    reservations: Vec<Reservation>,
    #[serde(skip)]
    owners: BTreeMap<u32, EniId>,
}

/// Why an address cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unusable {
    /// Not an address of the subnet.
    Outside,
    /// One of those EC2 keeps.
    Kept,
    /// Somebody has it.
    Owned,
}

impl Space {
    pub(crate) fn new(cidr: Ipv4Net, reservations: &[Reservation]) -> Self {
        Self {
            cidr,
            reservations: reservations.to_vec(),
            owners: BTreeMap::new(),
        }
    }

    /// First and last address an interface may have.
    fn usable(&self) -> RangeInclusive<u32> {
        let first = u32::from(self.cidr.network()).saturating_add(KEPT_FIRST);
        let last = u32::from(self.cidr.broadcast()).saturating_sub(1);
        first..=last
    }

    /// Addresses neither kept by EC2 nor owned.
    pub(crate) fn free(&self) -> u32 {
        let usable = self.usable();
        let size = usable.end().saturating_sub(*usable.start()).saturating_add(1);
        size.saturating_sub(u32::try_from(self.owners.len()).unwrap_or(u32::MAX))
    }

    /// Addresses owned.
    pub(crate) fn owned(&self) -> usize {
        self.owners.len()
    }

    pub(crate) fn owner(&self, address: Ipv4Addr) -> Option<&EniId> {
        self.owners.get(&u32::from(address))
    }

    /// Whether a request may name this address.
    pub(crate) fn usable_address(&self, address: Ipv4Addr) -> Result<(), Unusable> {
        if !self.cidr.contains(&address) {
            Err(Unusable::Outside)
        } else if !self.usable().contains(&u32::from(address)) {
            Err(Unusable::Kept)
        } else if self.owners.contains_key(&u32::from(address)) {
            Err(Unusable::Owned)
        } else {
            Ok(())
        }
    }

    /// Whether a request may name this prefix.
    pub(crate) fn usable_prefix(&self, prefix: Ipv4Net) -> Result<(), Unusable> {
        if prefix.prefix_len() != PREFIX_LEN || prefix != prefix.trunc() || !self.cidr.contains(&prefix) {
            return Err(Unusable::Outside);
        }
        let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
        if !(self.usable().contains(&first) && self.usable().contains(&last)) {
            Err(Unusable::Kept)
        } else if self.owners.range(first..=last).next().is_some() {
            Err(Unusable::Owned)
        } else {
            Ok(())
        }
    }

    /// An address EC2 would choose; `None`: none is free outside the reservations.
    pub(crate) fn choose_address(&self, choice: AddressChoice, rng: &mut Rng) -> Option<Ipv4Addr> {
        let usable = self.usable();
        let start = start_of(&usable, choice, rng);
        self.free_from(start..=*usable.end())
            .or_else(|| self.free_from(*usable.start()..=start.saturating_sub(1)))
            .map(Ipv4Addr::from)
    }

    /// The first free address of the range that no reservation covers.
    fn free_from(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let mut candidate = *range.start();
        while range.contains(&candidate) {
            let address = Ipv4Addr::from(candidate);
            if let Some(reserved) = self.reservations.iter().find(|r| r.cidr.contains(&address)) {
                candidate = u32::from(reserved.cidr.broadcast()).checked_add(1)?;
            } else if self.owners.contains_key(&candidate) {
                candidate = candidate.checked_add(1)?;
            } else {
                return Some(candidate);
            }
        }
        None
    }

    /// How many single addresses and how many prefixes are left to choose from.
    pub(crate) fn choosable(&self) -> (u32, u32) {
        let covers = |at: u32, kind: Option<ReservationKind>| {
            let of_kind = |r: &&Reservation| kind.is_none_or(|kind| r.kind == kind);
            let mut all = self.reservations.iter().filter(of_kind);
            all.any(|r| r.cidr.contains(&Ipv4Addr::from(at)))
        };
        let usable = self.usable();
        let free = |at: &u32| !self.owners.contains_key(at);
        let addresses = usable.clone().filter(|at| free(at) && !covers(*at, None)).count();
        let blocks = usable.clone().filter(|at| at.is_multiple_of(PREFIX_SIZE));
        let whole = |first: &u32| {
            let mut all = *first..=first.saturating_add(PREFIX_SIZE - 1);
            all.all(|at| {
                let for_prefixes = covers(at, Some(ReservationKind::Prefix)) || !covers(at, None);
                usable.contains(&at) && free(&at) && for_prefixes
            })
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (count(addresses), count(blocks.filter(whole).count()))
    }

    /// A prefix EC2 would choose: from a prefix reservation where the subnet has one with room, else from what no
    /// reservation covers. `None`: no aligned block of sixteen is free.
    pub(crate) fn choose_prefix(&self, choice: AddressChoice, rng: &mut Rng) -> Option<Ipv4Net> {
        let reserved = self
            .reservations
            .iter()
            .filter(|r| r.kind == ReservationKind::Prefix);
        for reservation in reserved {
            let range = u32::from(reservation.cidr.network())..=u32::from(reservation.cidr.broadcast());
            if let Some(found) = self.prefix_within(&range, choice, rng, |_| true) {
                return Some(found);
            }
        }
        let unreserved = |p: Ipv4Net| {
            !self
                .reservations
                .iter()
                .any(|r| r.cidr.contains(&p) || p.contains(&r.cidr))
        };
        self.prefix_within(&self.usable(), choice, rng, unreserved)
    }

    fn prefix_within(
        &self,
        range: &RangeInclusive<u32>,
        choice: AddressChoice,
        rng: &mut Rng,
        allowed: impl Fn(Ipv4Net) -> bool,
    ) -> Option<Ipv4Net> {
        let first_block = range.start() / PREFIX_SIZE;
        let last_block = range.end() / PREFIX_SIZE;
        let start = start_of(&(first_block..=last_block), choice, rng);
        (start..=last_block)
            .chain(first_block..start)
            .filter_map(|block| {
                let base = block.checked_mul(PREFIX_SIZE)?;
                Ipv4Net::new(Ipv4Addr::from(base), PREFIX_LEN).ok()
            })
            .find(|p| self.usable_prefix(*p).is_ok() && allowed(*p))
    }

    /// Aligned blocks of sixteen that are wholly free.
    pub(crate) fn blocks(&self) -> u32 {
        let (first, last) = (
            self.usable().start() / PREFIX_SIZE,
            self.usable().end() / PREFIX_SIZE,
        );
        let all = (first..=last).filter_map(|block| {
            let base = block.checked_mul(PREFIX_SIZE)?;
            Ipv4Net::new(Ipv4Addr::from(base), PREFIX_LEN).ok()
        });
        let whole = all.filter(|p| self.usable_prefix(*p).is_ok());
        u32::try_from(whole.count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn take_address(&mut self, address: Ipv4Addr, owner: &EniId) {
        self.owners.insert(u32::from(address), owner.clone());
    }

    pub(crate) fn take_prefix(&mut self, prefix: Ipv4Net, owner: &EniId) {
        for address in u32::from(prefix.network())..=u32::from(prefix.broadcast()) {
            self.owners.insert(address, owner.clone());
        }
    }

    pub(crate) fn release_address(&mut self, address: Ipv4Addr) {
        self.owners.remove(&u32::from(address));
    }

    pub(crate) fn release_prefix(&mut self, prefix: Ipv4Net) {
        for address in u32::from(prefix.network())..=u32::from(prefix.broadcast()) {
            self.owners.remove(&address);
        }
    }
}

fn start_of(range: &RangeInclusive<u32>, choice: AddressChoice, rng: &mut Rng) -> u32 {
    match choice {
        AddressChoice::Lowest => *range.start(),
        AddressChoice::Random => {
            let width = u64::from(range.end().saturating_sub(*range.start())) + 1;
            range
                .start()
                .saturating_add(u32::try_from(rng.below(width)).unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(cidr: &str, reservations: &[(&str, ReservationKind)]) -> Space {
        let reservations: Vec<_> = reservations
            .iter()
            .map(|(cidr, kind)| Reservation {
                cidr: cidr.parse().unwrap(),
                kind: *kind,
            })
            .collect();
        Space::new(cidr.parse().unwrap(), &reservations)
    }

    fn eni() -> EniId {
        EniId::from("eni-00000001")
    }

    fn fill(space: &mut Space, choice: AddressChoice) -> Vec<Ipv4Addr> {
        let mut rng = Rng::new(5);
        let mut got = Vec::new();
        while let Some(a) = space.choose_address(choice, &mut rng) {
            space.take_address(a, &eni());
            got.push(a);
        }
        got
    }

    #[test]
    fn the_first_four_and_the_last_address_are_never_given() {
        for choice in [AddressChoice::Lowest, AddressChoice::Random] {
            let mut s = space("10.0.0.0/28", &[]);
            assert_eq!(s.free(), 11);
            let mut got = fill(&mut s, choice);
            got.sort();
            assert_eq!(got.len(), 11);
            assert_eq!(got[0], Ipv4Addr::new(10, 0, 0, 4));
            assert_eq!(got[10], Ipv4Addr::new(10, 0, 0, 14));
            assert_eq!(s.free(), 0);
        }
    }

    #[test]
    fn a_prefix_needs_a_whole_aligned_block() {
        let mut s = space("10.0.0.0/26", &[]);
        let mut rng = Rng::new(1);
        // The first block holds kept addresses, the last the broadcast address: two are left.
        let first = s.choose_prefix(AddressChoice::Lowest, &mut rng).unwrap();
        assert_eq!(first.to_string(), "10.0.0.16/28");
        assert_eq!(s.blocks(), 2);
        s.take_prefix(first, &eni());
        s.take_address(Ipv4Addr::new(10, 0, 0, 40), &eni());
        assert_eq!(s.blocks(), 0);
        assert_eq!(s.choose_prefix(AddressChoice::Lowest, &mut rng), None);
        s.release_address(Ipv4Addr::new(10, 0, 0, 40));
        let second = s.choose_prefix(AddressChoice::Lowest, &mut rng).unwrap();
        assert_eq!(second.to_string(), "10.0.0.32/28");
        assert_eq!(s.free(), 64 - 5 - 16);
    }

    #[test]
    fn chosen_addresses_avoid_every_reservation() {
        let mut s = space(
            "10.0.0.0/26",
            &[
                ("10.0.0.16/28", ReservationKind::Prefix),
                ("10.0.0.32/28", ReservationKind::Explicit),
            ],
        );
        let got = fill(&mut s, AddressChoice::Lowest);
        assert!(got.iter().all(|a| !(16..48).contains(&a.octets()[3])), "{got:?}");
        let mut rng = Rng::new(1);
        let prefix = s.choose_prefix(AddressChoice::Random, &mut rng).unwrap();
        assert_eq!(prefix.to_string(), "10.0.0.16/28");
        s.take_prefix(prefix, &eni());
        // The explicit block is free, but only for those who name it.
        assert_eq!(s.choose_prefix(AddressChoice::Lowest, &mut rng), None);
        assert_eq!(s.usable_prefix("10.0.0.32/28".parse().unwrap()), Ok(()));
        assert_eq!(s.usable_address(Ipv4Addr::new(10, 0, 0, 40)), Ok(()));
    }

    #[test]
    fn named_addresses_are_judged() {
        let mut s = space("10.0.0.0/24", &[]);
        s.take_address(Ipv4Addr::new(10, 0, 0, 9), &eni());
        let judge = |last| s.usable_address(Ipv4Addr::new(10, 0, 0, last));
        assert_eq!(judge(3), Err(Unusable::Kept));
        assert_eq!(judge(255), Err(Unusable::Kept));
        assert_eq!(judge(9), Err(Unusable::Owned));
        assert_eq!(judge(10), Ok(()));
        assert_eq!(
            s.usable_address(Ipv4Addr::new(10, 0, 1, 9)),
            Err(Unusable::Outside)
        );
        assert_eq!(
            s.usable_prefix("10.0.0.0/28".parse().unwrap()),
            Err(Unusable::Owned).or(Err(Unusable::Kept))
        );
        assert_eq!(
            s.usable_prefix("10.0.0.16/27".parse().unwrap()),
            Err(Unusable::Outside)
        );
        assert_eq!(
            s.usable_prefix("10.0.0.24/28".parse().unwrap()),
            Err(Unusable::Outside)
        );
    }
}
