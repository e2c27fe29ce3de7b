//! Calls to the node agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::{Response, Status};
use vpcnet_rpc::Connection;
use vpcnet_rpc::health::HealthCheckRequest;
use vpcnet_rpc::health::health_check_response::ServingStatus;
use vpcnet_rpc::health::health_client::HealthClient;
use vpcnet_rpc::node::node_agent_client::NodeAgentClient;
use vpcnet_rpc::node::{Attachment, GcReply, GcRequest, StatusReply, StatusRequest};
use vpcnet_rpc::pb::cni_backend_client::CniBackendClient;
use vpcnet_rpc::pb::{AddNetworkReply, AddNetworkRequest, DelNetworkReply, DelNetworkRequest};

use crate::call::Call;
use crate::failure::{CallError, Failure};

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

/// A connection to the node agent.
pub(crate) struct Agent {
    connection: Connection,
    socket: PathBuf,
}

/// What an agent's word on its health comes to.
pub(crate) enum Health {
    Serving,
    NotServing(i32),
}

impl Agent {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure::Agent`], naming `call`, what the connection is for.
    pub(crate) async fn connect(call: &'static str, socket: &Path) -> Result<Self, Failure> {
        match Connection::unix(socket, DIAL).await {
            Ok(connection) => Ok(Self {
                connection,
                socket: socket.to_path_buf(),
            }),
            Err(error) => Err(Failure::Agent {
                call,
                socket: socket.to_path_buf(),
                error: error.into(),
            }),
        }
    }

    /// Asks for the pod's addresses.
    ///
    /// # Errors
    /// No answer, or no address.
    pub(crate) async fn add(&self, call: &Call) -> Result<AddNetworkReply, Failure> {
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
        let mut client = CniBackendClient::new(self.connection.clone());
        let reply = within(ADD, client.add_network(request))
            .await
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
    pub(crate) async fn del(
        &self,
        call: &Call,
        reason: &str,
        uid: &str,
    ) -> Result<DelNetworkReply, CallError> {
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
        within(
            DEL,
            CniBackendClient::new(self.connection.clone()).del_network(request),
        )
        .await
    }

    /// Asks the standard health service about the server as a whole.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn health(&self) -> Result<Health, Failure> {
        let mut client = HealthClient::new(self.connection.clone());
        let reply = within(PROBE, client.check(HealthCheckRequest::default())).await;
        match reply.map_err(|e| self.failed("health check", e))?.status {
            status if status == ServingStatus::Serving as i32 => Ok(Health::Serving),
            status => Ok(Health::NotServing(status)),
        }
    }

    /// The agent's own word on its state; none from an agent that does not know the call.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn status(&self) -> Result<Option<StatusReply>, Failure> {
        let mut client = NodeAgentClient::new(self.connection.clone());
        optional(within(PROBE, client.status(StatusRequest {})).await).map_err(|e| self.failed("Status", e))
    }

    /// Frees the addresses of all attachments of `network` but `valid`; none from an agent that does not know the call.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn gc(&self, network: &str, valid: Vec<Attachment>) -> Result<Option<GcReply>, Failure> {
        let mut client = NodeAgentClient::new(self.connection.clone());
        let request = GcRequest {
            network_name: network.to_owned(),
            valid,
        };
        optional(within(GC, client.gc(request)).await).map_err(|e| self.failed("Gc", e))
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

/// Runs a call with a deadline. Dropping it when the time is over cancels it, which the other side sees.
pub(crate) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(CallError::Deadline(deadline)),
    }
}

/// A status that the other side sent has no source; one that stands for a broken connection has the connection's error.
fn from_status(status: &Status) -> CallError {
    match std::error::Error::source(status) {
        Some(source) => CallError::Broken(source.to_string()),
        None => CallError::Status {
            code: status.code(),
            message: status.message().to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_ends_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let deadline = Duration::from_millis(20);
        let never = std::future::pending::<Result<Response<()>, Status>>();
        let error = runtime.block_on(within(deadline, never)).unwrap_err();
        assert!(matches!(error, CallError::Deadline(d) if d == deadline));
    }

    #[test]
    fn a_status_that_was_sent_is_told_from_a_broken_connection() {
        let sent = from_status(&Status::unavailable("EC2 is down; next try in 8 s"));
        assert!(matches!(
            sent,
            CallError::Status {
                code: tonic::Code::Unavailable,
                ..
            }
        ));
        assert_eq!(sent.to_string(), "EC2 is down; next try in 8 s");
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert!(matches!(from_status(&broken), CallError::Broken(_)));
    }
}
