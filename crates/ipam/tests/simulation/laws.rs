//! The laws: what is checked at each step, at each order and call, and in full every thousand steps.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use vpcnet_ipam::{Action, InterfaceFacts, Lease, MIGRATED_NETWORK};
use vpcnet_lab::model as ec2;

use super::world::World;

/// In full after so many steps.
const FULLY: u64 = 1_000;

fn addresses_of(i: &ec2::Interface) -> impl Iterator<Item = IpAddr> + '_ {
    i.secondary
        .iter()
        .copied()
        .chain(i.prefixes.iter().flat_map(|p| block(*p)))
        .map(IpAddr::V4)
}

fn block(prefix: ipnet::Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let first = prefix.network().to_bits();
    (first..first + 16).map(Ipv4Addr::from_bits)
}

impl World {
    /// After each event: the agent knows of every address that a pod of its node uses, and wants no wake that has passed.
    pub(crate) fn check_step(&mut self, n: usize) {
        let Some(life) = &self.nodes[n].life else { return };
        let now = self.now(n).mono;
        if life.pool.next_wake().is_some_and(|at| at <= now) {
            return self.wrong(
                "a wake lies ahead",
                format!("node {n}: {:?} at {now:?}", life.pool.next_wake()),
            );
        }
        for (at, (node, sandbox)) in &self.live {
            if *node != n {
                continue;
            }
            let Some(s) = self.nodes[n].sandboxes.get(sandbox) else {
                continue;
            };
            let holder = life.pool.holder(*at);
            if holder.is_some_and(|key| *key == s.key || key.network == MIGRATED_NETWORK) {
                continue;
            }
            let detail = format!(
                "node {n}: {at} is used by {}; for the agent it is {holder:?}",
                s.key
            );
            return self.wrong("an address in use has its owner", detail);
        }
    }

    /// A sandbox is told its addresses.
    pub(crate) fn check_grant(&mut self, n: usize, sandbox: u32, leases: &[Lease], every: bool) {
        let mut cards: Vec<_> = leases.iter().map(|l| l.card).collect();
        cards.sort_unstable();
        if (every && cards != self.managed_cards(n)) || (!every && cards.len() != 1) {
            let detail = format!("node {n}: every: {every}, given of {cards:?}");
            self.wrong("as many addresses as were asked for", detail);
        }
        for lease in leases {
            let at = lease.address;
            if let Some((other, who)) = self.live.get(&at).copied().filter(|user| *user != (n, sandbox)) {
                let detail = format!(
                    "{at}: sandbox {who} of node {other} uses it, sandbox {sandbox} of node {n} gets it"
                );
                return self.wrong("one owner at most", detail);
            }
            let pulled = self.unrecorded.contains(&ec2::EniId(lease.eni.0.clone()));
            if self.robbed.contains(&at) || pulled {
                continue;
            }
            let now = self.at;
            if let Some(until) = self.rests.get(&(n, at)).filter(|until| **until > now) {
                let detail = format!("node {n}: {at} rests until {until} and is given at {now}");
                return self.wrong("an address rests after its pod", detail);
            }
            let IpAddr::V4(v4) = at else { continue };
            let owner = self.vpc.owner_now(v4);
            let place = owner.and_then(|eni| self.vpc.interface_now(eni)).filter(|i| {
                i.id.as_str() == lease.eni.0
                    && !matches!(
                        i.status,
                        ec2::InterfaceStatus::Available | ec2::InterfaceStatus::Detaching
                    )
                    && i.attachment
                        .as_ref()
                        .is_some_and(|a| a.instance == self.nodes[n].instance)
                    && i.primary != Some(v4)
            });
            if place.is_none() {
                let detail = format!(
                    "node {n}: {at} is given as one of {}, EC2 has it on {owner:?}",
                    lease.eni
                );
                return self.wrong("an owner's address is on its interface", detail);
            }
        }
    }

    /// A sandbox gave these back.
    pub(crate) fn rest(&mut self, n: usize, leases: &[Lease]) {
        let cooldown = u64::try_from(self.nodes[n].targets.cooldown.as_millis()).unwrap();
        let until = self.at + cooldown;
        if let Some(life) = &mut self.nodes[n].life {
            life.resting.extend(leases.iter().map(|l| (l.address, until)));
        }
    }

    /// Something is ordered.
    pub(crate) fn check_order(&mut self, n: usize, order: &Action) {
        let Some(life) = &self.nodes[n].life else { return };
        let (addresses, eni): (Vec<Ipv4Addr>, _) = match order {
            Action::ReleaseAddresses { addresses, eni, .. } => (addresses.clone(), eni),
            Action::ReleasePrefixes { prefixes, eni, .. } => {
                (prefixes.iter().flat_map(|p| block(*p)).collect(), eni)
            }
            _ => return,
        };
        let owned = addresses
            .iter()
            .find(|at| life.pool.holder(IpAddr::V4(**at)).is_some());
        if let Some(at) = owned {
            self.wrong(
                "nothing in use is given back",
                format!("node {n} orders the release of {at} of {eni}"),
            );
        }
    }

    /// A call is about to be made by a node's agent.
    pub(crate) fn check_call(&mut self, n: usize, request: &ec2::Request) {
        let eni = match request {
            ec2::Request::UnassignPrivateIpAddresses { eni, .. }
            | ec2::Request::DeleteNetworkInterface(eni) => eni.clone(),
            ec2::Request::DetachNetworkInterface { attachment, .. } => {
                let is = |i: &&std::sync::Arc<ec2::Interface>| {
                    i.attachment.as_ref().is_some_and(|a| a.id == *attachment)
                };
                match self.vpc.interfaces_now().find(is) {
                    Some(i) => i.id.clone(),
                    None => return,
                }
            }
            _ => return,
        };
        let Some(there) = self.vpc.interface_now(&eni).cloned() else {
            return;
        };
        let mut going: BTreeSet<IpAddr> = addresses_of(&there).collect();
        if let ec2::Request::UnassignPrivateIpAddresses {
            addresses, prefixes, ..
        } = request
        {
            let named = addresses
                .iter()
                .copied()
                .chain(prefixes.iter().flat_map(|p| block(*p)));
            let named: BTreeSet<IpAddr> = named.map(IpAddr::V4).collect();
            going.retain(|at| named.contains(at));
        }
        for at in going {
            if let Some((node, sandbox)) = self.live.get(&at) {
                let detail = format!(
                    "node {n}: {} of {eni}: {at} is used by sandbox {sandbox} of node {node}",
                    request.action()
                );
                return self.wrong("nothing in use is given back", detail);
            }
            // What was taken from us EC2 gave to whom it would: to an interface in the making too, of which nobody has said what it
            // has before it is attached.
            if self.robbed.contains(&at) {
                continue;
            }
            let now = self.at;
            if let Some(until) = self.rests.get(&(n, at)).filter(|until| **until > now) {
                let detail = format!(
                    "node {n}: {} of {eni}: {at} rests until {until}, it is {now}",
                    request.action()
                );
                return self.wrong("an address rests after its pod", detail);
            }
        }
    }

    /// In full, when it is time.
    pub(crate) fn check_sometimes(&mut self) {
        if self.steps >= self.checked_at + FULLY && self.broken.is_none() {
            self.checked_at = self.steps;
            self.check_fully();
        }
    }

    pub(crate) fn check_fully(&mut self) {
        if let Some(broken) = self.vpc.check().into_iter().next() {
            return self.wrong("the model is sound", broken);
        }
        for n in 0..self.nodes.len() {
            if let Some((law, detail)) = self.unexplained(n, false) {
                return self.wrong(law, detail);
            }
        }
    }

    /// Conservation: what EC2 has for a node is what its agent knows. Unless all is `still`, what a call under way or a doubt that
    /// is on record explains is well.
    pub(crate) fn unexplained(&self, n: usize, still: bool) -> Option<(&'static str, String)> {
        let node = &self.nodes[n];
        let life = node.life.as_ref().filter(|_| !node.gone)?;
        if node.meddled && !still {
            return None;
        }
        let journal = serde_json::to_value(life.pool.journal()).unwrap();
        let intents = journal["intents"].to_string();
        let unmade = intents.contains("\"done\":[]");
        let explained = |eni: &str| {
            let doubted = || !journal["interfaces"][eni]["verify_at"].is_null();
            !still && (intents.contains(eni) || doubted())
        };
        let known: Vec<InterfaceFacts> = life.pool.interfaces().collect();
        let ours = |i: &&std::sync::Arc<ec2::Interface>| {
            let here = i.attachment.as_ref().filter(|a| a.instance == node.instance);
            here.is_some_and(|a| (a.card, a.device_index) == (0, 0))
                || i.tags
                    .get(super::calls::INSTANCE_TAG)
                    .is_some_and(|t| t == node.instance.as_str())
        };
        for i in self.vpc.interfaces_now().filter(ours) {
            let here = i.linked().is_some_and(|a| a.instance == node.instance);
            match known.iter().find(|k| k.id.0 == i.id.0) {
                Some(k) if here => {
                    // What was taken from a pod stays the pod's, wherever EC2 has it now; so does what a sandbox is thought to have
                    // that nobody is in any more.
                    let kept = |at: &&Ipv4Addr| {
                        let at = IpAddr::V4(**at);
                        let used = self.live.contains_key(&at) && !self.robbed.contains(&at);
                        used || life.pool.holder(at).is_none()
                    };
                    let addresses =
                        |all: &[Ipv4Addr]| all.iter().filter(kept).copied().collect::<BTreeSet<_>>();
                    let sets = (
                        addresses(&k.addresses) == addresses(&i.secondary),
                        set(&k.prefixes) == set(&i.prefixes),
                    );
                    if sets != (true, true) && !explained(i.id.as_str()) {
                        let detail = format!(
                            "node {n}, {}: the agent knows {:?} {:?}, EC2 has {:?} {:?}",
                            i.id, k.addresses, k.prefixes, i.secondary, i.prefixes
                        );
                        return Some(("no address is lost", detail));
                    }
                }
                None if !self.unrecorded.contains(&i.id)
                    && !explained(i.id.as_str())
                    && (still || !unmade) =>
                {
                    let detail = format!("node {n}: {} ({:?}) is on no record", i.id, i.status);
                    return Some(("no interface is leaked", detail));
                }
                _ => {}
            }
        }
        for k in &known {
            let here = self.vpc.interface_now(&ec2::EniId(k.id.0.clone()));
            let here = here.and_then(|i| i.linked().map(|a| a.instance == node.instance));
            if here != Some(true) && !explained(&k.id.0) {
                return Some((
                    "no interface is imagined",
                    format!("node {n}: EC2 does not have {} here", k.id),
                ));
            }
        }
        None
    }
}

fn set<T: Ord + Copy>(all: &[T]) -> BTreeSet<T> {
    all.iter().copied().collect()
}
