//! Pods, their sandboxes, and the runtime that asks for them: what a kubelet, containerd and the plugin do between them.

use std::collections::VecDeque;
use std::net::IpAddr;

use vpcnet_ipam::{
    Answer, CardIndex, Cards, Event, HostRoute, KernelEvidence, Lease, MIGRATED_NETWORK, Mono, PodKey,
    PodMeta, RequestId, host_veth_suffix_nth,
};

use super::node::Caller;
use super::world::{Due, World};

/// Something that is to run.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Its present sandbox.
    sandbox: u32,
    plugin: Option<u16>,
    pub(crate) every: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) key: PodKey,
    pub(crate) meta: PodMeta,
    pod: u8,
    every: bool,
    plugin: Option<u16>,
    /// What it was given.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its links are there.
    pub(crate) veth: bool,
    /// Nothing runs in it any more, or ever will.
    pub(crate) dead: bool,
    /// Somebody waits for an answer about it.
    asking: bool,
    /// The only record of it was lost, or another agent dealt with it: no DEL finds anything.
    pub(crate) forgotten: bool,
}

impl Sandbox {
    /// It uses its addresses, or is about to.
    pub(crate) fn lives(&self) -> bool {
        !self.dead && !self.addresses.is_empty()
    }
}

fn meta(pod: u8) -> PodMeta {
    PodMeta {
        namespace: "default".into(),
        name: format!("web-{pod}"),
        interfaces: 1,
    }
}

impl World {
    fn request(&mut self, n: usize, sandbox: u32) -> Option<RequestId> {
        self.requests += 1;
        let request = RequestId(self.requests);
        let node = &mut self.nodes[n];
        let box_ = node.sandboxes.get_mut(&sandbox)?;
        let key = box_.key.clone();
        node.life.as_mut()?.asked.insert(
            request,
            Caller {
                sandbox,
                key,
                deaf: false,
            },
        );
        box_.asking = true;
        Some(request)
    }

    /// A pod is to run here.
    pub(crate) fn want(&mut self, n: usize, pod: u8, plugin: Option<u16>, patience: u64, every: bool) {
        if self.nodes[n].gone {
            return;
        }
        if let Some(there) = self.nodes[n].pods.get(&pod) {
            let sandbox = self.nodes[n].sandboxes.get(&there.sandbox);
            if sandbox.is_some_and(|s| !s.dead) {
                return;
            }
        }
        self.containers += 1;
        let sandbox = self.containers;
        // A pod's next sandbox is made when nothing runs in the one before.
        let key = PodKey {
            network: "aws-cni".into(),
            container_id: format!("{sandbox:064x}"),
            if_name: "eth0".into(),
        };
        let node = &mut self.nodes[n];
        node.pods.insert(
            pod,
            Pod {
                sandbox,
                plugin,
                every,
            },
        );
        let new = Sandbox {
            key,
            meta: meta(pod),
            pod,
            every,
            plugin,
            addresses: Vec::new(),
            veth: false,
            dead: false,
            asking: false,
            forgotten: false,
        };
        node.sandboxes.insert(sandbox, new);
        self.ask(n, sandbox, patience);
    }

    fn ask(&mut self, n: usize, sandbox: u32, patience: u64) {
        let Some(request) = self.request(n, sandbox) else {
            self.unanswered(n, sandbox); // The agent is away.
            return;
        };
        let deadline = Mono(self.now(n).mono.0 + patience);
        let Some(s) = self.nodes[n].sandboxes.get(&sandbox) else {
            return;
        };
        let event = Event::PodWants {
            request,
            key: s.key.clone(),
            meta: s.meta.clone(),
            deadline,
            cards: if s.every { Cards::Every } else { Cards::Any },
        };
        self.tell(n, vec![event]);
    }

    pub(crate) fn ask_again(&mut self, n: usize, pod: u8) {
        let node = &self.nodes[n];
        let sandbox = node.pods.get(&pod).map(|p| p.sandbox);
        // What is answered is not asked for again.
        let sandbox = sandbox.filter(|s| node.sandboxes.get(s).is_some_and(|s| !s.dead && s.asking));
        if let Some(sandbox) = sandbox.filter(|_| node.life.is_some()) {
            self.ask(n, sandbox, 60_000);
        }
    }

    /// The kubelet tries again what has no sandbox that runs.
    pub(crate) fn retry(&mut self, n: usize, pod: u8) {
        if let Some(Pod { plugin, every, .. }) = self.nodes[n].pods.get(&pod).cloned() {
            self.want(n, pod, plugin.or(Some(60)), 60_000, every);
        }
    }

    /// The pod is deleted.
    pub(crate) fn remove_pod(&mut self, n: usize, pod: u8) {
        if let Some(pod) = self.nodes[n].pods.remove(&pod) {
            self.del(n, pod.sandbox);
        }
    }

    /// A sandbox is stopped: nothing runs in it, and the agent is told.
    pub(crate) fn del(&mut self, n: usize, sandbox: u32) {
        let Some(s) = self.nodes[n].sandboxes.get_mut(&sandbox) else {
            return;
        };
        s.dead = true;
        let (key, meta) = (s.key.clone(), s.meta.clone());
        self.live.retain(|_, user| *user != (n, sandbox));
        self.end_namesake(n, sandbox);
        let Some(request) = self.request(n, sandbox) else {
            self.unanswered(n, sandbox);
            return;
        };
        self.tell(n, vec![Event::PodGone { request, key, meta }]);
    }

    /// After its checkpoint was lost the agent knows a sandbox by its link alone, and links bear the pod's name: a late DEL of an
    /// earlier sandbox of the pod is then one of the present, and the plugin takes its routes away.
    fn end_namesake(&mut self, n: usize, sandbox: u32) {
        let node = &mut self.nodes[n];
        let (Some(life), Some(gone)) = (&node.life, node.sandboxes.get(&sandbox)) else {
            return;
        };
        let (pod, known) = (gone.pod, life.pool.owners().any(|o| o.key == gone.key));
        let by_link = |s: &Sandbox| {
            s.addresses.iter().any(|at| {
                life.pool
                    .holder(*at)
                    .is_some_and(|k| k.network == MIGRATED_NETWORK)
            })
        };
        let mut ended = Vec::new();
        for (number, s) in node
            .sandboxes
            .iter_mut()
            .filter(|(_, s)| s.pod == pod && !known && by_link(s))
        {
            (s.dead, s.forgotten) = (true, true);
            ended.push(*number);
        }
        self.live.retain(|_, (node, s)| *node != n || !ended.contains(s));
        for sandbox in ended {
            self.queue(self.at + 2_000, Due::Clean { node: n, sandbox });
        }
    }

    /// It goes, and nobody tells the agent.
    pub(crate) fn vanish(&mut self, n: usize, pod: u8) {
        let node = &mut self.nodes[n];
        let Some(pod) = node.pods.remove(&pod) else { return };
        let Some(gone) = node.sandboxes.remove(&pod.sandbox) else {
            return;
        };
        node.vanished.insert(gone.key, node.lives);
        self.live.retain(|_, user| *user != (n, pod.sandbox));
    }

    pub(crate) fn hang_up(&mut self, n: usize, nth: u8, unseen: bool) {
        let Some(life) = &mut self.nodes[n].life else {
            return;
        };
        let at = usize::from(nth) % life.asked.len().max(1);
        let Some((request, caller)) = life.asked.iter_mut().nth(at) else {
            return;
        };
        let (request, sandbox) = (*request, caller.sandbox);
        caller.deaf = true;
        self.nodes[n].may_be_done(sandbox);
        let Some(life) = &mut self.nodes[n].life else {
            return;
        };
        if !unseen {
            life.asked.remove(&request);
            self.tell(n, vec![Event::RequestGone { request }]);
        }
        self.unanswered(n, sandbox);
    }

    /// Nobody answered, or not well: an ADD that failed is followed by a DEL, a DEL by another.
    pub(crate) fn unanswered(&mut self, n: usize, sandbox: u32) {
        let Some(s) = self.nodes[n].sandboxes.get_mut(&sandbox) else {
            return;
        };
        s.asking = false;
        // A repeat of an ADD that went well, whose answer got lost: it runs.
        if s.lives() {
            return;
        }
        s.dead = true;
        let wait = if self.nodes[n].life.is_some() { 500 } else { 5_000 };
        self.queue(self.at + wait, Due::Clean { node: n, sandbox });
    }

    /// The executor refuses it: what it was to be told is not on disk.
    pub(crate) fn refuse(&mut self, n: usize, request: RequestId) {
        let caller = self.nodes[n].life.as_mut().and_then(|l| l.asked.remove(&request));
        if let Some(caller) = caller {
            self.unanswered(n, caller.sandbox);
        }
    }

    /// An answer is sent.
    pub(crate) fn answer(
        &mut self,
        n: usize,
        request: RequestId,
        answer: Answer,
        events: &mut VecDeque<Event>,
    ) {
        self.note(|| format!("n{n} answer {request:?} {answer:?}"));
        let Some(caller) = self.nodes[n].life.as_mut().and_then(|l| l.asked.remove(&request)) else {
            return;
        };
        let sandbox = caller.sandbox;
        if caller.deaf {
            if let Answer::Assigned(_) = answer {
                events.push_back(Event::ReplyLost {
                    request,
                    key: caller.key,
                });
            }
            return;
        }
        match answer {
            Answer::Assigned(leases) => self.granted(n, sandbox, &leases),
            Answer::Refused(_) => self.unanswered(n, sandbox),
            Answer::Released(leases) => self.cleaned(n, sandbox, &leases),
            Answer::UnknownPod => self.cleaned(n, sandbox, &[]),
        }
    }

    fn granted(&mut self, n: usize, sandbox: u32, leases: &[Lease]) {
        let Some(s) = self.nodes[n].sandboxes.get_mut(&sandbox) else {
            return;
        };
        s.asking = false;
        if s.dead {
            return;
        }
        let addresses: Vec<IpAddr> = leases.iter().map(|l| l.address).collect();
        let (before, every, plugin) = (s.addresses.clone(), s.every, s.plugin);
        if before == addresses {
            return;
        }
        if !before.is_empty() {
            let detail = format!("sandbox {sandbox} of node {n} had {before:?} and is told {addresses:?}");
            return self.wrong("a repeat gives the same address", detail);
        }
        self.check_grant(n, sandbox, leases, every);
        for at in &addresses {
            if !self.robbed.contains(at) {
                self.live.insert(*at, (n, sandbox));
            }
        }
        let Some(s) = self.nodes[n].sandboxes.get_mut(&sandbox) else {
            return;
        };
        s.addresses = addresses;
        match plugin {
            Some(ms) => {
                let at = self.at + u64::from(ms.min(20_000));
                self.queue(at, Due::Plugin { node: n, sandbox });
            }
            None => {
                // The plugin dies on the way.
                s.dead = true;
                self.live.retain(|_, user| *user != (n, sandbox));
                self.queue(self.at + 500, Due::Clean { node: n, sandbox });
            }
        }
    }

    /// The plugin has made the links, in the place of those of an earlier sandbox of the pod.
    pub(crate) fn plugged(&mut self, n: usize, sandbox: u32) {
        let node = &mut self.nodes[n];
        let Some(pod) = node.sandboxes.get(&sandbox).filter(|s| s.lives()).map(|s| s.pod) else {
            return;
        };
        for (number, s) in &mut node.sandboxes {
            if s.pod == pod {
                s.veth = *number == sandbox;
            }
        }
    }

    /// Plugins that have their answer get done.
    pub(crate) fn finish_plugins(&mut self, n: usize) {
        let waiting = self.nodes[n]
            .sandboxes
            .iter()
            .filter(|(_, s)| s.lives() && !s.veth);
        let waiting: Vec<u32> = waiting.map(|(number, _)| *number).collect();
        for sandbox in waiting {
            self.plugged(n, sandbox);
        }
    }

    /// The agent said what a sandbox gave back.
    fn cleaned(&mut self, n: usize, sandbox: u32, leases: &[Lease]) {
        let Some(s) = self.nodes[n].sandboxes.remove(&sandbox) else {
            return;
        };
        self.rest(n, leases);
        // With it goes an owner that was known by the pod's link alone: the plugin takes the routes to its addresses away.
        for other in self.nodes[n].sandboxes.values_mut().filter(|o| o.dead) {
            let given_back = leases.iter().any(|l| other.addresses.contains(&l.address));
            other.forgotten |= given_back;
            other.veth &= !given_back;
        }
        // What is known by its link alone is found by the pod's name, whichever of its sandboxes it was.
        let by_link = leases.iter().any(|l| l.key.network == MIGRATED_NETWORK);
        let missing = s
            .addresses
            .iter()
            .find(|at| leases.iter().all(|l| l.address != **at));
        if let Some(at) = missing.filter(|_| !s.forgotten && !by_link) {
            let detail = format!("node {n}: the DEL of {} gave back {leases:?} and not {at}", s.key);
            self.wrong("an owner is lost", detail);
        }
        // It is to run all the same.
        let again = self.nodes[n]
            .pods
            .get(&s.pod)
            .is_some_and(|p| p.sandbox == sandbox);
        if again {
            self.queue(self.at + 10_000, Due::Retry { node: n, pod: s.pod });
        }
    }

    /// What the kernel of a node shows.
    pub(crate) fn kernel(&self, n: usize) -> KernelEvidence {
        let mut kernel = KernelEvidence::default();
        for s in self.nodes[n].sandboxes.values().filter(|s| s.veth) {
            for (nth, at) in s.addresses.iter().enumerate() {
                let nth = u32::try_from(nth).unwrap();
                let suffix = host_veth_suffix_nth(&s.meta.namespace, &s.meta.name, nth);
                let name = format!("eni{suffix}");
                kernel.veths.push(name.clone());
                kernel.pods.push(HostRoute {
                    address: *at,
                    host_veth: name,
                });
            }
        }
        kernel
    }

    pub(crate) fn show_veths(&mut self, n: usize) {
        let KernelEvidence { veths, pods, .. } = self.kernel(n);
        self.tell(n, vec![Event::VethSeen { names: veths, pods }]);
    }

    /// Cards that a pod of each card has an address of.
    pub(crate) fn managed_cards(&self, n: usize) -> Vec<CardIndex> {
        self.nodes[n].limits().cards.iter().map(|c| c.card).collect()
    }
}

impl super::node::Node {
    /// Nobody hears the answer about a sandbox any more: if it was asked to be given up, that may have been done.
    pub(crate) fn may_be_done(&mut self, sandbox: u32) {
        if let Some(s) = self.sandboxes.get_mut(&sandbox) {
            s.forgotten |= s.dead;
        }
    }

    /// A pod that another agent made runs here.
    pub(crate) fn settle_pod(&mut self, pod: u8, sandbox: u32, key: PodKey, meta: PodMeta, at: IpAddr) {
        self.pods.insert(
            pod,
            Pod {
                sandbox,
                plugin: Some(60),
                every: false,
            },
        );
        let new = Sandbox {
            key,
            meta,
            pod,
            every: false,
            plugin: Some(60),
            addresses: vec![at],
            veth: true,
            dead: false,
            asking: false,
            forgotten: false,
        };
        self.sandboxes.insert(sandbox, new);
    }
}
