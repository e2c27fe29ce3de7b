//! Which packets to send, and what each must show at the far side: pure.

use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv4Net;
use serde::Serialize;

/// Where responders listen, UDP and TCP: in the NodePort range, which the default security group opens to all.
pub(crate) const PORT: u16 = 30777;
/// First NodePort-style port; the following ones are taken as needed.
pub(crate) const NODE_PORT: u16 = 31777;
/// Bytes of the largest packet a VPC carries.
const JUMBO: usize = 9001;

/// What an endpoint is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A pod.
    Pod {
        /// Index of its node among the endpoints.
        node: usize,
        /// Card and device index of the interface that owns its address; `None`: no interface does.
        interface: Option<(u32, u32)>,
        /// What the internet sees its connections come from when the node does not translate them: the NAT gateway of its
        /// interface's subnet; `None`: that is a public subnet, whose gateway lets no private address through.
        alone: Option<IpAddr>,
    },
    /// A node.
    Node {
        /// Its public address.
        public: Option<IpAddr>,
        /// What the internet sees its connections come from; `None`: it has no way there.
        seen_as: Option<IpAddr>,
    },
    /// A host of the internet.
    Internet,
    /// A host of the peered network.
    Peer,
}

/// Somebody who answers and asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    /// `pod/web-1`, `node-1`, `internet`, `peer`.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// Its network namespace.
    pub namespace: String,
    /// What it is.
    pub kind: Kind,
    /// It asks from its address, though its namespace would choose another one: a pod's address on a further network card.
    pub further: bool,
}

impl Endpoint {
    /// Where its questions come from, unless the namespace chooses.
    pub(crate) fn source(&self) -> Option<IpAddr> {
        self.further.then_some(self.address)
    }
}

/// How a question travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// One datagram there and one back.
    Udp,
    /// A connection.
    Tcp,
}

/// A question and what its answer must say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Probe {
    /// The family it belongs to.
    pub kind: &'static str,
    /// Who asks: index among the endpoints.
    pub from: usize,
    /// Where the question goes.
    pub to: SocketAddr,
    /// Who must answer: index among the endpoints.
    pub answers: usize,
    /// The source address the answering side must see.
    pub seen: IpAddr,
    /// How.
    pub transport: Transport,
    /// Payload length in bytes; 0: as short as it gets.
    pub size: usize,
}

/// A port of a node that leads to a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NodePort {
    /// The node: index among the endpoints.
    pub node: usize,
    /// The pod: index among the endpoints.
    pub pod: usize,
    /// The port.
    pub port: u16,
}

/// Ports to open: on each node one for its first pod on the primary interface and one for its first on a secondary.
pub(crate) fn node_ports(endpoints: &[Endpoint]) -> Vec<NodePort> {
    let mut ports: Vec<NodePort> = Vec::new();
    for (node, _) in endpoints
        .iter()
        .enumerate()
        .filter(|(_, e)| matches!(e.kind, Kind::Node { .. }))
    {
        for primary in [true, false] {
            let pod = endpoints.iter().position(|e| {
                matches!(e.kind, Kind::Pod { node: n, interface: Some(i), .. } if n == node && (i == (0, 0)) == primary)
            });
            let port = u16::try_from(ports.len())
                .ok()
                .and_then(|n| NODE_PORT.checked_add(n));
            if let (Some(pod), Some(port)) = (pod, port) {
                ports.push(NodePort { node, pod, port });
            }
        }
    }
    ports
}

/// Whether pods go there with their own address: always by IPv6.
pub(crate) fn is_untranslated(to: IpAddr, untranslated: &[Ipv4Net]) -> bool {
    match to {
        IpAddr::V4(v4) => untranslated.iter().any(|net| net.contains(&v4)),
        IpAddr::V6(_) => true,
    }
}

/// All questions. `untranslated`: where pods go with their own address, though it is outside the VPC.
pub(crate) fn probes(endpoints: &[Endpoint], ports: &[NodePort], untranslated: &[Ipv4Net]) -> Vec<Probe> {
    let mut all = Vec::new();
    for (from, a) in endpoints.iter().enumerate() {
        // A pod's own addresses reach each other without leaving it.
        let others = |(_, b): &(usize, &Endpoint)| a.namespace != b.namespace;
        for (to, b) in endpoints.iter().enumerate().filter(others) {
            let Some((kind, seen)) = expectation(endpoints, a, b, untranslated) else {
                continue;
            };
            let target = SocketAddr::new(b.address, PORT);
            let probe = Probe {
                kind,
                from,
                to: target,
                answers: to,
                seen,
                transport: Transport::Udp,
                size: 0,
            };
            if !matches!(
                kind,
                "pod-to-pod-same-node" | "pod-to-pod-across" | "node-to-node"
            ) {
                all.push(Probe {
                    transport: Transport::Tcp,
                    ..probe.clone()
                });
            }
            all.push(probe);
        }
    }
    all.extend(jumbo(endpoints));
    for port in ports {
        all.extend(through_node_port(endpoints, port));
    }
    all
}

/// The family of a question from `a` to `b`, and as whom `b` must see `a`.
fn expectation(
    endpoints: &[Endpoint],
    a: &Endpoint,
    b: &Endpoint,
    untranslated: &[Ipv4Net],
) -> Option<(&'static str, IpAddr)> {
    let as_itself = is_untranslated(b.address, untranslated);
    let node_of = |e: &Endpoint| match e.kind {
        Kind::Pod { node, .. } => endpoints.get(node),
        _ => None,
    };
    let internet_sees = |node: &Endpoint| match node.kind {
        Kind::Node { seen_as, .. } => seen_as,
        _ => None,
    };
    Some(match (&a.kind, &b.kind) {
        (Kind::Pod { node: x, .. }, Kind::Pod { node: y, .. }) if x == y => {
            ("pod-to-pod-same-node", a.address)
        }
        (Kind::Pod { .. }, Kind::Pod { .. }) => ("pod-to-pod-across", a.address),
        (Kind::Pod { node, .. }, Kind::Node { .. }) => {
            let own = endpoints.get(*node).is_some_and(|n| n.name == b.name);
            (
                if own {
                    "pod-to-own-node"
                } else {
                    "pod-to-other-node"
                },
                a.address,
            )
        }
        (Kind::Node { .. }, Kind::Pod { .. }) => ("node-to-pod", a.address),
        (Kind::Node { .. }, Kind::Node { .. }) => ("node-to-node", a.address),
        // Outside the VPC a pod is its node: the agent translates to the node's primary address. The peer sees that
        // address itself, the internet what the gateway makes of it.
        // IPv6 is not translated: a pod is seen as what it is.
        (Kind::Pod { .. }, Kind::Internet) if a.address.is_ipv6() => ("pod-to-internet", a.address),
        // As itself a pod has no public address, and gets out by a NAT gateway alone.
        (Kind::Pod { alone, .. }, Kind::Internet) if as_itself => ("pod-to-internet", (*alone)?),
        (Kind::Pod { .. }, Kind::Internet) => ("pod-to-internet", internet_sees(node_of(a)?)?),
        (Kind::Pod { .. }, Kind::Peer) if as_itself => ("pod-to-peer", a.address),
        (Kind::Pod { .. }, Kind::Peer) => ("pod-to-peer", node_of(a)?.address),
        (Kind::Node { .. }, Kind::Internet) => ("node-to-internet", internet_sees(a)?),
        (Kind::Node { .. }, Kind::Peer) => ("node-to-peer", a.address),
        (Kind::Peer, Kind::Pod { .. }) => ("peer-to-pod", a.address),
        (Kind::Peer, Kind::Node { .. }) => ("peer-to-node", a.address),
        (Kind::Internet | Kind::Peer, _) => return None,
    })
}

/// Packets as large as the VPC carries, from the first pod of each interface of each node to the first pod of every
/// other such interface.
fn jumbo(endpoints: &[Endpoint]) -> Vec<Probe> {
    let mut firsts: Vec<(usize, &Endpoint)> = Vec::new();
    let place = |e: &Endpoint| match e.kind {
        Kind::Pod {
            node,
            interface: Some(interface),
            ..
        } => Some((node, interface)),
        _ => None,
    };
    for (index, endpoint) in endpoints.iter().enumerate() {
        if place(endpoint).is_some() && !firsts.iter().any(|(_, f)| place(f) == place(endpoint)) {
            firsts.push((index, endpoint));
        }
    }
    let mut all = Vec::new();
    for &(from, a) in &firsts {
        let others = |(_, b): &&(usize, &Endpoint)| a.namespace != b.namespace;
        for &(answers, b) in firsts.iter().filter(others) {
            let to = SocketAddr::new(b.address, PORT);
            let transport = Transport::Udp;
            all.push(Probe {
                kind: "full-size-packet",
                from,
                to,
                answers,
                seen: a.address,
                transport,
                // Less the headers of IP and UDP.
                size: JUMBO - if a.address.is_ipv6() { 48 } else { 28 },
            });
        }
    }
    all
}

/// From the internet to a node with a public address, from the peer to one without.
fn through_node_port(endpoints: &[Endpoint], port: &NodePort) -> Vec<Probe> {
    let Some(node) = endpoints.get(port.node) else {
        return Vec::new();
    };
    let public = match node.kind {
        Kind::Node { public, .. } => public,
        _ => None,
    };
    let (asker, kind, address) = match public {
        Some(public) => (Kind::Internet, "internet-to-node-port", public),
        None => (Kind::Peer, "peer-to-node-port", node.address),
    };
    let Some((from, outside)) = endpoints.iter().enumerate().find(|(_, e)| e.kind == asker) else {
        return Vec::new();
    };
    let to = SocketAddr::new(address, port.port);
    [Transport::Udp, Transport::Tcp]
        .map(|transport| Probe {
            kind,
            from,
            to,
            answers: port.pod,
            seen: outside.address,
            transport,
            size: 0,
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, last: u8, kind: Kind) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            address: [10, 0, 0, last].into(),
            namespace: name.to_owned(),
            kind,
            further: false,
        }
    }

    /// Two nodes, the second without a public address, `pods` pods on each, two interfaces each.
    fn lab(pods: u8) -> Vec<Endpoint> {
        let public = Some(IpAddr::from([198, 51, 100, 9]));
        let nat = Some(IpAddr::from([198, 51, 100, 1]));
        let mut all = vec![
            endpoint(
                "node-1",
                1,
                Kind::Node {
                    public,
                    seen_as: public,
                },
            ),
            endpoint(
                "node-2",
                2,
                Kind::Node {
                    public: None,
                    seen_as: nat,
                },
            ),
            endpoint("internet", 3, Kind::Internet),
            endpoint("peer", 4, Kind::Peer),
        ];
        for i in 0..2 * pods {
            let kind = Kind::Pod {
                node: usize::from(i % 2),
                interface: Some((0, u32::from(i / 2 % 2))),
                alone: nat.filter(|_| i % 2 == 1),
            };
            all.push(endpoint(&format!("pod/{i}"), 10 + i, kind));
        }
        all
    }

    fn of_kind<'a>(all: &'a [Probe], kind: &str) -> Vec<&'a Probe> {
        all.iter().filter(|p| p.kind == kind).collect()
    }

    #[test]
    fn every_ordered_pair_of_pods_is_asked_once() {
        let lab = lab(20);
        let all = probes(&lab, &[], &[]);
        let pairs = of_kind(&all, "pod-to-pod-same-node").len() + of_kind(&all, "pod-to-pod-across").len();
        assert_eq!(pairs, 40 * 39);
        assert!(all.iter().all(|p| p.from != p.answers));
    }

    #[test]
    fn the_internet_must_see_the_nodes_public_or_the_nat_gateways_address() {
        let lab = lab(2);
        let all = probes(&lab, &[], &[]);
        for probe in of_kind(&all, "pod-to-internet") {
            let Kind::Pod { node, .. } = lab[probe.from].kind else {
                panic!("not a pod")
            };
            let last = if node == 0 { 9 } else { 1 };
            assert_eq!(probe.seen, IpAddr::from([198, 51, 100, last]));
        }
        assert_eq!(of_kind(&all, "pod-to-internet").len(), 4 * 2);
    }

    #[test]
    fn untranslated_pods_are_seen_as_themselves_and_reach_the_internet_by_a_nat_gateway_alone() {
        let lab = lab(2);
        let excluded = "10.0.0.4/32".parse().unwrap();
        let all = probes(&lab, &[], &[excluded]);
        let to_peer = of_kind(&all, "pod-to-peer");
        assert!(to_peer.iter().all(|p| p.seen == lab[p.from].address));
        // Somebody else's CIDR.
        assert_eq!(of_kind(&all, "pod-to-internet").len(), 4 * 2);
        let all = probes(&lab, &[], &["0.0.0.0/0".parse().unwrap()]);
        let to_internet = of_kind(&all, "pod-to-internet");
        assert_eq!(to_internet.len(), 2 * 2);
        assert!(
            to_internet
                .iter()
                .all(|p| p.seen == IpAddr::from([198, 51, 100, 1]))
        );
    }

    #[test]
    fn node_ports_lead_to_a_pod_on_each_kind_of_interface_and_are_asked_from_where_they_can_be_reached() {
        let lab = lab(2);
        let ports = node_ports(&lab);
        assert_eq!(ports.len(), 4);
        let all = probes(&lab, &ports, &[]);
        assert!(
            of_kind(&all, "internet-to-node-port")
                .iter()
                .all(|p| p.to.ip() == IpAddr::from([198, 51, 100, 9]))
        );
        assert_eq!(of_kind(&all, "internet-to-node-port").len(), 4);
        assert_eq!(of_kind(&all, "peer-to-node-port").len(), 4);
    }

    #[test]
    fn full_size_packets_go_between_all_pairs_of_interfaces_with_pods() {
        assert_eq!(
            of_kind(&probes(&lab(5), &[], &[]), "full-size-packet").len(),
            4 * 3
        );
    }

    #[test]
    fn a_pods_second_address_is_asked_from_and_to_but_not_by_its_own_pod() {
        let mut lab = lab(2);
        let second = Endpoint {
            namespace: "pod/0".to_owned(),
            further: true,
            ..endpoint(
                "pod/0#1",
                99,
                Kind::Pod {
                    node: 0,
                    interface: Some((1, 0)),
                    alone: None,
                },
            )
        };
        lab.push(second);
        let all = probes(&lab, &[], &[]);
        let last = lab.len() - 1;
        let first = lab.iter().position(|e| e.name == "pod/0").unwrap();
        assert!(all.iter().any(|p| p.from == last && p.seen == lab[last].address));
        assert!(all.iter().any(|p| p.answers == last));
        assert!(
            !all.iter()
                .any(|p| [(first, last), (last, first)].contains(&(p.from, p.answers)))
        );
        // It has an interface of its own, whose full size is tried; and it is none of the primary's.
        assert!(of_kind(&all, "full-size-packet").iter().any(|p| p.from == last));
    }

    #[test]
    fn by_ipv6_the_internet_sees_a_pod_as_itself() {
        let mut lab = lab(2);
        for (number, endpoint) in (1_u16..).zip(&mut lab) {
            endpoint.address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into();
        }
        let all = probes(&lab, &[], &[]);
        let to_internet = of_kind(&all, "pod-to-internet");
        assert_eq!(to_internet.len(), 4 * 2);
        assert!(to_internet.iter().all(|p| p.seen == lab[p.from].address));
        assert!(of_kind(&all, "full-size-packet").iter().all(|p| p.size == 8953));
    }

    #[test]
    fn an_empty_lab_still_checks_its_nodes() {
        let all = probes(&lab(0), &node_ports(&lab(0)), &[]);
        assert!(!all.is_empty());
        assert!(
            all.iter()
                .all(|p| p.kind.starts_with("node-") || p.kind == "peer-to-node")
        );
    }
}
