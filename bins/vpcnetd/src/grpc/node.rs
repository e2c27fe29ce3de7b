//! `vpcnet.v1.NodeAgent`: what our plugin's STATUS, CHECK and GC need.

use std::collections::{BTreeMap, BTreeSet};

use tonic::{Request, Response, Status};
use vpcnet_ipam::{Answer, Lease, PodKey};
use vpcnet_rpc::node as pb;
use vpcnet_rpc::node::node_agent_server::NodeAgent;

use super::{Services, status};

#[tonic::async_trait]
impl NodeAgent for Services {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusReply>, Status> {
        let published = self.published.borrow().clone();
        let starting = self
            .core
            .look(|view| view.starting.to_owned())
            .await
            .map_err(status::gone)?;
        let ready = published.ready && starting.is_empty();
        Ok(Response::new(pb::StatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready,
            message: if ready {
                String::new()
            } else {
                format!("the agent is starting: {starting}")
            },
            impaired: published.impaired.clone(),
        }))
    }

    async fn list_owners(
        &self,
        request: Request<pb::ListOwnersRequest>,
    ) -> Result<Response<pb::ListOwnersReply>, Status> {
        let network = request.into_inner().network_name;
        let leases = self.leases(network).await?;
        Ok(Response::new(pb::ListOwnersReply {
            owners: owners(&leases),
        }))
    }

    async fn gc(&self, request: Request<pb::GcRequest>) -> Result<Response<pb::GcReply>, Status> {
        let request = request.into_inner();
        if request.network_name.is_empty() {
            return Err(Status::invalid_argument(
                "network_name is empty: GC frees the owners of one network",
            ));
        }
        let valid: BTreeSet<(String, String)> = request
            .valid
            .into_iter()
            .map(|a| (a.container_id, a.if_name))
            .collect();
        let leases = self.leases(request.network_name).await?;
        let stale: BTreeMap<PodKey, vpcnet_ipam::PodMeta> = leases
            .into_iter()
            .filter(|l| !valid.contains(&(l.key.container_id.clone(), l.key.if_name.clone())))
            .map(|l| (l.key, l.meta))
            .collect();
        let mut reply = pb::GcReply::default();
        for (key, meta) in stale {
            match self.core.del(key.clone(), meta).await.map_err(status::gone)? {
                Answer::Released(leases) => reply.released.extend(owners(&leases)),
                // A DEL came between: what was wanted.
                Answer::UnknownPod => {}
                Answer::Refused(refusal) => reply.failures.push(format!("{key}: {}", refusal.message)),
                Answer::Assigned(_) => reply
                    .failures
                    .push(format!("{key}: the pool answered a DEL as an ADD")),
            }
        }
        Ok(Response::new(reply))
    }
}

impl Services {
    /// What the sandboxes of a network hold; of all networks where none is named.
    async fn leases(&self, network: String) -> Result<Vec<Lease>, Status> {
        let look = self.core.look(move |view| {
            let pool = view.pool.ok_or_else(|| view.starting.to_owned())?;
            Ok(pool
                .owners()
                .filter(|l| network.is_empty() || l.key.network == network)
                .collect())
        });
        look.await
            .map_err(status::gone)?
            .map_err(|why: String| Status::unavailable(format!("the agent is starting: {why}")))
    }
}

/// Leases by sandbox.
fn owners(leases: &[Lease]) -> Vec<pb::Owner> {
    let mut owners: BTreeMap<&PodKey, pb::Owner> = BTreeMap::new();
    for lease in leases {
        let owner = owners.entry(&lease.key).or_insert_with(|| pb::Owner {
            network_name: lease.key.network.clone(),
            container_id: lease.key.container_id.clone(),
            if_name: lease.key.if_name.clone(),
            pod_namespace: lease.meta.namespace.clone(),
            pod_name: lease.meta.name.clone(),
            addresses: Vec::new(),
        });
        owner.addresses.push(pb::Address {
            address: lease.address.to_string(),
            route_table_id: i32::try_from(lease.route_table).unwrap_or(i32::MAX),
        });
    }
    owners.into_values().collect()
}
