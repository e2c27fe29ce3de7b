//! Calls to the network policy agent, which the node agent's answer asks for by naming a mode.

use std::time::Duration;

use vpcnet_rpc::Connection;
use vpcnet_rpc::pb::np_backend_client::NpBackendClient;
use vpcnet_rpc::pb::{DeleteNpRequest, EnforceNpRequest};

use crate::agent::within;
use crate::call::Call;
use crate::failure::{CallError, Failure};

/// As long as the original waits for it.
const DIAL: Duration = Duration::from_secs(2);
/// It attaches programs, and may wait for the pod's policies.
const ENFORCE: Duration = Duration::from_secs(60);
/// It detaches them.
const DELETE: Duration = Duration::from_secs(15);

/// A connection to the network policy agent.
pub(crate) struct Npa {
    connection: Connection,
}

impl Npa {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure::Policy`], naming `call`, what the connection is for.
    pub(crate) async fn connect(call: &Call, what: &'static str) -> Result<Self, Failure> {
        match Connection::unix(&call.settings.npa_socket, DIAL).await {
            Ok(connection) => Ok(Self { connection }),
            Err(error) => Err(failed(call, what, error.into())),
        }
    }

    /// Puts the pod's policies in force; returns when they are.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(crate) async fn enforce(&self, call: &Call, mode: &str, interfaces: usize) -> Result<(), Failure> {
        let request = EnforceNpRequest {
            k8s_pod_name: call.args.pod_name.clone(),
            k8s_pod_namespace: call.args.pod_namespace.clone(),
            network_policy_mode: mode.to_owned(),
            interface_count: i32::try_from(interfaces).unwrap_or(i32::MAX),
        };
        let mut client = NpBackendClient::new(self.connection.clone());
        let what = "EnforceNpToPod";
        match within(ENFORCE, client.enforce_np_to_pod(request)).await {
            Ok(reply) if reply.success => Ok(()),
            Ok(_) => Err(Failure::PolicyRefused {
                call: what,
                socket: call.settings.npa_socket.clone(),
            }),
            Err(error) => Err(failed(call, what, error)),
        }
    }

    /// Takes them away.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(crate) async fn delete(&self, call: &Call) -> Result<(), Failure> {
        let request = DeleteNpRequest {
            k8s_pod_name: call.args.pod_name.clone(),
            k8s_pod_namespace: call.args.pod_namespace.clone(),
        };
        let mut client = NpBackendClient::new(self.connection.clone());
        let what = "DeletePodNp";
        match within(DELETE, client.delete_pod_np(request)).await {
            Ok(reply) if reply.success => Ok(()),
            Ok(_) => Err(Failure::PolicyRefused {
                call: what,
                socket: call.settings.npa_socket.clone(),
            }),
            Err(error) => Err(failed(call, what, error)),
        }
    }
}

fn failed(call: &Call, what: &'static str, error: CallError) -> Failure {
    Failure::Policy {
        call: what,
        socket: call.settings.npa_socket.clone(),
        error,
    }
}
