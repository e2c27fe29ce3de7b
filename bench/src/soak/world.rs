//! The lab as the soak sees and handles it: everything by the lab's commands, the agent's pages, and `ip` in the node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;

use serde_json::Value;

use super::script::{SHAKEN, STEADY};
use crate::lab::Lab;
use crate::{agent, host};

/// Both nodes.
pub(super) const NODES: [&str; 2] = [STEADY, SHAKEN];
/// 4 interfaces of 15 addresses.
const TYPE: &str = "m5.xlarge";
/// Addresses for pods that such an instance can have: one of each interface is its own.
pub(super) const ROOM: usize = 4 * 14;

/// The lab of the run.
pub(super) struct World {
    pub(super) lab: Lab,
    bin: PathBuf,
}

/// A pod whose ADD has succeeded and whose DEL has not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) address: String,
    pub(super) container: String,
    pub(super) netns: String,
}

/// Addresses by interface.
pub(super) type Addresses = BTreeMap<String, BTreeSet<String>>;

/// A node as EC2 has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Instance {
    /// By interface, without the interfaces' own.
    pub(super) addresses: Addresses,
    /// The interfaces' own.
    pub(super) own: BTreeSet<String>,
}

/// What the kernel of a node has for pods.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Kernel {
    /// Host ends of pods' links.
    pub(super) links: BTreeSet<String>,
    /// Addresses with a route to such a link.
    pub(super) routes: BTreeSet<String>,
    /// Addresses of the rules to pods (512).
    pub(super) to: BTreeSet<String>,
    /// Addresses of the rules from pods (1536).
    pub(super) from: BTreeSet<String>,
}

impl World {
    pub(super) fn up(bin: PathBuf, dir: PathBuf, seed: u64) -> io::Result<Self> {
        let seed = seed.to_string();
        let options = [
            "--nodes",
            "2",
            "--type",
            TYPE,
            "--seed",
            &seed,
            "--no-agent",
            "--ec2-latency",
            "300",
            "--imds-lag",
            "2000",
        ];
        let lab = Lab::up_in(&bin, dir, &options)?;
        Ok(Self { lab, bin })
    }

    /// Starts the agent of a node and waits until it serves. Each node aims at something else, so that both kinds of growth are seen:
    /// the steady one counts addresses, the other interfaces, as is the default.
    pub(super) fn start_agent(&self, node: &str) -> io::Result<()> {
        let env: &[&str] = if node == STEADY {
            &["--env", "WARM_IP_TARGET=3", "--env", "MINIMUM_IP_TARGET=6"]
        } else {
            &[]
        };
        self.lab.run(&[&["agent", "start", node], env].concat()).map(drop)
    }

    pub(super) fn json(&self, arguments: &[&str]) -> io::Result<Value> {
        let printed = self.lab.run(arguments)?;
        serde_json::from_str(&printed)
            .map_err(|e| io::Error::other(format!("{}: {e}: {printed}", arguments.join(" "))))
    }

    pub(super) fn status(&self) -> io::Result<Value> {
        self.json(&["status", "--json"])
    }

    /// The pods whose ADD has succeeded.
    pub(super) fn pods(&self) -> io::Result<Vec<Pod>> {
        let list = self.json(&["pod", "list", "--json"])?;
        Ok(items(&list).filter_map(pod).collect())
    }

    /// A page of a node's agent.
    pub(super) fn page(&self, node: &str, path: &str) -> io::Result<Value> {
        let ns = File::open(format!("/run/netns/{}", self.lab.namespace(node)))?;
        host::within(&ns, || agent::get(path))
    }

    /// A file of a node's, by way of the process that holds its mounts.
    pub(super) fn file(&self, node: &str, path: &str) -> io::Result<PathBuf> {
        let status = self.status()?;
        let holder = of_node(&status, node).and_then(|n| n.get("holder")?.as_i64());
        let holder = holder.ok_or_else(|| io::Error::other(format!("no process holds {node}")))?;
        Ok(PathBuf::from(format!("/proc/{holder}/root{path}")))
    }

    /// Owners in a node's checkpoint: address to container.
    pub(super) fn checkpoint(&self, node: &str) -> io::Result<BTreeMap<String, String>> {
        let file = self.file(node, "/run/aws-node/ipam.json")?;
        let json: Value = serde_json::from_slice(&std::fs::read(file)?)?;
        let mut owners = BTreeMap::new();
        for entry in items(json.get("allocations").unwrap_or(&Value::Null)) {
            let (address, container) = (text(entry, "ipv4"), text(entry, "containerID"));
            if owners.insert(address.clone(), container).is_some() {
                return Err(io::Error::other(format!(
                    "{address} is in the checkpoint of {node} twice"
                )));
            }
        }
        Ok(owners)
    }

    pub(super) fn kernel(&self, node: &str) -> io::Result<Kernel> {
        let ask = |words: &[&str]| self.json(&[&["exec", node, "--", "ip", "-json"], words].concat());
        let (links, routes, rules) = (
            ask(&["link", "show"])?,
            ask(&["route", "show", "table", "main"])?,
            ask(&["rule", "show"])?,
        );
        // "eni" and eleven digits; the VPC's own interfaces have shorter names.
        let of_pod = |name: &str| name.starts_with("eni") && name.len() == 14;
        let of_rule = |priority: u64, end: &'static str| -> BTreeSet<String> {
            items(&rules)
                .filter(|r| r.get("priority").and_then(Value::as_u64) == Some(priority))
                .map(|r| text(r, end))
                .filter(|address| address != "all" && !address.is_empty())
                .collect()
        };
        Ok(Kernel {
            links: items(&links)
                .map(|l| text(l, "ifname"))
                .filter(|n| of_pod(n))
                .collect(),
            routes: items(&routes)
                .filter(|r| of_pod(&text(r, "dev")))
                .map(|r| text(r, "dst"))
                .collect(),
            to: of_rule(512, "dst"),
            from: of_rule(1536, "src"),
        })
    }

    /// Repeats a DEL as a runtime may, with what it had for the first.
    pub(super) fn del_again(&self, pod: &Pod) -> io::Result<()> {
        let config =
            r#"{"cniVersion":"1.0.0","name":"aws-cni","type":"aws-cni","vethPrefix":"eni","mtu":"9001"}"#;
        let script = format!(
            "printf '%s' '{config}' | CNI_COMMAND=DEL CNI_CONTAINERID={} CNI_NETNS=/run/netns/{} CNI_IFNAME=eth0 CNI_PATH={bin} \
             CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={}' {bin}/aws-cni",
            pod.container,
            pod.netns,
            pod.name,
            pod.container,
            bin = self.bin.display()
        );
        self.lab
            .run(&["exec", &pod.node, "--", "sh", "-c", &script])
            .map(drop)
    }
}

/// The nodes as EC2 has them, from the lab's status: the truth, without EC2's lag.
pub(super) fn instances(status: &Value) -> BTreeMap<String, Instance> {
    let one = |node: &Value| {
        let mut instance = Instance::default();
        for interface in items(node.get("interfaces").unwrap_or(&Value::Null)) {
            let own = text(interface, "primary");
            let all = items(interface.get("addresses").unwrap_or(&Value::Null))
                .filter_map(|a| Some(a.as_str()?.trim_end_matches("/32").to_owned()))
                .filter(|a| *a != own)
                .collect();
            instance.addresses.insert(text(interface, "eni"), all);
            instance.own.insert(own);
        }
        instance
    };
    items(status.get("nodes").unwrap_or(&Value::Null))
        .map(|node| (text(node, "name"), one(node)))
        .collect()
}

/// The part of the lab's status about a node.
pub(super) fn of_node<'a>(status: &'a Value, node: &str) -> Option<&'a Value> {
    items(status.get("nodes")?).find(|n| text(n, "name") == node)
}

/// A pod as the lab tells of it, once it has an address.
pub(super) fn pod(from: &Value) -> Option<Pod> {
    from.get("address")?.as_str()?;
    Some(Pod {
        name: text(from, "name"),
        node: text(from, "node"),
        address: text(from, "address"),
        container: text(from, "container_id"),
        netns: text(from, "netns"),
    })
}

/// What is in a list; nothing when it is none.
pub(super) fn items(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_array().into_iter().flatten()
}

/// A text of an object; empty when it has none.
pub(super) fn text(of: &Value, key: &str) -> String {
    of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
