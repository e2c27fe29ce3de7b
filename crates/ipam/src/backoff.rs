//! Back-offs: what is not tried before when, and why. The executors have their own, shared by all callers of an EC2
//! action; this one keeps the pool from asking for what was just denied.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::FailureClass;
use crate::ids::SubnetId;
use crate::kind::Kind;
use crate::pressure::Pressure;
use crate::time::Mono;

/// After a refusal that repeating will hardly cure.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// The longest pause after failures that may pass by themselves.
const SHORT_MAX: Duration = Duration::from_secs(30);
/// The longest pause of something that keeps being refused and that no pod waits for.
const LONG_MAX: Duration = Duration::from_secs(600);
/// Full subnets: first and longest pause, and the longest while a pod waits.
const SUBNET_FIRST: Duration = Duration::from_secs(10);
const SUBNET_MAX: Duration = Duration::from_secs(120);
const SUBNET_WAITING: Duration = Duration::from_secs(10);
/// A subnet that gives this many at once is no longer asked carefully.
const CAREFUL_UP_TO: u32 = 64;

/// Something failed, and is not tried again before `until`. Stays, as a record, until it succeeds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) until: Mono,
    /// Of the last failure.
    pub(crate) at: Mono,
    /// In a row.
    pub(crate) failures: u32,
    pub(crate) class: FailureClass,
    pub(crate) message: String,
}

/// How a failure is reported.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) message: String,
    pub(crate) retry_at: Option<Mono>,
}

impl Block {
    /// After one failure more than `before`.
    pub(crate) fn after(before: Option<&Self>, failure: &Failure, now: Mono) -> Self {
        let failures = before.map_or(0, |b| b.failures).saturating_add(1);
        let pause = match failure.class {
            FailureClass::Retry | FailureClass::Throttled | FailureClass::NotBegun => {
                doubled(Duration::from_secs(1), failures, SHORT_MAX)
            }
            FailureClass::SubnetExhausted => doubled(SUBNET_FIRST, failures, SUBNET_MAX),
            FailureClass::LimitReached | FailureClass::DeviceTaken | FailureClass::Refused => LONG,
            FailureClass::Gone => Duration::from_secs(5),
            FailureClass::Overtaken => Duration::from_secs(1),
        };
        let own = now.plus(pause);
        let until = match (failure.class, failure.retry_at) {
            // The executor knows when EC2 may be asked again; it is not always in the future.
            (FailureClass::Retry | FailureClass::Throttled | FailureClass::NotBegun, Some(at)) => {
                at.max(now.plus(Duration::from_millis(1)))
            }
            (_, at) => at.map_or(own, |at| at.max(own)),
        };
        Self {
            until,
            at: now,
            failures,
            class: failure.class,
            message: failure.message.clone(),
        }
    }

    /// The same with a pause that grows: for deletions and questions that keep being refused.
    pub(crate) fn growing(before: Option<&Self>, failure: &Failure, now: Mono) -> Self {
        let mut block = Self::after(before, failure, now);
        if !matches!(
            failure.class,
            FailureClass::Retry | FailureClass::Throttled | FailureClass::NotBegun
        ) {
            block.until = block.until.max(now.plus(doubled(LONG, block.failures, LONG_MAX)));
        }
        block
    }
}

/// `first` doubled with each failure after the first, `max` at most.
fn doubled(first: Duration, failures: u32, max: Duration) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(max)
}

/// What is known of a subnet that ran dry of one kind.
///
/// EC2 gives all that is asked for or nothing. So a denied request is at once repeated for half as many, down to one;
/// only when one is denied too the subnet counts as full and is left alone for a while. After that it is asked for
/// one, and for twice as many with each success: few calls while it is full, all of it as soon as it is not.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Dry {
    /// Ask for no more than this at once.
    pub(crate) cap: Option<u32>,
    /// It denied a single one. Stays until it gives one again, or its count says that it has one.
    pub(crate) full: Option<Block>,
}

impl Dry {
    /// When it is asked again; a pod that waits shortens the pause.
    pub(crate) fn until(&self, waiting: bool) -> Option<Mono> {
        let block = self.full.as_ref()?;
        Some(if waiting {
            block.until.min(block.at.plus(SUBNET_WAITING))
        } else {
            block.until
        })
    }

    fn denied(&mut self, asked: u32, failure: &Failure, now: Mono) {
        let asked = self.cap.map_or(asked, |cap| cap.min(asked));
        if asked > 1 {
            self.cap = Some(asked / 2);
        } else {
            self.cap = Some(1);
            self.full = Some(Block::after(self.full.as_ref(), failure, now));
        }
    }

    fn gave(&mut self) {
        self.full = None;
        self.cap = self
            .cap
            .map(|cap| cap.saturating_mul(2))
            .filter(|cap| *cap < CAREFUL_UP_TO);
    }
}

/// What a subnet ran dry of. Few free addresses need not be a free /28.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SubnetBlock {
    pub(crate) addresses: Dry,
    pub(crate) prefixes: Dry,
}

impl SubnetBlock {
    pub(crate) fn of(&self, kind: Kind) -> &Dry {
        match kind {
            Kind::Address => &self.addresses,
            Kind::Prefix => &self.prefixes,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Dry {
        match kind {
            Kind::Address => &mut self.addresses,
            Kind::Prefix => &mut self.prefixes,
        }
    }
}

/// All back-offs that belong to no single intent or interface.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Backoffs {
    pub(crate) create: Option<Block>,
    pub(crate) assign: Option<Block>,
    pub(crate) release: Option<Block>,
    pub(crate) subnets: BTreeMap<SubnetId, SubnetBlock>,
    #[serde(default)]
    pub(crate) pressure: Pressure,
}

impl Backoffs {
    pub(crate) fn denied(&mut self, subnet: &SubnetId, kind: Kind, asked: u32, failure: &Failure, now: Mono) {
        let block = self.subnets.entry(subnet.clone()).or_default();
        block.of_mut(kind).denied(asked, failure, now);
    }

    pub(crate) fn gave(&mut self, subnet: &SubnetId, kind: Kind) {
        if let Some(block) = self.subnets.get_mut(subnet) {
            block.of_mut(kind).gave();
            if *block == SubnetBlock::default() {
                self.subnets.remove(subnet);
            }
        }
    }

    /// The subnet's own count of what is free of a kind.
    pub(crate) fn counted(&mut self, subnet: &SubnetId, kind: Kind, free: u32, now: Mono) {
        let known = self.subnet(subnet, kind).is_some_and(|d| *d != Dry::default());
        if free == 0 && !known {
            let message = match kind {
                Kind::Address => format!("{subnet} has no free address"),
                Kind::Prefix => format!("{subnet} has no free /28"),
            };
            let failure = Failure {
                class: FailureClass::SubnetExhausted,
                message,
                retry_at: None,
            };
            self.denied(subnet, kind, 1, &failure, now);
        } else if free > 0
            && known
            && let Some(block) = self.subnets.get_mut(subnet)
        {
            *block.of_mut(kind) = Dry {
                full: None,
                cap: Some(free).filter(|cap| *cap < CAREFUL_UP_TO),
            };
        }
    }

    pub(crate) fn subnet(&self, subnet: &SubnetId, kind: Kind) -> Option<&Dry> {
        self.subnets.get(subnet).map(|b| b.of(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(class: FailureClass) -> Failure {
        Failure {
            class,
            message: "m".into(),
            retry_at: None,
        }
    }

    #[test]
    fn a_subnet_is_asked_for_half_as_many_down_to_one_then_left_alone() {
        let (mut block, now) = (Dry::default(), Mono(0));
        let asked: Vec<u32> = std::iter::successors(Some(9), |_| {
            block.denied(9, &failure(FailureClass::SubnetExhausted), now);
            (block.full.is_none()).then(|| block.cap.unwrap())
        })
        .collect();
        assert_eq!(asked, [9, 4, 2, 1]);
        assert_eq!(block.until(false), Some(Mono(10_000)));
    }

    #[test]
    fn a_full_subnet_is_left_alone_for_ten_seconds_growing_to_120_and_no_longer_than_ten_while_a_pod_waits() {
        let mut block = Dry {
            cap: Some(1),
            full: None,
        };
        let pauses: Vec<u64> = (0..6)
            .map(|_| {
                block.denied(1, &failure(FailureClass::SubnetExhausted), Mono(0));
                assert_eq!(block.until(true), Some(Mono(10_000)));
                block.until(false).unwrap().0 / 1000
            })
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 120, 120]);
    }

    #[test]
    fn a_subnet_that_gives_again_is_trusted_with_twice_as_many_each_time() {
        let mut backoffs = Backoffs::default();
        let subnet = SubnetId::from("subnet-1");
        backoffs.denied(
            &subnet,
            Kind::Address,
            1,
            &failure(FailureClass::SubnetExhausted),
            Mono(0),
        );
        let caps: Vec<Option<u32>> = (0..6)
            .map(|_| {
                backoffs.gave(&subnet, Kind::Address);
                backoffs.subnet(&subnet, Kind::Address).and_then(|b| b.cap)
            })
            .collect();
        assert_eq!(caps, [Some(2), Some(4), Some(8), Some(16), Some(32), None]);
        assert_eq!(backoffs, Backoffs::default(), "nothing is left of it");
    }

    #[test]
    fn the_executors_time_decides_for_what_may_pass_and_lengthens_the_rest() {
        let at = |class, retry_at| {
            Block::after(
                None,
                &Failure {
                    class,
                    message: String::new(),
                    retry_at,
                },
                Mono(0),
            )
            .until
        };
        assert_eq!(at(FailureClass::Throttled, Some(Mono(250))), Mono(250));
        assert_eq!(at(FailureClass::Throttled, None), Mono(1_000));
        assert_eq!(at(FailureClass::Refused, Some(Mono(250))), Mono(60_000));
        assert_eq!(at(FailureClass::Refused, Some(Mono(90_000))), Mono(90_000));
    }
}
