//! Which ENIConfig is a node's.

use std::collections::BTreeMap;

use crate::objects::{EniConfig, EniConfigSpec, Node};

/// Label that goes before all else, as in amazon-vpc-cni-k8s: it is for whoever sets nodes up from outside.
pub const EXTERNAL_LABEL: &str = "vpc.amazonaws.com/externalEniConfig";
/// Label with the node's zone (Kubernetes, "Well-Known Labels").
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// What is used where nothing of the node names one.
pub const DEFAULT: &str = "default";

/// Who names it, and which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Its name.
    pub name: String,
    /// Who says so, for people: `annotation k8s.amazonaws.com/eniConfig`.
    pub by: String,
}

/// What the choice came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Chosen {
    /// This object.
    Found(Choice, EniConfigSpec),
    /// The node names one that does not exist; that is not made good by another.
    Missing(Choice),
    /// The node names none, and there is neither `default` nor one named as its zone.
    Unnamed {
        /// The node's zone, if it is labelled.
        zone: Option<String>,
    },
}

/// Chooses. The first that is present names it, an empty value too: label [`EXTERNAL_LABEL`], `annotation`, `label`. Otherwise it is
/// [`DEFAULT`], or, where that does not exist, the one named as the node's zone.
#[must_use]
pub fn eni_config(
    node: &Node,
    configs: &BTreeMap<String, EniConfigSpec>,
    annotation: &str,
    label: &str,
) -> Chosen {
    let (labels, annotations) = (&node.metadata.labels, &node.metadata.annotations);
    let named = [
        ("label", EXTERNAL_LABEL, labels),
        ("annotation", annotation, annotations),
        ("label", label, labels),
    ];
    let named = named.into_iter().find_map(|(kind, key, of)| {
        Some(Choice {
            name: of.get(key)?.clone(),
            by: format!("{kind} {key}"),
        })
    });
    if let Some(choice) = named {
        return match configs.get(&choice.name) {
            Some(spec) => Chosen::Found(choice, spec.clone()),
            None => Chosen::Missing(choice),
        };
    }
    let zone = labels.get(ZONE_LABEL).cloned();
    let usual = [
        Some((DEFAULT.to_owned(), "the node naming none".to_owned())),
        zone.clone().map(|z| (z, format!("label {ZONE_LABEL}"))),
    ];
    let found = usual.into_iter().flatten().find_map(|(name, by)| {
        let spec = configs.get(&name)?.clone();
        Some(Chosen::Found(Choice { name, by }, spec))
    });
    found.unwrap_or(Chosen::Unnamed { zone })
}

/// Configurations by name, as [`eni_config`] wants them.
pub fn by_name(configs: impl IntoIterator<Item = EniConfig>) -> BTreeMap<String, EniConfigSpec> {
    configs.into_iter().map(|c| (c.metadata.name, c.spec)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "k8s.amazonaws.com/eniConfig";

    fn node(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Node {
        let map = |of: &[(&str, &str)]| {
            let pairs = of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let mut node = Node::default();
        node.metadata.labels = map(labels);
        node.metadata.annotations = map(annotations);
        node
    }

    fn configs(names: &[&str]) -> BTreeMap<String, EniConfigSpec> {
        let spec = |name: &str| EniConfigSpec {
            subnet: format!("subnet-{name}"),
            security_groups: Vec::new(),
        };
        names.iter().map(|n| ((*n).to_owned(), spec(n))).collect()
    }

    fn name(chosen: &Chosen) -> &str {
        match chosen {
            Chosen::Found(choice, spec) => {
                assert_eq!(spec.subnet, format!("subnet-{}", choice.name));
                &choice.name
            }
            Chosen::Missing(choice) => &choice.name,
            Chosen::Unnamed { .. } => "",
        }
    }

    #[test]
    fn the_annotation_goes_before_the_label_and_the_label_before_the_zone() {
        let all = configs(&["a", "b", "eu-1a", "x"]);
        let zone = (ZONE_LABEL, "eu-1a");
        let choose = |labels: &[(&str, &str)], annotations: &[(&str, &str)]| {
            name(&eni_config(&node(labels, annotations), &all, KEY, KEY)).to_owned()
        };
        assert_eq!(choose(&[(KEY, "b"), zone], &[(KEY, "a")]), "a");
        assert_eq!(choose(&[(KEY, "b"), zone], &[]), "b");
        assert_eq!(choose(&[zone], &[]), "eu-1a");
        assert_eq!(choose(&[(EXTERNAL_LABEL, "x"), (KEY, "b")], &[(KEY, "a")]), "x");
    }

    #[test]
    fn the_zones_label_can_be_the_label_that_names_it() {
        let all = configs(&["default", "eu-1a"]);
        let node = node(&[(ZONE_LABEL, "eu-1a")], &[]);
        assert_eq!(name(&eni_config(&node, &all, KEY, ZONE_LABEL)), "eu-1a");
        // Otherwise there is a default, as there always was.
        assert_eq!(name(&eni_config(&node, &all, KEY, KEY)), "default");
    }

    #[test]
    fn one_that_is_named_and_not_there_is_missing_and_not_replaced() {
        let all = configs(&["default", "eu-1a"]);
        let with = |value| node(&[(ZONE_LABEL, "eu-1a")], &[(KEY, value)]);
        for value in ["gone", ""] {
            let chosen = eni_config(&with(value), &all, KEY, KEY);
            assert_eq!(
                chosen,
                Chosen::Missing(Choice {
                    name: value.into(),
                    by: format!("annotation {KEY}")
                })
            );
        }
    }

    #[test]
    fn where_nothing_fits_the_zone_is_told() {
        let chosen = eni_config(
            &node(&[(ZONE_LABEL, "eu-1c")], &[]),
            &configs(&["eu-1a"]),
            KEY,
            KEY,
        );
        assert_eq!(
            chosen,
            Chosen::Unnamed {
                zone: Some("eu-1c".into())
            }
        );
    }

    proptest! {
        #[test]
        fn what_is_found_exists_and_what_the_node_names_is_never_another(
            external in proptest::option::of("[a-c]"), annotation in proptest::option::of("[a-c]"),
            label in proptest::option::of("[a-c]"), zone in proptest::option::of("[a-c]"),
            exist in proptest::collection::btree_set("[a-c]|default", 0..4),
        ) {
            let labels: Vec<(&str, &str)> = [(EXTERNAL_LABEL, &external), ("l", &label), (ZONE_LABEL, &zone)]
                .into_iter().filter_map(|(k, v)| Some((k, v.as_deref()?))).collect();
            let annotations: Vec<(&str, &str)> = annotation.as_deref().map(|v| ("a", v)).into_iter().collect();
            let exist: Vec<&str> = exist.iter().map(String::as_str).collect();
            let chosen = eni_config(&node(&labels, &annotations), &configs(&exist), "a", "l");
            let named = external.or(annotation).or(label);
            match (&chosen, &named) {
                (Chosen::Found(choice, _), Some(named)) => prop_assert_eq!(&choice.name, named),
                (Chosen::Missing(choice), Some(named)) => prop_assert_eq!(&choice.name, named),
                (Chosen::Found(choice, _), None) =>
                    prop_assert!(choice.name == "default" || Some(&choice.name) == zone.as_ref()),
                (Chosen::Unnamed { .. }, None) => prop_assert!(!exist.contains(&"default")),
                _ => prop_assert!(false, "{:?} of {:?}", chosen, named),
            }
            if let Chosen::Found(choice, _) = &chosen {
                prop_assert!(exist.contains(&choice.name.as_str()));
            }
        }
    }
}
