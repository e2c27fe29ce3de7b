//! `CNINode`: what a node's agent asks of the controller of security groups for pods, which makes the object.

use serde::{Deserialize, Serialize};

use crate::resource::{Metadata, Name, Resource, or_default};

/// The object, named as its node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CniNode {
    /// Its name is the node's.
    pub metadata: Metadata,
    /// What is asked.
    #[serde(default)]
    pub spec: CniNodeSpec,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CniNodeSpec {
    /// By the agent.
    #[serde(deserialize_with = "or_default")]
    pub features: Vec<Feature>,
}

/// One thing that is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Feature {
    /// `SecurityGroupsForPods` or `CustomNetworking`.
    pub name: String,
    /// Of the latter: the name of the node's ENIConfig.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

impl Feature {
    /// A trunk interface is wanted.
    #[must_use]
    pub fn security_groups_for_pods() -> Self {
        Self {
            name: "SecurityGroupsForPods".into(),
            value: String::new(),
        }
    }

    /// It is to lie where this ENIConfig says.
    #[must_use]
    pub fn custom_networking(eni_config: &str) -> Self {
        Self {
            name: "CustomNetworking".into(),
            value: eni_config.to_owned(),
        }
    }
}

impl Resource for CniNode {
    const GROUP: &'static str = "vpcresources.k8s.aws";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "cninodes";

    fn name(&self) -> Name<'_> {
        self.metadata.as_name()
    }
}

/// The features with those wanted among them; `None` where nothing has to be changed. One of the same name with another value is
/// replaced in its place; those of others stay.
#[must_use]
pub fn with_features(present: &[Feature], wanted: &[Feature]) -> Option<Vec<Feature>> {
    let mut all = present.to_vec();
    for feature in wanted {
        match all.iter_mut().find(|f| f.name == feature.name) {
            Some(found) => found.clone_from(feature),
            None => all.push(feature.clone()),
        }
    }
    (all != present).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_feature_is_added_replaced_or_left() {
        let (groups, custom) = (
            Feature::security_groups_for_pods(),
            Feature::custom_networking("a"),
        );
        let added = with_features(&[], &[custom.clone(), groups.clone()]);
        assert_eq!(added, Some(vec![custom.clone(), groups.clone()]));
        assert_eq!(
            with_features(&[groups.clone(), custom.clone()], std::slice::from_ref(&groups)),
            None
        );
        let other = Feature::custom_networking("b");
        assert_eq!(
            with_features(&[custom, groups.clone()], std::slice::from_ref(&other)),
            Some(vec![other, groups])
        );
    }

    fn features() -> impl Strategy<Value = Vec<Feature>> {
        let one = ("[a-c]", "[x-z]?").prop_map(|(name, value)| Feature { name, value });
        proptest::collection::vec(one, 0..4)
    }

    proptest! {
        #[test]
        fn asked_again_nothing_changes_and_features_of_others_stay(present in features(), mut wanted in features()) {
            wanted.sort_by(|a, b| a.name.cmp(&b.name));
            wanted.dedup_by(|a, b| a.name == b.name);
            let after = with_features(&present, &wanted).unwrap_or_else(|| present.clone());
            prop_assert_eq!(with_features(&after, &wanted), None);
            for feature in &wanted {
                prop_assert!(after.contains(feature));
            }
            for feature in present.iter().filter(|f| wanted.iter().all(|w| w.name != f.name)) {
                prop_assert!(after.contains(feature));
            }
        }
    }
}
