//! Sums over the pool.

use serde::{Deserialize, Serialize};

use super::count;
use crate::ids::CardIndex;
use crate::intent::What;
use crate::interface::State;
use crate::kind::{Kind, Wanted};
use crate::pool::Pool;
use crate::targets::Mode;
use crate::time::Mono;

/// Sums over the pool. The first four mean what the metrics of the AWS VPC CNI mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Addresses for pods on managed interfaces, without those that are given back.
    pub total: u32,
    /// Those with an owner.
    pub assigned: u32,
    /// `total - assigned`: those that cool down are among them.
    pub available: u32,
    /// Of the available, those in cool-down.
    pub cooling: u32,
    /// Those that can be handed out now, of the kind that is given back too.
    pub free: u32,
    /// Sandboxes that wait.
    pub waiting: u32,
    /// Addresses that calls under way, or to be repeated, will bring.
    pub coming: u32,
    /// Interfaces on the managed cards, whoever looks after them.
    pub interfaces: u32,
    /// Interfaces in the making.
    pub creating: u32,
    /// Owners whose address is on no known interface; not in `assigned`.
    pub orphans: u32,
    /// Prefixes on managed interfaces, without those on their way out.
    pub prefixes: u32,
    /// Of these, those of which no pod has an address.
    pub free_prefixes: u32,
    /// Prefixes that calls under way, or to be repeated, will bring.
    pub coming_prefixes: u32,
    /// Addresses without an owner that count for nothing: the mode asks for the other kind (they serve pods until what is
    /// wanted is there), or pods are kept off their interface. They are given back.
    pub draining: u32,
}

impl Tally {
    /// Of `pool` at `now`.
    #[must_use]
    pub fn of(pool: &Pool, now: Mono) -> Self {
        let of = |card| Self::of_card(pool, card, now);
        let cards = pool.cards().map(of);
        cards.fold(Self::apart_from_cards(pool), Self::and)
    }

    /// What is of no card.
    pub(super) fn apart_from_cards(pool: &Pool) -> Self {
        let all = pool.interfaces.values().flat_map(|i| i.kept());
        let placed = all.filter(|a| a.state == State::Owned).count();
        Self {
            waiting: count(pool.waiting.len()),
            orphans: count(pool.by_address.len().saturating_sub(placed)),
            ..Self::default()
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            total: self.total.saturating_add(other.total),
            assigned: self.assigned.saturating_add(other.assigned),
            available: self.available.saturating_add(other.available),
            cooling: self.cooling.saturating_add(other.cooling),
            free: self.free.saturating_add(other.free),
            waiting: self.waiting.saturating_add(other.waiting),
            coming: self.coming.saturating_add(other.coming),
            interfaces: self.interfaces.saturating_add(other.interfaces),
            creating: self.creating.saturating_add(other.creating),
            orphans: self.orphans.saturating_add(other.orphans),
            prefixes: self.prefixes.saturating_add(other.prefixes),
            free_prefixes: self.free_prefixes.saturating_add(other.free_prefixes),
            coming_prefixes: self.coming_prefixes.saturating_add(other.coming_prefixes),
            draining: self.draining.saturating_add(other.draining),
        }
    }

    /// Of one card, without those who wait.
    pub(crate) fn of_card(pool: &Pool, card: CardIndex, now: Mono) -> Self {
        if pool.targets.mode == Mode::Ipv6 {
            return Self::of_ipv6(pool, card, now);
        }
        let mut t = Self::default();
        let wanted = Wanted::of(pool, card);
        for interface in pool.interfaces.values().filter(|i| i.card == card) {
            t.interfaces += 1;
            if !interface.serves(card) {
                continue;
            }
            let barred = pool.is_barred(interface);
            for (at, address) in interface.addresses.iter().filter(|(_, a)| a.counts()) {
                let kind = if interface.prefix_of(*at).is_some() {
                    Kind::Prefix
                } else {
                    Kind::Address
                };
                let owned = address.state == State::Owned;
                let counts = owned || (wanted.counts(kind) && !barred);
                t.total += u32::from(counts);
                t.draining += u32::from(!counts);
                t.assigned += u32::from(owned);
                t.cooling += u32::from(counts && address.cooling_until(now).is_some());
                t.free += u32::from(!barred && address.idle_since(now).is_some());
            }
            for used in interface.prefix_uses(now).filter(|u| !u.leaving) {
                t.prefixes += 1;
                t.free_prefixes += u32::from(used.is_free() && !barred);
            }
        }
        t.available = t.total.saturating_sub(t.assigned);
        for intent in pool.intents.values() {
            if pool.card_of(intent) == card {
                t.coming = t.coming.saturating_add(intent.brings());
                t.coming_prefixes = t.coming_prefixes.saturating_add(intent.bears().1);
                t.creating += u32::from(matches!(intent.what, What::Create(_)));
            }
        }
        t
    }
}
