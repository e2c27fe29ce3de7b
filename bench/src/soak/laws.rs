//! What must hold when nothing is under way: every address of the nodes is in its place, exactly once, in EC2, in the agent's pool, in
//! the checkpoint, in the kernel and with the pods.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::Value;

use super::world::{self, Instance, Kernel, NODES, Pod, World, items, text};

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) pods: Vec<Pod>,
    pub(super) nodes: BTreeMap<String, Node>,
    /// Interfaces attached to nothing.
    pub(super) loose: BTreeSet<String>,
    /// What the lab finds wrong with itself.
    pub(super) lab_faults: Vec<String>,
}

/// A node at that moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) ec2: Instance,
    pub(super) pool: Pool,
    pub(super) checkpoint: BTreeMap<String, String>,
    pub(super) kernel: Kernel,
}

/// An agent's pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    /// By interface.
    pub(super) addresses: world::Addresses,
    /// Address to container.
    pub(super) owners: BTreeMap<String, String>,
    /// Addresses that could be given, with the time of the agent's clock since when, ms: also in the future, while they cool down.
    pub(super) free: BTreeMap<String, u64>,
    /// Calls under way.
    pub(super) intents: usize,
    /// Pods that wait for an address.
    pub(super) waiting: usize,
    /// The agent's clock, ms.
    pub(super) now: u64,
}

impl Pool {
    /// From the page `/v1/vpcnet/pool`.
    pub(super) fn read(page: &Value) -> Self {
        let part = |path: &str| page.pointer(path).cloned().unwrap_or_default();
        let mut pool = Self {
            now: part("/now/mono").as_u64().unwrap_or_default(),
            intents: part("/pool/intents").as_object().map_or(0, |all| all.len()),
            waiting: part("/pool/waiting").as_object().map_or(0, |all| all.len()),
            ..Self::default()
        };
        for (address, key) in part("/pool/by_address").as_object().into_iter().flatten() {
            pool.owners.insert(address.clone(), text(key, "container_id"));
        }
        for (eni, interface) in part("/pool/interfaces").as_object().into_iter().flatten() {
            let of_interface = pool.addresses.entry(eni.clone()).or_default();
            let usable = interface.get("deleting").is_none_or(Value::is_null);
            let all = interface.get("addresses").and_then(Value::as_object);
            for (address, entry) in all.into_iter().flatten() {
                of_interface.insert(address.clone());
                let disputed = entry.get("disputed").and_then(Value::as_bool) == Some(true);
                // One that has cooled down stays in that state until somebody takes it.
                let times = ["/state/Free/since", "/state/Cooling/until"];
                let since = times.iter().find_map(|at| entry.pointer(at)?.as_u64());
                if let Some(since) = since.filter(|_| usable && !disputed) {
                    pool.free.insert(address.clone(), since);
                }
            }
        }
        pool
    }
}

impl Snapshot {
    pub(super) fn take(world: &World) -> io::Result<Self> {
        let status = world.status()?;
        let mut nodes = BTreeMap::new();
        let mut instances = world::instances(&status);
        for name in NODES {
            let node = Node {
                ec2: instances.remove(name).unwrap_or_default(),
                pool: Pool::read(&world.page(name, "/v1/vpcnet/pool")?),
                checkpoint: world.checkpoint(name)?,
                kernel: world.kernel(name)?,
            };
            nodes.insert(name.to_owned(), node);
        }
        let texts = |key: &str| -> Vec<String> {
            items(status.get(key).unwrap_or(&Value::Null))
                .filter_map(|t| t.as_str().map(str::to_owned))
                .collect()
        };
        Ok(Self {
            pods: world.pods()?,
            nodes,
            loose: texts("loose_interfaces").into_iter().collect(),
            lab_faults: texts("model_faults"),
        })
    }

    /// What is under way, a sentence each.
    pub(super) fn under_way(&self) -> Vec<String> {
        let all = self.nodes.iter();
        all.filter(|(_, node)| node.pool.intents > 0)
            .map(|(name, node)| format!("{name}: {} calls under way", node.pool.intents))
            .collect()
    }

    /// Addresses that EC2 has on a node's interfaces and its agent does not know of.
    pub(super) fn unknown(&self, node: &str) -> BTreeSet<String> {
        self.nodes.get(node).map(Node::unknown).unwrap_or_default()
    }

    /// What does not hold, a sentence each. `doubled`: nodes for which EC2 did an assignment twice and answered once. Nobody can know
    /// what the other one brought: it comes to light with the next list of the interface, or at a start.
    pub(super) fn broken(&self, doubled: &BTreeSet<&str>) -> Vec<String> {
        let mut broken: Vec<String> = Vec::new();
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(other) = seen.insert(&pod.address, &pod.name) {
                broken.push(format!(
                    "{} is the address of {other} and of {}",
                    pod.address, pod.name
                ));
            }
        }
        broken.extend(
            self.loose
                .iter()
                .map(|eni| format!("{eni} is attached to nothing")),
        );
        broken.extend(self.lab_faults.iter().map(|f| format!("fault of the lab: {f}")));
        for (name, node) in &self.nodes {
            let pods: BTreeMap<String, String> = self
                .pods
                .iter()
                .filter(|p| p.node == *name)
                .map(|p| (p.address.clone(), p.container.clone()))
                .collect();
            let of_node = node.broken(&pods, doubled.contains(name.as_str()));
            broken.extend(of_node.into_iter().map(|b| format!("{name}: {b}")));
        }
        broken
    }
}

impl Node {
    fn unknown(&self) -> BTreeSet<String> {
        let of_pool = |(eni, of_ec2): (&String, &BTreeSet<String>)| {
            let known = self.pool.addresses.get(eni).cloned().unwrap_or_default();
            of_ec2.difference(&known).cloned().collect::<Vec<_>>()
        };
        self.ec2.addresses.iter().flat_map(of_pool).collect()
    }

    fn broken(&self, pods: &BTreeMap<String, String>, doubled: bool) -> Vec<String> {
        let mut broken = Vec::new();
        let addresses: BTreeSet<String> = pods.keys().cloned().collect();
        let (pool, ec2) = (&self.pool, &self.ec2);
        if pool.waiting > 0 {
            broken.push(format!("{} pods wait for an address", pool.waiting));
        }
        let enis = |of: &world::Addresses| of.keys().cloned().collect::<BTreeSet<_>>();
        differ(
            &mut broken,
            "interface",
            ("EC2", &enis(&ec2.addresses)),
            ("the pool", &enis(&pool.addresses)),
        );
        let unknown = self.unknown();
        broken.extend(
            unknown
                .iter()
                .filter(|_| !doubled)
                .map(|address| format!("address {address}: EC2 has it and the pool not")),
        );
        for (eni, of_pool) in &pool.addresses {
            let of_ec2 = ec2.addresses.get(eni).cloned().unwrap_or_default();
            let only = of_pool.difference(&of_ec2);
            broken.extend(only.map(|address| format!("address {address}: the pool has it and EC2 not")));
        }
        for (title, owners) in [("the pool", &pool.owners), ("the checkpoint", &self.checkpoint)] {
            let owned: BTreeSet<String> = owners.keys().cloned().collect();
            differ(
                &mut broken,
                "owned address",
                (title, &owned),
                ("the pods", &addresses),
            );
            for (address, container) in owners {
                // Owners that were rebuilt from the kernel bear the name of the pod's link: it does not know containers.
                let rebuilt = self.kernel.links.contains(container);
                if pods
                    .get(address)
                    .is_some_and(|of_pod| of_pod != container && !rebuilt)
                {
                    broken.push(format!(
                        "{title} has another owner of {address} than the pods: {container}"
                    ));
                }
            }
        }
        let all: BTreeSet<&String> = ec2.addresses.values().flatten().collect();
        for address in addresses.iter().filter(|a| !all.contains(a)) {
            broken.push(format!(
                "{address} is a pod's and EC2 has it on no interface of the node"
            ));
        }
        for address in addresses.intersection(&ec2.own) {
            broken.push(format!("{address} is a pod's and an interface's own"));
        }
        for address in pool.free.keys().filter(|a| addresses.contains(*a)) {
            broken.push(format!("{address} is a pod's and free in the pool"));
        }
        let kernel = &self.kernel;
        for (title, found) in [("route", &kernel.routes), ("rule 512", &kernel.to)] {
            differ(
                &mut broken,
                title,
                ("the kernel", found),
                ("the pods", &addresses),
            );
        }
        for address in kernel.from.difference(&addresses) {
            broken.push(format!("rule 1536 from {address}, which is no pod's"));
        }
        if kernel.links.len() != pods.len() {
            broken.push(format!(
                "{} links of pods for {} pods",
                kernel.links.len(),
                pods.len()
            ));
        }
        broken
    }

    /// A node with those addresses, all free.
    #[cfg(test)]
    fn of(addresses: &[&str], own: &str) -> Self {
        let all = || addresses.iter().map(|a| (*a).to_owned()).collect::<BTreeSet<_>>();
        let by_eni = || BTreeMap::from([("eni-1".to_owned(), all())]);
        Self {
            ec2: Instance {
                addresses: by_eni(),
                own: BTreeSet::from([own.to_owned()]),
            },
            pool: Pool {
                addresses: by_eni(),
                free: addresses.iter().map(|a| ((*a).to_owned(), 0)).collect(),
                ..Pool::default()
            },
            ..Self::default()
        }
    }
}

/// Says what only the one or only the other has.
fn differ(
    broken: &mut Vec<String>,
    what: &str,
    (left, of_left): (&str, &BTreeSet<String>),
    (right, of_right): (&str, &BTreeSet<String>),
) {
    for (has, has_not, only) in [
        (left, right, of_left.difference(of_right)),
        (right, left, of_right.difference(of_left)),
    ] {
        broken.extend(only.map(|one| format!("{what} {one}: {has} has it and {has_not} not")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with one pod at `10.0.0.2` and one free address.
    fn sound() -> Snapshot {
        let (address, container) = ("10.0.0.2".to_owned(), "c1".to_owned());
        let mut node = Node::of(&["10.0.0.2", "10.0.0.3"], "10.0.0.1");
        node.pool.free.remove(&address);
        node.pool.owners.insert(address.clone(), container.clone());
        node.checkpoint.insert(address.clone(), container.clone());
        let at = || BTreeSet::from([address.clone()]);
        node.kernel = Kernel {
            links: BTreeSet::from(["eni00000000001".to_owned()]),
            routes: at(),
            to: at(),
            from: BTreeSet::new(),
        };
        Snapshot {
            pods: vec![Pod {
                name: "a".to_owned(),
                node: "node-1".to_owned(),
                address,
                container,
                netns: "a".to_owned(),
            }],
            nodes: BTreeMap::from([("node-1".to_owned(), node)]),
            ..Snapshot::default()
        }
    }

    fn said(change: impl FnOnce(&mut Snapshot, &mut Node)) -> String {
        let mut snapshot = sound();
        let mut node = snapshot.nodes.remove("node-1").unwrap();
        change(&mut snapshot, &mut node);
        snapshot.nodes.insert("node-1".to_owned(), node);
        snapshot.broken(&BTreeSet::new()).join("\n")
    }

    #[test]
    fn a_node_where_everything_is_in_its_place_breaks_nothing() {
        assert_eq!(sound().broken(&BTreeSet::new()), Vec::<String>::new());
    }

    #[test]
    fn an_address_that_only_ec2_knows_is_a_leak() {
        let said = said(|_, node| {
            let all = node.ec2.addresses.get_mut("eni-1").unwrap();
            all.insert("10.0.0.4".to_owned());
        });
        assert!(said.contains("10.0.0.4: EC2 has it and the pool not"), "{said}");
    }

    #[test]
    fn what_a_doubled_assignment_brought_is_counted_and_no_leak_yet() {
        let mut snapshot = sound();
        let node = snapshot.nodes.get_mut("node-1").unwrap();
        let all = node.ec2.addresses.get_mut("eni-1").unwrap();
        all.insert("10.0.0.4".to_owned());
        assert_eq!(snapshot.broken(&BTreeSet::from(["node-1"])), Vec::<String>::new());
        assert_eq!(
            snapshot.unknown("node-1"),
            BTreeSet::from(["10.0.0.4".to_owned()])
        );
    }

    #[test]
    fn an_owner_without_a_pod_is_a_leak() {
        let said = said(|snapshot, _| snapshot.pods.clear());
        for part in ["the pool", "the checkpoint", "route", "rule 512", "links of pods"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn an_owner_that_was_rebuilt_from_the_kernel_bears_its_links_name() {
        let own = |container: &str| {
            said(|_, node| {
                for owners in [&mut node.pool.owners, &mut node.checkpoint] {
                    owners.insert("10.0.0.2".to_owned(), container.to_owned());
                }
            })
        };
        assert_eq!(own("eni00000000001"), "");
        assert!(own("c2").contains("another owner of 10.0.0.2"));
    }

    #[test]
    fn what_a_pool_could_give_is_read_from_its_page() {
        let page = serde_json::json!({ "now": { "mono": 50 }, "pool": {
            "by_address": { "10.0.0.2": { "container_id": "c1" } },
            "intents": { "7": {} },
            "waiting": {},
            "interfaces": {
                "eni-1": { "deleting": null, "addresses": {
                    "10.0.0.2": { "state": "Owned" },
                    "10.0.0.3": { "state": { "Free": { "since": 10 } } },
                    "10.0.0.4": { "state": { "Cooling": { "until": 60 } } },
                    "10.0.0.5": { "state": { "Free": { "since": 10 } }, "disputed": true },
                } },
                "eni-2": { "deleting": 40, "addresses": { "10.0.0.6": { "state": { "Free": { "since": 10 } } } } },
            },
        } });
        let pool = Pool::read(&page);
        let free: Vec<(&str, u64)> = pool.free.iter().map(|(a, since)| (a.as_str(), *since)).collect();
        assert_eq!(free, [("10.0.0.3", 10), ("10.0.0.4", 60)]);
        assert_eq!((pool.now, pool.intents, pool.waiting), (50, 1, 0));
        assert_eq!(
            pool.owners,
            BTreeMap::from([("10.0.0.2".to_owned(), "c1".to_owned())])
        );
        assert_eq!(
            pool.addresses.values().map(BTreeSet::len).collect::<Vec<_>>(),
            [4, 1]
        );
    }

    #[test]
    fn two_pods_with_one_address_are_found_wherever_they_are() {
        let said = said(|snapshot, _| {
            let mut other = snapshot.pods.first().unwrap().clone();
            other.node = "node-2".to_owned();
            other.name = "b".to_owned();
            snapshot.pods.push(other);
        });
        assert!(said.contains("the address of a and of b"), "{said}");
    }

    #[test]
    fn a_pods_address_that_was_given_back_is_found() {
        let said = said(|_, node| {
            for all in [&mut node.ec2.addresses, &mut node.pool.addresses] {
                all.get_mut("eni-1").unwrap().remove("10.0.0.2");
            }
        });
        assert!(said.contains("EC2 has it on no interface"), "{said}");
    }

    #[test]
    fn a_forgotten_interface_and_a_rule_left_behind_are_found() {
        let said = said(|snapshot, node| {
            snapshot.loose.insert("eni-9".to_owned());
            node.kernel.from.insert("10.0.0.9".to_owned());
        });
        assert!(said.contains("eni-9 is attached to nothing"), "{said}");
        assert!(said.contains("rule 1536 from 10.0.0.9"), "{said}");
    }

    #[test]
    fn what_is_under_way_is_told_apart() {
        let mut snapshot = sound();
        assert_eq!(snapshot.under_way(), Vec::<String>::new());
        snapshot.nodes.get_mut("node-1").unwrap().pool.intents = 1;
        assert_eq!(snapshot.under_way(), ["node-1: 1 calls under way"]);
        assert_eq!(snapshot.broken(&BTreeSet::new()), Vec::<String>::new());
    }
}
