use ipnet::Ipv4Net;
use vpcnet_config::{Finding, PortChoice, vars};

use crate::case::{Case, read, says, silent, switch, switch_in};

const V6: [(&str, &str); 2] = [("ENABLE_IPv6", "true"), ("ENABLE_PREFIX_DELEGATION", "true")];

#[test]
fn aws_vpc_eni_mtu() {
    let mtu = || Case::new(&vars::AWS_VPC_ENI_MTU, |c| c.host.mtu);
    mtu()
        .unset(9001)
        .takes(&[("576", 576), ("1500", 1500), ("9001", 9001)])
        .refuses(&["575", "9002", "jumbo", "-1", "1500 "]);
    mtu()
        .with(&V6)
        .unset(9001)
        .takes(&[("1280", 1280)])
        .refuses(&["1279", "576"]);
}

#[test]
fn pod_mtu() {
    Case::new(&vars::POD_MTU, |c| (c.host.mtu, c.host.pod_mtu))
        .with(&[("AWS_VPC_ENI_MTU", "8000")])
        .unset((8000, 8000))
        .takes(&[("576", (8000, 576)), ("1500", (8000, 1500))])
        .refuses(&["575", "9002", "small"]);
    Case::new(&vars::POD_MTU, |c| c.host.pod_mtu)
        .with(&V6)
        .refuses(&["1279"]);
    says(
        &[("POD_MTU", "9000"), ("AWS_VPC_ENI_MTU", "1500")],
        &["POD_MTU=9000 is more than AWS_VPC_ENI_MTU=1500"],
    );
}

#[test]
fn aws_vpc_k8s_cni_externalsnat() {
    switch(&vars::AWS_VPC_K8S_CNI_EXTERNALSNAT, false, |c| {
        c.host.external_snat
    });
}

fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

#[test]
fn aws_vpc_k8s_cni_exclude_snat_cidrs() {
    Case::new(&vars::AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS, |c| {
        c.host.exclude_snat.clone()
    })
    .unset(nets(&[]))
    .takes(&[
        ("192.168.0.0/16", nets(&["192.168.0.0/16"])),
        (
            " 10.1.2.3/8 ,, 10.0.0.0/8,1.2.3.4/32",
            nets(&["10.0.0.0/8", "1.2.3.4/32"]),
        ),
        (
            "10.0.0.0/8,fd00::/8,nonsense,10.0.0.0/33,10.0.0.0",
            nets(&["10.0.0.0/8"]),
        ),
    ]);
    let wrong = read(&[(
        "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
        "10.0.0.0/8,fd00::/8,nonsense",
    )]);
    let said: Vec<String> = wrong.findings.iter().map(ToString::to_string).collect();
    assert!(
        said.len() == 2 && said[0].contains("fd00::/8") && said[1].contains("nonsense"),
        "{said:?}"
    );
    says(
        &[
            ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.0.0.0/8"),
            ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true"),
        ],
        &["AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=10.0.0.0/8 has no effect"],
    );
}

#[test]
fn aws_vpc_k8s_cni_randomizesnat() {
    Case::new(&vars::AWS_VPC_K8S_CNI_RANDOMIZESNAT, |c| c.host.ports)
        .unset(PortChoice::Random)
        .takes(&[
            ("prng", PortChoice::Random),
            ("hashrandom", PortChoice::HashRandom),
            ("none", PortChoice::Kernel),
        ])
        .passes_over(&["PRNG", "random", "true"]);
    says(
        &[
            ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "none"),
            ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true"),
        ],
        &["AWS_VPC_K8S_CNI_RANDOMIZESNAT=none has no effect"],
    );
}

#[test]
fn aws_external_service_cidrs() {
    Case::new(&vars::AWS_EXTERNAL_SERVICE_CIDRS, |c| {
        c.host.external_services.clone()
    })
    .unset(nets(&[]))
    .takes(&[("172.20.1.2/16,fd00::/8", nets(&["172.20.0.0/16"]))]);
    let wrong = read(&[("AWS_EXTERNAL_SERVICE_CIDRS", "fd00::/8")]);
    assert!(
        matches!(&wrong.findings[..], [Finding::Ignored(_)]),
        "{:?}",
        wrong.findings
    );
}

#[test]
fn aws_vpc_cni_node_port_support() {
    switch(&vars::AWS_VPC_CNI_NODE_PORT_SUPPORT, true, |c| c.host.node_port);
}

#[test]
fn aws_vpc_k8s_cni_connmark() {
    Case::new(&vars::AWS_VPC_K8S_CNI_CONNMARK, |c| c.host.mark)
        .unset(0x80)
        .takes(&[
            ("0x100", 0x100),
            ("0XfF", 0xff),
            ("256", 256),
            ("0200", 0o200),
            ("0o17", 0o17),
            ("0b11", 3),
            ("0xffffffff", u32::MAX),
        ])
        .passes_over(&[
            "0x100000000",
            "4294967296",
            "0",
            "00",
            "-1",
            "0x",
            "mark",
            "09",
            "1 ",
        ]);
}

#[test]
fn aws_vpc_k8s_cni_vethprefix() {
    Case::new(&vars::AWS_VPC_K8S_CNI_VETHPREFIX, |c| c.host.veth_prefix.clone())
        .unset("eni".into())
        .takes(&["veth", "cali", "p", "a-b", "x_1", "et"].map(|p| (p, p.to_owned())))
        .refuses(&["eth", "vlan", "lo", "longer", "a/b", "a b", "a*", "é", "..", "."]);
    // A pattern of it would take the node's own interfaces for pods'.
    says(&[("AWS_VPC_K8S_CNI_VETHPREFIX", "et")], &["et", "(eth…)"]);
    silent(&[("AWS_VPC_K8S_CNI_VETHPREFIX", "veth")]);
}

#[test]
fn vpcnet_proc_sys() {
    Case::new(&vars::VPCNET_PROC_SYS, |c| c.host.proc_sys.clone())
        .unset(None)
        .takes(&[("/node/proc/sys", Some("/node/proc/sys".into()))]);
}

#[test]
fn enable_v4_egress() {
    switch_in(&vars::ENABLE_V4_EGRESS, true, |c| c.egress.v4, &V6);
    assert!(
        !read(&[("ENABLE_V4_EGRESS", "true")]).config.egress.v4,
        "not in an IPv4 cluster"
    );
    says(
        &[("ENABLE_V4_EGRESS", "false")],
        &["no effect", "for IPv6 clusters"],
    );
}

#[test]
fn enable_v6_egress() {
    switch(&vars::ENABLE_V6_EGRESS, false, |c| c.egress.v6);
    let v6 = [V6[0], V6[1], ("ENABLE_V6_EGRESS", "true")];
    assert!(!read(&v6).config.egress.v6, "not in an IPv6 cluster");
    says(&v6, &["ENABLE_V6_EGRESS=true has no effect", "for IPv4 clusters"]);
}
