//! Tells the pool what EC2 says while an action is still at it: a call that fails in passing is made again, for a minute perhaps, and
//! the pods that wait for it are to know why.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use vpcnet_cloud::{Ec2Error, ErrorClass, Try, telling_tries};
use vpcnet_ipam::{ActionId, Event};

use super::Failure;
use crate::clock;
use crate::core::CoreHandle;

/// Does `work`, which is the action's.
pub(super) async fn telling<F: Future>(core: CoreHandle, id: ActionId, work: F) -> F::Output {
    let stalled = AtomicBool::new(false);
    let hear = move |what: Try<'_>| match what {
        Try::Failed(error) if may_pass(error) => {
            stalled.store(true, Ordering::Relaxed);
            core.event(event(id, error));
        }
        // Why it is held back says the failure before it, if that was ours.
        Try::HeldBack(error) if may_pass(error) => {
            if !stalled.swap(true, Ordering::Relaxed) {
                core.event(event(id, error));
            }
        }
        Try::Failed(_) | Try::HeldBack(_) | Try::Done => {
            if stalled.swap(false, Ordering::Relaxed) {
                core.event(Event::Resumed { id });
            }
        }
    };
    telling_tries(hear, work).await
}

/// Whether the call is made again, or may be: the others end their action, or are what it wanted to know.
fn may_pass(error: &Ec2Error) -> bool {
    matches!(error.class, ErrorClass::Retry | ErrorClass::Throttled)
}

fn event(id: ActionId, error: &Ec2Error) -> Event {
    let failure = Failure::from(error.clone());
    Event::Stalled {
        id,
        class: failure.class,
        message: failure.message,
        retry_at: failure.retry_at.map(clock::from_instant),
    }
}
