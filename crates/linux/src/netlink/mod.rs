//! Requests to rtnetlink.
//!
//! A [`Request`] is one change; it displays as what it means and encodes itself through `netlink-packet-route`. A
//! slice of them is a batch: one send, each answered on its own, matched by sequence number. A batch is no
//! transaction: the kernel goes on after a refused message, so the caller undoes.
//!
//! Answers to queries are read by attribute, not through the packet crate's whole types: a new attribute of a newer
//! kernel must not make a link unreadable, and the plugin stays small.

mod error;
#[cfg(feature = "faults")]
pub mod faults;
mod model;
pub(crate) mod parse;
mod query;
mod request;
mod socket;
mod transaction;

pub use error::{Errno, NetlinkError, Refusal};
pub use model::{Address, Device, Link, MAIN, Neighbour, PROTO_BOOT, PROTO_KERNEL, Route, Rule, Scope};
pub use query::RouteFilter;
pub use request::{Request, Veth};
pub use socket::{Socket, Traffic, traffic_of_this_thread};
