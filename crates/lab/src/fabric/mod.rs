//! The network of the VPC as namespaces, links, routes and rules, made to match the model's wanted state.
//!
//! The decisions (which lines for `ip`, which text for nft) are pure and in `links` and `rules`; this module
//! carries them out. What it must not know: EC2's calls, and agents.

mod droplog;
mod links;
mod links6;
pub mod names;
pub mod netns;
pub mod node;
mod rules;
mod rules6;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

pub use droplog::{DropLog, DroppedPacket};
pub use names::link_name;

use crate::error::LabError;
use crate::model::{FabricInterface, FabricNode, FabricView, InstanceId};
use crate::process::Process;
use crate::state::{Dir, Records};
use crate::tool;
use links::Steps;
use names::Names;
use netns::Place;
use node::Node;
use rules::Family;

/// A node as others see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodePlace {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// The process whose mount namespace is the node's.
    pub holder: Process,
}

/// The running fabric of one lab.
#[derive(Debug)]
pub struct Fabric {
    names: Names,
    logs: PathBuf,
    vpc: Place,
    internet: Place,
    view: FabricView,
    rules: rules::Rendered,
    /// Those of IPv6, where the VPC has it.
    rules6: rules::Rendered,
    nodes: BTreeMap<InstanceId, (FabricNode, Node)>,
    records: Records,
}

/// What went wrong while a change was carried out to its end. The first is the cause to tell: a node that could not be made is
/// missed by every step after it.
#[derive(Default)]
struct Failures(Option<LabError>);

impl Failures {
    fn note(&mut self, result: Result<(), LabError>) {
        match (result, &self.0) {
            (Ok(()), _) => {}
            (Err(e), None) => self.0 = Some(e),
            (Err(e), Some(_)) => tracing::error!(error = %e, "a change of the fabric failed"),
        }
    }

    fn first(self) -> Result<(), LabError> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Fabric {
    /// Makes the VPC's router, the internet and the peer, then everything the view holds.
    ///
    /// # Errors
    /// The first thing that could not be made; what was made is on record.
    pub fn create(
        dir: &Dir,
        mut records: Records,
        view: &FabricView,
        drops: &DropLog,
    ) -> Result<Self, LabError> {
        let names = dir.names();
        for name in [names.vpc(), names.internet(), names.peer()] {
            make_namespace(&mut records, &name)?;
        }
        let (vpc, internet) = (Place::named(&names.vpc())?, Place::named(&names.internet())?);
        let peer = Place::named(&names.peer())?;
        vpc.run(|| sysctls(ROUTER_SYSCTLS))?;
        internet.run(|| sysctls(OUTSIDE_SYSCTLS))?;
        peer.run(|| sysctls(OUTSIDE_SYSCTLS))?;
        if view.ipv6.is_some() {
            vpc.run(|| sysctls(ROUTER_IPV6_SYSCTLS))?;
            internet.run(|| sysctls(ROUTER_IPV6_SYSCTLS))?;
        }
        let bare = FabricView {
            nodes: Vec::new(),
            interfaces: Vec::new(),
            public: BTreeMap::new(),
            ..view.clone()
        };
        let (rules, rules6) = (rules::render(&bare), rules6::render(&bare));
        tool::nft(&vpc, &rules::initial(&bare, &rules))?;
        tool::nft(&internet, &rules::internet_frame())?;
        if view.ipv6.is_some() {
            tool::nft(&vpc, &rules6::initial(&rules6))?;
            tool::nft(&internet, &rules6::internet_frame())?;
        }
        drops.follow(&vpc, "vpc")?;
        drops.follow(&internet, "internet")?;
        tool::ip(&vpc, &links::router_lines(view, &names.internet(), &names.peer()))?;
        tool::ip(
            &internet,
            &links::outside_lines(view.internet, &[view.public_pool]),
        )?;
        if let (Some(hosts), Some(reach)) = (view.internet_ipv6, view.ipv6) {
            tool::ip(&internet, &links6::outside_lines(hosts, reach))?;
        }
        if let Some(net) = view.peer {
            tool::ip(&peer, &links::outside_lines(net, &view.vpc_cidrs))?;
        }
        let nodes = BTreeMap::new();
        let mut fabric = Self {
            names,
            logs: dir.log(),
            vpc,
            internet,
            view: bare,
            rules,
            rules6,
            nodes,
            records,
        };
        fabric.apply(view)?;
        Ok(fabric)
    }

    /// Brings the network from the last view to this one: rules first, so that no link is ever up without them.
    ///
    /// # Errors
    /// All parts are tried; the first failure is returned, the others logged.
    pub fn apply(&mut self, view: &FabricView) -> Result<(), LabError> {
        let wanted = rules::render(view);
        let steps = links::steps(Some(&self.view), view);
        let text = rules::transition(Family::V4, &self.rules, &wanted);
        let mut failures = Failures::default();
        match tool::nft(&self.vpc, &text) {
            Ok(()) => self.rules = wanted,
            Err(e) => failures.note(Err(e)),
        }
        if view.ipv6.is_some() {
            let wanted = rules6::render(view);
            match tool::nft(&self.vpc, &rules::transition(Family::V6, &self.rules6, &wanted)) {
                Ok(()) => self.rules6 = wanted,
                Err(e) => failures.note(Err(e)),
            }
        }
        self.carry_out(&steps, view, &mut failures);
        self.view = view.clone();
        failures.first()
    }

    fn carry_out(&mut self, steps: &Steps, view: &FabricView, failures: &mut Failures) {
        if steps.is_empty() {
            return;
        }
        let mut note = |r| failures.note(r);
        note(tool::ip(&self.vpc, &steps.remove));
        for id in &steps.nodes_gone {
            note(self.remove_node(id));
        }
        for node in &steps.nodes_new {
            note(self.add_node(node, view.ipv6.is_some()));
        }
        for interface in &steps.attach {
            note(self.attach(view, interface));
        }
        note(tool::ip(&self.vpc, &steps.route));
    }

    fn add_node(&mut self, node: &FabricNode, ipv6: bool) -> Result<(), LabError> {
        let name = self.names.node(&node.name);
        make_namespace(&mut self.records, &name)?;
        Place::named(&name)?.run(|| sysctls(NODE_SYSCTLS))?;
        if ipv6 {
            Place::named(&name)?.run(|| sysctls(NODE_IPV6_SYSCTLS))?;
        }
        let made = Node::start(&name, &self.logs.join(&node.name))?;
        let holder = made.holder.clone();
        self.records
            .change(|m| m.processes.push((format!("holder of {name}"), holder)))?;
        self.nodes.insert(node.id.clone(), (node.clone(), made));
        Ok(())
    }

    fn remove_node(&mut self, id: &InstanceId) -> Result<(), LabError> {
        let Some((_, node)) = self.nodes.remove(id) else {
            return Ok(());
        };
        let (name, holder) = (node.namespace.clone(), node.holder.clone());
        for process in crate::process::in_namespace(&netns::path(&name)) {
            // Whatever ran on the instance ends with it, as when EC2 terminates one.
            process.signal(rustix::process::Signal::KILL);
        }
        node.stop();
        netns::delete(&name)?;
        self.records.change(|m| {
            m.namespaces.retain(|n| *n != name);
            m.processes.retain(|(_, p)| *p != holder);
        })
    }

    fn attach(&self, view: &FabricView, interface: &FabricInterface) -> Result<(), LabError> {
        let Some((_, node)) = self.nodes.get(&interface.node) else {
            return Err(LabError::Unknown {
                kind: "instance",
                name: interface.node.to_string(),
                known: Vec::new(),
            });
        };
        let place = Place::named(&node.namespace)?;
        let name = place.run(|| free_name(interface.device_index))?;
        let mut lines = links::attach_lines(interface, &node.namespace, &name);
        lines.extend(links6::attach_lines(view, interface));
        tool::ip(&self.vpc, &lines)?;
        // Else answers for others are held back up to 0.8 s. New links take this one setting from the machine's
        // default, not from their namespace's.
        let setting = format!("net/ipv4/neigh/{}/proxy_delay", link_name(&interface.eni));
        self.vpc.run(|| sysctls(&[(&setting, "0")]))?;
        if interface.device_index == 0 && interface.card == 0 {
            tool::ip(&place, &links::boot_lines(view, interface, &name))?;
        }
        Ok(())
    }

    /// Writes down something else that is about to be made in this lab, or has gone.
    ///
    /// # Errors
    /// [`LabError::File`]; then nothing is to be made.
    pub(crate) fn record(&mut self, change: impl FnOnce(&mut crate::state::Made)) -> Result<(), LabError> {
        self.records.change(change)
    }

    /// Where the nodes are.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<InstanceId, NodePlace> {
        let place = |(id, (node, made)): (&InstanceId, &(FabricNode, Node))| {
            let (name, namespace, holder) = (node.name.clone(), made.namespace.clone(), made.holder.clone());
            (
                id.clone(),
                NodePlace {
                    name,
                    namespace,
                    holder,
                },
            )
        };
        self.nodes.iter().map(place).collect()
    }

    /// Dropped packets by reason, from the kernel's counters.
    ///
    /// # Errors
    /// When nft cannot be run or says what cannot be read.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>, LabError> {
        let places = [&self.vpc, &self.internet];
        let mut all = counters(&places, Family::V4)?;
        if self.view.ipv6.is_some() {
            for (reason, packets) in counters(&places, Family::V6)? {
                *all.entry(reason).or_default() += packets;
            }
        }
        Ok(all)
    }
}

/// Opens a listening socket in the VPC's namespace.
///
/// # Errors
/// [`LabError::Socket`].
pub fn listen_in_vpc(names: &Names, address: Ipv4Addr, port: u16) -> Result<std::net::TcpListener, LabError> {
    Place::named(&names.vpc())?.run(|| {
        let listener = std::net::TcpListener::bind((address, port))
            .map_err(LabError::socket(format!("listen on {address}:{port} in the VPC")))?;
        listener
            .set_nonblocking(true)
            .map_err(LabError::socket("make a listener non-blocking"))?;
        Ok(listener)
    })
}

fn counters(places: &[&Place], family: Family) -> Result<BTreeMap<String, u64>, LabError> {
    let mut all: BTreeMap<String, u64> = rules::REASONS.iter().map(|(r, _)| ((*r).to_owned(), 0)).collect();
    for place in places {
        let said = tool::run(
            place,
            "nft",
            &["-j", "list", "counters", "table", &family.to_string(), "vpc"],
            "",
        )?;
        let read = serde_json::from_str::<serde_json::Value>(&said.out).ok();
        let entries = read
            .as_ref()
            .and_then(|v| v.get("nftables")?.as_array())
            .ok_or_else(|| LabError::Tool {
                program: "nft".to_owned(),
                namespace: place.name().to_owned(),
                message: if said.err.is_empty() {
                    "its list of counters makes no sense".to_owned()
                } else {
                    said.err
                },
            })?;
        for counter in entries.iter().filter_map(|e| e.get("counter")) {
            let name = counter
                .get("name")
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default();
            let packets = counter
                .get("packets")
                .and_then(serde_json::Value::as_u64)
                .unwrap_or_default();
            *all.entry(name.to_owned()).or_default() += packets;
        }
    }
    Ok(all)
}

/// Explains each reason a packet may be dropped for.
#[must_use]
pub fn reasons() -> &'static [(&'static str, &'static str)] {
    rules::REASONS
}

/// The address the internet's, or the peer's, own connections come from.
#[must_use]
pub fn outside_host(hosts: ipnet::Ipv4Net) -> Ipv4Addr {
    links::host_of(hosts)
}

/// The same for IPv6.
#[must_use]
pub fn outside_host_ipv6(hosts: ipnet::Ipv6Net) -> std::net::Ipv6Addr {
    links6::host_of(hosts)
}

fn make_namespace(records: &mut Records, name: &str) -> Result<(), LabError> {
    if netns::exists(name) {
        // Not recorded, so not ours: removing it would take somebody else's.
        return Err(LabError::ns("create", name)(io::Error::from(
            io::ErrorKind::AlreadyExists,
        )));
    }
    records.change(|m| m.namespaces.push(name.to_owned()))?;
    netns::create(name)
}

/// `ethN` with N from the device index on, free in the calling thread's namespace.
fn free_name(device: u32) -> Result<String, LabError> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(io::Error::from)
        .map_err(LabError::socket("open a socket for link names"))?;
    let taken = |name: &String| name_to_index(&any, name).is_ok();
    let mut names = (device..=u32::MAX).map(|n| format!("eth{n}"));
    names
        .find(|name| !taken(name))
        .ok_or_else(|| LabError::Usage("no link name is free".to_owned()))
}

/// In this order: changing `ip_forward` resets the other settings of links.
const ROUTER_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/proxy_arp", "1"),
    ("net/ipv4/conf/default/proxy_arp", "1"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

const OUTSIDE_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// As a fresh Amazon Linux instance has them. New namespaces take over the machine's, whatever they are.
const NODE_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv4/conf/default/rp_filter", "1"),
    ("net/ipv4/conf/all/proxy_arp", "0"),
    ("net/ipv4/conf/default/proxy_arp", "0"),
];

/// For the router and the internet of a VPC with IPv6: links have the addresses they are given, and no others.
const ROUTER_IPV6_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/lo/disable_ipv6", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    // IN6_ADDR_GEN_MODE_NONE.
    ("net/ipv6/conf/all/addr_gen_mode", "1"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
];

/// As a fresh Amazon Linux instance has them, but for router advertisements: the router sends none.
const NODE_IPV6_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/lo/disable_ipv6", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/ipv6/conf/default/forwarding", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/proxy_ndp", "0"),
    ("net/ipv6/conf/default/proxy_ndp", "0"),
];

/// Writes settings of the calling thread's network namespace. Those a kernel lacks (no IPv6) are left out.
fn sysctls(settings: &[(&str, &str)]) -> Result<(), LabError> {
    for (key, value) in settings {
        let file = PathBuf::from("/proc/sys").join(key);
        match fs::write(&file, value) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(LabError::file("write", file)(e)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_not_what_came_of_it() {
        let unknown = |name: &str| LabError::Unknown {
            kind: "instance",
            name: name.to_owned(),
            known: Vec::new(),
        };
        let mut failures = Failures::default();
        failures.note(Ok(()));
        failures.note(Err(LabError::Refused("the cause".to_owned())));
        failures.note(Err(unknown("i-1")));
        failures.note(Ok(()));
        assert_eq!(failures.first().unwrap_err().to_string(), "the cause");
        assert!(Failures::default().first().is_ok());
    }
}
