//! Which address is handed out next.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::ids::{CardIndex, DeviceIndex, EniId};
use crate::interface::State;
use crate::kind::Kind;
use crate::pool::Pool;
use crate::time::Mono;
use crate::why::Why;

/// An address to hand out, and why this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pick {
    pub(crate) eni: EniId,
    pub(crate) address: IpAddr,
    pub(crate) why: Why,
}

/// The smaller, the sooner it is handed out.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Of the kind that the mode asks for?
    other_kind: bool,
    /// Prefixes are filled one after the other, the fullest first, so that the emptier ones can go.
    room_left: usize,
    /// The first interface in order, so that the last can come free.
    place: (bool, CardIndex, DeviceIndex),
    /// Prefixes that are equally full: the first.
    prefix: Option<Ipv4Net>,
    /// The one that lay idle longest, so that what still remembers its last owner has time to forget.
    since: Mono,
    at: Ipv4Addr,
}

impl Rank {
    /// How many pods had an address of its prefix.
    fn taken(&self) -> u32 {
        Kind::Prefix
            .size()
            .saturating_sub(crate::plan::count(self.room_left))
    }
}

impl Pool {
    /// The address of a card to hand out next.
    pub(crate) fn pick(&self, card: CardIndex, now: Mono) -> Option<Pick> {
        let wanted = self.targets.mode.kind();
        let mut best: Option<(Rank, &EniId)> = None;
        for interface in self.serving(card) {
            // Without prefixes the place decides: the others need not be looked through.
            if let Some((rank, _)) = &best
                && wanted == Kind::Address
                && !rank.other_kind
                && rank.place < interface.order()
            {
                continue;
            }
            let mut owned: BTreeMap<Ipv4Net, usize> = BTreeMap::new();
            if !interface.prefixes.is_empty() {
                let in_use = interface
                    .addresses
                    .iter()
                    .filter(|(_, a)| a.state == State::Owned);
                for net in in_use.filter_map(|(at, _)| interface.prefix_of(*at)) {
                    *owned.entry(net).or_default() += 1;
                }
            }
            for (at, address) in &interface.addresses {
                let Some(since) = address.idle_since(now) else {
                    continue;
                };
                if self.by_address.contains_key(&IpAddr::V4(*at)) {
                    continue;
                }
                let prefix = interface.prefix_of(*at);
                let kind = if prefix.is_some() {
                    Kind::Prefix
                } else {
                    Kind::Address
                };
                let taken = prefix.and_then(|p| owned.get(&p)).copied().unwrap_or(0);
                let rank = Rank {
                    other_kind: kind != wanted,
                    room_left: (kind.size() as usize).saturating_sub(taken),
                    place: interface.order(),
                    prefix,
                    since,
                    at: *at,
                };
                if best.as_ref().is_none_or(|(b, _)| rank < *b) {
                    best = Some((rank, &interface.id));
                }
            }
        }
        best.map(|(rank, eni)| Pick {
            eni: eni.clone(),
            address: IpAddr::V4(rank.at),
            why: Why::of_ipv4(
                rank.other_kind,
                rank.prefix.map(|net| (net, rank.taken())),
                now.since(rank.since),
            ),
        })
    }

    /// The next end of a cool-down on a card.
    pub(crate) fn next_cool(&self, card: CardIndex, now: Mono) -> Option<Mono> {
        self.serving(card)
            .flat_map(|i| i.addresses.values())
            .filter(|a| !a.is_doubted())
            .filter_map(|a| a.cooling_until(now))
            .min()
    }
}
