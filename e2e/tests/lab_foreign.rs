//! Interfaces that somebody else attaches to the node.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use vpcnet_e2e::{Lab, Node, Options, wait_for};

const READY: Duration = Duration::from_secs(60);

/// The pool is going to put an interface where somebody else's is, which it cannot know yet. It finds another place, takes no
/// address of what is tagged as not to be managed, and leaves nothing behind.
#[test]
fn an_interface_that_somebody_attached_by_hand_is_passed_by() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large", "--imds-lag", "600000"],
        env: &["WARM_IP_TARGET=1", "MINIMUM_IP_TARGET=9", "IP_COOLDOWN_PERIOD=1"],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(9, READY);
    let stranger = attach_by_hand(&lab, &node, 1, "no_manage");

    let pods: BTreeSet<String> = (0..18).map(|n| node.must_add(&format!("pod-{n}"))).collect();

    assert_eq!(pods.len(), 18, "each address once");
    let status = node.status();
    let interfaces = status["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 3, "{status}");
    let theirs = interfaces.iter().find(|i| i["eni"] == stranger.as_str()).unwrap();
    assert_eq!(theirs["device"], 1, "{theirs}");
    let addresses = theirs["addresses"].as_array().unwrap();
    assert!(
        addresses
            .iter()
            .all(|a| !pods.contains(a.as_str().unwrap().trim_end_matches("/32"))),
        "{theirs}"
    );
    wait_for("the interface that found no place is deleted", READY, || {
        (!available(&lab).contains("<networkInterfaceId>")).then_some(())
    });
}

/// Policies may let a node touch only what has its cluster's tags; the primary interface and what others attach come without.
#[test]
fn interfaces_that_lack_tags_get_them_when_it_is_seen_or_when_ec2_refuses_a_call() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--no-agent"],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    let status = node.status();
    let primary = status["interfaces"][0]["eni"].as_str().unwrap().to_owned();
    let instance = status["instance"].as_str().unwrap().to_owned();
    lab.run(&[
        "fault",
        "add",
        "AssignPrivateIpAddresses",
        "--error",
        "UnauthorizedOperation",
        "--times",
        "1",
    ]);
    let env = ["WARM_IP_TARGET=2", "CLUSTER_NAME=blue"];
    node.start_agent(&env);
    node.wait_for_pool(2, READY);
    assert_eq!(
        node.ec2_calls(),
        [
            "DescribeSubnets",
            "AssignPrivateIpAddresses",
            "DescribeNetworkInterfaces",
            "CreateTags",
            "AssignPrivateIpAddresses"
        ]
    );
    let tagged = || {
        lab.run(&[
            "ec2",
            "DescribeNetworkInterfaces",
            "Filter.1.Name=tag:cluster.k8s.amazonaws.com/name",
            "Filter.1.Value.1=blue",
            "Filter.2.Name=tag:node.k8s.amazonaws.com/instance_id",
            &format!("Filter.2.Value.1={instance}"),
        ])
    };
    assert!(tagged().contains(&primary));

    let theirs = attach_by_hand(&lab, &node, 1, "by-hand");
    wait_for("what somebody attached is found and tagged", READY, || {
        tagged().contains(&theirs).then_some(())
    });
}

/// Makes an interface in the node's subnet, with a tag that is true, and attaches it, as an operator would; returns its id.
fn attach_by_hand(lab: &Lab, node: &Node<'_>, device: u32, tag: &str) -> String {
    let status: Value = node.status();
    let subnet = status["interfaces"][0]["subnet"].as_str().unwrap();
    let made = lab.run(&[
        "ec2",
        "CreateNetworkInterface",
        &format!("SubnetId={subnet}"),
        "TagSpecification.1.ResourceType=network-interface",
        &format!("TagSpecification.1.Tag.1.Key=node.k8s.amazonaws.com/{tag}"),
        "TagSpecification.1.Tag.1.Value=true",
    ]);
    let id = made
        .split_once("<networkInterfaceId>")
        .and_then(|(_, rest)| rest.split_once('<'))
        .map(|(id, _)| id.to_owned())
        .unwrap_or_else(|| panic!("no id in {made}"));
    let instance = status["instance"].as_str().unwrap();
    lab.run(&[
        "ec2",
        "AttachNetworkInterface",
        &format!("NetworkInterfaceId={id}"),
        &format!("InstanceId={instance}"),
        &format!("DeviceIndex={device}"),
    ]);
    id
}

fn available(lab: &Lab) -> String {
    lab.run(&[
        "ec2",
        "DescribeNetworkInterfaces",
        "Filter.1.Name=status",
        "Filter.1.Value.1=available",
    ])
}
