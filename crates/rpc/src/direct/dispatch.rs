//! From a method's name to the service that has it. The services are those that tonic serves: there is one
//! implementation of each call.

use prost::Message;
use tonic::{Request, Response, Status};

use super::Request as Frame;
use crate::health::health_server::Health;
use crate::method::{ADD_NETWORK, DEL_NETWORK, GC, HEALTH_CHECK, LIST_OWNERS, Method, STATUS};
use crate::node::node_agent_server::NodeAgent;
use crate::pb::cni_backend_server::CniBackend;

/// What is served on a direct socket.
#[derive(Debug, Clone)]
pub struct Backends<C, N, H> {
    /// ADD and DEL.
    pub cni: C,
    /// STATUS and GC.
    pub node: N,
    /// Health.
    pub health: H,
}

/// Answers one request with the encoded reply. Dropping the future is what a caller that goes away does.
///
/// # Errors
/// The service's refusal; UNIMPLEMENTED for a method that is not served here (streams are not), INTERNAL for a message that
/// cannot be decoded, as gRPC has it.
pub async fn dispatch<C, N, H>(backends: &Backends<C, N, H>, frame: Frame<'_>) -> Result<Vec<u8>, Status>
where
    C: CniBackend,
    N: NodeAgent,
    H: Health,
{
    let Backends { cni, node, health } = backends;
    let method = frame.method;
    // One arm a method: each takes and gives its own type.
    if method == ADD_NETWORK.path() {
        encode(&ADD_NETWORK, cni.add_network(decode(&ADD_NETWORK, frame)?).await)
    } else if method == DEL_NETWORK.path() {
        encode(&DEL_NETWORK, cni.del_network(decode(&DEL_NETWORK, frame)?).await)
    } else if method == HEALTH_CHECK.path() {
        encode(&HEALTH_CHECK, health.check(decode(&HEALTH_CHECK, frame)?).await)
    } else if method == STATUS.path() {
        encode(&STATUS, node.status(decode(&STATUS, frame)?).await)
    } else if method == LIST_OWNERS.path() {
        encode(&LIST_OWNERS, node.list_owners(decode(&LIST_OWNERS, frame)?).await)
    } else if method == GC.path() {
        encode(&GC, node.gc(decode(&GC, frame)?).await)
    } else {
        Err(Status::unimplemented(format!(
            "no method {method} on this socket"
        )))
    }
}

fn decode<Q: Message + Default, A>(_: &Method<Q, A>, frame: Frame<'_>) -> Result<Request<Q>, Status> {
    Q::decode(frame.message)
        .map(Request::new)
        .map_err(|e| Status::internal(format!("the request cannot be decoded: {e}")))
}

fn encode<Q, A: Message>(_: &Method<Q, A>, reply: Result<Response<A>, Status>) -> Result<Vec<u8>, Status> {
    reply.map(|reply| reply.into_inner().encode_to_vec())
}
