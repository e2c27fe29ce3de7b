//! What nobody waits for stands back while EC2 gets too many calls.
//!
//! EC2 counts the calls of an account, not of a node: where a thousand nodes start together, every call for addresses to
//! keep warm is one that a pod elsewhere waits for. So after a refusal for too many calls a node asks for no more than its
//! pods need, for fifteen to thirty minutes, twice as long after each further refusal, an hour at most. How long is drawn, from
//! the instance's name and the time, so that nodes that were refused together do not come back together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::backoff::{Block, Failure};
use crate::event::FailureClass;
use crate::ids::PodMeta;
use crate::plan::count;
use crate::pool::Pool;
use crate::time::{Mono, Now};

/// The longest time of the first refusal.
const FIRST: Duration = Duration::from_secs(1800);
/// The longest of all.
const LAST: Duration = Duration::from_secs(3600);
/// Refusals that are no further apart count as one: several calls were under way.
const TOGETHER: Duration = Duration::from_secs(60);
/// A pod that was refused is asked for again by the kubelet within this time: it counts as one that waits.
const COMES_BACK: Duration = Duration::from_secs(120);

/// How hard EC2 is pressed, as far as this node was told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pressure {
    /// Until when nothing is asked for that no pod waits for, and why.
    pub(crate) spare: Option<Block>,
    /// Pods that were sent away, and when: they come again, in a sandbox of another name.
    #[serde(default)]
    sent_away: BTreeMap<String, Mono>,
}

impl Pressure {
    /// What holds up calls that no pod waits for.
    pub(crate) fn at(&self, now: Mono) -> Option<&Block> {
        self.spare.as_ref().filter(|b| b.until > now)
    }

    /// How many pods that do not wait now, because they were sent away, will be asked for again.
    pub(crate) fn awaits(&self, now: Mono) -> u32 {
        count(
            self.sent_away
                .values()
                .filter(|at| at.plus(COMES_BACK) > now)
                .count(),
        )
    }

    /// A pod is refused an address.
    pub(crate) fn sent_away(&mut self, pod: &PodMeta, now: Mono) {
        self.sent_away.retain(|_, at| at.plus(COMES_BACK) > now);
        self.sent_away.insert(pod.to_string(), now);
    }

    /// A pod has its address.
    pub(crate) fn served(&mut self, pod: &PodMeta) {
        if !self.sent_away.is_empty() {
            self.sent_away.remove(&pod.to_string());
        }
    }
}

impl Pool {
    /// EC2 refused a call that would have brought addresses.
    pub(crate) fn pressed(&mut self, now: Now, failure: &Failure) {
        if failure.class != FailureClass::Throttled {
            return;
        }
        let before = self.backoffs.pressure.spare.take();
        let (failures, until) = match &before {
            Some(b) if b.at.plus(TOGETHER) > now.mono => (b.failures, b.until),
            // A while after it was over it starts anew.
            Some(b) if b.until.plus(LAST) > now.mono => (b.failures.saturating_add(1), b.until),
            _ => (1, Mono(0)),
        };
        let factor = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        let longest = FIRST.saturating_mul(factor).min(LAST);
        let part = f64::midpoint(1.0, chance(&self.identity.instance_id, now));
        self.backoffs.pressure.spare = Some(Block {
            until: until.max(now.mono.plus(longest.mul_f64(part))),
            at: now.mono,
            failures,
            class: failure.class,
            message: failure.message.clone(),
        });
    }
}

/// From 0 to 1, the same for the same instance and time.
fn chance(instance: &str, now: Now) -> f64 {
    let digest = Sha1::digest(format!("{instance}/{}/{}", now.mono.0, now.wall_ns).as_bytes());
    let four = digest.iter().take(4).fold(0_u32, |n, b| n << 8 | u32::from(*b));
    f64::from(four) / f64::from(u32::MAX)
}
