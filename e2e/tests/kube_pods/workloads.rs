//! What Kubernetes does with pods over their network: exec, logs, probes, and names that stay when pods are made anew.

use vpcnet_e2e::{AGNHOST, Cluster, Get, KubePod, response, wait_for_or};

use crate::MINUTE;
use crate::traffic::by_node;

pub(crate) fn exec_and_logs(cluster: &Cluster, pods: &[KubePod]) {
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

pub(crate) fn probes(cluster: &Cluster) {
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

pub(crate) fn stateful_set(cluster: &Cluster) {
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
