//! What others say of our interfaces. IMDS lags: it adds and never takes away. EC2's answer about one interface takes away
//! what no pod has. An owner's address is taken away by nobody.

mod described;
mod stock;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv6Net;

use crate::action::Action;
use crate::event::{Evidence, InterfaceFacts};
use crate::ids::EniId;
use crate::intent::{Intent, IntentId, Phase, What};
use crate::interface::{Interface, State};
use crate::journal::Limbo;
use crate::pool::Pool;
use crate::prefix;
use crate::targets::Mode;
use crate::time::{Mono, Now};

/// IMDS may be this far behind what EC2 answered us.
const IMDS_LAG: Duration = Duration::from_secs(60);
/// EC2's reads may be this far behind its writes.
pub(crate) const EC2_LAG: Duration = Duration::from_secs(10);
/// What was given back is remembered this long: nobody lags more.
const MEMORY: Duration = Duration::from_secs(600);
/// What others bring us may have been asked this long ago: as long as a call may take.
const CALL: Duration = Duration::from_secs(10);

impl Pool {
    pub(crate) fn interface_seen(
        &mut self,
        now: Now,
        facts: &InterfaceFacts,
        evidence: Evidence,
        out: &mut Vec<Action>,
    ) {
        let making = self.intents.iter().find(|(_, i)| match &i.what {
            What::Create(c) => match c.created() {
                Some(eni) => *eni == facts.id,
                None => (c.card, c.device) == (facts.card, facts.device),
            },
            _ => false,
        });
        if let Some(id) = making.map(|(id, _)| *id) {
            // It is used once its executor reports it ready, not before its link is there; unless a pod that the earlier
            // life did not tell the journal of has an address of it and of nothing else: then it was ready.
            let orphan = |at: Ipv4Addr| {
                self.by_address.contains_key(&IpAddr::V4(at)) && self.elsewhere(&facts.id, at).is_none()
            };
            if self.deleted.contains_key(&facts.id) || !all_addresses(facts).any(orphan) {
                return;
            }
            self.intents.remove(&id);
        }
        match evidence {
            Evidence::Imds if self.targets.imds_only => self.made(now, facts),
            Evidence::Ec2 if self.may_be_deleted(&facts.id, asked_at(now)) => {}
            Evidence::Ec2 => self.described(now, asked_at(now), facts),
            Evidence::Imds => self.listed_by_imds(now, facts, out),
        }
    }

    /// A read that may lag lists what was deleted a moment ago. Whether it is there after all is asked when none can lag.
    fn may_be_deleted(&mut self, eni: &EniId, asked_at: Mono) -> bool {
        let clear_at = self.deleted.get(eni).map(|at| at.plus(EC2_LAG));
        let Some(clear_at) = clear_at.filter(|at| *at > asked_at) else {
            return false;
        };
        if !self.intents.values().any(|i| i.eni() == Some(eni)) {
            let id = IntentId(self.fresh_id());
            let what = What::Describe {
                eni: eni.clone(),
                unsure: 0,
                unsure_prefixes: 0,
                doubt: false,
            };
            let intent = Intent {
                what,
                since: clear_at,
                phase: Phase::Paused(clear_at),
                trouble: None,
            };
            self.intents.insert(id, intent);
            self.changed_state();
        }
        true
    }

    /// An interface that is being deleted is no place for pods, whoever shows it, whether or not it was known before.
    pub(crate) fn going(&self, eni: &EniId) -> bool {
        self.intents
            .values()
            .any(|i| matches!(&i.what, What::Delete { eni: e, .. } if e == eni))
    }

    fn listed_by_imds(&mut self, now: Now, facts: &InterfaceFacts, out: &mut Vec<Action>) {
        if self.going(&facts.id) {
            return;
        }
        if let Some(at) = self.deleted.get(&facts.id) {
            if now.mono.since(*at) >= IMDS_LAG {
                self.describe(now, facts.id.clone(), out);
            }
            return;
        }
        // Shortly after we met it, it may still list what was given back before that, which nobody remembers.
        let new = !self.interfaces.contains_key(&facts.id);
        if new && self.listed_at.is_some_and(|at| now.mono.since(at) < IMDS_LAG) {
            self.describe(now, facts.id.clone(), out);
            return;
        }
        let sure = self.sure_of(&facts.id);
        self.place(now, facts);
        let Some(interface) = self.interfaces.get(&facts.id) else {
            return;
        };
        let doubtful = !new && now.mono.since(interface.since) < IMDS_LAG;
        let fresh = interface.sure_at.is_some_and(|at| now.mono.since(at) < IMDS_LAG);
        let misses = interface
            .addresses
            .iter()
            .any(|(at, a)| a.counts() && !lists(facts, interface, *at));
        let mut ask = misses && !fresh;
        let lagging = |gone: &Mono| now.mono.since(*gone) < IMDS_LAG;
        let mut add = Vec::new();
        for at in &facts.addresses {
            match interface.departed.get(at) {
                _ if interface.addresses.contains_key(at) => {}
                Some(gone) if lagging(gone) => {}
                Some(_) => ask = true,
                None if doubtful => ask = true,
                None if self.elsewhere(&facts.id, *at).is_some() => ask = true,
                None => add.push(*at),
            }
        }
        // Nobody else counts on a /80: where none is asked for its absence is no news.
        let ipv6 = self.targets.mode == Mode::Ipv6;
        let unlisted = |p: &Ipv6Net| !facts.ipv6_prefixes.contains(p);
        ask |= ipv6 && !fresh && interface.ipv6_prefixes.iter().any(unlisted);
        let mut add_prefixes = Vec::new();
        for prefix in &facts.prefixes {
            let elsewhere = |at| self.elsewhere(&facts.id, at).is_some();
            match interface.departed_prefixes.get(prefix) {
                _ if interface.prefixes.contains(prefix) => {}
                Some(gone) if lagging(gone) => {}
                Some(_) => ask = true,
                None if doubtful => ask = true,
                None if prefix::addresses(*prefix).any(elsewhere) => ask = true,
                None => add_prefixes.push(*prefix),
            }
        }
        for at in add {
            self.add_address(now.mono, &facts.id, at);
        }
        for prefix in add_prefixes {
            self.add_prefix(now.mono, &facts.id, prefix);
        }
        for prefix in &facts.ipv6_prefixes {
            self.add_ipv6_prefix(&facts.id, *prefix);
        }
        self.doubt_what_is_new(asked_at(now), &facts.id, &sure);
        if ask {
            self.describe(now, facts.id.clone(), out);
        }
    }

    /// EC2 does not know the interface: forgotten, its owners kept.
    pub(crate) fn forget(&mut self, now: Now, eni: &EniId) {
        if self.interfaces.get(eni).is_some_and(|i| i.is_primary) {
            return; // An instance always has it: such an answer is EC2's error.
        }
        if let Some(interface) = self.interfaces.remove(eni) {
            let v4 = interface.addresses.into_iter().map(|(at, a)| (IpAddr::V4(at), a));
            let v6 = interface.ipv6.into_iter().map(|(at, a)| (IpAddr::V6(at), a));
            for (at, address) in v4.chain(v6) {
                if let (State::Cooling { until }, Some(last)) = (address.state, address.last) {
                    self.limbo.insert(at, Limbo { until, last: *last });
                }
            }
        }
        self.intents.retain(|_, i| i.eni() != Some(eni));
        self.deleted.insert(eni.clone(), now.mono);
        self.deleted.retain(|_, at| now.mono.since(*at) < MEMORY);
        self.changed_state();
    }

    pub(crate) fn interfaces_listed(
        &mut self,
        now: Now,
        ids: &[EniId],
        _evidence: Evidence,
        out: &mut Vec<Action>,
    ) {
        if !self.listed {
            self.listed = true;
            self.listed_at = Some(now.mono);
        }
        let missing = |i: &&Interface| {
            let fresh = i.sure_at.is_some_and(|at| now.mono.since(at) < IMDS_LAG);
            i.deleting.is_none() && !fresh && !ids.contains(&i.id)
        };
        let ask: Vec<EniId> = self
            .interfaces
            .values()
            .filter(missing)
            .map(|i| i.id.clone())
            .collect();
        for eni in ask {
            if self.targets.imds_only {
                self.forget(now, &eni);
            } else {
                self.describe(now, eni, out);
            }
        }
    }

    /// Has EC2 asked about an interface, unless it is being asked already.
    pub(crate) fn describe(&mut self, now: Now, eni: EniId, out: &mut Vec<Action>) {
        let asked = |w: &What| matches!(w, What::Describe { eni: e, .. } if *e == eni);
        if self.targets.imds_only {
            return; // The next look at IMDS tells.
        }
        if !self.intents.values().any(|i| asked(&i.what)) {
            self.intend(
                What::Describe {
                    eni,
                    unsure: 0,
                    unsure_prefixes: 0,
                    doubt: false,
                },
                now,
                out,
            );
        }
    }

    /// Knows an interface from now on, or knows its place anew.
    pub(crate) fn place(&mut self, now: Now, facts: &InterfaceFacts) {
        let before = self.interfaces.get(&facts.id);
        let moved = before.is_none_or(|i| (i.card, i.device) != (facts.card, facts.device));
        let changed = before.is_none_or(|i| {
            let same = (i.managed, i.kind, i.subnet_cidr, i.own_table)
                == (facts.managed, facts.kind, facts.subnet_cidr, facts.table);
            moved || !same
        });
        let interface = self
            .interfaces
            .entry(facts.id.clone())
            .or_insert_with(|| Interface::new(facts, now.mono));
        if changed {
            interface.device = facts.device;
            interface.card = facts.card;
            interface.managed = facts.managed;
            interface.kind = facts.kind;
            interface.subnet_cidr = facts.subnet_cidr;
            interface.own_table = facts.table;
            let table = interface.table();
            let of_owners = self
                .owners
                .values_mut()
                .flat_map(|o| &mut o.held)
                .filter(|h| h.eni == facts.id);
            for held in of_owners.filter(|_| moved) {
                (held.device, held.card, held.table) = (facts.device, facts.card, table);
            }
            self.changed_state();
        }
        // Its own address is never a pod's, whoever claims it was.
        let own = facts.primary_address;
        for other in self.interfaces.values_mut() {
            other
                .addresses
                .retain(|at, a| *at != own || a.state == State::Owned);
        }
    }
}

/// When a list that is brought now was asked for, at the earliest.
fn asked_at(now: Now) -> Mono {
    let call = u64::try_from(CALL.as_millis()).unwrap_or(u64::MAX);
    Mono(now.mono.0.saturating_sub(call))
}

/// Every address that facts name, those of prefixes among them.
fn all_addresses(facts: &InterfaceFacts) -> impl Iterator<Item = Ipv4Addr> + '_ {
    let prefixes = facts.prefixes.iter().copied().filter(|p| prefix::is_usable(*p));
    let singles = facts.addresses.iter().copied();
    singles.chain(prefixes.flat_map(prefix::addresses))
}

fn lists(facts: &InterfaceFacts, interface: &Interface, at: Ipv4Addr) -> bool {
    facts.addresses.contains(&at)
        || interface
            .prefix_of(at)
            .is_some_and(|p| facts.prefixes.contains(&p))
}
