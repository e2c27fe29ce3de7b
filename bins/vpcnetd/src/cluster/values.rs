//! What the node and the ENIConfigs say, for the pool. Pure: objects in, values and complaints out.

use std::collections::BTreeMap;

use vpcnet_config::CustomNetworking;
use vpcnet_ipam::{CustomNetwork, SubnetId};
use vpcnet_kube::objects::{EniConfigSpec, Node};
use vpcnet_kube::select::{self, Chosen};

use super::overrides;
use crate::node_file::NodeValues;

/// What the objects come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    /// For the pool.
    pub(super) values: NodeValues,
    /// For the operator, a sentence each.
    pub(super) complaints: Vec<String>,
}

/// `keys`: with custom networking, what names the node's ENIConfig.
pub(super) fn of(
    node: Option<&Node>,
    configs: Option<&BTreeMap<String, EniConfigSpec>>,
    keys: Option<&CustomNetworking>,
) -> Wanted {
    // Nothing is taken for a value of a node that nobody knows yet: a guess would make interfaces in a wrong subnet.
    let Some(node) = node else {
        return Wanted::default();
    };
    let (targets, mut complaints) = overrides::of(node);
    let eni_config = match (keys, configs) {
        (Some(keys), Some(configs)) => {
            let chosen = select::eni_config(node, configs, &keys.annotation, &keys.label);
            custom_network(node, chosen, &mut complaints)
        }
        _ => None,
    };
    Wanted {
        values: NodeValues {
            targets,
            eni_config,
            unschedulable: node.is_cordoned(),
            max_pods: node.max_pods(),
        },
        complaints,
    }
}

fn custom_network(node: &Node, chosen: Chosen, complaints: &mut Vec<String>) -> Option<CustomNetwork> {
    let of_node = &node.metadata.name;
    match chosen {
        Chosen::Found(choice, spec) => {
            let subnets = [spec.subnet].into_iter().filter(|s| !s.is_empty());
            Some(CustomNetwork {
                name: choice.name,
                subnets: subnets.map(SubnetId).collect(),
                security_groups: spec.security_groups,
                ..CustomNetwork::default()
            })
        }
        Chosen::Missing(choice) => {
            complaints.push(format!(
                "ENIConfig {:?}, which the {} of node {of_node} names, does not exist: no interface is made",
                choice.name, choice.by
            ));
            None
        }
        Chosen::Unnamed { zone } => {
            let zone = match zone {
                Some(zone) => format!("nor one named as its zone, {zone:?}"),
                None => "and the node has no zone".into(),
            };
            complaints.push(format!(
                "node {of_node} names no ENIConfig, there is none named {:?}, {zone}: no interface is made",
                select::DEFAULT
            ));
            None
        }
    }
}

/// A node without what nothing here depends on: most of what changes on a node is that.
pub(super) fn trimmed(mut node: Node, keys: Option<&CustomNetworking>) -> Node {
    let named = |key: &String| {
        let key = key.as_str();
        key == select::EXTERNAL_LABEL
            || key == select::ZONE_LABEL
            || key.starts_with(overrides::PREFIX)
            || keys.is_some_and(|k| key == k.annotation || key == k.label)
    };
    node.metadata.labels.retain(|key, _| named(key));
    node.metadata.annotations.retain(|key, _| named(key));
    node.metadata.resource_version.clear();
    node
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KEY: &str = "k8s.amazonaws.com/eniConfig";

    fn keys() -> CustomNetworking {
        CustomNetworking {
            annotation: KEY.into(),
            label: "topology.kubernetes.io/zone".into(),
        }
    }

    fn node(annotations: &str) -> Node {
        serde_json::from_str(&format!(
            r#"{{"metadata": {{"name": "node-1", "uid": "u", "resourceVersion": "7",
                 "labels": {{"topology.kubernetes.io/zone": "eu-1a", "beta.kubernetes.io/os": "linux"}}, "annotations": {{{annotations}}}}},
                "spec": {{"taints": [{{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}}]}},
                "status": {{"capacity": {{"pods": "58"}}}}}}"#
        ))
        .unwrap()
    }

    fn configs() -> BTreeMap<String, EniConfigSpec> {
        let spec = |subnet: &str, groups: &[&str]| EniConfigSpec {
            subnet: subnet.into(),
            security_groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        };
        [
            ("eu-1a".to_owned(), spec("subnet-a", &["sg-1"])),
            ("special".to_owned(), spec("subnet-s", &[])),
            ("empty".to_owned(), spec("", &[])),
        ]
        .into()
    }

    #[test]
    fn all_that_a_node_says() {
        let wanted = of(
            Some(&node(r#""targets.vpcnet.dev/warm-ip-target": "4""#)),
            Some(&configs()),
            Some(&keys()),
        );
        let values = wanted.values;
        assert_eq!(values.targets.warm_ip, Some(4));
        assert!(values.unschedulable);
        assert_eq!(values.max_pods, Some(58));
        let custom = values.eni_config.unwrap();
        assert_eq!(
            (
                custom.name.as_str(),
                &custom.subnets[..],
                &custom.security_groups[..]
            ),
            ("eu-1a", &["subnet-a".into()][..], &["sg-1".to_owned()][..])
        );
        assert_eq!(wanted.complaints, Vec::<String>::new());
    }

    #[test]
    fn the_annotation_wins_and_one_that_does_not_exist_is_told_by_name() {
        let name = |annotation: &str| {
            let node = node(&format!(r#""{KEY}": "{annotation}""#));
            of(Some(&node), Some(&configs()), Some(&keys()))
        };
        assert_eq!(name("special").values.eni_config.unwrap().name, "special");
        let missing = name("gone");
        assert_eq!(missing.values.eni_config, None);
        let told = missing.complaints.concat();
        assert!(
            told.contains("\"gone\"") && told.contains(KEY) && told.contains("node-1"),
            "{told}"
        );
        assert_eq!(
            name("empty").values.eni_config.unwrap().subnets,
            Vec::<SubnetId>::new()
        );
    }

    #[test]
    fn before_the_node_or_the_configs_are_known_nothing_is_guessed() {
        assert_eq!(of(None, Some(&configs()), Some(&keys())), Wanted::default());
        let node = node("");
        let wanted = of(Some(&node), None, Some(&keys()));
        assert_eq!(wanted.values.eni_config, None);
        assert_eq!(wanted.complaints, Vec::<String>::new());
        let without = of(Some(&node), Some(&configs()), None);
        assert_eq!(without.values.eni_config, None);
    }

    #[test]
    fn a_node_that_names_none_is_told_what_was_looked_for() {
        let mut keys = keys();
        keys.label = KEY.into();
        let configs: BTreeMap<_, _> = configs()
            .into_iter()
            .filter(|(name, _)| name != "eu-1a")
            .collect();
        let told = of(Some(&node("")), Some(&configs), Some(&keys))
            .complaints
            .concat();
        assert!(told.contains("default") && told.contains("eu-1a"), "{told}");
    }

    #[test]
    fn what_changes_every_minute_is_trimmed() {
        let keys = keys();
        let before = trimmed(node(r#""other": "1""#), Some(&keys));
        let after = trimmed(node(r#""other": "2""#), Some(&keys));
        assert_eq!(before, after);
        assert_eq!(before.metadata.labels.len(), 1);
        let with = node(&format!(
            r#""{KEY}": "special", "targets.vpcnet.dev/max-eni": "2""#
        ));
        assert_eq!(trimmed(with, Some(&keys)).metadata.annotations.len(), 2);
    }
}
