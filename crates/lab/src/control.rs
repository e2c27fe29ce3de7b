//! What the command line asks the daemon, over a unix socket: one JSON line there, one back.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LabError;
use crate::kubernetes::{KubernetesStatus, MachineStatus};
use crate::model::{FaultRule, Policy};
use crate::state::{Dir, Records};

/// A question or an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// → [`Status`].
    Status,
    /// → [`NodeEnv`].
    Env {
        /// Of this node.
        node: String,
    },
    /// Start an instance. → its name, and whether an agent was started.
    NodeAdd {
        /// Its name; `None`: the next free `node-N`.
        name: Option<String>,
        /// Its type; `None`: the one the lab was started with.
        instance_type: Option<String>,
        /// Name or id of its subnet; `None`: by turns.
        subnet: Option<String>,
        /// Start its agent, too, if the lab was started with agents.
        agent: bool,
    },
    /// Terminate an instance, and all that runs on it.
    NodeRemove {
        /// Its name.
        name: String,
    },
    /// Start, stop or kill an agent. → [`AgentStatus`].
    Agent {
        /// Of this node.
        node: String,
        /// What to do.
        action: AgentAction,
        /// `KEY=VALUE` beside the usual environment.
        env: Vec<String>,
    },
    /// Start again, stop or kill a program of Kubernetes.
    Component {
        /// A node, or the control plane.
        machine: String,
        /// The program's name.
        name: String,
        /// What to do.
        action: AgentAction,
    },
    /// Add a rule to the fault plan. → its number.
    FaultAdd {
        /// It.
        rule: FaultRule,
    },
    /// → the rules with how often each matched and struck.
    FaultList,
    /// Remove one rule or all.
    FaultClear {
        /// Its number; `None`: all.
        id: Option<u64>,
    },
    /// → the calls, oldest first.
    Calls {
        /// Only those from this many milliseconds after the lab's start on.
        since_ms: u64,
    },
    /// → the dropped packets, oldest first.
    Drops {
        /// As for calls.
        since_ms: u64,
    },
    /// Make an EC2 call as the lab's administrator. → EC2's XML.
    Ec2 {
        /// Its parameters, `Action` among them.
        parameters: Vec<(String, String)>,
    },
    /// Replace the policy of the nodes' role. → the one in force.
    Policy {
        /// The new one; `None`: nothing changes.
        policy: Option<Policy>,
    },
    /// Set how many hops an IMDS token answer travels. → what it was.
    HopLimit {
        /// Of this node.
        node: String,
        /// 1 to 64.
        hops: u8,
    },
}

/// What to do with an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentAction {
    /// Start it.
    Start,
    /// SIGTERM, and wait until it has ended.
    Stop,
    /// SIGKILL.
    Kill,
}

/// The daemon's answer on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// It was done.
    Ok(Value),
    /// It was not, and why.
    Error(String),
}

/// The lab as it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Region.
    pub region: String,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// The EC2 face from outside the lab's namespaces.
    pub ec2_endpoint: String,
    /// The EC2 face from the nodes.
    pub ec2_endpoint_in_nodes: String,
    /// IMDS from the nodes.
    pub imds_endpoint: String,
    /// All CIDRs of the VPC.
    pub vpc: Vec<Ipv4Net>,
    /// Its IPv6 CIDR.
    pub vpc_ipv6: Option<Ipv6Net>,
    /// The NAT gateway's public address.
    pub nat_public: Ipv4Addr,
    /// The Kubernetes on the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesStatus>,
    /// Networks outside.
    pub internet: Outside,
    /// The internet by IPv6, where the VPC has it.
    pub internet_ipv6: Option<Outside>,
    /// The peered network.
    pub peer: Option<Outside>,
    /// Subnets.
    pub subnets: Vec<SubnetStatus>,
    /// Nodes, by name.
    pub nodes: Vec<NodeStatus>,
    /// Interfaces that are attached to nothing.
    pub loose_interfaces: Vec<String>,
    /// Calls by action.
    pub calls: BTreeMap<String, u64>,
    /// Dropped packets by reason.
    pub drops: BTreeMap<String, u64>,
    /// Rules of EC2 that the model finds broken in itself: a fault of the lab.
    pub model_faults: Vec<String>,
}

/// A network outside the VPC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outside {
    /// Its addresses; all of them answer.
    pub cidr: IpNet,
    /// Where its own connections come from.
    pub host: IpAddr,
    /// Its network namespace.
    pub namespace: String,
}

/// A subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubnetStatus {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Zone.
    pub zone: String,
    /// Addresses.
    pub cidr: Ipv4Net,
    /// IPv6 addresses.
    pub ipv6: Option<Ipv6Net>,
    /// The router in it.
    pub gateway: Ipv4Addr,
    /// True: to the internet gateway; false: to the NAT gateway.
    pub public: bool,
}

/// A node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name.
    pub name: String,
    /// Instance id.
    pub instance: String,
    /// Instance type.
    pub instance_type: String,
    /// Id of its primary interface's subnet.
    pub subnet: String,
    /// Its primary address.
    pub primary: Option<Ipv4Addr>,
    /// The public address of that.
    pub public: Option<Ipv4Addr>,
    /// Its own IPv6 address.
    pub primary_ipv6: Option<Ipv6Addr>,
    /// Network namespace.
    pub namespace: String,
    /// Process with its mount namespace.
    pub holder: i32,
    /// Its agent.
    pub agent: AgentStatus,
    /// What Kubernetes runs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<MachineStatus>,
    /// Attached interfaces by card and device index.
    pub interfaces: Vec<InterfaceStatus>,
}

/// An agent as the daemon started it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its process while it runs.
    pub pid: Option<i32>,
    /// How often it was started.
    pub starts: u32,
    /// How it ended, when it did.
    pub ended: Option<String>,
    /// Its log.
    pub log: String,
}

/// An attached interface.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Id.
    pub eni: String,
    /// Card.
    pub card: u32,
    /// Device index.
    pub device: u32,
    /// MAC.
    pub mac: String,
    /// Subnet id.
    pub subnet: String,
    /// Primary address.
    pub primary: Option<Ipv4Addr>,
    /// All it owns.
    pub addresses: Vec<Ipv4Net>,
    /// All it owns of IPv6, its own address first.
    pub ipv6: Vec<Ipv6Net>,
}

impl InterfaceStatus {
    /// Whether the address is one of it.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.addresses.iter().any(|net| net.contains(&v4)),
            IpAddr::V6(v6) => self.ipv6.iter().any(|net| net.contains(&v6)),
        }
    }
}

/// What somebody needs to start an agent by hand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeEnv {
    /// Variables, in the order to print them.
    pub variables: Vec<(String, String)>,
    /// A command line that enters the node and goes on with what follows it.
    pub prefix: Vec<String>,
    /// The EC2 face from outside the lab's namespaces.
    pub outside_endpoint: String,
}

impl Status {
    /// The node of that name.
    ///
    /// # Errors
    /// [`LabError::Unknown`] with the names there are.
    pub fn node(&self, name: &str) -> Result<&NodeStatus, LabError> {
        self.nodes
            .iter()
            .find(|n| n.name == name)
            .ok_or_else(|| LabError::Unknown {
                kind: "node",
                name: name.to_owned(),
                known: self.nodes.iter().map(|n| n.name.clone()).collect(),
            })
    }
}

/// Asks the lab in that directory and reads the answer as `T`.
///
/// # Errors
/// [`LabError::NotUp`], [`LabError::DaemonGone`], or what the daemon says.
pub fn ask<T: DeserializeOwned>(dir: &Dir, ask: &Ask) -> Result<T, LabError> {
    let Ok(mut stream) = UnixStream::connect(dir.control()) else {
        return Err(match Records::load(dir)? {
            None => LabError::NotUp {
                dir: dir.path().to_owned(),
            },
            Some(_) => LabError::DaemonGone {
                dir: dir.path().to_owned(),
            },
        });
    };
    let socket = |doing: &'static str| LabError::socket(format!("{doing} the lab's daemon"));
    let mut line = serde_json::to_string(ask).map_err(|e| socket("write to")(e.into()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(socket("write to"))?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(socket("read from"))?;
    if answer.is_empty() {
        return Err(LabError::DaemonGone {
            dir: dir.path().to_owned(),
        });
    }
    let read = |e: serde_json::Error| socket("understand")(e.into());
    match serde_json::from_str(&answer).map_err(read)? {
        Answer::Ok(value) => serde_json::from_value(value).map_err(read),
        Answer::Error(why) => Err(LabError::Refused(why)),
    }
}
