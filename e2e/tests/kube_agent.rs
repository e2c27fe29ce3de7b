//! The agent and a real API server: what a node's objects say holds, also while the API server is away; what happens on the node is told
//! there. Needs the program that `make kubernetes` builds; `VPCNET_KUBERNETES` names another.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::time::Duration;

use serde_json::Value;
use vpcnet_e2e::{ApiServer, Credentials, Lab, Node, Options, wait_for_or};

const READY: Duration = Duration::from_secs(90);
/// The agent asks again after half a minute at most.
const FOLLOWS: Duration = Duration::from_secs(60);
const NODE: &str = "node-1";
const CONFIG: &str = "k8s.amazonaws.com/eniConfig";

fn subnet_id(lab: &Lab, name: &str) -> String {
    let status = lab.json(&["status", "--json"]);
    let subnets = status["subnets"].as_array().unwrap();
    let found = subnets.iter().find(|s| s["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {subnets:?}"))["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn eni_config(api: &ApiServer, name: &str, subnet: &str) {
    api.apply(&format!(
        "{{apiVersion: crd.k8s.amazonaws.com/v1alpha1, kind: ENIConfig, metadata: {{name: {name}}}, spec: {{subnet: {subnet}}}}}"
    ));
}

fn status(node: &Node<'_>) -> Value {
    node.introspect("/v1/vpcnet/status").unwrap_or_else(Value::String)
}

/// Waits until the agent's status page is as it should be.
#[track_caller]
fn wait_for_status(node: &Node<'_>, what: &str, is: impl Fn(&Value) -> bool) {
    wait_for_or(
        || format!("{what}: {:#}", status(node)),
        FOLLOWS,
        || is(&status(node)).then_some(()),
    );
}

fn is_followed(status: &Value) -> bool {
    status["kubernetes"]["away"].as_array().is_some_and(Vec::is_empty)
}

#[test]
fn what_a_nodes_objects_say_holds_from_the_first_second_on_also_while_the_api_server_is_away() {
    let credentials = Credentials::new();
    let kubeconfig = credentials.kubeconfig();
    let env = [
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true",
        "ENI_CONFIG_LABEL_DEF=topology.kubernetes.io/zone",
        "IP_COOLDOWN_PERIOD=1",
        &kubeconfig,
    ];
    let lab = Lab::up(&Options {
        arguments: &[
            "--nodes",
            "1",
            "--type",
            "m5.xlarge",
            "--subnet",
            "pods-a=10.0.64.0/20,a",
            "--subnet",
            "pods-2=10.0.96.0/20,a",
            "--subnet",
            "pods-b=10.0.80.0/20,b",
        ],
        env: &env,
    });
    let node = Node::new(&lab, NODE);

    // Nobody has ever said which subnet: no guess is made, the reason is told, and the agent lives.
    let refused = node.add("too-early").unwrap_err().to_string();
    assert!(refused.contains("ENIConfig"), "{refused}");
    wait_for_status(&node, "the API server is missed", |s| {
        s["agent"]["notes"].to_string().contains("127.0.0.1:6443")
    });

    let mut api = credentials.start(&node);
    eni_config(&api, "zone-a", &subnet_id(&lab, "pods-a"));
    eni_config(&api, "special", &subnet_id(&lab, "pods-2"));
    eni_config(&api, "elsewhere", &subnet_id(&lab, "pods-b"));
    api.make_node(NODE, 20);
    // Its zone's label names it.
    wait_for_status(&node, "max-pods is the kubelet's", |s| {
        s["pool"]["targets"]["max_pods"] == 20
    });
    wait_for_or(
        || format!("addresses: {}", node.status()),
        READY,
        || node.pool().is_ok_and(|(total, _)| total > 0).then_some(()),
    );
    assert_eq!(node.introspect("/v1/eni-configs").unwrap(), "zone-a");
    let address = node.must_add("by-label");
    assert!(
        address.starts_with("10.0.6") || address.starts_with("10.0.7"),
        "{address}"
    );

    // Away, and the agent starts anew: it knows what it knew.
    api.kill();
    node.restart_after_kill(&env, READY);
    node.must_add("while-away");
    assert_eq!(node.introspect("/v1/eni-configs").unwrap(), "zone-a");
    wait_for_status(&node, "it is known to be away", |s| !is_followed(s));
    assert_eq!(status(&node)["pool"]["targets"]["max_pods"], 20);

    // Back, and everything can be changed while the agent runs.
    api.up();
    wait_for_status(&node, "it is followed again", is_followed);
    api.kubectl(&[
        "annotate",
        "node",
        NODE,
        "targets.vpcnet.dev/warm-ip-target=3",
        "targets.vpcnet.dev/max-enis=2",
    ]);
    wait_for_status(&node, "the node's own target", |s| {
        s["pool"]["targets"]["warm_ip"] == 3
    });
    assert!(status(&node)["agent"]["notes"].to_string().contains("max-enis"));
    api.kubectl(&["label", "node", NODE, "targets.vpcnet.dev/warm-ip-target=5"]);
    // What the controller of nodes makes of `kubectl cordon`.
    api.kubectl(&[
        "taint",
        "node",
        NODE,
        "node.kubernetes.io/unschedulable=:NoSchedule",
    ]);
    wait_for_status(&node, "the cordon", |s| {
        s["pool"]["targets"]["unschedulable"] == true
    });
    assert_eq!(
        status(&node)["pool"]["targets"]["warm_ip"],
        3,
        "an annotation goes before a label"
    );
    api.kubectl(&[
        "taint",
        "node",
        NODE,
        "node.kubernetes.io/unschedulable:NoSchedule-",
    ]);
    wait_for_status(&node, "no cordon", |s| {
        s["pool"]["targets"]["unschedulable"] == false
    });

    // The annotation wins, and one of another zone is refused by name.
    api.kubectl(&["annotate", "node", NODE, &format!("{CONFIG}=elsewhere")]);
    wait_for_status(&node, "a subnet of another zone", |s| {
        s["agent"]["notes"]
            .to_string()
            .contains(&subnet_id(&lab, "pods-b"))
    });
    api.kubectl(&[
        "annotate",
        "--overwrite",
        "node",
        NODE,
        &format!("{CONFIG}=special"),
    ]);
    let special = subnet_id(&lab, "pods-2");
    wait_for_status(&node, "the annotation's ENIConfig", |s| {
        s["pool"]["targets"]["subnets"]["custom"]["subnets"][0] == special.as_str()
    });
    api.kubectl(&["annotate", "--overwrite", "node", NODE, &format!("{CONFIG}=gone")]);
    wait_for_status(&node, "one that does not exist", |s| {
        s["agent"]["notes"].to_string().contains("\\\"gone\\\"")
    });
    wait_for_or(
        || format!("an event of it: {}", api.get(&["events", "-n", "default"])),
        FOLLOWS,
        || {
            let events = api.get(&["events", "-n", "default"]);
            events["items"].as_array()?.iter().find(|e| {
                e["involvedObject"]["kind"] == "Node"
                    && e["message"].as_str().is_some_and(|m| m.contains("\"gone\""))
            })?;
            Some(())
        },
    );
}

#[test]
fn pods_are_annotated_refusals_are_events_and_a_watch_that_is_too_old_begins_anew() {
    let credentials = Credentials::new();
    let kubeconfig = credentials.kubeconfig();
    let env = [
        "ANNOTATE_POD_IP=true",
        "IP_COOLDOWN_PERIOD=1",
        "MAX_ENI=1",
        &kubeconfig,
    ];
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &env,
    });
    let node = Node::new(&lab, NODE);
    // An ADD does not wait for the API server.
    let address = node.must_add("web-0");
    let mut api = credentials.start(&node);
    api.make_node(NODE, 20);
    api.make_node("node-2", 20);
    api.make_pod("node-2", "of-another-node");
    api.make_pod(NODE, "web-0");
    annotated(&api, "web-0", Some(&address));

    // What the agent has seen is older than all that the next API server remembers.
    for n in 0..5 {
        api.kubectl(&["create", "configmap", &format!("some-{n}")]);
    }
    api.kill();
    let late = node.must_add("web-1");
    node.remove("web-0").unwrap();
    api.up();
    annotated(&api, "web-0", Some(""));
    api.make_pod(NODE, "web-1");
    annotated(&api, "web-1", Some(&late));

    // Nothing may be made: pods are refused, and both they and the node say why.
    lab.run(&[
        "fault",
        "add",
        "AssignPrivateIpAddresses",
        "--error",
        "UnauthorizedOperation:403",
    ]);
    lab.run(&[
        "fault",
        "add",
        "CreateNetworkInterface",
        "--error",
        "UnauthorizedOperation:403",
    ]);
    api.make_pod(NODE, "one-too-many");
    let mut n = 0;
    let refused = loop {
        match node.add("one-too-many") {
            Err(refused) => break refused.to_string(),
            Ok(_) => {
                node.remove("one-too-many").unwrap();
                node.must_add(&format!("filler-{n}"));
                n += 1;
                assert!(n < 30, "nothing runs out");
            }
        }
    };
    let event = wait_for_or(
        || format!("an event of the pod: {}", api.get(&["events", "-n", "default"])),
        FOLLOWS,
        || event(&api, "Pod", "one-too-many", "FailedAssignPodIP"),
    );
    let said = event["message"].as_str().unwrap();
    assert!(
        refused.contains(said),
        "the pod's event: {said}\nthe runtime: {refused}"
    );
    let described = api.kubectl(&["describe", "pod", "one-too-many"]);
    assert!(described.contains("FailedAssignPodIP"), "{described}");

    // It asks for what is this node's and for nothing else.
    let asked = api.asked();
    let pods: Vec<&String> = asked
        .iter()
        .filter(|(verb, uri)| verb != "patch" && uri.contains("/pods"))
        .map(|(_, uri)| uri)
        .collect();
    assert!(!pods.is_empty());
    assert!(
        pods.iter()
            .all(|uri| uri.contains("fieldSelector=spec.nodeName%3Dnode-1")),
        "{pods:?}"
    );
    let nodes: Vec<&String> = asked
        .iter()
        .filter(|(_, uri)| uri.contains("/nodes"))
        .map(|(_, uri)| uri)
        .collect();
    assert!(
        nodes
            .iter()
            .all(|uri| uri.contains("fieldSelector=metadata.name%3Dnode-1")),
        "{nodes:?}"
    );
    annotated(&api, "of-another-node", None);
}

fn annotated(api: &ApiServer, pod: &str, value: Option<&str>) {
    let shown = || {
        api.get(&["pod", pod])["metadata"]["annotations"]["vpc.amazonaws.com/pod-ips"]
            .as_str()
            .map(str::to_owned)
    };
    wait_for_or(
        || format!("{pod} has {:?} and not {value:?}", shown()),
        FOLLOWS,
        || (shown().as_deref() == value).then_some(()),
    );
}

fn event(api: &ApiServer, kind: &str, name: &str, reason: &str) -> Option<Value> {
    let events = api.get(&["events", "-n", "default"]);
    let is = |e: &&Value| {
        e["involvedObject"]["kind"] == kind && e["involvedObject"]["name"] == name && e["reason"] == reason
    };
    events["items"].as_array()?.iter().find(is).cloned()
}

#[test]
fn a_missing_right_is_an_event_of_the_node() {
    let credentials = Credentials::new();
    let kubeconfig = credentials.kubeconfig();
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &["IP_COOLDOWN_PERIOD=1", &kubeconfig],
    });
    let node = Node::new(&lab, NODE);
    node.wait_for_pool(9, READY);
    let api = credentials.start(&node);
    api.make_node(NODE, 29);
    wait_for_status(&node, "it is followed", is_followed);
    lab.run(&[
        "fault",
        "add",
        "CreateNetworkInterface",
        "--error",
        "UnauthorizedOperation:403",
    ]);
    // With one pod an interface in reserve is wanted.
    node.must_add("web-0");
    let event = wait_for_or(
        || format!("an event of the node: {}", api.get(&["events", "-n", "default"])),
        FOLLOWS,
        || event(&api, "Node", NODE, "MissingIAMPermissions"),
    );
    assert!(
        event["message"]
            .as_str()
            .unwrap()
            .contains("ec2:CreateNetworkInterface"),
        "{event}"
    );
    assert!(
        api.kubectl(&["describe", "node", NODE])
            .contains("MissingIAMPermissions")
    );
}
