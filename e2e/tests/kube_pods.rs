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

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vpcnet_e2e::{AGNHOST, Cluster, Get, KubePod, Node, response, wait_for, wait_for_or};

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
        || pod_to_pod(&cluster, &pods),
    );
    check("a Service's address leads to pods on both nodes", || {
        cluster_ip(&cluster, &pods)
    });
    check("names lead to Services, and to pods of headless ones", || {
        names(&cluster, &pods)
    });
    check("a NodePort is reached from outside on every node", || {
        node_port(&cluster)
    });
    check(
        "a NodePort that is local keeps the client's address, and answers only where a pod is",
        || local_node_port(&cluster),
    );
    check("a host port is reached on its node", || host_port(&cluster));
    check("exec and logs reach the pods' nodes", || {
        exec_and_logs(&cluster, &pods)
    });
    check(
        "probes reach pods, and a failing one restarts its container",
        || probes(&cluster),
    );
    check(
        "a pod of a StatefulSet that is started again is found by its name",
        || stateful_set(&cluster),
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

fn by_node(pods: &[KubePod]) -> Vec<Vec<&KubePod>> {
    let mut all: BTreeMap<&str, Vec<&KubePod>> = BTreeMap::new();
    for pod in pods {
        all.entry(&pod.node).or_default().push(pod);
    }
    all.into_values().collect()
}

fn pod_to_pod(cluster: &Cluster, pods: &[KubePod]) {
    let nodes = by_node(pods);
    let [a, b] = nodes.as_slice() else {
        panic!("{nodes:?}")
    };
    // Each pod asks the next one here, and its counterpart there.
    let mut asked = Vec::new();
    for (here, there) in [(a, b), (b, a)] {
        for (i, from) in here.iter().enumerate() {
            for to in [here[(i + 1) % here.len()], there[i % there.len()]] {
                asked.push((
                    from,
                    to,
                    Get::through(&from.address, &to.address, 8080, "clientip"),
                ));
            }
        }
    }
    assert_eq!(asked.len(), 200);
    let requests: Vec<Get> = asked.iter().map(|(_, _, r)| r.clone()).collect();
    let answers = cluster.fetch("control-plane", &requests);
    for (from, to, request) in asked {
        let answer = answers[&request].as_deref().unwrap_or("no answer");
        let seen = response(answer).unwrap_or_default();
        assert_eq!(
            seen.rsplit_once(':').map(|(address, _)| address),
            Some(from.address.as_str()),
            "{from:?} asked {to:?}, which saw: {answer}"
        );
    }
}

fn service(cluster: &Cluster, name: &str, spec: &str) -> serde_json::Value {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    ));
    cluster.get(&["service", name])
}

fn cluster_ip(cluster: &Cluster, pods: &[KubePod]) {
    let made = service(
        cluster,
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]",
    );
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    for here in by_node(pods) {
        let from = &here[0];
        // Until kube-proxy has written it.
        let ask = Get::through(&from.address, address, 80, "hostname");
        cluster.wait_for_answer("the Service answers", "control-plane", &ask, |a| {
            response(a).is_some()
        });
        let mut reached = BTreeSet::new();
        wait_for_or(
            || format!("pods on both nodes are reached through {address}"),
            MINUTE,
            || {
                let answer = cluster.fetch_one("control-plane", &ask)?;
                let name = response(&answer)?;
                let pod = pods
                    .iter()
                    .find(|p| p.name == name)
                    .unwrap_or_else(|| panic!("{name} is no pod"));
                reached.insert(pod.node.clone());
                (reached.len() == 2).then_some(())
            },
        );
    }
}

fn names(cluster: &Cluster, pods: &[KubePod]) {
    service(
        cluster,
        "web-headless",
        "clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]",
    );
    cluster.kubectl(&[
        "--namespace=kube-system",
        "rollout",
        "status",
        "deployment/kube-dns",
        "--timeout=120s",
    ]);
    for here in by_node(pods) {
        let from = &here[0];
        for name in [
            "web",
            "web.default",
            "web.default.svc.cluster.local",
            "kubernetes.default.svc",
        ] {
            let port = if name.starts_with("kubernetes") { 443 } else { 80 };
            // The API server speaks TLS only, and says so to whoever does not.
            let ask = Get::through(&from.address, name, port, "hostname");
            cluster.wait_for_answer(&format!("{name} is found"), "control-plane", &ask, |answer| {
                response(answer).is_some_and(|r| pods.iter().any(|p| p.name == r) || r.contains("HTTP"))
            });
        }
        // Fifty addresses do not fit a plain answer by UDP: the resolver has to come back by TCP.
        let ask = Get::through(&from.address, "web-headless", 8080, "hostname");
        cluster.wait_for_answer("the headless name is found", "control-plane", &ask, |answer| {
            response(answer).is_some_and(|r| pods.iter().any(|p| p.name == r))
        });
        let unknown = Get::through(
            &from.address,
            "nobody.default.svc.cluster.local",
            8080,
            "hostname",
        );
        let answer = cluster.fetch_one("control-plane", &unknown).unwrap();
        assert!(answer.contains("no such host"), "{answer}");
    }
}

fn port_of(service: &serde_json::Value) -> u16 {
    u16::try_from(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap()
}

fn node_port(cluster: &Cluster) {
    let made = service(
        cluster,
        "web-port",
        "type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]",
    );
    let port = port_of(&made);
    let status = cluster.status();
    // The internet reaches a node by its public address, which is in the public subnet alone; the peer reaches both.
    let public = status["node-1"]["public"].as_str().unwrap();
    let from_internet = Get::new(public, port, "/hostname");
    cluster.wait_for_answer("the NodePort answers", "internet", &from_internet, |a| {
        a.starts_with("web-")
    });
    for node in status.values() {
        let primary = node["primary"].as_str().unwrap();
        let ask = Get::new(primary, port, "/hostname");
        cluster.wait_for_answer("the NodePort answers", "peer", &ask, |a| a.starts_with("web-"));
        // Often enough that pods behind other interfaces than the first, and on the other node, are among those that are chosen.
        let many: Vec<Get> = (0..40)
            .map(|i| Get::new(primary, port, &format!("/hostname?{i}")))
            .collect();
        let answers = cluster.fetch("peer", &many);
        let failed: Vec<&Get> = answers
            .iter()
            .filter(|(_, a)| a.is_none())
            .map(|(g, _)| g)
            .collect();
        assert!(failed.is_empty(), "no answer to {failed:?}");
        let different: BTreeSet<&String> = answers.values().flatten().collect();
        assert!(different.len() > 10, "only {different:?} answered");
    }
}

fn local_node_port(cluster: &Cluster) {
    let first = cluster.node_name("node-1");
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: lone, labels: {{app: lone}}}}
spec:
  nodeName: {first}
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: web, image: "{AGNHOST}", args: [netexec], readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}}}}}
"#
    ));
    cluster.wait_for_pods("app=lone", 1, MINUTE);
    let made = service(
        cluster,
        "lone",
        "type: NodePort, externalTrafficPolicy: Local, selector: {app: lone}, ports: [{port: 80, targetPort: 8080}]",
    );
    let port = port_of(&made);
    let lab = cluster.lab.json(&["status", "--json"]);
    let status = cluster.status();
    let client = lab["internet"]["host"].as_str().unwrap();
    let public = status["node-1"]["public"].as_str().unwrap();
    let seen = cluster.wait_for_answer(
        "the local NodePort answers",
        "internet",
        &Get::new(public, port, "/clientip"),
        |a| a.contains(':'),
    );
    assert_eq!(
        seen.rsplit_once(':').unwrap().0,
        client,
        "the pod saw another client"
    );
    let there = status["node-2"]["primary"].as_str().unwrap();
    let answer = cluster.fetch_one("peer", &Get::new(there, port, "/clientip"));
    assert_eq!(answer, None, "node-2 has no such pod");
    cluster.kubectl(&["delete", "service/lone", "pod/lone", "--wait=false"]);
}

fn host_port(cluster: &Cluster) {
    let second = cluster.node_name("node-2");
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: hostly, labels: {{app: hostly}}}}
spec:
  nodeName: {second}
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: web, image: "{AGNHOST}", args: [netexec], ports: [{{containerPort: 8080, hostPort: 18080}}]}}
"#
    ));
    cluster.wait_for_pods("app=hostly", 1, MINUTE);
    let status = cluster.status();
    let address = status["node-2"]["primary"].as_str().unwrap();
    for from in ["node-1", "peer"] {
        cluster.wait_for_answer(
            "the host port answers",
            from,
            &Get::new(address, 18080, "/hostname"),
            |a| a == "hostly",
        );
    }
    let other = status["node-1"]["primary"].as_str().unwrap();
    assert_eq!(
        cluster.fetch_one("peer", &Get::new(other, 18080, "/hostname")),
        None
    );
    cluster.kubectl(&["delete", "pod/hostly", "--wait=false"]);
}

fn exec_and_logs(cluster: &Cluster, pods: &[KubePod]) {
    for here in by_node(pods) {
        let (pod, peer) = (here[0], here[1]);
        let target = format!("{}:8080", peer.address);
        cluster.kubectl(&[
            "exec",
            &pod.name,
            "--",
            "/agnhost",
            "connect",
            "--timeout=5s",
            &target,
        ]);
        let nobody = format!("{}:8099", peer.address);
        cluster
            .try_kubectl(&[
                "exec",
                &pod.name,
                "--",
                "/agnhost",
                "connect",
                "--timeout=2s",
                &nobody,
            ])
            .expect_err("nobody listens there");
        let log = cluster.kubectl(&["logs", &pod.name]);
        assert!(log.contains("Started HTTP server on port 8080"), "{log}");
    }
}

fn probes(cluster: &Cluster) {
    // `liveness` answers well for ten seconds, then with an error.
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: sick, labels: {{app: sick}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: sick
    image: "{AGNHOST}"
    args: [liveness]
    livenessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1, failureThreshold: 2}}
"#
    ));
    cluster.wait_for_pods("app=sick", 1, MINUTE);
    wait_for_or(
        || format!("it is started again: {:?}", cluster.pods("app=sick")),
        2 * MINUTE,
        || {
            let pods = cluster.pods("app=sick");
            pods.iter().any(|p| p.restarts > 0).then_some(())
        },
    );
    cluster.kubectl(&["delete", "pod/sick", "--wait=false"]);
}

fn stateful_set(cluster: &Cluster) {
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: 2
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: db, image: "{AGNHOST}", args: [netexec], readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}}}}}
"#
    ));
    let before = cluster.wait_for_pods("app=db", 2, 2 * MINUTE);
    let asker = before[1].address.clone();
    let ask = Get::through(&asker, "db-0.db", 8080, "hostname");
    cluster.wait_for_answer("db-0 is found", "control-plane", &ask, |a| {
        response(a).as_deref() == Some("db-0")
    });
    cluster.kubectl(&["delete", "pod/db-0"]);
    let after = cluster.wait_for_pods("app=db", 2, 2 * MINUTE);
    assert_eq!(after[0].name, "db-0");
    // Its old address rests a while before anybody gets it again.
    assert_ne!(after[0].address, before[0].address);
    let ask = Get::through(&asker, "db-0.db", 8080, "hostname");
    cluster.wait_for_answer("db-0 is found again", "control-plane", &ask, |a| {
        response(a).as_deref() == Some("db-0")
    });
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
