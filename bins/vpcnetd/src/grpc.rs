//! The services on the agent's two unix sockets: the original's, which plugins of either project call, the health service,
//! and our own `NodeAgent`. The gRPC socket has all of them; the direct one has what our plugin calls.

mod direct;
mod health;
mod node;
mod status;

pub(crate) use status::text as refusal_text;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Server, UdsConnectInfo};
use tonic::{Request, Response, Status};
use vpcnet_ipam::{Answer, Cards, Lease, PodKey, PodMeta};
use vpcnet_rpc::direct::Backends;
use vpcnet_rpc::health::health_server::HealthServer;
use vpcnet_rpc::node::node_agent_server::NodeAgentServer;
use vpcnet_rpc::pb;
use vpcnet_rpc::pb::cni_backend_server::{CniBackend, CniBackendServer};
use vpcnet_rpc::pb::config_server_backend_server::{ConfigServerBackend, ConfigServerBackendServer};

use crate::clock;
use crate::core::CoreHandle;
use crate::http::stopped;
use crate::metrics::Metrics;
use crate::published::Published;

/// How long an ADD may wait for an address.
pub const POD_WAIT: Duration = Duration::from_secs(60);
/// A request of the original's protocol is a few hundred bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// A GC lists every sandbox of the node, about a hundred bytes each.
const MAX_GC_REQUEST: usize = 1024 * 1024;
/// Calls of one connection at a time. Plugins make one; this keeps one client from filling the agent's memory.
const MAX_STREAMS: u32 = 128;

/// What all services need.
#[derive(Clone)]
pub struct Services {
    /// The pool's loop.
    pub core: CoreHandle,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What is told with every reply.
    pub published: watch::Receiver<Arc<Published>>,
}

/// Serves both sockets until `stop` turns true, then finishes the calls under way.
///
/// # Errors
/// The gRPC transport's, which do not come from single connections.
pub async fn serve(
    grpc: UnixListener,
    direct: UnixListener,
    services: Services,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    // On a node this is root. An agent somebody starts for himself can be asked by himself.
    let own = rustix::process::geteuid().as_raw();
    let backends = Backends {
        cni: services.clone(),
        node: services.clone(),
        health: health::Health::new(services.published.clone()),
    };
    let direct = direct::serve(direct, backends, own, stop.clone());
    let grpc = serve_grpc(grpc, services, own, stop);
    tokio::try_join!(grpc, async {
        direct.await;
        Ok(())
    })?;
    Ok(())
}

async fn serve_grpc(
    listener: UnixListener,
    services: Services,
    own: u32,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let health = health::Health::new(services.published.clone());
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .layer(tonic::service::InterceptorLayer::new(move |request| {
            check_peer(request, own)
        }))
        .add_service(CniBackendServer::new(services.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(ConfigServerBackendServer::new(services.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(HealthServer::new(health).max_decoding_message_size(MAX_REQUEST))
        .add_service(NodeAgentServer::new(services).max_decoding_message_size(MAX_GC_REQUEST))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped(stop))
        .await
}

fn check_peer(request: Request<()>, own: u32) -> Result<Request<()>, Status> {
    let caller = request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred)
        .map(|c| c.uid());
    allowed(caller, own).map(|()| request)
}

/// Whether a caller with this user id may call. The mode of the sockets keeps others out; this holds where the mode was
/// changed or the socket was handed on.
fn allowed(caller: Option<u32>, own: u32) -> Result<(), Status> {
    match caller {
        Some(uid) if uid == 0 || uid == own => Ok(()),
        Some(uid) => {
            tracing::warn!(uid, "a call by somebody who is not root was refused");
            Err(Status::permission_denied(format!(
                "only root may call the node agent; the caller's user id is {uid}"
            )))
        }
        None => Err(Status::permission_denied(
            "only root may call the node agent; the caller's user id is unknown",
        )),
    }
}

#[tonic::async_trait]
impl CniBackend for Services {
    async fn add_network(
        &self,
        request: Request<pb::AddNetworkRequest>,
    ) -> Result<Response<pb::AddNetworkReply>, Status> {
        self.metrics.add_requests.inc();
        let r = request.into_inner();
        let key = key(r.network_name, r.container_id, r.if_name)?;
        let published = self.published.borrow().clone();
        let cards = if !r.requires_multi_nic_attachment {
            Cards::Any
        } else if published.multi_nic {
            Cards::Every
        } else {
            return Err(Status::invalid_argument(format!(
                "pod {}/{} asks for an interface on every network card (its annotation k8s.amazonaws.com/nicConfig), and ENABLE_MULTI_NIC is off on this node",
                r.k8s_pod_namespace, r.k8s_pod_name
            )));
        };
        let meta = PodMeta {
            namespace: r.k8s_pod_namespace,
            name: r.k8s_pod_name,
            interfaces: 1,
        };
        let deadline = clock::mono().plus(POD_WAIT);
        let answer = self
            .core
            .add(key, meta, cards, deadline)
            .await
            .map_err(status::gone)?;
        match answer {
            Answer::Assigned(leases) => Ok(Response::new(pb::AddNetworkReply {
                success: true,
                ip_allocations: leases.iter().map(allocation).collect(),
                use_external_snat: published.external_snat,
                vpc_v4_cidrs: published.reply_cidrs(),
                vpc_v6_cidrs: published.reply_ipv6_cidrs(),
                network_policy_mode: published.policy_mode.clone(),
                ..pb::AddNetworkReply::default()
            })),
            Answer::Refused(refusal) => Err(status::refused(&refusal)),
            Answer::Released(_) | Answer::UnknownPod => {
                Err(Status::internal("the pool answered an ADD as a DEL"))
            }
        }
    }

    async fn del_network(
        &self,
        request: Request<pb::DelNetworkRequest>,
    ) -> Result<Response<pb::DelNetworkReply>, Status> {
        let r = request.into_inner();
        // The label's values are a closed set: what a caller writes there must not make new series.
        let reason = [vpcnet_rpc::REASON_POD_DELETED, vpcnet_rpc::REASON_SETUP_FAILED]
            .into_iter()
            .find(|known| *known == r.reason)
            .unwrap_or("other");
        self.metrics.del_requests.with_label_values(&[reason]).inc();
        let key = key(r.network_name, r.container_id, r.if_name)?;
        let meta = PodMeta {
            namespace: r.k8s_pod_namespace,
            name: r.k8s_pod_name,
            interfaces: 1,
        };
        match self.core.del(key, meta).await.map_err(status::gone)? {
            Answer::Released(leases) => Ok(Response::new(pb::DelNetworkReply {
                success: true,
                ip_allocations: leases.iter().map(allocation).collect(),
                network_policy_mode: self.published.borrow().policy_mode.clone(),
                ..pb::DelNetworkReply::default()
            })),
            Answer::UnknownPod => Err(Status::unknown(vpcnet_rpc::UNKNOWN_POD)),
            Answer::Refused(refusal) => Err(status::refused(&refusal)),
            Answer::Assigned(_) => Err(Status::internal("the pool answered a DEL as an ADD")),
        }
    }
}

#[tonic::async_trait]
impl ConfigServerBackend for Services {
    async fn get_network_policy_configs(
        &self,
        _: Request<()>,
    ) -> Result<Response<pb::NetworkPolicyAgentConfigReply>, Status> {
        let p = self.published.borrow().clone();
        Ok(Response::new(pb::NetworkPolicyAgentConfigReply {
            network_policy_mode: p.policy_mode.clone(),
            multi_nic_enabled: p.multi_nic,
            // Only that of the family pods have, as in the original.
            node_ipv4: text(p.machine.local_ipv4.filter(|_| !p.ipv6)),
            node_ipv6: text(p.machine.local_ipv6.filter(|_| p.ipv6)),
            instance_id: p.machine.instance_id.clone(),
            region: p.machine.region.clone(),
        }))
    }
}

fn text(address: Option<impl std::fmt::Display>) -> String {
    address.map(|a| a.to_string()).unwrap_or_default()
}

/// A sandbox's key; all three parts are needed, or a later DEL could not find it.
fn key(network: String, container_id: String, if_name: String) -> Result<PodKey, Status> {
    for (value, name) in [
        (&network, "NetworkName"),
        (&container_id, "ContainerID"),
        (&if_name, "IfName"),
    ] {
        if value.is_empty() {
            return Err(Status::invalid_argument(format!("{name} is empty")));
        }
    }
    Ok(PodKey {
        network,
        container_id,
        if_name,
    })
}

fn allocation(lease: &Lease) -> pb::IpAllocationMetadata {
    let (ipv4_addr, ipv6_addr) = match lease.address {
        std::net::IpAddr::V4(a) => (a.to_string(), String::new()),
        std::net::IpAddr::V6(a) => (String::new(), a.to_string()),
    };
    pb::IpAllocationMetadata {
        ipv4_addr,
        ipv6_addr,
        device_number: i32::try_from(lease.device.0).unwrap_or(i32::MAX),
        route_table_id: i32::try_from(lease.route_table).unwrap_or(i32::MAX),
    }
}
