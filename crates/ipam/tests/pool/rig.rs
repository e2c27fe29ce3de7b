//! A pool and a clock, for tests that play the executor by hand.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use vpcnet_ipam::{
    Action, ActionId, Answer, CardIndex, CardLimits, Cards, Checkpoint, DeviceIndex, EniId, Event, Evidence,
    FailureClass, Identity, InterfaceFacts, InterfaceKind, Limits, Mode, Mono, Now, Outcome, PodKey, PodMeta,
    Pool, Refusal, RequestId, Restored, Stage, SubnetId, Targets,
};

/// 3 interfaces with 9 addresses for pods each.
pub(crate) const M5_LARGE: (u32, u32) = (3, 10);
/// 8 interfaces with 29.
pub(crate) const M5_4XLARGE: (u32, u32) = (8, 30);

pub(crate) struct Rig {
    pub(crate) pool: Pool,
    pub(crate) at: u64,
    /// Given and not reported back, replies apart.
    pub(crate) orders: Vec<Action>,
    pub(crate) replies: Vec<(RequestId, Answer)>,
    requests: u64,
    next_host: u32,
    next_eni: u32,
    next_prefix: u32,
    /// What somebody did to the wall clock.
    pub(crate) wall_shift_ms: i64,
}

pub(crate) fn identity() -> Identity {
    Identity {
        instance_id: "i-1".into(),
        token_salt: "salt".into(),
        boot_id: "boot-1".into(),
    }
}

pub(crate) fn limits((interfaces, ipv4_per_interface): (u32, u32)) -> Limits {
    Limits {
        cards: vec![CardLimits {
            card: CardIndex(0),
            interfaces,
        }],
        ipv4_per_interface,
    }
}

pub(crate) fn key(n: u64) -> PodKey {
    PodKey {
        network: "aws-cni".into(),
        container_id: format!("{n:064x}"),
        if_name: "eth0".into(),
    }
}

pub(crate) fn meta(n: u64) -> PodMeta {
    PodMeta {
        namespace: "default".into(),
        name: format!("web-{n}"),
        interfaces: 1,
    }
}

pub(crate) fn veth(meta: &PodMeta) -> String {
    format!(
        "eni{}",
        vpcnet_ipam::host_veth_suffix(&meta.namespace, &meta.name)
    )
}

pub(crate) fn id_of(action: &Action) -> ActionId {
    action.id().expect("a reply is not reported back")
}

impl Rig {
    /// A pool that knows nothing yet.
    pub(crate) fn empty(size: (u32, u32), targets: Targets) -> Self {
        Self::around(Pool::new(identity(), limits(size), targets).unwrap())
    }

    pub(crate) fn around(pool: Pool) -> Self {
        Self {
            pool,
            at: 1_000_000,
            orders: Vec::new(),
            replies: Vec::new(),
            requests: 0,
            next_host: 20,
            next_eni: 1,
            next_prefix: 0,
            wall_shift_ms: 0,
        }
    }

    /// A fresh node: the primary interface has no address for pods, and the pool has just been told so.
    pub(crate) fn fresh(size: (u32, u32), targets: Targets) -> Self {
        let mut rig = Self::empty(size, targets);
        let facts = rig.facts(0, 0);
        rig.seen(facts);
        rig.listed(&["eni-0"]);
        rig
    }

    /// A node at rest without pods.
    pub(crate) fn settled(size: (u32, u32), targets: Targets) -> Self {
        let mut rig = Self::fresh(size, targets);
        rig.succeed_all();
        rig
    }

    /// Interface number `n` at device `n` with `count` addresses that nobody had before.
    pub(crate) fn facts(&mut self, n: u32, count: u32) -> InterfaceFacts {
        InterfaceFacts {
            id: EniId(format!("eni-{n}")),
            mac: format!("02:00:00:00:00:{n:02x}"),
            device: DeviceIndex(n),
            card: CardIndex(0),
            subnet: SubnetId::from("subnet-1"),
            subnet_cidr: "10.0.0.0/16".parse().unwrap(),
            primary_address: Ipv4Addr::from(0x0a00_0004 + n),
            is_primary: n == 0,
            kind: InterfaceKind::Interface,
            managed: true,
            addresses: (0..count).map(|_| self.fresh_address()).collect(),
            prefixes: Vec::new(),
            ipv6_prefixes: Vec::new(),
            table: None,
        }
    }

    pub(crate) fn fresh_address(&mut self) -> Ipv4Addr {
        self.next_host += 1;
        Ipv4Addr::from(0x0a00_0000 + self.next_host)
    }

    pub(crate) fn fresh_prefixes(&mut self, count: u32) -> Vec<Ipv4Net> {
        let mut fresh = || {
            self.next_prefix += 1;
            let first = Ipv4Addr::from(0x0a00_8000 + 16 * self.next_prefix);
            Ipv4Net::new(first, 28).unwrap()
        };
        (0..count).map(|_| fresh()).collect()
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            mono: Mono(self.at),
            wall_ns: 1_700_000_000_000_000_000
                + (i64::try_from(self.at).unwrap() + self.wall_shift_ms) * 1_000_000,
        }
    }

    /// Tells the pool, and keeps what it decides.
    pub(crate) fn tell(&mut self, event: Event) -> Vec<Action> {
        let actions = self.pool.handle(self.now(), event);
        for action in &actions {
            match action {
                Action::Reply { request, answer } => self.replies.push((*request, answer.clone())),
                other => self.orders.push(other.clone()),
            }
        }
        actions
    }

    pub(crate) fn seen(&mut self, facts: InterfaceFacts) {
        self.tell(Event::InterfaceSeen {
            facts,
            evidence: Evidence::Imds,
        });
    }

    pub(crate) fn listed(&mut self, ids: &[&str]) {
        let ids = ids.iter().map(|id| EniId::from(*id)).collect();
        self.tell(Event::InterfacesListed {
            ids,
            evidence: Evidence::Imds,
        });
    }

    /// Lets `ms` pass, waking the pool whenever it wants.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.at + ms;
        while let Some(wake) = self.pool.next_wake().filter(|w| w.0 <= end) {
            assert!(wake.0 > self.at, "a wake lies ahead");
            self.at = wake.0;
            self.tell(Event::Tick);
        }
        self.at = end;
    }

    /// ADD with a minute's patience.
    pub(crate) fn add(&mut self, n: u64) -> RequestId {
        self.add_for(n, 60_000)
    }

    pub(crate) fn add_all(&mut self, pods: std::ops::RangeInclusive<u64>) {
        for n in pods {
            self.add(n);
        }
    }

    pub(crate) fn add_for(&mut self, n: u64, patience_ms: u64) -> RequestId {
        self.ask(key(n), meta(n), patience_ms)
    }

    pub(crate) fn add_as(&mut self, key: PodKey, meta: PodMeta) -> RequestId {
        self.ask(key, meta, 60_000)
    }

    fn ask(&mut self, key: PodKey, meta: PodMeta, patience_ms: u64) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let deadline = Mono(self.at + patience_ms);
        self.tell(Event::PodWants {
            request,
            key,
            meta,
            deadline,
            cards: Cards::Any,
        });
        request
    }

    pub(crate) fn del(&mut self, n: u64) -> Answer {
        self.del_as(key(n), meta(n))
    }

    pub(crate) fn del_as(&mut self, key: PodKey, meta: PodMeta) -> Answer {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.tell(Event::PodGone { request, key, meta });
        self.answer(request).expect("a DEL is answered at once")
    }

    pub(crate) fn answer(&self, request: RequestId) -> Option<Answer> {
        let mut answers = self
            .replies
            .iter()
            .filter(|(r, _)| *r == request)
            .map(|(_, a)| a.clone());
        let answer = answers.next();
        assert!(answers.next().is_none(), "{request:?} was answered twice");
        answer
    }

    pub(crate) fn address(&self, request: RequestId) -> IpAddr {
        match self.answer(request) {
            Some(Answer::Assigned(leases)) => leases[0].address,
            other => panic!("no address for {request:?}: {other:?}"),
        }
    }

    pub(crate) fn refusal(&self, request: RequestId) -> Refusal {
        match self.answer(request) {
            Some(Answer::Refused(refusal)) => refusal,
            other => panic!("no refusal for {request:?}: {other:?}"),
        }
    }

    /// The first order in hand that `wanted` accepts, taken out.
    pub(crate) fn take(&mut self, wanted: impl Fn(&Action) -> bool) -> Action {
        let at = self
            .orders
            .iter()
            .position(wanted)
            .unwrap_or_else(|| panic!("not among {:?}", self.orders));
        self.orders.remove(at)
    }

    pub(crate) fn take_create(&mut self) -> Action {
        self.take(|a| matches!(a, Action::CreateInterface { .. }))
    }

    pub(crate) fn take_assign(&mut self) -> Action {
        self.take(|a| matches!(a, Action::AssignAddresses { .. }))
    }

    pub(crate) fn take_describe(&mut self) -> Action {
        self.take(|a| matches!(a, Action::Describe { .. }))
    }

    pub(crate) fn done(&mut self, action: &Action, outcome: Outcome) {
        self.tell(Event::ActionDone {
            id: id_of(action),
            outcome,
        });
    }

    pub(crate) fn fail(
        &mut self,
        action: &Action,
        class: FailureClass,
        message: &str,
        retry_in_ms: Option<u64>,
    ) {
        let retry_at = retry_in_ms.map(|ms| Mono(self.at + ms));
        self.tell(Event::ActionFailed {
            id: id_of(action),
            class,
            message: message.into(),
            retry_at,
        });
    }

    pub(crate) fn progress(&mut self, action: &Action, stage: Stage) {
        self.tell(Event::Progress {
            id: id_of(action),
            stage,
        });
    }

    /// Reports an order as done, as EC2 would have done it.
    pub(crate) fn succeed(&mut self, action: &Action) {
        let outcome = match action {
            Action::CreateInterface {
                card,
                device,
                subnet,
                addresses,
                prefixes,
                ..
            } => {
                let mut facts = self.facts(device.0, *addresses);
                if card.0 > 0 {
                    facts.card = *card;
                    facts.primary_address = Ipv4Addr::from(0x0a00_4000 + 64 * card.0 + device.0);
                }
                facts.subnet = subnet.clone().unwrap_or(facts.subnet);
                facts.prefixes = self.fresh_prefixes(*prefixes);
                let n = self.next_eni;
                self.next_eni += 1;
                Outcome::InterfaceReady(InterfaceFacts {
                    id: EniId(format!("eni-new{n}")),
                    ..facts
                })
            }
            Action::AssignAddresses { count, .. } => {
                let addresses = (0..*count).map(|_| self.fresh_address()).collect();
                Outcome::Assigned {
                    addresses,
                    prefixes: Vec::new(),
                }
            }
            Action::AssignPrefixes { count, .. } => Outcome::Assigned {
                addresses: Vec::new(),
                prefixes: self.fresh_prefixes(*count),
            },
            Action::AssignIpv6Prefix { .. } => Outcome::AssignedIpv6 {
                prefixes: vec!["fd00:1:2:3:4::/80".parse().unwrap()],
            },
            Action::ReleaseAddresses { .. }
            | Action::ReleasePrefixes { .. }
            | Action::DeleteInterface { .. } => Outcome::Gone,
            Action::Describe { eni, .. } => Outcome::Described(self.pool.interfaces().find(|i| i.id == *eni)),
            other => panic!("not ordered in this mode: {other:?}"),
        };
        self.done(action, outcome);
    }

    /// Reports every order as done until there is none.
    pub(crate) fn succeed_all(&mut self) {
        for _ in 0..100 {
            let Some(action) = self.orders.first().cloned() else {
                return;
            };
            self.orders.remove(0);
            self.succeed(&action);
        }
        panic!("the pool does not come to rest: {:?}", self.orders);
    }

    /// (total, assigned, interfaces)
    pub(crate) fn sums(&self) -> (u32, u32, u32) {
        let t = self.pool.view(self.now()).totals;
        (t.total, t.assigned, t.interfaces)
    }

    /// Every order in hand as a short text.
    pub(crate) fn ordered(&self) -> Vec<String> {
        self.orders.iter().map(short).collect()
    }

    /// The pool of the next life, from what this one wrote down; its orders are in hand.
    pub(crate) fn restart(self, change: impl FnOnce(&mut Restored)) -> (Self, Vec<String>) {
        let checkpoint = Checkpoint::parse(&self.pool.checkpoint().to_json()).unwrap();
        let journal = serde_json::from_str(&serde_json::to_string(&self.pool.journal()).unwrap()).unwrap();
        let veths = checkpoint.allocations.iter().map(|a| veth(&a.meta)).collect();
        let kernel = vpcnet_ipam::KernelEvidence {
            veths,
            ..Default::default()
        };
        let mut restored = Restored {
            checkpoint: Some(checkpoint),
            journal: Some(journal),
            kernel,
        };
        change(&mut restored);
        let (limits, targets) = (self.pool.limits().clone(), self.pool.targets().clone());
        let (pool, notes, actions) =
            Pool::restore(identity(), limits, targets, restored, self.now()).unwrap();
        let orders = actions
            .into_iter()
            .filter(|a| !matches!(a, Action::Reply { .. }))
            .collect();
        let notes = notes.iter().map(ToString::to_string).collect();
        (
            Self {
                pool,
                orders,
                replies: Vec::new(),
                ..self
            },
            notes,
        )
    }
}

pub(crate) fn short(action: &Action) -> String {
    match action {
        Action::CreateInterface { device, prefixes, .. } if *prefixes > 0 => {
            format!("create {device} +{prefixes} prefixes")
        }
        Action::CreateInterface {
            device, addresses, ..
        } => format!("create {device} +{addresses}"),
        Action::AssignIpv6Prefix { eni, .. } => format!("assign {eni} /80"),
        Action::AssignPrefixes { eni, count, .. } => format!("assign {eni} +{count} prefixes"),
        Action::ReleasePrefixes { eni, prefixes, .. } => {
            format!("release {eni} -{} prefixes", prefixes.len())
        }
        Action::AssignAddresses { eni, count, .. } => format!("assign {eni} +{count}"),
        Action::ReleaseAddresses { eni, addresses, .. } => format!("release {eni} -{}", addresses.len()),
        Action::DeleteInterface { eni, .. } => format!("delete {eni}"),
        Action::Describe { eni, .. } => format!("describe {eni}"),
        other => format!("{other:?}"),
    }
}

pub(crate) fn ip_targets(warm: u32, minimum: u32) -> Targets {
    Targets {
        warm_ip: Some(warm),
        minimum_ip: Some(minimum),
        ..Targets::default()
    }
}

/// Prefix mode with a warm prefix target.
pub(crate) fn prefixes(warm: u32) -> Targets {
    Targets {
        mode: Mode::Prefixes,
        warm_prefix: Some(warm),
        ..Targets::default()
    }
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
