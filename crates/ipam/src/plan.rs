//! The plan: what should be asked of EC2 now, decided from the state and the time alone. Nothing is chosen later.

mod drain;
mod explain;
mod explain_where;
mod goal;
mod grow;
mod places;
mod shrink;
mod tally;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::backoff::Block;
use crate::event::{Cards, FailureClass};
use crate::ids::{CardIndex, DeviceIndex, EniId, SubnetId};
use crate::intent::What;
use crate::owner::Wait;
use crate::pool::Pool;
use crate::targets::Mode;
use crate::time::{Mono, Now};

pub use explain::PlanReport;
pub use goal::Goal;
pub(crate) use grow::ceiling;
pub(crate) use places::{Place, best_subnet, candidates, free_device, primary, slots};
pub use tally::Tally;

/// What to ask of EC2.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// A new interface.
    Create {
        /// On this card,
        card: CardIndex,
        /// at this position,
        device: DeviceIndex,
        /// in this subnet,
        subnet: SubnetId,
        /// with this many addresses for pods,
        addresses: u32,
        /// or with this many prefixes.
        #[serde(default)]
        prefixes: u32,
    },
    /// More addresses.
    Assign {
        /// On this interface,
        eni: EniId,
        /// this many.
        count: u32,
    },
    /// More prefixes.
    AssignPrefixes {
        /// On this interface,
        eni: EniId,
        /// this many.
        count: u32,
    },
    /// A /80.
    AssignIpv6Prefix {
        /// On this interface.
        eni: EniId,
    },
    /// Fewer addresses.
    Release {
        /// On this interface,
        eni: EniId,
        /// these.
        addresses: Vec<Ipv4Addr>,
    },
    /// Fewer prefixes.
    ReleasePrefixes {
        /// On this interface,
        eni: EniId,
        /// these.
        prefixes: Vec<Ipv4Net>,
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
    /// The node is cordoned.
    Unschedulable,
    /// No subnet may be used for a new interface, and those that are there are full.
    NoSubnet,
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
    /// Sums and goal of each card; those of the whole plan are over all of them.
    #[serde(default)]
    pub cards: Vec<CardPlan>,
}

/// One card's part of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CardPlan {
    /// Which.
    pub card: CardIndex,
    /// What it was made from. A pod that waits for any card's address is counted on the cards that may have to bring it.
    pub tally: Tally,
    /// What it is made for.
    pub goal: Goal,
    /// What forbids to do more.
    pub ceiling: Option<Ceiling>,
}

impl Plan {
    pub(crate) fn of(tally: Tally) -> Self {
        Self {
            tally,
            goal: Goal::default(),
            steps: Vec::new(),
            blocked: Vec::new(),
            ceiling: None,
            kept: Vec::new(),
            wake: None,
            cards: Vec::new(),
        }
    }

    /// Takes a card's plan in.
    fn add(&mut self, card: CardIndex, other: Self) {
        let Self {
            tally, goal, ceiling, ..
        } = other;
        // Those who wait are counted already, each once.
        self.tally = self.tally.and(Tally { waiting: 0, ..tally });
        self.goal = self.goal.and(goal);
        self.steps.extend(other.steps);
        self.blocked.extend(other.blocked);
        self.ceiling = self.ceiling.or(ceiling);
        self.kept.extend(other.kept);
        other.wake.into_iter().for_each(|at| self.wake_at(at));
        self.cards.push(CardPlan {
            card,
            tally,
            goal,
            ceiling,
        });
    }

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
    let every = |w: &&Wait| w.cards == Cards::Every;
    let every = count(pool.waiting.values().filter(every).count());
    // A pod that wants one address is to get it from the first card that can bring it.
    let mut any = count(pool.waiting.len()).saturating_sub(every);
    let mut whole = Plan::of(Tally::apart_from_cards(pool));
    for card in pool.cards() {
        let tally = Tally {
            waiting: every.saturating_add(any),
            ..Tally::of_card(pool, card, now)
        };
        let mut plan = Plan::of(tally);
        plan.goal = match pool.targets.mode {
            Mode::Ipv6 => Goal::serving(&tally),
            _ => Goal::of(pool, card, &tally),
        };
        let left = make_card(pool, card, now, &mut plan, explained);
        any = any.min(left);
        whole.add(card, plan);
    }
    whole
}

/// Plans for one card. Returns how many of those who wait it will not serve.
fn make_card(pool: &Pool, card: CardIndex, now: Mono, plan: &mut Plan, explained: bool) -> u32 {
    let t = plan.tally;
    let mut left = plan.goal.serve_short;
    if !pool.listed {
        plan.ceiling = Some(Ceiling::NotListed);
    } else if !pool.targets.provisions() {
        plan.ceiling = Some(Ceiling::ProvisioningOff);
    } else if pool.targets.unschedulable && plan.goal.is_short() {
        plan.ceiling = Some(Ceiling::Unschedulable);
    } else if pool.targets.mode == Mode::Ipv6 {
        crate::ipv6::plan(pool, card, now, plan);
    } else if plan.goal.is_short() {
        left = left.min(grow::grow(pool, card, now, plan));
        if plan.steps.is_empty() && plan.blocked.is_empty() && t.waiting == 0 && t.coming == 0 {
            // It can grow no more: that is no reason to keep what does not count.
            shrink::drain(pool, card, now, plan, explained);
        }
    } else if t.waiting == 0 && t.coming == 0 {
        shrink::shrink(pool, card, now, plan, explained);
    }
    left
}

pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A step that has to wait.
pub(crate) fn blocked_step(plan: &mut Plan, step: &Step, block: &Block) {
    plan.wake_at(block.until);
    plan.blocked.push(Blocked {
        what: explain::sentence(step),
        until: block.until,
        class: block.class,
        why: block.message.clone(),
    });
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
        What::Delete { card: c, device, .. } if *c == card => *device,
        _ => None,
    });
    there.chain(coming).collect()
}
