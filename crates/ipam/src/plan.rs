//! The plan: what should be asked of EC2 now, decided from the state and the time alone. Nothing is chosen later.

mod explain;
mod grow;
mod shrink;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::arithmetic;
use crate::event::FailureClass;
use crate::ids::{CardIndex, DeviceIndex, EniId, SubnetId};
use crate::intent::What;
use crate::interface::State;
use crate::pool::Pool;
use crate::time::{Mono, Now};

pub use explain::PlanReport;
pub(crate) use grow::{Place, candidates, ceiling};

/// Sums over the pool. The first four mean what the metrics of the AWS VPC CNI mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Addresses for pods on managed interfaces.
    pub total: u32,
    /// Those with an owner.
    pub assigned: u32,
    /// `total - assigned`: those that cool down are among them.
    pub available: u32,
    /// Of the available, those in cool-down.
    pub cooling: u32,
    /// Of the available, those that can be handed out now.
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
}

impl Tally {
    /// Of `pool` at `now`.
    #[must_use]
    pub fn of(pool: &Pool, now: Mono) -> Self {
        let card = pool.limits.card().card;
        let mut t = Self {
            waiting: count(pool.waiting.len()),
            ..Self::default()
        };
        let mut placed = 0_usize;
        for interface in pool.interfaces.values() {
            if interface.card == card {
                t.interfaces += 1;
            }
            let serves = interface.serves(card);
            for address in interface.addresses.values() {
                placed += usize::from(address.state == State::Owned);
                if serves && address.counts() {
                    t.total += 1;
                    t.assigned += u32::from(address.state == State::Owned);
                    t.cooling += u32::from(address.cooling_until(now).is_some());
                    t.free += u32::from(address.idle_since(now).is_some());
                }
            }
        }
        t.available = t.total.saturating_sub(t.assigned);
        t.orphans = count(pool.by_address.len().saturating_sub(placed));
        for intent in pool.intents.values() {
            t.coming = t.coming.saturating_add(intent.brings());
            t.creating += u32::from(matches!(intent.what, What::Create(_)));
        }
        t
    }
}

/// What is missing, and what is too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Goal {
    /// Missing for the targets, the waiting pods counted as if they had their address already.
    pub warm_short: u32,
    /// Missing for the waiting pods alone.
    pub serve_short: u32,
    /// Addresses that may go (IP targets), or an interface's worth (warm ENI target).
    pub over: u32,
}

/// What to ask of EC2.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// A new interface.
    Create {
        /// On this card,
        card: CardIndex,
        /// at this position,
        device: DeviceIndex,
        /// in this subnet (the primary interface's),
        subnet: SubnetId,
        /// with this many addresses for pods.
        addresses: u32,
    },
    /// More addresses.
    Assign {
        /// On this interface,
        eni: EniId,
        /// this many.
        count: u32,
    },
    /// Fewer addresses.
    Release {
        /// On this interface,
        eni: EniId,
        /// these.
        addresses: Vec<Ipv4Addr>,
    },
    /// One interface less.
    Delete {
        /// This one.
        eni: EniId,
    },
}

/// A step that is wanted and has to wait.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blocked {
    /// What.
    pub what: String,
    /// Until when.
    pub until: Mono,
    /// Why, for programs.
    pub class: FailureClass,
    /// Why, for people.
    pub why: String,
}

/// Why the pool does not grow though addresses are missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ceiling {
    /// The interfaces are not known yet.
    NotListed,
    /// The primary interface, whose subnet new ones lie in, is not known yet.
    NoPrimary,
    /// Provisioning is off.
    ProvisioningOff,
    /// As many addresses as the node may have pods.
    MaxPods,
    /// `MAX_ENI` interfaces, all full.
    MaxEni,
    /// As many interfaces as the instance takes, all full.
    InstanceFull,
}

/// The plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What it was made from.
    pub tally: Tally,
    /// What it is made for.
    pub goal: Goal,
    /// What to do now.
    pub steps: Vec<Step>,
    /// What to do later.
    pub blocked: Vec<Blocked>,
    /// What forbids to do more.
    pub ceiling: Option<Ceiling>,
    /// Why an interface or address too many stays for now.
    pub kept: Vec<String>,
    /// When the plan will be another though nothing happens.
    pub wake: Option<Mono>,
}

impl Plan {
    fn wake_at(&mut self, at: Mono) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
}

/// Makes the plan. Pure: the same pool and time give the same plan.
#[must_use]
pub fn plan(pool: &Pool, now: Now) -> Plan {
    make(pool, now.mono, false)
}

/// `explained`: also gather sentences, which cost time that an ADD should not spend.
fn make(pool: &Pool, now: Mono, explained: bool) -> Plan {
    let tally = Tally::of(pool, now);
    let mut plan = Plan {
        tally,
        goal: goal(pool, &tally),
        steps: Vec::new(),
        blocked: Vec::new(),
        ceiling: None,
        kept: Vec::new(),
        wake: None,
    };
    if !pool.listed {
        plan.ceiling = Some(Ceiling::NotListed);
    } else if !pool.targets.provisioning {
        plan.ceiling = Some(Ceiling::ProvisioningOff);
    } else if plan.goal.warm_short.max(plan.goal.serve_short) > 0 {
        grow::grow(pool, now, &mut plan);
    } else if tally.waiting == 0 && tally.coming == 0 {
        shrink::shrink(pool, now, &mut plan, explained);
    }
    plan
}

fn goal(pool: &Pool, t: &Tally) -> Goal {
    let per_eni = pool.limits.per_eni();
    let (total, assigned) = (
        t.total.saturating_add(t.coming),
        t.assigned.saturating_add(t.waiting),
    );
    let (warm_short, over) = match pool.targets.ip_targets() {
        Some((warm, minimum)) => (
            arithmetic::ip_target_short(warm, minimum, total, assigned),
            arithmetic::ip_target_over(warm, minimum, t.total, t.assigned),
        ),
        None => {
            let target = pool.targets.warm_eni;
            let over = arithmetic::warm_eni_over(target, per_eni, t.total, t.assigned);
            let wanted = arithmetic::warm_eni_wanted(target, per_eni);
            (
                arithmetic::warm_short(wanted, total, assigned),
                if over {
                    t.available - wanted.min(t.available)
                } else {
                    0
                },
            )
        }
    };
    Goal {
        warm_short,
        serve_short: t.waiting.saturating_sub(t.coming).saturating_sub(t.free),
        over,
    }
}

pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Positions on the card that are taken, by interfaces and by those in the making.
pub(crate) fn devices(pool: &Pool, card: CardIndex) -> BTreeSet<DeviceIndex> {
    let there = pool
        .interfaces
        .values()
        .filter(|i| i.card == card)
        .map(|i| i.device);
    let coming = pool.intents.values().filter_map(|i| match &i.what {
        What::Create(c) if c.card == card => Some(c.device),
        What::Delete { device, .. } => *device,
        _ => None,
    });
    there.chain(coming).collect()
}
