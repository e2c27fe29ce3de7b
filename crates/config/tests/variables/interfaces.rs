use std::collections::BTreeMap;

use vpcnet_config::{Enforcing, Family, Finding, vars};

use crate::case::{Case, read, says, silent, switch};

#[test]
fn enable_ipv4() {
    Case::new(&vars::ENABLE_IPV4, |c| c.family)
        .unset(Family::V4)
        .takes(&[("true", Family::V4), ("1", Family::V4)])
        .passes_over(&["yes", "tRUE"]);
    // Not set beside IPv6, it is off: the manifest of an IPv6 cluster may leave it out.
    silent(&[("ENABLE_IPv6", "true"), ("ENABLE_PREFIX_DELEGATION", "true")]);
    says(
        &[("ENABLE_IPv4", "false")],
        &["ENABLE_IPv4=false and ENABLE_IPv6=false", "no addresses"],
    );
    assert!(read(&[("ENABLE_IPv4", "false")]).accept().is_err());
}

#[test]
fn enable_ipv6() {
    let prefixes = [("ENABLE_PREFIX_DELEGATION", "true")];
    Case::new(&vars::ENABLE_IPV6, |c| c.family)
        .with(&prefixes)
        .unset(Family::V4)
        .takes(&[("true", Family::V6), ("false", Family::V4)])
        .passes_over(&["yes", "6"]);
    for (vars, part) in [
        (
            &[("ENABLE_IPv6", "true"), prefixes[0], ("ENABLE_IPv4", "true")],
            "one family",
        ),
        (
            &[("ENABLE_IPv6", "true"), ("A", ""), ("ENABLE_IPv4", "false")],
            "IPv6 addresses come from prefixes",
        ),
        (
            &[
                ("ENABLE_IPv6", "true"),
                prefixes[0],
                ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
            ],
            "custom networking is for IPv4 only",
        ),
    ] {
        says(vars, &[part]);
        assert!(read(vars).accept().is_err(), "{vars:?}");
    }
    says(
        &[("ENABLE_IPv6", "true"), prefixes[0], ("WARM_IP_TARGET", "5")],
        &["WARM_IP_TARGET=5 has no effect", "/80"],
    );
}

#[test]
fn enable_prefix_delegation() {
    switch(&vars::ENABLE_PREFIX_DELEGATION, false, |c| c.pool.prefixes);
    // With IPv6 no IPv4 target is asked for.
    silent(&[
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("ENABLE_IPv6", "true"),
        ("WARM_PREFIX_TARGET", "1"),
    ]);
    let v6 = read(&[
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("ENABLE_IPv6", "true"),
        ("WARM_PREFIX_TARGET", "0"),
    ]);
    assert!(v6.accept().is_ok());
}

#[test]
fn aws_vpc_k8s_cni_custom_network_cfg() {
    switch(&vars::AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, false, |c| {
        c.interfaces.custom_networking.is_some()
    });
}

const CUSTOM: [(&str, &str); 1] = [("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true")];

#[test]
fn eni_config_annotation_def() {
    Case::new(&vars::ENI_CONFIG_ANNOTATION_DEF, |c| {
        c.interfaces.custom_networking.clone().unwrap().annotation
    })
    .with(&CUSTOM)
    .unset("k8s.amazonaws.com/eniConfig".into())
    .takes(&[("a.example/b", "a.example/b".into())]);
    says(
        &[("ENI_CONFIG_ANNOTATION_DEF", "a/b")],
        &["ENI_CONFIG_ANNOTATION_DEF=a/b has no effect"],
    );
}

#[test]
fn eni_config_label_def() {
    Case::new(&vars::ENI_CONFIG_LABEL_DEF, |c| {
        c.interfaces.custom_networking.clone().unwrap().label
    })
    .with(&CUSTOM)
    .unset("k8s.amazonaws.com/eniConfig".into())
    .takes(&[(
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/zone".into(),
    )]);
    says(
        &[("ENI_CONFIG_LABEL_DEF", "a/b")],
        &["ENI_CONFIG_LABEL_DEF=a/b has no effect"],
    );
}

#[test]
fn enable_subnet_discovery() {
    switch(&vars::ENABLE_SUBNET_DISCOVERY, true, |c| {
        c.interfaces.subnet_discovery
    });
}

#[test]
fn enable_pod_eni() {
    switch(&vars::ENABLE_POD_ENI, false, |c| c.branch.enabled);
}

#[test]
fn pod_security_group_enforcing_mode() {
    let wrong = ["Strict", "STANDARD", "none", "strict "];
    let case = || Case::new(&vars::POD_SECURITY_GROUP_ENFORCING_MODE, |c| c.branch.enforcing);
    let values = [("strict", Enforcing::Strict), ("standard", Enforcing::Standard)];
    case().unset(Enforcing::Strict).takes(&values).passes_over(&wrong);
    case()
        .with(&[("ENABLE_POD_ENI", "true")])
        .unset(Enforcing::Strict)
        .takes(&values)
        .refuses(&wrong);
    says(
        &[("POD_SECURITY_GROUP_ENFORCING_MODE", "standard")],
        &["no effect", "ENABLE_POD_ENI is not true"],
    );
}

#[test]
fn enable_multi_nic() {
    switch(&vars::ENABLE_MULTI_NIC, false, |c| c.interfaces.multi_nic);
    says(
        &[("ENABLE_MULTI_NIC", "true"), ("WARM_IP_TARGET", "5")],
        &["network cards other than the first keep 1 address"],
    );
}

#[test]
fn manage_untagged_eni() {
    switch(&vars::MANAGE_UNTAGGED_ENI, true, |c| c.cloud.manage_untagged);
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn additional_eni_tags() {
    Case::new(&vars::ADDITIONAL_ENI_TAGS, |c| c.cloud.tags.clone())
        .unset(tags(&[]))
        .takes(&[
            ("{}", tags(&[])),
            (
                r#"{"team":"a","empty":""}"#,
                tags(&[("team", "a"), ("empty", "")]),
            ),
            // What EC2 would refuse the whole interface for is left out.
            (
                r#"{"a":"b","node.k8s.amazonaws.com/x":"y","aws:z":"1","AWS:z":"1"}"#,
                tags(&[("a", "b")]),
            ),
            (r#"{"":"b","ä":"c"}"#, tags(&[("ä", "c")])),
        ])
        .passes_over(&["{team", "[]", "1", r#"{"a":1}"#, r#"{"a":null}"#, "null", " "]);
    let long = format!(
        r#"{{"{}":"kept","{}":"long key","key":"{}"}}"#,
        "é".repeat(128),
        "k".repeat(129),
        "v".repeat(257)
    );
    let reading = read(&[("ADDITIONAL_ENI_TAGS", &long)]);
    assert_eq!(reading.config.cloud.tags.len(), 1);
    let ignored = reading
        .findings
        .iter()
        .filter(|f| matches!(f, Finding::Ignored(_)));
    assert_eq!(ignored.count(), 2, "{:?}", reading.findings);
    let many: Vec<String> = (0..50).map(|n| format!(r#""k{n:02}":"v""#)).collect();
    let reading = read(&[("ADDITIONAL_ENI_TAGS", &format!("{{{}}}", many.join(",")))]);
    assert_eq!((reading.config.cloud.tags.len(), reading.findings.len()), (46, 4));
}

#[test]
fn cluster_name() {
    Case::new(&vars::CLUSTER_NAME, |c| c.cloud.cluster.clone())
        .unset(None)
        .takes(&[("prod", Some("prod".into()))]);
}
