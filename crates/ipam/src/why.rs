//! Why a pod was given the address it has: said at the moment of the choice, since the pool looks different a moment later.

use std::fmt;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// What decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Why {
    /// A single address.
    Single {
        /// The mode asks for prefixes, and none had an address left.
        in_place_of_prefix: bool,
        /// For how long it could have been handed out and was not.
        idle_ms: u64,
    },
    /// An address of a prefix.
    OfPrefix {
        /// The prefix.
        net: Ipv4Net,
        /// How many pods had an address of it.
        taken: u32,
        /// The mode asks for single addresses, and there was none.
        in_place_of_single: bool,
        /// For how long it could have been handed out and was not.
        idle_ms: u64,
    },
    /// The first of a /80.
    Ipv6,
}

impl Why {
    /// Of an IPv4 address. `prefix`: the one it is of, and how many pods had an address of that.
    pub(crate) fn of_ipv4(other_kind: bool, prefix: Option<(Ipv4Net, u32)>, idle: Duration) -> Self {
        let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        match prefix {
            Some((net, taken)) => Self::OfPrefix {
                net,
                taken,
                in_place_of_single: other_kind,
                idle_ms,
            },
            None => Self::Single {
                in_place_of_prefix: other_kind,
                idle_ms,
            },
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (idle_ms, place) = match self {
            Self::Ipv6 => {
                return f.write_str(
                    "the first address of the interface's /80 that no pod had or was still cooling down",
                );
            }
            Self::Single {
                in_place_of_prefix,
                idle_ms,
            } => {
                if *in_place_of_prefix {
                    f.write_str("no prefix had an address left, so a single one; ")?;
                }
                (idle_ms, "the first interface that had one")
            }
            Self::OfPrefix {
                net,
                taken,
                in_place_of_single,
                idle_ms,
            } => {
                if *in_place_of_single {
                    f.write_str("no single address was left, so one of a prefix; ")?;
                }
                write!(
                    f,
                    "{net} was the fullest prefix with one left ({taken} of 16 taken); "
                )?;
                (idle_ms, "that prefix")
            }
        };
        write!(
            f,
            "of those on {place} it had lain idle longest, {}.{} s",
            idle_ms / 1000,
            idle_ms % 1000 / 100
        )
    }
}
