//! What others say of our interfaces. IMDS lags: it adds and never takes away. EC2's answer about one interface takes away
//! what no pod has. An owner's address is taken away by nobody.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::action::Action;
use crate::event::{Evidence, InterfaceFacts};
use crate::ids::EniId;
use crate::intent::{IntentId, What};
use crate::interface::{Address, Interface, State};
use crate::journal::Limbo;
use crate::pool::Pool;
use crate::prefix::{self, prefix_around};
use crate::targets::Mode;
use crate::time::{Mono, Now};

/// IMDS may be this far behind what EC2 answered us.
const IMDS_LAG: Duration = Duration::from_secs(60);
/// EC2's reads may be this far behind its writes.
pub(crate) const EC2_LAG: Duration = Duration::from_secs(10);
/// What was given back is remembered this long: nobody lags more.
const MEMORY: Duration = Duration::from_secs(600);

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
            Evidence::Imds if self.targets.imds_only => self.described(now, facts),
            Evidence::Ec2 => self.described(now, facts),
            Evidence::Imds => self.listed_by_imds(now, facts, out),
        }
    }

    /// An interface that is being deleted is no place for pods, whoever shows it, whether or not it was known before.
    fn going(&self, eni: &EniId) -> bool {
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
        if ask {
            self.describe(now, facts.id.clone(), out);
        }
    }

    /// What EC2 says an interface is and has.
    pub(crate) fn described(&mut self, now: Now, facts: &InterfaceFacts) {
        if self.going(&facts.id) {
            return;
        }
        self.deleted.remove(&facts.id);
        self.place(now, facts);
        let mut verify_at = None;
        for at in &facts.addresses {
            let gone = self
                .interfaces
                .get(&facts.id)
                .and_then(|i| i.departed.get(at))
                .copied();
            match gone {
                Some(gone) if now.mono.since(gone) < EC2_LAG => verify_at = Some(gone.plus(EC2_LAG)),
                _ => {
                    self.add_address(now.mono, &facts.id, *at);
                }
            }
        }
        for prefix in &facts.prefixes {
            let place = self.interfaces.get(&facts.id);
            let gone = place.and_then(|i| i.departed_prefixes.get(prefix)).copied();
            match gone {
                Some(gone) if now.mono.since(gone) < EC2_LAG => {
                    verify_at = verify_at.max(Some(gone.plus(EC2_LAG)))
                }
                _ => {
                    self.add_prefix(now.mono, &facts.id, *prefix);
                }
            }
        }
        for prefix in &facts.ipv6_prefixes {
            self.add_ipv6_prefix(&facts.id, *prefix);
        }
        let Some(interface) = self.interfaces.get_mut(&facts.id) else {
            return;
        };
        let listed = listed(facts, interface);
        let sure_until = interface
            .sure_at
            .map(|at| at.plus(EC2_LAG))
            .filter(|at| *at > now.mono);
        let mut cooling = Vec::new();
        interface.addresses.retain(|at, a| {
            let there = listed.contains(at);
            match a.state {
                State::Owned => {
                    a.disputed = !there;
                    true
                }
                // Its release settles it.
                State::Leaving { .. } => true,
                State::Free { .. } | State::Cooling { .. } if there => {
                    a.disputed = false;
                    true
                }
                // A read that lags behind our own write: asked again when it no longer can.
                State::Free { .. } | State::Cooling { .. } if sure_until.is_some() => {
                    verify_at = verify_at.max(sure_until);
                    true
                }
                // Should another interface of ours have it, it goes on cooling there.
                State::Cooling { until } => {
                    cooling.extend(a.last.take().map(|last| (*at, Limbo { until, last: *last })));
                    false
                }
                State::Free { .. } => false,
            }
        });
        if let Some(until) = described_ipv6(interface, facts, sure_until) {
            verify_at = verify_at.max(Some(until));
        }
        // A prefix stays as long as anything of it does.
        let left: BTreeSet<Ipv4Net> = interface.addresses.keys().map(|at| prefix_around(*at)).collect();
        interface
            .prefixes
            .retain(|p| facts.prefixes.contains(p) || left.contains(p));
        if verify_at.is_some() {
            interface.verify_at = verify_at;
        }
        let cooling = cooling.into_iter().map(|(at, limbo)| (IpAddr::V4(at), limbo));
        self.limbo.extend(cooling);
        self.changed_state();
    }

    /// When it will be clear whether what is listed and was given back a moment ago is there.
    pub(crate) fn unclear_until(&self, now: Now, facts: &InterfaceFacts) -> Option<Mono> {
        let interface = self.interfaces.get(&facts.id)?;
        let addresses = facts.addresses.iter().filter_map(|at| interface.departed.get(at));
        let prefixes = facts
            .prefixes
            .iter()
            .filter_map(|p| interface.departed_prefixes.get(p));
        let clear_at = addresses.chain(prefixes).map(|gone| gone.plus(EC2_LAG));
        clear_at.filter(|at| *at > now.mono).max()
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

    /// The other interface that has this address, as far as is known.
    fn elsewhere(&self, eni: &EniId, at: Ipv4Addr) -> Option<EniId> {
        self.interfaces
            .values()
            .find(|i| i.id != *eni && i.addresses.contains_key(&at))
            .map(|i| i.id.clone())
    }

    /// Puts an address on an interface. True if it is new there.
    pub(crate) fn add_address(&mut self, now: Mono, eni: &EniId, at: Ipv4Addr) -> bool {
        if self
            .interfaces
            .values()
            .any(|i| i.primary_address == at && i.deleting.is_none())
        {
            return false;
        }
        let mut before = None;
        if let Some(other) = self.elsewhere(eni, at) {
            let Some(other) = self.interfaces.get_mut(&other) else {
                return false;
            };
            if let Some(a) = other.addresses.get_mut(&at)
                && a.state == State::Owned
            {
                a.disputed = true; // The pod's routes lead to the other interface.
                return false;
            }
            before = other.addresses.remove(&at);
        }
        let Some(interface) = self.interfaces.get_mut(eni) else {
            return false;
        };
        interface.departed.remove(&at);
        if let Some(a) = interface.addresses.get_mut(&at) {
            a.disputed = false;
            return false;
        }
        let mut address = Address::free(now);
        if let Some(key) = self.by_address.get(&IpAddr::V4(at)) {
            address.state = State::Owned;
            let (device, card, table) = (interface.device, interface.card, interface.table());
            if let Some(owner) = self.owners.get_mut(key) {
                for held in owner.held.iter_mut().filter(|h| h.address == IpAddr::V4(at)) {
                    (held.eni, held.device, held.card, held.table) = (eni.clone(), device, card, table);
                }
                owner.sort();
            }
        } else if let Some(limbo) = self.limbo.remove(&IpAddr::V4(at)) {
            address.state = State::Cooling { until: limbo.until };
            address.last = Some(Box::new(limbo.last));
        } else if let Some(before) = before.filter(|a| a.cooling_until(now).is_some()) {
            // Wherever it lies, it was a pod's a moment ago.
            (address.state, address.last) = (before.state, before.last);
        }
        interface.addresses.insert(at, address);
        self.changed_state();
        true
    }

    /// Puts a prefix on an interface. How many of its addresses are new there.
    pub(crate) fn add_prefix(&mut self, now: Mono, eni: &EniId, prefix: Ipv4Net) -> usize {
        let Some(interface) = self.interfaces.get_mut(eni) else {
            return 0;
        };
        interface.departed_prefixes.remove(&prefix);
        if interface.prefixes.insert(prefix) {
            self.changed_state();
        }
        if !prefix::is_usable(prefix) {
            return 0; // EC2 has none; it takes room and gives nothing.
        }
        prefix::addresses(prefix)
            .filter(|at| self.add_address(now, eni, *at))
            .count()
    }

    /// What EC2 took back from us.
    pub(crate) fn departed(&mut self, now: Mono, eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[Ipv4Net]) {
        let Some(interface) = self.interfaces.get_mut(eni) else {
            return;
        };
        interface.departed.retain(|_, at| now.since(*at) < MEMORY);
        interface
            .departed_prefixes
            .retain(|_, at| now.since(*at) < MEMORY);
        for at in addresses {
            interface.addresses.remove(at);
            interface.departed.insert(*at, now);
        }
        for net in prefixes {
            for at in prefix::addresses(*net) {
                interface.addresses.remove(&at);
            }
            interface.prefixes.remove(net);
            interface.departed_prefixes.insert(*net, now);
        }
        interface.sure_at = Some(now);
        self.changed_state();
    }

    /// Is any of it being given back?
    pub(crate) fn is_leaving(&self, eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[Ipv4Net]) -> bool {
        let Some(interface) = self.interfaces.get(eni) else {
            return false;
        };
        let of_prefixes = prefixes.iter().copied().flat_map(prefix::addresses);
        let mut all = addresses.iter().copied().chain(of_prefixes);
        all.any(|at| interface.addresses.get(&at).is_some_and(|a| !a.counts()))
    }

    /// Do facts name something that is leaving by this intent?
    pub(crate) fn lists_leaving(&self, eni: &EniId, by: IntentId, facts: &InterfaceFacts) -> bool {
        let Some(interface) = self.interfaces.get(eni) else {
            return false;
        };
        let there = listed(facts, interface);
        let leaving = |at: &Ipv4Addr| {
            let a = interface.addresses.get(at);
            a.is_some_and(|a| a.state == (State::Leaving { by }))
        };
        there.iter().any(leaving)
    }

    /// What becomes of that whose release had an unknown effect, now that EC2 said what the interface has.
    pub(crate) fn settle_leaving(&mut self, now: Mono, eni: &EniId, by: IntentId, facts: &InterfaceFacts) {
        let Some(interface) = self.interfaces.get_mut(eni) else {
            return;
        };
        let there = listed(facts, interface);
        let (mut gone, mut gone_prefixes) = (Vec::new(), BTreeSet::new());
        let prefixes = &interface.prefixes;
        for (at, a) in &mut interface.addresses {
            if a.state == (State::Leaving { by }) {
                if there.contains(at) {
                    a.state = State::Free { since: now };
                } else if prefixes.contains(&prefix_around(*at)) {
                    gone_prefixes.insert(prefix_around(*at));
                } else {
                    gone.push(*at);
                }
            }
        }
        let gone_prefixes: Vec<Ipv4Net> = gone_prefixes.into_iter().collect();
        if !gone.is_empty() || !gone_prefixes.is_empty() {
            self.departed(now, eni, &gone, &gone_prefixes);
        }
    }
}

/// What EC2 says of an interface's /80s. Returns when it is to be asked again, if it may not have noticed yet.
fn described_ipv6(
    interface: &mut Interface,
    facts: &InterfaceFacts,
    sure_until: Option<Mono>,
) -> Option<Mono> {
    let unlisted = |p: &Ipv6Net| !facts.ipv6_prefixes.contains(p);
    if interface.ipv6_prefixes.iter().any(unlisted) && sure_until.is_some() {
        return sure_until;
    }
    interface
        .ipv6_prefixes
        .retain(|p| facts.ipv6_prefixes.contains(p));
    interface.ipv6.retain(|at, a| {
        let there = facts.ipv6_prefixes.iter().any(|p| p.contains(at));
        a.disputed = !there;
        there || a.state == State::Owned
    });
    None
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

/// The interface's addresses that facts name.
fn listed(facts: &InterfaceFacts, interface: &Interface) -> BTreeSet<Ipv4Addr> {
    let named: BTreeSet<Ipv4Addr> = all_addresses(facts).collect();
    let held = interface.addresses.keys().copied();
    held.filter(|at| named.contains(at)).collect()
}
