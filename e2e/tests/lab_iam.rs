//! Each mode under exactly the IAM policy that is delivered for it, and what happens where a right is missing.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use vpcnet_e2e::{Lab, Node, Options, wait_for, wait_for_or};

const DEADLINE: Duration = Duration::from_secs(60);
/// An action that was refused is tried again after a minute at most.
const NEXT_TRY: Duration = Duration::from_secs(120);

/// Statements of policies that are delivered, together as on a role that has several; for the cluster `blue`.
fn delivered(names: &[&str]) -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/iam");
    let statements = names.iter().flat_map(|name| {
        let file = directory.join(format!("{name}.json"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let document: Value = serde_json::from_str(&text.replace("CLUSTER_NAME", "blue")).unwrap();
        document["Statement"].as_array().unwrap().clone()
    });
    statements.collect()
}

/// The same without an action.
fn without(action: &str, mut statements: Vec<Value>) -> Vec<Value> {
    for statement in &mut statements {
        let actions = statement["Action"].as_array_mut().unwrap();
        actions.retain(|a| a != action);
    }
    statements.retain(|s| !s["Action"].as_array().unwrap().is_empty());
    statements
}

fn file_of(statements: &[Value]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let document = json!({ "Version": "2012-10-17", "Statement": statements });
    std::fs::write(file.path(), document.to_string()).unwrap();
    file
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A lab whose nodes may do only this.
fn lab(statements: &[Value], arguments: &[&str], env: &[&str]) -> (Lab, NamedTempFile) {
    let file = file_of(statements);
    let mut all = vec!["--policy", text(file.path())];
    all.extend(arguments);
    let lab = Lab::up(&Options { arguments: &all, env });
    (lab, file)
}

fn put_in_force(lab: &Lab, statements: &[Value]) {
    lab.run(&["policy", text(file_of(statements).path())]);
}

/// Calls of the node that EC2 refused for lack of a right, by action.
fn refused(node: &Node<'_>) -> Vec<String> {
    let calls = node.calls("ec2").into_iter();
    let refused = calls.filter(|call| call["result"] == "UnauthorizedOperation");
    refused
        .map(|call| call["action"].as_str().unwrap().to_owned())
        .collect()
}

fn twenty_pods(lab: &Lab, node: &str) {
    lab.run(&[
        "pod",
        "add",
        node,
        "--count",
        "20",
        "--prefix",
        "pod",
        "--parallel",
        "8",
    ]);
    assert_eq!(Node::new(lab, node).pods().len(), 20);
}

/// Twenty pods come and go under the policy, and no call is refused.
fn twenty_pods_come_and_go(statements: &[Value], arguments: &[&str], env: &[&str]) {
    let (lab, _file) = lab(statements, &[&["--nodes", "1"], arguments].concat(), env);
    let node = Node::new(&lab, "node-1");
    twenty_pods(&lab, node.name);
    lab.run(&["pod", "rm", "--all"]);
    assert_eq!(refused(&node), Vec::<String>::new());
}

#[test]
fn single_addresses_and_all_that_the_pool_gives_back() {
    let statements = delivered(&["ipv4", "subnets"]);
    let (lab, _file) = lab(
        &statements,
        &["--nodes", "1"],
        &["IP_COOLDOWN_PERIOD=1", "WARM_IP_TARGET=2"],
    );
    let node = Node::new(&lab, "node-1");
    twenty_pods(&lab, node.name);
    lab.run(&["pod", "rm", "--all"]);
    // Addresses first; an interface when it is a minute old.
    wait_for_or(
        || format!("only the primary interface is left: {:?}", node.ec2_calls()),
        Duration::from_secs(150),
        || (node.status()["interfaces"].as_array()?.len() == 1).then_some(()),
    );
    let calls = node.ec2_calls();
    for action in [
        "AssignPrivateIpAddresses",
        "AttachNetworkInterface",
        "CreateNetworkInterface",
        "DeleteNetworkInterface",
        "DescribeSubnets",
        "DetachNetworkInterface",
        "ModifyNetworkInterfaceAttribute",
        "UnassignPrivateIpAddresses",
    ] {
        assert!(calls.iter().any(|call| call == action), "{action}: {calls:?}");
    }
    assert_eq!(refused(&node), Vec::<String>::new());
    // Every right that was used was needed: nothing of it is there for no reason.
    let used = |action: &str| calls.iter().any(|call| format!("ec2:{call}") == action);
    let granted = statements.iter().flat_map(|s| s["Action"].as_array().unwrap());
    let idle: Vec<&str> = granted
        .map(|a| a.as_str().unwrap())
        .filter(|a| !used(a))
        .collect();
    // These two are for an interface of before its agent, and for tags in the creation itself.
    assert!(
        idle.iter()
            .all(|a| ["ec2:CreateTags", "ec2:DescribeNetworkInterfaces"].contains(a)),
        "{idle:?}"
    );
}

#[test]
fn prefixes() {
    let env = ["ENABLE_PREFIX_DELEGATION=true", "IP_COOLDOWN_PERIOD=1"];
    twenty_pods_come_and_go(&delivered(&["ipv4", "subnets"]), &[], &env);
}

#[test]
fn without_subnet_discovery_nobody_asks_for_subnets() {
    twenty_pods_come_and_go(&delivered(&["ipv4"]), &[], &["ENABLE_SUBNET_DISCOVERY=false"]);
}

#[test]
fn custom_networking() {
    let file = NamedTempFile::new().unwrap();
    let setting = format!("VPCNET_NODE_FILE={}", file.path().display());
    let (lab, _policy) = lab(
        &delivered(&["ipv4", "subnets"]),
        &[
            "--nodes",
            "1",
            "--type",
            "m5.xlarge",
            "--subnet",
            "pods=10.0.64.0/20,a",
        ],
        &["AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true", &setting],
    );
    let node = Node::new(&lab, "node-1");
    let printed = lab.run(&[
        "ec2",
        "DescribeSubnets",
        "Filter.1.Name=tag:Name",
        "Filter.1.Value.1=pods",
    ]);
    let subnet = between(&printed, "<subnetId>");
    let config = json!({ "eniConfig": { "name": "pods", "subnets": [subnet] } });
    std::fs::write(file.path(), config.to_string()).unwrap();
    wait_for("an interface in the pods' subnet", DEADLINE, || {
        node.pool().is_ok_and(|(total, _)| total > 0).then_some(())
    });
    twenty_pods(&lab, node.name);
    assert_eq!(refused(&node), Vec::<String>::new());
}

#[test]
fn ipv6() {
    twenty_pods_come_and_go(&delivered(&["ipv6"]), &["--ipv6"], &[]);
}

/// Gives a node 24 addresses as somebody else does who fills its pool.
fn provide(lab: &Lab, node: &Node<'_>) {
    let status = node.status();
    let own = &status["interfaces"][0];
    let assign = |eni: &str, count: &str| {
        lab.run(&[
            "ec2",
            "AssignPrivateIpAddresses",
            &format!("NetworkInterfaceId={eni}"),
            &format!("SecondaryPrivateIpAddressCount={count}"),
        ]);
    };
    assign(own["eni"].as_str().unwrap(), "14");
    let subnet = own["subnet"].as_str().unwrap();
    let made = lab.run(&["ec2", "CreateNetworkInterface", &format!("SubnetId={subnet}")]);
    let second = between(&made, "<networkInterfaceId>");
    assign(&second, "10");
    lab.run(&[
        "ec2",
        "AttachNetworkInterface",
        &format!("NetworkInterfaceId={second}"),
        &format!("InstanceId={}", status["instance"].as_str().unwrap()),
        "DeviceIndex=1",
    ]);
}

fn pools_that_others_fill(statements: &[Value], setting: &str) {
    let (lab, _file) = lab(
        statements,
        // So that the agent finds all of it at its start: later ones look when a pod asks.
        &[
            "--nodes",
            "1",
            "--type",
            "m5.xlarge",
            "--no-agent",
            "--imds-lag",
            "0",
        ],
        &[setting],
    );
    let node = Node::new(&lab, "node-1");
    provide(&lab, &node);
    wait_for("the second interface is attached", DEADLINE, || {
        (node.status()["interfaces"].as_array()?.len() == 2).then_some(())
    });
    node.start_agent(&[]);
    node.wait_for_pool(24, DEADLINE);
    twenty_pods(&lab, node.name);
    assert_eq!(refused(&node), Vec::<String>::new());
}

#[test]
fn without_provisioning_the_rights_to_look_are_enough() {
    pools_that_others_fill(
        &delivered(&["provided"]),
        "DISABLE_NETWORK_RESOURCE_PROVISIONING=true",
    );
}

#[test]
fn by_imds_only_no_right_at_all_is_needed() {
    let nothing = json!({ "Sid": "Nothing", "Effect": "Deny", "Action": ["ec2:*"], "Resource": "*" });
    pools_that_others_fill(&[nothing], "ENABLE_IMDS_ONLY_MODE=true");
}

#[test]
fn rights_over_one_clusters_interfaces_only() {
    let (lab, _file) = lab(
        &delivered(&["one-cluster"]),
        &["--nodes", "1", "--no-agent"],
        &["CLUSTER_NAME=blue"],
    );
    let node = Node::new(&lab, "node-1");
    // As the launch template does, for the interface that the instance starts with.
    let eni = node.status()["interfaces"][0]["eni"].as_str().unwrap().to_owned();
    lab.run(&[
        "ec2",
        "CreateTags",
        &format!("ResourceId.1={eni}"),
        "Tag.1.Key=cluster.k8s.amazonaws.com/name",
        "Tag.1.Value=blue",
    ]);
    node.start_agent(&[]);
    twenty_pods(&lab, node.name);
    assert_eq!(refused(&node), Vec::<String>::new());
}

/// All that the node says of itself, its log too.
fn told(lab: &Lab, node: &Node<'_>) -> String {
    let log = lab.directory().join(format!("log/agent-{}.log", node.name));
    let status = node.introspect("/v1/vpcnet/status").unwrap_or_default();
    format!("{status}\n{}", std::fs::read_to_string(log).unwrap_or_default())
}

/// The agent that was started is the one that runs.
#[track_caller]
fn has_not_ended(node: &Node<'_>) {
    let agent = node.status()["agent"].clone();
    assert!(
        agent["pid"].is_i64() && agent["starts"] == 1 && agent["ended"].is_null(),
        "{agent}"
    );
}

/// Pods that cannot be served wait, so nobody waits for them here.
fn burst(lab: &Lab, node: &str, pods: u32) -> Child {
    let pods = pods.to_string();
    lab.command(&[
        "pod",
        "add",
        node,
        "--count",
        &pods,
        "--prefix",
        node,
        "--parallel",
        "12",
    ])
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .unwrap()
}

#[test]
fn a_missing_right_is_named_nothing_ends_and_pods_are_served_when_it_is_there() {
    let all = delivered(&["ipv4", "subnets"]);
    let nothing = json!({ "Sid": "Nothing", "Effect": "Deny", "Action": ["ec2:*"], "Resource": "*" });
    let (lab, _file) = lab(
        &all,
        &["--nodes", "1"],
        &["IP_COOLDOWN_PERIOD=1", "WARM_IP_TARGET=1"],
    );
    // Without any; with one thing forgotten; and as the oldest policies are that people still have.
    let cases = [
        (None, "ec2:AssignPrivateIpAddresses", 2),
        (
            Some("ec2:AssignPrivateIpAddresses"),
            "ec2:AssignPrivateIpAddresses",
            2,
        ),
        (
            Some("ec2:CreateNetworkInterface"),
            "ec2:CreateNetworkInterface",
            12,
        ),
        // Interfaces are made with their tags, so it is the creation that is refused.
        (Some("ec2:CreateTags"), "ec2:CreateNetworkInterface", 12),
        (
            Some("ec2:AttachNetworkInterface"),
            "ec2:AttachNetworkInterface",
            12,
        ),
        (
            Some("ec2:ModifyNetworkInterfaceAttribute"),
            "ec2:ModifyNetworkInterfaceAttribute",
            12,
        ),
        (Some("ec2:DescribeSubnets"), "ec2:DescribeSubnets", 12),
        (
            Some("ec2:UnassignPrivateIpAddresses"),
            "ec2:UnassignPrivateIpAddresses",
            6,
        ),
    ];
    let mut nodes = Vec::new();
    for (number, (missing, named, pods)) in cases.into_iter().enumerate() {
        let policy = missing.map_or_else(|| vec![nothing.clone()], |action| without(action, all.clone()));
        put_in_force(&lab, &policy);
        let name = format!("without-{number}");
        lab.run(&["node", "add", &name]);
        let node = Node::new(&lab, &name);
        let pods_come = burst(&lab, &name, pods);
        if missing == Some("ec2:UnassignPrivateIpAddresses") {
            wait_for("its pods are there", DEADLINE, || {
                (node.pods().len() == 6).then_some(())
            });
            lab.run(&["pod", "rm", "--all", "--node", &name]);
        }
        let sentence = format!("EC2 refuses {named}: the role of this node, or of this pod, lacks it in IAM");
        wait_for_or(
            || format!("{sentence}, without {missing:?}: {}", told(&lab, &node)),
            DEADLINE,
            || told(&lab, &node).contains(&sentence).then_some(()),
        );
        has_not_ended(&node);
        nodes.push((name.clone(), pods_come));
    }
    put_in_force(&lab, &all);
    for (name, mut pods_come) in nodes {
        pods_come.wait().unwrap();
        let node = Node::new(&lab, &name);
        let mut tries = 0;
        wait_for_or(
            || format!("{name} serves pods once it may: {}", told(&lab, &node)),
            NEXT_TRY,
            || {
                tries += 1;
                node.add(&format!("{name}-late-{tries}")).ok()
            },
        );
        has_not_ended(&node);
    }
    // What works again is told no longer.
    let first = Node::new(&lab, "without-0");
    let status = first.introspect("/v1/vpcnet/status").unwrap();
    let sentence = "EC2 refuses ec2:AssignPrivateIpAddresses";
    assert!(
        !status["agent"]["notes"].to_string().contains(sentence),
        "{status}"
    );
}

fn between(text: &str, tag: &str) -> String {
    text.split_once(tag)
        .and_then(|(_, rest)| rest.split_once('<'))
        .map(|(id, _)| id.to_owned())
        .unwrap_or_else(|| panic!("no {tag} in {text}"))
}
