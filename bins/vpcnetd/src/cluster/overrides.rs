//! Targets that hold for one node, from its labels and annotations: `targets.vpcnet.dev/warm-ip-target=4`. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use vpcnet_ipam::TargetOverrides;
use vpcnet_kube::objects::Node;

/// All keys begin with this; the rest is the variable's name in lower case with dashes.
pub(super) const PREFIX: &str = "targets.vpcnet.dev/";
/// What may follow.
const NAMES: [&str; 8] = [
    "warm-eni-target",
    "warm-ip-target",
    "minimum-ip-target",
    "warm-prefix-target",
    "max-eni",
    "ip-cooldown-period",
    "max-pods",
    "warm-pool",
];

/// What the node sets, and what of it cannot be used. An annotation goes before the label of the same key: it can be changed without a thought
/// to selectors.
pub(super) fn of(node: &Node) -> (TargetOverrides, Vec<String>) {
    let mut set: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (kind, map) in [
        ("label", &node.metadata.labels),
        ("annotation", &node.metadata.annotations),
    ] {
        for (key, value) in map {
            if let Some(name) = key.strip_prefix(PREFIX) {
                set.insert(name, (kind, value));
            }
        }
    }
    let mut targets = TargetOverrides::default();
    let mut complaints = Vec::new();
    for (name, (kind, value)) in set {
        if let Err(expected) = put(&mut targets, name, value.trim()) {
            complaints.push(format!(
                "{kind} {PREFIX}{name}={value:?} of node {} is passed over: expected {expected}",
                node.metadata.name
            ));
        }
    }
    (targets, complaints)
}

/// Sets one; otherwise says what was expected.
fn put(targets: &mut TargetOverrides, name: &str, value: &str) -> Result<(), String> {
    let number = || {
        value
            .parse::<u32>()
            .map_err(|_| "a whole number, 0 or more".to_owned())
    };
    match name {
        "warm-eni-target" => targets.warm_eni = Some(number()?),
        "warm-ip-target" => targets.warm_ip = Some(number()?),
        "minimum-ip-target" => targets.minimum_ip = Some(number()?),
        "warm-prefix-target" => targets.warm_prefix = Some(number()?),
        "max-eni" => targets.max_eni = Some(number()?),
        "ip-cooldown-period" => targets.cooldown = Some(Duration::from_secs(number()?.into())),
        "max-pods" => match number()? {
            0 => return Err("a whole number, 1 or more".into()),
            pods => targets.max_pods = Some(pods),
        },
        "warm-pool" => {
            targets.auto = Some(match value {
                "auto" => true,
                "targets" => false,
                _ => return Err("\"targets\" or \"auto\"".into()),
            });
        }
        _ => return Err(format!("a key of {}", NAMES.join(", "))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Node {
        let map = |of: &[(&str, &str)]| {
            let pairs = of.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let mut node = Node::default();
        node.metadata.name = "node-1".into();
        node.metadata.labels = map(labels);
        node.metadata.annotations = map(annotations);
        node
    }

    #[test]
    fn every_target_can_be_set() {
        let all = [
            ("warm-eni-target", "0"),
            ("warm-ip-target", "4"),
            ("minimum-ip-target", "9"),
            ("warm-prefix-target", "2"),
            ("max-eni", "3"),
            ("ip-cooldown-period", "5"),
            ("max-pods", "40"),
            ("warm-pool", "auto"),
        ];
        assert_eq!(all.map(|(name, _)| name), NAMES);
        let (targets, complaints) = of(&node(&all, &[]));
        assert_eq!(complaints, Vec::<String>::new());
        assert_eq!(
            targets,
            TargetOverrides {
                warm_eni: Some(0),
                warm_ip: Some(4),
                minimum_ip: Some(9),
                warm_prefix: Some(2),
                max_eni: Some(3),
                max_pods: Some(40),
                cooldown: Some(Duration::from_secs(5)),
                auto: Some(true),
            }
        );
    }

    #[test]
    fn an_annotation_goes_before_a_label() {
        let (targets, _) = of(&node(
            &[("warm-ip-target", "4"), ("max-eni", "2")],
            &[("warm-ip-target", "7")],
        ));
        assert_eq!((targets.warm_ip, targets.max_eni), (Some(7), Some(2)));
    }

    #[test]
    fn what_cannot_be_used_is_told_and_changes_nothing_else() {
        for (name, value, expected) in [
            ("warm-ip-target", "many", "whole number"),
            ("warm-ip-target", "-1", "whole number"),
            ("max-pods", "0", "1 or more"),
            ("warm-pool", "big", "auto"),
            ("warm-ips", "4", "warm-ip-target"),
        ] {
            let (targets, complaints) = of(&node(&[("max-eni", "2")], &[(name, value)]));
            assert_eq!(
                targets,
                TargetOverrides {
                    max_eni: Some(2),
                    ..TargetOverrides::default()
                }
            );
            let told = complaints.concat();
            let all = [name, value, expected, "annotation", "node-1"]
                .iter()
                .all(|w| told.contains(w));
            assert!(all, "{told}");
        }
    }
}
