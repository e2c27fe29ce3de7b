//! Waking up: what an earlier life wrote down, and what the kernel shows, become a pool again. No call is needed.

mod intents;
mod note;
mod owners;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::Ipv4Net;

use crate::action::Action;
use crate::checkpoint::{Allocation, Checkpoint};
use crate::evidence::EC2_LAG;
use crate::ids::{CardIndex, PodKey};
use crate::intent::Phase;
use crate::interface::{Address, Interface, State};
use crate::journal::{JOURNAL_VERSION, Journal, READABLE};
use crate::kernel::KernelEvidence;
use crate::pool::Pool;
use crate::prefix;
use crate::targets::{ConfigError, Identity, Limits, Targets};
use crate::time::{Mono, Now};

pub use note::RestoreNote;

/// What is left of earlier lives.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The checkpoint; `None`: there is none, or it is broken (kept aside by whoever read it).
    pub checkpoint: Option<Checkpoint>,
    /// Our own state; `None`: there is none, or it is broken.
    pub journal: Option<Journal>,
    /// What the kernel shows.
    pub kernel: KernelEvidence,
}

impl Pool {
    /// The pool of an earlier life, and what it has to do first.
    ///
    /// # Errors
    /// [`ConfigError`] if the limits do not describe a machine this pool can manage.
    pub fn restore(
        identity: Identity,
        limits: Limits,
        targets: Targets,
        restored: Restored,
        now: Now,
    ) -> Result<(Self, Vec<RestoreNote>, Vec<Action>), ConfigError> {
        let mut pool = Self::new(identity, limits, targets)?;
        let mut notes = Vec::new();
        let Restored {
            checkpoint,
            journal,
            kernel,
        } = restored;
        if let Some(journal) = journal {
            match refused(&journal, &pool.identity, checkpoint.as_ref()) {
                Some(why) => notes.push(RestoreNote::JournalDiscarded { why }),
                None => pool.take_journal(journal, now),
            }
        }
        let allocations = checkpoint.map(|c| c.allocations).unwrap_or_default();
        let mut of_sandboxes: BTreeMap<PodKey, Vec<IpAddr>> = BTreeMap::new();
        for Allocation { key, address, .. } in &allocations {
            of_sandboxes.entry(key.clone()).or_default().push(*address);
        }
        for allocation in allocations {
            let of_sandbox = of_sandboxes.get(&allocation.key).map_or(&[][..], Vec::as_slice);
            pool.take_allocation(allocation, of_sandbox, &kernel, now, &mut notes);
        }
        pool.take_kernel(&kernel, &mut notes);
        if !pool.listed {
            // Whatever an earlier life did, it did before now.
            pool.unsure_until = Some(now.mono.plus(EC2_LAG));
        }
        pool.settle_owned(now, &mut notes);
        pool.settle_intents(now, &mut notes);
        pool.refresh_grace();
        pool.changed_owners();
        pool.changed_state();
        let mut out = Vec::new();
        pool.settle(now, &mut out);
        Ok((pool, notes, out))
    }

    fn take_journal(&mut self, journal: Journal, now: Now) {
        let same_boot = journal.boot_id == self.identity.boot_id;
        // What is on cards that the earlier life did not manage was no concern of its.
        let first = self.first_card();
        let managed = |card: CardIndex| card == first || journal.cards.contains(&card);
        let no_others = self.limits.cards.iter().all(|c| managed(c.card));
        self.next_id = journal.next_id.max(1);
        self.interfaces = journal.interfaces;
        for interface in self.interfaces.values_mut() {
            unfold(interface, now.mono);
        }
        self.intents = journal.intents;
        self.limbo = journal.limbo;
        self.deleted = journal.deleted;
        self.listed = no_others && self.interfaces.values().any(|i| i.is_primary);
        self.unsure_until = journal.unsure_until;
        if !same_boot {
            self.rebase(now.mono);
        }
    }

    /// Points in time of another boot mean nothing: what ran starts anew.
    fn rebase(&mut self, now: Mono) {
        let until = now.plus(self.targets.cooldown);
        // Reads may lag behind what was done a moment before the machine went down.
        let clear_at = now.plus(EC2_LAG);
        for interface in self.interfaces.values_mut() {
            let doubted = interface.verify_at.is_some() || interface.addresses.values().any(|a| a.unsure);
            interface.since = now;
            interface.sure_at = None;
            interface.verify_at = doubted.then_some(clear_at);
            interface.block = None;
            // A start is no proof that nobody lags any more.
            let departed = interface.departed.values_mut();
            departed
                .chain(interface.departed_prefixes.values_mut())
                .for_each(|at| *at = now);
            for a in interface.kept_mut() {
                match &mut a.state {
                    State::Cooling { until: u } => *u = until,
                    State::Free { since } => *since = now,
                    State::Owned | State::Leaving { .. } => {}
                }
            }
        }
        for intent in self.intents.values_mut() {
            intent.since = now;
            intent.phase = Phase::Paused(now);
            intent.trouble = None;
        }
        for limbo in self.limbo.values_mut() {
            limbo.until = until;
        }
        self.deleted.values_mut().for_each(|at| *at = now);
        self.unsure_until = self.unsure_until.map(|_| clear_at);
    }
}

/// Agents before this one wrote a prefix down without its addresses.
fn unfold(interface: &mut Interface, now: Mono) {
    let prefixes: Vec<Ipv4Net> = interface.prefixes.iter().copied().collect();
    for net in prefixes.into_iter().filter(|p| prefix::is_usable(*p)) {
        // One that is there in part is a prefix that EC2 denies and a pod lives in.
        if interface.of_prefix(net).next().is_none() {
            let all = prefix::addresses(net).map(|at| (at, Address::free(now)));
            interface.addresses.extend(all);
        }
    }
}

/// Why a journal is not used.
fn refused(journal: &Journal, identity: &Identity, checkpoint: Option<&Checkpoint>) -> Option<String> {
    if !READABLE.contains(&journal.version) {
        return Some(format!(
            "it is of version {}, this agent writes {JOURNAL_VERSION}",
            journal.version
        ));
    }
    if journal.instance_id != identity.instance_id {
        return Some(format!(
            "it is of instance {}, this is {}",
            journal.instance_id, identity.instance_id
        ));
    }
    if checkpoint.is_some_and(|c| !c.ours) {
        return Some("another agent wrote the checkpoint since".to_owned());
    }
    None
}
