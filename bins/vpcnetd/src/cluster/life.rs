//! The loop: what the watches and the agent tell, one after the other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tokio::sync::{mpsc, watch};
use vpcnet_kube::objects::{EniConfig, EniConfigSpec, Node, ObjectReference, Pod};
use vpcnet_kube::watch::Told;
use vpcnet_kube::{ApiError, Client};

use super::annotate::{self, Annotations};
use super::saved::{self, Saved};
use super::tell::Teller;
use super::{Around, Input, Pods, values};
use crate::news::{News, PodName};
use crate::store::FileStore;

/// What is known of the cluster.
#[derive(Default)]
pub(super) struct Known {
    /// `None`: not yet.
    pub(super) node: Option<Node>,
    /// `None`: not yet.
    pub(super) configs: Option<BTreeMap<String, EniConfigSpec>>,
    /// Empty until they are.
    pub(super) pods: Pods,
    /// They are all of this node's.
    pub(super) pods_known: bool,
}

/// The loop.
pub(super) struct Life {
    pub(super) client: Client,
    pub(super) node_name: String,
    pub(super) store: FileStore,
    pub(super) around: Around,
    pub(super) known: Known,
    /// Watches that do not go on, and why.
    pub(super) away: BTreeMap<&'static str, String>,
    pub(super) needs_configs: bool,
    pub(super) annotations: Option<Annotations>,
    pub(super) teller: Teller,
    pub(super) again: mpsc::UnboundedSender<Input>,
    pub(super) settle: watch::Sender<bool>,
}

impl Life {
    pub(super) async fn run(
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
    pub(super) fn put_in_force(&mut self) {
        let keys = self.around.config.interfaces.custom_networking.as_ref();
        let wanted = values::of(self.known.node.as_ref(), self.known.configs.as_ref(), keys);
        let before = self.around.aims.targets();
        self.around.aims.set_cluster(wanted.values);
        let targets = self.around.aims.targets();
        if targets != before {
            tracing::info!(?targets, "what the cluster says of this node changed");
            self.around.aims.tell(&self.around.core);
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
        // Usually all for one reason: it is said once.
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (what, why) in &self.away {
            reasons.entry(why).or_default().push(what);
        }
        let reasons = reasons.into_iter();
        let away = reasons
            .map(|(why, what)| format!("{}: {why}", what.join(", ")))
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
