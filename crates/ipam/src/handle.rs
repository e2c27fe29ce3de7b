//! Events: each changes the state, then the pool settles: what time has ended is ended, pods that wait are served, and
//! what is missing is asked for.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::action::Action;
use crate::event::{Cards, Event};
use crate::ids::{CardIndex, EniId, SubnetId};
use crate::intent::{Create, IntentId, Phase, What};
use crate::interface::State;
use crate::kind::Kind;
use crate::names::client_token;
use crate::owner::{Owner, Standing};
use crate::plan::{Plan, Step, plan};
use crate::pool::Pool;
use crate::subnets::Left;
use crate::time::{Mono, Now};

/// A plan leaves nothing to be planned; were that ever wrong, the rest waits for the next event.
const PLANS: usize = 4;

impl Pool {
    /// Tells the pool what happened. Never fails; the actions are to be carried out in their order, replies after the
    /// checkpoint and EC2 actions after the journal were written.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::PodWants {
                request,
                key,
                meta,
                deadline,
                cards,
            } => {
                self.pod_wants(now, request, key, meta, deadline, cards, &mut out);
            }
            Event::RequestGone { request } => self.request_gone(request),
            // The address stays with its sandbox: the runtime follows a failed ADD with a DEL, and if it does not, the
            // next start finds no veth.
            Event::ReplyLost { .. } | Event::Tick => {}
            Event::PodGone { request, key, meta } => self.pod_gone(now, request, &key, &meta, &mut out),
            Event::InterfaceSeen { facts, evidence } => self.interface_seen(now, &facts, evidence, &mut out),
            Event::InterfacesListed { ids, evidence } => {
                self.interfaces_listed(now, &ids, evidence, &mut out)
            }
            Event::Progress { id, stage } => self.progress(id, stage),
            Event::Stalled {
                id,
                class,
                message,
                retry_at,
            } => {
                let failure = crate::backoff::Failure {
                    class,
                    message,
                    retry_at,
                };
                self.stalled(now.mono, id, &failure);
            }
            Event::Resumed { id } => self.resumed(id),
            Event::ActionDone { id, outcome } => self.action_done(now, id, outcome),
            Event::ActionFailed {
                id,
                class,
                message,
                retry_at,
            } => {
                let failure = crate::backoff::Failure {
                    class,
                    message,
                    retry_at,
                };
                self.action_failed(now, id, &failure, &mut out);
            }
            Event::TargetsChanged(targets) => self.targets = targets,
            Event::SubnetFacts {
                subnet,
                free_addresses,
                free_prefixes,
            } => self.subnet_counted(now, &subnet, free_addresses, free_prefixes),
            Event::CheckpointFailed { keys, released, .. } => self.checkpoint_failed(now, &keys, &released),
            Event::VethSeen { names, pods } => self.veths_seen(now, &names, &pods),
        }
        self.settle(now, &mut out);
        out
    }

    /// Brings the pool to rest: afterwards nothing changes until the next event or [`Pool::next_wake`].
    pub(crate) fn settle(&mut self, now: Now, out: &mut Vec<Action>) {
        self.end_graces(now);
        self.resume(now, out);
        self.serve(now, out);
        self.end_waits(now, out);
        self.size_warm_pool(now);
        // No card is to get addresses for a pod of every card that another card cannot serve.
        if self.cards().nth(1).is_some() {
            self.end_hopeless(now, Cards::Every, out);
        }
        let mut current = plan(self, now);
        for _ in 0..PLANS {
            if current.steps.is_empty() {
                break;
            }
            self.carry_out(&current, now, out);
            current = plan(self, now);
        }
        if self.end_hopeless(now, Cards::Any, out) {
            current = plan(self, now);
        }
        self.wake = self.wake_after(now.mono, &current);
    }

    /// Turns a plan's steps into intents and actions.
    fn carry_out(&mut self, plan: &Plan, now: Now, out: &mut Vec<Action>) {
        for step in &plan.steps {
            match step {
                Step::Create {
                    card,
                    device,
                    subnet,
                    addresses,
                    prefixes,
                } => {
                    let token = client_token(
                        &self.identity.instance_id,
                        &self.identity.token_salt,
                        self.next_id,
                        now.wall_ns,
                    );
                    let create = Create {
                        card: *card,
                        device: *device,
                        subnet: Some(subnet.clone()),
                        groups: self.security_groups(),
                        lies_in: subnet.clone(),
                        addresses: *addresses,
                        prefixes: *prefixes,
                        client_token: token,
                        done: Vec::new(),
                        unsure: false,
                    };
                    self.intend(What::Create(create), now, out);
                }
                Step::Assign { eni, count } => self.assign(now, eni, *count, Kind::Address, out),
                Step::AssignPrefixes { eni, count } => self.assign(now, eni, *count, Kind::Prefix, out),
                Step::AssignIpv6Prefix { eni } => {
                    self.intend(What::AssignIpv6 { eni: eni.clone() }, now, out);
                }
                Step::Release { eni, addresses } => self.give_up(now, eni, addresses, &[], out),
                Step::ReleasePrefixes { eni, prefixes } => self.give_up(now, eni, &[], prefixes, out),
                Step::Delete { eni } => {
                    let by = self.intend(
                        What::Delete {
                            eni: eni.clone(),
                            card: CardIndex(0),
                            device: None,
                        },
                        now,
                        out,
                    );
                    if let Some(interface) = self.interfaces.get_mut(eni) {
                        interface.deleting = Some(by);
                    }
                }
            }
        }
    }

    fn assign(&mut self, now: Now, eni: &EniId, count: u32, kind: Kind, out: &mut Vec<Action>) {
        let eni = eni.clone();
        self.intend(What::Assign { eni, count, kind }, now, out);
    }

    /// Gives addresses or prefixes back to EC2: from now on nobody gets them.
    fn give_up(
        &mut self,
        now: Now,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        prefixes: &[Ipv4Net],
        out: &mut Vec<Action>,
    ) {
        let what = What::Release {
            eni: eni.clone(),
            addresses: addresses.to_vec(),
            prefixes: prefixes.to_vec(),
            unsure: false,
        };
        let by = self.intend(what, now, out);
        if let Some(interface) = self.interfaces.get_mut(eni) {
            let of_prefixes = prefixes.iter().copied().flat_map(crate::prefix::addresses);
            for at in addresses.iter().copied().chain(of_prefixes) {
                if let Some(a) = interface.addresses.get_mut(&at) {
                    a.state = State::Leaving { by };
                }
            }
        }
        self.last_decrease = Some(now.mono);
    }

    fn subnet_counted(&mut self, now: Now, subnet: &SubnetId, addresses: u32, prefixes: Option<u32>) {
        self.left.insert(subnet.clone(), Left { addresses, prefixes });
        self.backoffs.counted(subnet, Kind::Address, addresses, now.mono);
        if let Some(prefixes) = prefixes {
            self.backoffs.counted(subnet, Kind::Prefix, prefixes, now.mono);
        }
    }

    /// Starts again what was paused, and asks EC2 what was to be asked now.
    fn resume(&mut self, now: Now, out: &mut Vec<Action>) {
        let due = |i: &crate::intent::Intent| matches!(i.phase, Phase::Paused(until) if until <= now.mono);
        if self.intents.values().any(due) {
            let ids: Vec<_> = self
                .intents
                .iter()
                .filter(|(_, i)| due(i))
                .map(|(id, _)| *id)
                .collect();
            for id in ids {
                if !self.deletion_waits(id, now.mono) {
                    self.run(id, out);
                }
            }
        }
        if self
            .interfaces
            .values()
            .any(|i| i.verify_at.is_some_and(|at| at <= now.mono))
        {
            let mut ask = Vec::new();
            for interface in self.interfaces.values_mut() {
                if interface.verify_at.is_some_and(|at| at <= now.mono) {
                    interface.verify_at = None;
                    ask.push(interface.id.clone());
                }
            }
            for eni in ask {
                self.describe(now, eni, out);
            }
        }
    }

    /// Does this deletion, which an earlier life began, wait for an owner in doubt or an address that rests? With an owner who is
    /// in no doubt there is none: EC2 is asked instead what is left of the interface.
    fn deletion_waits(&mut self, id: IntentId, now: Mono) -> bool {
        let Some(What::Delete { eni, .. }) = self.intents.get(&id).map(|i| &i.what) else {
            return false;
        };
        let eni = eni.clone();
        let lives_there = |o: &&Owner| o.held.iter().any(|h| h.eni == eni);
        let sure = |o: &Owner| !matches!(o.standing, Standing::Unconfirmed { .. });
        let there: Vec<bool> = self.owners.values().filter(lives_there).map(sure).collect();
        let rests = self.interfaces.get(&eni).into_iter().flat_map(|i| i.kept());
        let rests = rests.filter_map(|a| a.rests_until(now)).max();
        let until = if there.is_empty() { rests } else { self.grace };
        let Some(intent) = self.intents.get_mut(&id) else {
            return false;
        };
        if there.contains(&true) {
            intent.what = What::Describe {
                eni: eni.clone(),
                unsure: 0,
                unsure_prefixes: 0,
                doubt: true,
            };
            if let Some(interface) = self.interfaces.get_mut(&eni) {
                interface.deleting = None;
            }
            return false;
        }
        match until.filter(|at| *at > now) {
            Some(until) => {
                intent.phase = Phase::Paused(until);
                true
            }
            None => false,
        }
    }

    /// The earliest point in time at which something changes by itself.
    fn wake_after(&self, now: Mono, plan: &Plan) -> Option<Mono> {
        let paused = self.intents.values().filter_map(|i| match i.phase {
            Phase::Paused(until) => Some(until),
            Phase::Running(_) => None,
        });
        let verify = self.interfaces.values().filter_map(|i| i.verify_at);
        let asked = self
            .waiting
            .values()
            .flat_map(|w| w.askers.iter().map(|a| a.deadline));
        let cool = if self.waiting.is_empty() {
            None
        } else {
            self.cards().filter_map(|card| self.next_cool(card, now)).min()
        };
        plan.wake
            .into_iter()
            .chain(paused)
            .chain(verify)
            .chain(asked)
            .chain(cool)
            .chain(self.serve_at.filter(|_| !self.waiting.is_empty()))
            .chain(self.grace)
            .chain(self.next_size())
            .min()
            // What is due was done just now; were something left over, it must not make the executor spin.
            .map(|at| at.max(now.plus(std::time::Duration::from_millis(1))))
    }
}
