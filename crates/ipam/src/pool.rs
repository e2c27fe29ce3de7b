//! The pool's state: one value.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::backoff::{Backoffs, Block};
use crate::checkpoint::{Allocation, Checkpoint};
use crate::churn::Churn;
use crate::event::{ActionId, InterfaceFacts};
use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, SubnetId};
use crate::intent::{Intent, IntentId, Phase, What};
use crate::interface::Interface;
use crate::journal::{JOURNAL_VERSION, Journal, Limbo, Released};
use crate::owner::{Held, Owner, Wait};
use crate::subnets::Left;
use crate::targets::{ConfigError, Identity, Limits, Targets};
use crate::time::{Mono, Now};

/// So many changes of owners are remembered one by one: more than a batch of calls brings.
const CHANGES: usize = 256;

/// The pool of one node. Events in, actions out; see the crate's documentation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pool {
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) targets: Targets,
    pub(crate) interfaces: BTreeMap<EniId, Interface>,
    #[serde(with = "as_list")]
    pub(crate) owners: BTreeMap<PodKey, Owner>,
    /// The owner of each owned address, wherever that lies: what makes two owners impossible.
    pub(crate) by_address: BTreeMap<IpAddr, PodKey>,
    /// By order of arrival.
    pub(crate) waiting: BTreeMap<u64, Wait>,
    pub(crate) intents: BTreeMap<IntentId, Intent>,
    /// Actions whose executor waits to make a call again, and why.
    #[serde(skip)]
    pub(crate) stalls: BTreeMap<ActionId, Block>,
    pub(crate) backoffs: Backoffs,
    /// Positions where EC2 would not attach an interface: something we do not know may be there.
    pub(crate) refused_devices: BTreeMap<CardIndex, BTreeMap<DeviceIndex, Block>>,
    /// What subnets have left, as far as somebody said.
    #[serde(default)]
    pub(crate) left: BTreeMap<SubnetId, Left>,
    #[serde(default)]
    pub(crate) churn: Churn,
    pub(crate) limbo: BTreeMap<IpAddr, Limbo>,
    /// The latest last.
    pub(crate) released: Vec<Released>,
    /// Interfaces deleted lately: lagging evidence may still list them.
    pub(crate) deleted: BTreeMap<EniId, Mono>,
    /// The interfaces are known: from a list, or from an earlier life. Before, nothing is planned.
    pub(crate) listed: bool,
    /// When they were first listed, if no earlier life knew them.
    pub(crate) listed_at: Option<Mono>,
    /// Until then a read of EC2 may lag behind what an earlier life did of which there is no record.
    #[serde(default)]
    pub(crate) unsure_until: Option<Mono>,
    pub(crate) last_decrease: Option<Mono>,
    /// After a checkpoint that could not be written: the next attempt to serve.
    pub(crate) serve_at: Option<Mono>,
    /// The next end of an owner's grace.
    pub(crate) grace: Option<Mono>,
    pub(crate) next_id: u64,
    pub(crate) checkpoint_generation: u64,
    /// The owners that the last generations came or went by, the latest last.
    #[serde(skip)]
    changes: VecDeque<PodKey>,
    pub(crate) journal_generation: u64,
    /// When a tick is wanted, as of the last event.
    pub(crate) wake: Option<Mono>,
}

impl Pool {
    /// An empty pool. It plans nothing before the interfaces are known: see [`crate::Event::InterfacesListed`].
    ///
    /// # Errors
    /// [`ConfigError`] if the limits do not describe a machine this pool can manage.
    pub fn new(identity: Identity, limits: Limits, targets: Targets) -> Result<Self, ConfigError> {
        let limits = limits.checked()?;
        Ok(Self {
            identity,
            limits,
            targets,
            interfaces: BTreeMap::new(),
            owners: BTreeMap::new(),
            by_address: BTreeMap::new(),
            waiting: BTreeMap::new(),
            intents: BTreeMap::new(),
            stalls: BTreeMap::new(),
            backoffs: Backoffs::default(),
            refused_devices: BTreeMap::new(),
            left: BTreeMap::new(),
            churn: Churn::default(),
            limbo: BTreeMap::new(),
            released: Vec::new(),
            deleted: BTreeMap::new(),
            listed: false,
            listed_at: None,
            unsure_until: None,
            last_decrease: None,
            serve_at: None,
            grace: None,
            next_id: 1,
            checkpoint_generation: 0,
            changes: VecDeque::new(),
            journal_generation: 0,
            wake: None,
        })
    }

    /// When a [`crate::Event::Tick`] is wanted; `None`: there is nothing to wait for.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        self.wake
    }

    /// The owners, to be written before any reply of the same batch is sent.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint_where(|_| true)
    }

    /// The same of one network card: the original keeps a file for each (`ipam.json`, `ipam-nic-1.json`, …).
    #[must_use]
    pub fn checkpoint_of(&self, card: CardIndex) -> Checkpoint {
        self.checkpoint_where(|held| held.card == card)
    }

    fn checkpoint_where(&self, wanted: impl Fn(&Held) -> bool) -> Checkpoint {
        let allocations = self.owners.iter().flat_map(|(key, owner)| {
            let held = owner.held.iter().filter(|h| wanted(h));
            held.map(|held| Allocation {
                key: key.clone(),
                address: held.address,
                allocated_ns: held.allocated_ns,
                meta: owner.meta.clone(),
                card: held.card,
            })
        });
        Checkpoint {
            allocations: allocations.collect(),
            ours: true,
        }
    }

    /// Moves with each change of [`Pool::checkpoint`].
    #[must_use]
    pub fn checkpoint_generation(&self) -> u64 {
        self.checkpoint_generation
    }

    /// The pool's own state, to be written before any EC2 action of the same batch is started.
    #[must_use]
    pub fn journal(&self) -> Journal {
        Journal {
            version: JOURNAL_VERSION,
            instance_id: self.identity.instance_id.clone(),
            boot_id: self.identity.boot_id.clone(),
            next_id: self.next_id,
            interfaces: self.interfaces.clone(),
            intents: self.intents.clone(),
            limbo: self.limbo.clone(),
            deleted: self.deleted.clone(),
            cards: self.limits.cards.iter().map(|c| c.card).collect(),
            unsure_until: self.unsure_until,
        }
    }

    /// Are the interfaces known? If not, nothing is planned until they are listed.
    #[must_use]
    pub fn knows_interfaces(&self) -> bool {
        self.listed
    }

    /// Moves with each change of [`Pool::journal`] that is worth writing. An address handed out is not: the checkpoint
    /// says so.
    #[must_use]
    pub fn journal_generation(&self) -> u64 {
        self.journal_generation
    }

    /// The targets in force.
    #[must_use]
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// What the machine allows.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Every interface the pool knows.
    pub fn interfaces(&self) -> impl Iterator<Item = InterfaceFacts> + '_ {
        self.interfaces.values().map(Interface::facts)
    }

    /// The address-to-owner index, for those who keep host rules in step with it. Links bear the names of pods, so of several
    /// sandboxes of one pod only the last that was given an address is said to have a link.
    pub fn owners(&self) -> impl Iterator<Item = crate::action::Lease> + '_ {
        let mut last: BTreeMap<(&str, &str), (i64, &PodKey)> = BTreeMap::new();
        for (key, owner) in self.owners.iter().filter(|(_, o)| !o.meta.name.is_empty()) {
            let this = (owner.allocated_ns(), key);
            let last = last.entry(owner.meta.pod()).or_insert(this);
            *last = (*last).max(this);
        }
        self.owners.iter().flat_map(move |(key, owner)| {
            let mut leases = owner.leases(key);
            if last.get(&owner.meta.pod()).is_some_and(|(_, last)| *last != key) {
                leases.iter_mut().for_each(|lease| lease.interface = None);
            }
            leases
        })
    }

    /// The sandbox that has an address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<&PodKey> {
        self.by_address.get(&address)
    }

    /// One owner came or went.
    pub(crate) fn changed_owner(&mut self, key: &PodKey) {
        self.checkpoint_generation = self.checkpoint_generation.wrapping_add(1);
        if self.changes.len() >= CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(key.clone());
    }

    /// Several owners came or went.
    pub(crate) fn changed_owners(&mut self) {
        self.checkpoint_generation = self.checkpoint_generation.wrapping_add(1);
        self.changes.clear();
    }

    /// The owners that came or went since that generation; `None`: that is not remembered, any may have.
    pub(crate) fn changed_since(&self, generation: u64) -> Option<impl Iterator<Item = &PodKey>> {
        let steps = usize::try_from(self.checkpoint_generation.wrapping_sub(generation)).ok()?;
        let from = self.changes.len().checked_sub(steps)?;
        Some(self.changes.iter().skip(from))
    }

    pub(crate) fn changed_state(&mut self) {
        self.journal_generation = self.journal_generation.wrapping_add(1);
    }

    pub(crate) fn fresh_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        id
    }

    /// Writes an intent down and starts it.
    pub(crate) fn intend(&mut self, what: What, now: Now, out: &mut Vec<Action>) -> IntentId {
        let id = IntentId(self.fresh_id());
        let phase = Phase::Paused(now.mono);
        self.intents.insert(
            id,
            Intent {
                what,
                since: now.mono,
                phase,
                trouble: None,
            },
        );
        self.run(id, out);
        id
    }

    /// Starts an intent, or starts it again: by an action of its own each time.
    pub(crate) fn run(&mut self, id: IntentId, out: &mut Vec<Action>) {
        let action = ActionId(self.fresh_id());
        if let Some(intent) = self.intents.get_mut(&id) {
            intent.phase = Phase::Running(action);
            out.push(intent.action(action));
        }
        self.changed_state();
    }

    /// The intent an action tries.
    pub(crate) fn intent_of(&self, action: ActionId) -> Option<IntentId> {
        self.intents
            .iter()
            .find(|(_, i)| i.phase == Phase::Running(action))
            .map(|(id, _)| *id)
    }
}

/// Keys that are no strings cannot be JSON object keys.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::ids::PodKey;
    use crate::owner::Owner;

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<PodKey, Owner>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<PodKey, Owner>, D::Error> {
        Ok(Vec::<(PodKey, Owner)>::deserialize(d)?.into_iter().collect())
    }
}
