//! A real Kubernetes on vpcnet: two nodes in two zones, a hundred pods, and everything a pod's network is for, judged by packets.
//!
//! One cluster for all of it, as bringing it up takes longer than any of the checks. Each is told with its time.

// Functions beside the tests are tests too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod traffic;
mod workloads;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use vpcnet_e2e::{AGNHOST, Cluster, KubePod, Node, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
/// For what a hundred containers have to do on two cores that others use, too.
const CROWD: Duration = Duration::from_secs(300);

/// Runs a check and says how long it took.
fn check<T>(what: &str, work: impl FnOnce() -> T) -> T {
    eprintln!("  … {what}");
    let start = Instant::now();
    let made = work();
    eprintln!("  ok {what}: {:.1} s", start.elapsed().as_secs_f64());
    made
}

#[test]
fn a_hundred_pods_on_two_nodes_have_all_that_kubernetes_promises_of_their_network() {
    let cluster = check(
        "a cluster of two nodes comes up and vpcnet makes them Ready",
        || Cluster::up(&["--nodes", "2", "--type", "m5.xlarge"]),
    );
    check("each node is to Kubernetes what it is to EC2", || nodes(&cluster));
    let pods = check(
        "a hundred pods become Ready with addresses of their nodes' interfaces",
        || hundred(&cluster),
    );
    check(
        "every pod reaches one on its own node and one on the other, as itself",
        || traffic::pod_to_pod(&cluster, &pods),
    );
    check("a Service's address leads to pods on both nodes", || {
        traffic::cluster_ip(&cluster, &pods)
    });
    check("names lead to Services, and to pods of headless ones", || {
        traffic::names(&cluster, &pods)
    });
    check("a NodePort is reached from outside on every node", || {
        traffic::node_port(&cluster)
    });
    check(
        "a NodePort that is local keeps the client's address, and answers only where a pod is",
        || traffic::local_node_port(&cluster),
    );
    check("a host port is reached on its node", || {
        traffic::host_port(&cluster)
    });
    check("exec and logs reach the pods' nodes", || {
        workloads::exec_and_logs(&cluster, &pods)
    });
    check(
        "probes reach pods, and a failing one restarts its container",
        || workloads::probes(&cluster),
    );
    check(
        "a pod of a StatefulSet that is started again is found by its name",
        || workloads::stateful_set(&cluster),
    );
    check("when all pods have gone every address is free", || {
        all_gone(&cluster);
    });
}

fn nodes(cluster: &Cluster) {
    let status = cluster.status();
    assert_eq!(
        status.keys().map(String::as_str).collect::<Vec<_>>(),
        ["node-1", "node-2"]
    );
    let mut zones = BTreeSet::new();
    for (lab_name, in_lab) in &status {
        let name = cluster.node_name(lab_name);
        assert!(cluster.node_ready(&name), "{name}");
        let node = cluster.get(&["node", &name]);
        let address = in_lab["primary"].as_str().unwrap();
        let expected = format!("ip-{}.us-west-2.compute.internal", address.replace('.', "-"));
        assert_eq!(name, expected);
        let labels = &node["metadata"]["labels"];
        let zone = labels["topology.kubernetes.io/zone"].as_str().unwrap().to_owned();
        let instance = in_lab["instance"].as_str().unwrap();
        assert_eq!(node["spec"]["providerID"], format!("aws:///{zone}/{instance}"));
        assert_eq!(labels["topology.kubernetes.io/region"], "us-west-2");
        assert_eq!(labels["node.kubernetes.io/instance-type"], "m5.xlarge");
        // Four interfaces of fifteen addresses.
        assert_eq!(node["status"]["capacity"]["pods"], "58");
        let addresses = node["status"]["addresses"].as_array().unwrap();
        assert!(
            addresses
                .iter()
                .any(|a| a["type"] == "InternalIP" && a["address"] == address),
            "{addresses:?}"
        );
        zones.insert(zone);
    }
    assert_eq!(zones, ["us-west-2a", "us-west-2b"].map(str::to_owned).into());
}

fn hundred(cluster: &Cluster) -> Vec<KubePod> {
    cluster.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 100
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
      - {{name: web, image: "{AGNHOST}", args: [netexec], readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}}}}}
"#
    ));
    let pods = cluster.wait_for_pods("app=web", 100, CROWD);
    let status = cluster.status();
    let mut seen = BTreeSet::new();
    for (lab_name, in_lab) in &status {
        let name = cluster.node_name(lab_name);
        let here: Vec<&KubePod> = pods.iter().filter(|p| p.node == name).collect();
        assert_eq!(here.len(), 50, "pods on {lab_name}");
        let primaries: BTreeSet<&str> = in_lab["interfaces"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|i| i["primary"].as_str())
            .collect();
        for pod in here {
            assert!(
                Cluster::owns(in_lab, &pod.address),
                "{pod:?} is on {lab_name}, whose interfaces have {}",
                in_lab["interfaces"]
            );
            assert!(
                !primaries.contains(pod.address.as_str()),
                "{pod:?} has a node's address"
            );
            assert!(
                seen.insert(pod.address.clone()),
                "{pod:?} has an address that another has, too"
            );
        }
    }
    assert_eq!(seen.len(), 100);
    pods
}

fn all_gone(cluster: &Cluster) {
    cluster.kubectl(&["delete", "deployment/web", "statefulset/db", "--wait=false"]);
    cluster.kubectl(&[
        "--namespace=kube-system",
        "scale",
        "deployment/kube-dns",
        "--replicas=0",
    ]);
    for label in ["app=web", "app=db", "app=lone", "app=hostly", "app=sick"] {
        cluster.wait_for_none(label, CROWD);
    }
    for name in cluster.lab_nodes() {
        let node = Node::new(&cluster.lab, &name);
        wait_for(
            &format!("{name} has given every address back"),
            2 * MINUTE,
            || node.pool().is_ok_and(|(_, assigned)| assigned == 0).then_some(()),
        );
        assert!(node.owners().is_empty(), "{:?}", node.owners());
        assert!(node.host_veths().is_empty(), "{:?}", node.host_veths());
    }
    let drops = cluster.lab.json(&["status", "--json"])["drops"].clone();
    for reason in ["source-check", "private-source"] {
        assert_eq!(drops[reason], 0, "packets that no node may send: {drops}");
    }
}
