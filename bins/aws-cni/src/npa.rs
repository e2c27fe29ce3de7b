//! Calls to the network policy agent, which the node agent's answer asks for by naming a mode.

use std::time::Duration;

use vpcnet_rpc::method;
use vpcnet_rpc::pb::{DeleteNpRequest, EnforceNpRequest};

use crate::call::Call;
use crate::failure::{CallError, Failure};
use crate::grpc::Grpc;

/// As long as the original waits for it.
const DIAL: Duration = Duration::from_secs(2);
/// It attaches programs, and may wait for the pod's policies.
const ENFORCE: Duration = Duration::from_secs(60);
/// It detaches them.
const DELETE: Duration = Duration::from_secs(15);

/// A connection to the network policy agent.
pub(crate) struct Npa {
    grpc: Grpc,
}

impl Npa {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure::Policy`], naming `call`, what the connection is for.
    pub(crate) fn connect(call: &Call, what: &'static str) -> Result<Self, Failure> {
        Grpc::connect(&call.settings.npa_socket, DIAL)
            .map(|grpc| Self { grpc })
            .map_err(|error| failed(call, what, error))
    }

    /// Puts the pod's policies in force; returns when they are.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(crate) fn enforce(&self, call: &Call, mode: &str, interfaces: usize) -> Result<(), Failure> {
        let request = EnforceNpRequest {
            k8s_pod_name: call.args.pod_name.clone(),
            k8s_pod_namespace: call.args.pod_namespace.clone(),
            network_policy_mode: mode.to_owned(),
            interface_count: i32::try_from(interfaces).unwrap_or(i32::MAX),
        };
        let what = "EnforceNpToPod";
        match self.grpc.call(&method::ENFORCE_NP, request, ENFORCE) {
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
    pub(crate) fn delete(&self, call: &Call) -> Result<(), Failure> {
        let request = DeleteNpRequest {
            k8s_pod_name: call.args.pod_name.clone(),
            k8s_pod_namespace: call.args.pod_namespace.clone(),
        };
        let what = "DeletePodNp";
        match self.grpc.call(&method::DELETE_NP, request, DELETE) {
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
