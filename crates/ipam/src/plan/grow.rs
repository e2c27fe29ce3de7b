//! Growing: first the room on interfaces that are there, then new interfaces, as many side by side as are needed.

use std::collections::BTreeSet;

use super::{Blocked, Ceiling, Plan, Step, count, devices};
use crate::backoff::Block;
use crate::ids::{CardIndex, DeviceIndex, EniId, SubnetId};
use crate::intent::{Intent, What};
use crate::interface::Interface;
use crate::pool::Pool;
use crate::time::Mono;

/// A place where addresses can come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) subnet: &'a SubnetId,
    /// Addresses it has room for, those under way taken off.
    pub(crate) room: u32,
    /// What holds it up, and until when.
    pub(crate) blocked: Option<(Mono, &'a Block)>,
    /// A call that must end first is under way.
    pub(crate) busy: bool,
    /// Ask for no more than this at once, and once at a time.
    pub(crate) cap: Option<u32>,
}

/// Where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place<'a> {
    /// On this interface.
    On(&'a EniId),
    /// On a new one at this position.
    New(CardIndex, DeviceIndex),
}

/// Everything that can bring addresses, in the order it is to be used.
pub(crate) fn candidates(pool: &Pool, now: Mono) -> Vec<Candidate<'_>> {
    let card = pool.limits.card().card;
    let per_eni = pool.limits.per_eni();
    let waiting = !pool.waiting.is_empty();
    let mut growing: Vec<&Interface> = pool.interfaces.values().filter(|i| i.grows(card)).collect();
    growing.sort_by_key(|i| i.order());
    let assign = pool.backoffs.assign.as_ref();
    let mut all: Vec<Candidate<'_>> = Vec::new();
    for interface in growing {
        let under_way: u32 = pool
            .intents
            .values()
            .filter(|i| i.eni() == Some(&interface.id))
            .map(|i| i.brings())
            .sum();
        let doubt = doubt(pool, interface);
        if doubt.is_some_and(|question| !question.hopeful()) {
            continue; // What room it has is not to be found out: other places serve.
        }
        let room = interface.room(per_eni).saturating_sub(under_way);
        if room > 0 {
            let own = [assign, interface.block.as_ref()];
            all.push(Candidate {
                place: Place::On(&interface.id),
                busy: under_way > 0 || doubt.is_some() || careful_call_under_way(pool, &interface.subnet),
                ..candidate(pool, &interface.subnet, room, own, waiting, now)
            });
        }
    }
    for intent in pool.intents.values() {
        if let What::Create(create) = &intent.what {
            // It takes more once it is there.
            let room = per_eni.saturating_sub(create.addresses);
            let place = Place::New(create.card, create.device);
            let own = [assign, None];
            let begun = candidate(pool, &create.lies_in, room, own, waiting, now);
            all.extend((room > 0).then_some(Candidate {
                place,
                busy: true,
                ..begun
            }));
        }
    }
    if let Some(primary) = primary(pool) {
        let taken = devices(pool, card);
        let max = pool.limits.max_interfaces(&pool.targets);
        let slots = max.saturating_sub(count(taken.len()));
        // Position 0 is the primary interface's, also while that is not known.
        let mut free: Vec<DeviceIndex> = (1..=max)
            .map(DeviceIndex)
            .filter(|d| !taken.contains(d))
            .collect();
        let refused = |d: &DeviceIndex| pool.refused_devices.get(d);
        free.sort_by_key(|d| (refused(d).map(|b| b.until), *d));
        for device in free.into_iter().take(slots as usize) {
            let own = [pool.backoffs.create.as_ref(), refused(&device)];
            all.push(Candidate {
                place: Place::New(card, device),
                busy: careful_call_under_way(pool, &primary.subnet),
                ..candidate(pool, &primary.subnet, per_eni, own, waiting, now)
            });
        }
    }
    all
}

fn candidate<'a>(
    pool: &'a Pool,
    subnet: &'a SubnetId,
    room: u32,
    own: [Option<&'a Block>; 2],
    waiting: bool,
    now: Mono,
) -> Candidate<'a> {
    let full = pool.backoffs.subnet(subnet);
    let of_subnet = full.and_then(|s| Some((s.until(waiting)?, s.full.as_ref()?)));
    let blocked = own.into_iter().flatten().map(|b| (b.until, b)).chain(of_subnet);
    Candidate {
        place: Place::New(CardIndex(0), DeviceIndex(0)),
        subnet,
        room,
        blocked: blocked
            .filter(|(until, _)| *until > now)
            .max_by_key(|(until, _)| *until),
        busy: false,
        cap: full.and_then(|s| s.cap),
    }
}

/// The question to EC2 what the interface holds, after a call about it went wrong.
fn doubt<'a>(pool: &'a Pool, interface: &Interface) -> Option<&'a Intent> {
    let asks = |w: &What| matches!(w, What::Describe { eni, doubt: true, .. } if *eni == interface.id);
    pool.intents.values().find(|i| asks(&i.what))
}

/// A subnet that ran dry is asked by one call at a time.
fn careful_call_under_way(pool: &Pool, subnet: &SubnetId) -> bool {
    pool.backoffs.subnet(subnet).is_some_and(|s| s.cap.is_some())
        && pool.intents.values().any(|i| match &i.what {
            What::Create(c) => c.lies_in == *subnet,
            What::Assign { eni, .. } => pool.interfaces.get(eni).is_some_and(|i| i.subnet == *subnet),
            _ => false,
        })
}

pub(crate) fn primary(pool: &Pool) -> Option<&Interface> {
    pool.interfaces.values().find(|i| i.is_primary)
}

pub(super) fn grow(pool: &Pool, now: Mono, plan: &mut Plan) {
    let by_address = pool.targets.ip_targets().is_some();
    let mut short = plan.goal.warm_short.max(plan.goal.serve_short);
    let mut headroom = pool
        .targets
        .max_pods
        .saturating_sub(plan.tally.total.saturating_add(plan.tally.coming));
    if headroom == 0 {
        plan.ceiling = Some(Ceiling::MaxPods);
        return;
    }
    let patience = pool.waiting.values().map(crate::owner::Wait::deadline).min();
    let mut careful: BTreeSet<&SubnetId> = BTreeSet::new();
    for c in candidates(pool, now) {
        if short == 0 || headroom == 0 {
            break;
        }
        if let Some((until, block)) = c.blocked {
            plan.wake_at(until);
            plan.blocked.push(blocked(&c, until, block));
            // What comes back in time for the pods that wait is as good as under way; else go on to the next place.
            if patience.is_some_and(|deadline| deadline < until) {
                continue;
            }
            short = short.saturating_sub(c.room);
        } else if c.busy || careful.contains(c.subnet) {
            short = short.saturating_sub(c.room);
        } else {
            let wanted = if by_address {
                c.room.min(short).min(headroom)
            } else {
                c.room
            };
            let amount = c.cap.map_or(wanted, |cap| wanted.min(cap.max(1)));
            if c.cap.is_some() {
                careful.insert(c.subnet);
            }
            plan.steps.push(match c.place {
                Place::On(eni) => Step::Assign {
                    eni: eni.clone(),
                    count: amount,
                },
                Place::New(card, device) => Step::Create {
                    card,
                    device,
                    subnet: c.subnet.clone(),
                    addresses: amount,
                },
            });
            // The rest of its room comes by later calls: no other place is opened for it.
            short = short.saturating_sub(wanted);
            headroom = headroom.saturating_sub(amount);
        }
    }
    if short > 0 {
        plan.ceiling = Some(if headroom == 0 {
            Ceiling::MaxPods
        } else {
            ceiling(pool)
        });
    }
}

/// What stops a pool that has used up all its candidates.
pub(crate) fn ceiling(pool: &Pool) -> Ceiling {
    if primary(pool).is_none() {
        Ceiling::NoPrimary
    } else if pool.limits.max_interfaces(&pool.targets) < pool.limits.card().interfaces {
        Ceiling::MaxEni
    } else {
        Ceiling::InstanceFull
    }
}

fn blocked(c: &Candidate<'_>, until: Mono, block: &Block) -> Blocked {
    let what = match c.place {
        Place::On(eni) => format!("addresses for {eni} in {}", c.subnet),
        Place::New(_, device) => format!("a new interface at device {device} in {}", c.subnet),
    };
    Blocked {
        what,
        until,
        class: block.class,
        why: block.message.clone(),
    }
}
