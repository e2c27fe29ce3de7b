//! `ENIConfig`: subnet and security groups of a node's further interfaces (custom networking).

use serde::{Deserialize, Serialize};

use crate::resource::{Metadata, Name, Resource, or_default};

/// The object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EniConfig {
    /// Its name is what nodes name.
    pub metadata: Metadata,
    /// What it says.
    #[serde(default)]
    pub spec: EniConfigSpec,
}

/// Subnet and security groups of the interfaces that nodes of this configuration make.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EniConfigSpec {
    /// Id of the subnet (subnet-…), in the zone of the nodes that name this object.
    #[serde(default)]
    pub subnet: String,
    /// Ids of the security groups (sg-…). Left out or empty: those of the node's primary interface.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub security_groups: Vec<String>,
}

/// Nobody writes one; the field is there because the schema always had it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EniConfigStatus {}

impl Resource for EniConfig {
    const GROUP: &'static str = "crd.k8s.amazonaws.com";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "eniconfigs";

    fn name(&self) -> Name<'_> {
        self.metadata.as_name()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_as_people_write_it() {
        let config: EniConfig = serde_json::from_str(
            r#"{"apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfig", "metadata": {"name": "eu-central-1a"},
                "spec": {"subnet": "subnet-1", "securityGroups": ["sg-1", "sg-2"], "of": "others"}}"#,
        )
        .unwrap();
        assert_eq!(config.metadata.name, "eu-central-1a");
        assert_eq!(config.spec.subnet, "subnet-1");
        assert_eq!(config.spec.security_groups, ["sg-1", "sg-2"]);
    }
}
