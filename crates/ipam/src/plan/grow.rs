//! Growing: first the room on interfaces that are there, then new interfaces, as many side by side as are needed; with
//! prefixes, then the same again with single addresses where there is no prefix to be had.

use std::collections::BTreeSet;

use super::places::{Candidate, primary};
use super::{Blocked, Ceiling, Place, Plan, Step, candidates, drain, slots};
use crate::arithmetic::prefixes_for;
use crate::backoff::Block;
use crate::ids::{CardIndex, SubnetId};
use crate::kind::Kind;
use crate::pool::Pool;
use crate::time::Mono;

/// What is still missing.
struct Need {
    addresses: u32,
    prefixes: u32,
}

impl Need {
    /// Of a kind.
    fn of(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Address => self.addresses,
            Kind::Prefix => self.prefixes.max(prefixes_for(self.addresses)),
        }
    }

    /// So many of a kind are counted on.
    fn met(&mut self, kind: Kind, count: u32) {
        self.addresses = self.addresses.saturating_sub(count.saturating_mul(kind.size()));
        if kind == Kind::Prefix {
            self.prefixes = self.prefixes.saturating_sub(count);
        }
    }
}

/// Returns how many of those who wait are not served by it.
pub(super) fn grow(pool: &Pool, card: CardIndex, now: Mono, plan: &mut Plan) -> u32 {
    let kind = pool.targets.mode.kind();
    let exactly = kind == Kind::Prefix || pool.ip_targets(card).is_some();
    let mut need = Need {
        addresses: plan.goal.warm_short.max(plan.goal.serve_short),
        prefixes: plan.goal.prefixes_short,
    };
    let mut headroom = pool
        .targets
        .max_pods
        .saturating_sub(plan.tally.total.saturating_add(plan.tally.coming));
    if headroom == 0 {
        plan.ceiling = Some(Ceiling::MaxPods);
        return 0;
    }
    // While EC2 refuses calls, no more are made than those who wait need; what such a call brings beyond that is welcome.
    let pressure = pool.backoffs.pressure.at(now);
    let awaited = pool.backoffs.pressure.awaits(now);
    let mut pressing = Need {
        addresses: plan.goal.serve_short.max(awaited.min(plan.goal.warm_short)),
        prefixes: 0,
    };
    let patience = pool.waiting.values().map(crate::owner::Wait::deadline).min();
    let mut careful: BTreeSet<(&SubnetId, Kind)> = BTreeSet::new();
    let mut later = 0_u32;
    for c in candidates(pool, card, now) {
        let wanted = need.of(c.kind);
        if wanted == 0 || headroom == 0 {
            break;
        }
        if pressing.addresses == 0
            && let Some(block) = pressure
        {
            plan.wake_at(block.until);
            plan.blocked.push(Blocked {
                what: format!("{} addresses that no pod waits for", need.addresses),
                until: block.until,
                class: block.class,
                why: block.message.clone(),
            });
            return 0;
        }
        if let Some((until, block)) = c.blocked {
            plan.wake_at(until);
            plan.blocked.push(blocked(&c, until, block));
            // Of a subnet that has none the next place is asked at once. Else: what comes back in time for the pods that
            // wait is as good as under way.
            if c.is_dry() {
                later = later.saturating_add(c.brings());
            } else if patience.is_none_or(|deadline| deadline >= until) {
                need.met(c.kind, c.room);
                pressing.met(c.kind, c.room);
            }
        } else if c.busy || careful.contains(&(c.subnet, c.kind)) {
            need.met(c.kind, c.room);
            pressing.met(c.kind, c.room);
        } else {
            let wanted = if exactly {
                c.room.min(wanted).min(headroom.div_ceil(c.kind.size()))
            } else {
                c.room
            };
            let amount = c.cap.map_or(wanted, |cap| wanted.min(cap.max(1)));
            if c.cap.is_some() {
                careful.insert((c.subnet, c.kind));
            }
            plan.steps.push(step(&c, amount));
            // The rest of its room comes by later calls: no other place is opened for it.
            need.met(c.kind, wanted);
            pressing.met(c.kind, wanted);
            headroom = headroom.saturating_sub(amount.saturating_mul(c.kind.size()));
        }
    }
    if need.addresses > later && plan.steps.is_empty() && headroom > 0 {
        drain::make_room(pool, card, now, need.of(kind), plan);
    }
    if need.addresses > later {
        plan.ceiling = Some(if headroom == 0 {
            Ceiling::MaxPods
        } else {
            ceiling(pool, card)
        });
    }
    if headroom == 0 { 0 } else { need.addresses }
}

fn step(c: &Candidate<'_>, amount: u32) -> Step {
    let (addresses, prefixes) = match c.kind {
        Kind::Address => (amount, 0),
        Kind::Prefix => (0, amount),
    };
    match (c.place, c.kind) {
        (Place::On(eni), Kind::Address) => Step::Assign {
            eni: eni.clone(),
            count: amount,
        },
        (Place::On(eni), Kind::Prefix) => Step::AssignPrefixes {
            eni: eni.clone(),
            count: amount,
        },
        (Place::New(card, device), _) => Step::Create {
            card,
            device,
            subnet: c.subnet.clone(),
            addresses,
            prefixes,
        },
    }
}

/// What stops a pool that has used up all its candidates.
pub(crate) fn ceiling(pool: &Pool, card: CardIndex) -> Ceiling {
    let kind = pool.targets.mode.kind();
    if primary(pool).is_none() {
        Ceiling::NoPrimary
    } else if slots(pool, card) > 0 && pool.new_subnets(kind).is_empty() {
        Ceiling::NoSubnet
    } else if pool
        .limits
        .cards
        .iter()
        .any(|c| c.card == card && c.under(&pool.targets) < c.interfaces)
    {
        Ceiling::MaxEni
    } else {
        Ceiling::InstanceFull
    }
}

fn blocked(c: &Candidate<'_>, until: Mono, block: &Block) -> Blocked {
    let (kind, subnet) = (c.kind, c.subnet);
    let what = match c.place {
        Place::On(eni) => format!("{kind} for {eni} in {subnet}"),
        Place::New(_, device) => format!("a new interface at device {device} in {subnet}"),
    };
    Blocked {
        what,
        until,
        class: block.class,
        why: block.message.clone(),
    }
}
