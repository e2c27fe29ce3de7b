//! Unary methods by name, with the messages they take and give: for callers and servers that go by the name on the wire
//! and not by generated code.

use std::marker::PhantomData;

use crate::health::{HealthCheckRequest, HealthCheckResponse};
use crate::node::{GcReply, GcRequest, ListOwnersReply, ListOwnersRequest, StatusReply, StatusRequest};
use crate::pb::{
    AddNetworkReply, AddNetworkRequest, DelNetworkReply, DelNetworkRequest, DeleteNpReply, DeleteNpRequest,
    EnforceNpReply, EnforceNpRequest,
};

/// A unary method that takes a `Q` and gives an `A`.
pub struct Method<Q, A> {
    path: &'static str,
    messages: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Method<Q, A> {
    const fn new(path: &'static str) -> Self {
        Self {
            path,
            messages: PhantomData,
        }
    }

    /// gRPC's full name: `/package.Service/Method`.
    pub const fn path(&self) -> &'static str {
        self.path
    }
}

/// ADD: an address for a sandbox.
pub const ADD_NETWORK: Method<AddNetworkRequest, AddNetworkReply> = Method::new("/rpc.CNIBackend/AddNetwork");
/// DEL: gives it back.
pub const DEL_NETWORK: Method<DelNetworkRequest, DelNetworkReply> = Method::new("/rpc.CNIBackend/DelNetwork");
/// The policy agent puts a pod's policies in force.
pub const ENFORCE_NP: Method<EnforceNpRequest, EnforceNpReply> = Method::new("/rpc.NPBackend/EnforceNpToPod");
/// The policy agent takes them away.
pub const DELETE_NP: Method<DeleteNpRequest, DeleteNpReply> = Method::new("/rpc.NPBackend/DeletePodNp");
/// Whether the server serves.
pub const HEALTH_CHECK: Method<HealthCheckRequest, HealthCheckResponse> =
    Method::new("/grpc.health.v1.Health/Check");
/// The agent's word on its state.
pub const STATUS: Method<StatusRequest, StatusReply> = Method::new("/vpcnet.v1.NodeAgent/Status");
/// Who holds which addresses.
pub const LIST_OWNERS: Method<ListOwnersRequest, ListOwnersReply> =
    Method::new("/vpcnet.v1.NodeAgent/ListOwners");
/// Frees what the runtime no longer knows.
pub const GC: Method<GcRequest, GcReply> = Method::new("/vpcnet.v1.NodeAgent/Gc");
