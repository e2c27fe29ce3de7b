//! Owners: those of the checkpoint, those that only the kernel shows, and where their addresses lie.

use std::net::{IpAddr, Ipv4Addr};

use super::note::RestoreNote;
use crate::checkpoint::Allocation;
use crate::graces::{GRACE, has_link};
use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta};
use crate::interface::State;
use crate::kernel::KernelEvidence;
use crate::names::{MAIN_TABLE, card_of_table, host_veth_suffix_nth};
use crate::owner::{Held, MIGRATED_NETWORK, Owner, Standing, UNKNOWN_INTERFACE, rebuilt_key};
use crate::pool::Pool;
use crate::time::{Mono, Now};

impl Pool {
    pub(super) fn take_allocation(
        &mut self,
        allocation: Allocation,
        of_sandbox: &[IpAddr],
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
        let standing = standing(&key, &meta, of_sandbox, kernel, now);
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
    pub(super) fn take_kernel(&mut self, kernel: &KernelEvidence, notes: &mut Vec<RestoreNote>) {
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
    pub(super) fn settle_owned(&mut self, now: Now, notes: &mut Vec<RestoreNote>) {
        let until = now.mono.plus(self.targets.cooldown);
        let mut placed: Vec<(IpAddr, EniId)> = Vec::new();
        let mut disputed: Vec<Ipv4Addr> = Vec::new();
        for interface in self.interfaces.values_mut() {
            for (at, a) in &mut interface.addresses {
                if self.by_address.contains_key(&IpAddr::V4(*at)) {
                    // What was being given back may be gone. Should the pod go first, nobody else gets it before EC2 has said.
                    a.disputed |= matches!(a.state, State::Leaving { .. });
                    (a.state, a.unsure) = (State::Owned, false);
                    placed.push((IpAddr::V4(*at), interface.id.clone()));
                } else if a.state == State::Owned {
                    // Its owner gave it back, or is lost, at a time nobody wrote down.
                    a.state = State::Cooling { until };
                    disputed.extend(a.disputed.then_some(*at));
                }
            }
        }
        // EC2 says whose it is now.
        for interface in self.interfaces.values_mut() {
            if disputed.iter().any(|at| interface.subnet_cidr.contains(at)) {
                interface.verify_at = Some(now.mono);
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

/// How sure an entry of the checkpoint is, of a sandbox with these addresses.
fn standing(
    key: &PodKey,
    meta: &PodMeta,
    addresses: &[IpAddr],
    kernel: &KernelEvidence,
    now: Now,
) -> Standing {
    let shown = kernel.pods.iter().any(|r| addresses.contains(&r.address));
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
    if has_link(meta, addresses, &kernel.veths, &kernel.pods) {
        return Standing::Seen;
    }
    if shown {
        return Standing::Confirmed; // By a link of another name.
    }
    Standing::Unconfirmed {
        until: now.mono.plus(GRACE),
    }
}
