//! An IPv6 cluster: pods have addresses of the primary interface's /80 prefix, which is all that EC2 is ever asked for.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use vpcnet_e2e::{Lab, Node, Options, Stream, wait_for};

const READY: Duration = Duration::from_secs(60);
/// Ten times what is promised: figures proper are the benchmark's.
const SERVES_AGAIN: Duration = Duration::from_secs(1);
/// Ten times what is promised.
const PUT_RIGHT: Duration = Duration::from_secs(1);
/// Longer than the 30 s between two readings of IMDS.
const WATCHED: Duration = Duration::from_secs(35);
const ENV: &[&str] = &[
    "IP_COOLDOWN_PERIOD=1",
    "ENABLE_IPv4=false",
    "ENABLE_IPv6=true",
    "ENABLE_PREFIX_DELEGATION=true",
];

fn lab(nodes: &str) -> Lab {
    Lab::up(&Options {
        arguments: &["--nodes", nodes, "--type", "m5.large", "--ipv6"],
        env: &["IP_COOLDOWN_PERIOD=1"],
    })
}

fn in_node(lab: &Lab, script: &str) -> String {
    lab.run(&["exec", "node-1", "--", "bash", "-c", script])
}

/// One check of everything; what it tried, by kind.
fn all_packets_go_right(lab: &Lab) -> serde_json::Value {
    let report = lab.json(&["check", "--json"]);
    assert_eq!(report["failed"], 0, "{:#}", report["failures"]);
    report["kinds"].clone()
}

#[test]
fn sixty_pods_reach_everybody_and_ec2_was_asked_once_for_each_node() {
    let lab = lab("2");
    let nodes = ["node-1", "node-2"].map(|name| Node::new(&lab, name));
    let mut addresses = BTreeSet::new();
    for node in nodes {
        let burst = lab.json(&[
            "pod", "add", node.name, "--count", "30", "--prefix", node.name, "--json",
        ]);
        assert_eq!(burst["failed"], 0, "{:#}", burst["failures"]);
        addresses.extend(node.pods().into_iter().map(|pod| pod.address));
        assert_eq!(node.ec2_calls(), ["AssignIpv6Addresses"]);
    }
    assert_eq!(addresses.len(), 60);
    assert!(
        addresses.iter().all(|a| a.parse::<Ipv6Addr>().is_ok()),
        "{addresses:?}"
    );
    let kinds = all_packets_go_right(&lab);
    for kind in [
        "ipv6-pod-to-pod-same-node",
        "ipv6-pod-to-pod-across",
        "ipv6-pod-to-own-node",
        "ipv6-pod-to-other-node",
        "ipv6-node-to-pod",
        "ipv6-pod-to-internet",
        "ipv6-internet-to-node-port",
        "ipv6-full-size-packet",
        "ipv6-spoofed-foreign-source",
        "ipv6-unowned-destination",
    ] {
        let checks = kinds[kind]["checks"].as_u64().unwrap_or_default();
        assert!(checks > 0, "{kind} was not tried: {kinds:#}");
    }
    for node in nodes {
        assert_eq!(
            node.ec2_calls().len(),
            1,
            "nothing of that asked EC2 for anything"
        );
        let owned: BTreeSet<String> = node.owners().into_keys().collect();
        assert_eq!(owned, node.pods().into_iter().map(|pod| pod.address).collect());
    }
    // Gone, they leave nothing behind.
    lab.run(&["pod", "rm", "--all"]);
    assert!(nodes[0].owners().is_empty());
    let rules = in_node(&lab, "ip -6 rule");
    assert!(!rules.contains("512:"), "{rules}");
    wait_for("the pods' routes are gone", READY, || {
        let routes = in_node(&lab, "ip -6 route show table main");
        (!routes.contains("dev eni")).then_some(())
    });
}

#[test]
fn a_killed_agent_keeps_its_pods_and_their_connections_and_comes_back_without_ec2_and_imds() {
    let lab = lab("1");
    let node = Node::new(&lab, "node-1");
    let first = node.must_add("pod-0");
    let second = node.must_add("pod-1");
    let stream = Stream::open(&lab, "pod/pod-0", "pod/pod-1", &format!("[{second}]:7000"));
    let calls = node.ec2_calls();
    lab.run(&["fault", "add", "*", "--error", "Unavailable:503"]);
    lab.run(&["fault", "add", "imds:*", "--hang"]);
    node.restart_after_kill(ENV, SERVES_AGAIN);
    assert_eq!(node.kernel_address("pod-0"), first);
    let new = node.must_add("after");
    assert!(new != first && new != second);
    assert_eq!(node.kernel_address("after"), new);
    node.remove("after").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(node.owners().len(), 2);
    assert_eq!(node.ec2_calls(), calls, "a warm start asks EC2 for nothing");
    stream.close();
    lab.run(&["fault", "clear"]);
    all_packets_go_right(&lab);
}

#[test]
fn lost_files_are_rebuilt_from_the_kernel_while_pods_run() {
    let lab = lab("1");
    let node = Node::new(&lab, "node-1");
    let before: BTreeSet<String> = (0..5).map(|n| node.must_add(&format!("pod-{n}"))).collect();
    node.kill_agent();
    std::fs::remove_file(node.checkpoint_file()).unwrap();
    std::fs::remove_file(node.file("/run/aws-node/vpcnet-state.json")).unwrap();
    node.start_agent(ENV);
    node.wait_until_ready(READY);
    let rebuilt: BTreeSet<String> = node.owners().into_keys().collect();
    assert_eq!(rebuilt, before);
    assert!(
        !before.contains(&node.must_add("new")),
        "an address was given twice"
    );
    // EC2 may be asked what there is, where IMDS does not show the prefix yet; it is not asked for another one.
    let asked = node.ec2_calls();
    let assigned = asked.iter().filter(|call| *call == "AssignIpv6Addresses");
    assert_eq!(assigned.count(), 1, "{asked:?}");
    all_packets_go_right(&lab);
}

#[test]
fn what_somebody_takes_from_the_network_is_put_right() {
    let lab = lab("1");
    let node = Node::new(&lab, "node-1");
    let pod = node.must_add("pod-0");
    let network = || in_node(&lab, "ip -6 rule; ip -6 route show table main | grep -v fe80");
    let wanted = network();
    for edit in [
        &format!("ip -6 rule del to {pod} priority 512"),
        &format!("ip -6 route del {pod} table main"),
        &format!("ip -6 route replace {pod} dev lo table main"),
        "ip -6 rule del priority 1024",
    ] {
        in_node(&lab, edit);
        let start = Instant::now();
        wait_for(&format!("put right after `{edit}`"), PUT_RIGHT, || {
            (network() == wanted).then_some(())
        });
        println!("{edit}: put right {:?} later", start.elapsed());
    }
    let forwarding = "/proc/sys/net/ipv6/conf/all/forwarding";
    in_node(&lab, &format!("echo 0 > {forwarding}"));
    wait_for("forwarding is on again", PUT_RIGHT, || {
        (in_node(&lab, &format!("cat {forwarding}")) == "1\n").then_some(())
    });
}

#[test]
fn an_idle_node_reads_two_values_of_imds_and_nothing_of_ec2() {
    let lab = lab("1");
    let node = Node::new(&lab, "node-1");
    node.must_add("web");
    let (ec2, imds) = (node.calls("ec2").len(), node.calls("imds").len());
    // The time itself is what is under test.
    std::thread::sleep(WATCHED);
    assert_eq!(node.calls("ec2").len(), ec2);
    let reads: BTreeSet<String> = node
        .calls("imds")
        .iter()
        .skip(imds)
        .filter_map(|c| Some(c["action"].as_str()?.rsplit('/').next()?.to_owned()))
        .collect();
    let wanted = ["security-group-ids", "vpc-ipv6-cidr-blocks"].map(str::to_owned);
    assert_eq!(reads, BTreeSet::from(wanted));
}

#[test]
fn without_an_ipv6_address_the_agent_says_what_is_missing() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large", "--no-agent"],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    let mut start = vec!["agent", "start", node.name, "--no-wait"];
    for pair in ENV {
        start.extend(["--env", pair]);
    }
    lab.run(&start);
    let said = wait_for("the agent says why it is not ready", READY, || {
        node.cni_status()
            .err()
            .map(|e| e.to_string())
            .filter(|e| e.contains("ENABLE_IPv6"))
    });
    assert!(said.contains("the instance has no IPv6 address"), "{said}");
}
