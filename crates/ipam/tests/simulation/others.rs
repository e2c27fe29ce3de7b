//! What others do to the VPC and to a node: people, other programs, and the original agent while it serves in our place.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use vpcnet_ipam::{Allocation, CardIndex, Checkpoint, PodKey, PodMeta};
use vpcnet_lab::model as ec2;

use super::calls::INSTANCE_TAG;
use super::files::to_files;
use super::world::{Due, World};

impl World {
    /// Interfaces bound to an instance.
    pub(crate) fn attached(&self, instance: &ec2::InstanceId) -> impl Iterator<Item = &Arc<ec2::Interface>> {
        let is = |i: &&Arc<ec2::Interface>| i.attachment.as_ref().is_some_and(|a| a.instance == *instance);
        self.vpc.interfaces_now().filter(is)
    }

    /// Interfaces that bear an instance's tag.
    pub(crate) fn made_for(&self, instance: &ec2::InstanceId) -> impl Iterator<Item = &Arc<ec2::Interface>> {
        let is = |i: &&Arc<ec2::Interface>| i.tags.get(INSTANCE_TAG).is_some_and(|t| t == instance.as_str());
        self.vpc.interfaces_now().filter(is)
    }

    /// The nth of a node's interfaces.
    fn nth(&self, n: usize, eni: u8, primary_too: bool) -> Option<Arc<ec2::Interface>> {
        let instance = &self.nodes[n].instance;
        let usable = |i: &&Arc<ec2::Interface>| {
            let place = i.attachment.as_ref().map(|a| (a.card, a.device_index));
            primary_too || place != Some((0, 0))
        };
        let all: Vec<&Arc<ec2::Interface>> = self.attached(instance).filter(usable).collect();
        all.get(usize::from(eni) % all.len().max(1))
            .map(|i| Arc::clone(i))
    }

    fn rob(&mut self, n: usize, all: impl Iterator<Item = Ipv4Addr>) {
        self.nodes[n].meddled = true;
        for at in all {
            self.robbed.insert(IpAddr::V4(at));
            self.live.remove(&IpAddr::V4(at));
        }
    }

    pub(crate) fn take_away(&mut self, n: usize, eni: u8, nth: u8) {
        let Some(i) = self.nth(n, eni, true) else { return };
        let at = i
            .secondary
            .get(usize::from(nth) % i.secondary.len().max(1))
            .copied();
        let Some(at) = at else { return };
        let request = ec2::Request::UnassignPrivateIpAddresses {
            eni: i.id.clone(),
            addresses: vec![at],
            prefixes: Vec::new(),
        };
        if self.admin(request).is_some() {
            self.rob(n, std::iter::once(at));
        }
    }

    pub(crate) fn give_extra(&mut self, n: usize, eni: u8) {
        let Some(i) = self.nth(n, eni, true) else { return };
        self.nodes[n].meddled = true;
        self.admin(ec2::Request::AssignPrivateIpAddresses(
            ec2::AssignPrivateIpAddresses {
                eni: i.id.clone(),
                addresses: ec2::Wanted::Count(1),
                prefixes: ec2::Wanted::Count(0),
                allow_reassignment: false,
            },
        ));
    }

    /// It is detached, and stays where it is.
    pub(crate) fn pull_out(&mut self, n: usize, eni: u8) {
        let Some(i) = self.nth(n, eni, false) else { return };
        let Some(attachment) = i.attachment.as_ref().map(|a| a.id.clone()) else {
            return;
        };
        let request = ec2::Request::DetachNetworkInterface {
            attachment,
            force: true,
        };
        if self.admin(request).is_some() {
            let blocks = i
                .prefixes
                .iter()
                .flat_map(|p| p.hosts().chain([p.network(), p.broadcast()]));
            let all: Vec<Ipv4Addr> = i.secondary.iter().copied().chain(blocks).collect();
            self.rob(n, all.into_iter());
            self.unrecorded.insert(i.id.clone());
        }
    }

    pub(crate) fn put_in(&mut self, n: usize, device: u8) {
        if self.nodes[n].gone {
            return;
        }
        let subnet = self.subnets[self.nodes[n].subnet].clone();
        let made = self.admin(ec2::Request::CreateNetworkInterface(
            ec2::CreateNetworkInterface::new(subnet),
        ));
        let Some(ec2::Response::Created { interface, .. }) = made else {
            return;
        };
        let request = ec2::Request::AttachNetworkInterface(ec2::AttachNetworkInterface {
            eni: interface.id.clone(),
            instance: self.nodes[n].instance.clone(),
            device_index: u32::from(device),
            card: 0,
        });
        self.nodes[n].meddled = true;
        if self.admin(request).is_some() {
            self.foreign.push_back(interface.id.clone());
        } else {
            self.admin(ec2::Request::DeleteNetworkInterface(interface.id.clone()));
        }
    }

    pub(crate) fn take_back(&mut self) {
        let Some(eni) = self.foreign.pop_front() else {
            return;
        };
        let Some(i) = self.vpc.interface_now(&eni).cloned() else {
            return;
        };
        if let Some(a) = &i.attachment {
            let request = ec2::Request::DetachNetworkInterface {
                attachment: a.id.clone(),
                force: true,
            };
            if self.admin(request).is_none() {
                self.foreign.push_back(eni);
                return;
            }
            let instance = a.instance.clone();
            if let Some(node) = self.nodes.iter_mut().find(|node| node.instance == instance) {
                node.meddled = true;
            }
        }
    }

    /// So many addresses of a subnet are in somebody's hands, in all.
    pub(crate) fn crowd(&mut self, subnet: u8, count: u8) {
        let subnet = self.subnets[usize::from(subnet) % self.subnets.len()].clone();
        for eni in std::mem::take(&mut self.crowd) {
            self.admin(ec2::Request::DeleteNetworkInterface(eni));
        }
        for _ in 0..count.div_ceil(10) {
            let mut wanted = ec2::CreateNetworkInterface::new(subnet.clone());
            wanted.secondary = ec2::Wanted::Count(9);
            let made = self.admin(ec2::Request::CreateNetworkInterface(wanted));
            if let Some(ec2::Response::Created { interface, .. }) = made {
                self.crowd.push(interface.id.clone());
            }
        }
    }

    /// The original agent serves: it gives pods what its interfaces have, takes back from others, and writes its own file.
    pub(crate) fn interlude(&mut self, n: usize, adds: u8, dels: u8, grows: u8) {
        if self.nodes[n].gone || self.nodes[n].life.is_none() {
            return;
        }
        self.kill(n);
        self.finish_plugins(n);
        self.lose_journal(n);
        self.nodes[n].meddled = true;
        for _ in 0..grows {
            self.give_extra(n, 0);
        }
        let there: Vec<u8> = self.nodes[n].pods.keys().copied().collect();
        for pod in there.into_iter().take(usize::from(dels)) {
            self.del_by_another(n, pod);
        }
        for _ in 0..adds {
            self.add_by_another(n);
        }
        // Of what came before it knows what has a link.
        let instance = &self.nodes[n].instance;
        let card_of = |at: &IpAddr| {
            let has = |i: &&Arc<ec2::Interface>| match at {
                IpAddr::V4(at) => i.secondary.contains(at) || i.prefixes.iter().any(|p| p.contains(at)),
                IpAddr::V6(_) => false,
            };
            let holder = self.attached(instance).find(has);
            CardIndex(holder.and_then(|i| i.attachment.as_ref()).map_or(0, |a| a.card))
        };
        let alive = self.nodes[n].sandboxes.values().filter(|s| s.veth);
        let allocations = alive.flat_map(|s| {
            s.addresses.iter().map(|at| Allocation {
                key: s.key.clone(),
                address: *at,
                allocated_ns: 1,
                meta: s.meta.clone(),
                card: card_of(at),
            })
        });
        let checkpoint = Checkpoint {
            allocations: allocations.collect(),
            ours: false,
        };
        for s in self.nodes[n].sandboxes.values_mut().filter(|s| !s.veth) {
            s.forgotten = true;
        }
        self.nodes[n].disk.put_checkpoint(to_files(&checkpoint));
        self.queue(self.at + 1_000, Due::Start { node: n });
    }

    fn del_by_another(&mut self, n: usize, pod: u8) {
        let name = format!("web-{pod}");
        self.nodes[n].pods.remove(&pod);
        let gone: Vec<u32> = self.nodes[n]
            .sandboxes
            .iter()
            .filter(|(_, s)| s.meta.name == name)
            .map(|(number, _)| *number)
            .collect();
        for sandbox in gone {
            self.nodes[n].sandboxes.remove(&sandbox);
            self.live.retain(|_, user| *user != (n, sandbox));
        }
    }

    /// With an address that lies on an interface of the node and that no pod has.
    fn add_by_another(&mut self, n: usize) {
        let instance = self.nodes[n].instance.clone();
        let ours = |i: &&Arc<ec2::Interface>| {
            let primary = i
                .attachment
                .as_ref()
                .is_some_and(|a| (a.card, a.device_index) == (0, 0));
            i.linked().is_some() && (primary || i.tags.contains_key(INSTANCE_TAG))
        };
        let on: Vec<Ipv4Addr> = self
            .attached(&instance)
            .filter(ours)
            .flat_map(|i| {
                i.secondary
                    .iter()
                    .copied()
                    .chain(i.prefixes.iter().map(|p| p.network()))
            })
            .collect();
        let held = |at: &Ipv4Addr| {
            let at = IpAddr::V4(*at);
            self.nodes[n]
                .sandboxes
                .values()
                .any(|s| s.addresses.contains(&at))
        };
        let free = on.into_iter().find(|at| {
            !held(at) && !self.live.contains_key(&IpAddr::V4(*at)) && !self.robbed.contains(&IpAddr::V4(*at))
        });
        let (Some(at), Some(pod)) = (free, (100..=250).find(|p| !self.nodes[n].pods.contains_key(p))) else {
            return;
        };
        self.containers += 1;
        let sandbox = self.containers;
        self.adopt(n, pod, sandbox, IpAddr::V4(at));
    }

    fn adopt(&mut self, n: usize, pod: u8, sandbox: u32, at: IpAddr) {
        let key = PodKey {
            network: "aws-cni".into(),
            container_id: format!("{sandbox:064x}"),
            if_name: "eth0".into(),
        };
        let meta = PodMeta {
            namespace: "default".into(),
            name: format!("web-{pod}"),
            interfaces: 1,
        };
        self.nodes[n].settle_pod(pod, sandbox, key, meta, at);
        self.live.insert(at, (n, sandbox));
    }
}
