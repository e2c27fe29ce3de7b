use vpcnet_config::vars;

use crate::case::{Case, read, switch};

#[test]
fn my_node_name() {
    Case::new(&vars::MY_NODE_NAME, |c| c.kubernetes.node_name.clone())
        .unset(None)
        .takes(&[("ip-10-0-0-1", Some("ip-10-0-0-1".into()))]);
}

#[test]
fn my_pod_name() {
    Case::new(&vars::MY_POD_NAME, |c| c.kubernetes.pod_name.clone())
        .unset(None)
        .takes(&[("aws-node-x", Some("aws-node-x".into()))]);
}

#[test]
fn cluster_endpoint() {
    Case::new(&vars::CLUSTER_ENDPOINT, |c| c.kubernetes.endpoint.clone())
        .unset(None)
        .takes(&[("https://k.example", Some("https://k.example".into()))]);
}

#[test]
fn kubeconfig() {
    Case::new(&vars::KUBECONFIG, |c| c.kubernetes.kubeconfig.clone())
        .unset(None)
        .takes(&[("/etc/kubeconfig", Some("/etc/kubeconfig".into()))]);
}

#[test]
fn kubernetes_service_host() {
    Case::new(&vars::KUBERNETES_SERVICE_HOST, |c| {
        c.kubernetes.service_host.clone()
    })
    .unset(None)
    .takes(&[("172.20.0.1", Some("172.20.0.1".into()))]);
}

#[test]
fn kubernetes_service_port() {
    Case::new(&vars::KUBERNETES_SERVICE_PORT, |c| {
        c.kubernetes.service_port.clone()
    })
    .unset(None)
    .takes(&[("6443", Some("6443".into()))]);
}

#[test]
fn annotate_pod_ip() {
    switch(&vars::ANNOTATE_POD_IP, false, |c| c.kubernetes.annotate_pod_ip);
}

#[test]
fn network_policy_enforcing_mode() {
    let case = Case::new(&vars::NETWORK_POLICY_ENFORCING_MODE, |c| {
        c.kubernetes.policy_mode.clone()
    });
    // Handed on as it is written.
    case.takes(&["none", "Standard", "STRICT"].map(|m| (m, m.to_owned())))
        // Empty is not "not set" here: it would switch policies off.
        .refuses(&["lax", "", " strict"]);
    let unset = read(&[]);
    assert!(unset.config.kubernetes.policy_mode.is_empty() && unset.findings.is_empty());
}
