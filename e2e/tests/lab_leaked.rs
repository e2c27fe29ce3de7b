//! Interfaces that a dead node left are freed, by the signs and ages of the AWS VPC CNI, when addresses are missing: right after a
//! call that is made anyway, and never by a node where nothing happens.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::process::Command;
use std::time::{Duration, SystemTime};

use vpcnet_e2e::{Lab, Node, Options, wait_for};

const READY: Duration = Duration::from_secs(60);
/// A look follows its cause at once; the rest is margin.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// A node that has called nobody for so long is idle.
const IDLE: Duration = Duration::from_secs(3);
/// What is older was left by a dead node.
const MIN_AGE: Duration = Duration::from_secs(300);
/// Long before the lab began.
const OLD: &str = "2020-01-01T00:00:00Z";
/// Longer ahead than the lab's clock can be.
const AHEAD: &str = "2099-01-01T00:00:00Z";

/// An interface as a node that died would have left it.
struct Left<'a> {
    description: &'a str,
    cluster: &'a str,
    created: Option<&'a str>,
}

const LEAKED: Left<'_> = Left {
    description: "aws-K8S-i-0dead",
    cluster: "blue",
    created: Some(OLD),
};

/// What stands between the first such tag and its end.
fn text(xml: &str, tag: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{tag}>"))?;
    Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
}

fn leave(lab: &Lab, subnet: &str, left: &Left<'_>) -> String {
    let tags = [
        Some(("node.k8s.amazonaws.com/instance_id", "i-0dead")),
        Some(("cluster.k8s.amazonaws.com/name", left.cluster)),
        left.created.map(|at| ("node.k8s.amazonaws.com/createdAt", at)),
    ];
    let mut arguments = vec![
        "ec2".to_owned(),
        "CreateNetworkInterface".to_owned(),
        format!("SubnetId={subnet}"),
        format!("Description={}", left.description),
        "TagSpecification.1.ResourceType=network-interface".to_owned(),
    ];
    for (n, (key, value)) in tags.into_iter().flatten().enumerate() {
        let n = n + 1;
        arguments.push(format!("TagSpecification.1.Tag.{n}.Key={key}"));
        arguments.push(format!("TagSpecification.1.Tag.{n}.Value={value}"));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let xml = lab.run(&arguments);
    text(&xml, "networkInterfaceId").unwrap_or_else(|| panic!("no interface in {xml}"))
}

fn exists(lab: &Lab, eni: &str) -> bool {
    lab.try_run(&[
        "ec2",
        "DescribeNetworkInterfaces",
        &format!("NetworkInterfaceId.1={eni}"),
    ])
    .is_ok()
}

fn tags_of(lab: &Lab, eni: &str) -> String {
    lab.run(&[
        "ec2",
        "DescribeNetworkInterfaces",
        &format!("NetworkInterfaceId.1={eni}"),
    ])
}

/// EC2 denies the node an interface once, as if the subnet were full.
fn deny(lab: &Lab, node: Node<'_>) {
    lab.run(&[
        "fault",
        "add",
        "CreateNetworkInterface",
        "--node",
        "node-1",
        "--error",
        "InsufficientFreeAddressesInSubnet",
    ]);
    // One of nine is in use: the warm target asks for an interface.
    node.must_add("web");
    wait_for("EC2 denies an interface", READY, || {
        let calls = node.calls("ec2");
        let denied = |c: &&serde_json::Value| c["result"] == "InsufficientFreeAddressesInSubnet";
        calls.iter().find(denied).map(|_| ())
    });
}

fn up(env: &[&str]) -> Lab {
    Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env,
    })
}

fn subnet_of(lab: &Lab) -> String {
    let xml = lab.run(&["ec2", "DescribeSubnets"]);
    text(&xml, "subnetId").unwrap_or_else(|| panic!("no subnet in {xml}"))
}

/// Looks of the agent for interfaces that are attached to nothing.
fn looks(node: Node<'_>) -> usize {
    let calls = node.ec2_calls();
    calls.iter().filter(|a| *a == "DescribeNetworkInterfaces").count()
}

/// Nothing is under way any more: no call in the time in which one would follow another. Returns how many there were.
fn idle(lab: &Lab, node: Node<'_>) -> usize {
    wait_for("no more calls to EC2", READY, || {
        let now = lab.json(&["status", "--json"])["uptime_ms"].as_f64()?;
        let calls = node.calls("ec2");
        let last = calls.last()?["at_ms"].as_f64()?;
        (now - last > IDLE.as_secs_f64() * 1000.0).then_some(calls.len())
    })
}

/// A time so long ago, as the tag has it.
fn ago(seconds: u64) -> String {
    let when = format!("@{}", unix_seconds() - seconds);
    let printed = Command::new("date")
        .args(["-u", "-d", &when, "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    String::from_utf8(printed.stdout).unwrap().trim().to_owned()
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn what_a_dead_node_left_is_freed_when_addresses_are_missing_and_nothing_else_is() {
    let lab = up(&["CLUSTER_NAME=blue"]);
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(READY);
    node.wait_for_pool(9, READY);
    let subnet = subnet_of(&lab);
    let leaked = leave(&lab, &subnet, &LEAKED);
    let unknown = leave(
        &lab,
        &subnet,
        &Left {
            created: None,
            ..LEAKED
        },
    );
    let unreadable = leave(
        &lab,
        &subnet,
        &Left {
            created: Some("yesterday"),
            ..LEAKED
        },
    );
    let kept = [
        leave(
            &lab,
            &subnet,
            &Left {
                created: Some(AHEAD),
                ..LEAKED
            },
        ),
        leave(
            &lab,
            &subnet,
            &Left {
                cluster: "green",
                ..LEAKED
            },
        ),
        leave(
            &lab,
            &subnet,
            &Left {
                description: "of-somebody",
                ..LEAKED
            },
        ),
    ];
    assert_eq!(looks(node), 0, "nobody looks without a cause");

    deny(&lab, node);
    wait_for("the leaked interface is gone", LOOK_WITHIN, || {
        (!exists(&lab, &leaked)).then_some(())
    });
    for eni in [&unknown, &unreadable] {
        wait_for("its age begins now", LOOK_WITHIN, || {
            let tags = tags_of(&lab, eni);
            let stamped = tags.contains("createdAt") && !tags.contains("yesterday");
            stamped.then_some(())
        });
    }
    for eni in &kept {
        assert!(exists(&lab, eni), "{eni} was not leaked");
    }
    // What is attached is in use: the node's own interfaces are there.
    assert_eq!(node.pool().unwrap(), (9, 1));
    idle(&lab, node);
    assert_eq!(looks(node), 1, "one look");
    let metrics = lab.run(&[
        "exec",
        "node-1",
        "--",
        "bash",
        "-c",
        r"exec 3<>/dev/tcp/127.0.0.1/61678 && printf 'GET /metrics HTTP/1.0\r\nHost: l\r\n\r\n' >&3 && cat <&3",
    ]);
    assert!(
        metrics.contains("vpcnet_leaked_interfaces_freed_total 1"),
        "{metrics}"
    );
}

#[test]
fn what_was_too_young_waits_for_the_next_call_and_an_idle_node_makes_none() {
    const LEFT: u64 = 40;
    let lab = up(&["CLUSTER_NAME=blue"]);
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(READY);
    node.wait_for_pool(9, READY);
    let created = ago(MIN_AGE.as_secs() - LEFT);
    let old_at = unix_seconds() + LEFT + 1;
    let young = leave(
        &lab,
        &subnet_of(&lab),
        &Left {
            created: Some(&created),
            ..LEAKED
        },
    );

    deny(&lab, node);
    wait_for("the look", LOOK_WITHIN, || (looks(node) == 1).then_some(()));
    lab.run(&["fault", "clear"]);
    wait_for("EC2 gives what it denied", READY, || {
        node.pool().is_ok_and(|(total, _)| total > 9).then_some(())
    });
    let calls = idle(&lab, node);
    // The time itself is what is under test: the interface grows old while the node is idle.
    wait_for("it is old enough", READY, || {
        (unix_seconds() > old_at).then_some(())
    });
    assert_eq!(
        idle(&lab, node),
        calls,
        "calls of an idle node: {:?}",
        node.ec2_calls()
    );
    assert!(exists(&lab, &young));

    for n in 0..20 {
        if node.calls("ec2").len() > calls {
            break;
        }
        node.must_add(&format!("more-{n}"));
    }
    wait_for(
        "the next call is followed by a look that frees it",
        LOOK_WITHIN,
        || (!exists(&lab, &young)).then_some(()),
    );
    assert_eq!(looks(node), 2);
}

#[test]
fn with_the_clean_up_switched_off_nobody_looks() {
    let lab = up(&["CLUSTER_NAME=blue", "DISABLE_LEAKED_ENI_CLEANUP=true"]);
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(READY);
    node.wait_for_pool(9, READY);
    let leaked = leave(&lab, &subnet_of(&lab), &LEAKED);
    deny(&lab, node);
    idle(&lab, node);
    assert!(exists(&lab, &leaked));
    assert_eq!(looks(node), 0);
}
