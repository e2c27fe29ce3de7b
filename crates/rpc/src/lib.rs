//! The gRPC services on the agent's unix socket, and the short way to the same services on the socket beside it.
//!
//! * [`pb`]: package `rpc`, wire-compatible with the AWS VPC CNI's, so that plugin and agent of either project work
//!   together while a DaemonSet rolls: `CNIBackend`, `NPBackend`, `ConfigServerBackend`.
//! * [`health`]: the standard gRPC health service, which the probes of the pod spec call.
//! * [`node`]: our own calls, which the original's protocol has no room for.
//! * [`method`]: the unary methods of all of them by name.
//! * [`direct`]: the same calls without HTTP/2, which is most of what a call costs a plugin.
//!
//! The code under `src/generated` comes from `proto/` by `generate/generate.sh` and is committed; `generate/check.sh`
//! fails when it is not current. Nothing here knows addresses, pods or the kernel.
//!
//! **ClientVersion.** The original's agent refuses a request whose `ClientVersion` is not its own build version
//! (`FAILED_PRECONDITION`, "wrong client version"). In its releases, though, the version is the empty string on both sides,
//! because the linker flag that should set it names a symbol that does not exist. So our plugin sends "" and our
//! agent accepts anything: whatever is stamped would break the upgrade from one release to the next, where the
//! plugin of one version talks to the agent of another.
#![forbid(unsafe_code)]

/// Package `rpc`: the original's services and messages.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
pub mod pb {
    include!("generated/rpc.rs");
}

/// Package `grpc.health.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
pub mod health {
    include!("generated/grpc.health.v1.rs");
}

/// Package `vpcnet.v1`: our own service `NodeAgent`.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
pub mod node {
    include!("generated/vpcnet.v1.rs");
}

pub mod direct;
pub mod method;

#[cfg(feature = "client")]
mod connection;
#[cfg(feature = "client")]
pub use connection::{ConnectError, Connection};

/// Socket of the node agent, where nothing else is configured.
pub const AGENT_SOCKET: &str = "/var/run/aws-node/ipamd.sock";

/// Socket of the network policy agent.
pub const NPA_SOCKET: &str = "/var/run/aws-node/npa.sock";

/// Text in the status of a DelNetwork for a sandbox that holds no address. Plugins of both projects look for it and
/// take the call as done.
pub const UNKNOWN_POD: &str = "datastore: unknown pod";

/// `DelNetworkRequest.reason` when the runtime deleted the pod.
pub const REASON_POD_DELETED: &str = "PodDeleted";

/// `DelNetworkRequest.reason` when ADD could not finish and gives the address back.
pub const REASON_SETUP_FAILED: &str = "SetupNSFailed";
