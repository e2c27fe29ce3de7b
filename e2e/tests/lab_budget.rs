//! What the agent asks of EC2, by occasion: the table "EC2 calls" of SPECIFICATION.md.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeMap;
use std::time::Duration;

use vpcnet_e2e::{Lab, Node, Options, wait_for};

const DEADLINE: Duration = Duration::from_secs(60);

/// Calls after the first `before`, by action.
fn calls_after(node: Node<'_>, before: usize) -> BTreeMap<String, usize> {
    let mut by_action = BTreeMap::new();
    for action in node.ec2_calls().into_iter().skip(before) {
        *by_action.entry(action).or_default() += 1;
    }
    by_action
}

fn expected(actions: &[(&str, usize)]) -> BTreeMap<String, usize> {
    actions.iter().map(|(a, n)| ((*a).to_owned(), *n)).collect()
}

/// Waits until no call follows another any more, and returns how many there were.
fn settled(lab: &Lab, node: Node<'_>) -> usize {
    let uptime = || {
        lab.json(&["status", "--json"])["uptime_ms"]
            .as_f64()
            .unwrap_or_default()
    };
    wait_for("no more calls to EC2", DEADLINE, || {
        let calls = node.calls("ec2");
        let last = calls.last().and_then(|c| c["at_ms"].as_f64()).unwrap_or_default();
        (uptime() - last > 3_000.0).then_some(calls.len())
    })
}

#[test]
fn each_occasion_costs_the_calls_that_are_promised() {
    // No subnet discovery, whose look at the zone's subnets is one more at a cold start.
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &["ENABLE_SUBNET_DISCOVERY=false"],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(DEADLINE);
    node.wait_for_pool(9, DEADLINE);
    let start = settled(&lab, node);
    // Nothing is asked to get to know the node; the warm addresses are one call.
    assert_eq!(
        calls_after(node, 0),
        expected(&[("AssignPrivateIpAddresses", 1)]),
        "cold start"
    );

    node.must_add("first");
    node.wait_for_pool(18, DEADLINE);
    let interface = settled(&lab, node);
    assert_eq!(
        calls_after(node, start),
        expected(&[
            ("AttachNetworkInterface", 1),
            ("CreateNetworkInterface", 1),
            ("ModifyNetworkInterfaceAttribute", 1),
        ]),
        "a further interface"
    );

    for n in 1..9 {
        node.must_add(&format!("pod-{n}"));
    }
    let pods = settled(&lab, node);
    assert_eq!(
        calls_after(node, interface),
        expected(&[]),
        "eight pods from the pool"
    );

    node.kill_agent();
    node.start_agent(&["ENABLE_SUBNET_DISCOVERY=false"]);
    node.wait_until_ready(DEADLINE);
    settled(&lab, node);
    assert_eq!(calls_after(node, pods), expected(&[]), "warm start");
}

#[test]
fn subnet_discovery_costs_one_call_more_at_a_cold_start_and_none_at_a_warm_one() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(DEADLINE);
    node.wait_for_pool(9, DEADLINE);
    let start = settled(&lab, node);
    assert_eq!(
        calls_after(node, 0),
        expected(&[("AssignPrivateIpAddresses", 1), ("DescribeSubnets", 1)])
    );
    node.kill_agent();
    node.start_agent(&[]);
    node.wait_until_ready(DEADLINE);
    settled(&lab, node);
    assert_eq!(calls_after(node, start), expected(&[]), "it is remembered");
}
