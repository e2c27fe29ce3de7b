//! The IPv6 addresses of one subnet: who owns which, and which is free to choose.
//!
//! EC2 keeps the first four and the last address of a subnet's /64 for itself (VPC user guide, "Subnet sizing for IPv6"). A prefix
//! is an aligned /80. There are more of both than anybody can use up, so owners are kept as ranges.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::config::AddressChoice;
use super::ids::EniId;
use super::rng::Rng;
use super::space::Unusable;

/// Length of a delegated IPv6 prefix.
pub(crate) const PREFIX_LEN: u8 = 80;
/// Addresses EC2 keeps at the start of a subnet.
const KEPT_FIRST: u128 = 4;
/// How often a random choice may hit what is taken before the lowest free one is taken instead.
const TRIES: usize = 16;

/// Ownership of the IPv6 addresses of a subnet.
#[derive(Clone, Debug)]
pub(crate) struct Space6 {
    cidr: Ipv6Net,
    /// Owned ranges by their first address: the last one, and whose.
    owners: BTreeMap<u128, (u128, EniId)>,
}

impl Space6 {
    pub(crate) fn new(cidr: Ipv6Net) -> Self {
        Self {
            cidr: cidr.trunc(),
            owners: BTreeMap::new(),
        }
    }

    fn usable(&self) -> (u128, u128) {
        (
            self.cidr.network().to_bits().saturating_add(KEPT_FIRST),
            self.cidr.broadcast().to_bits().saturating_sub(1),
        )
    }

    /// Who owns something of this range; ranges never overlap, so the last one that begins in or before it decides.
    fn owner_within(&self, first: u128, last: u128) -> Option<(u128, &EniId)> {
        let (_, (end, owner)) = self.owners.range(..=last).next_back()?;
        (*end >= first).then_some((*end, owner))
    }

    /// Who owns all of a net, as one range.
    pub(crate) fn owner(&self, net: Ipv6Net) -> Option<&EniId> {
        let (last, owner) = self.owners.get(&net.network().to_bits())?;
        (*last == net.broadcast().to_bits()).then_some(owner)
    }

    /// How many ranges are owned.
    pub(crate) fn owned(&self) -> usize {
        self.owners.len()
    }

    /// Whether a request may name this address or prefix.
    pub(crate) fn usable_net(&self, net: Ipv6Net) -> Result<(), Unusable> {
        let aligned = matches!(net.prefix_len(), 128 | PREFIX_LEN) && net == net.trunc();
        if !aligned || !self.cidr.contains(&net) {
            return Err(Unusable::Outside);
        }
        let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
        let (least, most) = self.usable();
        if first < least || last > most {
            Err(Unusable::Kept)
        } else if self.owner_within(first, last).is_some() {
            Err(Unusable::Owned)
        } else {
            Ok(())
        }
    }

    /// An address EC2 would choose.
    pub(crate) fn choose_address(&self, choice: AddressChoice, rng: &mut Rng) -> Option<Ipv6Net> {
        let host = |at: u128| Ipv6Net::from(Ipv6Addr::from_bits(at));
        let (least, most) = self.usable();
        if choice == AddressChoice::Random {
            let width = u64::try_from(most.saturating_sub(least)).unwrap_or(u64::MAX);
            for _ in 0..TRIES {
                let at = host(least.saturating_add(u128::from(rng.below(width))));
                if self.usable_net(at).is_ok() {
                    return Some(at);
                }
            }
        }
        let mut at = least;
        while at <= most {
            match self.owner_within(at, at) {
                None => return Some(host(at)),
                Some((end, _)) => at = end.checked_add(1)?,
            }
        }
        None
    }

    /// A /80 EC2 would choose.
    pub(crate) fn choose_prefix(&self, choice: AddressChoice, rng: &mut Rng) -> Option<Ipv6Net> {
        let bits = PREFIX_LEN.checked_sub(self.cidr.prefix_len())?;
        let count = 1_u64.checked_shl(u32::from(bits))?;
        let base = self.cidr.network().to_bits();
        let at = |index: u64| {
            let first = base | (u128::from(index) << (128 - u32::from(PREFIX_LEN)));
            Ipv6Net::new(Ipv6Addr::from_bits(first), PREFIX_LEN).ok()
        };
        if choice == AddressChoice::Random {
            for _ in 0..TRIES {
                let found = at(rng.below(count)).filter(|net| self.usable_net(*net).is_ok());
                if found.is_some() {
                    return found;
                }
            }
        }
        (0..count)
            .filter_map(at)
            .find(|net| self.usable_net(*net).is_ok())
    }

    pub(crate) fn take(&mut self, net: Ipv6Net, owner: &EniId) {
        let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
        self.owners.insert(first, (last, owner.clone()));
    }

    pub(crate) fn release(&mut self, net: Ipv6Net) {
        self.owners.remove(&net.network().to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn space() -> Space6 {
        Space6::new(net("2001:db8:0:1::/64"))
    }

    #[test]
    fn the_first_four_and_the_last_address_are_ec2s() {
        let s = space();
        for kept in [
            "2001:db8:0:1::/128",
            "2001:db8:0:1::3/128",
            "2001:db8:0:1:ffff:ffff:ffff:ffff/128",
        ] {
            assert_eq!(s.usable_net(net(kept)), Err(Unusable::Kept), "{kept}");
        }
        assert_eq!(s.usable_net(net("2001:db8:0:1::4/128")), Ok(()));
        assert_eq!(s.usable_net(net("2001:db8:0:2::4/128")), Err(Unusable::Outside));
        let first = s.choose_address(AddressChoice::Lowest, &mut Rng::new(1));
        assert_eq!(first, Some(net("2001:db8:0:1::4/128")));
    }

    #[test]
    fn prefixes_and_addresses_never_overlap() {
        let mut s = space();
        let (mut rng, owner) = (Rng::new(7), EniId::from("eni-1"));
        s.take(net("2001:db8:0:1:1::5/128"), &owner);
        // The first block holds addresses that EC2 keeps, the second the one above: the first index with neither is 2.
        let lowest = s.choose_prefix(AddressChoice::Lowest, &mut rng).unwrap();
        assert_eq!(lowest, net("2001:db8:0:1:2::/80"));
        assert_eq!(s.usable_net(net("2001:db8:0:1::/80")), Err(Unusable::Kept));
        s.take(lowest, &owner);
        assert_eq!(s.usable_net(net("2001:db8:0:1:2::9/128")), Err(Unusable::Owned));
        assert_eq!(s.usable_net(net("2001:db8:0:1:2::/81")), Err(Unusable::Outside));
        s.release(lowest);
        assert_eq!(s.usable_net(lowest), Ok(()));
        assert_eq!(s.owned(), 1);
    }

    #[test]
    fn a_random_choice_is_always_free() {
        let mut s = space();
        let (mut rng, owner) = (Rng::new(3), EniId::from("eni-1"));
        for _ in 0..200 {
            let address = s.choose_address(AddressChoice::Random, &mut rng).unwrap();
            assert_eq!(s.usable_net(address), Ok(()));
            s.take(address, &owner);
            let prefix = s.choose_prefix(AddressChoice::Random, &mut rng).unwrap();
            assert_eq!(s.usable_net(prefix), Ok(()));
            s.take(prefix, &owner);
        }
        assert_eq!(s.owned(), 400);
    }
}
