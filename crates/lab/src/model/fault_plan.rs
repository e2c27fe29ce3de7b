//! A fault plan out of a seed: trouble of every kind, a little of each, the same each time.

use std::time::Duration;

use super::config::Spread;
use super::faults::{FaultKind, FaultRule, FaultTarget};
use super::rng::Rng;

/// Chance of a rule to strike a call it matches, in percent: enough to happen, not enough to stop everything.
const LEAST_PERCENT: u64 = 1;
const MOST_PERCENT: u64 = 10;

impl FaultRule {
    /// So many rules drawn from a seed, over both faces, each striking by chance.
    #[must_use]
    pub fn plan(seed: u64, rules: usize) -> Vec<Self> {
        let mut rng = Rng::new(seed);
        (0..rules).map(|_| rule(&mut rng)).collect()
    }
}

fn rule(rng: &mut Rng) -> FaultRule {
    let percent = LEAST_PERCENT + rng.below(MOST_PERCENT - LEAST_PERCENT + 1);
    let target = if rng.chance(0.3) {
        imds_target(rng)
    } else {
        ec2_target(rng)
    };
    let kind = kind(rng, &target);
    FaultRule {
        probability: Some(percent as f64 / 100.0),
        ..FaultRule::new(target, kind)
    }
}

fn ec2_target(rng: &mut Rng) -> FaultTarget {
    let name = pick(
        rng,
        &[
            "*",
            "Describe*",
            "CreateNetworkInterface",
            "AttachNetworkInterface",
            "DetachNetworkInterface",
            "DeleteNetworkInterface",
            "ModifyNetworkInterfaceAttribute",
            "AssignPrivateIpAddresses",
            "UnassignPrivateIpAddresses",
        ],
    );
    FaultTarget::Ec2(name.to_owned())
}

fn imds_target(rng: &mut Rng) -> FaultTarget {
    let path = pick(rng, &["*", "api/token", "meta-data/network/*", "meta-data/iam/*"]);
    FaultTarget::Imds(path.to_owned())
}

fn kind(rng: &mut Rng, target: &FaultTarget) -> FaultKind {
    let imds = matches!(target, FaultTarget::Imds(_));
    let (code, status) = if imds {
        pick(rng, &[("", 404), ("", 429), ("", 500), ("", 503)])
    } else {
        pick(
            rng,
            &[
                ("InternalError", 500),
                ("Unavailable", 503),
                ("RequestLimitExceeded", 503),
                ("ServiceUnavailable", 503),
            ],
        )
    };
    let (code, by) = (code.to_owned(), Duration::from_millis(200 + rng.below(3000)));
    match rng.below(9) {
        0 | 1 => FaultKind::Error { code, status },
        2 => FaultKind::ErrorAfter { code, status },
        3 => FaultKind::Hang,
        4 => FaultKind::HangAfter,
        5 => FaultKind::Drop,
        6 => FaultKind::LoseAnswer,
        7 => FaultKind::Slow(Spread {
            min: Duration::ZERO,
            max: by,
        }),
        _ if !imds && rng.chance(0.5) => FaultKind::Duplicate,
        _ => FaultKind::Stale(by),
    }
}

fn pick<T: Clone + Default>(rng: &mut Rng, of: &[T]) -> T {
    let position = usize::try_from(rng.below(u64::try_from(of.len()).unwrap_or(0))).unwrap_or(0);
    of.get(position).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan() {
        assert_eq!(FaultRule::plan(3, 20), FaultRule::plan(3, 20));
        assert_ne!(FaultRule::plan(3, 20), FaultRule::plan(4, 20));
    }

    #[test]
    fn a_long_plan_has_every_kind_on_both_faces_and_none_is_certain() {
        let plan = FaultRule::plan(1, 500);
        let kinds: std::collections::HashSet<_> =
            plan.iter().map(|r| std::mem::discriminant(&r.kind)).collect();
        assert_eq!(kinds.len(), 9);
        assert!(plan.iter().any(|r| matches!(r.target, FaultTarget::Imds(_))));
        assert!(
            plan.iter()
                .all(|r| r.probability.is_some_and(|p| (0.01..=0.10).contains(&p)))
        );
    }
}
