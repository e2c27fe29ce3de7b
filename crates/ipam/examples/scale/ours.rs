//! Our node: the pool and the back-off are the real ones; the executor between them is played, call by call, as
//! `vpcnetd` carries actions out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use vpcnet_cloud::Ec2Action;
use vpcnet_cloud::backoff::{Admission, Backoff, Outcome as Ended, Ticket};
use vpcnet_ipam::{
    Action, ActionId, Answer, CardIndex, CardLimits, Cards, DeviceIndex, EniId, Event, Evidence,
    FailureClass, Identity, InterfaceFacts, InterfaceKind, Limits, Mode, Mono, Now, Outcome, PodKey, PodMeta,
    Pool, RequestId, Stage, SubnetId, Targets,
};

use crate::account::Account;
use crate::queue::{Chance, Queue};
use crate::report::Run;
use crate::scenario::{
    HALF_CALL_MS, INTERFACES, KUBELET_MS, LINK_MS, MAX_PODS, PER_INTERFACE, PODS, Scenario, Way,
};

/// The agent's patience for its turn: one time-out for calls that change something, two for others.
const PATIENCE_MS: (u64, u64) = (10_000, 20_000);
/// How often the executor makes a call of an interface that is begun, before it goes back to the pool.
const TRIES: u32 = 5;
const ADD_PATIENCE_MS: u64 = 60_000;
/// The pool's clock does not begin at 0.
const ORIGIN_MS: u64 = 1_000_000;

enum Happens {
    Start(usize),
    /// A pod is given to its node, or comes again.
    Pod(usize, u32),
    Goes(usize),
    Tick(usize),
    /// A job may ask for its turn again.
    Turn(usize, u64),
    /// A job that waits for a place has waited long enough.
    Enough(usize, u64),
    Arrives(usize, u64, Ticket),
    Answered(usize, u64, Ticket, bool),
    Link(usize, u64),
}

/// The call an action is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Subnets,
    Create,
    Look,
    Attach,
    Modify,
    Assign,
    Release,
    LookFirst,
    Detach,
    LookFree,
    Delete,
    Describe,
}

impl Step {
    fn action(self) -> Ec2Action {
        match self {
            Self::Subnets => Ec2Action::DescribeSubnets,
            Self::Create => Ec2Action::CreateNetworkInterface,
            Self::Look | Self::LookFirst | Self::LookFree | Self::Describe => {
                Ec2Action::DescribeNetworkInterfaces
            }
            Self::Attach => Ec2Action::AttachNetworkInterface,
            Self::Modify => Ec2Action::ModifyNetworkInterfaceAttribute,
            Self::Assign => Ec2Action::AssignPrivateIpAddresses,
            Self::Release => Ec2Action::UnassignPrivateIpAddresses,
            Self::Detach => Ec2Action::DetachNetworkInterface,
            Self::Delete => Ec2Action::DeleteNetworkInterface,
        }
    }

    /// What the executor repeats by itself.
    fn is_repeated(self) -> bool {
        !matches!(self, Self::Create | Self::Assign | Self::Release | Self::Describe)
    }
}

struct Job {
    /// The pool's action; none for what the agent does beside it.
    action: Option<(ActionId, Action)>,
    step: Step,
    tries: u32,
    until_ms: u64,
    facts: Option<InterfaceFacts>,
}

struct Pod {
    given_ms: u64,
    /// One of the node's first.
    first: bool,
}

struct Node {
    pool: Pool,
    backoffs: BTreeMap<Ec2Action, Backoff>,
    /// Jobs that wait for a place among those in flight.
    full: BTreeMap<Ec2Action, BTreeSet<u64>>,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    pods: BTreeMap<u32, Pod>,
    /// Those that have an address, the oldest first.
    served: Vec<u32>,
    next_pod: u32,
    truth: BTreeMap<EniId, InterfaceFacts>,
    addresses: u32,
    prefixes: u32,
    tick_ms: Option<u64>,
}

struct World<'a> {
    nodes: Vec<Node>,
    scenario: &'a Scenario,
    account: Account,
    queue: Queue<Happens>,
    chance: Chance,
    base: Instant,
    served: Vec<(u64, u64)>,
    later: Vec<u64>,
    refusals: u64,
}

fn now(ms: u64) -> Now {
    Now {
        mono: Mono(ORIGIN_MS + ms),
        wall_ns: (ms as i64) * 1_000_000,
    }
}

fn key(pod: u32) -> PodKey {
    PodKey {
        network: "aws-cni".into(),
        container_id: pod.to_string(),
        if_name: "eth0".into(),
    }
}

pub(crate) fn run(scenario: &Scenario, way: Way) -> Run {
    let began = Instant::now();
    let targets = Targets {
        mode: if way == Way::Prefixes {
            Mode::Prefixes
        } else {
            Mode::SecondaryIp
        },
        warm_prefix: (way == Way::Prefixes).then_some(1),
        max_pods: MAX_PODS,
        ..Targets::default()
    };
    let mut world = World {
        nodes: (0..scenario.nodes.len())
            .filter_map(|n| Node::new(n, &targets))
            .collect(),
        scenario,
        account: Account::new(),
        queue: Queue::new(),
        chance: Chance::new(2),
        base: began,
        served: Vec::new(),
        later: Vec::new(),
        refusals: 0,
    };
    for (node, at) in scenario.nodes.iter().enumerate() {
        world.queue.at(*at, Happens::Start(node));
        for (pod, at) in scenario.pods[node * PODS..(node + 1) * PODS].iter().enumerate() {
            world.queue.at(*at, Happens::Pod(node, pod as u32));
        }
    }
    while let Some((at, what)) = world.queue.next() {
        if at > scenario.until_ms {
            break;
        }
        world.happens(at, what);
    }
    Run {
        who: "vpcnet",
        account: world.account,
        served: world.served,
        later: world.later,
        refusals: world.refusals,
        events: world.queue.events(),
        took: began.elapsed(),
    }
}

impl Node {
    fn new(n: usize, targets: &Targets) -> Option<Self> {
        let limits = Limits {
            cards: vec![CardLimits {
                card: CardIndex(0),
                interfaces: INTERFACES,
            }],
            ipv4_per_interface: PER_INTERFACE + 1,
        };
        let identity = Identity {
            instance_id: format!("i-{n:017x}"),
            token_salt: String::new(),
            boot_id: String::new(),
        };
        Some(Self {
            pool: Pool::new(identity, limits, targets.clone()).ok()?,
            backoffs: BTreeMap::new(),
            full: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_job: 0,
            pods: BTreeMap::new(),
            served: Vec::new(),
            next_pod: PODS as u32,
            truth: BTreeMap::new(),
            addresses: 0,
            prefixes: 0,
            tick_ms: None,
        })
    }

    fn interface(&mut self, device: DeviceIndex, addresses: u32, prefixes: u32) -> InterfaceFacts {
        let n = self.truth.len() as u32;
        let facts = InterfaceFacts {
            id: EniId(format!("eni-{}-{n}", device.0)),
            mac: format!("02:00:00:00:00:{n:02x}"),
            device,
            card: CardIndex(0),
            subnet: SubnetId::from("subnet-1"),
            subnet_cidr: "10.0.0.0/8".parse().unwrap_or_default(),
            primary_address: Ipv4Addr::from(0x0aff_0000 + n),
            is_primary: device.0 == 0,
            kind: InterfaceKind::Interface,
            managed: true,
            addresses: self.give(addresses),
            prefixes: self.give_prefixes(prefixes),
            ipv6_prefixes: Vec::new(),
            table: None,
        };
        self.truth.insert(facts.id.clone(), facts.clone());
        facts
    }

    fn give(&mut self, count: u32) -> Vec<Ipv4Addr> {
        let first = 0x0a00_0000 + self.addresses;
        self.addresses += count;
        (first..first + count).map(Ipv4Addr::from).collect()
    }

    fn give_prefixes(&mut self, count: u32) -> Vec<Ipv4Net> {
        let first = self.prefixes;
        self.prefixes += count;
        let nth = |n| Ipv4Net::new(Ipv4Addr::from(0x0a80_0000 + 16 * n), 28).ok();
        (first..first + count).filter_map(nth).collect()
    }
}

impl World<'_> {
    fn happens(&mut self, at: u64, what: Happens) {
        match what {
            Happens::Start(node) => self.start(at, node),
            Happens::Pod(node, pod) => self.pod(at, node, pod),
            Happens::Goes(node) => self.goes(at, node),
            Happens::Tick(node) => {
                if self.nodes[node].tick_ms == Some(at) {
                    self.nodes[node].tick_ms = None;
                    self.tell(at, node, Event::Tick);
                }
            }
            Happens::Turn(node, job) => self.turn(at, node, job),
            Happens::Enough(node, job) => {
                let Some(action) = self.nodes[node].jobs.get(&job).map(|j| j.step.action()) else {
                    return;
                };
                let queue = self.nodes[node].full.entry(action).or_default();
                if queue.remove(&job) {
                    self.failed(at, node, job, at);
                }
            }
            Happens::Arrives(node, job, ticket) => {
                let Some(action) = self.nodes[node].jobs.get(&job).map(|j| j.step.action()) else {
                    return;
                };
                let passed = self.account.call(action, at);
                let back = at + self.chance.between(HALF_CALL_MS.0, HALF_CALL_MS.1);
                self.queue.at(back, Happens::Answered(node, job, ticket, passed));
            }
            Happens::Answered(node, job, ticket, passed) => self.answered(at, node, job, ticket, passed),
            Happens::Link(node, job) => {
                let Some(job) = self.nodes[node].jobs.remove(&job) else {
                    return;
                };
                if let (Some((id, _)), Some(facts)) = (job.action, job.facts) {
                    let outcome = Outcome::InterfaceReady(facts);
                    self.tell(at, node, Event::ActionDone { id, outcome });
                }
            }
        }
    }

    fn start(&mut self, at: u64, node: usize) {
        // The subnets are looked up once, beside what is going on.
        self.begin(at, node, None, Step::Subnets);
        let facts = self.nodes[node].interface(DeviceIndex(0), 0, 0);
        let ids = vec![facts.id.clone()];
        let evidence = Evidence::Imds;
        self.tell(at, node, Event::InterfaceSeen { facts, evidence });
        self.tell(at, node, Event::InterfacesListed { ids, evidence });
        if let Some(every) = self.scenario.churn_ms {
            self.queue
                .at(at + every + self.chance.between(0, every), Happens::Goes(node));
        }
    }

    fn pod(&mut self, at: u64, node: usize, pod: u32) {
        let first = (pod as usize) < PODS;
        self.nodes[node]
            .pods
            .entry(pod)
            .or_insert(Pod { given_ms: at, first });
        let wants = Event::PodWants {
            request: RequestId(u64::from(pod)),
            key: key(pod),
            meta: PodMeta {
                namespace: "default".into(),
                name: pod.to_string(),
                interfaces: 1,
            },
            deadline: now(at + ADD_PATIENCE_MS).mono,
            cards: Cards::Any,
        };
        self.tell(at, node, wants);
    }

    /// The oldest pod goes, another one comes.
    fn goes(&mut self, at: u64, node: usize) {
        let Some(every) = self.scenario.churn_ms else {
            return;
        };
        let next = at + every;
        // The story of churn ends an hour after the last node came.
        if at < self.scenario.nodes.last().copied().unwrap_or(0) + 3_600_000 {
            self.queue.at(next, Happens::Goes(node));
        }
        if self.nodes[node].served.is_empty() {
            return;
        }
        let gone = self.nodes[node].served.remove(0);
        let pod = self.nodes[node].next_pod;
        self.nodes[node].next_pod += 1;
        let meta = PodMeta {
            namespace: "default".into(),
            name: gone.to_string(),
            interfaces: 1,
        };
        let request = RequestId(u64::MAX - u64::from(gone));
        self.tell(
            at,
            node,
            Event::PodGone {
                request,
                key: key(gone),
                meta,
            },
        );
        self.pod(at, node, pod);
    }

    fn tell(&mut self, at: u64, node: usize, event: Event) {
        let actions = self.nodes[node].pool.handle(now(at), event);
        for action in actions {
            self.order(at, node, action);
        }
        let of = &mut self.nodes[node];
        if let Some(wake) = of.pool.next_wake() {
            let wake = wake.0.saturating_sub(ORIGIN_MS).max(at + 1);
            if of.tick_ms.is_none_or(|t| t != wake) {
                of.tick_ms = Some(wake);
                self.queue.at(wake, Happens::Tick(node));
            }
        } else {
            of.tick_ms = None;
        }
    }

    fn order(&mut self, at: u64, node: usize, action: Action) {
        let (id, step) = match &action {
            Action::Reply { request, answer } => return self.reply(at, node, *request, answer),
            Action::CreateInterface { id, done, .. } => {
                (*id, if done.is_empty() { Step::Create } else { Step::Look })
            }
            Action::AssignAddresses { id, .. }
            | Action::AssignPrefixes { id, .. }
            | Action::AssignIpv6Prefix { id, .. } => (*id, Step::Assign),
            Action::ReleaseAddresses { id, .. } | Action::ReleasePrefixes { id, .. } => (*id, Step::Release),
            Action::DeleteInterface { id, .. } => (*id, Step::LookFirst),
            Action::Describe { id, .. } => (*id, Step::Describe),
        };
        self.begin(at, node, Some((id, action)), step);
    }

    fn reply(&mut self, at: u64, node: usize, request: RequestId, answer: &Answer) {
        let Ok(pod) = u32::try_from(request.0) else { return };
        match answer {
            Answer::Assigned(_) => {
                let of = &mut self.nodes[node];
                of.served.push(pod);
                if let Some(pod) = of.pods.remove(&pod) {
                    if pod.first {
                        self.served.push((at, at - pod.given_ms));
                    } else {
                        self.later.push(at - pod.given_ms);
                    }
                }
            }
            Answer::Refused(_) => {
                self.refusals += 1;
                let again = at + self.chance.between(KUBELET_MS.0, KUBELET_MS.1);
                self.queue.at(again, Happens::Pod(node, pod));
            }
            Answer::Released(_) | Answer::UnknownPod => {}
        }
    }

    fn begin(&mut self, at: u64, node: usize, action: Option<(ActionId, Action)>, step: Step) {
        let of = &mut self.nodes[node];
        let number = of.next_job;
        of.next_job += 1;
        let facts = match &action {
            // An earlier attempt made it; nothing but its attachment is missing.
            Some((_, Action::CreateInterface { done, .. })) => done.iter().find_map(|s| match s {
                Stage::Created { eni } => of.truth.get(eni).cloned(),
                Stage::Attached { .. } => None,
            }),
            _ => None,
        };
        let job = Job {
            action,
            step,
            tries: 0,
            until_ms: at + patience(step),
            facts,
        };
        of.jobs.insert(number, job);
        self.turn(at, node, number);
    }

    /// Asks the back-off for leave.
    fn turn(&mut self, at: u64, node: usize, number: u64) {
        let base = self.base;
        let of = &mut self.nodes[node];
        let Some(job) = of.jobs.get(&number) else { return };
        let (action, until) = (job.step.action(), job.until_ms);
        match of
            .backoffs
            .entry(action)
            .or_default()
            .admit(base + Duration::from_millis(at))
        {
            Admission::Go(ticket) => {
                let there = at + self.chance.between(HALF_CALL_MS.0, HALF_CALL_MS.1);
                self.queue.at(there, Happens::Arrives(node, number, ticket));
            }
            Admission::Until(when) => {
                let when = (when - base).as_millis() as u64 + 1;
                if when > until {
                    self.failed(at, node, number, when);
                } else {
                    self.queue.at(when, Happens::Turn(node, number));
                }
            }
            Admission::Full => {
                if of.full.entry(action).or_default().insert(number) {
                    self.queue.at(until.max(at), Happens::Enough(node, number));
                }
            }
        }
    }

    fn answered(&mut self, at: u64, node: usize, number: u64, ticket: Ticket, passed: bool) {
        let (base, chance) = (self.base, self.chance.part());
        let of = &mut self.nodes[node];
        let Some(action) = of.jobs.get(&number).map(|j| j.step.action()) else {
            return;
        };
        let ended = if passed { Ended::Answered } else { Ended::Throttled };
        let backoff = of.backoffs.entry(action).or_default();
        let until = backoff.settle(ticket, base + Duration::from_millis(at), ended, chance);
        let waiting = of.full.remove(&action).unwrap_or_default();
        let until = until.map(|t| (t - base).as_millis() as u64 + 1);
        if passed {
            self.passed(at, node, number);
        } else {
            self.failed(at, node, number, until.unwrap_or(at));
        }
        for other in waiting {
            self.turn(at, node, other);
        }
    }

    /// A call was refused, or did not get its turn: the executor repeats it, or the pool is told.
    fn failed(&mut self, at: u64, node: usize, number: u64, retry_ms: u64) {
        let of = &mut self.nodes[node];
        let Some(job) = of.jobs.get_mut(&number) else {
            return;
        };
        job.tries += 1;
        if job.step.is_repeated() && (job.tries < TRIES || job.action.is_none()) {
            let again = retry_ms.max(at + 250);
            job.until_ms = again + patience(job.step);
            self.queue.at(again, Happens::Turn(node, number));
            return;
        }
        let Some(Job {
            action: Some((id, _)),
            ..
        }) = of.jobs.remove(&number)
        else {
            return;
        };
        let failed = Event::ActionFailed {
            id,
            class: FailureClass::Throttled,
            message: "RequestLimitExceeded".to_owned(),
            retry_at: Some(now(retry_ms).mono),
        };
        self.tell(at, node, failed);
    }

    /// A call was carried out.
    fn passed(&mut self, at: u64, node: usize, number: u64) {
        let link = self.chance.between(LINK_MS.0, LINK_MS.1);
        let of = &mut self.nodes[node];
        let Some(job) = of.jobs.get_mut(&number) else {
            return;
        };
        job.tries = 0;
        let Some((id, action)) = job.action.clone() else {
            of.jobs.remove(&number);
            return;
        };
        let next = match job.step {
            Step::Create => {
                let Action::CreateInterface {
                    device,
                    addresses,
                    prefixes,
                    ..
                } = action
                else {
                    return;
                };
                let facts = of.interface(device, addresses, prefixes);
                let stage = Stage::Created {
                    eni: facts.id.clone(),
                };
                if let Some(job) = of.jobs.get_mut(&number) {
                    job.facts = Some(facts);
                }
                self.tell(at, node, Event::Progress { id, stage });
                Some(Step::Attach)
            }
            Step::Look => Some(Step::Attach),
            Step::Attach => {
                let stage = Stage::Attached {
                    attachment: "eni-attach-1".into(),
                };
                self.tell(at, node, Event::Progress { id, stage });
                self.begin(at, node, None, Step::Modify);
                self.queue.at(at + link, Happens::Link(node, number));
                return;
            }
            Step::LookFirst => Some(Step::Detach),
            Step::Detach => {
                // The first look comes at once, the second when it has come free.
                if let Some(job) = of.jobs.get_mut(&number) {
                    (job.step, job.until_ms) = (Step::LookFree, at + link + patience(Step::LookFree));
                }
                self.queue.at(at + link, Happens::Turn(node, number));
                return;
            }
            Step::LookFree => Some(Step::Delete),
            Step::Subnets | Step::Modify | Step::Assign | Step::Release | Step::Delete | Step::Describe => {
                None
            }
        };
        if let Some(step) = next {
            if let Some(job) = self.nodes[node].jobs.get_mut(&number) {
                (job.step, job.until_ms) = (step, at + patience(step));
            }
            return self.turn(at, node, number);
        }
        let outcome = self.nodes[node].outcome(action);
        self.nodes[node].jobs.remove(&number);
        self.tell(at, node, Event::ActionDone { id, outcome });
    }
}

impl Node {
    /// What a finished action brought.
    fn outcome(&mut self, action: Action) -> Outcome {
        match action {
            Action::AssignAddresses { eni, count, .. } => {
                let addresses = self.give(count);
                if let Some(truth) = self.truth.get_mut(&eni) {
                    truth.addresses.extend(&addresses);
                }
                Outcome::Assigned {
                    addresses,
                    prefixes: Vec::new(),
                }
            }
            Action::AssignPrefixes { eni, count, .. } => {
                let prefixes = self.give_prefixes(count);
                if let Some(truth) = self.truth.get_mut(&eni) {
                    truth.prefixes.extend(&prefixes);
                }
                Outcome::Assigned {
                    addresses: Vec::new(),
                    prefixes,
                }
            }
            Action::ReleaseAddresses { eni, addresses, .. } => {
                if let Some(truth) = self.truth.get_mut(&eni) {
                    truth.addresses.retain(|a| !addresses.contains(a));
                }
                Outcome::Gone
            }
            Action::ReleasePrefixes { eni, prefixes, .. } => {
                if let Some(truth) = self.truth.get_mut(&eni) {
                    truth.prefixes.retain(|p| !prefixes.contains(p));
                }
                Outcome::Gone
            }
            Action::Describe { eni, .. } => Outcome::Described(self.truth.get(&eni).cloned()),
            _ => Outcome::Gone,
        }
    }
}

fn patience(step: Step) -> u64 {
    if step.action().is_read() {
        PATIENCE_MS.1
    } else {
        PATIENCE_MS.0
    }
}
