//! Shrinking: an interface that is not needed goes whole; otherwise addresses and prefixes go.

use std::net::IpAddr;
use std::time::Duration;

use super::{Plan, Step, count, drain};
use crate::arithmetic;
use crate::event::InterfaceKind;
use crate::ids::{CardIndex, EniId};
use crate::intent::{Intent, Phase, What};
use crate::interface::{Interface, State};
use crate::kind::{Kind, Wanted};
use crate::owner::Held;
use crate::pool::Pool;
use crate::time::Mono;

/// Addresses are released no more often than this.
pub(crate) const DECREASE_GAP: Duration = Duration::from_secs(30);
/// An interface younger than this is not deleted.
pub(crate) const MIN_AGE: Duration = Duration::from_secs(60);

pub(super) fn shrink(pool: &Pool, card: CardIndex, now: Mono, plan: &mut Plan, explained: bool) {
    if busy(pool) {
        return;
    }
    let rest = if pool.targets.unschedulable {
        Rest::without_interfaces(plan)
    } else {
        interfaces(pool, card, now, plan, explained)
    };
    if !matches!(plan.steps.first(), Some(Step::Delete { .. })) {
        drain::release(pool, card, now, &rest, plan, explained);
    }
}

impl Rest<'_> {
    /// No interface is to go.
    fn without_interfaces(plan: &Plan) -> Self {
        Self {
            spare: Vec::new(),
            over: plan.goal.over,
            prefixes: plan.tally.free_prefixes,
        }
    }
}

/// Gives back what does not count, and nothing else.
pub(super) fn drain(pool: &Pool, card: CardIndex, now: Mono, plan: &mut Plan, explained: bool) {
    if !busy(pool) && plan.tally.draining > 0 {
        drain::release(pool, card, now, &Rest::default(), plan, explained);
    }
}

/// One thing at a time: the next plan starts from what is then known. A deletion that EC2 keeps refusing holds up nothing.
fn busy(pool: &Pool) -> bool {
    pool.intents.values().any(|i: &Intent| match i.what {
        What::Release { .. } => true,
        What::Delete { .. } => matches!(i.phase, Phase::Running(_)),
        _ => false,
    })
}

/// What is left to think about beside interfaces that go whole.
#[derive(Default)]
pub(super) struct Rest<'a> {
    /// Those interfaces.
    pub(super) spare: Vec<&'a EniId>,
    /// Addresses too many on others.
    pub(super) over: u32,
    /// Prefixes without a pod on others.
    pub(super) prefixes: u32,
}

/// What would be lost with an interface.
#[derive(Default)]
struct Holds {
    /// Addresses that count.
    addresses: u32,
    /// Prefixes without a pod.
    prefixes: u32,
}

impl Holds {
    fn of(interface: &Interface, wanted: Wanted, now: Mono) -> Self {
        let in_prefixes = interface
            .addresses
            .len()
            .saturating_sub(interface.singles().count());
        let mut addresses = 0;
        for (kind, number) in [
            (Kind::Address, interface.singles().count()),
            (Kind::Prefix, in_prefixes),
        ] {
            addresses += if wanted.counts(kind) { count(number) } else { 0 };
        }
        Self {
            addresses,
            prefixes: count(interface.prefix_uses(now).filter(|u| u.is_free()).count()),
        }
    }
}

/// Plans the deletion of one interface that is not needed.
fn interfaces<'a>(pool: &'a Pool, card: CardIndex, now: Mono, plan: &mut Plan, explained: bool) -> Rest<'a> {
    let wanted = Wanted::of(pool, card);
    let mut unused: Vec<&Interface> = pool
        .interfaces
        .values()
        .filter(|i| could_go(pool, card, i))
        .collect();
    unused.sort_by_key(|i| std::cmp::Reverse(i.order()));
    let (mut over, mut spare) = (plan.goal.over, Vec::new());
    let mut prefixes = plan.tally.free_prefixes;
    for interface in unused {
        let barred = pool.is_barred(interface);
        let holds = if barred {
            Holds::default()
        } else {
            Holds::of(interface, wanted, now)
        };
        if !barred && !spared(pool, card, plan, over, prefixes, &holds) {
            continue;
        }
        over = over.saturating_sub(holds.addresses);
        prefixes = prefixes.saturating_sub(holds.prefixes);
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
    Rest {
        spare,
        over,
        prefixes,
    }
}

/// No pod is on it, and it is the pool's to delete.
fn could_go(pool: &Pool, card: CardIndex, i: &Interface) -> bool {
    i.serves(card)
        && !i.is_primary
        && i.kind == InterfaceKind::Interface
        && i.addresses
            .values()
            .all(|a| matches!(a.state, State::Free { .. } | State::Cooling { .. }))
        && i.prefixes.iter().all(|p| crate::prefix::is_usable(*p))
        && !pool.intents.values().any(|intent| intent.eni() == Some(&i.id))
        && !pool
            .owners
            .values()
            .flat_map(|o| &o.held)
            .any(|h| may_lie_on(h, i))
}

/// An owner's address that is on no known interface may turn out to be on this one.
fn may_lie_on(held: &Held, i: &Interface) -> bool {
    let unplaced = held.eni.0.is_empty();
    match held.address {
        _ if held.eni == i.id => true,
        IpAddr::V4(at) => unplaced && i.subnet_cidr.contains(&at),
        IpAddr::V6(_) => unplaced,
    }
}

/// The targets hold without what it holds: `over` addresses are too many, `prefixes` are without a pod.
fn spared(pool: &Pool, card: CardIndex, plan: &Plan, over: u32, prefixes: u32, holds: &Holds) -> bool {
    if holds.addresses > over {
        return false;
    }
    match (pool.ip_targets(card), pool.targets.mode.kind()) {
        (Some(_), _) => true,
        (None, Kind::Prefix) => {
            let target = pool.targets.warm_prefix.unwrap_or(0);
            holds.prefixes == 0 || prefixes.saturating_sub(holds.prefixes) >= target
        }
        (None, Kind::Address) => {
            let target = pool.targets.warm_eni;
            let gone = plan.goal.over.saturating_sub(over);
            let (total, assigned) = (plan.tally.total.saturating_sub(gone), plan.tally.assigned);
            arithmetic::warm_eni_over(target, pool.limits.per_eni(), total, assigned)
        }
    }
}

pub(super) fn secs(at: Mono, now: Mono) -> u64 {
    at.since(now)
        .as_millis()
        .div_ceil(1000)
        .try_into()
        .unwrap_or(u64::MAX)
}
