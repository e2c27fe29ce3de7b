//! The Kubernetes API, as far as vpcnet needs it: typed list, watch, get, create and merge patch of the few resources it knows, over the
//! HTTP and TLS that the EC2 client has too; and what a node's objects say, as pure functions.
//!
//! | module | for |
//! |---|---|
//! | [`access`] | where the API server is and as whom it is asked: service account, or `KUBECONFIG` |
//! | [`Client`] | requests, each with a deadline and with a typed error |
//! | [`watch`] | a list that is kept current, for as long as the process lives |
//! | [`objects`] | the resources, trimmed to the fields that somebody reads |
//! | [`select`] | which ENIConfig is a node's |
//!
//! It knows nothing of pools and nothing of the kernel's network: `vpcnetd` joins it to them.
#![forbid(unsafe_code)]

pub mod access;
mod client;
#[cfg(test)]
mod crd;
mod error;
mod kubeconfig;
pub mod objects;
mod resource;
pub mod select;
mod transport;
pub mod watch;

pub use access::{Access, AccessError, Credential, Pem};
pub use client::{Client, Version};
pub use error::ApiError;
pub use resource::{List, ListMetadata, Metadata, Resource, Selection};
