//! The daemon's answers to the command line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;

use super::agents::Agents;
use super::network::Network;
use super::options;
use super::{EC2, IMDS};
use crate::api::{Engine, operator_call};
use crate::control::{AgentAction, Ask, InterfaceStatus, NodeEnv, NodeStatus, Outside, Status, SubnetStatus};
use crate::error::LabError;
use crate::fabric::netns::Place;
use crate::fabric::{DropLog, NodePlace, outside_host, outside_host_ipv6};
use crate::kubernetes::CONTROL_PLANE;
use crate::kubernetes::cluster::{Cluster, Host};
use crate::model::{ApiError, FabricNode, FabricView, NodeSpec, RoleConfig, SubnetRoute};
use crate::state::Dir;

/// How long a node may take to come or go.
const NODE_LIMIT: Duration = Duration::from_secs(30);

/// Everything the answers are made from.
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) network: Network,
    pub(crate) agents: Agents,
    /// The Kubernetes on the nodes, where there is one.
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) drops: DropLog,
    pub(crate) dir: Dir,
    pub(crate) ec2_port: u16,
    pub(crate) instance_type: String,
    /// Whether nodes get an agent when they start.
    pub(crate) with_agents: bool,
    /// For every agent.
    pub(crate) env: Vec<(String, String)>,
}

fn refused(e: ApiError) -> LabError {
    LabError::Refused(format!("{} ({})", e.message, e.code))
}

fn value<T: Serialize>(of: &T) -> Result<Value, LabError> {
    serde_json::to_value(of).map_err(|e| LabError::Refused(format!("the answer cannot be written: {e}")))
}

impl Daemon {
    pub(crate) async fn answer(self: &std::sync::Arc<Self>, ask: Ask) -> Result<Value, LabError> {
        match ask {
            Ask::Status => self.blocking(|d| value(&d.status()?)).await,
            Ask::Env { node } => value(&self.env(&node)?),
            Ask::NodeAdd {
                name,
                instance_type,
                subnet,
                agent,
            } => self.node_add(name, instance_type, subnet, agent).await,
            Ask::NodeRemove { name } => self.node_remove(&name).await,
            Ask::Agent { node, action, env } => self.blocking(move |d| d.agent(&node, action, &env)).await,
            Ask::Component {
                machine,
                name,
                action,
            } => {
                self.blocking(move |d| {
                    d.cluster()?.component(&machine, &name, action)?;
                    Ok(Value::Null)
                })
                .await
            }
            Ask::FaultAdd { rule } => value(&self.engine.with(|vpc, _| vpc.add_fault(rule))),
            Ask::FaultList => self.engine.with(|vpc, _| value(&vpc.faults())),
            Ask::FaultClear { id: None } => {
                self.engine.with(|vpc, _| vpc.clear_faults());
                Ok(Value::Null)
            }
            Ask::FaultClear { id: Some(id) } => {
                let gone = self.engine.with(|vpc, _| vpc.remove_fault(id));
                let unknown = || LabError::Unknown {
                    kind: "fault",
                    name: id.to_string(),
                    known: Vec::new(),
                };
                gone.then_some(Value::Null).ok_or_else(unknown)
            }
            Ask::Calls { since_ms } => {
                let since = Duration::from_millis(since_ms);
                self.engine
                    .with(|vpc, _| value(&vpc.calls().filter(|c| c.at >= since).collect::<Vec<_>>()))
            }
            Ask::Drops { since_ms } => {
                let mut drops = self.drops.since(Duration::from_millis(since_ms));
                let view = self.engine.with(|vpc, _| vpc.fabric());
                for drop in &mut drops {
                    for link in [&mut drop.from, &mut drop.to].into_iter().flatten() {
                        let named = view
                            .interfaces
                            .iter()
                            .find(|i| crate::fabric::link_name(&i.eni) == *link);
                        if let Some(interface) = named {
                            *link = interface.eni.to_string();
                        }
                    }
                }
                value(&drops)
            }
            Ask::Ec2 { parameters } => {
                value(&operator_call(&self.engine, &parameters).await.map_err(refused)?)
            }
            Ask::Policy { policy } => self.engine.with(|vpc, _| {
                if let Some(policy) = policy {
                    vpc.set_role(&RoleConfig {
                        name: RoleConfig::NODE.to_owned(),
                        policy,
                    });
                }
                value(&vpc.policy(RoleConfig::NODE))
            }),
            Ask::HopLimit { node, hops } => {
                let (node, _) = self.find(&node)?;
                value(&self.engine.with(|vpc, _| {
                    let before = vpc.instance(&node.id).map_err(refused)?.hop_limit;
                    vpc.modify_metadata_options(&node.id, Some(hops), None)
                        .map_err(refused)?;
                    Ok::<u8, LabError>(before)
                })?)
            }
        }
    }

    async fn blocking(
        self: &std::sync::Arc<Self>,
        work: impl FnOnce(&Self) -> Result<Value, LabError> + Send + 'static,
    ) -> Result<Value, LabError> {
        let daemon = self.clone();
        let ended = |e: tokio::task::JoinError| LabError::Refused(format!("the daemon failed: {e}"));
        tokio::task::spawn_blocking(move || work(&daemon))
            .await
            .map_err(ended)?
    }

    fn view(&self) -> FabricView {
        self.engine.with(|vpc, _| vpc.fabric())
    }

    fn find(&self, name: &str) -> Result<(FabricNode, NodePlace), LabError> {
        let view = self.view();
        let mut places = self.network.nodes();
        let found = view.nodes.iter().find(|n| n.name == name).cloned();
        found
            .and_then(|node| places.remove(&node.id).map(|place| (node, place)))
            .ok_or_else(|| LabError::Unknown {
                kind: "node",
                name: name.to_owned(),
                known: view.nodes.into_iter().map(|n| n.name).collect(),
            })
    }

    fn status(&self) -> Result<Status, LabError> {
        let view = self.view();
        let places = self.network.nodes();
        let names = self.dir.names();
        let (region, calls, model_faults, loose) = self.engine.with(|vpc, _| {
            let mut calls: BTreeMap<String, u64> = BTreeMap::new();
            for count in vpc.call_counts() {
                *calls.entry(count.action).or_default() += count.count;
            }
            (vpc.config().region.clone(), calls, vpc.check(), loose(vpc))
        });
        let mut nodes: Vec<NodeStatus> = view
            .nodes
            .iter()
            .filter_map(|n| {
                let mut status = node_status(&view, n, places.get(&n.id)?, self.agents.status(&n.name));
                status.kubernetes = self.cluster.as_ref().and_then(|c| c.machine_status(&n.name));
                Some(status)
            })
            .collect();
        nodes.sort_by_key(|n| (n.name.len(), n.name.clone()));
        Ok(Status {
            region,
            uptime_ms: u64::try_from(self.engine.now().as_millis()).unwrap_or(u64::MAX),
            ec2_endpoint: format!("http://127.0.0.1:{}", self.ec2_port),
            ec2_endpoint_in_nodes: format!("http://{}:{}", EC2.0, EC2.1),
            imds_endpoint: format!("http://{}", IMDS.0),
            vpc: view.vpc_cidrs.clone(),
            vpc_ipv6: view.ipv6,
            nat_public: view.nat_public,
            kubernetes: self.cluster.as_ref().map(|c| c.status()),
            internet: outside(view.internet, names.internet()),
            internet_ipv6: view.internet_ipv6.map(|net| Outside {
                cidr: net.into(),
                host: outside_host_ipv6(net).into(),
                namespace: names.internet(),
            }),
            peer: view.peer.map(|net| outside(net, names.peer())),
            subnets: view.subnets.iter().map(subnet_status).collect(),
            nodes,
            loose_interfaces: loose,
            calls,
            drops: self.network.counters()?,
            model_faults,
        })
    }

    fn env(&self, name: &str) -> Result<NodeEnv, LabError> {
        let (node, place) = self.find(name)?;
        let (region, keys) = self.engine.with(|vpc, _| {
            (
                vpc.config().region.clone(),
                vpc.role_credentials(RoleConfig::NODE),
            )
        });
        let ec2 = format!("http://{}:{}", EC2.0, EC2.1);
        let mut variables = vec![
            ("AWS_REGION", region.clone()),
            ("AWS_DEFAULT_REGION", region),
            ("AWS_ENDPOINT_URL_EC2", ec2.clone()),
            ("AWS_EC2_ENDPOINT", ec2),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", IMDS.0)),
        ];
        if let Some(keys) = keys {
            variables.push(("AWS_ACCESS_KEY_ID", keys.access_key));
            variables.push(("AWS_SECRET_ACCESS_KEY", keys.secret_key));
        }
        variables.push(("MY_NODE_NAME", self.node_name(&node)));
        let prefix = [
            "nsenter".to_owned(),
            format!("--net=/run/netns/{}", place.namespace),
            format!("--mount=/proc/{}/ns/mnt", place.holder.pid),
            "--".to_owned(),
        ];
        Ok(NodeEnv {
            variables: variables.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            prefix: prefix.into(),
            outside_endpoint: format!("http://127.0.0.1:{}", self.ec2_port),
        })
    }

    /// What the agent is to call its node: as Kubernetes does, where there is one.
    fn node_name(&self, node: &FabricNode) -> String {
        let cluster = self.cluster.as_ref().zip(primary(&self.view(), node));
        cluster.map_or_else(
            || node.name.clone(),
            |(cluster, address)| cluster.node_name(address),
        )
    }

    fn cluster(&self) -> Result<&Arc<Cluster>, LabError> {
        let none = "this lab has no Kubernetes: 'vpcnet lab up --kubernetes' starts one that has";
        self.cluster
            .as_ref()
            .ok_or_else(|| LabError::Usage(none.to_owned()))
    }

    /// Starts Kubernetes on all nodes, if this lab is to have it.
    pub(crate) async fn start_cluster(self: &Arc<Self>) -> Result<(), LabError> {
        if self.cluster.is_none() {
            return Ok(());
        }
        let start = |daemon: &Self| {
            let mut hosts = hosts(&daemon.view(), &daemon.network);
            hosts.retain(|h| h.name != CONTROL_PLANE);
            daemon.cluster()?.start(&hosts)?;
            Ok(Value::Null)
        };
        self.blocking(start).await.map(drop)
    }

    fn agent(&self, name: &str, action: AgentAction, env: &[String]) -> Result<Value, LabError> {
        let (_, place) = self.find(name)?;
        match action {
            AgentAction::Start => self.start_agent(name, &place, env)?,
            AgentAction::Stop => self.agents.end(name, Signal::TERM)?,
            AgentAction::Kill => self.agents.end(name, Signal::KILL)?,
        }
        value(&self.agents.status(name))
    }

    fn start_agent(&self, name: &str, place: &NodePlace, env: &[String]) -> Result<(), LabError> {
        // Region and credentials are left for IMDS to tell, as on a node.
        let told = [
            "AWS_ENDPOINT_URL_EC2",
            "AWS_EC2_ENDPOINT",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "MY_NODE_NAME",
        ];
        let mut all = self.env(name)?.variables;
        all.retain(|(key, _)| told.contains(&key.as_str()));
        all.extend(self.env.iter().cloned());
        for text in env {
            all.push(options::pair(text)?);
        }
        self.agents
            .start(name, &Place::of_node(&place.namespace, place.holder.pid)?, &all)
    }

    pub(crate) fn start_all_agents(&self) -> Result<(), LabError> {
        self.network
            .nodes()
            .values()
            .try_for_each(|place| self.start_agent(&place.name, place, &[]))
    }

    async fn node_add(
        self: &Arc<Self>,
        name: Option<String>,
        instance_type: Option<String>,
        subnet: Option<String>,
        agent: bool,
    ) -> Result<Value, LabError> {
        let name = name.unwrap_or_else(|| free_name(&self.view()));
        let instance_type = instance_type.unwrap_or_else(|| self.instance_type.clone());
        let spec = NodeSpec {
            subnet,
            ..NodeSpec::new(&name, &instance_type)
        };
        let id = self
            .engine
            .with(|vpc, now| vpc.run_instance(now, &spec))
            .map_err(refused)?;
        self.wait("the node's start", || self.network.nodes().contains_key(&id))
            .await?;
        let agent = agent && self.with_agents;
        if agent {
            let (_, place) = self.find(&name)?;
            self.start_agent(&name, &place, &[])?;
        }
        if self.cluster.is_some() {
            let added = name.clone();
            let join = move |daemon: &Self| {
                let mut hosts = hosts(&daemon.view(), &daemon.network);
                hosts.retain(|h| h.name == added);
                hosts.iter().try_for_each(|h| daemon.cluster()?.add(h))?;
                Ok(Value::Null)
            };
            self.blocking(join).await?;
        }
        value(&(name, agent))
    }

    async fn node_remove(self: &Arc<Self>, name: &str) -> Result<Value, LabError> {
        if self.cluster.is_some() && name == CONTROL_PLANE {
            return Err(LabError::Usage(format!(
                "{CONTROL_PLANE} is the cluster's, and stays as long as the lab"
            )));
        }
        let (node, _) = self.find(name)?;
        self.engine
            .with(|vpc, now| vpc.terminate_instance(now, &node.id))
            .map_err(refused)?;
        self.wait("the node's end", || !self.network.nodes().contains_key(&node.id))
            .await?;
        self.agents.forget(name);
        if self.cluster.is_some() {
            let gone = name.to_owned();
            let remove = move |daemon: &Self| daemon.cluster()?.remove(&gone).map(|()| Value::Null);
            self.blocking(remove).await?;
        }
        Ok(Value::Null)
    }

    /// Waits until the fabric shows what is wanted.
    async fn wait(&self, what: &str, done: impl Fn() -> bool) -> Result<(), LabError> {
        let start = Instant::now();
        while start.elapsed() < NODE_LIMIT {
            self.network.caught_up(&self.engine).await;
            if done() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = self.dir.log().join("lab.log");
        Err(LabError::TooLate {
            what: what.to_owned(),
            seconds: NODE_LIMIT.as_secs(),
            log,
        })
    }
}

fn primary(view: &FabricView, node: &FabricNode) -> Option<std::net::Ipv4Addr> {
    let first = |i: &&crate::model::FabricInterface| i.node == node.id && (i.card, i.device_index) == (0, 0);
    view.interfaces.iter().find(first)?.primary
}

/// The instances that are up, as Kubernetes needs to know them.
pub(crate) fn hosts(view: &FabricView, network: &Network) -> Vec<Host> {
    let places = network.nodes();
    let zone = |node: &FabricNode| {
        let first = view.interfaces.iter().find(|i| i.node == node.id)?;
        let subnet = view.subnets.iter().find(|s| s.id == first.subnet)?;
        Some(subnet.zone.clone())
    };
    let host = |node: &FabricNode| {
        let place = places.get(&node.id)?;
        Some(Host {
            name: node.name.clone(),
            namespace: place.namespace.clone(),
            holder: place.holder.pid,
            instance: node.id.to_string(),
            instance_type: node.instance_type.clone(),
            zone: zone(node)?,
            address: primary(view, node)?,
        })
    };
    view.nodes.iter().filter_map(host).collect()
}

fn outside(cidr: ipnet::Ipv4Net, namespace: String) -> Outside {
    Outside {
        cidr: cidr.into(),
        host: outside_host(cidr).into(),
        namespace,
    }
}

fn subnet_status(subnet: &crate::model::FabricSubnet) -> SubnetStatus {
    SubnetStatus {
        id: subnet.id.to_string(),
        name: subnet.name.clone(),
        zone: subnet.zone.clone(),
        cidr: subnet.cidr,
        ipv6: subnet.ipv6,
        gateway: subnet.gateway,
        public: subnet.route == SubnetRoute::Public,
    }
}

fn node_status(
    view: &FabricView,
    node: &FabricNode,
    place: &NodePlace,
    agent: crate::control::AgentStatus,
) -> NodeStatus {
    let mut interfaces: Vec<_> = view.interfaces.iter().filter(|i| i.node == node.id).collect();
    interfaces.sort_by_key(|i| (i.card, i.device_index));
    let first = interfaces.first();
    let primary = first.and_then(|i| i.primary);
    NodeStatus {
        name: node.name.clone(),
        instance: node.id.to_string(),
        instance_type: node.instance_type.clone(),
        subnet: first.map(|i| i.subnet.to_string()).unwrap_or_default(),
        primary,
        public: primary.and_then(|p| view.public.get(&p).copied()),
        primary_ipv6: first.and_then(|i| i.primary_ipv6),
        namespace: place.namespace.clone(),
        holder: place.holder.pid,
        agent,
        kubernetes: None,
        interfaces: interfaces
            .iter()
            .map(|i| InterfaceStatus {
                eni: i.eni.to_string(),
                card: i.card,
                device: i.device_index,
                mac: i.mac.to_string(),
                subnet: i.subnet.to_string(),
                primary: i.primary,
                addresses: i.addresses.clone(),
                ipv6: i.ipv6.clone(),
            })
            .collect(),
    }
}

fn free_name(view: &FabricView) -> String {
    let taken = |name: &String| view.nodes.iter().any(|n| n.name == *name);
    (1..)
        .map(|n| format!("node-{n}"))
        .find(|name| !taken(name))
        .unwrap_or_default()
}

/// Interfaces attached to nothing: what a careless agent leaks.
fn loose(vpc: &crate::model::Vpc) -> Vec<String> {
    vpc.interfaces
        .values()
        .filter(|i| i.attachment.is_none())
        .map(|i| i.id.to_string())
        .collect()
}
