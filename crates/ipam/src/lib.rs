//! The pool of VPC addresses.
#![forbid(unsafe_code)]

mod action;
pub mod arithmetic;
mod backoff;
mod checkpoint;
mod event;
mod evidence;
mod handle;
mod ids;
mod intent;
mod interface;
mod journal;
mod kernel;
mod names;
mod outcome;
mod owner;
mod plan;
mod pods;
mod pool;
mod refuse;
mod restore;
mod targets;
mod time;
mod view;

pub use action::{Action, Answer, Lease, Refusal, RefusalCause};
pub use checkpoint::{Allocation, Checkpoint, CheckpointError, FORMAT, WRITER};
pub use event::{
    ActionId, Cards, Event, Evidence, FailureClass, InterfaceFacts, InterfaceKind, Outcome, RequestId, Stage,
};
pub use ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta, SubnetId};
pub use journal::{JOURNAL_VERSION, Journal};
pub use kernel::{FromRule, HostRoute, KernelEvidence};
pub use names::{MAIN_TABLE, host_veth_suffix, host_veth_suffix_nth, route_table};
pub use owner::{MIGRATED_NETWORK, UNKNOWN_INTERFACE, rebuilt_key};
pub use plan::{Blocked, Ceiling, Goal, Plan, PlanReport, Step, Tally, plan};
pub use pool::Pool;
pub use restore::{RestoreNote, Restored};
pub use targets::{CardLimits, ConfigError, Identity, Limits, Mode, Targets};
pub use time::{Mono, Now};
pub use view::{
    AddressState, AddressView, BackoffView, Contradiction, IntentView, InterfaceView, OwnerView, PoolView,
    WaitingView,
};
