//! When a call to one EC2 action may be made: the shared back-off, as a pure state machine.
//!
//! EC2 throttles by account, region and action; all callers of an action on this node share one [`Backoff`], so that ten waiting pods do not
//! make ten callers that each try on their own. Time and chance are passed in; the async edge (the crate's gate) supplies them.
//!
//! The rules:
//! * At most [`LIMIT`] calls of an action are in flight; while it backs off, one (a probe). The first one goes alone too, and whenever
//!   the last answer is older than a minute: of many nodes that start together each finds out with one call, not with four.
//! * A failure draws a wait from 0 to a bound ("full jitter": calls of many nodes that were throttled together come back apart). The
//!   bound doubles with each failure: from 10 s to 60 s after throttling, from 0.2 s to 20 s after other passing failures.
//!   EC2 gives an account five calls a second of an action that changes something. A hundred nodes that come back within a
//!   second are refused again; within ten seconds half of them are served. The upper bound keeps what a node waits
//!   beyond what EC2 forces below a minute: `cargo run -p vpcnet-ipam --example scale` measures it.
//! * Calls that were already in flight when the bound was raised do not raise it again: a burst is throttled together.
//! * A wait is never made shorter by a later, luckier draw.
//! * A success takes the bound down by one step, not to zero: under a steady throttle every other call succeeds, and a back-off that forgets on
//!   success would hammer on.

use std::time::{Duration, Instant};

/// Most calls of one action in flight at a time.
pub const LIMIT: u32 = 4;

/// Longest wait after throttling.
pub const THROTTLE_CAP: Duration = Duration::from_secs(60);

const THROTTLE_BASE: Duration = Duration::from_secs(10);
/// An answer that old says nothing of how many calls EC2 takes now.
const NEWS: Duration = Duration::from_secs(60);
const FAILURE_BASE: Duration = Duration::from_millis(200);
const FAILURE_CAP: Duration = Duration::from_secs(20);

/// How a call ended, as far as the back-off is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// EC2 answered: with a result, or with an error that is about this call and not about EC2's state.
    Answered,
    /// EC2, or the way to it, failed in a way that passes.
    Failed,
    /// EC2 said it gets too many calls.
    Throttled,
    /// The caller gave the call up without learning anything.
    Abandoned,
}

/// Whether a call may be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Make it, and [`Backoff::settle`] it with this ticket.
    Go(Ticket),
    /// Not before this time.
    Until(Instant),
    /// As many as allowed are in flight: ask again when one has ended.
    Full,
}

/// Which state of the back-off a call began in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    epoch: u64,
}

/// The back-off of one action.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Backoff {
    in_flight: u32,
    /// Steps the bound has been doubled, from 1; 0 when all is well.
    level: u32,
    throttled: bool,
    not_before: Option<Instant>,
    /// The last answer, if nothing was throttled since.
    answered_at: Option<Instant>,
    /// Raised with each step up, so that calls older than the step do not cause another.
    epoch: u64,
}

impl Backoff {
    /// May a call be made at `now`? `Go` counts it as in flight.
    pub fn admit(&mut self, now: Instant) -> Admission {
        if let Some(until) = self.not_before
            && until > now
        {
            return Admission::Until(until);
        }
        let news = |at: Instant| now.saturating_duration_since(at) <= NEWS;
        let well = self.level == 0 && self.answered_at.is_some_and(news);
        let limit = if well { LIMIT } else { 1 };
        if self.in_flight >= limit {
            return Admission::Full;
        }
        self.in_flight += 1;
        Admission::Go(Ticket { epoch: self.epoch })
    }

    /// A call that was let go has ended. `chance` is a number drawn evenly from 0 to 1 (out-of-range values are clamped).
    ///
    /// Returns the time before which no further call is admitted, if there is one.
    pub fn settle(&mut self, ticket: Ticket, now: Instant, outcome: Outcome, chance: f64) -> Option<Instant> {
        self.in_flight = self.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Abandoned => {}
            Outcome::Answered => {
                self.level = self.level.saturating_sub(1);
                if self.level == 0 {
                    self.throttled = false;
                }
                self.answered_at = Some(now);
            }
            Outcome::Failed | Outcome::Throttled => {
                self.throttled |= outcome == Outcome::Throttled;
                self.answered_at = None;
                if ticket.epoch == self.epoch {
                    self.level = self.level.saturating_add(1);
                    self.epoch += 1;
                }
                let chance = if chance.is_nan() {
                    1.0
                } else {
                    chance.clamp(0.0, 1.0)
                };
                let until = now + self.bound().mul_f64(chance);
                self.not_before = Some(self.not_before.map_or(until, |earlier| earlier.max(until)));
            }
        }
        self.not_before.filter(|until| *until > now)
    }

    /// The longest wait the next failure could draw at the present level; zero when all is well.
    pub fn bound(&self) -> Duration {
        let (base, cap) = if self.throttled {
            (THROTTLE_BASE, THROTTLE_CAP)
        } else {
            (FAILURE_BASE, FAILURE_CAP)
        };
        match self.level {
            0 => Duration::ZERO,
            level => base.saturating_mul(1 << (level - 1).min(16)).min(cap),
        }
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn go(backoff: &mut Backoff, now: Instant) -> Ticket {
        match backoff.admit(now) {
            Admission::Go(ticket) => ticket,
            other => panic!("expected to go, got {other:?}"),
        }
    }

    /// One call was made and answered just now.
    fn answered() -> (Backoff, Instant) {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let first = go(&mut backoff, now);
        backoff.settle(first, now, Outcome::Answered, 0.5);
        (backoff, now)
    }

    #[test]
    fn the_first_call_goes_alone_and_again_after_a_quiet_minute() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let first = go(&mut backoff, now);
        assert_eq!(backoff.admit(now), Admission::Full);
        backoff.settle(first, now, Outcome::Answered, 0.5);
        let (second, _) = (go(&mut backoff, now), go(&mut backoff, now));
        backoff.settle(second, now, Outcome::Abandoned, 0.5);
        backoff.settle(second, now, Outcome::Abandoned, 0.5);
        let later = now + NEWS + Duration::from_millis(1);
        go(&mut backoff, later);
        assert_eq!(backoff.admit(later), Admission::Full);
    }

    #[test]
    fn calls_beyond_the_limit_wait_for_one_to_end() {
        let (mut backoff, now) = answered();
        let first = go(&mut backoff, now);
        for _ in 1..LIMIT {
            go(&mut backoff, now);
        }
        assert_eq!(backoff.admit(now), Admission::Full);
        assert_eq!(backoff.settle(first, now, Outcome::Answered, 0.5), None);
        go(&mut backoff, now);
    }

    #[test]
    fn throttling_doubles_the_bound_to_a_minute() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut bounds = Vec::new();
        for _ in 0..9 {
            let ticket = go(&mut backoff, now);
            let until = backoff
                .settle(ticket, now, Outcome::Throttled, 1.0)
                .expect("a wait");
            assert_eq!(backoff.admit(now), Admission::Until(until));
            bounds.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(bounds, [10, 20, 40, 60, 60, 60, 60, 60, 60]);
    }

    #[test]
    fn a_burst_that_is_throttled_together_counts_once() {
        let (mut backoff, now) = answered();
        let burst: Vec<_> = (0..LIMIT).map(|_| go(&mut backoff, now)).collect();
        for ticket in burst {
            backoff.settle(ticket, now, Outcome::Throttled, 1.0);
        }
        assert_eq!(backoff.bound(), Duration::from_secs(10));
    }

    #[test]
    fn a_success_takes_the_bound_down_by_one_step_only() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for _ in 0..4 {
            let ticket = go(&mut backoff, now);
            backoff.settle(ticket, now, Outcome::Throttled, 0.0);
        }
        let mut bounds = Vec::new();
        for _ in 0..5 {
            let ticket = go(&mut backoff, now);
            backoff.settle(ticket, now, Outcome::Answered, 0.0);
            bounds.push(backoff.bound().as_secs());
        }
        assert_eq!(bounds, [40, 20, 10, 0, 0]);
    }

    #[test]
    fn while_it_backs_off_one_probe_goes_at_a_time() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let ticket = go(&mut backoff, now);
        backoff.settle(ticket, now, Outcome::Failed, 0.0);
        let probe = go(&mut backoff, now);
        assert_eq!(backoff.admit(now), Admission::Full);
        backoff.settle(probe, now, Outcome::Answered, 0.0);
        for _ in 0..LIMIT {
            go(&mut backoff, now);
        }
    }

    #[test]
    fn an_abandoned_call_frees_its_place_and_changes_nothing_else() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let before = backoff.clone();
        let ticket = go(&mut backoff, now);
        assert_eq!(backoff.settle(ticket, now, Outcome::Abandoned, 1.0), None);
        assert_eq!(backoff, before);
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Answered),
            Just(Outcome::Failed),
            Just(Outcome::Throttled),
            Just(Outcome::Abandoned)
        ]
    }

    proptest! {
        /// Under any order of starts, ends and waits: never more in flight than allowed, no wait beyond the cap, a wait never shortened,
        /// nothing admitted during a wait, and after the wait with nothing in flight a call always goes.
        #[test]
        fn the_rules_hold(steps in prop::collection::vec((0u8..3, outcome(), -0.5f64..1.5, 0u64..70_000), 1..200)) {
            let mut backoff = Backoff::default();
            let mut now = Instant::now();
            let mut open: Vec<Ticket> = Vec::new();
            let mut wait: Option<Instant> = None;
            for (what, outcome, chance, millis) in steps {
                match what {
                    0 => match backoff.admit(now) {
                        Admission::Go(ticket) => {
                            prop_assert!(wait.is_none_or(|w| w <= now));
                            open.push(ticket);
                            prop_assert!(open.len() <= LIMIT as usize);
                        }
                        Admission::Until(until) => {
                            prop_assert!(until > now && until <= now + THROTTLE_CAP);
                            prop_assert_eq!(Some(until), wait);
                        }
                        Admission::Full => prop_assert!(!open.is_empty()),
                    },
                    1 => if let Some(ticket) = open.pop() {
                        let until = backoff.settle(ticket, now, outcome, chance);
                        if let (Some(old), Some(new)) = (wait.filter(|w| *w > now), until) {
                            prop_assert!(new >= old);
                        }
                        prop_assert!(until.is_some() || wait.is_none_or(|w| w <= now));
                        wait = until;
                    },
                    _ => now += Duration::from_millis(millis),
                }
                prop_assert_eq!(backoff.in_flight() as usize, open.len());
            }
            for ticket in open.drain(..) {
                backoff.settle(ticket, now, Outcome::Abandoned, 0.0);
            }
            prop_assert!(matches!(backoff.admit(now + THROTTLE_CAP), Admission::Go(_)));
        }

        /// A full jitter draw lies between nothing and the bound.
        #[test]
        fn a_wait_is_within_the_bound(failures in 1usize..20, chance in 0.0f64..=1.0, throttled: bool) {
            let (mut backoff, mut now) = (Backoff::default(), Instant::now());
            let outcome = if throttled { Outcome::Throttled } else { Outcome::Failed };
            for _ in 0..failures {
                let ticket = go(&mut backoff, now);
                let until = backoff.settle(ticket, now, outcome, chance).unwrap_or(now);
                prop_assert!(until - now <= backoff.bound());
                now = until;
            }
        }
    }
}
