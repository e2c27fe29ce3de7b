//! Pods come and go: who asks, who gets which address, who gives it back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::action::{Action, Answer, Refusal, RefusalCause};
use crate::event::{Cards, RequestId};
use crate::graces::GRACE;
use crate::ids::{CardIndex, PodKey, PodMeta};
use crate::interface::{LastOwner, State};
use crate::journal::{Limbo, Released};
use crate::names::host_veth_suffix_nth;
use crate::owner::{Asker, Held, MIGRATED_NETWORK, Owner, Standing, Superseded, UNKNOWN_INTERFACE, Wait};
use crate::pick::Pick;
use crate::plan::Tally;
use crate::pool::Pool;
use crate::targets::Mode;
use crate::time::{Mono, Now};

/// How long a release can be undone: far longer than the write of a checkpoint takes.
const MEMORY: Duration = Duration::from_secs(5);

/// A pod of every card that waits lets others that came later have a card's free address this long, if the card can have more:
/// mostly an interface is being made on another card, and nobody who wants one address is to wait for that.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many free addresses of a card are for pods of every card that wait for another card's. Without it, pods that come and go
/// would take the one card's address each time it is free, and the other's while it is not.
type Kept = BTreeMap<CardIndex, u32>;

impl Pool {
    #[allow(clippy::too_many_arguments)] // one for each field of the event
    pub(crate) fn pod_wants(
        &mut self,
        now: Now,
        request: RequestId,
        key: PodKey,
        meta: PodMeta,
        deadline: Mono,
        cards: Cards,
        out: &mut Vec<Action>,
    ) {
        if key.container_id.is_empty() || key.if_name.is_empty() {
            let message = "the request names no sandbox (container id and interface name)".to_owned();
            let refusal = Refusal {
                cause: RefusalCause::BadRequest,
                message,
                retry_in: None,
            };
            out.push(Action::Reply {
                request,
                answer: Answer::Refused(refusal),
            });
            return;
        }
        let lacks = |owner: &Owner| cards == Cards::Every && owner.lacks_addresses();
        if self.owners.get(&key).is_some_and(lacks) {
            // Of an ADD that was not answered before the agent ended, or of a DEL: nobody uses what is left of it. The plugin
            // asks only for a pod that has no interface yet.
            self.release(&key, now);
        }
        if let Some(owner) = self.owners.get_mut(&key) {
            let was_in_doubt = !matches!(owner.standing, Standing::Confirmed | Standing::Seen);
            owner.standing = Standing::Confirmed;
            let answer = Answer::Assigned(owner.leases(&key));
            out.push(Action::Reply { request, answer });
            if was_in_doubt {
                self.refresh_grace();
            }
            return;
        }
        let asker = Asker { request, deadline };
        if let Some(wait) = self.waiting.values_mut().find(|w| w.key == key) {
            wait.askers.push(asker);
            return;
        }
        let turn = self
            .waiting
            .last_key_value()
            .map_or(0, |(turn, _)| turn.saturating_add(1));
        let cause = RefusalCause::StillWorking;
        self.waiting.insert(
            turn,
            Wait {
                key,
                meta,
                cards,
                since: now.mono,
                askers: vec![asker],
                cause,
            },
        );
    }

    pub(crate) fn request_gone(&mut self, request: RequestId) {
        self.waiting.retain(|_, wait| {
            wait.askers.retain(|a| a.request != request);
            !wait.askers.is_empty()
        });
    }

    pub(crate) fn pod_gone(
        &mut self,
        now: Now,
        request: RequestId,
        key: &PodKey,
        meta: &PodMeta,
        out: &mut Vec<Action>,
    ) {
        self.end_wait_of(key, out);
        let mut leases = Vec::new();
        for key in self.owners_meant(key, meta) {
            if let Some(owner) = self.release(&key, now) {
                leases.extend(owner.leases(&key));
            }
        }
        let answer = if leases.is_empty() {
            Answer::UnknownPod
        } else {
            Answer::Released(leases)
        };
        out.push(Action::Reply { request, answer });
    }

    fn end_wait_of(&mut self, key: &PodKey, out: &mut Vec<Action>) {
        let Some(turn) = self
            .waiting
            .iter()
            .find(|(_, w)| w.key == *key)
            .map(|(turn, _)| *turn)
        else {
            return;
        };
        for asker in self.waiting.remove(&turn).into_iter().flat_map(|w| w.askers) {
            let message = format!("a DEL for sandbox {key} came while its ADD waited for an address");
            let refusal = Refusal {
                cause: RefusalCause::Deleted,
                message,
                retry_in: None,
            };
            out.push(Action::Reply {
                request: asker.request,
                answer: Answer::Refused(refusal),
            });
        }
    }

    /// The owners a DEL means: the sandbox; or the pod's entry from before the checkpoint; or, when only its host veth
    /// is known, the owner with that veth. DEL removes the veth, so with a sandbox the owner goes that it superseded.
    fn owners_meant(&self, key: &PodKey, meta: &PodMeta) -> Vec<PodKey> {
        if self.owners.contains_key(key) {
            let superseded = self.owners.iter().filter(|(_, o)| match &o.standing {
                Standing::Rebuilt { superseded: Some(s) } => s.by == *key,
                _ => false,
            });
            return std::iter::once(key.clone())
                .chain(superseded.map(|(k, _)| k.clone()))
                .collect();
        }
        let migrated = PodKey {
            network: MIGRATED_NETWORK.to_owned(),
            container_id: key.container_id.clone(),
            if_name: UNKNOWN_INTERFACE.to_owned(),
        };
        if self.owners.contains_key(&migrated) {
            return vec![migrated];
        }
        self.rebuilt_of(meta)
    }

    /// Owners of which only the host veth is known, and it is this pod's.
    fn rebuilt_of(&self, meta: &PodMeta) -> Vec<PodKey> {
        if meta.name.is_empty() || !self.owners.values().any(Owner::is_rebuilt) {
            return Vec::new();
        }
        // A pod has a veth for each of its addresses, at most one a card.
        let veths = 0..crate::plan::count(self.limits.cards.len());
        let suffixes: Vec<String> = veths
            .map(|n| host_veth_suffix_nth(&meta.namespace, &meta.name, n))
            .collect();
        let is_it = |(key, owner): &(&PodKey, &Owner)| {
            owner.is_rebuilt() && suffixes.iter().any(|s| key.container_id.ends_with(s))
        };
        self.owners
            .iter()
            .filter(is_it)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Serves those who wait, oldest first, as long as there are addresses.
    pub(crate) fn serve(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.serve_at.is_some_and(|at| at > now.mono) {
            return;
        }
        self.serve_at = None;
        let mut turns: Vec<u64> = self.waiting.keys().copied().collect();
        turns.reverse();
        let mut kept = Kept::default();
        while let Some(turn) = turns.pop() {
            let Some((cards, since)) = self.waiting.get(&turn).map(|w| (w.cards, w.since)) else {
                continue;
            };
            let picked = self.pick_for(cards, &kept, now.mono);
            if picked.is_empty() {
                match cards {
                    Cards::Any => return, // There is no address at all, or none that is not kept.
                    Cards::Every => {
                        let patient = now.mono.since(since) < PATIENCE;
                        for card in self.cards() {
                            if !patient || self.growth(card, now.mono).is_empty() {
                                *kept.entry(card).or_default() += 1;
                            }
                        }
                        continue;
                    }
                }
            }
            if let Some(wait) = self.waiting.remove(&turn) {
                self.grant(now, wait, &picked, out);
            }
        }
    }

    /// The addresses a pod would get, one of the first card that has one or one of each; none if it cannot have all.
    fn pick_for(&self, cards: Cards, kept: &Kept, now: Mono) -> Vec<Pick> {
        let is_kept = |card: CardIndex| {
            let kept = kept.get(&card).copied().unwrap_or(0);
            kept > 0 && Tally::of_card(self, card, now).free <= kept
        };
        let mut picked = self.cards().map(|card| match self.targets.mode {
            Mode::Ipv6 => self.pick_ipv6(card, now),
            _ if is_kept(card) => None,
            _ => self.pick(card, now),
        });
        match cards {
            Cards::Any => picked.flatten().take(1).collect(),
            Cards::Every => picked.by_ref().collect::<Option<Vec<_>>>().unwrap_or_default(),
        }
    }

    fn grant(&mut self, now: Now, wait: Wait, picked: &[Pick], out: &mut Vec<Action>) {
        // Later than that of any earlier sandbox of the pod, whatever the wall clock did: the last one has the pod's links.
        let earlier = self.owners.values().filter(|o| o.meta.pod() == wait.meta.pod());
        let earlier = earlier.map(|o| o.allocated_ns().saturating_add(1));
        let allocated_ns = earlier.fold(now.wall_ns, i64::max);
        let mut all_held = Vec::new();
        for Pick { eni, address, why } in picked {
            let Some(interface) = self.interfaces.get_mut(eni) else {
                continue;
            };
            interface.own(*address, now.mono);
            all_held.push(Held {
                address: *address,
                eni: eni.clone(),
                device: interface.device,
                card: interface.card,
                table: interface.table(),
                allocated_ns,
                why: Some(why.clone()),
            });
        }
        for earlier in self.rebuilt_of(&wait.meta) {
            if let Some(owner) = self.owners.get_mut(&earlier) {
                let by = Superseded {
                    by: wait.key.clone(),
                    at: now.mono.plus(GRACE),
                };
                owner.standing = Standing::Rebuilt { superseded: Some(by) };
                self.refresh_grace();
            }
        }
        let mut meta = wait.meta;
        meta.interfaces = meta.interfaces.max(crate::plan::count(all_held.len()));
        for held in &all_held {
            self.by_address.insert(held.address, wait.key.clone());
        }
        let owner = Owner {
            meta,
            held: all_held,
            standing: Standing::Confirmed,
        };
        let leases = owner.leases(&wait.key);
        for asker in wait.askers {
            let answer = Answer::Assigned(leases.clone());
            out.push(Action::Reply {
                request: asker.request,
                answer,
            });
        }
        self.churn.came(now.mono);
        self.backoffs.pressure.served(&owner.meta);
        self.changed_owner(&wait.key);
        self.owners.insert(wait.key, owner);
    }

    /// Takes an owner's addresses back into cool-down.
    pub(crate) fn release(&mut self, key: &PodKey, now: Now) -> Option<Owner> {
        let owner = self.owners.remove(key)?;
        let until = now.mono.plus(self.targets.cooldown);
        let mut disputed = Vec::new();
        for held in &owner.held {
            self.by_address.remove(&held.address);
            let last = LastOwner {
                key: key.clone(),
                meta: owner.meta.clone(),
                allocated_ns: held.allocated_ns,
                released_ns: now.wall_ns,
            };
            let Some(interface) = self.interfaces.get_mut(&held.eni) else {
                self.limbo.insert(held.address, Limbo { until, last });
                continue;
            };
            // Of a /80 only what is in use is written down.
            interface
                .ipv6
                .retain(|_, a| a.state == State::Owned || a.rests_until(now.mono).is_some());
            let Some(a) = interface.address_mut(held.address) else {
                self.limbo.insert(held.address, Limbo { until, last });
                continue;
            };
            a.state = State::Cooling { until };
            a.last = Some(Box::new(last));
            if a.disputed {
                disputed.push(held.address);
            }
        }
        // Nobody gets it before EC2 says again whose it is: this interface's, or another one's of ours that was given it
        // while the pod had it.
        for interface in self.interfaces.values_mut() {
            let may_have = |at: &IpAddr| match at {
                IpAddr::V4(at) => interface.subnet_cidr.contains(at),
                IpAddr::V6(at) => interface.ipv6.contains_key(at),
            };
            if interface.deleting.is_none() && disputed.iter().any(may_have) {
                interface.verify_at = Some(now.mono);
            }
        }
        self.limbo.retain(|_, l| l.until >= now.mono);
        self.released.retain(|r| now.mono.since(r.at) < MEMORY);
        self.released.push(Released {
            at: now.mono,
            key: key.clone(),
            owner: owner.clone(),
        });
        if !matches!(owner.standing, Standing::Confirmed | Standing::Seen) {
            self.refresh_grace();
        }
        self.changed_owner(key);
        self.changed_state();
        Some(owner)
    }
}
