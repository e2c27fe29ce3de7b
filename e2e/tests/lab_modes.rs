//! How pods get their addresses: single ones, prefixes, custom networking, subnet discovery, and pools that others fill.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;
use vpcnet_e2e::{Lab, Node, Options, wait_for, wait_for_or};

const READY: Duration = Duration::from_secs(60);
const PREFIXES: &str = "ENABLE_PREFIX_DELEGATION=true";

/// Adds pods to a node, some at a time, and returns their addresses. None may fail.
fn add(lab: &Lab, node: &str, count: u32) -> Vec<Ipv4Addr> {
    let count = count.to_string();
    lab.run(&[
        "pod",
        "add",
        node,
        "--count",
        &count,
        "--prefix",
        node,
        "--parallel",
        "8",
    ]);
    let pods = Node::new(lab, node).pods();
    pods.iter().map(|p| p.address.parse().unwrap()).collect()
}

/// Every packet path between everything there is. `untranslated`: where pods go with their own address.
#[track_caller]
fn check(lab: &Lab, untranslated: &[&str]) -> Value {
    let mut words = vec!["check", "--json"];
    for cidr in untranslated {
        words.extend(["--untranslated", cidr]);
    }
    let printed = match lab.try_run(&words) {
        Ok(printed) => printed,
        Err(failure) => panic!("{failure}\n{}", lab.run(&["drops"])),
    };
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["failed"], 0, "{report}");
    assert!(report["checks"].as_u64().unwrap() > 1000, "{report}");
    report["kinds"].clone()
}

/// The same with SNAT as by default, with excluded CIDRs, and without SNAT, under pods that run. `env`: of the mode; `to_pods`: for each
/// of the two nodes, pods that its ports lead to: one of the primary interface, one of another; `public`: pods of public subnets.
fn check_with_every_translation(lab: &Lab, env: &[&str], to_pods: u64, public: u64) {
    let peer = ["AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=172.31.0.0/16"];
    let settings: [(&[&str], &[&str]); 4] = [
        (&[], &[]),
        (&peer, &["172.31.0.0/16"]),
        (&["AWS_VPC_K8S_CNI_EXTERNALSNAT=true"], &["0.0.0.0/0"]),
        (&[], &[]),
    ];
    for (number, (setting, untranslated)) in settings.iter().enumerate() {
        for name in ["node-1", "node-2"].iter().filter(|_| number > 0) {
            let node = Node::new(lab, name);
            let env: Vec<&str> = env.iter().chain(*setting).copied().collect();
            node.restart_after_kill(&env, READY);
            node.wait_until_ready(READY);
        }
        let kinds = check(lab, untranslated);
        let tried = |kind: &str| kinds[kind]["checks"].as_u64().unwrap_or_default();
        // By UDP and TCP: the first node has a public address, the second is reached by the peer.
        assert_eq!(
            tried("internet-to-node-port"),
            2 * to_pods,
            "{setting:?}: {kinds}"
        );
        assert_eq!(tried("peer-to-node-port"), 2 * to_pods, "{setting:?}: {kinds}");
        // As itself a pod has no public address: the internet gateway lets none of them out, a NAT gateway does.
        let (seen, kept_in) = if untranslated.contains(&"0.0.0.0/0") {
            (60 - public, public)
        } else {
            (60, 0)
        };
        assert_eq!(tried("pod-to-internet"), 2 * seen, "{setting:?}: {kinds}");
        assert_eq!(
            tried("untranslated-pod-to-internet"),
            kept_in,
            "{setting:?}: {kinds}"
        );
        assert_eq!(tried("pod-to-peer"), 2 * 60, "{setting:?}: {kinds}");
    }
}

/// Single addresses and prefixes that EC2 has on a node's interfaces.
fn held(node: &Node<'_>) -> (usize, usize) {
    let all = node.ec2_addresses();
    let prefixes = all.iter().filter(|a| a.ends_with("/28")).count();
    (all.len() - prefixes, prefixes)
}

fn is_in(address: Ipv4Addr, network: &str) -> bool {
    let (base, length) = network.split_once('/').unwrap();
    let base: Ipv4Addr = base.parse().unwrap();
    let shift = 32 - length.parse::<u32>().unwrap();
    address.to_bits() >> shift == base.to_bits() >> shift
}

/// What the agent would have an operator put right.
fn notes(node: &Node<'_>) -> String {
    node.introspect("/v1/vpcnet/status").unwrap()["agent"]["notes"].to_string()
}

#[test]
fn sixty_pods_have_single_addresses_of_primary_and_other_interfaces() {
    let env = ["IP_COOLDOWN_PERIOD=1"];
    let lab = Lab::up(&Options {
        arguments: &["--type", "m5.xlarge"],
        env: &env,
    });
    for name in ["node-1", "node-2"] {
        assert_eq!(add(&lab, name, 30).len(), 30);
        assert_eq!(held(&Node::new(&lab, name)).1, 0, "no prefixes");
    }
    check_with_every_translation(&lab, &env, 2, 30);
}

#[test]
fn sixty_pods_have_addresses_of_prefixes_of_primary_and_other_interfaces() {
    // One prefix has room on each of its two interfaces.
    let env = [PREFIXES, "IP_COOLDOWN_PERIOD=1", "VPCNET_MAX_PODS=40"];
    let lab = Lab::up(&Options {
        arguments: &["--type", "t3.nano"],
        env: &env,
    });
    for name in ["node-1", "node-2"] {
        assert_eq!(add(&lab, name, 30).len(), 30);
        assert_eq!(held(&Node::new(&lab, name)), (0, 2), "addresses and prefixes");
    }
    check_with_every_translation(&lab, &env, 2, 30);
}

#[test]
fn sixty_pods_have_addresses_of_prefixes() {
    let lab = Lab::up(&Options {
        arguments: &[],
        env: &[PREFIXES, "IP_COOLDOWN_PERIOD=1"],
    });
    let nodes = ["node-1", "node-2"].map(|name| Node::new(&lab, name));
    for node in &nodes {
        let addresses = add(&lab, node.name, 30);
        assert_eq!(addresses.len(), 30);
    }
    check(&lab, &[]);
    for node in &nodes {
        // Two for the pods, one warm: all by prefixes.
        wait_for_or(
            || format!("{} has three prefixes and has {:?}", node.name, held(node)),
            READY,
            || (held(node) == (0, 3)).then_some(()),
        );
    }
    let node = &nodes[0];
    let calls = node.ec2_calls().len();
    node.restart_after_kill(&[PREFIXES, "IP_COOLDOWN_PERIOD=1"], READY);
    node.wait_until_ready(READY);
    node.must_add("after-the-restart");
    assert_eq!(node.ec2_calls().len(), calls, "{:?}", node.ec2_calls());
    lab.run(&["pod", "rm", "--all"]);
    wait_for_or(
        || format!("one warm prefix is left of {:?}", held(node)),
        READY,
        || (held(node) == (0, 1)).then_some(()),
    );
}

#[test]
fn where_no_prefix_is_left_single_addresses_serve_all_pods() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--fragment", "subnet-a"],
        env: &[PREFIXES],
    });
    // The ADDs' own deadline is what counts: a pod that is refused fails the burst.
    let addresses = add(&lab, "node-1", 20);
    let different: BTreeSet<_> = addresses.iter().collect();
    assert_eq!(different.len(), 20);
    let node = Node::new(&lab, "node-1");
    let (singles, prefixes) = held(&node);
    assert!(singles >= 20 && prefixes == 0, "{singles} {prefixes}");
}

#[test]
fn with_custom_networking_pods_are_in_the_configured_subnets_of_their_zone() {
    let file = std::env::temp_dir().join(format!("vpcnet-node-{}.json", std::process::id()));
    let _removed = Removed(file.clone());
    let setting = format!("VPCNET_NODE_FILE={}", file.display());
    let custom = ["AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true", &setting];
    let lab = Lab::up(&Options {
        arguments: &[
            "--type",
            "m5.xlarge",
            "--subnet",
            "pods-a=10.0.64.0/20,a",
            "--subnet",
            "pods-b=10.0.80.0/20,b",
        ],
        env: &custom,
    });
    let nodes = ["node-1", "node-2"].map(|name| Node::new(&lab, name));
    // Before anybody says which subnets these are, no pod gets an address, and the reason is told.
    let refused = nodes[0].add("too-early").unwrap_err().to_string();
    assert!(refused.contains("subnet"), "{refused}");
    assert!(
        notes(&nodes[0]).contains("VPCNET_NODE_FILE"),
        "{}",
        notes(&nodes[0])
    );

    let subnets: Vec<String> = ["pods-a", "pods-b"]
        .iter()
        .map(|name| subnet_id(&lab, name))
        .collect();
    let config = serde_json::json!({ "eniConfig": { "name": "pods", "subnets": subnets } });
    std::fs::write(&file, config.to_string()).unwrap();
    for (node, network) in nodes.iter().zip(["10.0.64.0/20", "10.0.80.0/20"]) {
        wait_for_or(
            || {
                format!(
                    "{}: an interface in its zone's subnet: {}",
                    node.name,
                    node.status()
                )
            },
            READY,
            || node.pool().is_ok_and(|(total, _)| total > 0).then_some(()),
        );
        let addresses = add(&lab, node.name, 30);
        assert_eq!(addresses.len(), 30);
        assert!(addresses.iter().all(|a| is_in(*a, network)), "{addresses:?}");
    }
    // Pods never have addresses of the primary interface.
    check_with_every_translation(&lab, &custom, 1, 0);
    // The other zone's subnet is named as of no use here.
    assert!(notes(&nodes[0]).contains(&subnets[1]), "{}", notes(&nodes[0]));
    assert!(!notes(&nodes[0]).contains(&subnets[0]), "{}", notes(&nodes[0]));
}

#[test]
fn tagged_subnets_take_new_interfaces_and_excluded_ones_take_no_pod() {
    let lab = Lab::up(&Options {
        arguments: &[
            "--nodes",
            "1",
            "--no-agent",
            "--subnet",
            "tagged=10.0.64.0/20,a,kubernetes.io/role/cni=1",
            "--subnet",
            "silent=10.0.96.0/20,a",
            "--subnet",
            "elsewhere=10.0.112.0/20,b,kubernetes.io/role/cni=1",
        ],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    let own = node.status()["interfaces"][0]["subnet"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.run(&[
        "ec2",
        "CreateTags",
        &format!("ResourceId.1={own}"),
        "Tag.1.Key=kubernetes.io/role/cni",
        "Tag.1.Value=0",
    ]);
    node.start_agent(&[]);
    let addresses: Vec<Ipv4Addr> = (0..12)
        .map(|n| node.must_add(&format!("pod-{n}")).parse().unwrap())
        .collect();
    assert!(
        addresses.iter().all(|a| is_in(*a, "10.0.64.0/20")),
        "{addresses:?}"
    );
    let subnets = node
        .ec2_calls()
        .iter()
        .filter(|c| *c == "DescribeSubnets")
        .count();
    assert_eq!(subnets, 1, "asked once and kept: {:?}", node.ec2_calls());
}

/// Nothing is created or given back: what somebody else assigns is used once a pod asks for it.
fn filled_by_others(setting: &str, may_ask_ec2: bool) {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--imds-lag", "200"],
        env: &[setting],
    });
    let node = Node::new(&lab, "node-1");
    assert!(node.add("too-early").is_err());
    let eni = node.status()["interfaces"][0]["eni"].as_str().unwrap().to_owned();
    lab.run(&[
        "ec2",
        "AssignPrivateIpAddresses",
        &format!("NetworkInterfaceId={eni}"),
        "SecondaryPrivateIpAddressCount=3",
    ]);
    // As the kubelet does: again and again, in one sandbox after the other.
    let mut tries = 0;
    wait_for("the address that somebody assigned is used", READY, || {
        tries += 1;
        node.add(&format!("pod-{tries}")).ok()
    });
    let changes: Vec<String> = node
        .ec2_calls()
        .into_iter()
        .filter(|call| !(may_ask_ec2 && call.starts_with("Describe")))
        .collect();
    assert_eq!(changes, Vec::<String>::new());
}

#[test]
fn without_provisioning_the_pool_is_what_the_node_was_given() {
    filled_by_others("DISABLE_NETWORK_RESOURCE_PROVISIONING=true", true);
}

#[test]
fn by_imds_only_ec2_is_never_asked() {
    filled_by_others("ENABLE_IMDS_ONLY_MODE=true", false);
}

#[test]
fn an_interface_that_somebody_attaches_is_used_before_any_pod_asks() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--imds-lag", "200"],
        env: &["DISABLE_NETWORK_RESOURCE_PROVISIONING=true"],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(0, READY);
    let status = node.status();
    let subnet = status["interfaces"][0]["subnet"].as_str().unwrap();
    let made = lab.run(&[
        "ec2",
        "CreateNetworkInterface",
        &format!("SubnetId={subnet}"),
        "SecondaryPrivateIpAddressCount=4",
    ]);
    let id = between(&made, "<networkInterfaceId>");
    lab.run(&[
        "ec2",
        "AttachNetworkInterface",
        &format!("NetworkInterfaceId={id}"),
        &format!("InstanceId={}", status["instance"].as_str().unwrap()),
        "DeviceIndex=1",
    ]);
    node.wait_for_pool(4, READY);
    node.must_add("pod-1");
}

#[test]
fn the_nodes_own_targets_hold_as_soon_as_they_are_written() {
    let file = std::env::temp_dir().join(format!("vpcnet-targets-{}.json", std::process::id()));
    let _removed = Removed(file.clone());
    let setting = format!("VPCNET_NODE_FILE={}", file.display());
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1"],
        env: &["WARM_IP_TARGET=2", &setting],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(2, READY);
    std::fs::write(&file, r#"{"targets": {"WARM_IP_TARGET": 5}}"#).unwrap();
    node.wait_for_pool(5, READY);
    // A cordoned node does not grow.
    std::fs::write(
        &file,
        r#"{"targets": {"WARM_IP_TARGET": 7}, "unschedulable": true}"#,
    )
    .unwrap();
    wait_for("it is cordoned", READY, || {
        let plan = node.introspect("/v1/vpcnet/plan").ok()?.to_string();
        plan.contains("cordoned").then_some(())
    });
    assert_eq!(node.pool().unwrap().0, 5);
    std::fs::write(&file, r#"{"targets": {"WARM_IPS": 5}}"#).unwrap();
    wait_for("what is wrong with the file is told", READY, || {
        notes(&node).contains("WARM_IPS").then_some(())
    });
    std::fs::write(&file, r#"{"targets": {"WARM_IP_TARGET": 7}}"#).unwrap();
    node.wait_for_pool(7, READY);
    assert!(!notes(&node).contains("WARM_IPS"));
}

fn subnet_id(lab: &Lab, name: &str) -> String {
    let printed = lab.run(&[
        "ec2",
        "DescribeSubnets",
        "Filter.1.Name=tag:Name",
        &format!("Filter.1.Value.1={name}"),
    ]);
    between(&printed, "<subnetId>")
}

fn between(text: &str, tag: &str) -> String {
    text.split_once(tag)
        .and_then(|(_, rest)| rest.split_once('<'))
        .map(|(id, _)| id.to_owned())
        .unwrap_or_else(|| panic!("no {tag} in {text}"))
}

/// A file that goes with the test, also when that fails.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
