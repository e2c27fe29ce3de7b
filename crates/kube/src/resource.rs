//! What the client must know of a resource, and the fields that all objects have.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// A kind of object.
pub trait Resource: DeserializeOwned + Send + 'static {
    /// Its API group; empty for the core's.
    const GROUP: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// Its name in paths.
    const PLURAL: &'static str;
    /// Only `metadata` is read, and only that is asked for: the API server then leaves the rest out.
    const METADATA_ONLY: bool = false;

    /// What tells it from others.
    fn name(&self) -> Name<'_>;
}

/// What tells an object from others of its kind, and this state of it from others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name<'a> {
    /// Empty for those of the cluster.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `metadata.resourceVersion`.
    pub version: &'a str,
}

/// `metadata`, without what nobody here reads.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Empty for those of the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Another object of the same name has another one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Changes with each change of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Labels.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// As [`Resource::name`] wants it.
    #[must_use]
    pub fn as_name(&self) -> Name<'_> {
        Name {
            namespace: &self.namespace,
            name: &self.name,
            version: &self.resource_version,
        }
    }
}

/// A list as the API server answers it.
#[derive(Debug, Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
pub struct List<K> {
    /// The state it is of.
    pub metadata: ListMetadata,
    /// The objects.
    #[serde(default, deserialize_with = "or_default")]
    pub items: Vec<K>,
}

/// `metadata` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMetadata {
    /// Where a watch goes on.
    pub resource_version: String,
}

/// Which objects of a kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// A field selector such as `metadata.name=node-1`; empty: all.
    pub fields: String,
}

impl Selection {
    /// All there are.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            fields: format!("metadata.name={name}"),
        }
    }

    /// Those with a field of this value.
    #[must_use]
    pub fn with(field: &str, value: &str) -> Self {
        Self {
            fields: format!("{field}={value}"),
        }
    }
}

/// `null` is what Go writes for an empty map that nobody made.
pub(crate) fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The path of a resource's objects: of all, of a namespace, or of one.
pub(crate) fn path<K: Resource>(namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = match K::GROUP {
        "" => format!("/api/{}", K::VERSION),
        group => format!("/apis/{group}/{}", K::VERSION),
    };
    if let Some(namespace) = namespace {
        path.push_str("/namespaces/");
        push_encoded(&mut path, namespace);
    }
    path.push('/');
    path.push_str(K::PLURAL);
    if let Some(name) = name {
        path.push('/');
        push_encoded(&mut path, name);
    }
    path
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, section 2.3.
pub(crate) fn push_encoded(to: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            to.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::objects::{EniConfig, Event, Node, Pod};

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(path::<Node>(None, Some("node-1")), "/api/v1/nodes/node-1");
        assert_eq!(path::<Pod>(None, None), "/api/v1/pods");
        assert_eq!(
            path::<Pod>(Some("default"), Some("web-0")),
            "/api/v1/namespaces/default/pods/web-0"
        );
        assert_eq!(
            path::<EniConfig>(None, None),
            "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs"
        );
        assert_eq!(
            path::<Event>(Some("default"), None),
            "/apis/events.k8s.io/v1/namespaces/default/events"
        );
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(
            path::<Node>(None, Some("../pods?x=1#")),
            "/api/v1/nodes/..%2Fpods%3Fx%3D1%23"
        );
    }

    #[test]
    fn null_maps_and_lists_are_empty() {
        let list: List<Node> = serde_json::from_str(
            r#"{"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a", "labels": null}}]}"#,
        )
        .unwrap();
        assert_eq!(list.metadata.resource_version, "7");
        assert!(list.items.first().unwrap().metadata.labels.is_empty());
        let list: List<Node> = serde_json::from_str(r#"{"metadata": {}, "items": null}"#).unwrap();
        assert!(list.items.is_empty());
    }
}
