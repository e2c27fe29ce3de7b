//! Calls to the node agent: by its direct socket, and by gRPC where that is not served, which is so with the AWS VPC CNI's
//! agent and with releases before it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use vpcnet_rpc::health::HealthCheckRequest;
use vpcnet_rpc::health::health_check_response::ServingStatus;
use vpcnet_rpc::method::{self, Method};
use vpcnet_rpc::node::{Attachment, GcReply, GcRequest, StatusReply, StatusRequest};
use vpcnet_rpc::pb::{AddNetworkReply, AddNetworkRequest, DelNetworkReply, DelNetworkRequest};
use vpcnet_rpc::{ConnectError, direct};

use crate::call::Call;
use crate::failure::{CallError, Failure};
use crate::grpc::Grpc;

/// A unix socket answers at once or its owner is stuck.
const DIAL: Duration = Duration::from_secs(2);
/// The agent lets a pod wait 60 s at most for an address; a little more, so that its own words come first.
const ADD: Duration = Duration::from_secs(65);
/// DEL never waits for anything but the checkpoint's disk.
const DEL: Duration = Duration::from_secs(15);
/// Probes.
const PROBE: Duration = Duration::from_secs(5);
/// GC writes one checkpoint, however many it frees.
const GC: Duration = Duration::from_secs(30);

/// The node agent. Each call dials.
pub(crate) struct Agent {
    socket: PathBuf,
    /// Where the direct socket was not served: the calls after the first one go the same way.
    grpc: OnceCell<Grpc>,
}

/// What an agent's word on its health comes to.
pub(crate) enum Health {
    Serving,
    NotServing(i32),
}

impl Agent {
    /// The agent that serves gRPC on `socket`.
    pub(crate) fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_path_buf(),
            grpc: OnceCell::new(),
        }
    }

    /// Asks for the pod's addresses.
    ///
    /// # Errors
    /// No answer, or no address.
    pub(crate) fn add(&self, call: &Call) -> Result<AddNetworkReply, Failure> {
        let request = AddNetworkRequest {
            k8s_pod_name: call.args.pod_name.clone(),
            k8s_pod_namespace: call.args.pod_namespace.clone(),
            k8s_pod_infra_container_id: call.args.infra_container_id.clone(),
            netns: call.env.netns.clone(),
            if_name: call.env.if_name.clone(),
            network_name: call.conf.name.clone(),
            container_id: call.env.container_id.clone(),
            client_version: String::new(),
            requires_multi_nic_attachment: call.settings.multi_nic,
        };
        let reply = self
            .call(&method::ADD_NETWORK, request, ADD)
            .map_err(|e| self.failed("AddNetwork", e))?;
        if reply.success {
            Ok(reply)
        } else {
            Err(Failure::NotGiven {
                socket: self.socket.clone(),
            })
        }
    }

    /// Gives them back. With `reason` "SetupNSFailed" the original sends no pod UID.
    ///
    /// # Errors
    /// No answer, or a refusal. An unknown pod is a refusal too.
    pub(crate) fn del(&self, call: &Call, reason: &str, uid: &str) -> Result<DelNetworkReply, CallError> {
        let request = DelNetworkRequest {
            k8s_pod_name: call.args.pod_name.clone(),
            k8s_pod_namespace: call.args.pod_namespace.clone(),
            k8s_pod_infra_container_id: call.args.infra_container_id.clone(),
            reason: reason.to_owned(),
            if_name: call.env.if_name.clone(),
            network_name: call.conf.name.clone(),
            container_id: call.env.container_id.clone(),
            client_version: String::new(),
            k8s_pod_uid: uid.to_owned(),
        };
        self.call(&method::DEL_NETWORK, request, DEL)
    }

    /// Asks the standard health service about the server as a whole.
    ///
    /// # Errors
    /// No answer.
    pub(crate) fn health(&self) -> Result<Health, Failure> {
        let reply = self.call(&method::HEALTH_CHECK, HealthCheckRequest::default(), PROBE);
        match reply.map_err(|e| self.failed("health check", e))?.status {
            status if status == ServingStatus::Serving as i32 => Ok(Health::Serving),
            status => Ok(Health::NotServing(status)),
        }
    }

    /// The agent's own word on its state; none from an agent that does not know the call.
    ///
    /// # Errors
    /// No answer.
    pub(crate) fn status(&self) -> Result<Option<StatusReply>, Failure> {
        optional(self.call(&method::STATUS, StatusRequest {}, PROBE)).map_err(|e| self.failed("Status", e))
    }

    /// Frees the addresses of all attachments of `network` but `valid`; none from an agent that does not know the call.
    ///
    /// # Errors
    /// No answer.
    pub(crate) fn gc(&self, network: &str, valid: Vec<Attachment>) -> Result<Option<GcReply>, Failure> {
        let request = GcRequest {
            network_name: network.to_owned(),
            valid,
        };
        optional(self.call(&method::GC, request, GC)).map_err(|e| self.failed("Gc", e))
    }

    /// Makes a call. Only a direct socket that cannot be dialled leads to gRPC: then nothing was asked yet. A call whose
    /// answer was lost is not made a second time.
    fn call<Q, A>(&self, method: &Method<Q, A>, request: Q, deadline: Duration) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        if let Some(grpc) = self.grpc.get() {
            return grpc.call(method, request, deadline);
        }
        match direct::Connection::open(&direct::socket_beside(&self.socket), DIAL) {
            Ok(connection) => Ok(connection.call(method, &request, deadline)?),
            Err(ConnectError::Dial(_)) => {
                let grpc = Grpc::connect(&self.socket, DIAL)?;
                self.grpc.get_or_init(|| grpc).call(method, request, deadline)
            }
            // Somebody listens, and is too busy for one more.
            Err(error) => Err(error.into()),
        }
    }

    fn failed(&self, call: &'static str, error: CallError) -> Failure {
        Failure::Agent {
            call,
            socket: self.socket.clone(),
            error,
        }
    }
}

/// The AWS VPC CNI's agent does not have our own service.
fn optional<T>(reply: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(CallError::Status {
            code: tonic::Code::Unimplemented,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}
