//! A cluster that changes under its pods: nodes come and go, and the programs of Kubernetes fail and come back.

// Functions beside the tests are tests too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::time::Duration;

use vpcnet_e2e::{AGNHOST, Cluster, Get, KubePod, Node, response, wait_for, wait_for_or};

const MINUTE: Duration = Duration::from_secs(60);

fn deployment(cluster: &Cluster, name: &str, replicas: u32) {
    cluster.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}}
      - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}}
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: {name}}}}}}}
      containers:
      - {{name: web, image: "{AGNHOST}", args: [netexec], readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 2}}}}
"#
    ));
}

/// Every pod asks every other one, and is seen by its own address.
fn all_reach_all(cluster: &Cluster, pods: &[KubePod]) {
    let mut asked = Vec::new();
    for from in pods {
        for to in pods.iter().filter(|to| *to != from) {
            asked.push((from, Get::through(&from.address, &to.address, 8080, "clientip")));
        }
    }
    let requests: Vec<Get> = asked.iter().map(|(_, r)| r.clone()).collect();
    let answers = cluster.fetch("control-plane", &requests);
    for (from, request) in asked {
        let answer = answers[&request].as_deref().unwrap_or("no answer");
        let seen = response(answer).unwrap_or_default();
        assert!(
            seen.starts_with(&format!("{}:", from.address)),
            "{request:?}: {answer}"
        );
    }
}

#[test]
fn a_node_that_is_added_gets_pods_and_one_that_is_removed_leaves_none_behind() {
    let cluster = Cluster::up(&["--nodes", "1"]);
    deployment(&cluster, "web", 6);
    cluster.wait_for_pods("app=web", 6, 2 * MINUTE);

    cluster.lab.run(&["node", "add", "late"]);
    let late = cluster.node_name("late");
    assert!(!cluster.node_ready(&late), "without a CNI no node is Ready");
    cluster.install("late");
    cluster.kubectl(&["rollout", "restart", "deployment/web"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);
    let pods = cluster.wait_for_pods("app=web", 6, 2 * MINUTE);
    let nodes: BTreeSet<&str> = pods.iter().map(|p| p.node.as_str()).collect();
    assert_eq!(nodes.len(), 2, "{pods:?}");
    all_reach_all(&cluster, &pods);

    // As when EC2 terminates an instance: nothing on it gets to say anything.
    cluster.lab.run(&["node", "remove", "late"]);
    cluster
        .try_get(&["node", &late])
        .expect_err("the node object went with its instance");
    let pods = wait_for_or(
        || format!("six pods on the node that is left: {:?}", cluster.pods("app=web")),
        3 * MINUTE,
        || {
            let pods = cluster.pods("app=web");
            let here = |p: &KubePod| p.ready && p.node != late;
            (pods.len() == 6 && pods.iter().all(here)).then_some(pods)
        },
    );
    all_reach_all(&cluster, &pods);
}

#[test]
fn pods_keep_their_network_while_the_api_server_is_away_and_new_ones_get_theirs_when_it_is_back() {
    let cluster = Cluster::up(&["--nodes", "2"]);
    deployment(&cluster, "web", 4);
    deployment(&cluster, "going", 4);
    let pods = cluster.wait_for_pods("app=web", 4, 2 * MINUTE);
    let going = cluster.wait_for_pods("app=going", 4, 2 * MINUTE);

    cluster
        .lab
        .run(&["component", "kill", "control-plane", "kube-apiserver"]);
    cluster
        .try_kubectl(&["get", "--raw=/readyz", "--request-timeout=2s"])
        .expect_err("it is away");
    all_reach_all(&cluster, &pods);
    // The runtime alone can end a pod: its node gives the address back without asking anybody.
    let node = Node::new(&cluster.lab, "node-1");
    let name = cluster.node_name("node-1");
    let doomed = going.iter().find(|p| p.node == name).unwrap();
    let sandbox = node
        .owners()
        .remove(&doomed.address)
        .unwrap_or_else(|| panic!("{doomed:?} owns no address"));
    kill_container(&cluster, "node-1", &sandbox);
    // The agent is killed and comes back without an API server.
    node.restart_after_kill(&[], MINUTE);
    all_reach_all(&cluster, &pods);

    cluster
        .lab
        .run(&["component", "start", "control-plane", "kube-apiserver"]);
    cluster.kubectl(&["scale", "deployment/web", "--replicas=8"]);
    let pods = cluster.wait_for_pods("app=web", 8, 3 * MINUTE);
    cluster.wait_for_pods("app=going", 4, 3 * MINUTE);
    all_reach_all(&cluster, &pods);
    cluster.kubectl(&["delete", "deployment/going", "--wait=false"]);
    cluster.wait_for_none("app=going", 3 * MINUTE);
    every_owner_is_a_pod(&cluster);
}

/// Kills a container by way of its runtime alone.
fn kill_container(cluster: &Cluster, node: &str, id: &str) {
    let place = format!("kubelet/{node}");
    cluster.lab.run(&[
        "exec",
        &place,
        "--",
        "ctr",
        "--namespace",
        "k8s.io",
        "task",
        "kill",
        "--signal",
        "SIGKILL",
        id,
    ]);
}

#[test]
fn pods_outlive_the_end_of_kubelet_and_containerd_and_no_address_is_lost() {
    let cluster = Cluster::up(&["--nodes", "2"]);
    deployment(&cluster, "web", 6);
    let mut pods = cluster.wait_for_pods("app=web", 6, 2 * MINUTE);

    for program in ["kubelet", "containerd"] {
        for node in cluster.lab_nodes() {
            cluster.lab.run(&["component", "kill", &node, program]);
        }
        all_reach_all(&cluster, &pods);
        // Meanwhile half of the pods are to go: nobody on the nodes can do it yet.
        cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]);
        for node in cluster.lab_nodes() {
            cluster.lab.run(&["component", "start", &node, program]);
        }
        let left = cluster.wait_for_pods("app=web", 3, 3 * MINUTE);
        for pod in &left {
            let before = pods.iter().find(|p| p.name == pod.name);
            // The same sandbox with the same address, and its container was not started again.
            assert_eq!(before, Some(pod), "after {program} was killed");
        }
        cluster.kubectl(&["scale", "deployment/web", "--replicas=6"]);
        pods = cluster.wait_for_pods("app=web", 6, 3 * MINUTE);
        all_reach_all(&cluster, &pods);
        every_owner_is_a_pod(&cluster);
    }
}

/// What the agents hold as owned is what pods have, on every node, as soon as all that was under way is over.
fn every_owner_is_a_pod(cluster: &Cluster) {
    wait_for("the agents' owners are the cluster's pods", 3 * MINUTE, || {
        let list = cluster.try_get(&["pods", "--all-namespaces"]).ok()?;
        let pods: BTreeSet<String> = list["items"]
            .as_array()?
            .iter()
            .filter_map(|p| p["status"]["podIP"].as_str().map(str::to_owned))
            .collect();
        let owned: BTreeSet<String> = cluster
            .lab_nodes()
            .iter()
            .flat_map(|n| Node::new(&cluster.lab, n).owners().into_keys())
            .collect();
        (owned == pods).then_some(())
    });
}
