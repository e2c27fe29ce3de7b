//! `Node`: labels and annotations, taints, and how many pods the kubelet takes.

use serde::{Deserialize, Serialize};

use crate::resource::{Metadata, Name, Resource, or_default};

/// The object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Node {
    /// Name, labels, annotations.
    pub metadata: Metadata,
    /// What is wanted of it.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What the kubelet says of it.
    #[serde(default)]
    pub status: NodeStatus,
}

/// What is wanted of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// What keeps pods off it.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
}

/// What keeps pods off a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Such as `node.kubernetes.io/unschedulable`.
    pub key: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// What the kubelet says of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// What it has.
    #[serde(deserialize_with = "or_default")]
    pub capacity: Capacity,
}

/// What a node has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// How many pods; a quantity, which for a number of pods is that number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
}

impl Node {
    /// Whether it is cordoned (`kubectl cordon`): the taint counts, as amazon-vpc-cni-k8s has it.
    #[must_use]
    pub fn is_cordoned(&self) -> bool {
        let cordons = |t: &Taint| t.key == "node.kubernetes.io/unschedulable" && t.effect == "NoSchedule";
        self.spec.taints.iter().any(cordons)
    }

    /// How many pods the kubelet takes; `None` before it said so.
    #[must_use]
    pub fn max_pods(&self) -> Option<u32> {
        let pods = self.status.capacity.pods.as_deref()?;
        pods.parse().ok().filter(|n| *n > 0)
    }
}

impl Resource for Node {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const PLURAL: &'static str = "nodes";

    fn name(&self) -> Name<'_> {
        self.metadata.as_name()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn node(text: &str) -> Node {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_the_cordons_own_taint_is_a_cordon() {
        let with = |key: &str, effect: &str| {
            node(&format!(
                r#"{{"metadata": {{"name": "a"}}, "spec": {{"taints": [{{"key": "{key}", "effect": "{effect}", "timeAdded": null}}]}}}}"#
            ))
            .is_cordoned()
        };
        assert!(with("node.kubernetes.io/unschedulable", "NoSchedule"));
        assert!(!with("node.kubernetes.io/unschedulable", "NoExecute"));
        assert!(!with("node.kubernetes.io/not-ready", "NoSchedule"));
        assert!(!node(r#"{"metadata": {"name": "a"}, "spec": {"unschedulable": true}}"#).is_cordoned());
    }

    #[test]
    fn max_pods_is_the_kubelets_word_once_it_has_one() {
        let with = |capacity: &str| {
            node(&format!(
                r#"{{"metadata": {{"name": "a"}}, "status": {{"capacity": {capacity}}}}}"#
            ))
            .max_pods()
        };
        assert_eq!(with(r#"{"cpu": "2", "pods": "110"}"#), Some(110));
        assert_eq!(with(r#"{"pods": "0"}"#), None);
        assert_eq!(with("{}"), None);
        assert_eq!(with("null"), None);
        assert_eq!(node(r#"{"metadata": {"name": "a"}}"#).max_pods(), None);
    }
}
