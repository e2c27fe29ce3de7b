//! The mode `auto`: how many addresses are kept warm, from how many pods come here.
//!
//! As many are wanted free as pods came in the busiest of the last ten minutes, at least a sixteenth of max-pods, at most
//! as many as pods can still come. Where a subnet has less left than this node could use in all, one is enough: what is
//! warm here is missing elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::pool::Pool;
use crate::time::{Mono, Now};

const MINUTE_MS: u64 = 60_000;
/// Minutes that are looked back on.
const MEMORY: u64 = 10;
/// A node of which nothing is known yet keeps this part of max-pods warm.
const PART: u32 = 16;

/// Pods that were given an address, by minute.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Churn {
    came: BTreeMap<u64, u32>,
    /// Addresses to keep warm, as of the last event.
    pub(crate) warm: u32,
}

impl Churn {
    pub(crate) fn came(&mut self, now: Mono) {
        let minute = self.came.entry(now.0 / MINUTE_MS).or_default();
        *minute = minute.saturating_add(1);
    }

    fn forget(&mut self, now: Mono) {
        let this = now.0 / MINUTE_MS;
        self.came.retain(|minute, _| this - (*minute).min(this) < MEMORY);
    }

    /// Pods of the busiest minute.
    pub(crate) fn peak(&self) -> u32 {
        self.came.values().copied().max().unwrap_or(0)
    }

    /// When the busiest minute is forgotten.
    fn next_change(&self) -> Option<Mono> {
        let (minute, _) = self.came.iter().max_by_key(|(_, pods)| **pods)?;
        Some(Mono((minute.saturating_add(MEMORY)).saturating_mul(MINUTE_MS)))
    }
}

impl Pool {
    /// What is kept warm while nothing is known.
    pub(crate) fn auto_base(&self) -> u32 {
        self.targets.max_pods.div_ceil(PART)
    }

    /// Has a subnet that the pool uses less left than this node could use?
    pub(crate) fn is_tight(&self) -> bool {
        let used = self.serving(self.first_card()).map(|i| &i.subnet);
        let all = used.chain(self.new_subnets(Kind::Address));
        let mut counts = all.filter_map(|subnet| self.left.get(subnet));
        counts.any(|left| left.addresses < self.targets.max_pods)
    }

    /// Sizes the warm pool anew.
    pub(crate) fn size_warm_pool(&mut self, now: Now) {
        if !self.targets.auto {
            return;
        }
        self.churn.forget(now.mono);
        let pods = crate::plan::count(self.owners.len());
        let to_come = self.targets.max_pods.saturating_sub(pods);
        let wanted = if self.is_tight() {
            1
        } else {
            self.churn.peak().max(self.auto_base())
        };
        self.churn.warm = wanted.min(to_come);
    }

    /// When the warm pool's size changes by itself: never while nothing came lately.
    pub(crate) fn next_size(&self) -> Option<Mono> {
        let matters = self.targets.auto && self.churn.peak() > self.auto_base();
        self.churn.next_change().filter(|_| matters)
    }
}
