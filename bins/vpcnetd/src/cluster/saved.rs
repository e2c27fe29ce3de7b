//! The last known objects of this node, on disk beside the agent's state: a start without the API server goes by them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vpcnet_kube::objects::{EniConfigSpec, Node};

use crate::store::{FileStore, StoreError};

/// Written in the file; any other value means somebody else's file.
const FORMAT: &str = "vpcnet-kubernetes/1";

/// What is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The node.
    pub(super) node: Option<Node>,
    /// The ENIConfigs by name; `None`: never listed.
    pub(super) eni_configs: Option<BTreeMap<String, EniConfigSpec>>,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    /// Whose objects: a machine may come back as another node.
    node_name: String,
    #[serde(flatten)]
    saved: Saved,
}

/// Reads it. What is broken, or of another node, is as good as missing: the API server says it again.
pub(super) fn read(store: &FileStore, node_name: &str) -> Option<Saved> {
    let bytes = match store.read() {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::error!(%error, "state");
            return None;
        }
    };
    let path = store.path().display();
    match serde_json::from_slice::<File>(&bytes) {
        Ok(file) if file.format == FORMAT && file.node_name == node_name => Some(file.saved),
        Ok(file) => {
            tracing::warn!(%path, format = file.format, node = file.node_name, "written for another node, or by another version: not used");
            None
        }
        Err(error) => {
            tracing::error!(%path, %error, "broken: not used");
            None
        }
    }
}

/// Writes it.
///
/// # Errors
/// [`StoreError`].
pub(super) fn write(store: &FileStore, node_name: &str, saved: &Saved) -> Result<(), StoreError> {
    let file = File {
        format: FORMAT.into(),
        node_name: node_name.to_owned(),
        saved: saved.clone(),
    };
    // Nothing in it has no JSON form.
    let bytes = serde_json::to_vec(&file).unwrap_or_default();
    store.write(&bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_known_is_read_by_the_same_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("vpcnet-kubernetes.json"));
        assert_eq!(read(&store, "node-1"), None);
        let mut node = Node::default();
        node.metadata.name = "node-1".into();
        node.metadata.annotations.insert("a".into(), "b".into());
        node.status.capacity.pods = Some("58".into());
        let spec = EniConfigSpec {
            subnet: "subnet-1".into(),
            security_groups: vec!["sg-1".into()],
        };
        let saved = Saved {
            node: Some(node),
            eni_configs: Some([("default".to_owned(), spec)].into()),
        };
        write(&store, "node-1", &saved).unwrap();
        assert_eq!(read(&store, "node-1"), Some(saved));
        assert_eq!(read(&store, "node-2"), None);
        for broken in ["", "{", r#"{"format":"other/1","node_name":"node-1"}"#] {
            std::fs::write(store.path(), broken).unwrap();
            assert_eq!(read(&store, "node-1"), None, "{broken}");
        }
    }
}
