//! vpcnetd, the node agent: wiring and executors around the pool of `vpcnet-ipam`.
//!
//! | module | for |
//! |---|---|
//! | [`config`] | settings from the environment |
//! | [`core`] | the loop around the pool: checkpoint before answer, journal before action |
//! | [`executor`] | EC2 actions |
//! | [`aims`], [`node_file`], [`zone`] | the pool's targets: from the environment, for this node only, by the subnets there are |
//! | [`cluster`], [`news`] | Kubernetes: what this node's objects say, and what is told there |
//! | [`cards`] | network cards after the first |
//! | [`host`], [`snat`] | the node's links, routes, rules and SNAT table |
//! | [`startup`] | getting to the pool, warm or cold |
//! | [`keeper`] | what somebody else changes of it is put right |
//! | [`newcomers`] | interfaces that others attach |
//! | [`leftovers`] | what connections and pods of earlier settings still need |
//! | [`refresh`] | the two values of IMDS that are re-read |
//! | [`grpc`], [`introspect`] | servers |
//!
//! It decides nothing about addresses: that is the pool's. It must know every edge, and holds no policy of its own.
#![forbid(unsafe_code)]

pub mod agent;
pub mod aims;
pub mod cards;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod core;
pub mod executor;
pub mod files;
pub mod grpc;
pub mod host;
pub mod http;
pub mod introspect;
pub mod keeper;
pub mod leftovers;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod newcomers;
pub mod news;
pub mod node_file;
pub mod observer;
pub mod published;
pub mod refresh;
pub mod snat;
pub mod socket;
pub mod startup;
pub mod state;
pub mod store;
pub mod takeover;
pub mod zone;
