//! What is given back piece by piece: addresses and prefixes too many, and those of the kind that the mode no longer asks
//! for. Nothing that a pod has, or had a moment ago.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::shrink::{DECREASE_GAP, Rest, secs};
use super::{Plan, Step};
use crate::arithmetic::PREFIX_SIZE;
use crate::ids::CardIndex;
use crate::intent::What;
use crate::interface::{Address, Interface};
use crate::kind::{Kind, Wanted};
use crate::pool::Pool;
use crate::prefix::Use;
use crate::time::Mono;

/// What may go, how much of it.
struct Surplus {
    addresses: usize,
    prefixes: usize,
}

/// Pods are kept off: nothing of it counts.
const ALL: Surplus = Surplus {
    addresses: usize::MAX,
    prefixes: usize::MAX,
};

/// Plans releases: what is too many of what counts, and all that does not count.
pub(super) fn release(
    pool: &Pool,
    card: CardIndex,
    now: Mono,
    rest: &Rest<'_>,
    plan: &mut Plan,
    explained: bool,
) {
    let wanted = Wanted::of(pool, card);
    let mut places: Vec<&Interface> = pool.interfaces.values().filter(|i| i.serves(card)).collect();
    places.retain(|i| !rest.spare.contains(&&i.id)); // They go whole, soon.
    // From the interface with the fewest pods, the last first, so that whole interfaces come free.
    places.sort_by_key(|i| (i.owned(), std::cmp::Reverse(i.order())));
    let (barred, open): (Vec<&Interface>, Vec<&Interface>) =
        places.into_iter().partition(|i| pool.is_barred(i));
    let surplus = surplus(pool, card, wanted, rest, &open);
    let (mut steps, mut rest_until) = release_from(&open, &surplus, now);
    let (more, later) = release_from(&barred, &ALL, now);
    steps.extend(more);
    rest_until = rest_until.into_iter().chain(later).min();
    let ready_at = if steps.is_empty() { rest_until } else { Some(now) };
    let Some(ready_at) = ready_at else {
        return;
    };
    let gap_ends = pool.last_decrease.map_or(now, |at| at.plus(DECREASE_GAP));
    let denied_until = pool.backoffs.release.as_ref().map_or(now, |b| b.until);
    let at = ready_at.max(gap_ends).max(denied_until);
    if at <= now {
        plan.steps.extend(steps);
        return;
    }
    plan.wake_at(at);
    if explained {
        let mut what = Vec::new();
        for (n, of) in [
            (surplus.addresses, Kind::Address),
            (surplus.prefixes, Kind::Prefix),
        ] {
            what.extend((n > 0).then(|| format!("{n} {of}")));
        }
        if what.is_empty() {
            what.push("what is".to_owned());
        }
        plan.kept.push(format!(
            "{} too many stay for {} s: released at most every 30 s, never while they cool down, never when EC2 just refused",
            what.join(" and "),
            secs(at, now)
        ));
    }
}

fn surplus(pool: &Pool, card: CardIndex, wanted: Wanted, rest: &Rest<'_>, places: &[&Interface]) -> Surplus {
    let over = rest.over as usize;
    let single = |i: &&Interface| i.singles().filter(|(_, a)| is_idle(a)).count();
    let free = |i: &&Interface| i.prefix_uses(Mono::default()).filter(Use::may_go).count();
    let (singles, prefixes) = (
        places.iter().map(single).sum::<usize>(),
        places.iter().map(free).sum::<usize>(),
    );
    match pool.targets.mode.kind() {
        Kind::Address => Surplus {
            // By the warm ENI target interfaces go, not addresses.
            addresses: if pool.ip_targets(card).is_some() {
                singles.min(over)
            } else {
                0
            },
            prefixes,
        },
        Kind::Prefix => {
            let addresses = if wanted.counts(Kind::Address) {
                singles.min(over)
            } else {
                singles
            };
            // Single addresses go first: they stand in for prefixes.
            let gone = if wanted.counts(Kind::Address) {
                addresses
            } else {
                0
            };
            let left = over.saturating_sub(gone) / PREFIX_SIZE as usize;
            let beyond = match pool.ip_targets(card) {
                Some(_) => rest.prefixes,
                None => rest
                    .prefixes
                    .saturating_sub(pool.targets.warm_prefix.unwrap_or(0)),
            };
            Surplus {
                addresses,
                prefixes: prefixes.min(left).min(beyond as usize),
            }
        }
    }
}

/// What of the surplus can go now, and when the next of it can.
fn release_from(places: &[&Interface], surplus: &Surplus, now: Mono) -> (Vec<Step>, Option<Mono>) {
    let (mut steps, mut rest_until) = (Vec::new(), None);
    let mut later = |at: Mono| rest_until = Some(rest_until.map_or(at, |r: Mono| r.min(at)));
    let (mut addresses_left, mut prefixes_left) = (surplus.addresses, surplus.prefixes);
    for place in places {
        if surplus.addresses > 0 {
            let idle = place.singles().filter(|(_, a)| releasable(a, now));
            let mut addresses: Vec<Ipv4Addr> = idle.map(|(at, _)| *at).collect();
            addresses.reverse(); // The last first: they were added last, or used least.
            addresses.truncate(addresses_left);
            addresses_left -= addresses.len();
            let eni = place.id.clone();
            steps.extend((!addresses.is_empty()).then_some(Step::Release { eni, addresses }));
            place
                .singles()
                .filter_map(|(_, a)| a.rests_until(now))
                .for_each(&mut later);
        }
        if surplus.prefixes > 0 {
            let free = || place.prefix_uses(now).filter(Use::may_go);
            let idle = free().filter(|u| u.rests_until.is_none());
            let mut prefixes: Vec<Ipv4Net> = idle.map(|u| u.prefix).collect();
            prefixes.reverse();
            prefixes.truncate(prefixes_left);
            prefixes_left -= prefixes.len();
            let eni = place.id.clone();
            steps.extend((!prefixes.is_empty()).then_some(Step::ReleasePrefixes { eni, prefixes }));
            free().filter_map(|u| u.rests_until).for_each(&mut later);
        }
    }
    (steps, rest_until)
}

/// Every place is full, some with what the mode no longer asks for and no pod has: as much of that goes as `places` are
/// needed.
pub(super) fn make_room(pool: &Pool, card: CardIndex, now: Mono, places: u32, plan: &mut Plan) {
    let releasing = |w: &What| matches!(w, What::Release { .. });
    if plan.tally.draining == 0 || pool.intents.values().any(|i| releasing(&i.what)) {
        return;
    }
    let kind = pool.targets.mode.kind();
    let useful = |i: &&Interface| {
        let dry = pool.backoffs.subnet(&i.subnet, kind);
        dry.is_none_or(|d| d.full.is_none())
    };
    let mut growing: Vec<&Interface> = pool.growing(card).filter(useful).collect();
    growing.sort_by_key(|i| i.order());
    let surplus = match kind {
        Kind::Prefix => Surplus {
            addresses: places as usize,
            prefixes: 0,
        },
        Kind::Address => Surplus {
            addresses: 0,
            prefixes: places as usize,
        },
    };
    let (steps, rest_until) = release_from(&growing, &surplus, now);
    let denied_until = pool
        .backoffs
        .release
        .as_ref()
        .map(|b| b.until)
        .filter(|at| *at > now);
    match denied_until {
        Some(at) => plan.wake_at(at),
        None if steps.is_empty() => rest_until.into_iter().for_each(|at| plan.wake_at(at)),
        None => plan.steps.extend(steps),
    }
}

/// Nobody has it, now or since a moment ago.
fn is_idle(a: &Address) -> bool {
    !a.is_doubted() && a.idle_since(Mono(u64::MAX)).is_some()
}

fn releasable(a: &Address, now: Mono) -> bool {
    a.idle_since(now).is_some() && a.rests_until(now).is_none()
}
