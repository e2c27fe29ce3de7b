//! The gRPC services as a plugin meets them: over a unix socket, with a client that is not ours to trust.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Agent, SOON, add, del, started, started_on, until};
use tonic::Code;
use vpcnet_rpc::health::HealthCheckRequest;
use vpcnet_rpc::health::health_check_response::ServingStatus;
use vpcnet_rpc::health::health_client::HealthClient;
use vpcnet_rpc::node::node_agent_client::NodeAgentClient;
use vpcnet_rpc::node::{Attachment, GcRequest, ListOwnersRequest, StatusRequest};
use vpcnet_rpc::pb::AddNetworkRequest;
use vpcnet_rpc::pb::cni_backend_client::CniBackendClient;
use vpcnet_rpc::pb::config_server_backend_client::ConfigServerBackendClient;
use vpcnet_rpc::{Connection, UNKNOWN_POD};

#[tokio::test]
async fn an_add_gets_an_address_twice_the_same_and_a_del_takes_it_back_once() {
    let agent = Agent::with_pool(3, false);
    let mut cni = agent.cni().await;
    let reply = cni.add_network(add(1)).await.unwrap().into_inner();
    assert!(reply.success && !reply.use_external_snat && reply.pod_vlan_id == 0);
    assert_eq!(reply.vpc_v4_cidrs, ["10.0.0.0/16"]);
    assert_eq!(reply.network_policy_mode, "standard");
    let given = reply.ip_allocations[0].clone();
    assert_eq!(
        (
            given.route_table_id,
            given.device_number,
            given.ipv6_addr.as_str()
        ),
        (254, 0, "")
    );
    let again = cni.add_network(add(1)).await.unwrap().into_inner();
    assert_eq!(again.ip_allocations[0], given);
    let back = cni.del_network(del(1)).await.unwrap().into_inner();
    assert!(back.success && back.ip_allocations == [given]);
    let status = cni.del_network(del(1)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, UNKNOWN_POD));
}

#[tokio::test]
async fn a_dry_pool_is_refused_with_the_reason() {
    let agent = Agent::with_pool(1, false);
    let mut cni = agent.cni().await;
    cni.add_network(add(1)).await.unwrap();
    let status = cni.add_network(add(2)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("provisioning"), "{}", status.message());
}

#[tokio::test]
async fn requests_that_could_never_be_given_back_are_refused() {
    let agent = Agent::with_pool(1, false);
    let mut cni = agent.cni().await;
    for broken in [
        AddNetworkRequest {
            container_id: String::new(),
            ..add(1)
        },
        AddNetworkRequest {
            network_name: String::new(),
            ..add(1)
        },
        AddNetworkRequest {
            if_name: String::new(),
            ..add(1)
        },
        AddNetworkRequest {
            requires_multi_nic_attachment: true,
            ..add(1)
        },
    ] {
        assert_eq!(
            cni.add_network(broken).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    assert!(
        cni.add_network(add(1)).await.is_ok(),
        "the one address was not lost to them"
    );
}

#[tokio::test]
async fn a_pod_of_every_card_gets_an_address_of_each_where_that_is_switched_on() {
    let agent = Agent::serve();
    agent.core.start(started_on(2, 2, false));
    let mut cni = agent.cni().await;
    let every = |n| AddNetworkRequest {
        requires_multi_nic_attachment: true,
        ..add(n)
    };
    let status = cni.add_network(every(1)).await.unwrap_err();
    assert!(
        status.message().contains("ENABLE_MULTI_NIC"),
        "{}",
        status.message()
    );

    agent.publisher.change(|p| p.multi_nic = true);
    let reply = cni.add_network(every(1)).await.unwrap().into_inner();
    let given: Vec<(&str, i32, i32)> = reply
        .ip_allocations
        .iter()
        .map(|a| (a.ipv4_addr.as_str(), a.device_number, a.route_table_id))
        .collect();
    assert_eq!(given, [("10.0.1.0", 0, 254), ("10.0.2.0", 0, 10_100)]);
    let reply = cni.add_network(add(2)).await.unwrap().into_inner();
    assert_eq!(reply.ip_allocations.len(), 1, "who does not ask for it gets one");
    let reply = cni.del_network(del(1)).await.unwrap().into_inner();
    assert_eq!(reply.ip_allocations.len(), 2);
}

#[tokio::test]
async fn an_oversized_request_is_refused_and_the_agent_lives_on() {
    let agent = Agent::with_pool(1, false);
    let mut cni = agent.cni().await;
    let huge = AddNetworkRequest {
        k8s_pod_name: "x".repeat(100_000),
        ..add(1)
    };
    assert_eq!(cni.add_network(huge).await.unwrap_err().code(), Code::OutOfRange);
    assert!(cni.add_network(add(1)).await.is_ok());
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_wait() {
    let agent = Agent::with_pool(0, true);
    // On a thread of its own, as a plugin is a process of its own: when it ends, its connection does.
    let socket = agent.socket.clone();
    let (hang_up, told) = tokio::sync::oneshot::channel::<()>();
    let plugin = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let mut cni = CniBackendClient::new(Connection::unix(&socket, SOON).await.unwrap());
            let _ = cni.add_network(add(1)).await;
        });
        // Ends, too, when the test fails and drops its end.
        let _ = runtime.block_on(told);
    });
    until("the pod waits", async || agent.waiting().await == 1).await;
    hang_up.send(()).unwrap();
    until("nobody waits", async || agent.waiting().await == 0).await;
    plugin.join().unwrap();
    let pods = agent
        .core
        .look(|v| v.pool.unwrap().view(v.now).waiting.len())
        .await
        .unwrap();
    assert_eq!(pods, 0);
}

#[tokio::test]
async fn health_follows_the_pool_and_names_are_checked() {
    let agent = Agent::serve();
    let mut health = HealthClient::new(agent.connect().await);
    let ask = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in ["", "grpc.health.v1.aws-node"] {
        let status = health.check(ask(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::NotServing);
    }
    assert_eq!(
        health.check(ask("other")).await.unwrap_err().code(),
        Code::NotFound
    );
    let mut watched = health.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(
        watched.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    agent.publisher.change(|p| p.impaired = "something".into());
    agent.publisher.change(|p| p.ready = true);
    let next = tokio::time::timeout(SOON, watched.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(
        next.status(),
        ServingStatus::Serving,
        "only changes of the status are told"
    );
    assert_eq!(
        health.check(ask("")).await.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
}

#[tokio::test]
async fn status_says_why_the_agent_is_not_ready() {
    let agent = Agent::serve();
    agent.core.starting("IMDS does not answer".into());
    let mut node = NodeAgentClient::new(agent.connect().await);
    let status = node.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(
        !status.ready && status.message.contains("IMDS does not answer"),
        "{}",
        status.message
    );
    assert_eq!(
        node.list_owners(ListOwnersRequest::default())
            .await
            .unwrap_err()
            .code(),
        Code::Unavailable
    );
    agent.core.start(started(0, false));
    agent.publisher.change(|p| p.ready = true);
    let status = node.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(
        status.ready && status.message.is_empty(),
        "a dry pool is ready: {}",
        status.message
    );
}

#[tokio::test]
async fn gc_frees_what_the_runtime_does_not_list_in_one_network_only() {
    let agent = Agent::with_pool(4, false);
    let mut cni = agent.cni().await;
    for n in 1..=3 {
        cni.add_network(add(n)).await.unwrap();
    }
    cni.add_network(AddNetworkRequest {
        network_name: "other".into(),
        ..add(9)
    })
    .await
    .unwrap();
    let mut node = NodeAgentClient::new(agent.connect().await);
    let valid = vec![Attachment {
        container_id: "sandbox-2".into(),
        if_name: "eth0".into(),
    }];
    let nameless = GcRequest {
        network_name: String::new(),
        valid: valid.clone(),
    };
    assert_eq!(node.gc(nameless).await.unwrap_err().code(), Code::InvalidArgument);
    let reply = node
        .gc(GcRequest {
            network_name: "aws-cni".into(),
            valid,
        })
        .await
        .unwrap()
        .into_inner();
    let freed: Vec<&str> = reply.released.iter().map(|o| o.container_id.as_str()).collect();
    assert_eq!(freed, ["sandbox-1", "sandbox-3"]);
    assert!(reply.failures.is_empty() && reply.released.iter().all(|o| o.addresses.len() == 1));
    let left = node
        .list_owners(ListOwnersRequest::default())
        .await
        .unwrap()
        .into_inner()
        .owners;
    let left: Vec<&str> = left.iter().map(|o| o.container_id.as_str()).collect();
    assert_eq!(left, ["sandbox-2", "sandbox-9"]);
}

#[tokio::test]
async fn the_policy_agent_is_told_mode_and_node() {
    let agent = Agent::with_pool(0, false);
    let mut config = ConfigServerBackendClient::new(agent.connect().await);
    let reply = config.get_network_policy_configs(()).await.unwrap().into_inner();
    assert_eq!(reply.network_policy_mode, "standard");
    assert_eq!(
        (
            reply.node_ipv4.as_str(),
            reply.instance_id.as_str(),
            reply.region.as_str()
        ),
        ("10.0.0.10", "i-1", "eu-west-1")
    );
}

#[tokio::test]
async fn a_stop_lets_the_call_under_way_finish() {
    let agent = Agent::with_pool(0, true);
    let mut cni = agent.cni().await;
    let waiting = tokio::spawn(async move { cni.add_network(add(1)).await });
    until("the pod waits", async || agent.waiting().await == 1).await;
    agent.stop();
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
    let status = tokio::time::timeout(SOON, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    tokio::time::timeout(SOON, agent.server).await.unwrap().unwrap();
}
