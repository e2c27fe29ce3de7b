//! The lab: a VPC on one Linux machine, for any VPC CNI to run against.
//!
//! [`model`] is the VPC as one value: commands in, results and state changes out, time passed in. [`api`] puts it
//! behind the EC2 Query API and the instance metadata service, as clients that nobody here wrote expect them.
//! [`fabric`] is its network, of namespaces; [`daemon`] keeps all three together, and [`cli`] is what people type.
//! The lab must not know the agent: it serves any agent that speaks EC2.

#![deny(unsafe_code)]

pub mod api;
pub mod check;
pub mod cli;
pub mod cni;
pub mod control;
pub mod daemon;
mod edge;
pub mod error;
pub mod fabric;
pub mod model;
pub mod pods;
pub mod process;
pub mod state;
mod tool;
