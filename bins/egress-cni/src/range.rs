//! The addresses that pods may have, and which of them is next. Pure.
//!
//! As `host-local` does it: the subnet's first address is the gateway's, an IPv4 subnet's last is broadcast, and the search begins
//! after the address that was given last, so that one that was just given back rests the longest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Offset of the gateway in the subnet.
const GATEWAY: u128 = 1;
/// Offset of the first address for a pod.
const FIRST: u128 = 2;

/// A subnet to give addresses of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    net: IpNet,
}

impl Range {
    /// `net` as a range.
    ///
    /// # Errors
    /// Why it cannot be one. New connections to a range are rejected on the node, so it must not be one that others use.
    pub(crate) fn of(net: IpNet) -> Result<Self, &'static str> {
        if net.trunc() != net {
            return Err("it has host bits set");
        }
        let range = Self { net };
        match net {
            IpNet::V4(v4) => {
                // 169.254.1.0/24 has the gateways of aws-cni; 169.254.169.0/24, .170 and .171 the services of EC2 and EKS.
                let link_local = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
                let taken =
                    [1, 169, 170, 171].map(|n| Ipv4Net::new_assert(Ipv4Addr::new(169, 254, n, 0), 24));
                if !link_local.contains(&v4) {
                    return Err("it must be a part of 169.254.0.0/16 (link-local addresses)");
                }
                if taken.iter().any(|one| one.contains(&v4) || v4.contains(one)) {
                    return Err(
                        "it covers addresses of the pods' gateway or of EC2's services (169.254.1.0/24, 169.254.169.0 to 171.255)",
                    );
                }
            }
            IpNet::V6(v6) => {
                let unique_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);
                if !unique_local.contains(&v6) {
                    return Err("it must be a part of fc00::/7 (unique local addresses)");
                }
            }
        }
        if range.last() < FIRST {
            return Err("it has no room for a pod: the node has the first address");
        }
        Ok(range)
    }

    /// The subnet.
    pub(crate) fn net(&self) -> IpNet {
        self.net
    }

    /// Whether it is of IPv6.
    pub(crate) fn is_v6(&self) -> bool {
        self.net.addr().is_ipv6()
    }

    /// The node's address.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.at(GATEWAY)
    }

    /// How many pods have room.
    pub(crate) fn len(&self) -> u128 {
        self.last() - FIRST + 1
    }

    /// An address with the subnet's mask.
    pub(crate) fn with_mask(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.net.prefix_len()).unwrap_or(self.net)
    }

    /// Whether a pod may have it.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.offset(address).is_some()
    }

    /// Every address once, beginning after `last`, the one that was given last.
    pub(crate) fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
        let (range, length) = (*self, self.len());
        let begin = last
            .and_then(|last| self.offset(last))
            .map_or(0, |offset| offset - FIRST + 1);
        (0..length).map(move |n| {
            // Both are below the length, which is far below the type's end.
            range.at(FIRST + (begin + n) % length)
        })
    }

    /// Offset of the last address for a pod.
    fn last(&self) -> u128 {
        let host_bits = u32::from(self.net.max_prefix_len() - self.net.prefix_len());
        // The shortest prefix is 7, so this does not overflow.
        let size = 1_u128 << host_bits;
        if self.is_v6() {
            size - 1
        } else {
            size.saturating_sub(2)
        }
    }

    fn at(&self, offset: u128) -> IpAddr {
        match self.net {
            IpNet::V4(v4) => {
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                Ipv4Addr::from(u32::from(v4.network()).saturating_add(offset)).into()
            }
            IpNet::V6(v6) => Ipv6Addr::from(u128::from(v6.network()).saturating_add(offset)).into(),
        }
    }

    /// Offset of an address that a pod may have.
    fn offset(&self, address: IpAddr) -> Option<u128> {
        let offset = match (self.net.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                u128::from(u32::from(address).checked_sub(base.into())?)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => u128::from(address).checked_sub(base.into())?,
            _ => return None,
        };
        (FIRST..=self.last()).contains(&offset).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> Range {
        Range::of(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_originals_ranges() {
        let v4 = range("169.254.172.0/22");
        assert_eq!(v4.gateway().to_string(), "169.254.172.1");
        assert_eq!(v4.len(), 1021);
        assert_eq!(v4.after(None).next().unwrap().to_string(), "169.254.172.2");
        assert_eq!(v4.after(None).last().unwrap().to_string(), "169.254.175.254");
        let v6 = range("fd00::ac:00/118");
        assert_eq!(v6.gateway().to_string(), "fd00::ac:1");
        assert_eq!(v6.len(), 1022);
        assert_eq!(v6.after(None).last().unwrap().to_string(), "fd00::ac:3ff");
    }

    #[test]
    fn the_search_goes_on_after_the_last_one_and_comes_round() {
        let range = range("169.254.172.0/29");
        let after = |last: &str| -> Vec<String> {
            range
                .after(Some(last.parse().unwrap()))
                .map(|a| a.to_string())
                .collect()
        };
        assert_eq!(
            after("169.254.172.4"),
            [
                "169.254.172.5",
                "169.254.172.6",
                "169.254.172.2",
                "169.254.172.3",
                "169.254.172.4"
            ]
        );
        assert_eq!(after("169.254.172.6")[0], "169.254.172.2");
        assert_eq!(after("10.0.0.1")[0], "169.254.172.2", "one of an earlier range");
    }

    #[test]
    fn ranges_that_would_cut_others_off_are_refused() {
        for (net, word) in [
            ("10.0.0.0/22", "169.254.0.0/16"),
            ("169.254.0.0/16", "EC2"),
            ("169.254.168.0/22", "EC2"),
            ("169.254.169.128/25", "EC2"),
            ("169.254.1.0/24", "gateway"),
            ("2600:1f14::/118", "fc00::/7"),
            ("169.254.172.1/22", "host bits"),
            ("169.254.172.0/31", "no room"),
            ("169.254.172.0/32", "no room"),
            ("fd00::/127", "no room"),
        ] {
            let why = Range::of(net.parse().unwrap()).unwrap_err();
            assert!(why.contains(word), "{net}: {why}");
        }
        assert_eq!(range("169.254.172.0/30").len(), 1);
        assert_eq!(range("fd00::/126").len(), 2);
    }

    proptest! {
        #[test]
        fn each_address_comes_once_and_never_the_gateways(length in 24_u8..=30, last: Option<u8>, v6: bool) {
            let range = if v6 {
                range(&format!("fd00:0:0:1::/{}", length + 96))
            } else {
                range(&format!("169.254.172.0/{length}"))
            };
            let last = last.map(|n| range.at(u128::from(n)));
            let all: Vec<IpAddr> = range.after(last).collect();
            let distinct: BTreeSet<IpAddr> = all.iter().copied().collect();
            prop_assert_eq!(all.len() as u128, range.len());
            prop_assert_eq!(distinct.len(), all.len());
            prop_assert!(all.iter().all(|a| range.net().contains(a) && *a != range.gateway() && range.has(*a)));
            prop_assert!(!range.has(range.gateway()) && !range.has(range.net().network()));
            if let Some(last) = last.filter(|last| range.has(*last)) {
                prop_assert_eq!(all.last(), Some(&last), "given again only when all others are taken");
            }
        }
    }
}
