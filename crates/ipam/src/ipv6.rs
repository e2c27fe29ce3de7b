//! IPv6: one /80 on one interface of each card, the primary's first. It holds more addresses than a node can have pods, so
//! nothing is kept warm: an address is taken from it when a pod comes, and not again before its cool-down is over. Only
//! addresses that a pod has or had lately are written down.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::backoff::Block;
use crate::ids::{CardIndex, EniId};
use crate::intent::What;
use crate::interface::{Address, Interface, State};
use crate::journal::Limbo;
use crate::kind::Kind;
use crate::pick::Pick;
use crate::plan::{
    Ceiling, Plan, Step, Tally, best_subnet, blocked_step, ceiling, count, free_device, slots,
};
use crate::pool::Pool;
use crate::time::Mono;
use crate::why::Why;

impl Interface {
    /// The first address of the /80 that nobody has or had lately, `taken` apart.
    fn free_ipv6(&self, now: Mono, taken: impl Fn(&Ipv6Addr) -> bool) -> Option<Ipv6Addr> {
        let usable = |at: &Ipv6Addr| {
            let idle = |a: &Address| a.idle_since(now).is_some();
            self.ipv6.get(at).is_none_or(idle) && !taken(at)
        };
        let mut all = self.ipv6_prefixes.iter().flat_map(|prefix| {
            let first = prefix.network().to_bits();
            let last = prefix.broadcast().to_bits();
            (first..=last).map(Ipv6Addr::from_bits)
        });
        // No more are passed over than pods have, or had lately.
        all.find(usable)
    }
}

impl Pool {
    /// The IPv6 address of a card to hand out next, if the node may have another pod.
    pub(crate) fn pick_ipv6(&self, card: CardIndex, now: Mono) -> Option<Pick> {
        if Tally::of_ipv6(self, card, now).free == 0 {
            return None;
        }
        let mut places: Vec<&Interface> = self.serving(card).collect();
        places.sort_by_key(|i| i.order());
        let taken = |at: &Ipv6Addr| self.by_address.contains_key(&IpAddr::V6(*at));
        places.into_iter().find_map(|i| {
            let at = i.free_ipv6(now, taken)?;
            Some(Pick {
                eni: i.id.clone(),
                address: IpAddr::V6(at),
                why: Why::Ipv6,
            })
        })
    }

    /// Puts a /80 on an interface, and the owners there who have an address of it. True if it is new there.
    pub(crate) fn add_ipv6_prefix(&mut self, eni: &EniId, prefix: Ipv6Net) -> bool {
        let Some(interface) = self.interfaces.get_mut(eni) else {
            return false;
        };
        let new = interface.ipv6_prefixes.insert(prefix);
        let (device, card, table) = (interface.device, interface.card, interface.table());
        let range = IpAddr::V6(prefix.network())..=IpAddr::V6(prefix.broadcast());
        for (at, key) in self.by_address.range(range.clone()) {
            let held = self.owners.get_mut(key).into_iter().flat_map(|o| &mut o.held);
            for held in held.filter(|h| h.address == *at) {
                (held.eni, held.device, held.card, held.table) = (eni.clone(), device, card, table);
            }
            if let IpAddr::V6(at) = at {
                let address = interface.ipv6.entry(*at).or_insert(Address::free(Mono(0)));
                (address.state, address.disputed) = (State::Owned, false);
            }
        }
        let cooling: Vec<IpAddr> = self.limbo.range(range).map(|(at, _)| *at).collect();
        for at in cooling {
            if let (IpAddr::V6(v6), Some(Limbo { until, last })) = (at, self.limbo.remove(&at)) {
                let state = State::Cooling { until };
                let last = Some(Box::new(last));
                interface.ipv6.entry(v6).or_insert(Address {
                    state,
                    disputed: false,
                    unsure: false,
                    last,
                });
            }
        }
        if new {
            self.changed_state();
        }
        new
    }

    /// Is it known or being found out whether an interface of the card has a /80?
    fn ipv6_under_way(&self, card: CardIndex) -> bool {
        self.intents.values().any(|i| {
            let about = matches!(
                i.what,
                What::AssignIpv6 { .. } | What::Create(_) | What::Describe { doubt: true, .. }
            );
            about && self.card_of(i) == card && i.hopeful()
        })
    }
}

impl Tally {
    /// Of a card in IPv6 mode: what max-pods allows takes the place of what is there, which no node uses up.
    pub(crate) fn of_ipv6(pool: &Pool, card: CardIndex, now: Mono) -> Self {
        let on_card = || pool.interfaces.values().filter(|i| i.card == card);
        let mut t = Self {
            interfaces: count(on_card().count()),
            ..Self::default()
        };
        for address in on_card().flat_map(|i| i.ipv6.values()) {
            t.assigned += u32::from(address.state == State::Owned);
            t.cooling += u32::from(address.cooling_until(now).is_some());
        }
        let room = pool.targets.max_pods.max(t.assigned);
        if pool.serving(card).any(|i| !i.ipv6_prefixes.is_empty()) {
            t.total = room;
            t.free = room.saturating_sub(t.assigned);
        } else {
            t.total = t.assigned;
            if pool.ipv6_under_way(card) {
                t.coming = room.saturating_sub(t.assigned);
            }
        }
        t.available = t.total.saturating_sub(t.assigned);
        let creating = |w: &What| matches!(w, What::Create(c) if c.card == card);
        t.creating = count(pool.intents.values().filter(|i| creating(&i.what)).count());
        t
    }
}

/// When how many more pods can have an address, while no interface of the card has a /80.
pub(crate) fn supply(pool: &Pool, card: CardIndex, now: Mono) -> Option<(Mono, u32)> {
    let t = Tally::of_ipv6(pool, card, now);
    let grows = pool.targets.provisions() && !pool.targets.unschedulable;
    if t.free > 0 || (pool.listed && !grows) {
        return None;
    }
    let room = pool.targets.max_pods.saturating_sub(t.assigned);
    if !pool.listed || !pool.interfaces.values().any(|i| i.is_primary) {
        return Some((now, room)); // The agent is still finding out what there is.
    }
    if pool.ipv6_under_way(card) {
        let of_card = pool.intents.values().filter(|i| pool.card_of(i) == card);
        let at = of_card.map(|i| i.ready_at(now)).max();
        return Some((at.unwrap_or(now), room));
    }
    let mut next = Plan::of(t);
    plan(pool, card, now, &mut next);
    let later = next.blocked.iter().map(|b| b.until).min();
    let at = if next.steps.is_empty() { later } else { Some(now) };
    at.map(|at| (at, room))
}

/// The steps to a /80 on the card.
pub(crate) fn plan(pool: &Pool, card: CardIndex, now: Mono, plan: &mut Plan) {
    let mut places: Vec<&Interface> = pool.growing(card).collect();
    places.sort_by_key(|i| i.order());
    if pool.serving(card).any(|i| !i.ipv6_prefixes.is_empty()) || pool.ipv6_under_way(card) {
        if plan.tally.total >= pool.targets.max_pods && plan.goal.serve_short > 0 {
            plan.ceiling = Some(Ceiling::MaxPods);
        }
        return;
    }
    if !pool.interfaces.values().any(|i| i.is_primary) {
        plan.ceiling = Some(Ceiling::NoPrimary);
        return;
    }
    let mut tries: Vec<(Step, Option<&Block>)> = Vec::new();
    let assign = pool.backoffs.assign.as_ref();
    for place in places {
        let step = Step::AssignIpv6Prefix {
            eni: place.id.clone(),
        };
        let blocks = assign.into_iter().chain(&place.block);
        tries.push((step, blocks.max_by_key(|b| b.until)));
    }
    let none = tries.is_empty();
    if let Some(device) = free_device(pool, card).filter(|_| none && slots(pool, card) > 0) {
        let own = [pool.backoffs.create.as_ref(), pool.refused_device(card, device)];
        if let Some(place) = best_subnet(pool, Kind::Address, own, now) {
            // Its /80 is asked for once it is there.
            let step = Step::Create {
                card,
                device,
                subnet: place.subnet.clone(),
                addresses: 0,
                prefixes: 0,
            };
            tries.push((step, place.blocked.map(|(_, b)| b)));
        }
    }
    for (step, block) in tries {
        match block.filter(|b| b.until > now) {
            Some(block) => blocked_step(plan, &step, block),
            None => {
                plan.steps.push(step);
                return;
            }
        }
    }
    if plan.blocked.is_empty() {
        plan.ceiling = Some(ceiling(pool, card));
    }
}
