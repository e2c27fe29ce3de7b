//! Which nodes come when, and which pods; what of it EC2's buckets force.

use vpcnet_cloud::Ec2Action;

use crate::account::{LAUNCHES, Turnstile};
use crate::queue::Chance;

pub(crate) const NODES: usize = 5_000;
pub(crate) const PODS: usize = 30;
/// An m5.xlarge: so many interfaces, each with so many addresses for pods; the kubelet's max-pods.
pub(crate) const INTERFACES: u32 = 4;
pub(crate) const PER_INTERFACE: u32 = 14;
pub(crate) const MAX_PODS: u32 = 58;

/// From a call to EC2's decision, and from there to its answer: half of the lab's 50 to 150 ms each.
pub(crate) const HALF_CALL_MS: (u64, u64) = (25, 75);
/// From the attachment to the link, as in the lab.
pub(crate) const LINK_MS: (u64, u64) = (700, 1_300);
/// A node's pods come within this after it.
const PODS_WITHIN_MS: u64 = 5_000;
/// The kubelet's pause after a sandbox that could not be made: 10 s and up to half of it (pod worker back-off).
pub(crate) const KUBELET_MS: (u64, u64) = (10_000, 15_000);

/// How pods get addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    SecondaryIp,
    Prefixes,
}

/// What happens to the cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    /// All nodes as fast as the account may launch them.
    Start,
    /// All nodes within a minute: an account whose launches were raised and nothing else.
    Stampede,
    /// One node a second takes the place of an old one; on each that is there a pod goes and one comes every minute.
    Rolling,
}

pub(crate) struct Scenario {
    /// When each node's agent starts, ascending, in milliseconds.
    pub(crate) nodes: Vec<u64>,
    /// When each pod is given to its node: `PODS` for each node.
    pub(crate) pods: Vec<u64>,
    /// A pod goes and one comes so often on each node.
    pub(crate) churn_ms: Option<u64>,
    /// When the story ends, if the calls have not before.
    pub(crate) until_ms: u64,
}

impl Story {
    pub(crate) const ALL: [Self; 3] = [Self::Start, Self::Stampede, Self::Rolling];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Start => "cluster start: 1,000 instances at once, then 2 a second, as RunInstances allows",
            Self::Stampede => "stampede: all 5,000 nodes within a minute",
            Self::Rolling => {
                "rolling replacement: a node a second, and every minute a pod leaves and one comes on each"
            }
        }
    }

    pub(crate) fn scenario(self) -> Scenario {
        let mut chance = Chance::new(1);
        let (at_once, per_second) = LAUNCHES;
        let mut nodes: Vec<u64> = (0..NODES)
            .map(|n| {
                let launched = match self {
                    // Instances take differently long to come up.
                    Self::Start => ((n as f64 - f64::from(at_once)).max(0.0) / per_second * 1e3) as u64,
                    Self::Stampede => 0,
                    Self::Rolling => n as u64 * 1_000,
                };
                launched + chance.between(0, 60_000)
            })
            .collect();
        nodes.sort_unstable();
        let mut of_node = |start: &u64| -> Vec<u64> {
            (0..PODS)
                .map(|_| start + chance.between(0, PODS_WITHIN_MS))
                .collect()
        };
        Scenario {
            pods: nodes.iter().flat_map(&mut of_node).collect(),
            churn_ms: (self == Self::Rolling).then_some(60_000),
            until_ms: 4 * 3_600_000,
            nodes,
        }
    }
}

/// When each pod could have its address at the earliest if one mind made all calls of all nodes, those for waiting pods
/// alone, first come first served. Ascending: it says when the first, the second, the last pod can be served.
pub(crate) fn forced(scenario: &Scenario, way: Way) -> Vec<u64> {
    let call = (HALF_CALL_MS.0 + HALF_CALL_MS.1) / 2;
    // A call is made when the first pod that needs it is there.
    let wants = |from: usize| -> Vec<u64> {
        let mut all: Vec<u64> = scenario
            .pods
            .chunks(PODS)
            .map(|of_node| {
                let mut sorted = of_node.to_vec();
                sorted.sort_unstable();
                sorted[from]
            })
            .collect();
        all.sort_unstable();
        all
    };
    let per = PER_INTERFACE as usize;
    let mut assign = Turnstile::of(Ec2Action::AssignPrivateIpAddresses);
    let mut create = Turnstile::of(Ec2Action::CreateNetworkInterface);
    let mut attach = Turnstile::of(Ec2Action::AttachNetworkInterface);
    let mut served: Vec<u64> = Vec::new();
    let mut serve = |at: u64, pods: usize| served.extend(std::iter::repeat_n(at, pods));
    match way {
        // Prefixes may as well come with an interface of their own: whichever is sooner.
        Way::Prefixes => {
            for wanted in wants(0) {
                let by_interface = create.would_pass(wanted) + 2 * call + LINK_MS.0;
                if by_interface < assign.would_pass(wanted) + call {
                    serve(attach.pass(create.pass(wanted) + 2 * call) + LINK_MS.0, PODS);
                } else {
                    serve(assign.pass(wanted) + call, PODS);
                }
            }
        }
        Way::SecondaryIp => {
            wants(0)
                .into_iter()
                .for_each(|wanted| serve(assign.pass(wanted) + call, per));
            let mut creations: Vec<(u64, usize)> = Vec::new();
            creations.extend(wants(per).into_iter().map(|at| (at, per)));
            creations.extend(wants(2 * per).into_iter().map(|at| (at, PODS - 2 * per)));
            creations.sort_unstable();
            for (wanted, pods) in creations {
                serve(attach.pass(create.pass(wanted) + 2 * call) + LINK_MS.0, pods);
            }
        }
    }
    served.sort_unstable();
    served
}
