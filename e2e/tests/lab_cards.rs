//! Several network cards: pods with an address of each, beside ordinary ones.

// Functions beside the tests are tests too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use vpcnet_e2e::{Lab, Node, Options, Stream, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// Ten times what is promised of a start.
const SERVES_AGAIN: Duration = Duration::from_secs(1);
/// Two cards, two interfaces on each, 49 addresses for pods on each of those.
const TYPE: &[&str] = &["--type", "hpc7a.12xlarge"];
const ENV: &[&str] = &[
    "ENABLE_MULTI_NIC=true",
    "WARM_IP_TARGET=2",
    "IP_COOLDOWN_PERIOD=1",
];
const OFF: &[&str] = &[
    "ENABLE_MULTI_NIC=false",
    "WARM_IP_TARGET=2",
    "IP_COOLDOWN_PERIOD=1",
];

/// What the plugin answered for each pod of a node: its addresses, in order of its interfaces.
fn addresses(lab: &Lab, node: &str) -> BTreeMap<String, Vec<String>> {
    let pods = lab.json(&["pod", "list", "--json"]);
    let of = |pod: &Value| {
        let ips = pod["result"]["ips"].as_array().cloned().unwrap_or_default();
        ips.iter()
            .filter_map(|ip| ip["address"].as_str()?.strip_suffix("/32").map(str::to_owned))
            .collect()
    };
    let pods = pods.as_array().unwrap().iter().filter(|p| p["node"] == node);
    pods.map(|p| (p["name"].as_str().unwrap().to_owned(), of(p)))
        .collect()
}

/// The addresses in a card's checkpoint; none where there is no such file.
fn owned(node: Node<'_>, card: u32) -> BTreeSet<String> {
    let file = match card {
        0 => node.checkpoint_file(),
        card => node
            .checkpoint_file()
            .with_file_name(format!("ipam-nic-{card}.json")),
    };
    let Ok(text) = std::fs::read_to_string(&file) else {
        return BTreeSet::new();
    };
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let all = json["allocations"].as_array().unwrap().iter();
    all.map(|a| a["ipv4"].as_str().unwrap().to_owned()).collect()
}

/// Total and assigned addresses of a card's pool; none where it is not managed.
fn pool(node: Node<'_>, card: &str) -> Option<(u64, u64)> {
    let page = node.introspect("/v1/enis").ok()?;
    let of = &page[card];
    Some((of["TotalIPs"].as_u64()?, of["AssignedIPs"].as_u64()?))
}

/// Whether nothing is under way, the pool waits for nothing (an interface too many, for one, is given back only a minute after it
/// was made), and that is written down: an agent that is killed before asks EC2 how it ended.
fn is_at_rest(node: Node<'_>) -> Option<bool> {
    let status = node.introspect("/v1/vpcnet/status").ok()?;
    let pool = &status["pool"];
    let file = node.file("/run/aws-node/vpcnet-state.json");
    let state: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let written = state["pool"]["intents"].as_object()?.is_empty();
    Some(written && pool["intents"].as_array()?.is_empty() && pool.get("next_wake_in_ms")?.is_null())
}

fn in_node(lab: &Lab, node: &str, script: &str) -> String {
    lab.run(&["exec", node, "--", "bash", "-c", script])
}

/// The addresses that EC2 has on the interfaces of a card.
fn of_card(node: Node<'_>, card: u32) -> BTreeSet<String> {
    let status = node.status();
    let interfaces = status["interfaces"].as_array().unwrap().iter();
    interfaces
        .filter(|i| i["card"] == card)
        .flat_map(|i| i["addresses"].as_array().unwrap())
        .filter_map(|a| a.as_str()?.strip_suffix("/32").map(str::to_owned))
        .collect()
}

/// Each card's file names the pods' addresses that are the card's, and nothing else.
fn files_are_right(lab: &Lab, node: Node<'_>) {
    let pods: BTreeSet<String> = addresses(lab, node.name).into_values().flatten().collect();
    for card in [0, 1] {
        let here: BTreeSet<String> = pods.intersection(&of_card(node, card)).cloned().collect();
        assert_eq!(owned(node, card), here, "card {card} of {}", node.name);
    }
}

fn check(lab: &Lab) {
    check_untranslated(lab, &[]);
}

/// Every packet path there is; pods go to those CIDRs with their own address.
fn check_untranslated(lab: &Lab, cidrs: &[&str]) {
    let mut words = vec!["check", "--json"];
    for cidr in cidrs {
        words.extend(["--untranslated", cidr]);
    }
    let report = match lab.try_run(&words) {
        Ok(text) => text,
        Err(failure) => failure.stdout,
    };
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|e| panic!("{e}: {report}"));
    let failures: Vec<&Value> = report["failures"].as_array().unwrap().iter().take(20).collect();
    assert_eq!(report["failed"], 0, "of {}: {failures:#?}", report["checks"]);
    println!("{} checks in {} s", report["checks"], report["seconds"]);
}

#[test]
fn sixty_pods_on_two_cards_reach_everything_and_keep_their_addresses() {
    let lab = Lab::up(&Options {
        arguments: &[&["--nodes", "2"], TYPE].concat(),
        env: ENV,
    });
    let nodes = [Node::new(&lab, "node-1"), Node::new(&lab, "node-2")];
    for node in nodes {
        wait_for("both cards have their warm addresses", SOON, || {
            (pool(node, "0")?.0 == 2 && pool(node, "1")?.0 == 1).then_some(())
        });
        // Ordinary pods first, then some that want everything, then both at once.
        let add = |prefix: &str, count: &str, more: &[&str]| {
            let prefix = format!("{prefix}-{}", node.name);
            let usual = ["pod", "add", node.name, "--count", count, "--prefix", &prefix];
            lab.run(&[&usual, more].concat());
        };
        add("plain", "10", &[]);
        add("every", "10", &["--every-card"]);
        std::thread::scope(|scope| {
            scope.spawn(|| add("late-plain", "5", &[]));
            scope.spawn(|| add("late-every", "5", &["--every-card"]));
        });
    }
    for node in nodes {
        let pods = addresses(&lab, node.name);
        assert_eq!(pods.len(), 30);
        for (pod, addresses) in &pods {
            let wanted = if pod.contains("every") { 2 } else { 1 };
            assert_eq!(addresses.len(), wanted, "{pod}: {addresses:?}");
        }
        files_are_right(&lab, node);
    }
    check(&lab);
    for (setting, untranslated) in [
        (
            "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=172.31.0.0/16",
            "172.31.0.0/16",
        ),
        ("AWS_VPC_K8S_CNI_EXTERNALSNAT=true", "0.0.0.0/0"),
    ] {
        for node in nodes {
            node.restart_after_kill(&[ENV, &[setting]].concat(), SERVES_AGAIN);
            node.wait_until_ready(SOON);
        }
        check_untranslated(&lab, &[untranslated]);
    }
    for node in nodes {
        node.restart_after_kill(ENV, SERVES_AGAIN);
        node.wait_until_ready(SOON);
    }

    // A connection to a pod's address on the second card, kept over all that follows.
    let server = "every-node-1-1";
    let second = addresses(&lab, "node-1")[server][1].clone();
    let place = format!("pod/{server}");
    let stream = Stream::open(&lab, "pod/every-node-2-1", &place, &format!("{second}:7000"));
    rules_of_a_second_address_are_put_back(&lab, nodes[0], &second);

    let before = nodes.map(|node| addresses(&lab, node.name));
    wait_for("the pools are at their targets", Duration::from_secs(180), || {
        let free = |card| pool(nodes[0], card).map(|(total, assigned)| total - assigned);
        (free("0")? == 2 && free("1")? == 1 && is_at_rest(nodes[0])?).then_some(())
    });
    let calls = nodes[0].ec2_calls();
    nodes[0].restart_after_kill(ENV, SERVES_AGAIN);
    nodes[0].wait_until_ready(SOON);
    files_are_right(&lab, nodes[0]);
    lab.run(&["agent", "stop", "node-1"]);
    nodes[0].start_agent(ENV);
    nodes[0].wait_until_ready(SOON);
    files_are_right(&lab, nodes[0]);
    assert_eq!(nodes[0].ec2_calls(), calls, "nothing to ask after a start");

    // The second card's file is lost: what the kernel shows behind the pods' links joins what the first one's says.
    let file = nodes[0].checkpoint_file().with_file_name("ipam-nic-1.json");
    nodes[0].kill_agent();
    std::fs::write(&file, r#"{"version":"vpc-cni-ipam/1","alloc"#).unwrap();
    nodes[0].start_agent(ENV);
    nodes[0].wait_until_ready(SOON);
    files_are_right(&lab, nodes[0]);
    let text = std::fs::read_to_string(&file).unwrap();
    let containers = std::fs::read_to_string(nodes[0].checkpoint_file()).unwrap();
    for allocation in serde_json::from_str::<Value>(&text).unwrap()["allocations"]
        .as_array()
        .unwrap()
    {
        let of_several = allocation["metadata"]["interfacesCount"] == 2;
        let container = allocation["containerID"].as_str().unwrap();
        assert!(!of_several || containers.contains(container), "{allocation}");
    }

    // Switched off under running pods: they keep what they have, others get nothing of the second card; and on again.
    lab.run(&["agent", "stop", "node-1"]);
    nodes[0].start_agent(OFF);
    nodes[0].wait_until_ready(SOON);
    files_are_right(&lab, nodes[0]);
    assert!(
        lab.try_run(&["pod", "add", "node-1", "no", "--every-card"])
            .is_err()
    );
    lab.run(&["pod", "rm", "late-every-node-1-1"]);
    files_are_right(&lab, nodes[0]);
    lab.run(&["agent", "stop", "node-1"]);
    nodes[0].start_agent(ENV);
    nodes[0].wait_until_ready(SOON);
    files_are_right(&lab, nodes[0]);
    lab.run(&["pod", "add", "node-1", "late-every-node-1-1", "--every-card"]);
    files_are_right(&lab, nodes[0]);
    let mut after = nodes.map(|node| addresses(&lab, node.name));
    for (before, after) in before.into_iter().zip(&mut after) {
        for (pod, addresses) in before.iter().filter(|(pod, _)| *pod != "late-every-node-1-1") {
            assert_eq!(after.get(pod), Some(addresses), "{pod}");
        }
    }
    check(&lab);
    let (echoes, longest) = stream.close();
    println!("{echoes} echoes, longest gap {longest:?}");
    assert!(echoes > 0);

    all_is_given_back(&lab, nodes);
}

fn rules_of_a_second_address_are_put_back(lab: &Lab, node: Node<'_>, address: &str) {
    let rules = || {
        let all = in_node(lab, node.name, "ip -4 rule show");
        let of: Vec<String> = all
            .lines()
            .filter(|line| line.split_whitespace().any(|word| word == address))
            .map(str::to_owned)
            .collect();
        let route = in_node(lab, node.name, &format!("ip -4 route show {address}"));
        (of, route)
    };
    let before = rules();
    assert_eq!(before.0.len(), 2, "to and from {address}: {before:?}");
    assert!(
        before.0.iter().any(|rule| rule.contains("lookup 10100")),
        "{before:?}"
    );
    in_node(
        lab,
        node.name,
        &format!(
            "ip rule del pref 512 to {address}; ip rule del pref 1536 from {address}; ip route del {address}"
        ),
    );
    wait_for("what was taken is back", SOON, || {
        (rules() == before).then_some(())
    });
}

fn all_is_given_back(lab: &Lab, nodes: [Node<'_>; 2]) {
    lab.run(&["pod", "rm", "--all"]);
    for node in nodes {
        assert_eq!((owned(node, 0), owned(node, 1)), Default::default());
        wait_for("the pools are as at the start", Duration::from_secs(180), || {
            let as_then = pool(node, "0") == Some((2, 0)) && pool(node, "1") == Some((1, 0));
            (as_then && is_at_rest(node)?).then_some(())
        });
        let left = in_node(lab, node.name, "ip -4 rule show | grep -E '^(512|1536):' || true");
        assert_eq!(left, "", "rules of pods that are gone");
    }
    let calls = nodes.map(|node| node.ec2_calls().len());
    // The time itself is what is under test: one turn of the 30 s in which IMDS is read again.
    std::thread::sleep(Duration::from_secs(33));
    assert_eq!(
        nodes.map(|node| node.ec2_calls().len()),
        calls,
        "idle nodes ask EC2 for nothing"
    );
}

/// Makes an interface and attaches it to the second card of a node; returns its id.
fn attach(lab: &Lab, node: Node<'_>, more: &[&str]) -> String {
    let status = node.status();
    let subnet = format!("SubnetId={}", status["subnet"].as_str().unwrap());
    let groups = lab.run(&["ec2", "DescribeSecurityGroups"]);
    let (before, _) = groups.split_once("<groupName>node<").unwrap();
    let (_, group) = before.rsplit_once("<groupId>").unwrap();
    let group = format!("SecurityGroupId.1={}", group.split_once('<').unwrap().0);
    let usual = ["ec2", "CreateNetworkInterface", &subnet, &group];
    let created = lab.run(&[&usual, more].concat());
    let id = created
        .split_once("<networkInterfaceId>")
        .and_then(|(_, rest)| rest.split_once('<'))
        .map(|(id, _)| id.to_owned())
        .unwrap_or_else(|| panic!("no id in {created}"));
    wait_for("the interface is made", SOON, || {
        lab.try_run(&[
            "ec2",
            "AttachNetworkInterface",
            &format!("NetworkInterfaceId={id}"),
            &format!("InstanceId={}", status["instance"].as_str().unwrap()),
            "DeviceIndex=0",
            "NetworkCardIndex=1",
        ])
        .ok()
    });
    wait_for("the interface is attached", SOON, || {
        let status = node.status();
        let mut all = status["interfaces"].as_array()?.iter();
        all.any(|i| i["eni"] == id.as_str()).then_some(())
    });
    id
}

#[test]
fn a_card_for_efa_is_left_alone_and_an_unmanaged_interface_is_not_used() {
    let arguments = [&["--nodes", "3", "--no-agent", "--imds-lag", "0"], TYPE].concat();
    let lab = Lab::up(&Options {
        arguments: &arguments,
        env: &[],
    });
    let (efa, unmanaged) = (Node::new(&lab, "node-1"), Node::new(&lab, "node-2"));
    let image = Node::new(&lab, "node-3");
    let efa_only = attach(&lab, efa, &["InterfaceType=efa-only"]);
    let theirs = attach(
        &lab,
        unmanaged,
        &[
            "SecondaryPrivateIpAddressCount=3",
            "TagSpecification.1.ResourceType=network-interface",
            "TagSpecification.1.Tag.1.Key=node.k8s.amazonaws.com/no_manage",
            "TagSpecification.1.Tag.1.Value=true",
        ],
    );
    // An image that sees to the second card itself, with a table of its own number.
    let its = attach(&lab, image, &[]);
    let status = image.status();
    let mut interfaces = status["interfaces"].as_array().unwrap().iter();
    let its = interfaces.find(|i| i["eni"] == its.as_str()).unwrap();
    let its = its["primary"].as_str().unwrap().to_owned();
    in_node(
        &lab,
        "node-3",
        &format!("ip rule add pref 300 from {its} lookup 10007"),
    );
    for node in [efa, unmanaged, image] {
        node.start_agent(ENV);
        node.wait_until_ready(SOON);
    }

    // Card 1 is not managed: what "every card" means is the one that is left.
    wait_for("card 0 has its warm addresses", SOON, || {
        (pool(efa, "0")?.0 == 2).then_some(())
    });
    assert_eq!(pool(efa, "1"), None, "a card with an EFA-only interface");
    for n in 0..3 {
        lab.run(&["pod", "add", "node-1", &format!("e{n}"), "--every-card"]);
    }
    assert!(addresses(&lab, "node-1").values().all(|a| a.len() == 1));
    assert!(!efa.ec2_calls().contains(&"CreateNetworkInterface".to_owned()));
    let id = format!("NetworkInterfaceId.1={efa_only}");
    let described = lab.run(&["ec2", "DescribeNetworkInterfaces", &id]);
    assert!(!described.contains("k8s.amazonaws.com"), "tagged: {described}");

    // The unmanaged one takes a place; another is made beside it.
    wait_for("card 1 has its warm address", SOON, || {
        (pool(unmanaged, "1")?.0 == 1).then_some(())
    });
    for n in 0..3 {
        lab.run(&["pod", "add", "node-2", &format!("u{n}"), "--every-card"]);
    }
    let given: Vec<Vec<String>> = addresses(&lab, "node-2").into_values().collect();
    assert!(given.iter().all(|a| a.len() == 2), "{given:?}");
    let status = unmanaged.status();
    let interfaces = status["interfaces"].as_array().unwrap();
    let of_theirs = interfaces.iter().find(|i| i["eni"] == theirs.as_str()).unwrap();
    let of_theirs = of_theirs["addresses"].to_string();
    assert!(
        given.iter().flatten().all(|a| !of_theirs.contains(a)),
        "{given:?}"
    );
    let page = unmanaged.introspect("/v1/enis").unwrap();
    assert!(page["1"]["ENIs"].get(&theirs).is_none(), "{page}");
    // The image's table is the pods' table, and the rule for the interface's own address stays the only one.
    wait_for("card 1 has its warm address", SOON, || {
        (pool(image, "1")?.0 == 1).then_some(())
    });
    for n in 0..3 {
        lab.run(&["pod", "add", "node-3", &format!("i{n}"), "--every-card"]);
    }
    let rules = in_node(&lab, "node-3", "ip -4 rule show");
    let of = |address: &str| -> Vec<&str> {
        let own = |line: &&str| line.contains(&format!("from {address} "));
        rules.lines().filter(own).collect()
    };
    for pod in addresses(&lab, "node-3").values() {
        let [rule] = of(&pod[1])[..] else {
            panic!("{rules}")
        };
        assert!(
            rule.starts_with("1536:") && rule.contains("lookup 10007"),
            "{rule}"
        );
    }
    assert_eq!(of(&its).len(), 1, "{rules}");
    check(&lab);
    // Two warm addresses beside three pods', and one beside three.
    wait_for("nothing is under way", SOON, || {
        (pool(unmanaged, "0")? == (5, 3) && pool(unmanaged, "1")? == (4, 3)).then_some(())
    });
    wait_for("nothing is under way", SOON, || {
        (pool(efa, "0")? == (5, 3)).then_some(())
    });
    let calls = [efa, unmanaged].map(|node| node.ec2_calls());
    for node in [efa, unmanaged] {
        node.restart_after_kill(ENV, SERVES_AGAIN);
        node.wait_until_ready(SOON);
        files_are_right(&lab, node);
    }
    assert_eq!([efa, unmanaged].map(|node| node.ec2_calls()), calls);
}
