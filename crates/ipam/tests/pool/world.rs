//! A whole small world around the pool: an executor that writes files in the order the crate asks for, a cloud that
//! may fail in every way, plugins that finish late or never, a kernel, crashes. It checks the laws as it goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use vpcnet_ipam::{
    Action, Answer, Cards, Checkpoint, CheckpointWriter, Event, Evidence, FailureClass, HostRoute,
    InterfaceFacts, Mono, Now, PodKey, PodMeta, Pool, RequestId, SubnetId, Targets, host_veth_suffix_nth,
};

mod calls;
mod laws;

use super::cloud::{Cloud, Lay, Size};
use super::rig::{id_of, identity, key, meta, short, veth};

/// How one action goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Denied, without effect.
    Before(FailureClass),
    /// It takes effect, the answer is lost; for a creation: after so many of its calls.
    Lost { calls: u8 },
    /// Takes so long, in milliseconds, and succeeds.
    Slow(u64),
}

#[derive(Clone, Debug)]
struct Job {
    action: Action,
    due: u64,
    fault: Option<Fault>,
}

#[derive(Clone, Debug)]
struct Live {
    key: PodKey,
    meta: PodMeta,
    /// One for each card, if it was asked so.
    addresses: Vec<IpAddr>,
    /// A newer sandbox of the pod was asked for: nothing runs in this one any more.
    dead: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crash {
    pub(crate) lose_checkpoint: bool,
    pub(crate) lose_journal: bool,
    /// Calls under way when the agent dies take effect all the same.
    pub(crate) calls_land: bool,
    /// IMDS is silent at the start.
    pub(crate) imds_down: bool,
}

pub(crate) struct World {
    pub(crate) pool: Pool,
    pub(crate) cloud: Cloud,
    pub(crate) at: u64,
    jobs: Vec<Job>,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) failing_writes: u32,
    checkpoint_file: Vec<u8>,
    /// Of this life's pool.
    pub(crate) writer: CheckpointWriter,
    checkpoint_generation: u64,
    journal_file: String,
    journal_generation: Option<u64>,
    /// Sandboxes that a DEL may come for, with what is asked of them.
    sandboxes: Vec<(PodKey, PodMeta)>,
    asked: BTreeMap<RequestId, (PodKey, PodMeta, Cards)>,
    /// Plugins that have their answer and no veth yet.
    plugins: Vec<(u64, Live)>,
    /// By host veth.
    kernel: BTreeMap<String, Live>,
    /// What IMDS will show, with the time it was true.
    history: VecDeque<(u64, Vec<InterfaceFacts>)>,
    requests: u64,
    containers: u64,
    pub(crate) journal_was_lost: bool,
    size: Size,
    /// Sandboxes that were given an address once.
    granted: BTreeSet<PodKey>,
    log: Vec<String>,
}

impl World {
    pub(crate) fn new(size: Size, subnets: &[Lay], targets: Targets) -> Self {
        let mut world = Self {
            pool: Pool::new(identity(), size.limits(), targets).unwrap(),
            cloud: Cloud::new(&size, subnets),
            at: 1_000,
            jobs: Vec::new(),
            faults: VecDeque::new(),
            failing_writes: 0,
            checkpoint_file: Checkpoint::default().to_json(),
            writer: CheckpointWriter::default(),
            checkpoint_generation: u64::MAX, // Written at the first start, whoever wrote the file before.
            journal_file: String::new(),
            journal_generation: None,
            sandboxes: Vec::new(),
            asked: BTreeMap::new(),
            plugins: Vec::new(),
            kernel: BTreeMap::new(),
            history: VecDeque::new(),
            requests: 0,
            containers: 0,
            journal_was_lost: false,
            size,
            granted: BTreeSet::new(),
            log: Vec::new(),
        };
        world.imds(0);
        world
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            mono: Mono(self.at),
            wall_ns: i64::try_from(self.at).unwrap() * 1_000_000,
        }
    }

    fn note(&mut self, text: String) {
        self.log.push(format!("{:>8} {text}", self.at));
    }

    fn wrong(&self, what: &str) -> ! {
        let tail: Vec<&str> = self.log.iter().rev().take(60).rev().map(String::as_str).collect();
        panic!("{what}\nwhat led to it:\n{}", tail.join("\n"));
    }

    /// One batch of the executor: events, checkpoint, journal, answers, orders.
    pub(crate) fn tell(&mut self, events: Vec<Event>) {
        let now = self.now();
        let mut actions = Vec::new();
        for event in events {
            self.note(format!("{event:?}"));
            actions.extend(self.pool.handle(now, event));
        }
        self.commit(actions);
        self.check_step();
    }

    fn commit(&mut self, mut actions: Vec<Action>) {
        if self.pool.checkpoint_generation() != self.checkpoint_generation {
            if self.failing_writes > 0 {
                self.failing_writes -= 1;
                // It is made all the same, and fails on its way to the disk.
                self.writer.write(&self.pool, &mut Vec::new());
                self.undo(&mut actions);
            } else {
                self.writer.write(&self.pool, &mut self.checkpoint_file);
                assert_eq!(
                    String::from_utf8_lossy(&self.checkpoint_file),
                    String::from_utf8_lossy(&self.pool.checkpoint().to_json()),
                    "what the writer remembers is not what is"
                );
            }
            self.checkpoint_generation = self.pool.checkpoint_generation();
        }
        if self.journal_generation != Some(self.pool.journal_generation()) {
            self.journal_file = serde_json::to_string(&self.pool.journal()).unwrap();
            self.journal_generation = Some(self.pool.journal_generation());
        }
        for action in actions {
            match action {
                Action::Reply { request, answer } => self.answered(request, answer),
                order => self.start(order),
            }
        }
    }

    /// The checkpoint could not be written.
    fn undo(&mut self, actions: &mut Vec<Action>) {
        let written = Checkpoint::parse(&self.checkpoint_file).unwrap();
        let keys = |c: &Checkpoint| c.keys().collect::<std::collections::BTreeSet<_>>();
        let (before, after) = (keys(&written), keys(&self.pool.checkpoint()));
        let keys: Vec<PodKey> = after.difference(&before).cloned().collect();
        let released: Vec<PodKey> = before.difference(&after).cloned().collect();
        self.note(format!(
            "checkpoint not written; undo {keys:?}, give back {released:?}"
        ));
        actions.retain(|a| match a {
            Action::Reply {
                request,
                answer: Answer::Assigned(_) | Answer::Released(_),
            } => {
                self.asked.remove(request); // The executor refuses it.
                false
            }
            _ => true,
        });
        let event = Event::CheckpointFailed {
            keys,
            released,
            message: "disk full".into(),
        };
        let more = self.pool.handle(self.now(), event);
        if more.iter().any(|a| {
            matches!(
                a,
                Action::Reply {
                    answer: Answer::Assigned(_) | Answer::Released(_),
                    ..
                }
            )
        }) {
            self.wrong("an answer that no checkpoint holds");
        }
        actions.extend(more);
        let mut now = self.pool.checkpoint();
        now.ours = written.ours;
        let sorted = |c: Checkpoint| {
            let mut all: Vec<_> = c
                .allocations
                .into_iter()
                .map(|a| (a.address, a.key, a.allocated_ns))
                .collect();
            all.sort();
            all
        };
        if sorted(now) != sorted(written) {
            self.wrong("a failed write was not undone");
        }
    }

    fn start(&mut self, action: Action) {
        self.note(format!("order {:?} {}", id_of(&action), short(&action)));
        self.check_order(&action);
        let fault = self.faults.pop_front();
        let takes = if let Some(Fault::Slow(ms)) = fault {
            ms
        } else {
            400
        };
        self.jobs.push(Job {
            action,
            due: self.at + takes,
            fault,
        });
    }

    fn answered(&mut self, request: RequestId, answer: Answer) {
        self.note(format!("answer {request:?} {answer:?}"));
        let Some((key, meta, cards)) = self.asked.remove(&request) else {
            return;
        };
        match answer {
            Answer::Assigned(leases) => {
                let addresses: Vec<IpAddr> = leases.iter().map(|l| l.address).collect();
                for address in &addresses {
                    let other = |l: &Live| l.addresses.contains(address) && !l.dead && l.key != key;
                    let taken = self.kernel.values().any(other) || self.plugins.iter().any(|(_, l)| other(l));
                    if taken {
                        self.wrong(&format!(
                            "{address} is given to {key} while another pod lives with it"
                        ));
                    }
                }
                let first = self.granted.insert(key.clone());
                for lease in &leases {
                    if first && self.is_barred(&lease.eni) {
                        self.wrong(&format!("{key} is put on {}, which is not for pods", lease.eni));
                    }
                    if self.cloud.owner_of(lease.address) != Some(&lease.eni) {
                        self.wrong(&format!("{} is not on {}", lease.address, lease.eni));
                    }
                }
                if first {
                    self.check_cards(cards, &leases);
                }
                // How long a plugin takes is nobody's choice; some die on the way.
                let due = self.at + 50 + (request.0 % 7) * 2_500;
                let latest = self.sandboxes.iter().rev().find(|(_, m)| *m == meta);
                let dead = latest.is_none_or(|(k, _)| *k != key);
                if !request.0.is_multiple_of(11) {
                    let live = Live {
                        key,
                        meta,
                        addresses,
                        dead,
                    };
                    self.plugins.push((due, live));
                }
            }
            Answer::Released(leases) => {
                let lives = self.kernel.get(&veth(&meta)).filter(|l| l.key == key && !l.dead);
                let mut held = lives.into_iter().flat_map(|l| &l.addresses);
                if held.any(|a| leases.iter().all(|l| l.address != *a)) {
                    self.wrong("a DEL gave back another address than the pod's");
                }
                self.forget(&key, &meta);
            }
            Answer::UnknownPod => {
                if self
                    .kernel
                    .get(&veth(&meta))
                    .is_some_and(|l| l.key == key && !l.dead)
                {
                    self.wrong(&format!("{key} lives and its owner is lost"));
                }
                self.forget(&key, &meta);
            }
            Answer::Refused(_) => {}
        }
    }

    /// The sandbox is gone from the machine, and with it the host veth of that name, if nothing else lives behind it.
    fn forget(&mut self, key: &PodKey, meta: &PodMeta) {
        self.sandboxes.retain(|(k, _)| k != key);
        self.plugins.retain(|(_, l)| l.key != *key);
        if self
            .kernel
            .get(&veth(meta))
            .is_some_and(|l| l.key == *key || l.dead)
        {
            self.kernel.remove(&veth(meta));
        }
    }

    fn request(&mut self, key: &PodKey, meta: &PodMeta, cards: Cards) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.asked.insert(request, (key.clone(), meta.clone(), cards));
        request
    }

    /// ADD for a new sandbox of pod `n`, or again for its latest one.
    pub(crate) fn add(&mut self, n: u64, again: bool, patience_ms: u64) -> Event {
        let meta = meta(n);
        // Each third pod is a multi-NIC pod.
        let cards = if n % 3 == 2 { Cards::Every } else { Cards::Any };
        let latest = self
            .sandboxes
            .iter()
            .rev()
            .find(|(_, m)| *m == meta)
            .map(|(k, _)| k.clone());
        let key = match latest {
            Some(key) if again => key,
            _ => {
                self.containers += 1;
                let key = key(self.containers);
                self.sandboxes.push((key.clone(), meta.clone()));
                key
            }
        };
        // A runtime asks again only where nothing runs yet.
        if let Some(live) = self.kernel.get_mut(&veth(&meta)) {
            live.dead = true;
        }
        for (_, live) in self.plugins.iter_mut().filter(|(_, l)| l.meta == meta) {
            live.dead = true;
        }
        let request = self.request(&key, &meta, cards);
        Event::PodWants {
            request,
            key,
            meta,
            deadline: Mono(self.at + patience_ms),
            cards,
        }
    }

    /// DEL for some sandbox.
    pub(crate) fn del(&mut self, n: usize) -> Option<Event> {
        let (key, meta) = self.sandboxes.get(n % self.sandboxes.len().max(1)).cloned()?;
        let request = self.request(&key, &meta, Cards::Any);
        Some(Event::PodGone { request, key, meta })
    }

    pub(crate) fn hang_up(&mut self, n: usize) -> Option<Event> {
        let request = *self.asked.keys().nth(n % self.asked.len().max(1))?;
        self.asked.remove(&request);
        Some(Event::RequestGone { request })
    }

    /// IMDS is read; it shows what was true `lag` ago.
    pub(crate) fn imds(&mut self, lag: u64) {
        self.remember();
        let then = self.at.saturating_sub(lag);
        let shown = self
            .history
            .iter()
            .rev()
            .find(|(at, _)| *at <= then)
            .or(self.history.front());
        let shown = shown.map(|(_, facts)| facts.clone()).unwrap_or_default();
        let ids = shown.iter().map(|f| f.id.clone()).collect();
        let mut events: Vec<Event> = shown
            .into_iter()
            .map(|facts| Event::InterfaceSeen {
                facts,
                evidence: Evidence::Imds,
            })
            .collect();
        events.push(Event::InterfacesListed {
            ids,
            evidence: Evidence::Imds,
        });
        self.tell(events);
    }

    fn remember(&mut self) {
        let facts = self.cloud.attached();
        if self.history.back().is_none_or(|(_, last)| *last != facts) {
            self.history.push_back((self.at, facts));
        }
    }

    pub(crate) fn count_subnets(&mut self) {
        let count = |n: usize| Some(u32::try_from(n).unwrap());
        let facts = |(subnet, free): (&SubnetId, &BTreeSet<Ipv4Addr>)| Event::SubnetFacts {
            subnet: subnet.clone(),
            free_addresses: count(free.len()).unwrap(),
            free_prefixes: count(self.cloud.whole(subnet).len()),
        };
        let events = self.cloud.free.iter().map(facts).collect();
        self.tell(events);
    }

    /// Host veths and the address behind each: a pod has one for each of its addresses.
    fn kernel_pods(&self) -> Vec<(String, IpAddr)> {
        let all = self.kernel.values().flat_map(|live| {
            let nth = |n: usize| {
                let n = u32::try_from(n).unwrap();
                let suffix = host_veth_suffix_nth(&live.meta.namespace, &live.meta.name, n);
                format!("eni{suffix}")
            };
            live.addresses
                .iter()
                .enumerate()
                .map(move |(n, at)| (nth(n), *at))
        });
        all.collect()
    }

    pub(crate) fn veths(&mut self) {
        let pods = self.kernel_pods();
        let names = pods.iter().map(|(name, _)| name.clone()).collect();
        let route = |(host_veth, address)| HostRoute { address, host_veth };
        let pods = pods.into_iter().map(route).collect();
        self.tell(vec![Event::VethSeen { names, pods }]);
    }

    /// The next point in time at which anything happens by itself.
    fn next(&self) -> Option<u64> {
        let jobs = self.jobs.iter().map(|j| j.due);
        let plugins = self.plugins.iter().map(|(due, _)| *due);
        jobs.chain(plugins)
            .chain(self.pool.next_wake().map(|w| w.0))
            .min()
    }

    /// Lets `ms` pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.at + ms;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.at = next.max(self.at);
            self.advance();
        }
        self.at = end;
    }

    /// Does what is due.
    fn advance(&mut self) {
        if let Some(i) = self.plugins.iter().position(|(due, _)| *due <= self.at) {
            let (_, live) = self.plugins.remove(i);
            let name = veth(&live.meta);
            // A plugin of an earlier sandbox that comes late does not win over a later one.
            if !live.dead {
                self.kernel.insert(name, live);
            }
            self.veths();
        } else if let Some(i) = self.jobs.iter().position(|j| j.due <= self.at) {
            let job = self.jobs.remove(i);
            let event = self.perform(&job);
            let disagreed = matches!(
                event,
                Event::ActionFailed {
                    class: FailureClass::LimitReached | FailureClass::DeviceTaken,
                    ..
                }
            );
            self.tell(vec![event]);
            if disagreed {
                self.imds(0); // Something is there that the pool does not know: the executor looks.
            }
        } else {
            self.tell(vec![Event::Tick]);
        }
    }
}
