//! EC2's word about one interface: it adds, and takes away what no pod has.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{EC2_LAG, all_addresses};
use crate::event::InterfaceFacts;
use crate::ids::EniId;
use crate::intent::IntentId;
use crate::interface::{Interface, State};
use crate::journal::Limbo;
use crate::pool::Pool;
use crate::prefix::prefix_around;
use crate::time::{Mono, Now};

impl Pool {
    /// What EC2, asked at `asked_at` or later, says an interface is and has. It may lag behind what an earlier life did of which
    /// there is no record.
    pub(crate) fn described(&mut self, now: Now, asked_at: Mono, facts: &InterfaceFacts) {
        let sure = self.sure_of(&facts.id);
        self.made(now, facts);
        self.doubt_what_is_new(asked_at, &facts.id, &sure);
    }

    /// The addresses of an interface of which it is known for sure that it has them.
    pub(super) fn sure_of(&self, eni: &EniId) -> BTreeSet<Ipv4Addr> {
        let all = self.interfaces.get(eni).into_iter().flat_map(|i| &i.addresses);
        all.filter(|(_, a)| !a.unsure).map(|(at, _)| *at).collect()
    }

    /// After a read that may lag: what nobody has and was not known for `sure` is given to nobody before EC2 was asked again.
    pub(super) fn doubt_what_is_new(&mut self, asked_at: Mono, eni: &EniId, sure: &BTreeSet<Ipv4Addr>) {
        let Some(until) = self.unsure_until.filter(|at| *at > asked_at) else {
            return;
        };
        if self.targets.imds_only {
            return; // It gives nothing back, and asks nobody.
        }
        let earlier = !self.owners.is_empty();
        let Some(interface) = self.interfaces.get_mut(eni).filter(|i| i.managed) else {
            return;
        };
        let mut any = false;
        for (_, a) in interface
            .addresses
            .iter_mut()
            .filter(|(at, _)| !sure.contains(at))
        {
            a.unsure = a.state != State::Owned;
            any |= a.unsure;
        }
        // Nor is it said that nothing is missing, on a node that has lived before.
        if any || earlier || !interface.is_primary {
            interface.verify_at = interface.verify_at.max(Some(until));
        }
        self.changed_state();
    }

    /// What EC2 says an interface is and has, that we made or that nothing of ours can be ahead of.
    pub(crate) fn made(&mut self, now: Now, facts: &InterfaceFacts) {
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
                    (a.disputed, a.unsure) = (false, false);
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

    /// The disputed addresses of an interface.
    pub(crate) fn disputed_of(&self, eni: &EniId) -> Vec<Ipv4Addr> {
        let all = self.interfaces.get(eni).into_iter().flat_map(|i| &i.addresses);
        all.filter(|(_, a)| a.disputed).map(|(at, _)| *at).collect()
    }

    /// A read that may lag listed some of what was `disputed`: that settles nothing. Was it any?
    pub(crate) fn dispute_again(&mut self, eni: &EniId, disputed: &[Ipv4Addr]) -> bool {
        let Some(interface) = self.interfaces.get_mut(eni) else {
            return false;
        };
        let mut any = false;
        for at in disputed {
            if let Some(a) = interface.addresses.get_mut(at).filter(|a| !a.disputed) {
                (a.disputed, any) = (true, true);
            }
        }
        any
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

/// The interface's addresses that facts name.
fn listed(facts: &InterfaceFacts, interface: &Interface) -> BTreeSet<Ipv4Addr> {
    let named: BTreeSet<Ipv4Addr> = all_addresses(facts).collect();
    let held = interface.addresses.keys().copied();
    held.filter(|at| named.contains(at)).collect()
}
