//! What a lab is made of at its start. Everything has a default, and the default is the lab of the documentation.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::faults::FaultRule;
use super::policy::Policy;

/// A delay between two bounds, both included; equal bounds make it exact.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Spread {
    /// No delay.
    pub const ZERO: Self = Self {
        min: Duration::ZERO,
        max: Duration::ZERO,
    };

    /// Always the same delay.
    #[must_use]
    pub const fn exactly(d: Duration) -> Self {
        Self { min: d, max: d }
    }

    /// Between two numbers of milliseconds.
    #[must_use]
    pub const fn millis(min: u64, max: u64) -> Self {
        Self {
            min: Duration::from_millis(min),
            max: Duration::from_millis(max),
        }
    }
}

/// How long things take. EC2 promises none of these; the defaults are what accounts usually see, a little quickened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// From a request's arrival to its answer.
    pub ec2_latency: Spread,
    /// From an IMDS request's arrival to its answer.
    pub imds_latency: Spread,
    /// A created interface is `pending` this long.
    pub create: Spread,
    /// An attachment is `attaching` this long; then the link appears in the instance.
    pub attach: Spread,
    /// An attachment is `detaching` this long; then the link goes.
    pub detach: Spread,
    /// An instance is `pending` this long after RunInstances.
    pub launch: Spread,
    /// An instance is `shutting-down` this long before `terminated`.
    pub terminate: Spread,
    /// How far a Describe call lags behind the writes; drawn anew for each read, so reads may go back in time as
    /// answers of different replicas do. Writes always see the present.
    pub read_lag: Spread,
    /// After how long a change shows in IMDS; drawn for each change. Changes of one instance show in order.
    pub imds_lag: Spread,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ec2_latency: Spread::millis(50, 150),
            imds_latency: Spread::ZERO,
            create: Spread::millis(100, 300),
            attach: Spread::millis(700, 1300),
            detach: Spread::millis(700, 1300),
            launch: Spread::ZERO,
            terminate: Spread::millis(500, 1000),
            read_lag: Spread::ZERO,
            imds_lag: Spread::millis(200, 800),
        }
    }
}

impl Timing {
    /// Everything happens at once: for tests of rules that have nothing to do with time.
    #[must_use]
    pub const fn instant() -> Self {
        Self {
            ec2_latency: Spread::ZERO,
            imds_latency: Spread::ZERO,
            create: Spread::ZERO,
            attach: Spread::ZERO,
            detach: Spread::ZERO,
            launch: Spread::ZERO,
            terminate: Spread::ZERO,
            read_lag: Spread::ZERO,
            imds_lag: Spread::ZERO,
        }
    }
}

/// A token bucket: `size` calls at once, then `per_second` (EC2 API reference, "Request throttling").
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// Calls it holds when full.
    pub size: f64,
    /// Calls it regains each second.
    pub per_second: f64,
}

/// The buckets of the account. Each action has one of its own, shared by all callers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Buckets {
    /// False: nothing is ever throttled.
    pub enabled: bool,
    /// For actions that change something.
    pub mutating: Bucket,
    /// For Describe actions.
    pub reads: Bucket,
    /// By action name, instead of the two above.
    pub by_action: BTreeMap<String, Bucket>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            enabled: true,
            mutating: Bucket {
                size: 50.0,
                per_second: 5.0,
            },
            reads: Bucket {
                size: 100.0,
                per_second: 20.0,
            },
            by_action: BTreeMap::new(),
        }
    }
}

/// Which free address an interface gets when none is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressChoice {
    /// The lowest: easy to read in tests.
    Lowest,
    /// The next free one from a random place, as EC2's look to callers.
    #[default]
    Random,
}

/// Where a subnet's default route leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubnetRoute {
    /// To the internet gateway: only addresses with a public one beside them get through.
    #[default]
    Public,
    /// To the NAT gateway.
    Private,
}

/// What a subnet CIDR reservation keeps its addresses for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReservationKind {
    /// For prefixes EC2 chooses; single addresses are not chosen from it.
    Prefix,
    /// For addresses and prefixes that a request names; EC2 chooses nothing from it.
    Explicit,
}

/// A subnet CIDR reservation (VPC user guide, "Subnet CIDR reservations").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// The reserved part of the subnet.
    pub cidr: Ipv4Net,
    /// For what.
    pub kind: ReservationKind,
}

/// A subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubnetConfig {
    /// Its `Name` tag, by which [`NodeSpec`] and people call it.
    pub name: String,
    /// Its addresses, within the VPC's.
    pub cidr: Ipv4Net,
    /// Its IPv6 addresses, a /64 of the VPC's. With them each interface made in it gets one (`AssignIpv6AddressOnCreation`).
    #[serde(default)]
    pub ipv6: Option<Ipv6Net>,
    /// Letter of its zone, `a` for `<region>a`.
    pub zone: char,
    /// Its default route.
    #[serde(default)]
    pub route: SubnetRoute,
    /// Tags beside `Name`.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// CIDR reservations.
    #[serde(default)]
    pub reservations: Vec<Reservation>,
}

/// The protocol of a security group rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `-1`.
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// The other side of a security group rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RulePeer {
    /// IPv4 addresses.
    Cidr(Ipv4Net),
    /// IPv6 addresses.
    Ipv6(Ipv6Net),
    /// Every address of every interface in the group of this name.
    Group(String),
}

/// One permission of a security group; groups are stateful, so answers need none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// What it lets through.
    pub protocol: Protocol,
    /// First and last destination port (ICMP: type and code, both ignored by the fabric); `None`: all.
    pub ports: Option<(u16, u16)>,
    /// From whom (inbound) or to whom (outbound).
    pub peer: RulePeer,
}

impl Rule {
    /// Everything, from or to `peer`.
    #[must_use]
    pub const fn all(peer: RulePeer) -> Self {
        Self {
            protocol: Protocol::All,
            ports: None,
            peer,
        }
    }
}

/// A security group. The VPC always has `default`, whose members reach each other and everything outside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupConfig {
    /// Its name, unique in the VPC.
    pub name: String,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
}

/// A role and what it may do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoleConfig {
    /// Its name; instances carry it in their instance profile.
    pub name: String,
    /// It.
    pub policy: Policy,
}

impl RoleConfig {
    /// The role of the people who run the lab: everything.
    pub const ADMIN: &'static str = "lab-admin";
    /// The role of nodes; if nobody says otherwise, with what the managed policy AmazonEKS_CNI_Policy allows.
    pub const NODE: &'static str = "lab-node";
}

/// Whether IMDS insists on a session token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpTokens {
    /// IMDSv2 only.
    #[default]
    Required,
    /// IMDSv1 requests are answered too.
    Optional,
}

/// A node to start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its `Name` tag, unique among running nodes: `node-1`.
    pub name: String,
    /// Its instance type, of the limits table.
    pub instance_type: String,
    /// Name or id of its subnet; `None`: the configured subnets by turns, in their order.
    pub subnet: Option<String>,
    /// Its role.
    pub role: String,
    /// Names or ids of its primary interface's groups; empty: `node`.
    pub groups: Vec<String>,
    /// How many hops a token answer of IMDS travels, 1 to 64. At 2 pods behind a node's routing get one, at 1 they do not.
    pub hop_limit: u8,
    /// Whether IMDS insists on tokens.
    pub http_tokens: HttpTokens,
}

impl NodeSpec {
    /// A node with the usual role, group and metadata options, in the next subnet.
    #[must_use]
    pub fn new(name: &str, instance_type: &str) -> Self {
        Self {
            name: name.to_owned(),
            instance_type: instance_type.to_owned(),
            subnet: None,
            role: RoleConfig::NODE.to_owned(),
            groups: Vec::new(),
            hop_limit: 2,
            http_tokens: HttpTokens::Required,
        }
    }
}

/// Everything a VPC starts from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct VpcConfig {
    /// Region name.
    pub region: String,
    /// Account number, twelve digits.
    pub account: String,
    /// Unix time in seconds at the lab's start, for the timestamps in answers.
    pub epoch: u64,
    /// The VPC's first CIDR.
    pub cidr: Ipv4Net,
    /// Its IPv6 CIDR, a /56; `None`: IPv4 only.
    pub ipv6: Option<Ipv6Net>,
    /// CIDRs added to it later.
    pub secondary_cidrs: Vec<Ipv4Net>,
    /// Its subnets; the first ones are those nodes are put into by turns, see `node_subnets`.
    pub subnets: Vec<SubnetConfig>,
    /// How many of `subnets`, from the first, take nodes by turns.
    pub node_subnets: usize,
    /// A peered network, whose hosts see the VPC's addresses unchanged.
    pub peer: Option<Ipv4Net>,
    /// The internet's hosts.
    pub internet: Ipv4Net,
    /// Its IPv6 hosts, there where the VPC has IPv6.
    pub internet_ipv6: Ipv6Net,
    /// Public addresses for interfaces and the NAT gateway, which has the first.
    pub public_pool: Ipv4Net,
    /// Security groups beside `default`.
    pub groups: Vec<GroupConfig>,
    /// Roles.
    pub roles: Vec<RoleConfig>,
    /// How long things take.
    pub timing: Timing,
    /// Throttling.
    pub buckets: Buckets,
    /// How addresses are chosen.
    pub addresses: AddressChoice,
    /// Faults from the start.
    pub faults: Vec<FaultRule>,
    /// How many calls the log keeps; counters go on.
    pub call_log: usize,
}
