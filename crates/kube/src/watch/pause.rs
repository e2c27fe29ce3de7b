//! How long to wait before the API server is asked again. Every node of a cluster waits for it at once, so pauses are drawn.

use std::time::Duration;

/// The first pause, at most,
const FIRST: Duration = Duration::from_secs(1);
/// and the longest.
const LONGEST: Duration = Duration::from_secs(30);

/// After so many failures in a row: between the half and the whole of a time that doubles. `draw`: any number, random.
pub(super) fn pause(failures: u32, draw: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let half = whole / 2;
    let span = u64::try_from(half.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    half + Duration::from_millis(draw % span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_to_half_a_minute_and_are_never_nothing(failures in 0_u32..200, draw: u64) {
            let waits = pause(failures, draw);
            prop_assert!(waits >= FIRST / 2 && waits <= LONGEST);
            prop_assert!(failures < 6 || waits >= LONGEST / 2);
        }
    }
}
