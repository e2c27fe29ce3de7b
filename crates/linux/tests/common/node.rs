//! A node with two interfaces and a pod on each, the VPC around it, and connections between them.
#![allow(dead_code)] // each test binary uses its part

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use vpcnet_linux::Mac;
use vpcnet_linux::earlier::Earlier;
use vpcnet_linux::host::{self, HostWanted, OwnRule, Primary, Secondary};
use vpcnet_linux::netlink::{MAIN, Request, Socket, Veth};
use vpcnet_linux::netns::Netns;
use vpcnet_linux::nft::{Randomize, SnatConfig};
use vpcnet_linux::pod::{self, PodInterface};
use vpcnet_linux::sysctl::Tree;

use crate::common::{DEADLINE, interface, new_netns, sh, sh_in};

pub(crate) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10));
pub(crate) const INTERNET: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));
pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 31, 0, 5));
pub(crate) const IN_VPC: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 200, 5));
/// On the primary interface.
pub(crate) const POD_0: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 77));
/// On the secondary interface.
pub(crate) const POD_1: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 16, 77));
/// How long a connection that must not come about is tried.
pub(crate) const HOPELESS: Duration = Duration::from_secs(1);

/// A node with two interfaces and a pod on each, and the VPC around it.
pub(crate) struct Node {
    pub(crate) outside: Netns,
    pub(crate) pods: [Netns; 2],
    macs: [Mac; 2],
}

fn uplink(host: &mut Socket, outside: &Netns, n: u8) -> Mac {
    let mac = Mac([2, 0, 0, 0, 0, 0x10 + n]);
    let veth = Veth {
        name: format!("eth{n}"),
        mac,
        peer_name: format!("vpc{n}"),
        peer_mac: Mac([2, 0, 0, 0, 1, n]),
        peer_netns: outside.as_fd().as_raw_fd(),
        mtu: 9001,
    };
    host.run_one(Request::CreateVeth(veth)).unwrap();
    sh_in(
        outside,
        &format!("ip address add 10.0.{}.1/20 dev vpc{n}", n * 16),
    );
    sh_in(outside, &format!("ip link set vpc{n} up"));
    mac
}

impl Node {
    pub(crate) fn new(host: &mut Socket) -> Self {
        let outside = new_netns();
        let macs = [uplink(host, &outside, 0), uplink(host, &outside, 1)];
        for address in [INTERNET, PEER, IN_VPC] {
            sh_in(&outside, &format!("ip address add {address}/32 dev lo"));
        }
        // The VPC's source check: a packet must come by the interface that has its address.
        outside
            .within(|| Tree::default().write("net/ipv4/conf/all/rp_filter", "1"))
            .unwrap()
            .unwrap();
        // As on real nodes; new namespaces have 0, which would hide faults.
        Tree::default().write("net/ipv4/conf/all/rp_filter", "1").unwrap();
        sh(&format!("ip address add {NODE}/20 dev eth0"));
        sh("ip route add default via 10.0.0.1 dev eth0");
        lead(host, macs, &[0x80], &[]);
        let pods = [new_netns(), new_netns()];
        for (n, (address, table)) in [(POD_0, MAIN), (POD_1, 2)].into_iter().enumerate() {
            let one = PodInterface {
                address,
                ..interface(n as u8, table)
            };
            pod::add(host, &pods[n], &[one]).unwrap();
            // The VPC knows where an address is; nodes answer no ARP for pods.
            sh_in(
                &outside,
                &format!("ip neighbour add {address} lladdr {} dev vpc{n}", macs[n]),
            );
        }
        Self { outside, pods, macs }
    }

    /// Has packets with these marks, and to these services, led to the main table.
    pub(crate) fn lead(&self, host: &mut Socket, marks: &[u32], services: &[&str]) {
        lead(host, self.macs, marks, services);
    }

    /// Listens in a pod.
    pub(crate) fn listen(&self, pod: usize) -> TcpListener {
        let at = [POD_0, POD_1][pod];
        listen(&self.pods[pod], at)
    }

    /// Listens in the VPC or beyond.
    pub(crate) fn listen_outside(&self, at: IpAddr) -> TcpListener {
        listen(&self.outside, at)
    }
}

fn listen(netns: &Netns, at: IpAddr) -> TcpListener {
    netns
        .within(|| TcpListener::bind(SocketAddr::new(at, 0)))
        .unwrap()
        .unwrap()
}

fn lead(host: &mut Socket, macs: [Mac; 2], marks: &[u32], services: &[&str]) {
    let wanted = HostWanted {
        primary: Primary {
            mac: macs[0],
            mtu: 9001,
        },
        secondaries: vec![Secondary {
            mac: macs[1],
            mtu: 9001,
            address: "10.0.16.20/20".parse().unwrap(),
            gateway: "10.0.16.1".parse().unwrap(),
            table: 2,
            own_rule: OwnRule::Ours,
        }],
        ipv6: false,
        marks: marks.iter().copied().collect::<BTreeSet<u32>>(),
        services: services.iter().map(|net| net.parse().unwrap()).collect(),
        gone: vec![],
    };
    let tree = Tree::default();
    let plan = host::diff(&host::observe(host, &tree, &wanted).unwrap(), &wanted);
    let errors = host::apply(host, &tree, &plan.changes);
    assert!(errors.is_empty(), "{errors:?}");
}

pub(crate) fn config() -> SnatConfig {
    SnatConfig {
        primary_ip: Ipv4Addr::new(10, 0, 0, 10),
        primary_link: "eth0".into(),
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        exclude: vec![],
        external_snat: false,
        randomize: Randomize::Prng,
        node_port: true,
        mark: 0x80,
        veth_prefix: "eni".into(),
        earlier: Earlier::default(),
    }
}

/// A connection, and the two ends' streams.
pub(crate) struct Connection {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Connection {
    pub(crate) fn open(
        client: &Netns,
        from: Option<IpAddr>,
        server: &Netns,
        at: IpAddr,
        limit: Duration,
    ) -> io::Result<Self> {
        let listener = server
            .within(|| TcpListener::bind(SocketAddr::new(at, 0)))
            .unwrap()
            .unwrap();
        Self::to(client, from, &listener, listener.local_addr()?, limit)
    }

    /// To `target`, where something leads on to the listener.
    pub(crate) fn to(
        client: &Netns,
        from: Option<IpAddr>,
        listener: &TcpListener,
        target: SocketAddr,
        limit: Duration,
    ) -> io::Result<Self> {
        Self::from_to(
            client,
            from.map(|from| SocketAddr::new(from, 0)),
            listener,
            target,
            limit,
        )
    }

    /// As [`Self::to`], from an address and port.
    pub(crate) fn from_to(
        client: &Netns,
        from: Option<SocketAddr>,
        listener: &TcpListener,
        target: SocketAddr,
        limit: Duration,
    ) -> io::Result<Self> {
        let client = client.within(|| -> io::Result<TcpStream> {
            let descriptor = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            set_socket_timeout(&descriptor, Timeout::Send, Some(limit))?;
            if let Some(from) = from {
                bind(&descriptor, &from)?;
            }
            connect(&descriptor, &target)?;
            Ok(descriptor.into())
        });
        let client = client.unwrap()?;
        // The handshake is done, so this does not wait.
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(DEADLINE))?;
        }
        Ok(Self { client, server })
    }

    /// Whether what the client says is heard and answered within the limit.
    pub(crate) fn talks_within(&mut self, limit: Duration) -> bool {
        for stream in [&self.client, &self.server] {
            stream.set_read_timeout(Some(limit)).unwrap();
        }
        let mut heard = [0u8; 4];
        self.client.write_all(b"ping").is_ok()
            && self.server.read_exact(&mut heard).is_ok()
            && self.server.write_all(b"pong").is_ok()
            && self.client.read_exact(&mut heard).is_ok()
    }

    /// Who the server thinks the client is.
    pub(crate) fn seen(&self) -> IpAddr {
        self.server.peer_addr().unwrap().ip()
    }

    pub(crate) fn still_talks(&mut self) {
        let mut heard = [0u8; 4];
        self.client.write_all(b"ping").unwrap();
        self.server
            .read_exact(&mut heard)
            .expect("the server hears the client");
        assert_eq!(&heard, b"ping");
        self.server.write_all(b"pong").unwrap();
        self.client
            .read_exact(&mut heard)
            .expect("the client hears the server");
        assert_eq!(&heard, b"pong");
    }
}

/// What the server at `at`, in the VPC or beyond, sees of a pod that connects to it.
pub(crate) fn seen_by(node: &Node, pod: usize, at: IpAddr) -> IpAddr {
    let mut connection = Connection::open(&node.pods[pod], None, &node.outside, at, DEADLINE)
        .unwrap_or_else(|e| panic!("pod {pod} to {at}: {e}"));
    connection.still_talks();
    connection.seen()
}

/// kube-proxy's part of a NodePort with the local policy: the destination is replaced, the source is not.
pub(crate) fn node_port(to: SocketAddr) {
    sh("nft add table ip kubeproxy");
    sh("nft add chain ip kubeproxy services { type nat hook prerouting priority -100 ; }");
    sh(&format!(
        "nft add rule ip kubeproxy services ip daddr {NODE} tcp dport 30080 dnat to {to}"
    ));
}
