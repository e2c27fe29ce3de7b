//! Every kind of traffic that pods have: among themselves, by Services, by names, and from outside.

use std::collections::{BTreeMap, BTreeSet};

use vpcnet_e2e::{AGNHOST, Cluster, Get, KubePod, response, wait_for_or};

use crate::MINUTE;

pub(crate) fn by_node(pods: &[KubePod]) -> Vec<Vec<&KubePod>> {
    let mut all: BTreeMap<&str, Vec<&KubePod>> = BTreeMap::new();
    for pod in pods {
        all.entry(&pod.node).or_default().push(pod);
    }
    all.into_values().collect()
}

pub(crate) fn pod_to_pod(cluster: &Cluster, pods: &[KubePod]) {
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

pub(crate) fn service(cluster: &Cluster, name: &str, spec: &str) -> serde_json::Value {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    ));
    cluster.get(&["service", name])
}

pub(crate) fn cluster_ip(cluster: &Cluster, pods: &[KubePod]) {
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

pub(crate) fn names(cluster: &Cluster, pods: &[KubePod]) {
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

pub(crate) fn port_of(service: &serde_json::Value) -> u16 {
    u16::try_from(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap()
}

pub(crate) fn node_port(cluster: &Cluster) {
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

pub(crate) fn local_node_port(cluster: &Cluster) {
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

pub(crate) fn host_port(cluster: &Cluster) {
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
