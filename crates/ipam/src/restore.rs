//! Waking up: what an earlier life wrote down, and what the kernel shows, become a pool again. No call is needed.

use std::fmt;
use std::net::IpAddr;

use ipnet::Ipv4Net;

use crate::action::Action;
use crate::checkpoint::{Allocation, Checkpoint};
use crate::graces::{GRACE, has_veth};
use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta};
use crate::intent::{Intent, IntentId, Phase, What};
use crate::interface::{Address, Interface, State};
use crate::journal::{JOURNAL_VERSION, Journal, READABLE};
use crate::kernel::KernelEvidence;
use crate::kind::Kind;
use crate::names::{MAIN_TABLE, card_of_table, host_veth_suffix_nth};
use crate::owner::{Held, MIGRATED_NETWORK, Owner, Standing, UNKNOWN_INTERFACE, rebuilt_key};
use crate::pool::Pool;
use crate::prefix;
use crate::targets::{ConfigError, Identity, Limits, Targets};
use crate::time::{Mono, Now};

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

/// Something an operator may want to know about a start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestoreNote {
    /// The journal was not used.
    JournalDiscarded {
        /// Why.
        why: String,
    },
    /// The kernel shows no link of an owner.
    Unconfirmed {
        /// Which.
        key: PodKey,
        /// Its pod.
        meta: PodMeta,
        /// Its address, kept for the grace.
        address: IpAddr,
    },
    /// The kernel shows a pod's address that the checkpoint does not name.
    Rebuilt {
        /// Its address.
        address: IpAddr,
        /// Its host veth.
        host_veth: String,
    },
    /// The checkpoint names an owner, and the kernel shows another pod with the address: the checkpoint is the older.
    Stale {
        /// Whom the checkpoint names.
        key: PodKey,
        /// Its pod.
        meta: PodMeta,
        /// The address, kept for the pod that has it.
        address: IpAddr,
        /// That pod's host veth.
        host_veth: String,
    },
    /// An owner's address is on no interface that is known.
    Orphan {
        /// Which.
        key: PodKey,
        /// Its address, given to nobody else.
        address: IpAddr,
    },
    /// An EC2 call of the earlier life is settled or repeated.
    Resumed {
        /// What.
        what: String,
    },
}

impl fmt::Display for RestoreNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JournalDiscarded { why } => write!(f, "own state not used: {why}"),
            Self::Unconfirmed { key, meta, address } => write!(
                f,
                "{address} of pod {meta} (sandbox {key}): the kernel shows no link of it; given up in {} s if none shows up",
                GRACE.as_secs()
            ),
            Self::Rebuilt { address, host_veth } => {
                write!(
                    f,
                    "{address} is in use behind {host_veth} but not in the checkpoint: kept for that pod"
                )
            }
            Self::Stale {
                key,
                meta,
                address,
                host_veth,
            } => write!(
                f,
                "{address} of pod {meta} (sandbox {key}) is in use behind {host_veth}, which is not its link: kept for the pod that has it"
            ),
            Self::Orphan { key, address } => {
                write!(
                    f,
                    "{address} of sandbox {key} is on no interface that is known: kept, given to nobody else"
                )
            }
            Self::Resumed { what } => write!(f, "the {what} of the earlier life is taken up again"),
        }
    }
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
        for allocation in checkpoint.into_iter().flat_map(|c| c.allocations) {
            pool.take_allocation(allocation, &kernel, now, &mut notes);
        }
        pool.take_kernel(&kernel, &mut notes);
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
        if !same_boot {
            self.rebase(now.mono);
        }
    }

    /// Points in time of another boot mean nothing: what ran starts anew.
    fn rebase(&mut self, now: Mono) {
        let until = now.plus(self.targets.cooldown);
        for interface in self.interfaces.values_mut() {
            interface.since = now;
            interface.sure_at = None;
            interface.verify_at = None;
            interface.block = None;
            interface.departed.clear();
            interface.departed_prefixes.clear();
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
        self.deleted.clear();
    }

    fn take_allocation(
        &mut self,
        allocation: Allocation,
        kernel: &KernelEvidence,
        now: Now,
        notes: &mut Vec<RestoreNote>,
    ) {
        let Allocation {
            key,
            address,
            allocated_ns,
            meta,
            card,
        } = allocation;
        if self.by_address.contains_key(&address) {
            return; // Reading a checkpoint refuses duplicates; one that was made otherwise must not break the law.
        }
        if let Some(host_veth) = anothers(&key, &meta, address, kernel) {
            notes.push(RestoreNote::Stale {
                key,
                meta,
                address,
                host_veth,
            });
            return;
        }
        let standing = standing(&key, &meta, address, kernel, now);
        if let Standing::Unconfirmed { .. } = standing {
            notes.push(RestoreNote::Unconfirmed {
                key: key.clone(),
                meta: meta.clone(),
                address,
            });
        }
        self.own(key, meta, standing, (address, card), allocated_ns, kernel);
    }

    /// Pods that run and that no entry names.
    fn take_kernel(&mut self, kernel: &KernelEvidence, notes: &mut Vec<RestoreNote>) {
        for route in &kernel.pods {
            if self.by_address.contains_key(&route.address) {
                continue;
            }
            if let Some(key) = self.lacking(&route.host_veth) {
                self.join(&key, route.address, kernel);
                continue;
            }
            notes.push(RestoreNote::Rebuilt {
                address: route.address,
                host_veth: route.host_veth.clone(),
            });
            let standing = Standing::Rebuilt { superseded: None };
            let meta = PodMeta {
                interfaces: 1,
                ..PodMeta::default()
            };
            self.own(
                rebuilt_key(&route.host_veth),
                meta,
                standing,
                (route.address, self.first_card()),
                0,
                kernel,
            );
        }
    }

    /// The pod of several cards that this link is one of, if addresses of it are missing: the file that named this one is lost,
    /// or was written a moment before the agent ended, and the others were not.
    fn lacking(&self, host_veth: &str) -> Option<PodKey> {
        let is_its = |owner: &Owner| {
            let PodMeta { namespace, name, .. } = &owner.meta;
            let mut nth = 0..owner.meta.interfaces;
            nth.any(|n| host_veth.ends_with(&host_veth_suffix_nth(namespace, name, n)))
        };
        let mut lacking = self.owners.iter().filter(|(_, o)| o.lacks_addresses());
        lacking
            .find(|(_, o)| !o.meta.name.is_empty() && is_its(o))
            .map(|(key, _)| key.clone())
    }

    fn join(&mut self, key: &PodKey, address: IpAddr, kernel: &KernelEvidence) {
        let table = kernel.table_of(address).unwrap_or(MAIN_TABLE);
        let card = card_of_table(table);
        let Some(owner) = self.owners.get_mut(key) else {
            return;
        };
        owner.held.push(held(address, card, table, 0));
        // What runs has links.
        owner.standing = Standing::Seen;
        self.by_address.insert(address, key.clone());
    }

    fn own(
        &mut self,
        key: PodKey,
        meta: PodMeta,
        standing: Standing,
        (address, card): (IpAddr, CardIndex),
        allocated_ns: i64,
        kernel: &KernelEvidence,
    ) {
        // Pods on the primary interface have no rule.
        let table = kernel.table_of(address).unwrap_or(MAIN_TABLE);
        let held = held(address, card, table, allocated_ns);
        self.by_address.insert(address, key.clone());
        let owner = self.owners.entry(key).or_insert_with(|| Owner {
            meta,
            held: Vec::new(),
            standing,
        });
        owner.held.push(held);
    }

    /// Brings addresses and owners together.
    fn settle_owned(&mut self, now: Now, notes: &mut Vec<RestoreNote>) {
        let until = now.mono.plus(self.targets.cooldown);
        let mut placed: Vec<(IpAddr, EniId)> = Vec::new();
        for interface in self.interfaces.values_mut() {
            for (at, a) in &mut interface.addresses {
                if self.by_address.contains_key(&IpAddr::V4(*at)) {
                    a.state = State::Owned;
                    placed.push((IpAddr::V4(*at), interface.id.clone()));
                } else if a.state == State::Owned {
                    // Its owner gave it back, or is lost, at a time nobody wrote down.
                    a.state = State::Cooling { until };
                }
            }
        }
        self.settle_owned_ipv6(until);
        for (at, eni) in placed {
            let Some(interface) = self.interfaces.get(&eni) else {
                continue;
            };
            let (device, card, table) = (interface.device, interface.card, interface.table());
            let owner = self.by_address.get(&at).and_then(|key| self.owners.get_mut(key));
            for held in owner
                .into_iter()
                .flat_map(|o| &mut o.held)
                .filter(|h| h.address == at)
            {
                (held.eni, held.device, held.card, held.table) = (eni.clone(), device, card, table);
            }
        }
        self.owners.values_mut().for_each(Owner::sort);
        for (key, owner) in &self.owners {
            let orphans = owner.held.iter().filter(|h| h.eni.0.is_empty());
            notes.extend(orphans.map(|h| RestoreNote::Orphan {
                key: key.clone(),
                address: h.address,
            }));
        }
        let owned = &self.by_address;
        self.limbo.retain(|at, _| !owned.contains_key(at));
    }

    /// The same for addresses of a /80.
    fn settle_owned_ipv6(&mut self, until: Mono) {
        let mut prefixes = Vec::new();
        for interface in self.interfaces.values_mut() {
            for (at, a) in &mut interface.ipv6 {
                if a.state == State::Owned && !self.by_address.contains_key(&IpAddr::V6(*at)) {
                    a.state = State::Cooling { until };
                }
            }
            let id = &interface.id;
            prefixes.extend(interface.ipv6_prefixes.iter().map(|p| (id.clone(), *p)));
        }
        for (eni, prefix) in prefixes {
            self.add_ipv6_prefix(&eni, prefix);
        }
    }

    /// Takes intents up again: creations with what they had achieved, releases and deletions as they were; what an
    /// assignment achieved has to be asked.
    fn settle_intents(&mut self, now: Now, notes: &mut Vec<RestoreNote>) {
        let mut dropped: Vec<(IntentId, EniId)> = Vec::new();
        let mut ask: Vec<EniId> = Vec::new();
        let (interfaces, owners) = (&self.interfaces, &self.owners);
        for (id, intent) in &mut self.intents {
            let lived_on = |eni: &EniId| owners.values().any(|o| o.held.iter().any(|h| h.eni == *eni));
            match &mut intent.what {
                What::Create(create) => create.unsure = true,
                What::Assign { eni, count, kind } => {
                    let (unsure, unsure_prefixes) = match kind {
                        Kind::Address => (*count, 0),
                        Kind::Prefix => (0, *count),
                    };
                    intent.what = What::Describe {
                        eni: eni.clone(),
                        unsure,
                        unsure_prefixes,
                        doubt: true,
                    };
                }
                What::AssignIpv6 { eni } => {
                    intent.what = What::Describe {
                        eni: eni.clone(),
                        unsure: 0,
                        unsure_prefixes: 0,
                        doubt: true,
                    };
                }
                What::Release {
                    eni,
                    prefixes,
                    unsure,
                    ..
                } if !prefixes.is_empty() => {
                    // The rest of a prefix that a pod lives in is given to nobody before EC2 says what is there.
                    let lived_in = |p: &Ipv4Net| {
                        let mut all = interfaces.get(eni).into_iter().flat_map(|i| i.of_prefix(*p));
                        all.any(|(_, a)| a.state == State::Owned)
                    };
                    if prefixes.iter().any(lived_in) || !interfaces.contains_key(eni) {
                        dropped.push((*id, eni.clone()));
                    } else {
                        *unsure = true;
                    }
                }
                What::Release {
                    eni,
                    addresses,
                    unsure,
                    ..
                } => {
                    *unsure = true;
                    let leaves = |at: &std::net::Ipv4Addr| {
                        let a = interfaces.get(eni).and_then(|i| i.addresses.get(at));
                        a.is_some_and(|a| a.state != State::Owned)
                    };
                    let before = addresses.len();
                    addresses.retain(leaves);
                    if addresses.len() < before {
                        ask.push(eni.clone()); // What a pod has may be gone.
                    }
                    if addresses.is_empty() {
                        dropped.push((*id, eni.clone()));
                    }
                }
                What::Delete { eni, .. } if lived_on(eni) => dropped.push((*id, eni.clone())),
                What::Delete { .. } | What::Describe { .. } => {}
            }
            if let Phase::Running(_) = intent.phase {
                intent.phase = Phase::Paused(now.mono);
            }
        }
        for (id, eni) in dropped {
            let what = What::Describe {
                eni,
                unsure: 0,
                unsure_prefixes: 0,
                doubt: true,
            };
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
        }
        for eni in ask {
            if let Some(interface) = self.interfaces.get_mut(&eni) {
                interface.verify_at = Some(now.mono);
            }
        }
        let intents = &self.intents;
        for interface in self.interfaces.values_mut() {
            settle_interface(interface, intents, now.mono);
        }
        notes.extend(
            self.intents
                .values()
                .map(|i| RestoreNote::Resumed { what: i.title() }),
        );
    }
}

/// An owner's address whose interface is not known yet.
fn held(address: IpAddr, card: CardIndex, table: u32, allocated_ns: i64) -> Held {
    Held {
        address,
        eni: EniId(String::new()),
        device: DeviceIndex(0),
        card,
        table,
        allocated_ns,
        why: None,
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

/// Makes an interface's states agree with the intents there are.
fn settle_interface(
    interface: &mut Interface,
    intents: &std::collections::BTreeMap<IntentId, Intent>,
    now: Mono,
) {
    let deletes = |by: &IntentId| matches!(intents.get(by).map(|i| &i.what), Some(What::Delete { .. }));
    interface.deleting = interface.deleting.filter(deletes);
    for a in interface.addresses.values_mut() {
        if let State::Leaving { by } = a.state
            && !intents.contains_key(&by)
        {
            a.state = State::Free { since: now };
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

/// Host veths a pod can have, one for each of its addresses: more than any instance has network cards.
const VETHS: u32 = 64;

/// The link behind which the kernel shows the address, if it is none of the pod's.
fn anothers(key: &PodKey, meta: &PodMeta, address: IpAddr, kernel: &KernelEvidence) -> Option<String> {
    let shown = kernel.pods.iter().find(|r| r.address == address)?;
    if is_by_veth(key, meta) {
        return (shown.host_veth != key.container_id).then(|| shown.host_veth.clone());
    }
    if meta.name.is_empty() || meta.namespace.is_empty() {
        return None; // It may be anybody's.
    }
    let own = (0..VETHS).any(|nth| {
        let suffix = host_veth_suffix_nth(&meta.namespace, &meta.name, nth);
        shown.host_veth.ends_with(&suffix)
    });
    (!own).then(|| shown.host_veth.clone())
}

/// An entry of ours for an owner rebuilt before: link names are at most 15 characters long, container ids 64.
fn is_by_veth(key: &PodKey, meta: &PodMeta) -> bool {
    let by_veth = key.network == MIGRATED_NETWORK && key.if_name == UNKNOWN_INTERFACE;
    by_veth && meta.name.is_empty() && key.container_id.len() <= 15
}

/// How sure an entry of the checkpoint is.
fn standing(key: &PodKey, meta: &PodMeta, address: IpAddr, kernel: &KernelEvidence, now: Now) -> Standing {
    let shown = kernel.pods.iter().any(|r| r.address == address);
    if is_by_veth(key, meta) {
        return if shown || kernel.veths.contains(&key.container_id) {
            Standing::Rebuilt { superseded: None }
        } else {
            Standing::Unconfirmed {
                until: now.mono.plus(GRACE),
            }
        };
    }
    // Entries of agents before 1.11 name no pod: nothing says they are stale.
    if meta.name.is_empty() || meta.namespace.is_empty() {
        return Standing::Confirmed;
    }
    if has_veth(meta, &kernel.veths) {
        return Standing::Seen;
    }
    if shown {
        return Standing::Confirmed; // By a link of another name.
    }
    Standing::Unconfirmed {
        until: now.mono.plus(GRACE),
    }
}
