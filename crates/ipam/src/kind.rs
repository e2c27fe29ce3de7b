//! The two kinds of things an interface is given, and which of them a pool builds on.
//!
//! A pool may hold both: after its mode was switched, and when prefixes are wanted but the subnets have none. What it
//! builds on counts for the targets; the rest serves only when nothing else can, and is given back as soon as its pods
//! are gone.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::CardIndex;
use crate::interface::{Interface, State};
use crate::plan::{count, slots};
use crate::pool::Pool;
use crate::targets::Mode;

/// A piece of an interface's room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A secondary address.
    #[default]
    Address,
    /// A /28.
    Prefix,
}

impl Kind {
    /// Addresses for pods in one of it.
    pub(crate) fn size(self) -> u32 {
        match self {
            Self::Address => 1,
            Self::Prefix => crate::arithmetic::PREFIX_SIZE,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "addresses",
            Self::Prefix => "prefixes",
        })
    }
}

impl Mode {
    /// What it asks for.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::SecondaryIp | Self::Ipv6 => Kind::Address,
            Self::Prefixes => Kind::Prefix,
        }
    }
}

/// The kinds a card's pool builds on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    singles: bool,
    prefixes: bool,
}

impl Wanted {
    pub(crate) fn of(pool: &Pool, card: CardIndex) -> Self {
        match pool.targets.mode {
            Mode::SecondaryIp | Mode::Ipv6 => Self {
                singles: true,
                prefixes: false,
            },
            Mode::Prefixes => Self {
                singles: !has_prefixes(pool, card),
                prefixes: true,
            },
        }
    }

    /// Does an idle address count for the targets? One that a pod has always does.
    pub(crate) fn counts(self, kind: Kind) -> bool {
        match kind {
            Kind::Address => self.singles,
            Kind::Prefix => self.prefixes,
        }
    }
}

/// Can the card be given a prefix? Not while each subnet it could come from is known to have no free /28: known from EC2's
/// denial or its count, until EC2 says otherwise. Time alone changes nothing, so that a pool at rest stays at rest.
fn has_prefixes(pool: &Pool, card: CardIndex) -> bool {
    let has = |subnet| {
        pool.backoffs
            .subnet(subnet, Kind::Prefix)
            .is_none_or(|dry| dry.full.is_none())
    };
    let room = |i: &Interface| {
        // Singles nobody has make room if need be.
        let held = i
            .singles()
            .filter(|(_, a)| a.state == State::Owned || !a.counts());
        count(held.count().saturating_add(i.prefixes.len())) < pool.limits.per_eni()
    };
    pool.growing(card).filter(|i| has(&i.subnet)).any(room)
        || (slots(pool, card) > 0 && pool.new_subnets(Kind::Prefix).into_iter().any(has))
}
