//! The async edge of [`crate::backoff`]: one gate for each action, with the clock and a source of chance.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;

use crate::Ec2Action;
use crate::backoff::{Admission, Backoff, Outcome, Ticket};

/// A number drawn evenly from 0 to 1. If the system has no randomness, one half: waits stay, they only stop being spread.
pub(crate) fn chance() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[derive(Default)]
struct Gate {
    state: Mutex<Backoff>,
    ended: Notify,
}

/// The gates of all actions.
pub(crate) struct Gates(Vec<Gate>);

/// Leave to make one call. Dropping it without [`Pass::settle`] counts the call as abandoned.
pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    ticket: Option<Ticket>,
}

impl Gates {
    pub(crate) fn new() -> Self {
        Self(Ec2Action::ALL.iter().map(|_| Gate::default()).collect())
    }

    /// Waits for leave to call `action`. `Err` as soon as it is known that leave does not come before `deadline`, with the time it may come.
    pub(crate) async fn pass(&self, action: Ec2Action, deadline: Instant) -> Result<Pass<'_>, Instant> {
        // One gate for each member of `ALL`, so the place exists.
        let Some(gate) = self.0.get(action as usize) else {
            return Err(deadline);
        };
        loop {
            // Asked for before the state is read, so that an end in between is not missed.
            let ended = gate.ended.notified();
            let admission = gate
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .admit(Instant::now());
            match admission {
                Admission::Go(ticket) => {
                    return Ok(Pass {
                        gate,
                        ticket: Some(ticket),
                    });
                }
                Admission::Until(until) if until > deadline => return Err(until),
                Admission::Until(until) => tokio::time::sleep_until(until.into()).await,
                Admission::Full => {
                    if tokio::time::timeout_at(deadline.into(), ended).await.is_err() {
                        return Err(deadline);
                    }
                }
            }
        }
    }
}

impl Pass<'_> {
    /// The call ended. Returns the time before which this action is not called again.
    pub(crate) fn settle(mut self, outcome: Outcome) -> Option<Instant> {
        self.ticket.take().and_then(|ticket| self.end(ticket, outcome))
    }

    fn end(&self, ticket: Ticket, outcome: Outcome) -> Option<Instant> {
        let mut state = self.gate.state.lock().unwrap_or_else(PoisonError::into_inner);
        let until = state.settle(ticket, Instant::now(), outcome, chance());
        drop(state);
        self.gate.ended.notify_waiters();
        until
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.end(ticket, Outcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backoff::LIMIT;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn a_caller_waits_for_a_place_and_gets_it_when_a_call_is_dropped() {
        runtime().block_on(async {
            let gates = Gates::new();
            let action = Ec2Action::CreateNetworkInterface;
            // One at a time until EC2 has answered.
            gates
                .pass(action, soon())
                .await
                .ok()
                .unwrap()
                .settle(Outcome::Answered);
            let mut held = Vec::new();
            for _ in 0..LIMIT {
                held.push(gates.pass(action, soon()).await.ok().unwrap());
            }
            assert!(
                gates
                    .pass(action, Instant::now() + Duration::from_millis(5))
                    .await
                    .is_err(),
                "all places are taken"
            );
            let (waiter, ()) = tokio::join!(gates.pass(action, soon()), async {
                tokio::task::yield_now().await;
                held.pop();
            });
            assert!(waiter.is_ok());
        });
    }

    #[test]
    fn actions_do_not_hold_each_other_up() {
        runtime().block_on(async {
            let gates = Gates::new();
            // Throttled until the drawn wait is one to be noticed.
            while gates
                .pass(Ec2Action::CreateTags, soon())
                .await
                .ok()
                .unwrap()
                .settle(Outcome::Throttled)
                .is_none()
            {}
            assert!(gates.pass(Ec2Action::CreateTags, Instant::now()).await.is_err());
            assert!(gates.pass(Ec2Action::DeleteTags, Instant::now()).await.is_ok());
        });
    }
}
