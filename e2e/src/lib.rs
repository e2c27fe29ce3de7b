//! Tests of the built binaries in the lab: what a user would see, on the real kernel.
//!
//! [`Lab`] brings a lab up for one test and takes it down when the test ends, however it ends. [`Stream`] keeps a TCP
//! connection between two pods and tells whether it ever broke. [`wait_for`] waits for a condition, with a deadline.

#![forbid(unsafe_code)]
// This package is test support: a panic is how a test fails.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]

mod apiserver;
mod bin;
mod kube;
mod lab;
mod node;
mod stream;
mod wait;

pub use apiserver::{ApiServer, Credentials};
pub use bin::{binary, cargo_bin};
pub use kube::{AGNHOST, Cluster, Get, KubePod, response};
pub use lab::{Failure, Lab, Options};
pub use node::{Node, Pod};
pub use stream::Stream;
pub use wait::{wait_for, wait_for_or};
