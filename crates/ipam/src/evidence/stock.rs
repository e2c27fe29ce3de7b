//! What lies on an interface: addresses and prefixes come and go.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::MEMORY;
use crate::ids::EniId;
use crate::interface::{Address, State};
use crate::pool::Pool;
use crate::prefix;
use crate::time::Mono;

impl Pool {
    /// The other interface that has this address, as far as is known.
    pub(super) fn elsewhere(&self, eni: &EniId, at: Ipv4Addr) -> Option<EniId> {
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
            let was_unsure = std::mem::take(&mut a.unsure);
            a.disputed = false;
            return was_unsure;
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
}
