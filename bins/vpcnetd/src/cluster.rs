//! Kubernetes, for this node: what its objects say becomes targets of the pool, and what happens here is told to people there.
//!
//! | module | for |
//! |---|---|
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
mod overrides;
mod saved;
mod tell;
mod values;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use vpcnet_kube::objects::{EniConfig, EniConfigSpec, Node, ObjectReference, Pod};
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

/// What is known of the cluster.
#[derive(Default)]
struct Known {
    /// `None`: not yet.
    node: Option<Node>,
    /// `None`: not yet.
    configs: Option<BTreeMap<String, EniConfigSpec>>,
    /// Empty until they are.
    pods: Pods,
    /// They are all of this node's.
    pods_known: bool,
}

/// The loop.
struct Life {
    client: Client,
    node_name: String,
    store: FileStore,
    around: Around,
    known: Known,
    /// Watches that do not go on, and why.
    away: BTreeMap<&'static str, String>,
    needs_configs: bool,
    annotations: Option<Annotations>,
    teller: Teller,
    again: mpsc::UnboundedSender<Input>,
    settle: watch::Sender<bool>,
}

impl Life {
    async fn run(
        mut self,
        mut inputs: mpsc::UnboundedReceiver<Input>,
        mut hear: mpsc::UnboundedReceiver<News>,
    ) {
        loop {
            tokio::select! {
                Some(input) = inputs.recv() => self.take(input),
                Some(news) = hear.recv() => self.hear(news),
                else => return,
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Node(told) => self.node(told),
            Input::Configs(told) => self.configs(told),
            Input::Pods(told) => self.pods(told),
            Input::Owners(owners) => {
                for (pod, address) in owners {
                    self.assigned(pod, address);
                }
            }
            Input::Annotated(pod, result) => {
                let Some(annotations) = &mut self.annotations else {
                    return;
                };
                annotations.settle(&pod);
                match result {
                    Ok(()) => {}
                    // Another state, another pod, or none: the watch tells which.
                    Err(error) if error.met_another() || error.is_not_found() => {}
                    Err(error) => {
                        tracing::warn!(pod = %format_args!("{}/{}", pod.namespace, pod.name), %error, "not annotated yet");
                        let again = self.again.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(annotate::RETRY).await;
                            let _ = again.send(Input::AnnotateAgain);
                        });
                        return;
                    }
                }
                self.annotate();
            }
            Input::AnnotateAgain => self.annotate(),
        }
    }

    fn node(&mut self, told: Told<Node>) {
        let keys = self.around.config.interfaces.custom_networking.as_ref();
        let trimmed = |node: Node| values::trimmed(node, keys);
        let node = match told {
            Told::Listed(nodes) => nodes.into_iter().next().map(trimmed),
            Told::Put(node) => Some(trimmed(node)),
            Told::Gone(_) => None,
            Told::Watching => return self.back("nodes"),
            Told::Away { error, .. } => return self.away("nodes", &error),
        };
        // A node that was deleted is as it was last: its pods still run here.
        if node.is_some() && node != self.known.node {
            self.known.node = node;
            self.save();
            self.put_in_force();
        } else if node.is_none() {
            tracing::warn!(
                node = self.node_name,
                "the API server has no such node; what it said last holds"
            );
        }
        self.settle();
    }

    fn configs(&mut self, told: Told<EniConfig>) {
        let before = self.known.configs.clone();
        match told {
            Told::Listed(configs) => self.known.configs = Some(vpcnet_kube::select::by_name(configs)),
            Told::Put(config) => {
                let configs = self.known.configs.get_or_insert_default();
                configs.insert(config.metadata.name, config.spec);
            }
            Told::Gone(config) => {
                if let Some(configs) = &mut self.known.configs {
                    configs.remove(&config.metadata.name);
                }
            }
            Told::Watching => return self.back("eniconfigs"),
            Told::Away { error, .. } => return self.away("eniconfigs", &error),
        }
        if self.known.configs != before {
            self.save();
            self.put_in_force();
        }
        self.settle();
    }

    fn pods(&mut self, told: Told<Pod>) {
        let name = |pod: &Pod| PodName::new(&pod.metadata.namespace, &pod.metadata.name);
        match told {
            Told::Listed(pods) => {
                self.known.pods = pods.into_iter().map(|p| (name(&p), p)).collect();
                self.known.pods_known = true;
            }
            Told::Put(pod) => {
                self.known.pods.insert(name(&pod), pod);
            }
            Told::Gone(pod) => {
                self.known.pods.remove(&name(&pod));
            }
            Told::Watching => return self.back("pods"),
            Told::Away { error, .. } => return self.away("pods", &error),
        }
        self.annotate();
    }

    fn back(&mut self, what: &'static str) {
        self.around
            .metrics
            .kubernetes_watching
            .with_label_values(&[what])
            .set(1);
        if self.away.remove(what).is_some() {
            tracing::info!(what, "the API server is followed again");
            self.publish();
        }
    }

    fn away(&mut self, what: &'static str, error: &ApiError) {
        self.around
            .metrics
            .kubernetes_watching
            .with_label_values(&[what])
            .set(0);
        let text = format!("{error}; what it said last holds");
        // Said once for each reason.
        if self.away.get(what) != Some(&text) {
            tracing::warn!(what, %error, "not followed; what is known holds");
            self.away.insert(what, text);
            self.publish();
        }
        // Nobody waits for who is away.
        self.settle.send_replace(true);
    }

    /// All that targets are made of has been told.
    fn settle(&self) {
        if self.known.node.is_some() && (!self.needs_configs || self.known.configs.is_some()) {
            self.settle.send_replace(true);
        }
    }

    fn save(&self) {
        let saved = Saved {
            node: self.known.node.clone(),
            eni_configs: self.known.configs.clone(),
        };
        if let Err(error) = saved::write(&self.store, &self.node_name, &saved) {
            tracing::error!(%error, "what is known of the cluster is not kept: a start without the API server will not know it");
            self.around.metrics.error("writeStateFailed");
        }
    }

    /// The pool gets to know, and the operator.
    fn put_in_force(&mut self) {
        let keys = self.around.config.interfaces.custom_networking.as_ref();
        let wanted = values::of(self.known.node.as_ref(), self.known.configs.as_ref(), keys);
        let before = self.around.aims.targets();
        self.around.aims.set_cluster(wanted.values);
        let targets = self.around.aims.targets();
        if targets != before {
            tracing::info!(?targets, "what the cluster says of this node changed");
            self.around.aims.tell(&self.around.core);
        }
        for complaint in &wanted.complaints {
            tracing::warn!(%complaint, "Kubernetes");
        }
        self.teller
            .complain(self.node_reference().as_ref(), &wanted.complaints);
        self.around.publisher.change(|p| {
            p.complaints.cluster = wanted.complaints;
            p.complaints.subnets = self.around.aims.complaints();
        });
        self.publish();
    }

    fn publish(&self) {
        let away = self
            .away
            .iter()
            .map(|(what, why)| format!("{what}: {why}"))
            .collect();
        self.around.publisher.change(|p| {
            p.kubernetes.server = self.client.server();
            p.kubernetes.away = away;
        });
    }

    fn node_reference(&self) -> Option<ObjectReference> {
        let node = self.known.node.as_ref()?;
        Some(ObjectReference::node(&node.metadata.name, &node.metadata.uid))
    }

    fn pod_reference(&self, pod: &PodName) -> Option<ObjectReference> {
        let uid = &self.known.pods.get(pod)?.metadata.uid;
        Some(ObjectReference::pod(&pod.namespace, &pod.name, uid))
    }

    /// The agent's own pod, which amazon-vpc-cni-k8s tells such things of.
    fn own_pod(&self) -> Option<ObjectReference> {
        let name = self.around.config.kubernetes.pod_name.as_deref()?;
        let namespace = self.client.namespace().unwrap_or("kube-system");
        self.pod_reference(&PodName::new(namespace, name))
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Assigned { pod, address } => {
                self.assigned(pod, address);
                self.annotate();
            }
            News::Released { pod, address } => {
                if let Some(annotations) = &mut self.annotations {
                    annotations.released(pod, address);
                }
                self.annotate();
            }
            News::Refused { pod, text } => match self.pod_reference(&pod) {
                Some(pod) => self.teller.tell(pod, "FailedAssignPodIP", "AddNetwork", text),
                // It was deleted, or is not known while the API server is away.
                None => tracing::debug!(?pod, "no event: the pod is not known"),
            },
            News::Unauthorized { api, code } => {
                let text = format!(
                    "The IAM role of this node lacks the right ec2:{api} ({code}): add it to the role's policy. Pods may get no addresses until then."
                );
                let about = [self.own_pod(), self.node_reference()];
                for about in about.into_iter().flatten() {
                    let action = format!("ec2:{api}");
                    self.teller
                        .tell(about, "MissingIAMPermissions", &action, text.clone());
                }
            }
            News::SubnetFull { text } => {
                if let Some(node) = self.node_reference() {
                    self.teller
                        .tell(node, "SubnetExhausted", "AllocateAddresses", text);
                }
            }
        }
    }

    fn assigned(&mut self, pod: PodName, address: IpAddr) {
        if let Some(annotations) = &mut self.annotations {
            annotations.assigned(pod, address);
        }
    }

    /// Writes what is to be written now.
    fn annotate(&mut self) {
        let Some(annotations) = &mut self.annotations else {
            return;
        };
        for change in annotations.due(&self.known.pods, self.known.pods_known) {
            let (client, again) = (self.client.clone(), self.again.clone());
            tokio::spawn(async move {
                let (pod, patch) = (&change.pod, change.patch());
                let result = client.patch::<Pod>(Some(&pod.namespace), &pod.name, &patch).await;
                let _ = again.send(Input::Annotated(change.pod, result));
            });
        }
    }
}
