//! Time as the pool sees it: handed in, never asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the machine's monotonic clock, milliseconds since boot (`CLOCK_BOOTTIME`), so that it means the
/// same before and after a restart of the agent, and no step of the wall clock moves it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// This point and `d` later; stays at the end of time rather than wrap.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this point is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Now, on both clocks. Decisions use `mono`; `wall` is only written down for people and for the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Mono,
    /// Nanoseconds since the Unix epoch.
    pub wall_ns: i64,
}
