//! A history as a value: what a run begins with, and everything that is decided from outside as it goes. Nothing else is
//! random, so the same history gives the same run, and any part of a history is a history.

use serde::{Deserialize, Serialize};

/// A node type: its name, the interfaces of each card that the pool is told of, IPv4 addresses of an interface. Where the pool is
/// told less than EC2 allows it must keep to that.
pub(crate) struct NodeType {
    pub(crate) name: &'static str,
    pub(crate) cards: &'static [u32],
    pub(crate) ipv4: u32,
}

/// Small ones, so that limits are met often; the last has two cards.
pub(crate) const TYPES: &[NodeType] = &[
    NodeType {
        name: "t3.small",
        cards: &[3],
        ipv4: 4,
    },
    NodeType {
        name: "m5.large",
        cards: &[3],
        ipv4: 10,
    },
    NodeType {
        name: "t3.micro",
        cards: &[2],
        ipv4: 2,
    },
    NodeType {
        name: "c5.xlarge",
        cards: &[4],
        ipv4: 15,
    },
    NodeType {
        name: "p4d.24xlarge",
        cards: &[3, 2],
        ipv4: 6,
    },
];

/// What a run begins with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Of the VPC: ids, and addresses where they are not the lowest.
    pub(crate) seed: u64,
    /// EC2 gives the lowest free address.
    pub(crate) lowest: bool,
    /// Throttling with small buckets.
    pub(crate) throttled: bool,
    /// While nothing else is said, and between calms.
    #[serde(default)]
    pub(crate) weather: Option<Weather>,
    pub(crate) subnets: Vec<SubnetSetup>,
    pub(crate) nodes: Vec<NodeSetup>,
}

/// A subnet, all in one zone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SubnetSetup {
    /// Prefix length, 24 to 28.
    pub(crate) length: u8,
    /// Somebody has each such address, so that few /28s are whole; 0: nobody has any.
    pub(crate) each: u8,
    /// Its upper half is reserved.
    #[serde(default)]
    pub(crate) reserved: Option<Reserved>,
}

/// A CIDR reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Reserved {
    /// For prefixes.
    Prefixes,
    /// For what is asked for by name.
    Named,
}

/// How long things take in EC2, and how far reads are behind, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Weather {
    pub(crate) latency: u16,
    pub(crate) attach: u16,
    pub(crate) read_lag: u16,
    pub(crate) imds_lag: u16,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NodeSetup {
    /// Position in [`TYPES`].
    pub(crate) kind: u8,
    /// Of its primary interface.
    pub(crate) subnet: u8,
    /// What differs from the shipped defaults.
    pub(crate) knobs: Vec<Knob>,
}

/// One setting of a node. Subnets are named by position.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Knob {
    WarmEni(u32),
    WarmIp(Option<u32>),
    MinimumIp(Option<u32>),
    WarmPrefix(Option<u32>),
    MaxEni(Option<u32>),
    MaxPods(u32),
    /// Seconds.
    Cooldown(u64),
    Auto(bool),
    Prefixes(bool),
    Provisioning(bool),
    ImdsOnly(bool),
    Cordoned(bool),
    TrunkSlot(bool),
    Candidates(Vec<u8>),
    Excluded(Vec<u8>),
    Custom(Option<Vec<u8>>),
}

/// Where in a batch's end the agent dies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Point {
    /// Nothing is written.
    BeforeCheckpoint,
    /// The checkpoint is written, nobody answered.
    BeforeAnswers,
    /// Answered, the journal is not written.
    BeforeJournal,
    /// The journal is written, no call is made.
    BeforeCalls,
    /// The calls are made, no answer is read.
    AfterCalls,
    /// Between batches.
    Now,
}

/// What becomes of a file while the agent is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Kept {
    Whole,
    Lost,
    /// As it was some writes ago.
    Stale(u8),
}

/// Which calls go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Target {
    Create,
    Attach,
    Detach,
    Delete,
    Assign,
    Unassign,
    Describe,
    Modify,
    Any,
    Imds,
}

/// How.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Wrong {
    Throttled,
    Broken,
    BrokenAfter,
    Unavailable,
    Unauthorized,
    Exhausted,
    NoBlocks,
    Limit,
    Hang,
    HangAfter,
    Drop,
    LoseAnswer,
    Twice,
    /// Milliseconds.
    Slow(u32),
    Stale(u32),
    /// IMDS: not found.
    Missing,
}

/// Something decided from outside. Numbers are taken modulo what there is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Time goes by, milliseconds.
    Pass(u64),
    /// A pod is to run here; its plugin takes `plugin` milliseconds after its answer, or dies.
    Add {
        node: u8,
        pod: u8,
        plugin: Option<u16>,
        patience_s: u8,
        every: bool,
    },
    /// Several at once.
    Burst { node: u8, first: u8, count: u8 },
    /// The runtime asks again for what it has asked for.
    Again { node: u8, pod: u8 },
    /// A pod is to go.
    Del { node: u8, pod: u8 },
    /// All of a node.
    DelAll { node: u8 },
    /// A sandbox goes and no DEL ever comes for it.
    Vanish { node: u8, pod: u8 },
    /// A caller hangs up; `unseen`: the agent does not notice before it answers.
    HangUp { node: u8, nth: u8, unseen: bool },
    /// How long things take in EC2 from now on, and how far reads are behind.
    Weather {
        latency: u16,
        attach: u16,
        read_lag: u16,
        imds_lag: u16,
    },
    /// The next so many such calls of a node go wrong.
    Fault {
        node: u8,
        target: Target,
        wrong: Wrong,
        times: u8,
    },
    /// All such calls of every node go wrong for so many seconds.
    Storm {
        target: Target,
        wrong: Wrong,
        seconds: u8,
    },
    /// The next writes of a node's files fail.
    Disk { node: u8, checkpoints: u8, journals: u8 },
    /// The agent dies, now or at that point of its next batch, and is back after a while.
    Crash {
        node: u8,
        point: Point,
        checkpoint: Kept,
        journal: Kept,
        down_ms: u32,
    },
    /// The machine starts anew.
    Reboot { node: u8, files: bool },
    /// The instance ends, and another takes its place, with a copy of the disk or without.
    Replace { node: u8, copied: bool },
    /// The original agent serves for a while.
    Interlude { node: u8, adds: u8, dels: u8, grows: u8 },
    /// The wall clock steps, seconds.
    Wall { node: u8, by: i32 },
    /// The agent is shown what IMDS lists.
    Look { node: u8 },
    /// It is shown what EC2 says is attached.
    Ask { node: u8 },
    /// It is shown the host veths.
    Veths { node: u8 },
    /// Somebody counted what the subnets have left.
    Count { node: u8 },
    /// A setting changes.
    Set { node: u8, knob: Knob },
    /// The link of the next interface stays away.
    HideLink { node: u8 },
    /// Somebody takes an address away.
    TakeAway { node: u8, eni: u8, nth: u8 },
    /// Somebody gives an interface an address that nobody asked for.
    GiveExtra { node: u8, eni: u8 },
    /// Somebody detaches an interface.
    PullOut { node: u8, eni: u8 },
    /// Somebody attaches an interface of his own.
    PutIn { node: u8, device: u8 },
    /// He takes the oldest away again.
    TakeBack,
    /// Somebody uses addresses of a subnet, or gives them back.
    Crowd { subnet: u8, count: u8 },
    /// Faults stop. All must come to rest, and be right.
    Calm,
}
