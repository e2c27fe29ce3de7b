//! A node: what lies on its disk, what lives in its kernel, and the agent, whose loop keeps the order that the crate asks
//! for: checkpoint, answers, journal, calls. It may die between any two of these.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use vpcnet_ipam::{
    Action, ActionId, Answer, CardIndex, CardLimits, CustomNetwork, Event, FailureClass, Identity, Journal,
    Limits, Mode, PodKey, Pool, RequestId, SubnetId, Targets,
};
use vpcnet_lab::model as ec2;

use super::calls::Task;
use super::files::{Writers, from_files};
use super::pods::{Pod, Sandbox};
use super::script::{Kept, Knob, Point, TYPES};
use super::world::World;

/// Older versions of a file that are kept, to be found again.
const OLDER: usize = 6;
/// A journal that cannot be written is tried again after so many milliseconds.
const JOURNAL_RETRY: u64 = 5_000;

pub(crate) struct Node {
    pub(crate) instance: ec2::InstanceId,
    /// Its instance ended and no other came.
    pub(crate) gone: bool,
    pub(crate) kind: usize,
    pub(crate) subnet: usize,
    pub(crate) targets: Targets,
    pub(crate) booted_at: u64,
    pub(crate) boot: u32,
    pub(crate) wall_shift_ms: i64,
    pub(crate) disk: Disk,
    pub(crate) life: Option<Life>,
    pub(crate) lives: u32,
    pub(crate) pods: BTreeMap<u8, Pod>,
    pub(crate) sandboxes: BTreeMap<u32, Sandbox>,
    /// Interfaces whose link does not show.
    pub(crate) hidden: BTreeSet<ec2::EniId>,
    pub(crate) hides_next: bool,
    pub(crate) bad_checkpoints: u8,
    pub(crate) bad_journals: u8,
    /// Somebody else changed something that no call of ours told of, or the agent started from what lagging readers see.
    pub(crate) meddled: bool,
    /// Sandboxes that vanished without a DEL, with the life in which they did.
    pub(crate) vanished: BTreeMap<PodKey, u32>,
    pub(crate) doom: Option<Doom>,
}

/// How the agent is to die.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doom {
    pub(crate) point: Point,
    pub(crate) checkpoint: Kept,
    pub(crate) journal: Kept,
    pub(crate) down_ms: u64,
}

/// The files.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) checkpoint: Option<Vec<u8>>,
    /// The latest last.
    pub(crate) older: VecDeque<Vec<u8>>,
    pub(crate) state: Option<StateFile>,
}

/// The agent's own state: the pool's journal, and what calls were made with.
#[derive(Clone)]
pub(crate) struct StateFile {
    pub(crate) pool: Journal,
    pub(crate) salt: String,
    /// By client token: when the creation was begun, which is in its tags; whether an answer of it was lost.
    pub(crate) begun: BTreeMap<String, (i64, bool)>,
}

/// The agent while it runs.
pub(crate) struct Life {
    pub(crate) number: u32,
    pub(crate) pool: Pool,
    writer: Writers,
    written: Vec<u8>,
    written_generation: u64,
    journal_generation: Option<u64>,
    pub(crate) journal_retry: Option<u64>,
    pub(crate) salt: String,
    pub(crate) begun: BTreeMap<String, (i64, bool)>,
    pub(crate) tasks: BTreeMap<u64, Task>,
    pub(crate) asked: BTreeMap<RequestId, Caller>,
    /// What was given back since the last journal: until when it rests is not on disk yet.
    pub(crate) resting: Vec<(IpAddr, u64)>,
}

/// Somebody who waits for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) sandbox: u32,
    pub(crate) key: PodKey,
    /// He hung up, and nobody has noticed.
    pub(crate) deaf: bool,
}

impl Node {
    pub(crate) fn new(instance: ec2::InstanceId, kind: usize, subnet: usize, at: u64) -> Self {
        Self {
            instance,
            gone: false,
            kind,
            subnet,
            targets: Targets::default(),
            booted_at: at,
            boot: 1,
            wall_shift_ms: 0,
            disk: Disk::default(),
            life: None,
            lives: 0,
            pods: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            hidden: BTreeSet::new(),
            hides_next: false,
            bad_checkpoints: 0,
            bad_journals: 0,
            meddled: false,
            vanished: BTreeMap::new(),
            doom: None,
        }
    }

    /// Nothing runs here any more.
    pub(crate) fn wipe(&mut self) {
        self.life = None;
        self.pods.clear();
        self.sandboxes.clear();
        self.vanished.clear();
        self.disk = Disk::default();
        self.doom = None;
    }

    pub(crate) fn limits(&self) -> Limits {
        let kind = &TYPES[self.kind];
        let card = |(n, interfaces): (usize, &u32)| CardLimits {
            card: CardIndex(u32::try_from(n).unwrap()),
            interfaces: *interfaces,
        };
        Limits {
            cards: kind.cards.iter().enumerate().map(card).collect(),
            ipv4_per_interface: kind.ipv4,
        }
    }

    pub(crate) fn identity(&self, salt: &str) -> Identity {
        Identity {
            instance_id: self.instance.to_string(),
            token_salt: salt.to_owned(),
            boot_id: format!("{}-{}", self.instance, self.boot),
        }
    }
}

impl Life {
    pub(crate) fn new(number: u32, pool: Pool, salt: String, begun: BTreeMap<String, (i64, bool)>) -> Self {
        let mut writer = Writers::default();
        let written = writer.write(&pool);
        Self {
            number,
            written_generation: pool.checkpoint_generation(),
            pool,
            writer,
            written,
            journal_generation: None,
            journal_retry: None,
            salt,
            begun,
            tasks: BTreeMap::new(),
            asked: BTreeMap::new(),
            resting: Vec::new(),
        }
    }
}

impl World {
    /// One batch of the agent's loop.
    pub(crate) fn tell(&mut self, n: usize, events: Vec<Event>) {
        let mut events: VecDeque<Event> = events.into();
        loop {
            let now = self.now(n);
            let mut actions = Vec::new();
            while let Some(event) = events.pop_front() {
                self.note(|| format!("n{n} {event:?}"));
                let Some(life) = &mut self.nodes[n].life else {
                    return;
                };
                if event != Event::Tick {
                    self.steps += 1;
                }
                actions.extend(life.pool.handle(now, event));
                self.check_step(n);
            }
            self.commit(n, actions, &mut events);
            if events.is_empty() {
                self.check_sometimes();
                return;
            }
        }
    }

    /// The end of a batch.
    pub(crate) fn commit(&mut self, n: usize, actions: Vec<Action>, events: &mut VecDeque<Event>) {
        let is_reply = |a: &Action| matches!(a, Action::Reply { .. });
        let (replies, orders): (Vec<Action>, Vec<Action>) = actions.into_iter().partition(is_reply);
        let replies = replies.into_iter().filter_map(|a| match a {
            Action::Reply { request, answer } => Some((request, answer)),
            _ => None,
        });
        let (mut replies, mut orders) = (replies.collect::<Vec<_>>(), orders);
        if self.dies(n, Point::BeforeCheckpoint) {
            return;
        }
        self.write_checkpoint(n, &mut replies, &mut orders);
        if self.dies(n, Point::BeforeAnswers) {
            return;
        }
        for (request, answer) in replies {
            self.answer(n, request, answer, events);
        }
        if self.dies(n, Point::BeforeJournal) {
            return;
        }
        for order in &orders {
            self.check_order(n, order);
            self.begin_record(n, order);
        }
        if !self.write_journal(n) {
            let now = self.now(n);
            let retry_at = Some(now.mono.plus(std::time::Duration::from_millis(JOURNAL_RETRY)));
            events.extend(orders.iter().map(|order| Event::ActionFailed {
                id: id_of(order),
                class: FailureClass::NotBegun,
                message: "the state file cannot be written".into(),
                retry_at,
            }));
            return;
        }
        if self.dies(n, Point::BeforeCalls) {
            return;
        }
        let any = !orders.is_empty();
        for order in orders {
            self.note(|| format!("n{n} order {order:?}"));
            self.begin(n, order);
        }
        if any {
            self.dies(n, Point::AfterCalls);
        }
    }

    /// What a creation is made with is fixed before its first call: a repeat must be the same.
    fn begin_record(&mut self, n: usize, order: &Action) {
        let wall = self.now(n).wall_ns;
        let Some(life) = &mut self.nodes[n].life else {
            return;
        };
        if let Action::CreateInterface { client_token, .. } = order
            && !life.begun.contains_key(client_token)
        {
            life.begun.insert(client_token.clone(), (wall, false));
            life.journal_generation = None;
        }
    }

    fn write_checkpoint(
        &mut self,
        n: usize,
        replies: &mut Vec<(RequestId, Answer)>,
        orders: &mut Vec<Action>,
    ) {
        let now = self.now(n);
        let node = &mut self.nodes[n];
        let Some(life) = &mut node.life else { return };
        let generation = life.pool.checkpoint_generation();
        if generation == life.written_generation {
            return;
        }
        let next = life.writer.write(&life.pool);
        if node.bad_checkpoints == 0 {
            life.written.clone_from(&next);
            life.written_generation = generation;
            node.disk.put_checkpoint(next);
            return;
        }
        node.bad_checkpoints -= 1;
        let (before, after) = (keys(&life.written), keys(&next));
        let keys: Vec<PodKey> = after.difference(&before).cloned().collect();
        let released: Vec<PodKey> = before.difference(&after).cloned().collect();
        let event = Event::CheckpointFailed {
            keys: keys.clone(),
            released: released.clone(),
            message: "disk full".into(),
        };
        let more = life.pool.handle(now, event);
        let next = life.writer.write(&life.pool);
        if super::node::keys(&next) == before {
            life.written_generation = life.pool.checkpoint_generation();
        }
        self.steps += 1;
        let mut undone = Vec::new();
        for action in more {
            match action {
                Action::Reply { request, answer } => undone.push((request, answer)),
                order => orders.push(order),
            }
        }
        let Some(life) = &self.nodes[n].life else { return };
        let touched = |request: &RequestId| {
            let caller = life.asked.get(request);
            caller.is_some_and(|c| keys.contains(&c.key) || released.contains(&c.key))
        };
        let mut refused = Vec::new();
        for (request, answer) in std::mem::take(replies) {
            if !touched(&request) {
                replies.push((request, answer));
            } else if !undone.iter().any(|(r, _)| *r == request) {
                refused.push(request);
            }
        }
        if undone
            .iter()
            .any(|(_, a)| matches!(a, Answer::Assigned(_) | Answer::Released(_)))
        {
            self.wrong("an answer that no checkpoint holds", format!("{undone:?}"));
        }
        replies.extend(undone);
        self.note(|| format!("n{n} checkpoint not written: undo {keys:?}, give back {released:?}"));
        for request in refused {
            self.refuse(n, request);
        }
        self.check_step(n);
    }

    /// Writes the journal if it moved; false: it is not on disk.
    pub(crate) fn write_journal(&mut self, n: usize) -> bool {
        let at = self.at;
        let node = &mut self.nodes[n];
        let Some(life) = &mut node.life else { return false };
        let generation = life.pool.journal_generation();
        if life.journal_generation == Some(generation) {
            return true;
        }
        if life.journal_retry.is_some_and(|retry| at < retry) {
            return false;
        }
        if node.bad_journals > 0 {
            node.bad_journals -= 1;
            life.journal_retry = Some(at + JOURNAL_RETRY);
            return false;
        }
        life.journal_retry = None;
        life.journal_generation = Some(generation);
        let resting = std::mem::take(&mut life.resting);
        node.disk.state = Some(StateFile {
            pool: life.pool.journal(),
            salt: life.salt.clone(),
            begun: life.begun.clone(),
        });
        self.rests
            .extend(resting.into_iter().map(|(at, until)| ((n, at), until)));
        true
    }

    /// The agent's first write.
    pub(crate) fn rewrite(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(life) = &mut node.life else { return };
        if node.bad_checkpoints > 0 {
            node.bad_checkpoints -= 1;
            life.written_generation = life.written_generation.wrapping_sub(1);
        } else {
            node.disk.put_checkpoint(life.written.clone());
        }
    }

    pub(crate) fn turn_knob(&mut self, n: usize, knob: &Knob) {
        let all: Vec<SubnetId> = self.subnets.iter().map(|s| SubnetId(s.0.clone())).collect();
        let named = |of: &[u8]| -> BTreeSet<SubnetId> {
            of.iter()
                .map(|n| all[usize::from(*n) % all.len()].clone())
                .collect()
        };
        let list = |of: &[u8]| named(of).into_iter().collect::<Vec<_>>();
        let t = &mut self.nodes[n].targets;
        match knob {
            Knob::WarmEni(v) => t.warm_eni = *v,
            Knob::WarmIp(v) => t.warm_ip = *v,
            Knob::MinimumIp(v) => t.minimum_ip = *v,
            Knob::WarmPrefix(v) => t.warm_prefix = *v,
            Knob::MaxEni(v) => t.max_eni = *v,
            Knob::MaxPods(v) => t.max_pods = *v,
            Knob::Cooldown(v) => t.cooldown = std::time::Duration::from_secs(*v),
            Knob::Auto(v) => t.auto = *v,
            Knob::Prefixes(v) => t.mode = if *v { Mode::Prefixes } else { Mode::SecondaryIp },
            Knob::Provisioning(v) => t.provisioning = *v,
            Knob::ImdsOnly(v) => t.imds_only = *v,
            Knob::Cordoned(v) => t.unschedulable = *v,
            Knob::TrunkSlot(v) => t.reserve_trunk_slot = *v,
            Knob::Candidates(v) => t.subnets.candidates = list(v),
            Knob::Excluded(v) => t.subnets.excluded = named(v),
            Knob::Custom(v) => {
                t.subnets.custom = v.as_ref().map(|v| CustomNetwork {
                    name: "zone-a".into(),
                    subnets: list(v),
                    ..CustomNetwork::default()
                });
            }
        }
    }
}

impl Disk {
    pub(crate) fn put_checkpoint(&mut self, content: Vec<u8>) {
        if let Some(before) = self.checkpoint.replace(content) {
            self.older.push_back(before);
            if self.older.len() > OLDER {
                self.older.pop_front();
            }
        }
    }
}

/// The owners of a checkpoint.
pub(crate) fn keys(checkpoint: &[u8]) -> BTreeSet<PodKey> {
    from_files(checkpoint).keys().collect()
}

pub(crate) fn id_of(action: &Action) -> ActionId {
    match action {
        Action::CreateInterface { id, .. }
        | Action::AssignAddresses { id, .. }
        | Action::AssignPrefixes { id, .. }
        | Action::AssignIpv6Prefix { id, .. }
        | Action::ReleaseAddresses { id, .. }
        | Action::ReleasePrefixes { id, .. }
        | Action::DeleteInterface { id, .. }
        | Action::Describe { id, .. } => *id,
        Action::Reply { .. } => panic!("a reply is not reported back"),
    }
}
