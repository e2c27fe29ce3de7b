//! The pool's behaviour as a specification: one file a topic, one behaviour a test. `properties` lets random histories
//! run against a small cloud.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // tests

mod auto;
mod cards;
mod checkpoint;
mod cloud;
mod evidence;
mod explain;
mod failures;
mod ipv6;
mod namesakes;
mod old;
mod prefixes;
mod pressure;
mod properties;
mod provisioning;
mod restore;
mod rig;
mod scripts;
mod steady;
mod subnets;
mod unrecorded;
mod vectors;
mod views;
mod waiting;
mod world;
