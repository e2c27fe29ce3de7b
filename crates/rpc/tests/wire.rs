//! The wire contract, message by message: bytes written by hand from the original's field table, so that a wrong
//! number or type in the proto file cannot hide in a round trip through the same code.
//!
//! A field is `number << 3 | wire type` (0 varint, 2 length-delimited), then its value. Each string here is two
//! bytes, different in every field, so that two swapped numbers show.

#![allow(clippy::unwrap_used)]

use prost::Message;
use vpcnet_rpc::{health, node, pb};

/// `number`, a string of two bytes.
fn text(number: u8, value: &str) -> Vec<u8> {
    assert!(
        number < 16 && value.len() == 2,
        "keeps tag and length one byte each"
    );
    let mut bytes = vec![number << 3 | 2, 2];
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

fn varint(number: u8, value: &[u8]) -> Vec<u8> {
    assert!(number < 16);
    let mut bytes = vec![number << 3];
    bytes.extend_from_slice(value);
    bytes
}

fn nested(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, u8::try_from(value.len()).unwrap()];
    bytes.extend_from_slice(value);
    bytes
}

#[track_caller]
fn same<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, golden: &[Vec<u8>]) {
    let golden = golden.concat();
    assert_eq!(message.encode_to_vec(), golden, "encoded");
    assert_eq!(&M::decode(golden.as_slice()).unwrap(), message, "decoded");
}

/// -1 as an int32 is ten bytes on the wire (sign-extended), unlike an sint32.
const MINUS_ONE: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
/// 254, the main table: low seven bits with the continuation bit, then 1.
const MAIN: [u8; 2] = [0xfe, 0x01];

#[test]
fn a_whole_request_as_plain_bytes() {
    // One message spelled out without the helpers above, which the others rest on.
    let request = pb::AddNetworkRequest {
        k8s_pod_name: "web-0".into(),
        requires_multi_nic_attachment: true,
        ..Default::default()
    };
    assert_eq!(
        request.encode_to_vec(),
        [0x0a, 0x05, b'w', b'e', b'b', b'-', b'0', 0x48, 0x01]
    );
}

#[test]
fn add_network_request() {
    same(
        &pb::AddNetworkRequest {
            k8s_pod_name: "f1".into(),
            k8s_pod_namespace: "f2".into(),
            k8s_pod_infra_container_id: "f3".into(),
            netns: "f4".into(),
            if_name: "f5".into(),
            network_name: "f6".into(),
            container_id: "f7".into(),
            client_version: "f8".into(),
            requires_multi_nic_attachment: true,
        },
        &[
            text(1, "f1"),
            text(2, "f2"),
            text(3, "f3"),
            text(4, "f4"),
            text(5, "f5"),
            text(6, "f6"),
            text(7, "f7"),
            text(8, "f8"),
            varint(9, &[1]),
        ],
    );
}

#[test]
fn ip_allocation_metadata() {
    same(
        &pb::IpAllocationMetadata {
            ipv4_addr: "f1".into(),
            ipv6_addr: "f2".into(),
            device_number: -1,
            route_table_id: 254,
        },
        &[
            text(1, "f1"),
            text(2, "f2"),
            varint(3, &MINUS_ONE),
            varint(4, &MAIN),
        ],
    );
}

#[test]
fn add_network_reply() {
    same(
        &pb::AddNetworkReply {
            success: true,
            ip_allocations: vec![
                pb::IpAllocationMetadata {
                    ipv4_addr: "a1".into(),
                    ..Default::default()
                },
                pb::IpAllocationMetadata {
                    ipv6_addr: "a2".into(),
                    ..Default::default()
                },
            ],
            use_external_snat: true,
            vpc_v4_cidrs: vec!["c1".into(), "c2".into()],
            pod_vlan_id: 7,
            pod_eni_mac: "f8".into(),
            pod_eni_subnet_gw: "f9".into(),
            parent_if_index: 10,
            vpc_v6_cidrs: vec!["c3".into()],
            network_policy_mode: "fd".into(),
        },
        &[
            varint(1, &[1]),
            nested(2, &text(1, "a1")),
            nested(2, &text(2, "a2")),
            varint(5, &[1]),
            text(6, "c1"),
            text(6, "c2"),
            varint(7, &[7]),
            text(8, "f8"),
            text(9, "f9"),
            varint(10, &[10]),
            text(12, "c3"),
            text(13, "fd"),
        ],
    );
}

#[test]
fn del_network_request() {
    same(
        &pb::DelNetworkRequest {
            k8s_pod_name: "f1".into(),
            k8s_pod_namespace: "f2".into(),
            k8s_pod_infra_container_id: "f3".into(),
            reason: "f5".into(),
            if_name: "f6".into(),
            network_name: "f7".into(),
            container_id: "f8".into(),
            client_version: "f9".into(),
            k8s_pod_uid: "fa".into(),
        },
        &[
            text(1, "f1"),
            text(2, "f2"),
            text(3, "f3"),
            text(5, "f5"),
            text(6, "f6"),
            text(7, "f7"),
            text(8, "f8"),
            text(9, "f9"),
            text(10, "fa"),
        ],
    );
}

#[test]
fn del_network_reply() {
    same(
        &pb::DelNetworkReply {
            success: true,
            ip_allocations: vec![pb::IpAllocationMetadata {
                device_number: 3,
                ..Default::default()
            }],
            pod_vlan_id: 4,
            network_policy_mode: "f6".into(),
        },
        &[
            varint(1, &[1]),
            nested(2, &varint(3, &[3])),
            varint(4, &[4]),
            text(6, "f6"),
        ],
    );
}

#[test]
fn network_policy_messages() {
    same(
        &pb::EnforceNpRequest {
            k8s_pod_name: "f1".into(),
            k8s_pod_namespace: "f2".into(),
            network_policy_mode: "f3".into(),
            interface_count: 4,
        },
        &[text(1, "f1"), text(2, "f2"), text(3, "f3"), varint(4, &[4])],
    );
    same(&pb::EnforceNpReply { success: true }, &[varint(1, &[1])]);
    same(
        &pb::DeleteNpRequest {
            k8s_pod_name: "f1".into(),
            k8s_pod_namespace: "f2".into(),
        },
        &[text(1, "f1"), text(2, "f2")],
    );
    same(&pb::DeleteNpReply { success: true }, &[varint(1, &[1])]);
}

#[test]
fn network_policy_agent_config() {
    same(
        &pb::NetworkPolicyAgentConfigReply {
            network_policy_mode: "f1".into(),
            multi_nic_enabled: true,
            node_ipv4: "f3".into(),
            node_ipv6: "f4".into(),
            instance_id: "f5".into(),
            region: "f6".into(),
        },
        &[
            text(1, "f1"),
            varint(2, &[1]),
            text(3, "f3"),
            text(4, "f4"),
            text(5, "f5"),
            text(6, "f6"),
        ],
    );
}

#[test]
fn health_messages() {
    same(
        &health::HealthCheckRequest { service: "s1".into() },
        &[text(1, "s1")],
    );
    same(&health::HealthCheckResponse { status: 2 }, &[varint(1, &[2])]);
    assert_eq!(health::health_check_response::ServingStatus::Serving as i32, 1);
    assert_eq!(health::health_check_response::ServingStatus::NotServing as i32, 2);
}

#[test]
fn node_agent_messages() {
    same(
        &node::StatusReply {
            version: "f1".into(),
            ready: true,
            message: "f3".into(),
            impaired: "f4".into(),
        },
        &[text(1, "f1"), varint(2, &[1]), text(3, "f3"), text(4, "f4")],
    );
    let owner = node::Owner {
        network_name: "f1".into(),
        container_id: "f2".into(),
        if_name: "f3".into(),
        pod_namespace: "f4".into(),
        pod_name: "f5".into(),
        addresses: vec![node::Address {
            address: "a1".into(),
            route_table_id: 2,
        }],
    };
    let owner_bytes = [
        text(1, "f1"),
        text(2, "f2"),
        text(3, "f3"),
        text(4, "f4"),
        text(5, "f5"),
        nested(6, &[text(1, "a1"), varint(2, &[2])].concat()),
    ]
    .concat();
    same(
        &node::ListOwnersRequest {
            network_name: "f1".into(),
        },
        &[text(1, "f1")],
    );
    same(
        &node::ListOwnersReply {
            owners: vec![owner.clone()],
        },
        &[nested(1, &owner_bytes)],
    );
    same(
        &node::GcRequest {
            network_name: "f1".into(),
            valid: vec![node::Attachment {
                container_id: "v1".into(),
                if_name: "v2".into(),
            }],
        },
        &[text(1, "f1"), nested(2, &[text(1, "v1"), text(2, "v2")].concat())],
    );
    same(
        &node::GcReply {
            released: vec![owner],
            failures: vec!["e1".into()],
        },
        &[nested(1, &owner_bytes), text(2, "e1")],
    );
}

#[test]
fn fields_of_another_release_are_skipped() {
    // Field 4 of AddNetworkReply (a string, say) and field 15 are unknown to us: the rest is read all the same.
    let bytes = [varint(1, &[1]), text(4, "xx"), varint(7, &[7]), text(15, "yy")].concat();
    let reply = pb::AddNetworkReply::decode(bytes.as_slice()).unwrap();
    assert!(reply.success);
    assert_eq!(reply.pod_vlan_id, 7);
}
