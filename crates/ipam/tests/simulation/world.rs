//! The world: a VPC, nodes in it, and one clock. Everything that happens does so here, in the order of time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use vpcnet_ipam::{Event, Mono, Now};
use vpcnet_lab::model as ec2;

use super::calls::Answered;
use super::node::{Life, Node};
use super::script::{Op, Setup, TYPES, Wrong};
use super::setup::{timing, vpc, weather};

/// A broken law.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Broken {
    pub(crate) law: &'static str,
    pub(crate) detail: String,
}

/// Something that happens by itself.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// An answer arrives at the executor of a life.
    Answer {
        node: usize,
        life: u32,
        task: u64,
        answer: Answered,
    },
    /// A plugin has made its veth.
    Plugin { node: usize, sandbox: u32 },
    /// The runtime cleans a sandbox up.
    Clean { node: usize, sandbox: u32 },
    /// The kubelet tries a pod again.
    Retry { node: usize, pod: u8 },
    /// The agent is started.
    Start { node: usize },
    /// The kernel's links are looked at once more, some time after a start.
    LookAgain { node: usize, life: u32 },
    /// What is attached is listed anew.
    Relist { node: usize, life: u32, pause: u64 },
    /// Links that no interface of the pool has are looked for in IMDS, for the nth time.
    Newcomers { node: usize, life: u32, nth: usize },
}

pub(crate) struct World {
    pub(crate) vpc: ec2::Vpc,
    pub(crate) nodes: Vec<Node>,
    pub(crate) subnets: Vec<ec2::SubnetId>,
    /// Milliseconds.
    pub(crate) at: u64,
    queue: BTreeMap<(u64, u64), Due>,
    turn: u64,
    /// Delivered events, ticks apart.
    pub(crate) steps: u64,
    pub(crate) checked_at: u64,
    pub(crate) broken: Option<Broken>,
    /// Who uses which address: from the answer to the plugin on until the sandbox dies.
    pub(crate) live: BTreeMap<IpAddr, (usize, u32)>,
    /// Until when what a pod gave back may be neither handed out nor given back to EC2.
    pub(crate) rests: BTreeMap<(usize, IpAddr), u64>,
    /// Addresses that somebody took away from an interface of ours. What becomes of them is EC2's business.
    pub(crate) robbed: BTreeSet<IpAddr>,
    /// Interfaces that are there and that no record tells of any more.
    pub(crate) unrecorded: BTreeSet<ec2::EniId>,
    /// Attached by others.
    pub(crate) foreign: VecDeque<ec2::EniId>,
    /// In subnets, to make them full.
    pub(crate) crowd: Vec<ec2::EniId>,
    /// Between calms, while no operation says otherwise.
    pub(crate) weather: ec2::Timing,
    /// What happens is written down: to write it costs more than that it happens.
    told: bool,
    pub(crate) log: VecDeque<String>,
    pub(crate) requests: u64,
    pub(crate) containers: u32,
    pub(crate) names: u32,
}

/// Lines kept of what happened.
const LOG: usize = 400;

impl World {
    pub(crate) fn new(setup: &Setup, told: bool) -> Self {
        let (vpc, subnets) = vpc(setup);
        let mut world = Self {
            vpc,
            nodes: Vec::new(),
            subnets,
            at: 1_000,
            queue: BTreeMap::new(),
            turn: 0,
            steps: 0,
            checked_at: 0,
            broken: None,
            live: BTreeMap::new(),
            rests: BTreeMap::new(),
            robbed: BTreeSet::new(),
            unrecorded: BTreeSet::new(),
            foreign: VecDeque::new(),
            crowd: Vec::new(),
            weather: weather(setup),
            told,
            log: VecDeque::new(),
            requests: 0,
            containers: 0,
            names: 0,
        };
        for (n, subnet) in setup.subnets.iter().enumerate() {
            world.strew(n, subnet);
        }
        for node in &setup.nodes {
            let kind = usize::from(node.kind) % TYPES.len();
            let subnet = usize::from(node.subnet) % world.subnets.len();
            let Some(instance) = world.launch(kind, subnet) else {
                continue; // There is no address for it.
            };
            world.nodes.push(Node::new(instance, kind, subnet, world.at));
            let n = world.nodes.len() - 1;
            for knob in &node.knobs {
                world.turn_knob(n, knob);
            }
            world.start(n);
        }
        world
    }

    pub(crate) fn wrong(&mut self, law: &'static str, detail: impl Into<String>) {
        let detail = detail.into();
        self.note(|| format!("BROKEN {law}: {detail}"));
        if self.broken.is_none() {
            self.broken = Some(Broken { law, detail });
        }
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if !self.told {
            return;
        }
        if self.log.len() >= LOG {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:>10} {}", self.at, text()));
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_millis(self.at)
    }

    pub(crate) fn now(&self, n: usize) -> Now {
        let node = &self.nodes[n];
        let wall_ms = 1_800_000_000_000_i64 + i64::try_from(self.at).unwrap() + node.wall_shift_ms;
        Now {
            mono: Mono(self.at - node.booted_at + 1_000),
            wall_ns: wall_ms * 1_000_000,
        }
    }

    /// A point of a node's clock as one of the world's.
    pub(crate) fn world_time(&self, n: usize, at: Mono) -> u64 {
        (at.0 + self.nodes[n].booted_at).saturating_sub(1_000)
    }

    pub(crate) fn queue(&mut self, at: u64, due: Due) {
        self.turn += 1;
        self.queue.insert((at.max(self.at), self.turn), due);
    }

    /// When the next thing happens by itself.
    pub(crate) fn next(&self) -> Option<u64> {
        let wakes = self.nodes.iter().enumerate().filter_map(|(n, node)| {
            let life = node.life.as_ref()?;
            let pool = life.pool.next_wake().map(|at| self.world_time(n, at));
            pool.into_iter().chain(life.journal_retry).min()
        });
        wakes
            .chain(self.queue.first_key_value().map(|((at, _), _)| *at))
            .min()
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.at + ms;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.at = next.max(self.at);
            self.vpc.advance(self.time());
            self.fire();
            if self.broken.is_some() {
                return;
            }
        }
        self.at = end;
        self.vpc.advance(self.time());
    }

    /// Does what is due first.
    pub(crate) fn fire(&mut self) {
        if let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= self.at
        {
            let due = entry.remove();
            self.happen(due);
            return;
        }
        for n in 0..self.nodes.len() {
            let Some(life) = &self.nodes[n].life else { continue };
            let wake = life.pool.next_wake().map(|at| self.world_time(n, at));
            if wake.is_some_and(|at| at <= self.at) {
                self.tell(n, vec![Event::Tick]);
            } else if life.journal_retry.is_some_and(|at| at <= self.at) {
                self.write_journal(n);
            }
        }
    }

    fn is(&self, node: usize, number: u32) -> bool {
        self.nodes[node]
            .life
            .as_ref()
            .is_some_and(|l: &Life| l.number == number)
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Answer {
                node,
                life,
                task,
                answer,
            } if self.is(node, life) => {
                self.resume(node, task, answer);
            }
            Due::LookAgain { node, life } if self.is(node, life) => self.show_veths(node),
            Due::Relist { node, life, pause } if self.is(node, life) => self.relist(node, pause),
            Due::Newcomers { node, life, nth } if self.is(node, life) => self.newcomers(node, nth),
            Due::Answer { .. } | Due::LookAgain { .. } | Due::Relist { .. } | Due::Newcomers { .. } => {}
            Due::Plugin { node, sandbox } => self.plugged(node, sandbox),
            Due::Clean { node, sandbox } => self.del(node, sandbox),
            Due::Retry { node, pod } => self.retry(node, pod),
            Due::Start { node } => self.start(node),
        }
    }

    /// Does what the script says.
    pub(crate) fn apply(&mut self, op: &Op) {
        self.note(|| format!("-- {op:?}"));
        let count = self.nodes.len();
        if count == 0 {
            return;
        }
        let nth = |node: &u8| usize::from(*node) % count;
        match op {
            Op::Pass(ms) => self.pass(*ms),
            Op::Add {
                node,
                pod,
                plugin,
                patience_s,
                every,
            } => {
                let n = nth(node);
                self.want(n, *pod, *plugin, u64::from(*patience_s) * 1_000, *every);
            }
            Op::Burst { node, first, count } => {
                let n = nth(node);
                for pod in *first..first.saturating_add(*count) {
                    self.want(n, pod, Some(100), 60_000, false);
                }
            }
            Op::Again { node, pod } => self.ask_again(nth(node), *pod),
            Op::Del { node, pod } => self.remove_pod(nth(node), *pod),
            Op::DelAll { node } => {
                let n = nth(node);
                let pods: Vec<u8> = self.nodes[n].pods.keys().copied().collect();
                for pod in pods {
                    self.remove_pod(n, pod);
                }
            }
            Op::Vanish { node, pod } => self.vanish(nth(node), *pod),
            Op::HangUp {
                node,
                nth: which,
                unseen,
            } => {
                let n = nth(node);
                self.hang_up(n, *which, *unseen);
            }
            Op::Weather {
                latency,
                attach,
                read_lag,
                imds_lag,
            } => {
                self.vpc
                    .set_timing(timing(*latency, *attach, *read_lag, *imds_lag));
            }
            Op::Fault {
                node,
                target,
                wrong,
                times,
            } => {
                let n = nth(node);
                self.add_fault(n, *target, *wrong, Some(u64::from(*times)), None);
                // Of what the first of two calls brought nobody tells.
                self.nodes[n].meddled |= *wrong == Wrong::Twice;
            }
            Op::Storm {
                target,
                wrong,
                seconds,
            } => {
                let until = self.time() + Duration::from_secs(u64::from(*seconds));
                for n in 0..self.nodes.len() {
                    self.add_fault(n, *target, *wrong, None, Some(until));
                }
                if *wrong == Wrong::Twice {
                    self.nodes.iter_mut().for_each(|node| node.meddled = true);
                }
            }
            Op::Disk {
                node,
                checkpoints,
                journals,
            } => {
                let node = &mut self.nodes[nth(node)];
                (node.bad_checkpoints, node.bad_journals) = (*checkpoints, *journals);
            }
            Op::Crash {
                node,
                point,
                checkpoint,
                journal,
                down_ms,
            } => {
                self.doom(nth(node), *point, *checkpoint, *journal, u64::from(*down_ms));
            }
            Op::Reboot { node, files } => self.reboot(nth(node), *files),
            Op::Replace { node, copied } => self.replace(nth(node), *copied),
            Op::Interlude {
                node,
                adds,
                dels,
                grows,
            } => self.interlude(nth(node), *adds, *dels, *grows),
            Op::Wall { node, by } => self.nodes[nth(node)].wall_shift_ms += i64::from(*by) * 1_000,
            Op::Look { node } => self.look(nth(node)),
            Op::Ask { node } => self.look_closely(nth(node)),
            Op::Veths { node } => self.show_veths(nth(node)),
            Op::Count { node } => self.count(nth(node)),
            Op::Set { node, knob } => {
                let n = nth(node);
                self.turn_knob(n, knob);
                let targets = self.nodes[n].targets.clone();
                self.tell(n, vec![Event::TargetsChanged(targets)]);
            }
            Op::HideLink { node } => self.nodes[nth(node)].hides_next = true,
            Op::TakeAway {
                node,
                eni,
                nth: which,
            } => self.take_away(nth(node), *eni, *which),
            Op::GiveExtra { node, eni } => self.give_extra(nth(node), *eni),
            Op::PullOut { node, eni } => self.pull_out(nth(node), *eni),
            Op::PutIn { node, device } => self.put_in(nth(node), *device),
            Op::TakeBack => self.take_back(),
            Op::Crowd { subnet, count } => self.crowd(*subnet, *count),
            Op::Calm => self.calm_down(),
        }
        self.check_sometimes();
    }

    fn launch(&mut self, kind: usize, subnet: usize) -> Option<ec2::InstanceId> {
        self.names += 1;
        let mut spec = ec2::NodeSpec::new(&format!("node-{}", self.names), TYPES[kind].name);
        spec.subnet = Some(self.subnets[subnet].to_string());
        self.vpc.run_instance(self.time(), &spec).ok()
    }

    /// The instance ends, and another takes its place.
    fn replace(&mut self, n: usize, copied: bool) {
        self.kill(n);
        self.rests.retain(|(node, _), _| *node != n);
        let gone = self.nodes[n].instance.clone();
        let _ = self.vpc.terminate_instance(self.time(), &gone);
        let going: Vec<ec2::EniId> = self.attached(&gone).map(|i| i.id.clone()).collect();
        // Those that are not to go with it, as nobody could say so yet, are for the search of leaked ones. So are those
        // whose agent dies before they were attached.
        self.unrecorded.extend(going);
        let own: Vec<ec2::EniId> = self.made_for(&gone).map(|i| i.id.clone()).collect();
        self.unrecorded.extend(own);
        self.live.retain(|_, (node, _)| *node != n);
        let (kind, subnet) = (self.nodes[n].kind, self.nodes[n].subnet);
        let old_disk = self.nodes[n].disk.clone();
        let targets = self.nodes[n].targets.clone();
        self.nodes[n].gone = true;
        self.pass(2_000);
        let Some(instance) = self.launch(kind, subnet) else {
            // No room: the node stays away, and its place is tried again by the next such operation.
            self.nodes[n].wipe();
            return;
        };
        let lives = self.nodes[n].lives;
        let mut node = Node::new(instance, kind, subnet, self.at);
        node.lives = lives + 1;
        node.targets = targets;
        if copied {
            node.disk = old_disk;
        }
        self.nodes[n] = node;
        self.start(n);
    }

    fn reboot(&mut self, n: usize, files: bool) {
        if self.nodes[n].gone {
            return;
        }
        self.kill(n);
        self.live.retain(|_, (node, _)| *node != n);
        let at = self.at;
        let node = &mut self.nodes[n];
        node.booted_at = at;
        node.boot += 1;
        for sandbox in node.sandboxes.values_mut() {
            sandbox.dead = true;
            sandbox.veth = false;
        }
        // Points in time of another boot mean nothing: what rests then begins anew, for as long as is then set.
        self.rests.retain(|(node, _), _| *node != n);
        // Without its links the checkpoint is the only record of a sandbox.
        let listed = self.nodes[n]
            .disk
            .checkpoint
            .as_deref()
            .map(super::node::keys)
            .unwrap_or_default();
        for sandbox in self.nodes[n].sandboxes.values_mut() {
            sandbox.forgotten |= !listed.contains(&sandbox.key);
        }
        if !files {
            self.lose_checkpoint(n);
            self.lose_journal(n);
        }
        // The kubelet clears its old sandboxes away and makes new ones for what is to run.
        let old: Vec<u32> = self.nodes[n].sandboxes.keys().copied().collect();
        for sandbox in old {
            self.queue(at + 8_000, Due::Clean { node: n, sandbox });
        }
        let pods: Vec<u8> = self.nodes[n].pods.keys().copied().collect();
        for pod in pods {
            self.queue(at + 20_000, Due::Retry { node: n, pod });
        }
        self.queue(at + 5_000, Due::Start { node: n });
    }

    /// A call of somebody who may do everything.
    pub(crate) fn admin(&mut self, request: ec2::Request) -> Option<ec2::Response> {
        let reply = self.vpc.call(self.time(), &ec2::Caller::admin(), request);
        reply.outcome.ok()
    }
}
