//! Places where addresses can come from, and what holds each up.

use super::{count, devices};
use crate::backoff::Block;
use crate::event::{FailureClass, InterfaceKind};
use crate::ids::{CardIndex, DeviceIndex, EniId, SubnetId};
use crate::intent::{Intent, What};
use crate::interface::Interface;
use crate::kind::Kind;
use crate::pool::Pool;
use crate::time::Mono;

/// A place where addresses can come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) subnet: &'a SubnetId,
    /// What it would be given.
    pub(crate) kind: Kind,
    /// How many of these it has room for, those under way taken off.
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

impl Candidate<'_> {
    /// Addresses it has room for.
    pub(crate) fn brings(&self) -> u32 {
        self.room.saturating_mul(self.kind.size())
    }

    /// Its subnet has none of the kind: others are asked at once, and it again only later.
    pub(crate) fn is_dry(&self) -> bool {
        self.blocked
            .is_some_and(|(_, b)| b.class == FailureClass::SubnetExhausted)
    }
}

/// Everything that can bring addresses, in the order it is to be used. Where prefixes are wanted and a place's subnet has
/// none, single addresses from there come last.
pub(crate) fn candidates(pool: &Pool, card: CardIndex, now: Mono) -> Vec<Candidate<'_>> {
    let kind = pool.targets.mode.kind();
    let mut all = of_kind(pool, card, kind, now);
    if kind == Kind::Prefix && all.iter().any(Candidate::is_dry) {
        // Each place's own subnet is asked: the one that is best for addresses need not be the one best for prefixes.
        let dry = |subnet: &SubnetId| dry_until(pool, subnet, kind).is_some_and(|(until, _)| until > now);
        let singles = of_kind(pool, card, Kind::Address, now);
        let instead = singles.into_iter().filter(|c| dry(c.subnet));
        let instead: Vec<Candidate<'_>> = instead.collect();
        all.extend(instead);
    }
    all
}

fn of_kind(pool: &Pool, card: CardIndex, kind: Kind, now: Mono) -> Vec<Candidate<'_>> {
    let per_eni = pool.limits.per_eni();
    let assign = pool.backoffs.assign.as_ref();
    let mut growing: Vec<&Interface> = pool.growing(card).collect();
    growing.sort_by_key(|i| i.order());
    let mut all: Vec<Candidate<'_>> = Vec::new();
    for interface in growing {
        let of_it = pool.intents.values().filter(|i| i.eni() == Some(&interface.id));
        let under_way: u32 = of_it
            .map(|i| {
                let (addresses, prefixes) = i.bears();
                addresses.saturating_add(prefixes)
            })
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
                room,
                busy: under_way > 0
                    || doubt.is_some()
                    || careful_call_under_way(pool, &interface.subnet, kind),
                ..candidate(pool, &interface.subnet, kind, own, now)
            });
        }
    }
    for intent in pool.intents.values() {
        if let What::Create(create) = &intent.what
            && create.card == card
        {
            // It takes more once it is there.
            let room = per_eni.saturating_sub(create.count());
            if room > 0 {
                all.push(Candidate {
                    place: Place::New(create.card, create.device),
                    room,
                    busy: true,
                    ..candidate(pool, &create.lies_in, kind, [assign, None], now)
                });
            }
        }
    }
    let mut free = free_devices(pool, card);
    let refused = |d: &DeviceIndex| pool.refused_device(card, *d);
    free.sort_by_key(|d| (refused(d).map(|b| b.until), *d));
    for device in free.into_iter().take(slots(pool, card) as usize) {
        let own = [pool.backoffs.create.as_ref(), refused(&device)];
        if let Some(best) = best_subnet(pool, kind, own, now) {
            all.push(Candidate {
                place: Place::New(card, device),
                room: per_eni,
                busy: careful_call_under_way(pool, best.subnet, kind),
                ..best
            });
        }
    }
    all
}

/// The subnet a new interface would lie in: the first that has not just denied anything of the kind; else one that may have
/// less; else the one that is asked again soonest.
pub(crate) fn best_subnet<'a>(
    pool: &'a Pool,
    kind: Kind,
    own: [Option<&'a Block>; 2],
    now: Mono,
) -> Option<Candidate<'a>> {
    let all = pool.new_subnets(kind).into_iter();
    let subnet = all.min_by_key(|subnet| {
        let dry = dry_until(pool, subnet, kind).map(|(until, _)| until);
        let careful = pool
            .backoffs
            .subnet(subnet, kind)
            .is_some_and(|d| d.cap.is_some());
        (dry.filter(|until| *until > now), careful)
    })?;
    Some(candidate(pool, subnet, kind, own, now))
}

fn candidate<'a>(
    pool: &'a Pool,
    subnet: &'a SubnetId,
    kind: Kind,
    own: [Option<&'a Block>; 2],
    now: Mono,
) -> Candidate<'a> {
    let of_subnet = dry_until(pool, subnet, kind);
    let blocked = own.into_iter().flatten().map(|b| (b.until, b)).chain(of_subnet);
    Candidate {
        place: Place::New(CardIndex(0), DeviceIndex(0)),
        subnet,
        kind,
        room: 0,
        blocked: blocked
            .filter(|(until, _)| *until > now)
            .max_by_key(|(until, _)| *until),
        busy: false,
        cap: pool.backoffs.subnet(subnet, kind).and_then(|s| s.cap),
    }
}

fn dry_until<'a>(pool: &'a Pool, subnet: &SubnetId, kind: Kind) -> Option<(Mono, &'a Block)> {
    let dry = pool.backoffs.subnet(subnet, kind)?;
    Some((dry.until(!pool.waiting.is_empty())?, dry.full.as_ref()?))
}

/// The question to EC2 what the interface holds, after a call about it went wrong.
fn doubt<'a>(pool: &'a Pool, interface: &Interface) -> Option<&'a Intent> {
    let asks = |w: &What| matches!(w, What::Describe { eni, doubt: true, .. } if *eni == interface.id);
    pool.intents.values().find(|i| asks(&i.what))
}

/// A subnet that ran dry is asked by one call at a time.
fn careful_call_under_way(pool: &Pool, subnet: &SubnetId, kind: Kind) -> bool {
    let careful = pool
        .backoffs
        .subnet(subnet, kind)
        .is_some_and(|s| s.cap.is_some());
    careful
        && pool.intents.values().any(|i| match &i.what {
            What::Create(c) => c.lies_in == *subnet && c.kind() == kind,
            What::Assign { eni, kind: k, .. } => {
                *k == kind && pool.interfaces.get(eni).is_some_and(|i| i.subnet == *subnet)
            }
            _ => false,
        })
}

pub(crate) fn primary(pool: &Pool) -> Option<&Interface> {
    pool.interfaces.values().find(|i| i.is_primary)
}

/// How many interfaces the card takes beside those that are there or in the making.
pub(crate) fn slots(pool: &Pool, card: CardIndex) -> u32 {
    let trunk = |i: &Interface| i.kind == InterfaceKind::Trunk;
    let reserved =
        pool.targets.reserve_trunk_slot && pool.is_first(card) && !pool.interfaces.values().any(trunk);
    let taken = count(devices(pool, card).len()).saturating_add(u32::from(reserved));
    pool.max_interfaces(card).saturating_sub(taken)
}

/// The position a new interface would be attached at.
pub(crate) fn free_device(pool: &Pool, card: CardIndex) -> Option<DeviceIndex> {
    let refused = |d: &DeviceIndex| pool.refused_device(card, *d).map(|b| b.until);
    free_devices(pool, card)
        .into_iter()
        .min_by_key(|d| (refused(d), *d))
}

fn free_devices(pool: &Pool, card: CardIndex) -> Vec<DeviceIndex> {
    let taken = devices(pool, card);
    let max = pool.max_interfaces(card);
    // Position 0 of its card is the primary interface's, also while that is not known. One more than there is room for:
    // somebody may sit where we do not know.
    let all = (u32::from(pool.is_first(card))..=max).map(DeviceIndex);
    all.filter(|d| !taken.contains(d)).collect()
}
