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

/// The pool was going to put an interface where somebody else's is. It finds another place, takes no address from the
/// stranger, and leaves nothing behind.
#[test]
fn an_interface_that_somebody_attached_by_hand_is_passed_by() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &["WARM_IP_TARGET=1", "MINIMUM_IP_TARGET=9", "IP_COOLDOWN_PERIOD=1"],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(9, READY);
    let stranger = attach_by_hand(&lab, &node, 1);

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

/// Makes an interface in the node's subnet and attaches it, as an operator would; returns its id.
fn attach_by_hand(lab: &Lab, node: &Node<'_>, device: u32) -> String {
    let status: Value = node.status();
    let subnet = status["interfaces"][0]["subnet"].as_str().unwrap();
    let made = lab.run(&["ec2", "CreateNetworkInterface", &format!("SubnetId={subnet}")]);
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
