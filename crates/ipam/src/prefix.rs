//! /28 prefixes: sixteen addresses in the room of one. Each address is kept as any other, so that all that is true of an
//! address (one owner, cool-down, undoing) is true of it; a prefix comes and goes whole.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::arithmetic::PREFIX_SIZE;
use crate::interface::{Address, Interface, State};
use crate::time::Mono;

/// EC2 delegates IPv4 prefixes of this length and no other.
const LENGTH: u8 = 28;

/// The prefix an address would be of.
pub(crate) fn prefix_around(at: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new(at, LENGTH).unwrap_or_else(|_| at.into()).trunc()
}

/// Of a length that can be handed out from.
pub(crate) fn is_usable(prefix: Ipv4Net) -> bool {
    prefix.prefix_len() == LENGTH
}

/// All sixteen: a prefix has neither a network nor a broadcast address.
pub(crate) fn addresses(prefix: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let first = prefix.network().to_bits();
    (0..PREFIX_SIZE).map(move |n| Ipv4Addr::from_bits(first.wrapping_add(n)))
}

/// How a prefix is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Use {
    pub(crate) prefix: Ipv4Net,
    pub(crate) owned: u32,
    /// It is being given back.
    pub(crate) leaving: bool,
    /// It is in question whether the interface has all of it.
    pub(crate) doubted: bool,
    /// Until when some address of it is kept from EC2.
    pub(crate) rests_until: Option<Mono>,
}

impl Use {
    /// No pod has an address of it, and it stays.
    pub(crate) fn is_free(&self) -> bool {
        self.owned == 0 && !self.leaving
    }

    /// It may be given back, once it rests no more.
    pub(crate) fn may_go(&self) -> bool {
        self.is_free() && !self.doubted
    }
}

impl Interface {
    /// The prefix of this interface that an address is of.
    pub(crate) fn prefix_of(&self, at: Ipv4Addr) -> Option<Ipv4Net> {
        if self.prefixes.is_empty() {
            return None; // The usual case in the other mode, and this is asked for each address.
        }
        Some(prefix_around(at)).filter(|p| self.prefixes.contains(p))
    }

    /// What is there of a prefix.
    pub(crate) fn of_prefix(&self, prefix: Ipv4Net) -> impl Iterator<Item = (&Ipv4Addr, &Address)> {
        self.addresses.range(prefix.network()..=prefix.broadcast())
    }

    /// Addresses of no prefix.
    pub(crate) fn singles(&self) -> impl Iterator<Item = (&Ipv4Addr, &Address)> {
        self.addresses
            .iter()
            .filter(|(at, _)| self.prefix_of(**at).is_none())
    }

    /// Its prefixes that can be handed out from.
    pub(crate) fn prefix_uses(&self, now: Mono) -> impl Iterator<Item = Use> {
        let usable = self.prefixes.iter().copied().filter(|p| is_usable(*p));
        usable.map(move |prefix| {
            let all = || self.of_prefix(prefix).map(|(_, a)| a);
            Use {
                prefix,
                owned: crate::plan::count(all().filter(|a| a.state == State::Owned).count()),
                leaving: all().any(|a| !a.counts()),
                doubted: all().any(Address::is_doubted),
                rests_until: all().filter_map(|a| a.rests_until(now)).max(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_sixteen_addresses_from_the_first_to_the_last() {
        let prefix = prefix_around("10.0.3.37".parse().unwrap());
        assert_eq!(prefix, "10.0.3.32/28".parse().unwrap());
        let all: Vec<Ipv4Addr> = addresses(prefix).collect();
        let ends: [Ipv4Addr; 2] = ["10.0.3.32".parse().unwrap(), "10.0.3.47".parse().unwrap()];
        assert_eq!((all.len(), all[0], all[15]), (16, ends[0], ends[1]));
        assert!(all.iter().all(|at| prefix_around(*at) == prefix));
    }
}
