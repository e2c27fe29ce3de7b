//! `ANNOTATE_POD_IP`: each pod's address in its annotation `vpc.amazonaws.com/pod-ips`. What is to be written is what the pool says and the
//! watch does not show yet; so it does not matter when, how often, or in which order anybody asks.
//!
//! An ADD does not wait for it: unlike in amazon-vpc-cni-k8s a pod starts while the API server is away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use vpcnet_kube::objects::POD_IPS;

use super::Pods;
use crate::news::PodName;

/// Before a patch that could not be made is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// Which address which pod has, or had.
#[derive(Default)]
pub(super) struct Annotations {
    has: BTreeMap<PodName, IpAddr>,
    had: BTreeMap<PodName, IpAddr>,
    /// Being written.
    under_way: BTreeSet<PodName>,
}

/// One annotation to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change {
    pub(super) pod: PodName,
    /// Of the pod meant: another one of its name is left alone.
    uid: String,
    /// Of the state meant, where a value is taken away: it may have been replaced meanwhile.
    version: Option<String>,
    value: String,
}

impl Change {
    /// As a merge patch.
    pub(super) fn patch(&self) -> Value {
        let annotations = json!({ POD_IPS: self.value });
        let metadata = match &self.version {
            Some(version) => {
                json!({ "uid": self.uid, "resourceVersion": version, "annotations": annotations })
            }
            None => json!({ "uid": self.uid, "annotations": annotations }),
        };
        json!({ "metadata": metadata })
    }
}

impl Annotations {
    /// A pod was given an address. Of several it is the first that counts.
    pub(super) fn assigned(&mut self, pod: PodName, address: IpAddr) {
        self.had.remove(&pod);
        self.has.insert(pod, address);
    }

    /// It gave one back: perhaps that of an earlier sandbox.
    pub(super) fn released(&mut self, pod: PodName, address: IpAddr) {
        if self.has.get(&pod) == Some(&address) {
            self.has.remove(&pod);
        }
        if !self.has.contains_key(&pod) {
            self.had.insert(pod, address);
        }
    }

    /// What was under way for a pod has ended.
    pub(super) fn settle(&mut self, pod: &PodName) {
        self.under_way.remove(pod);
    }

    /// What is to be written now; it is under way from here on. `complete`: `pods` are all of this node's.
    pub(super) fn due(&mut self, pods: &Pods, complete: bool) -> Vec<Change> {
        if complete {
            self.had.retain(|pod, _| pods.contains_key(pod));
        }
        let mut changes = Vec::new();
        for (name, pod) in pods {
            if self.under_way.contains(name) {
                continue;
            }
            let shown = pod.metadata.annotations.pod_ips.as_deref().unwrap_or_default();
            let (value, version) = if let Some(address) = self.has.get(name) {
                (address.to_string(), None)
            } else if let Some(address) = self.had.get(name) {
                if shown != address.to_string() {
                    self.had.remove(name);
                    continue;
                }
                (String::new(), Some(pod.metadata.resource_version.clone()))
            } else {
                continue;
            };
            if shown != value {
                changes.push(Change {
                    pod: name.clone(),
                    uid: pod.metadata.uid.clone(),
                    version,
                    value,
                });
            }
        }
        self.under_way.extend(changes.iter().map(|c| c.pod.clone()));
        changes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use vpcnet_kube::objects::Pod;

    fn name(name: &str) -> PodName {
        PodName::new("default", name)
    }

    fn pods(all: &[(&str, Option<&str>)]) -> Pods {
        let pod = |(pod, shown): &(&str, Option<&str>)| {
            let mut object = Pod::default();
            object.metadata.uid = format!("uid-{pod}");
            object.metadata.resource_version = "7".into();
            object.metadata.annotations.pod_ips = shown.map(str::to_owned);
            (name(pod), object)
        };
        all.iter().map(pod).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What is written, in words.
    fn due(annotations: &mut Annotations, pods: &Pods) -> Vec<String> {
        let changes = annotations.due(pods, true);
        for change in &changes {
            annotations.settle(&change.pod);
        }
        changes
            .iter()
            .map(|c| format!("{}={}", c.pod.name, c.value))
            .collect()
    }

    #[test]
    fn a_pods_address_is_written_once_the_pod_is_known_and_not_again() {
        let mut all = Annotations::default();
        all.assigned(name("web"), address("10.0.0.1"));
        assert_eq!(due(&mut all, &pods(&[])), Vec::<String>::new());
        let changes = all.due(&pods(&[("web", None), ("other", None)]), true);
        assert_eq!(
            changes.first().unwrap().patch(),
            json!({"metadata": {"uid": "uid-web", "annotations": {"vpc.amazonaws.com/pod-ips": "10.0.0.1"}}})
        );
        // It is under way.
        assert_eq!(due(&mut all, &pods(&[("web", None)])), Vec::<String>::new());
        all.settle(&name("web"));
        assert_eq!(
            due(&mut all, &pods(&[("web", Some("10.0.0.1"))])),
            Vec::<String>::new()
        );
        assert_eq!(
            due(&mut all, &pods(&[("web", Some("10.0.0.9"))])),
            ["web=10.0.0.1"]
        );
    }

    #[test]
    fn only_the_address_that_was_given_back_is_taken_from_the_annotation() {
        let mut all = Annotations::default();
        all.assigned(name("web"), address("10.0.0.1"));
        all.released(name("web"), address("10.0.0.1"));
        let changes = all.due(&pods(&[("web", Some("10.0.0.1"))]), true);
        assert_eq!(
            changes.first().unwrap().patch(),
            json!({"metadata": {"uid": "uid-web", "resourceVersion": "7", "annotations": {"vpc.amazonaws.com/pod-ips": ""}}})
        );
        all.settle(&name("web"));
        assert_eq!(
            due(&mut all, &pods(&[("web", Some("10.0.0.2"))])),
            Vec::<String>::new()
        );
        // That was seen: it is of no interest any more, whatever comes.
        assert_eq!(
            due(&mut all, &pods(&[("web", Some("10.0.0.1"))])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_late_del_of_an_earlier_sandbox_takes_nothing_from_the_next() {
        let mut all = Annotations::default();
        all.assigned(name("web"), address("10.0.0.1"));
        all.assigned(name("web"), address("10.0.0.2"));
        all.released(name("web"), address("10.0.0.1"));
        assert_eq!(
            due(&mut all, &pods(&[("web", Some("10.0.0.1"))])),
            ["web=10.0.0.2"]
        );
    }

    #[test]
    fn what_is_gone_is_forgotten_once_all_pods_are_known() {
        let mut all = Annotations::default();
        all.released(name("web"), address("10.0.0.1"));
        all.due(&pods(&[]), false);
        assert_eq!(all.had.len(), 1);
        all.due(&pods(&[]), true);
        assert!(all.had.is_empty());
    }
}
