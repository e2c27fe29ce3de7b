//! The direct socket as a plugin meets it, and as somebody does who is no plugin.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use common::{Agent, SOON, add, del, until};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use vpcnet_rpc::UNKNOWN_POD;
use vpcnet_rpc::direct::{
    CallError, Connection, HEAD, LONGEST, decode_reply, encode_request, length, socket_beside,
};
use vpcnet_rpc::health::HealthCheckRequest;
use vpcnet_rpc::health::health_check_response::ServingStatus;
use vpcnet_rpc::method::{self, Method};
use vpcnet_rpc::node::{Attachment, GcRequest, ListOwnersRequest, StatusRequest};
use vpcnet_rpc::pb::AddNetworkRequest;

fn socket(agent: &Agent) -> PathBuf {
    socket_beside(&agent.socket)
}

/// One call, on a thread as the client blocks.
async fn ask<Q, A>(agent: &Agent, method: &'static Method<Q, A>, request: Q) -> Result<A, (Code, String)>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let socket = socket(agent);
    let call = move || {
        Connection::open(&socket, SOON)
            .unwrap()
            .call(method, &request, SOON)
    };
    match tokio::task::spawn_blocking(call).await.unwrap() {
        Ok(reply) => Ok(reply),
        Err(CallError::Status { code, message }) => Err((code, message)),
        Err(other) => panic!("{other}"),
    }
}

/// Sends these bytes and gives the answer; none when the connection was closed without one.
async fn raw(agent: &Agent, bytes: Vec<u8>) -> Option<(u32, String)> {
    let socket = socket(agent);
    let talk = move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).ok()?;
        let mut rest = vec![0; length(head).unwrap()];
        stream.read_exact(&mut rest).unwrap();
        let reply = decode_reply(&rest).unwrap();
        Some((reply.code, reply.text.to_owned()))
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test]
async fn an_add_gets_an_address_twice_the_same_and_a_del_takes_it_back_once() {
    let agent = Agent::with_pool(3, false);
    let reply = ask(&agent, &method::ADD_NETWORK, add(1)).await.unwrap();
    assert!(reply.success && reply.network_policy_mode == "standard");
    let again = ask(&agent, &method::ADD_NETWORK, add(1)).await.unwrap();
    assert_eq!(again, reply);
    // The pool is the one behind gRPC.
    let by_grpc = agent.cni().await.add_network(add(1)).await.unwrap().into_inner();
    assert_eq!(by_grpc, reply);
    let back = ask(&agent, &method::DEL_NETWORK, del(1)).await.unwrap();
    assert!(back.success && back.ip_allocations == reply.ip_allocations);
    let refused = ask(&agent, &method::DEL_NETWORK, del(1)).await.unwrap_err();
    assert_eq!(refused, (Code::Unknown, UNKNOWN_POD.to_owned()));
}

#[tokio::test]
async fn a_refusal_has_the_words_and_the_code_it_has_by_grpc() {
    let agent = Agent::with_pool(0, false);
    let (code, text) = ask(&agent, &method::ADD_NETWORK, add(1)).await.unwrap_err();
    let by_grpc = agent.cni().await.add_network(add(1)).await.unwrap_err();
    assert_eq!(
        (code, text.as_str()),
        (Code::ResourceExhausted, by_grpc.message())
    );
}

#[tokio::test]
async fn health_status_owners_and_gc_are_served() {
    let agent = Agent::with_pool(2, false);
    let health = ask(&agent, &method::HEALTH_CHECK, HealthCheckRequest::default()).await;
    assert_eq!(health.unwrap().status(), ServingStatus::Serving);
    let other = HealthCheckRequest {
        service: "other".into(),
    };
    let refused = ask(&agent, &method::HEALTH_CHECK, other).await.unwrap_err();
    assert_eq!(refused.0, Code::NotFound);
    assert!(
        ask(&agent, &method::STATUS, StatusRequest {})
            .await
            .unwrap()
            .ready
    );
    for n in 1..=2 {
        ask(&agent, &method::ADD_NETWORK, add(n)).await.unwrap();
    }
    let valid = vec![Attachment {
        container_id: "sandbox-2".into(),
        if_name: "eth0".into(),
    }];
    let request = GcRequest {
        network_name: "aws-cni".into(),
        valid,
    };
    let freed = ask(&agent, &method::GC, request).await.unwrap().released;
    assert_eq!(freed[0].container_id, "sandbox-1");
    let left = ask(&agent, &method::LIST_OWNERS, ListOwnersRequest::default())
        .await
        .unwrap();
    assert_eq!(left.owners.len(), 1);
}

#[tokio::test]
async fn what_is_not_served_is_unimplemented() {
    let agent = Agent::with_pool(1, false);
    for name in ["/rpc.CNIBackend/Other", "/grpc.health.v1.Health/Watch", ""] {
        let (code, text) = raw(&agent, encode_request(name, &()).unwrap()).await.unwrap();
        assert_eq!(code, Code::Unimplemented as u32, "{text}");
        assert!(text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn what_is_too_long_or_makes_no_sense_is_refused_and_the_agent_lives_on() {
    let agent = Agent::with_pool(1, false);
    let huge = AddNetworkRequest {
        k8s_pod_name: "x".repeat(100_000),
        ..add(1)
    };
    let refused = ask(&agent, &method::ADD_NETWORK, huge).await.unwrap_err();
    assert_eq!(refused.0, Code::OutOfRange, "{refused:?}");
    // A GC may be long.
    let attachment = Attachment {
        container_id: "x".repeat(100),
        if_name: "eth0".into(),
    };
    let long = GcRequest {
        network_name: "aws-cni".into(),
        valid: vec![attachment; 2_000],
    };
    ask(&agent, &method::GC, long).await.unwrap();
    for announced in [LONGEST as u32, u32::MAX] {
        let (code, _) = raw(&agent, announced.to_be_bytes().to_vec()).await.unwrap();
        assert_eq!(code, Code::OutOfRange as u32);
    }
    let mut garbage = vec![0, 0, 0, 28, 26];
    garbage.extend_from_slice(b"/rpc.CNIBackend/AddNetwork\xff");
    assert_eq!(raw(&agent, garbage).await.unwrap().0, Code::Internal as u32);
    assert_eq!(
        raw(&agent, vec![0, 0, 0, 1, 200]).await.unwrap().0,
        Code::Internal as u32
    );
    let mut two = encode_request(method::STATUS.path(), &StatusRequest {}).unwrap();
    two.extend(two.clone());
    assert_eq!(raw(&agent, two).await, None, "one call a connection");
    assert!(ask(&agent, &method::ADD_NETWORK, add(1)).await.is_ok());
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_wait() {
    let agent = Agent::with_pool(0, true);
    let mut plugin = UnixStream::connect(socket(&agent)).unwrap();
    plugin
        .write_all(&encode_request(method::ADD_NETWORK.path(), &add(1)).unwrap())
        .unwrap();
    until("the pod waits", async || agent.waiting().await == 1).await;
    drop(plugin);
    until("nobody waits", async || agent.waiting().await == 0).await;
    let pods = agent
        .core
        .look(|v| v.pool.unwrap().view(v.now).waiting.len())
        .await
        .unwrap();
    assert_eq!(pods, 0);
}

// The clock stands still and jumps to the next timer when there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn who_sends_nothing_or_half_a_request_is_dropped_while_others_are_served() {
    let agent = Agent::with_pool(1, false);
    let whole = encode_request(method::STATUS.path(), &StatusRequest {}).unwrap();
    let mut silent = Vec::new();
    for sent in [0, 2, HEAD, whole.len() - 1] {
        let mut stream = tokio::net::UnixStream::connect(socket(&agent)).await.unwrap();
        stream.write_all(&whole[..sent]).await.unwrap();
        silent.push(stream);
    }
    assert!(
        ask(&agent, &method::STATUS, StatusRequest {})
            .await
            .unwrap()
            .ready
    );
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_stop_lets_the_call_under_way_finish_and_waits_for_no_other() {
    let agent = Agent::with_pool(0, true);
    let mut idle = UnixStream::connect(socket(&agent)).unwrap();
    let mut plugin = tokio::net::UnixStream::connect(socket(&agent)).await.unwrap();
    plugin
        .write_all(&encode_request(method::ADD_NETWORK.path(), &add(1)).unwrap())
        .await
        .unwrap();
    until("the pod waits", async || agent.waiting().await == 1).await;
    agent.stop();
    until("nobody listens", async || {
        UnixStream::connect(socket(&agent)).is_err()
    })
    .await;
    assert!(!agent.server.is_finished());
    // The DEL of the same sandbox ends the ADD; it comes by the core, as new connections are no longer taken.
    let key = vpcnet_ipam::PodKey {
        network: "aws-cni".into(),
        container_id: "sandbox-1".into(),
        if_name: "eth0".into(),
    };
    agent
        .core
        .del(key, vpcnet_ipam::PodMeta::default())
        .await
        .unwrap();
    let mut answer = Vec::new();
    plugin.read_to_end(&mut answer).await.unwrap();
    let reply = decode_reply(&answer[HEAD..]).unwrap();
    assert_eq!(reply.code, Code::Aborted as u32, "{}", reply.text);
    tokio::time::timeout(SOON, agent.server).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
}
