//! EC2's request throttling: a token bucket for each action, shared by the whole account.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::config::{Bucket, Buckets};

/// How full each action's bucket is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Throttle {
    levels: BTreeMap<&'static str, Level>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Level {
    tokens: f64,
    at: Duration,
}

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self {
            levels: BTreeMap::new(),
        }
    }

    /// Takes a token for `action`; false: there is none, the call is refused.
    pub(crate) fn admit(&mut self, now: Duration, buckets: &Buckets, action: &'static str) -> bool {
        if !buckets.enabled {
            return true;
        }
        let bucket = bucket_of(buckets, action);
        let level = self.levels.entry(action).or_insert(Level {
            tokens: bucket.size,
            at: now,
        });
        let passed = now.saturating_sub(level.at).as_secs_f64();
        level.tokens = passed.mul_add(bucket.per_second, level.tokens).min(bucket.size);
        level.at = now;
        let admitted = level.tokens >= 1.0;
        if admitted {
            level.tokens -= 1.0;
        }
        admitted
    }
}

fn bucket_of(buckets: &Buckets, action: &str) -> Bucket {
    let usual = if is_read(action) {
        buckets.reads
    } else {
        buckets.mutating
    };
    buckets.by_action.get(action).copied().unwrap_or(usual)
}

/// Whether an action only reads.
pub(crate) fn is_read(action: &str) -> bool {
    action.starts_with("Describe")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_burst_is_admitted_and_then_five_a_second() {
        let (mut t, buckets) = (Throttle::new(), Buckets::default());
        let burst = (0..60)
            .filter(|_| t.admit(ms(0), &buckets, "CreateNetworkInterface"))
            .count();
        assert_eq!(burst, 50);
        assert!(!t.admit(ms(199), &buckets, "CreateNetworkInterface"));
        let next = (0..60)
            .filter(|_| t.admit(ms(1001), &buckets, "CreateNetworkInterface"))
            .count();
        assert_eq!(next, 5);
    }

    #[test]
    fn each_action_has_its_own_bucket_and_reads_a_larger_one() {
        let (mut t, buckets) = (Throttle::new(), Buckets::default());
        while t.admit(ms(0), &buckets, "DeleteNetworkInterface") {}
        assert!(t.admit(ms(0), &buckets, "CreateNetworkInterface"));
        let reads = (0..200)
            .filter(|_| t.admit(ms(0), &buckets, "DescribeSubnets"))
            .count();
        assert_eq!(reads, 100);
    }

    #[test]
    fn an_action_can_have_figures_of_its_own_and_throttling_can_be_off() {
        let mut buckets = Buckets::default();
        buckets.by_action.insert(
            "CreateTags".to_owned(),
            Bucket {
                size: 2.0,
                per_second: 0.0,
            },
        );
        let mut t = Throttle::new();
        assert_eq!(
            (0..9).filter(|_| t.admit(ms(0), &buckets, "CreateTags")).count(),
            2
        );
        buckets.enabled = false;
        assert_eq!(
            (0..9).filter(|_| t.admit(ms(0), &buckets, "CreateTags")).count(),
            9
        );
    }
}
