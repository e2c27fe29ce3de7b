//! Drawing histories: all that is random in the simulation. Each history has its own mixture, so that what is rare in one is
//! common in another, and some faults are wholly absent from most.

use vpcnet_lab::model::Rng;

use super::script::{
    Kept, Knob, NodeSetup, Op, Point, Reserved, Setup, SubnetSetup, TYPES, Target, Weather, Wrong,
};

/// Draws the operations of one history.
pub(crate) struct Draw {
    rng: Rng,
    /// How often each group of operations comes.
    weights: [u64; 12],
    /// So many pods a node may have at most.
    pods: u64,
    /// The longest pause in milliseconds.
    pause: u64,
    /// Operations until all is calm.
    season: u64,
    done: u64,
}

/// The usual share of each group.
const SHARES: [u64; 12] = [30, 16, 5, 10, 6, 4, 3, 3, 3, 3, 3, 2];

fn one<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    let at = rng.below(of.len() as u64);
    of[usize::try_from(at).unwrap()].clone()
}

fn byte(rng: &mut Rng) -> u8 {
    rng.word().to_le_bytes()[0]
}

fn within(rng: &mut Rng, low: u64, high: u64) -> u64 {
    low + rng.below(high - low + 1)
}

fn small(rng: &mut Rng, high: u64) -> u32 {
    u32::try_from(rng.below(high + 1)).unwrap()
}

impl Draw {
    pub(crate) fn new(seed: u64) -> (Self, Setup) {
        let mut rng = Rng::new(seed);
        let mut weights = SHARES;
        for weight in weights.iter_mut().skip(2) {
            *weight = match rng.below(4) {
                0 | 1 => 0,
                2 => *weight,
                _ => *weight * 3,
            };
        }
        let setup = setup(&mut rng, seed);
        let draw = Self {
            weights,
            pods: one(&mut rng, &[3, 8, 14, 30]),
            pause: one(&mut rng, &[300, 3_000, 20_000, 90_000]),
            season: one(&mut rng, &[40, 150, 500, 1_500]),
            done: 0,
            rng,
        };
        (draw, setup)
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Op {
        self.done += 1;
        if self.done.is_multiple_of(self.season) {
            return Op::Calm;
        }
        let all: u64 = self.weights.iter().sum();
        let mut at = self.rng.below(all);
        let mut group = 0;
        while at >= self.weights[group] {
            at -= self.weights[group];
            group += 1;
        }
        self.of_group(group)
    }

    fn of_group(&mut self, group: usize) -> Op {
        let node = byte(&mut self.rng);
        let pod = u8::try_from(self.rng.below(self.pods)).unwrap();
        let rng = &mut self.rng;
        match group {
            0 => self.coming(node, pod),
            1 => Op::Pass(rng.below(self.pause)),
            2 => match rng.below(4) {
                0 => Op::Again { node, pod },
                1 => Op::Vanish { node, pod },
                _ => Op::HangUp {
                    node,
                    nth: byte(rng),
                    unseen: rng.chance(0.5),
                },
            },
            3 => Op::Fault {
                node,
                target: target(rng),
                wrong: wrong(rng),
                times: one(rng, &[1, 1, 1, 2, 6]),
            },
            4 => crash(rng, node),
            5 => Op::Set {
                node,
                knob: knob(rng),
            },
            6 => Op::Disk {
                node,
                checkpoints: one(rng, &[0, 1, 2]),
                journals: one(rng, &[0, 0, 1, 3]),
            },
            7 => match rng.below(4) {
                0 | 1 => Op::Weather {
                    latency: one(rng, &[1, 50, 400, 3_000]),
                    attach: one(rng, &[0, 200, 1_000, 9_000]),
                    read_lag: one(rng, &[0, 100, 2_000, 8_000]),
                    imds_lag: one(rng, &[0, 500, 5_000, 40_000]),
                },
                2 => Op::HideLink { node },
                _ => Op::Storm {
                    target: target(rng),
                    wrong: wrong(rng),
                    seconds: one(rng, &[1, 5, 30, 120]),
                },
            },
            8 => match rng.below(5) {
                0 => Op::Look { node },
                1 => Op::Veths { node },
                2 | 3 => Op::Ask { node },
                _ => Op::Count { node },
            },
            9 => match rng.below(6) {
                0 => Op::TakeAway {
                    node,
                    eni: byte(rng),
                    nth: byte(rng),
                },
                1 => Op::GiveExtra { node, eni: byte(rng) },
                2 => Op::PullOut { node, eni: byte(rng) },
                3 => Op::PutIn {
                    node,
                    device: byte(rng) % 4,
                },
                4 => Op::TakeBack,
                _ => Op::Crowd {
                    subnet: byte(rng),
                    count: one(rng, &[0, 3, 20, 200]),
                },
            },
            10 => match rng.below(4) {
                0 => Op::Reboot {
                    node,
                    files: rng.chance(0.5),
                },
                1 => Op::Replace {
                    node,
                    copied: rng.chance(0.4),
                },
                _ => Op::Interlude {
                    node,
                    adds: byte(rng) % 4,
                    dels: byte(rng) % 3,
                    grows: byte(rng) % 3,
                },
            },
            _ => Op::Wall {
                node,
                by: one(rng, &[-100_000_000, -3_600, -1, 1, 3_600, 100_000_000]),
            },
        }
    }

    fn coming(&mut self, node: u8, pod: u8) -> Op {
        let rng = &mut self.rng;
        match rng.below(20) {
            0..=8 => Op::Add {
                node,
                pod,
                plugin: Some(one(rng, &[0, 60, 60, 60, 500, 4_000, 15_000])).filter(|_| !rng.chance(0.05)),
                patience_s: one(rng, &[60, 60, 60, 10, 1]),
                every: rng.chance(0.3),
            },
            9 | 10 => Op::Burst {
                node,
                first: pod,
                count: one(rng, &[2, 5, 12]),
            },
            11 => Op::DelAll { node },
            _ => Op::Del { node, pod },
        }
    }
}

fn setup(rng: &mut Rng, seed: u64) -> Setup {
    let subnets = (0..within(rng, 1, 3)).map(|_| SubnetSetup {
        length: one(rng, &[24, 24, 25, 26, 27]),
        each: one(rng, &[0, 0, 0, 9, 17]),
        reserved: one(
            rng,
            &[
                None,
                None,
                None,
                None,
                Some(Reserved::Prefixes),
                Some(Reserved::Named),
            ],
        ),
    });
    let subnets: Vec<SubnetSetup> = subnets.collect();
    let nodes = (0..within(rng, 1, 4)).map(|_| NodeSetup {
        kind: u8::try_from(rng.below(TYPES.len() as u64)).unwrap(),
        subnet: byte(rng),
        knobs: (0..rng.below(6)).map(|_| first_knob(rng)).collect(),
    });
    Setup {
        nodes: nodes.collect(),
        seed,
        lowest: rng.chance(0.5),
        throttled: rng.chance(0.15),
        weather: rng.chance(0.5).then(|| Weather {
            latency: one(rng, &[1, 50, 400]),
            attach: one(rng, &[200, 1_000, 9_000]),
            read_lag: one(rng, &[100, 2_000, 8_000]),
            imds_lag: one(rng, &[500, 5_000, 40_000]),
        }),
        subnets,
    }
}

/// A node that provisions nothing from its first day on is of little interest.
fn first_knob(rng: &mut Rng) -> Knob {
    loop {
        let knob = knob(rng);
        if !matches!(
            knob,
            Knob::Provisioning(_) | Knob::ImdsOnly(_) | Knob::Cordoned(_)
        ) {
            return knob;
        }
    }
}

fn knob(rng: &mut Rng) -> Knob {
    let some = |rng: &mut Rng, high| rng.chance(0.6).then(|| small(rng, high));
    let subnets = |rng: &mut Rng| (0..rng.below(3)).map(|_| byte(rng)).collect::<Vec<u8>>();
    match rng.below(18) {
        0 => Knob::WarmEni(small(rng, 2)),
        1 => Knob::WarmIp(some(rng, 6)),
        2 => Knob::MinimumIp(some(rng, 12)),
        3 => Knob::WarmPrefix(some(rng, 2)),
        4 => Knob::MaxEni(some(rng, 3)),
        5 => Knob::MaxPods(one(rng, &[4, 11, 29, 58, 110])),
        6 | 7 => Knob::Cooldown(one(rng, &[0, 1, 30, 100])),
        8 => Knob::Auto(rng.chance(0.5)),
        9..=11 => Knob::Prefixes(rng.chance(0.6)),
        12 => Knob::Provisioning(rng.chance(0.6)),
        13 => Knob::Cordoned(rng.chance(0.4)),
        14 => Knob::TrunkSlot(rng.chance(0.4)),
        15 => Knob::Candidates(subnets(rng)),
        16 => Knob::Excluded(if rng.chance(0.5) { Vec::new() } else { subnets(rng) }),
        _ => Knob::Custom(if rng.chance(0.5) { None } else { Some(subnets(rng)) }),
    }
}

fn target(rng: &mut Rng) -> Target {
    one(
        rng,
        &[
            Target::Create,
            Target::Create,
            Target::Attach,
            Target::Attach,
            Target::Detach,
            Target::Delete,
            Target::Assign,
            Target::Assign,
            Target::Assign,
            Target::Unassign,
            Target::Unassign,
            Target::Describe,
            Target::Describe,
            Target::Modify,
            Target::Any,
            Target::Imds,
        ],
    )
}

fn wrong(rng: &mut Rng) -> Wrong {
    let ms = one(rng, &[500, 4_000, 30_000]);
    let back = one(rng, &[500, 3_000, 9_000]);
    one(
        rng,
        &[
            Wrong::Throttled,
            Wrong::Broken,
            Wrong::BrokenAfter,
            Wrong::BrokenAfter,
            Wrong::Unavailable,
            Wrong::Unauthorized,
            Wrong::Exhausted,
            Wrong::NoBlocks,
            Wrong::Limit,
            Wrong::Hang,
            Wrong::HangAfter,
            Wrong::Drop,
            Wrong::LoseAnswer,
            Wrong::LoseAnswer,
            Wrong::Twice,
            Wrong::Slow(ms),
            Wrong::Stale(back),
            Wrong::Missing,
        ],
    )
}

fn crash(rng: &mut Rng, node: u8) -> Op {
    let points = [
        Point::BeforeCheckpoint,
        Point::BeforeAnswers,
        Point::BeforeJournal,
        Point::BeforeCalls,
        Point::AfterCalls,
        Point::AfterCalls,
        Point::Now,
        Point::Now,
    ];
    let (whole, lost) = (Kept::Whole, Kept::Lost);
    let back = u8::try_from(within(rng, 1, 5)).unwrap();
    Op::Crash {
        node,
        point: one(rng, &points),
        checkpoint: one(rng, &[whole, whole, whole, whole, whole, lost, Kept::Stale(back)]),
        journal: one(rng, &[whole, whole, whole, whole, whole, lost]),
        down_ms: one(rng, &[0, 100, 2_000, 40_000]),
    }
}
