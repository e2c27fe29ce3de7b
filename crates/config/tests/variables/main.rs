//! Each variable by itself: what holds when it is not set, what it takes, and what a wrong value does. The test has the variable's
//! name in lower case; `docs/configuration.md` names it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod case;
mod cloud;
mod host;
mod install;
mod interfaces;
mod kubernetes;
mod pool;
mod process;
mod table;
