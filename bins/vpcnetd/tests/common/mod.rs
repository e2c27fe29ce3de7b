//! An agent's services on sockets of their own, without EC2 and without a kernel to change.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod root;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use vpcnet_ipam::{
    CardIndex, CardLimits, DeviceIndex, EniId, Event, Evidence, Identity, InterfaceFacts, InterfaceKind,
    Limits, Pool, SubnetId, Targets,
};
use vpcnet_rpc::pb::cni_backend_client::CniBackendClient;
use vpcnet_rpc::pb::{AddNetworkRequest, DelNetworkRequest};
use vpcnet_rpc::{Connection, REASON_POD_DELETED};
use vpcnetd::core::{Core, CoreHandle, Files, Order, Started};
use vpcnetd::metrics::Metrics;
use vpcnetd::published::{Published, Publisher};
use vpcnetd::state::{Facts, Machine};
use vpcnetd::store::FileStore;
use vpcnetd::{clock, grpc, socket};

pub const SOON: Duration = Duration::from_secs(10);

/// A served pool. Ends with the value.
pub struct Agent {
    pub socket: PathBuf,
    pub core: CoreHandle,
    pub publisher: Publisher,
    pub metrics: Arc<Metrics>,
    _orders: mpsc::UnboundedReceiver<Order>,
    stop: watch::Sender<bool>,
    pub server: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Agent {
    /// Serves both sockets; there is no pool yet.
    pub fn serve() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipamd.sock");
        let files = Files {
            checkpoint: FileStore::new(dir.path().join("ipam.json")),
            state: FileStore::new(dir.path().join("state.json")),
        };
        let metrics = Metrics::new().unwrap();
        let (core, handle, orders) = Core::new(files, Arc::clone(&metrics));
        tokio::spawn(core.run());
        let publisher = Publisher::new(Published {
            machine: Machine {
                instance_id: "i-1".into(),
                region: "eu-west-1".into(),
                local_ipv4: Some([10, 0, 0, 10].into()),
                ..Machine::default()
            },
            vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            policy_mode: "standard".into(),
            ..Published::default()
        });
        let services = grpc::Services {
            core: handle.clone(),
            metrics: Arc::clone(&metrics),
            published: publisher.subscribe(),
        };
        let bound = socket::bind(&path).unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(async move {
            let socket::AgentSockets { grpc, direct, lock } = bound;
            grpc::serve(grpc, direct, services, stopped).await.unwrap();
            drop(lock);
        });
        Self {
            socket: path,
            core: handle,
            publisher,
            metrics,
            _orders: orders,
            stop,
            server,
            _dir: dir,
        }
    }

    /// Serves a pool of `addresses` free addresses that may grow if `grows`.
    pub fn with_pool(addresses: u8, grows: bool) -> Self {
        let agent = Self::serve();
        agent.core.start(started(addresses, grows));
        agent.publisher.change(|p| p.ready = true);
        agent
    }

    /// What SIGTERM does.
    pub fn stop(&self) {
        self.stop.send(true).unwrap();
    }

    pub async fn connect(&self) -> Connection {
        Connection::unix(&self.socket, SOON).await.unwrap()
    }

    pub async fn cni(&self) -> CniBackendClient<Connection> {
        CniBackendClient::new(self.connect().await)
    }

    pub async fn waiting(&self) -> usize {
        self.core.look(|v| v.callers).await.unwrap()
    }
}

pub fn started(addresses: u8, grows: bool) -> Started {
    let limits = Limits {
        cards: vec![CardLimits {
            card: CardIndex(0),
            interfaces: 3,
        }],
        ipv4_per_interface: 10,
    };
    let identity = Identity {
        instance_id: "i-1".into(),
        token_salt: "salt".into(),
        boot_id: "boot".into(),
    };
    let targets = Targets {
        provisioning: grows,
        cooldown: Duration::ZERO,
        ..Targets::default()
    };
    let mut pool = Pool::new(identity, limits, targets).unwrap();
    let facts = InterfaceFacts {
        id: EniId("eni-1".into()),
        mac: "02:00:00:00:00:01".into(),
        device: DeviceIndex(0),
        card: CardIndex(0),
        subnet: SubnetId("subnet-1".into()),
        subnet_cidr: "10.0.0.0/20".parse().unwrap(),
        primary_address: [10, 0, 0, 10].into(),
        is_primary: true,
        kind: InterfaceKind::Interface,
        managed: true,
        addresses: (0..addresses).map(|n| [10, 0, 1, n].into()).collect(),
        prefixes: Vec::new(),
        ipv6_prefixes: Vec::new(),
    };
    let ids = vec![facts.id.clone()];
    let now = clock::now();
    let mut actions = pool.handle(
        now,
        Event::InterfaceSeen {
            facts,
            evidence: Evidence::Ec2,
        },
    );
    actions.extend(pool.handle(
        now,
        Event::InterfacesListed {
            ids,
            evidence: Evidence::Ec2,
        },
    ));
    Started {
        pool,
        actions,
        facts: Facts::default(),
        rewrite: true,
        notes: Vec::new(),
    }
}

pub fn add(n: u32) -> AddNetworkRequest {
    AddNetworkRequest {
        k8s_pod_name: format!("pod-{n}"),
        k8s_pod_namespace: "default".into(),
        network_name: "aws-cni".into(),
        container_id: format!("sandbox-{n}"),
        if_name: "eth0".into(),
        ..AddNetworkRequest::default()
    }
}

pub fn del(n: u32) -> DelNetworkRequest {
    DelNetworkRequest {
        k8s_pod_name: format!("pod-{n}"),
        k8s_pod_namespace: "default".into(),
        network_name: "aws-cni".into(),
        container_id: format!("sandbox-{n}"),
        if_name: "eth0".into(),
        reason: REASON_POD_DELETED.into(),
        ..DelNetworkRequest::default()
    }
}

pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"));
}
