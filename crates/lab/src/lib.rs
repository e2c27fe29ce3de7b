//! The lab: a VPC on one Linux machine, for any VPC CNI to run against.
//!
//! [`model`] is the VPC as one value: commands in, results and state changes out, time passed in. [`api`] puts it
//! behind the EC2 Query API and the instance metadata service, as clients that nobody here wrote expect them.
//! [`fabric`] is its network, of namespaces; [`daemon`] keeps all three together, and [`cli`] is what people type.
//! [`kubernetes`] puts a cluster on its nodes. The lab must not know the agent: it serves any agent that speaks EC2.
//!
//! Without the feature `programs` (on by default) there is the model alone.

#![deny(unsafe_code)]

#[cfg(feature = "programs")]
pub mod api;
#[cfg(feature = "programs")]
pub mod check;
#[cfg(feature = "programs")]
pub mod cli;
#[cfg(feature = "programs")]
pub mod cni;
#[cfg(feature = "programs")]
pub mod control;
#[cfg(feature = "programs")]
pub mod daemon;
#[cfg(feature = "programs")]
mod edge;
#[cfg(feature = "programs")]
pub mod error;
#[cfg(feature = "programs")]
pub mod fabric;
#[cfg(feature = "programs")]
pub mod kubernetes;
pub mod model;
#[cfg(feature = "programs")]
pub mod pods;
#[cfg(feature = "programs")]
pub mod process;
#[cfg(feature = "programs")]
pub mod state;
#[cfg(feature = "programs")]
mod tool;
