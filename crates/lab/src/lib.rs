//! The lab: a VPC on one Linux machine, for any VPC CNI to run against.
//!
//! [`model`] is the VPC as one value: commands in, results and state changes out, time passed in. [`api`] puts it
//! behind the EC2 Query API and the instance metadata service, as clients that nobody here wrote expect them.
//! The lab must not know the agent: it serves any agent that speaks EC2.

#![deny(unsafe_code)]

pub mod api;
pub mod model;
