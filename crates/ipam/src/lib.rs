//! The pool of VPC addresses: which interfaces a node has, which addresses lie on them, which pod has which address, and
//! what should be asked of EC2 next.
//!
//! It watches [`Event`]s and answers with [`Action`]s, nothing else: no I/O, no clock (the time is handed in as [`Now`]), no
//! randomness, no threads. The same events at the same times give the same actions, so every run can be recorded,
//! replayed and simulated. It must not know tokio, EC2's protocol, Kubernetes or netlink; executors do, and they may
//! fail, repeat and die at any point.
//!
//! # How it is used
//!
//! An executor makes a [`Pool`] with [`Pool::restore`] from the checkpoint, the pool's own journal and what the kernel
//! shows, then feeds it events and keeps to one order:
//!
//! 1. [`Pool::handle`] each event that is there; collect the actions.
//! 2. If [`Pool::checkpoint_generation`] moved, write [`Pool::checkpoint`]. If that fails, feed
//!    [`Event::CheckpointFailed`] before anything else and refuse the callers concerned: it did not happen. After a
//!    start the checkpoint is written once in any case, so that it bears our mark.
//! 3. If [`Pool::journal_generation`] moved, write [`Pool::journal`] before any EC2 call of the batch is started. Its
//!    loss costs time, and at worst an interface that nobody remembers having begun.
//! 4. Send the replies; start the calls; report each as [`Event::ActionDone`] or [`Event::ActionFailed`].
//! 5. Send an [`Event::Tick`] at [`Pool::next_wake`]. An idle pool wants none.
//!
//! # What it holds to
//!
//! * An address has one owner: handing out looks at one index, [`Pool::owners`], filled from the checkpoint and from
//!   the kernel. Evidence from IMDS or EC2 never takes an address from an owner; it is shown as a [`Contradiction`].
//! * A call's effect is known or asked for. Creations are repeated with the same client token; an assignment or release
//!   without an answer is followed by a `Describe`, and what it is about is handed to nobody until that is answered.
//! * A pod that nothing can serve now waits as long as something can in time (a call under way, a retry, a cool-down, a
//!   place for another interface); otherwise it is refused at once with a [`Refusal`] that says why and when.
//! * Addresses in the making count, waiting pods count as if they had their address: nothing is asked for twice, and as
//!   many interfaces are made side by side as are needed.
//!
//! The warm pool's sums are those of the AWS VPC CNI ([`arithmetic`]). [`plan()`] makes them into steps, [`Pool::explain`]
//! into sentences, [`Pool::view`] shows the state, [`Pool::explain_pod`] one pod's part of it.
//!
//! # What it manages
//!
//! * Secondary IPv4 addresses, /28 prefixes (packed densely, drained when no pod is in them, with single addresses in
//!   their place where a subnet has no free block), or one IPv6 /80: see [`Mode`]. When the mode changes, pods keep what
//!   they have, and what is no longer asked for goes as they do.
//! * Several network cards: a pool for each, with the card's limits ([`Limits::cards`]).
//! * Several subnets, ranked by what they have left; excluded ones; custom networking: see [`Subnets`].
//! * Interfaces that others look after, and those without an address, take a place and are never used.
#![forbid(unsafe_code)]

mod action;
pub mod arithmetic;
mod backoff;
mod cards;
mod checkpoint;
mod churn;
mod discover;
mod event;
mod evidence;
mod graces;
mod handle;
mod ids;
mod intent;
mod interface;
mod ipv6;
mod journal;
mod kernel;
mod kind;
pub mod leaked;
mod names;
mod outcome;
mod overrides;
mod owner;
mod pick;
mod plan;
mod pod_report;
mod pods;
mod pool;
mod prefix;
mod pressure;
mod refuse;
mod restore;
mod subnets;
mod sums;
mod targets;
mod time;
mod undo;
mod view;
mod why;
mod writer;

pub use action::{Action, Answer, Lease, Refusal, RefusalCause};
pub use checkpoint::{Allocation, Checkpoint, CheckpointError, FORMAT, WRITER};
pub use discover::{CLUSTER_TAG, ROLE_TAG, ZoneSubnet};
pub use event::{
    ActionId, Cards, Event, Evidence, FailureClass, InterfaceFacts, InterfaceKind, Outcome, RequestId, Stage,
};
pub use graces::Doubt;
pub use ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta, SubnetId};
pub use journal::{JOURNAL_VERSION, Journal};
pub use kernel::{FromRule, HostRoute, KernelEvidence};
pub use names::{MAIN_TABLE, host_veth_suffix, host_veth_suffix_nth, route_table};
pub use overrides::TargetOverrides;
pub use owner::{MIGRATED_NETWORK, UNKNOWN_INTERFACE, rebuilt_key};
pub use plan::{Blocked, CardPlan, Ceiling, Goal, Plan, PlanReport, Step, Tally, plan};
pub use pod_report::{HeldAddress, LeftAddress, PodReport};
pub use pool::Pool;
pub use restore::{RestoreNote, Restored};
pub use subnets::{CustomNetwork, Subnets};
pub use sums::{Size, SubnetView, UnderWay};
pub use targets::{CardLimits, ConfigError, Identity, Limits, Mode, Targets};
pub use time::{Mono, Now};
pub use view::{
    AddressState, AddressView, BackoffView, Contradiction, IntentView, InterfaceView, Ipv6AddressView,
    OwnerView, PoolView, WaitingView,
};
pub use writer::{CheckpointWriter, Part};
