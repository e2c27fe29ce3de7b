//! The checkpoint: owners, in the file format of the AWS VPC CNI (`vpc-cni-ipam/1`), so that either agent can take over
//! from the other while pods run.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::ids::{PodKey, PodMeta};
use crate::owner::Held;

/// `version` of the format.
pub const FORMAT: &str = "vpc-cni-ipam/1";
/// Value of the extra field `writer`, which the original ignores on reading and drops on writing.
pub const WRITER: &str = "vpcnet";

/// The file's content.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// Who has what.
    pub allocations: Vec<Allocation>,
    /// Was it written by us? Otherwise another agent ran since, and what we remember beside it is older than it.
    pub ours: bool,
}

/// One owner's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allocation {
    /// The sandbox.
    pub key: PodKey,
    /// Its address.
    pub address: IpAddr,
    /// When it was given, nanoseconds since the Unix epoch; 0: the file does not say (agents before 1.11).
    pub allocated_ns: i64,
    /// The pod; names are empty in files of agents before 1.11.
    pub meta: PodMeta,
}

/// A checkpoint that cannot be used. Keep the file aside: owners are then rebuilt from what the kernel shows.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not JSON, or not of this shape.
    #[error("not readable as a checkpoint: {0}")]
    Parse(#[from] serde_json::Error),
    /// Another format.
    #[error("checkpoint version {found:?} is not {FORMAT:?}: written by an agent this one cannot follow")]
    Version {
        /// What it says.
        found: String,
    },
    /// Two owners of one address.
    #[error("address {address} is in the checkpoint twice, for {first} and for {second}")]
    Duplicate {
        /// Which.
        address: IpAddr,
        /// One of them.
        first: Box<PodKey>,
        /// The other.
        second: Box<PodKey>,
    },
    /// An entry without an address.
    #[error("the entry of {key} in the checkpoint has no address")]
    NoAddress {
        /// Which.
        key: Box<PodKey>,
    },
}

#[derive(Serialize, Deserialize)]
struct File {
    version: String,
    #[serde(default)]
    allocations: Option<Vec<Entry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
}

// A null is what the field has without it: so does the original read it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default, deserialize_with = "null_as_default")]
    network_name: String,
    #[serde(default, rename = "containerID", deserialize_with = "null_as_default")]
    container_id: String,
    #[serde(default, deserialize_with = "null_as_default")]
    if_name: String,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    ipv4: Option<Ipv4Addr>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    ipv6: Option<Ipv6Addr>,
    #[serde(default, deserialize_with = "null_as_default")]
    allocation_timestamp: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    metadata: Metadata,
}

#[derive(Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(
        default,
        rename = "k8sPodNamespace",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_default"
    )]
    namespace: String,
    #[serde(
        default,
        rename = "k8sPodName",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_default"
    )]
    name: String,
    #[serde(
        default,
        rename = "interfacesCount",
        skip_serializing_if = "is_zero",
        deserialize_with = "null_as_default"
    )]
    interfaces: u32,
}

fn null_as_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// An address may be absent, null or the empty string: all mean there is none.
fn empty_as_none<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    match Option::<String>::deserialize(d)? {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(serde::de::Error::custom),
        _ => Ok(None),
    }
}

impl Checkpoint {
    /// Reads the file's content.
    ///
    /// # Errors
    /// [`CheckpointError`]; the file is then to be kept aside, not overwritten.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let file: File = serde_json::from_slice(bytes)?;
        if file.version != FORMAT {
            return Err(CheckpointError::Version { found: file.version });
        }
        let mut allocations: Vec<Allocation> = Vec::new();
        for entry in file.allocations.unwrap_or_default() {
            let key = PodKey {
                network: entry.network_name,
                container_id: entry.container_id,
                if_name: entry.if_name,
            };
            let meta = PodMeta {
                namespace: entry.metadata.namespace,
                name: entry.metadata.name,
                interfaces: entry.metadata.interfaces.max(1),
            };
            let addresses = entry
                .ipv4
                .map(IpAddr::V4)
                .into_iter()
                .chain(entry.ipv6.map(IpAddr::V6));
            let before = allocations.len();
            for address in addresses {
                allocations.push(Allocation {
                    key: key.clone(),
                    address,
                    allocated_ns: entry.allocation_timestamp,
                    meta: meta.clone(),
                });
            }
            if allocations.len() == before {
                return Err(CheckpointError::NoAddress { key: Box::new(key) });
            }
        }
        let mut seen = std::collections::BTreeMap::new();
        for allocation in &allocations {
            if let Some(first) = seen.insert(allocation.address, &allocation.key) {
                return Err(CheckpointError::Duplicate {
                    address: allocation.address,
                    first: Box::new(first.clone()),
                    second: Box::new(allocation.key.clone()),
                });
            }
        }
        Ok(Self {
            allocations,
            ours: file.writer.as_deref() == Some(WRITER),
        })
    }

    /// The file's content: one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let file = File {
            version: FORMAT.to_owned(),
            allocations: Some(self.allocations.iter().map(Entry::from).collect()),
            writer: self.ours.then(|| WRITER.to_owned()),
        };
        // Strings and numbers only: this cannot fail; an empty file would be refused on reading, not misread.
        let mut bytes = serde_json::to_vec(&file).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The owners in it, each once.
    pub fn keys(&self) -> impl Iterator<Item = PodKey> + '_ {
        let unique: BTreeSet<&PodKey> = self.allocations.iter().map(|a| &a.key).collect();
        unique.into_iter().cloned()
    }
}

/// What stands before the entries, and after them, in a file of ours.
pub(crate) fn frame() -> (String, String) {
    (
        format!("{{\"version\":\"{FORMAT}\",\"allocations\":["),
        format!("],\"writer\":\"{WRITER}\"}}\n"),
    )
}

/// Appends the entry of one address, as [`Checkpoint::to_json`] writes it.
pub(crate) fn append_entry(bytes: &mut Vec<u8>, key: &PodKey, meta: &PodMeta, held: &Held) {
    let (ipv4, ipv6) = split(held.address);
    let entry = EntryRef {
        network_name: &key.network,
        container_id: &key.container_id,
        if_name: &key.if_name,
        ipv4,
        ipv6,
        allocation_timestamp: held.allocated_ns,
        metadata: MetadataRef {
            namespace: &meta.namespace,
            name: &meta.name,
            interfaces: meta.interfaces,
        },
    };
    // Strings, numbers and addresses always have a JSON form, and a vector takes all of it.
    let _ = serde_json::to_writer(bytes, &entry);
}

fn split(address: IpAddr) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    match address {
        IpAddr::V4(v4) => (Some(v4), None),
        IpAddr::V6(v6) => (None, Some(v6)),
    }
}

/// [`Entry`] without copies.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryRef<'a> {
    network_name: &'a str,
    #[serde(rename = "containerID")]
    container_id: &'a str,
    if_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
    allocation_timestamp: i64,
    metadata: MetadataRef<'a>,
}

#[derive(Serialize)]
struct MetadataRef<'a> {
    #[serde(rename = "k8sPodNamespace", skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(rename = "k8sPodName", skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "interfacesCount", skip_serializing_if = "is_zero")]
    interfaces: u32,
}

impl From<&Allocation> for Entry {
    fn from(a: &Allocation) -> Self {
        let (ipv4, ipv6) = split(a.address);
        Self {
            network_name: a.key.network.clone(),
            container_id: a.key.container_id.clone(),
            if_name: a.key.if_name.clone(),
            ipv4,
            ipv6,
            allocation_timestamp: a.allocated_ns,
            metadata: Metadata {
                namespace: a.meta.namespace.clone(),
                name: a.meta.name.clone(),
                interfaces: a.meta.interfaces,
            },
        }
    }
}
