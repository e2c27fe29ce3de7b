//! What a card's pool is to have, and how far it is from it.

use serde::{Deserialize, Serialize};

use super::Tally;
use crate::arithmetic;
use crate::ids::CardIndex;
use crate::kind::Kind;
use crate::pool::Pool;

/// What is missing, and what is too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Goal {
    /// Addresses missing for the targets, the waiting pods counted as if they had theirs already.
    pub warm_short: u32,
    /// Missing for the waiting pods alone.
    pub serve_short: u32,
    /// Addresses that may go (IP targets, prefixes), or an interface's worth (warm ENI target).
    pub over: u32,
    /// With prefixes: how many of them are to be asked for.
    pub prefixes_short: u32,
    /// With prefixes: how many of them may go.
    pub prefixes_over: u32,
}

impl Goal {
    /// That of a pool without targets.
    pub(super) fn serving(t: &Tally) -> Self {
        Self {
            serve_short: t.waiting.saturating_sub(t.coming).saturating_sub(t.free),
            ..Self::default()
        }
    }

    pub(super) fn of(pool: &Pool, card: CardIndex, t: &Tally) -> Self {
        let serve_short = Self::serving(t).serve_short;
        let goal = match (pool.ip_targets(card), pool.targets.mode.kind()) {
            (Some((warm, minimum)), kind) => ip_targets(warm, minimum, kind, t),
            (None, Kind::Address) => warm_eni(pool.targets.warm_eni, pool.limits.per_eni(), t),
            (None, Kind::Prefix) => warm_prefix(pool.targets.warm_prefix.unwrap_or(0), t),
        };
        let prefixes = match pool.targets.mode.kind() {
            Kind::Address => 0,
            Kind::Prefix => arithmetic::prefixes_for(serve_short),
        };
        Self {
            serve_short,
            prefixes_short: goal.prefixes_short.max(prefixes),
            ..goal
        }
    }

    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            warm_short: self.warm_short.saturating_add(other.warm_short),
            serve_short: self.serve_short.saturating_add(other.serve_short),
            over: self.over.saturating_add(other.over),
            prefixes_short: self.prefixes_short.saturating_add(other.prefixes_short),
            prefixes_over: self.prefixes_over.saturating_add(other.prefixes_over),
        }
    }

    pub(super) fn is_short(&self) -> bool {
        self.warm_short.max(self.serve_short) > 0
    }
}

/// What there will be, and how much of it pods will have.
fn expected(t: &Tally) -> (u32, u32) {
    (
        t.total.saturating_add(t.coming),
        t.assigned.saturating_add(t.waiting),
    )
}

fn ip_targets(warm: u32, minimum: u32, kind: Kind, t: &Tally) -> Goal {
    let (total, assigned) = expected(t);
    let short = arithmetic::ip_target_short(warm, minimum, total, assigned);
    let over = arithmetic::ip_target_over(warm, minimum, t.total, t.assigned);
    let (prefixes_short, prefixes_over) = match kind {
        Kind::Address => (0, 0),
        Kind::Prefix => (
            arithmetic::prefixes_for(short),
            arithmetic::prefixes_over(over, t.free_prefixes),
        ),
    };
    Goal {
        warm_short: short,
        over,
        prefixes_short,
        prefixes_over,
        ..Goal::default()
    }
}

fn warm_eni(target: u32, per_eni: u32, t: &Tally) -> Goal {
    let (total, assigned) = expected(t);
    let wanted = arithmetic::warm_eni_wanted(target, per_eni);
    let over = if arithmetic::warm_eni_over(target, per_eni, t.total, t.assigned) {
        t.available.saturating_sub(wanted)
    } else {
        0
    };
    Goal {
        warm_short: arithmetic::warm_short(wanted, total, assigned),
        over,
        ..Goal::default()
    }
}

fn warm_prefix(target: u32, t: &Tally) -> Goal {
    let (total, assigned) = expected(t);
    let wanted = arithmetic::warm_prefix_wanted(target);
    let short = arithmetic::warm_short(wanted, total, assigned);
    let free = t.free_prefixes.saturating_add(t.coming_prefixes);
    Goal {
        warm_short: short,
        over: t.available.saturating_sub(wanted),
        prefixes_short: arithmetic::warm_prefix_short(target, short, free),
        prefixes_over: arithmetic::warm_prefix_over(target, t.available, t.free_prefixes),
        ..Goal::default()
    }
}
