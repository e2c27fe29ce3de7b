//! The resources, each with the fields that somebody here reads and no others: what is not named is passed over while the answer is
//! parsed, and never kept. An agent's memory is its own pods' names and not their manifests.

mod cninode;
mod eniconfig;
mod event;
mod node;
mod pod;

pub use cninode::{CniNode, CniNodeSpec, Feature, with_features};
pub use eniconfig::{EniConfig, EniConfigSpec, EniConfigStatus};
pub use event::{Event, Kind as EventKind, Note, ObjectReference, Series};
pub use node::{Node, NodeSpec, NodeStatus, Taint};
pub use pod::{BranchError, BranchInterface, POD_ENI, POD_IPS, Pod, PodAnnotations, PodMetadata};
