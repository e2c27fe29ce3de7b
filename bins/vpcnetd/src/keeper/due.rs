//! What is to be looked at, and when. Pure: time comes in as a value.
//!
//! The first edit of a place is looked at a few milliseconds later, so that all of one transaction is seen at once. Who
//! has what he deletes put back at once, and again, would fight with us as fast as both can; so after a few repairs in a
//! row a place is left alone for a while, which doubles.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use vpcnet_linux::host::{ENI_RULE, MARK_RULE, SERVICE_RULE};
use vpcnet_linux::netlink::{MAIN, Route};
use vpcnet_linux::pod::{FROM_POD_RULE, TO_POD_RULE};
use vpcnet_linux::watch::Event;

/// From the first edit to the look at it.
const GATHER: Duration = Duration::from_millis(5);
/// This many repairs in a row are made at once.
const PATIENCE: u32 = 5;
/// First and longest pause in a fight.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Who leaves a place alone this long has ended the fight.
const PEACE: Duration = Duration::from_secs(120);

/// Part of the kernel's state that is looked at as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    /// Links, addresses, routes, rules and parameters of the node's interfaces.
    Host,
    /// Our nftables table.
    Table,
    /// The nftables tables of pods' egress.
    Egress,
    /// The route and rules of a pod's address.
    Pod(IpAddr),
    /// Whether its route, which somebody wrote, leads to the pod: every ADD writes one, so this look has to be a quick one.
    Way(IpAddr),
    /// Those of all pods.
    AllPods,
}

impl Place {
    /// Value of a metric's label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Table => "nftables",
            Self::Egress => "egress",
            Self::Pod(_) | Self::Way(_) | Self::AllPods => "pod",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the network of the node's interfaces"),
            Self::Table => f.write_str("nftables table ip vpcnet"),
            Self::Egress => f.write_str("nftables table vpcnet_egress"),
            Self::Pod(address) | Self::Way(address) => {
                write!(f, "the route and rules of pod address {address}")
            }
            Self::AllPods => f.write_str("the routes and rules of pods"),
        }
    }
}

/// Which interfaces are ours, as far as telling whether an edit concerns them takes.
pub(super) trait Ours {
    /// Whether a link with this MAC is one of the node's interfaces.
    fn has_mac(&self, mac: vpcnet_linux::Mac) -> bool;
    /// Whether one of them uses this routing table.
    fn has_table(&self, table: u32) -> bool;
    /// The index of the primary interface's link, once known.
    fn primary(&self) -> Option<u32>;
}

/// The place an edit may concern.
pub(super) fn place_of(event: &Event, ours: &impl Ours) -> Vec<Place> {
    match event {
        Event::Link(link) => one(Place::Host, link.mac.is_some_and(|mac| ours.has_mac(mac))),
        // Pods' links have no other addresses in the node, so these are few.
        Event::Address { address, .. } => one(Place::Host, !is_made_by_the_kernel(address.net.addr())),
        Event::Route { route, gone } if route.table == MAIN => {
            let place = if *gone { Place::Pod } else { Place::Way };
            host_route(route).map(place).into_iter().collect()
        }
        Event::Route { route, .. } => one(Place::Host, ours.has_table(route.table)),
        Event::Rule { gone: false, .. } => Vec::new(),
        Event::Rule { rule, .. } => match rule.priority {
            TO_POD_RULE => rule.to.map(|net| Place::Pod(net.addr())).into_iter().collect(),
            FROM_POD_RULE => rule.from.map(|net| Place::Pod(net.addr())).into_iter().collect(),
            MARK_RULE | SERVICE_RULE | ENI_RULE => vec![Place::Host],
            _ => Vec::new(),
        },
        Event::Parameter { index } => one(Place::Host, index.is_none() || *index == ours.primary()),
        Event::Overrun => vec![Place::Host, Place::AllPods],
    }
}

fn one(place: Place, concerned: bool) -> Vec<Place> {
    concerned.then_some(place).into_iter().collect()
}

/// With IPv6 each link has such an address, which comes and goes with it.
fn is_made_by_the_kernel(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn host_route(route: &Route) -> Option<IpAddr> {
    (route.to == IpNet::from(route.to.addr())).then(|| route.to.addr())
}

/// Repairs of one place, one after the other.
#[derive(Debug)]
struct Fight {
    repairs: u32,
    last: Instant,
}

impl Fight {
    /// From a repair to the next.
    fn pause(&self) -> Duration {
        let over = self.repairs.saturating_sub(PATIENCE);
        if over == 0 {
            return Duration::ZERO;
        }
        let factor = 1_u32.checked_shl(over - 1).unwrap_or(u32::MAX);
        PAUSE.0.saturating_mul(factor).min(PAUSE.1)
    }
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// When, and whose edit it was, as far as known.
    looks: BTreeMap<Place, (Instant, Option<String>)>,
    fights: BTreeMap<Place, Fight>,
}

impl Due {
    /// Somebody edited a place.
    pub(super) fn edited(&mut self, place: Place, by: Option<String>, now: Instant) {
        let earliest = self.fights.get(&place).map(|f| f.last + f.pause());
        let at = earliest.map_or(now + GATHER, |earliest| earliest.max(now + GATHER));
        let look = self.looks.entry(place).or_insert((at, None));
        look.0 = look.0.min(at);
        // The last one known is the likeliest.
        look.1 = by.or(look.1.take());
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.looks.values().map(|(at, _)| *at).min()
    }

    /// A place whose look is due, and the suspect.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Place, Option<String>)> {
        let place = *self.looks.iter().find(|(_, (at, _))| *at <= now)?.0;
        let (_, by) = self.looks.remove(&place)?;
        Some((place, by))
    }

    /// A place had to be repaired, or could not be. Returns the pause before the next repair, if somebody keeps at it.
    pub(super) fn repaired(&mut self, place: Place, now: Instant) -> Option<Duration> {
        self.fights
            .retain(|_, f| now.saturating_duration_since(f.last) < PEACE);
        let fight = self.fights.entry(place).or_insert(Fight {
            repairs: 0,
            last: now,
        });
        fight.repairs = fight.repairs.saturating_add(1);
        fight.last = now;
        Some(fight.pause()).filter(|pause| !pause.is_zero())
    }

    /// Looks at a place again, though nobody touched it.
    pub(super) fn again(&mut self, place: Place, at: Instant) {
        self.looks.entry(place).or_insert((at, None));
    }

    /// The places that are fought over now.
    pub(super) fn contested(&self, now: Instant) -> Vec<Place> {
        self.fights
            .iter()
            .filter(|(_, f)| !f.pause().is_zero() && now.saturating_duration_since(f.last) < PEACE)
            .map(|(place, _)| *place)
            .collect()
    }
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
