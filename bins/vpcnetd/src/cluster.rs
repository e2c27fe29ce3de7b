//! Kubernetes, for this node: what its objects say becomes targets of the pool, and what happens here is told to people there.
//!
//! | module | for |
//! |---|---|
//! | `life` | the loop |
//! | `values` | what the node and the ENIConfigs say, for the pool; pure |
//! | `overrides` | targets that the node's labels and annotations set; pure |
//! | `annotate` | pods' addresses in their annotations; what is to be written is decided purely |
//! | `ledger` | which events are told, and which are only counted; pure |
//! | `tell` | tells them |
//! | `saved` | the last known objects, on disk |
//!
//! Only what is this node's is watched: the node itself, its pods' metadata (for annotations and events alone), and, with custom networking, the
//! ENIConfigs. The API server may be away at any time, from the first second: the last known objects hold then, and nothing waits.

mod annotate;
mod ledger;
mod life;
mod overrides;
mod saved;
mod tell;
mod values;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use vpcnet_kube::objects::{EniConfig, Node, Pod};
use vpcnet_kube::watch::{Told, follow};
use vpcnet_kube::{Access, AccessError, ApiError, Client, Resource, Selection};

use crate::aims::Aims;
use crate::config::Config;
use crate::core::CoreHandle;
use crate::metrics::Metrics;
use crate::news::{News, Newsroom, PodName};
use crate::published::Publisher;
use crate::store::FileStore;
use annotate::Annotations;
use life::{Known, Life};
use saved::Saved;
use tell::Teller;

/// A start that remembers nothing waits this long for the node's objects, so that the first interface is not made by other targets.
const AT_START: Duration = Duration::from_secs(2);
/// Beside the agent's state.
const FILE: &str = "vpcnet-kubernetes.json";

/// The node's pods by name.
type Pods = BTreeMap<PodName, Pod>;

/// Whom it joins.
pub struct Around {
    /// Settings.
    pub config: Arc<Config>,
    /// The pool's targets.
    pub aims: Arc<Aims>,
    /// The pool.
    pub core: CoreHandle,
    /// What servers tell.
    pub publisher: Publisher,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The way to the API server, and what was known of it in an earlier life.
pub struct Cluster {
    client: Client,
    node: String,
    store: FileStore,
    saved: Option<Saved>,
    hear: mpsc::UnboundedReceiver<News>,
}

/// Tells when the node's objects are known, or known to be out of reach for now.
#[derive(Clone)]
pub struct Settled(watch::Receiver<bool>);

/// Sends what pods have when the pool is there.
#[derive(Clone)]
pub struct Owners(mpsc::UnboundedSender<Input>);

/// What the loop hears.
enum Input {
    Node(Told<Node>),
    Configs(Told<EniConfig>),
    Pods(Told<Pod>),
    Owners(Vec<(PodName, IpAddr)>),
    Annotated(PodName, Result<(), ApiError>),
    AnnotateAgain,
}

/// Finds the API server. `None`, and a newsroom that nobody hears, where there is no Kubernetes.
///
/// # Errors
/// What to tell the operator: the settings are of no use. The agent lives without Kubernetes then.
pub fn find(config: &Config) -> Result<Option<(Cluster, Newsroom)>, String> {
    let settings = &config.kubernetes;
    let environment = vpcnet_kube::access::Environment {
        kubeconfig: settings.kubeconfig.clone(),
        endpoint: settings.endpoint.clone(),
        host: settings.service_host.clone(),
        port: settings.service_port.clone(),
    };
    let access =
        Access::find(&environment).map_err(|e: AccessError| format!("Kubernetes is not asked: {e}"))?;
    let Some(access) = access else {
        return Ok(None);
    };
    let Some(node) = settings.node_name.clone() else {
        return Err(
            "Kubernetes is not asked: MY_NODE_NAME is not set, and only the objects of that node are watched"
                .into(),
        );
    };
    let agent = format!("vpcnetd/{}", env!("CARGO_PKG_VERSION"));
    let (newsroom, hear) = Newsroom::open();
    let store = FileStore::new(config.state.with_file_name(FILE));
    let saved = saved::read(&store, &node);
    let cluster = Cluster {
        client: Client::new(access, &agent),
        node,
        store,
        saved,
        hear,
    };
    Ok(Some((cluster, newsroom)))
}

impl Cluster {
    /// Starts to follow the node's objects. What an earlier life knew of them is in force when this returns.
    pub fn start(self, around: Around) -> (Settled, Owners) {
        let (tell, inputs) = mpsc::unbounded_channel();
        let (settle, settled) = watch::channel(self.saved.is_some());
        let custom = around.config.interfaces.custom_networking.is_some();
        let annotates = around.config.kubernetes.annotate_pod_ip;
        let selection = Selection::named(&self.node);
        spawn_follow(&self.client, selection, &tell, Input::Node);
        if custom {
            spawn_follow(&self.client, Selection::all(), &tell, Input::Configs);
        }
        let pods = Selection::with("spec.nodeName", &self.node);
        spawn_follow(&self.client, pods, &tell, Input::Pods);
        let saved = self.saved.unwrap_or_default();
        let instance = around.config.kubernetes.pod_name.clone();
        let mut life = Life {
            teller: Teller::new(self.client.clone(), instance.unwrap_or_else(|| self.node.clone())),
            client: self.client,
            node_name: self.node,
            store: self.store,
            known: Known {
                node: saved.node,
                configs: saved.eni_configs,
                ..Known::default()
            },
            away: BTreeMap::new(),
            needs_configs: custom,
            annotations: annotates.then(Annotations::default),
            again: tell.clone(),
            settle,
            around,
        };
        tracing::info!(
            server = life.client.server(),
            remembered = life.known.node.is_some(),
            "following this node's objects"
        );
        life.put_in_force();
        tokio::spawn(life.run(inputs, self.hear));
        (Settled(settled), Owners(tell))
    }
}

fn spawn_follow<K: Resource>(
    client: &Client,
    selection: Selection,
    tell: &mpsc::UnboundedSender<Input>,
    input: impl Fn(Told<K>) -> Input + Send + 'static,
) {
    let (client, tell) = (client.clone(), tell.clone());
    tokio::spawn(async move {
        follow::<K>(&client, &selection, move |told| {
            // The loop ends only with the agent.
            let _ = tell.send(input(told));
        })
        .await
    });
}

impl Settled {
    /// Waits until something is known, or known to be out of reach; not for long.
    pub async fn wait(mut self) {
        let _ = tokio::time::timeout(AT_START, self.0.wait_for(|settled| *settled)).await;
    }
}

impl Owners {
    /// The pool is there: these are the addresses that pods have.
    pub async fn tell(self, core: CoreHandle) {
        let look = core.look(|view| {
            let owners = view.pool.into_iter().flat_map(|pool| pool.owners());
            let named = owners.filter(|l| !l.meta.name.is_empty());
            named
                .map(|l| (PodName::new(&l.meta.namespace, &l.meta.name), l.address))
                .collect::<Vec<_>>()
        });
        if let Ok(owners) = look.await {
            let _ = self.0.send(Input::Owners(owners));
        }
    }
}
