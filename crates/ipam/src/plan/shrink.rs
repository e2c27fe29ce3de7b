//! Shrinking: an interface that is not needed goes whole; otherwise, with IP targets, single addresses go.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Plan, Step, count};
use crate::arithmetic;
use crate::event::InterfaceKind;
use crate::ids::EniId;
use crate::intent::{Intent, Phase, What};
use crate::interface::{Address, Interface, State};
use crate::pool::Pool;
use crate::time::Mono;

/// Addresses are released no more often than this.
pub(crate) const DECREASE_GAP: Duration = Duration::from_secs(30);
/// An interface younger than this is not deleted.
pub(crate) const MIN_AGE: Duration = Duration::from_secs(60);

pub(super) fn shrink(pool: &Pool, now: Mono, plan: &mut Plan, explained: bool) {
    // One thing at a time: the next plan starts from what is then known. A deletion that EC2 keeps refusing holds up nothing.
    let under_way = |i: &Intent| match i.what {
        What::Release { .. } => true,
        What::Delete { .. } => matches!(i.phase, Phase::Running(_)),
        _ => false,
    };
    if pool.intents.values().any(under_way) {
        return;
    }
    let (left, spare) = interfaces(pool, now, plan, explained);
    if pool.targets.ip_targets().is_some()
        && left > 0
        && !matches!(plan.steps.first(), Some(Step::Delete { .. }))
    {
        addresses(pool, now, left, &spare, plan, explained);
    }
}

/// Plans the deletion of one interface that is not needed. Returns how many addresses are too many beside those of all
/// such interfaces, and these.
fn interfaces<'a>(pool: &'a Pool, now: Mono, plan: &mut Plan, explained: bool) -> (u32, Vec<&'a EniId>) {
    let mut unused: Vec<&Interface> = pool.interfaces.values().filter(|i| could_go(pool, i)).collect();
    unused.sort_by_key(|i| std::cmp::Reverse(i.order()));
    let (mut over, mut spare) = (plan.goal.over, Vec::new());
    for interface in unused {
        let holds = count(interface.addresses.len());
        if !spared(pool, plan, over, holds) {
            continue;
        }
        over = over.saturating_sub(holds);
        spare.push(&interface.id);
        let old_at = interface.since.plus(MIN_AGE);
        let cool_at = interface
            .addresses
            .values()
            .filter_map(|a| a.rests_until(now))
            .max();
        let ready_at = cool_at.map_or(old_at, |at| at.max(old_at));
        if ready_at > now {
            plan.wake_at(ready_at);
            if explained {
                let why = if ready_at == old_at {
                    "is younger than 60 s"
                } else {
                    "has addresses that cool down"
                };
                plan.kept.push(format!(
                    "{} is not needed but {why}: freed in {} s",
                    interface.id,
                    secs(ready_at, now)
                ));
            }
        } else if plan.steps.is_empty() {
            plan.steps.push(Step::Delete {
                eni: interface.id.clone(),
            });
        }
    }
    (over, spare)
}

/// No pod is on it, and it is the pool's to delete.
fn could_go(pool: &Pool, i: &Interface) -> bool {
    let card = pool.limits.card().card;
    i.serves(card)
        && !i.is_primary
        && i.kind == InterfaceKind::Interface
        && i.addresses.values().all(|a| matches!(a.state, State::Free { .. } | State::Cooling { .. }))
        && i.prefixes.is_empty()
        && !pool.intents.values().any(|intent| intent.eni() == Some(&i.id))
        // An owner whose address is on no known interface may turn out to be on this one.
        && !pool.owners.values().any(|o| o.held.iter().any(|h| h.eni == i.id))
}

/// The targets hold without its addresses.
fn spared(pool: &Pool, plan: &Plan, over: u32, holds: u32) -> bool {
    match pool.targets.ip_targets() {
        Some(_) => holds <= over,
        None => {
            let target = pool.targets.warm_eni;
            let gone = plan.goal.over.saturating_sub(over);
            let (total, assigned) = (plan.tally.total.saturating_sub(gone), plan.tally.assigned);
            arithmetic::warm_eni_over(target, pool.limits.per_eni(), total, assigned) && holds <= over
        }
    }
}

fn addresses(pool: &Pool, now: Mono, over: u32, spare: &[&EniId], plan: &mut Plan, explained: bool) {
    let card = pool.limits.card().card;
    let mut places: Vec<&Interface> = pool.interfaces.values().filter(|i| i.serves(card)).collect();
    places.retain(|i| !spare.contains(&&i.id)); // They go whole, soon.
    // From the interface with the fewest pods, the last first, so that whole interfaces come free.
    places.sort_by_key(|i| (i.owned(), std::cmp::Reverse(i.order())));
    let idle = |i: &Interface| -> Vec<Ipv4Addr> {
        i.addresses
            .iter()
            .rev()
            .filter(|(_, a)| releasable(a, now))
            .map(|(at, _)| *at)
            .collect()
    };
    let some_idle = places
        .iter()
        .any(|i| i.addresses.values().any(|a| releasable(a, now)));
    let cool_at = places
        .iter()
        .flat_map(|i| i.addresses.values().filter_map(|a| a.rests_until(now)))
        .min();
    let Some(idle_at) = (if some_idle { Some(now) } else { cool_at }) else {
        return;
    };
    let gap_ends = pool.last_decrease.map_or(now, |at| at.plus(DECREASE_GAP));
    let denied_until = pool.backoffs.release.as_ref().map_or(now, |b| b.until);
    let at = idle_at.max(gap_ends).max(denied_until);
    if at > now {
        plan.wake_at(at);
        if explained {
            plan.kept.push(format!("{over} addresses too many stay for {} s: released at most every 30 s, never while they cool down, never when EC2 just refused", secs(at, now)));
        }
        return;
    }
    let mut left = over as usize;
    for place in places {
        let addresses: Vec<Ipv4Addr> = idle(place).into_iter().take(left).collect();
        left = left.saturating_sub(addresses.len());
        if !addresses.is_empty() {
            plan.steps.push(Step::Release {
                eni: place.id.clone(),
                addresses,
            });
        }
    }
}

fn releasable(a: &Address, now: Mono) -> bool {
    a.idle_since(now).is_some() && a.rests_until(now).is_none()
}

fn secs(at: Mono, now: Mono) -> u64 {
    at.since(now)
        .as_millis()
        .div_ceil(1000)
        .try_into()
        .unwrap_or(u64::MAX)
}
