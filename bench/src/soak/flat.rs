//! Whether memory stays as it is: the medians of the first and the last quarter of the readings are compared, so that neither a pool
//! that is larger for a while nor one odd reading decides.

use std::time::Duration;

use serde_json::{Value, json};

use crate::report::percentile;

/// What an agent's resident set may grow by, MiB.
pub(super) const ROOM_MIB: f64 = 1.0;

/// A reading of one process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Reading {
    /// Since the beginning of the run.
    pub(super) at: Duration,
    pub(super) rss_mib: f64,
}

/// What the readings say.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Growth {
    pub(super) readings: usize,
    pub(super) first_mib: f64,
    pub(super) last_mib: f64,
    pub(super) least_mib: f64,
    pub(super) most_mib: f64,
}

/// Of the readings after `warm`; `None` when there are fewer than four.
pub(super) fn growth(readings: &[Reading], warm: Duration) -> Option<Growth> {
    let warm: Vec<f64> = readings
        .iter()
        .filter(|r| r.at >= warm)
        .map(|r| r.rss_mib)
        .collect();
    let quarter = warm.len() / 4;
    if quarter == 0 {
        return None;
    }
    let median = |part: Vec<f64>| percentile(&sorted(part), 0.5);
    let all = sorted(warm.clone());
    Some(Growth {
        readings: warm.len(),
        first_mib: median(warm.iter().take(quarter).copied().collect()),
        last_mib: median(warm.iter().rev().take(quarter).copied().collect()),
        least_mib: percentile(&all, 0.0),
        most_mib: percentile(&all, 1.0),
    })
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

impl Growth {
    /// How much more it is at the end, MiB; negative: less.
    pub(super) fn mib(self) -> f64 {
        self.last_mib - self.first_mib
    }

    pub(super) fn is_flat(self) -> bool {
        self.mib().abs() <= ROOM_MIB
    }

    pub(super) fn report(self) -> Value {
        json!({
            "readings": self.readings, "first_quarter_median_mib": self.first_mib,
            "last_quarter_median_mib": self.last_mib, "grown_mib": self.mib(),
            "least_mib": self.least_mib, "most_mib": self.most_mib, "room_mib": ROOM_MIB, "flat": self.is_flat(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(mib: impl Fn(u64) -> f64) -> Vec<Reading> {
        (0..60)
            .map(|minute| Reading {
                at: Duration::from_secs(60 * minute),
                rss_mib: mib(minute),
            })
            .collect()
    }

    const WARM: Duration = Duration::from_secs(300);

    #[test]
    fn what_is_taken_while_it_warms_up_does_not_count() {
        let all = readings(|minute| if minute < 5 { minute as f64 } else { 8.0 });
        let growth = growth(&all, WARM).unwrap();
        assert_eq!((growth.readings, growth.mib()), (55, 0.0));
        assert!(growth.is_flat());
    }

    #[test]
    fn two_mib_in_an_hour_are_not_flat() {
        let growth = growth(&readings(|minute| 8.0 + minute as f64 / 30.0), WARM).unwrap();
        assert!(growth.mib() > 1.0 && !growth.is_flat(), "{growth:?}");
    }

    #[test]
    fn a_load_that_comes_and_goes_is_flat() {
        let growth = growth(&readings(|minute| 8.0 + (minute % 7) as f64 / 10.0), WARM).unwrap();
        assert!(growth.is_flat(), "{growth:?}");
        assert!(growth.most_mib - growth.least_mib > 0.5);
    }

    #[test]
    fn too_few_readings_say_nothing() {
        assert_eq!(growth(&readings(|_| 8.0), Duration::from_secs(58 * 60)), None);
    }
}
