//! The VPC as one value, pure: no clock, no I/O, no randomness but what its seed gives.
//!
//! Time is a [`Duration`](std::time::Duration) since the start of the lab, passed in by the caller and never going
//! back. The same configuration, seed and sequence of calls give the same answers, so a failing run can be repeated
//! from its seed. Behaviour follows the EC2 API reference (version 2016-11-15); where EC2 documents an error code,
//! that code is given.
//!
//! What it must not know: sockets, namespaces, XML, and the agent that talks to it.

mod assign;
mod attach;
mod calls;
mod check;
mod config;
mod default_lab;
mod describe;
mod describe_network;
mod error;
mod fabric;
mod fault_plan;
mod faults;
mod filter;
mod found;
mod ids;
mod imds;
mod imds_tree;
mod instances;
mod interfaces;
mod ipv6;
mod lagging;
mod log;
mod modify;
mod page;
mod policy;
mod policy_conditions;
mod request;
mod resources;
mod response;
mod rights;
mod rng;
mod space;
mod space6;
mod state;
mod status;
mod tags;
mod throttle;
mod time;
mod truth;
mod types;
mod vpc;

pub use calls::{Call, CallCount, Face};
pub use config::{
    AddressChoice, Bucket, Buckets, GroupConfig, HttpTokens, NodeSpec, Protocol, Reservation,
    ReservationKind, RoleConfig, Rule, RulePeer, Spread, SubnetConfig, SubnetRoute, Timing, VpcConfig,
};
pub use error::ApiError;
pub use fabric::{
    FabricGroup, FabricInterface, FabricNode, FabricPeer, FabricRule, FabricSubnet, FabricView,
};
pub use faults::{ActiveFault, FaultKind, FaultRule, FaultTarget};
pub use ids::{AttachmentId, EniId, GroupId, InstanceId, Mac, SubnetId, VpcId};
pub use imds::{ImdsBody, ImdsReply};
pub use ipv6::{Ipv6, WantedIpv6};
pub use policy::{Policy, PolicyError};
pub use request::{
    AssignIpv6Addresses, AssignPrivateIpAddresses, AttachNetworkInterface, AttributeChange,
    ConnectionTracking, CreateNetworkInterface, Describe, Filter, InterfaceKind, Request, RunInstances, Tags,
    Wanted,
};
pub use response::{InstanceView, Page, Response, SubnetView, VpcView};
pub use rights::{Caller, Credentials};
pub use rng::Rng;
pub use state::{Attachment, Group, Instance, InstanceState, Interface, InterfaceStatus, Subnet};
pub use status::{InstanceStatus, InterfaceSummary, SubnetStatus, VpcStatus};
pub use time::timestamp;
pub use vpc::{Fate, Reply, Vpc};
