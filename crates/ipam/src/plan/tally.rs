//! Sums over the pool.

use serde::{Deserialize, Serialize};

use super::count;
use crate::ids::CardIndex;
use crate::intent::What;
use crate::interface::State;
use crate::kind::{Kind, Wanted};
use crate::pool::Pool;
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
    /// Interfaces on the card, whoever looks after them.
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
        let card = pool.limits.card().card;
        let mut t = Self::of_card(pool, card, now);
        t.waiting = count(pool.waiting.len());
        let mut placed = 0_usize;
        for address in pool.interfaces.values().flat_map(|i| i.addresses.values()) {
            placed += usize::from(address.state == State::Owned);
        }
        t.orphans = count(pool.by_address.len().saturating_sub(placed));
        t
    }

    /// Of one card, without those who wait.
    pub(crate) fn of_card(pool: &Pool, card: CardIndex, now: Mono) -> Self {
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
            let place = match &intent.what {
                What::Create(c) => Some(c.card),
                _ => intent
                    .eni()
                    .and_then(|eni| pool.interfaces.get(eni))
                    .map(|i| i.card),
            };
            if place.unwrap_or(pool.limits.card().card) == card {
                t.coming = t.coming.saturating_add(intent.brings());
                t.coming_prefixes = t.coming_prefixes.saturating_add(intent.bears().1);
                t.creating += u32::from(matches!(intent.what, What::Create(_)));
            }
        }
        t
    }
}
