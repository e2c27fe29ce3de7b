//! A model of the AWS VPC CNI's node agent, from its documented behaviour: which calls it makes, in which order, and how
//! it repeats them. One thread a node: what it waits for, everything behind it waits for too.
//!
//! * Every call goes through the SDK: three attempts, the pauses drawn up to 1 s, 2 s (20 s at most).
//! * Start: DescribeNetworkInterfaces (12 times, then the agent ends), CreateTags on the primary (5 times, then it ends),
//!   DescribeSubnets (is the primary's excluded?), the primary's security groups set once, one pass of growth; a
//!   refused assignment ends the agent. It comes back as the kubelet restarts it: after 10 s, twice as long each time, 5
//!   min at most. Pods are given to the node all the while and are served once the agent serves.
//! * Every 5 s, if fewer addresses are free than the warm target: fill the primary, else another interface. An interface is
//!   DescribeSubnets, CreateNetworkInterface, DescribeInstances, AttachNetworkInterface, ModifyNetworkInterfaceAttribute, and
//!   DescribeSubnets again; an attachment that fails is followed by DeleteNetworkInterface, 12 times.
//! * Whose last look at the subnets fails is found by the reconciliation a minute later, with a DescribeNetworkInterfaces.
//! * ADD fails at once without a free address; the kubelet comes again.
//!
//! Left out, to its advantage: the hourly look for leaked interfaces, IMDS's delays, the SDK's own clock skew and quota.

use std::collections::VecDeque;
use std::time::Instant;

use vpcnet_cloud::Ec2Action as Call;

use crate::account::Account;
use crate::queue::{Chance, Queue};
use crate::report::Run;
use crate::scenario::{
    HALF_CALL_MS, INTERFACES, KUBELET_MS, LINK_MS, MAX_PODS, PER_INTERFACE, PODS, Scenario, Way,
};

const LOOP_MS: u64 = 5_000;
const SDK_ATTEMPTS: u32 = 3;
const RESTART_MS: (u64, u64) = (10_000, 300_000);
const RECONCILE_MS: u64 = 60_000;
const COOLDOWN_MS: u64 = 30_000;

/// Where a node's one thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Describe,
    Tags,
    Excluded,
    Groups,
    /// Filling the primary, or a single address after that failed. `true`: in the first pass, whose failure ends the agent.
    Fill {
        single: bool,
        first: bool,
    },
    Subnets,
    Create,
    Instance,
    Attach,
    Modify,
    SubnetsAgain,
    /// The interface that could not be attached.
    Delete,
    /// The interface whose set-up was left half done.
    Adopt,
    Idle,
}

impl At {
    fn call(self) -> Call {
        match self {
            Self::Describe | Self::Adopt | Self::Idle => Call::DescribeNetworkInterfaces,
            Self::Tags => Call::CreateTags,
            Self::Excluded | Self::Subnets | Self::SubnetsAgain => Call::DescribeSubnets,
            Self::Groups | Self::Modify => Call::ModifyNetworkInterfaceAttribute,
            Self::Fill { .. } => Call::AssignPrivateIpAddresses,
            Self::Create => Call::CreateNetworkInterface,
            Self::Instance => Call::DescribeInstances,
            Self::Attach => Call::AttachNetworkInterface,
            Self::Delete => Call::DeleteNetworkInterface,
        }
    }

    /// How often it is tried around the SDK, the first and the longest pause between, and their jitter in hundredths.
    fn tries(self) -> (u32, u64, u64, u64) {
        match self {
            Self::Describe => (12, 10, 120, 0),
            Self::Tags => (5, 500, 60_000, 30),
            Self::Delete => (12, 500, 60_000, 15),
            _ => (1, 0, 0, 0),
        }
    }
}

struct Node {
    at: At,
    attempts: u32,
    tries: u32,
    restarts: u32,
    serving: bool,
    /// Interfaces that are attached.
    interfaces: u32,
    /// Addresses of the primary, or its prefixes.
    filled: u32,
    total: u32,
    assigned: u32,
    /// Addresses that cool down, and until when.
    cooling: VecDeque<u64>,
    /// Addresses on an interface whose set-up was left half done.
    stranded: u32,
    /// Which run of the thread an event belongs to.
    run: u64,
    served: u32,
}

enum Happens {
    Go(usize, u64),
    Arrives(usize, u64),
    Answered(usize, u64, bool),
    Pod { node: usize, given: u64, first: bool },
    Goes(usize),
}

struct World<'a> {
    nodes: Vec<Node>,
    scenario: &'a Scenario,
    way: Way,
    account: Account,
    queue: Queue<Happens>,
    chance: Chance,
    served: Vec<(u64, u64)>,
    later: Vec<u64>,
    refusals: u64,
}

pub(crate) fn run(scenario: &Scenario, way: Way) -> Run {
    let began = Instant::now();
    let mut world = World {
        nodes: scenario.nodes.iter().map(|_| Node::new()).collect(),
        scenario,
        way,
        account: Account::new(),
        queue: Queue::new(),
        chance: Chance::new(3),
        served: Vec::new(),
        later: Vec::new(),
        refusals: 0,
    };
    for (node, at) in scenario.nodes.iter().enumerate() {
        world.queue.at(*at, Happens::Go(node, 0));
        for given in &scenario.pods[node * PODS..(node + 1) * PODS] {
            world.queue.at(
                *given,
                Happens::Pod {
                    node,
                    given: *given,
                    first: true,
                },
            );
        }
        if let Some(every) = scenario.churn_ms {
            world.queue.at(at + every, Happens::Goes(node));
        }
    }
    while let Some((at, what)) = world.queue.next() {
        if at > scenario.until_ms {
            break;
        }
        world.happens(at, what);
    }
    Run {
        who: "model of the AWS VPC CNI",
        account: world.account,
        served: world.served,
        later: world.later,
        refusals: world.refusals,
        events: world.queue.events(),
        took: began.elapsed(),
    }
}

impl Node {
    fn new() -> Self {
        Self {
            at: At::Describe,
            attempts: 0,
            tries: 0,
            restarts: 0,
            serving: false,
            interfaces: 1,
            filled: 0,
            total: 0,
            assigned: 0,
            cooling: VecDeque::new(),
            stranded: 0,
            run: 0,
            served: 0,
        }
    }

    fn each(way: Way) -> u32 {
        if way == Way::Prefixes { 16 } else { 1 }
    }

    /// Fewer addresses are free than one interface, or one prefix, has.
    fn is_low(&self, way: Way) -> bool {
        let wanted = if way == Way::Prefixes { 16 } else { PER_INTERFACE };
        self.total < MAX_PODS && self.total.saturating_sub(self.assigned) < wanted
    }
}

impl World<'_> {
    fn happens(&mut self, at: u64, what: Happens) {
        match what {
            Happens::Go(node, run) => {
                let of = &mut self.nodes[node];
                if of.run != run {
                    return;
                }
                if of.at == At::Idle && !self.grow(node, at) {
                    return;
                }
                self.queue.at(
                    at + self.chance.between(HALF_CALL_MS.0, HALF_CALL_MS.1),
                    Happens::Arrives(node, run),
                );
            }
            Happens::Arrives(node, run) => {
                let passed = self.account.call(self.nodes[node].at.call(), at);
                let back = at + self.chance.between(HALF_CALL_MS.0, HALF_CALL_MS.1);
                self.queue.at(back, Happens::Answered(node, run, passed));
            }
            Happens::Answered(node, run, passed) => self.answered(at, node, run, passed),
            Happens::Pod { node, given, first } => self.pod(at, node, given, first),
            Happens::Goes(node) => {
                let every = self.scenario.churn_ms.unwrap_or(RECONCILE_MS);
                if at < self.scenario.nodes.last().copied().unwrap_or(0) + 3_600_000 {
                    self.queue.at(at + every, Happens::Goes(node));
                }
                let of = &mut self.nodes[node];
                if of.served > 0 {
                    of.served -= 1;
                    of.assigned -= 1;
                    of.cooling.push_back(at + COOLDOWN_MS);
                    self.pod(at, node, at, false);
                }
            }
        }
    }

    fn pod(&mut self, at: u64, node: usize, given: u64, first: bool) {
        let of = &mut self.nodes[node];
        while of.cooling.front().is_some_and(|until| *until <= at) {
            of.cooling.pop_front();
        }
        if of.serving && of.total > of.assigned + of.cooling.len() as u32 {
            of.assigned += 1;
            of.served += 1;
            if first {
                self.served.push((at, at - given));
            } else {
                self.later.push(at - given);
            }
            // The loop looks every 5 s.
            if of.at == At::Idle && of.is_low(self.way) {
                of.run += 1;
                let next = at + self.chance.between(0, LOOP_MS);
                self.queue.at(next, Happens::Go(node, of.run));
            }
        } else {
            self.refusals += u64::from(of.serving);
            let again = at + self.chance.between(KUBELET_MS.0, KUBELET_MS.1);
            self.queue.at(again, Happens::Pod { node, given, first });
        }
    }

    /// One pass of the loop; false: there is nothing to do.
    fn grow(&mut self, node: usize, _at: u64) -> bool {
        let way = self.way;
        let of = &mut self.nodes[node];
        of.at = if of.stranded > 0 {
            At::Adopt
        } else if !of.is_low(way) {
            return false;
        } else if of.filled < PER_INTERFACE {
            At::Fill {
                single: false,
                first: false,
            }
        } else if of.interfaces < INTERFACES {
            At::Subnets
        } else {
            return false;
        };
        true
    }

    fn answered(&mut self, at: u64, node: usize, run: u64, passed: bool) {
        let of = &mut self.nodes[node];
        if of.run != run {
            return;
        }
        if passed {
            (of.attempts, of.tries) = (0, 0);
            return self.passed(at, node);
        }
        of.attempts += 1;
        if of.attempts < SDK_ATTEMPTS {
            let longest = 1_000_u64 << (of.attempts - 1);
            let pause = self.chance.between(0, longest);
            self.queue.at(at + pause, Happens::Go(node, run));
            return;
        }
        of.attempts = 0;
        of.tries += 1;
        let (tries, first, most, jitter) = of.at.tries();
        if of.tries < tries {
            let pause = (first << (of.tries - 1).min(20)).min(most);
            let pause = pause + self.chance.between(0, pause * jitter / 100 + 1);
            self.queue.at(at + pause, Happens::Go(node, run));
            return;
        }
        of.tries = 0;
        self.gave_up(at, node);
    }

    /// The next call at once.
    fn then(&mut self, at: u64, node: usize, next: At) {
        self.nodes[node].at = next;
        let run = self.nodes[node].run;
        self.queue.at(at, Happens::Go(node, run));
    }

    /// The pass is over; the loop comes again in 5 s.
    fn rest(&mut self, at: u64, node: usize, pause: u64) {
        self.nodes[node].at = At::Idle;
        let run = self.nodes[node].run;
        self.queue.at(at + pause, Happens::Go(node, run));
    }

    fn passed(&mut self, at: u64, node: usize) {
        let each = Node::each(self.way);
        let of = &mut self.nodes[node];
        match of.at {
            At::Describe => self.then(at, node, At::Tags),
            At::Tags => self.then(at, node, At::Excluded),
            At::Excluded => self.then(at, node, At::Groups),
            At::Groups => self.then(
                at,
                node,
                At::Fill {
                    single: false,
                    first: true,
                },
            ),
            At::Fill { single, .. } => {
                let many = if single || self.way == Way::Prefixes {
                    1
                } else {
                    PER_INTERFACE - of.filled
                };
                of.filled += many;
                of.total += many * each;
                (of.serving, of.restarts) = (true, 0);
                self.rest(at, node, LOOP_MS);
            }
            At::Subnets => self.then(at, node, At::Create),
            At::Create => self.then(at, node, At::Instance),
            At::Instance => self.then(at, node, At::Attach),
            At::Attach => self.then(at, node, At::Modify),
            At::Modify => {
                let link = self.chance.between(LINK_MS.0, LINK_MS.1);
                self.then(at + link, node, At::SubnetsAgain);
            }
            At::SubnetsAgain => {
                of.interfaces += 1;
                of.total += PER_INTERFACE * each;
                self.rest(at, node, LOOP_MS);
            }
            At::Adopt => {
                of.total += of.stranded;
                of.stranded = 0;
                self.rest(at, node, LOOP_MS);
            }
            At::Delete | At::Idle => self.rest(at, node, LOOP_MS),
        }
    }

    fn gave_up(&mut self, at: u64, node: usize) {
        let each = Node::each(self.way);
        let of = &mut self.nodes[node];
        match of.at {
            // The agent ends, and everything begins again.
            At::Describe
            | At::Tags
            | At::Fill {
                single: true,
                first: true,
            } => {
                let pause = (RESTART_MS.0 << of.restarts.min(10)).min(RESTART_MS.1);
                of.restarts += 1;
                self.then(at + pause, node, At::Describe);
            }
            At::Excluded => self.then(at, node, At::Groups),
            At::Groups => self.then(
                at,
                node,
                At::Fill {
                    single: false,
                    first: true,
                },
            ),
            At::Fill { single: false, first } => self.then(at, node, At::Fill { single: true, first }),
            At::Attach => self.then(at, node, At::Delete),
            // Freed again: to be detached and deleted.
            At::Modify => self.then(at, node, At::Delete),
            At::SubnetsAgain => {
                of.interfaces += 1;
                of.stranded += PER_INTERFACE * each;
                self.rest(at, node, RECONCILE_MS);
            }
            At::Instance => self.then(at, node, At::Delete),
            At::Fill { .. } | At::Subnets | At::Create | At::Delete | At::Adopt | At::Idle => {
                self.rest(at, node, LOOP_MS);
            }
        }
    }
}
