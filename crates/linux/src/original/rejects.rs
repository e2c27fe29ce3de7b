//! The rule by which the original keeps everybody from opening connections to the addresses of pods' egress: one in `FORWARD` of the
//! family, whichever of its pods there are. `egress-cni`'s table has a chain for that.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::legacy::{self, Programs};
use super::{Backend, OriginalError, Removed, nft};
use crate::nfnetlink::Nfnetlink;

pub(super) const FILTER: &str = "filter";
pub(super) const FORWARD: &str = "FORWARD";

/// The comment of its rule, by which it is known.
pub(super) fn comment(v6: bool) -> &'static str {
    if v6 {
        "Block Node Local Pod access via IPv6"
    } else {
        "Block Node Local Pod access via IPv4"
    }
}

/// The addresses that it protects: those of the original's pods, and of ours unless somebody configures others.
#[must_use]
pub fn egress_range(v6: bool) -> IpNet {
    const V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 172, 0), 22);
    const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xac, 0), 118);
    if v6 { V6.into() } else { V4.into() }
}

/// Takes the rule away from both back ends; says where it was. To be called when something else protects those addresses, or
/// nobody has any.
///
/// # Errors
/// [`OriginalError`] with what was done before.
pub fn remove_reject(programs: &Programs, v6: bool) -> (Vec<Removed>, Result<(), OriginalError>) {
    let mut removed = Vec::new();
    let mut count = |backend, rules| {
        if rules > 0 {
            removed.push(Removed {
                backend,
                tables: Vec::new(),
                chains: Vec::new(),
                rules,
            });
        }
    };
    let nft = Nfnetlink::open().and_then(|mut netlink| nft::remove_rejects(&mut netlink, v6));
    let nft = nft.map(|rules| count(Backend::Nftables, rules));
    let legacy = legacy::remove_rejects(programs, v6).map(|rules| count(Backend::Legacy, rules));
    let outcome = nft
        .map_err(OriginalError::from)
        .and(legacy.map_err(OriginalError::from));
    (removed, outcome)
}
