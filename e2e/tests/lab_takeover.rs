//! A node goes from amazon-vpc-cni-k8s to vpcnet and back, and again, with its pods running: the test plays that agent, by the
//! files, rules and chains its releases write. Connections of every time go on, and no packet leaves by a wrong way.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod takeover;

use std::collections::BTreeSet;

use takeover::scene::{ENV, INTERNET, NODE, PEER, PODS, READY, Scene, in_node, lab};
use takeover::{AGES, Original, Release};
use vpcnet_e2e::{Lab, Node, Options, Stream, binary, wait_for};

#[test]
fn a_node_goes_back_and_over_under_streams_that_never_break() {
    let lab = lab();
    let mut scene = Scene::set(&lab);
    scene.connect("under vpcnet");
    let before = scene.drops();
    for release in [Release::Nft, Release::Legacy, Release::OldNft, Release::OldLegacy] {
        println!("--- {release:?}");
        let original = Original::of(release, &scene.primary);
        original.add_others(&lab);
        scene.go_back(&original);
        scene.connect(&format!("under the original, {release:?}"));
        scene.go_over(&original);
        scene.owners_are_as_ever();
        scene.connect(&format!("under vpcnet, after {release:?}"));
        original.remove_others(&lab);
    }
    assert_eq!(
        scene.drops(),
        before,
        "packets that left by a wrong way or untranslated"
    );
    scene.close();
    scene.check();
    for n in 0..PODS {
        scene
            .node
            .remove(&format!("pod-{n}"))
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The files of releases of all ages, oldest last: the first ones wrote none.
#[test]
fn checkpoints_of_all_ages_and_none_at_all_keep_every_pod_its_address() {
    let lab = lab();
    let mut scene = Scene::set(&lab);
    let stream = Stream::open(
        &lab,
        &format!("pod/pod-{}", scene.pod),
        "pod/far",
        &format!("{}:7000", scene.far),
    );
    let file = scene.node.checkpoint_file();
    for (n, age) in takeover::AGES.iter().enumerate() {
        println!("--- {}", age.name);
        scene.lab.run(&["agent", "stop", NODE]);
        let text = std::fs::read_to_string(&file).unwrap();
        match age.write(&text) {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => {
                std::fs::remove_file(&file).unwrap();
                takeover::rules_by_destination(&lab);
            }
        }
        let _ = std::fs::remove_file(file.with_file_name("vpcnet-state.json"));
        scene.node.start_agent(ENV);
        scene.node.wait_until_ready(READY);
        scene.node.wait_for_pool(27, READY);
        scene.owners_are_as_ever();
        assert!(
            !file.with_file_name("ipam.json.broken-1").exists(),
            "{}: a file that is kept aside was not read",
            age.name
        );
        wait_for("rules are in the present form", READY, || {
            let rules = in_node(&lab, "ip -4 rule");
            let old = rules
                .lines()
                .any(|l| l.starts_with("1536:") && l.contains(" to "));
            (!old && !rules.contains("1537:")).then_some(())
        });
        // A pod of that time goes, by the plugin, and one comes; neither takes anybody's address.
        let gone = scene.pods.len() - 1 - n;
        scene
            .node
            .remove(&format!("pod-{gone}"))
            .unwrap_or_else(|e| panic!("{e}"));
        let address = scene.pods[gone].clone();
        wait_for("the address has no owner any more", READY, || {
            (!scene.node.owners().contains_key(&address)).then_some(())
        });
        scene.pods[gone] = scene.node.must_add(&format!("pod-{gone}"));
        assert_eq!(
            scene.pods.iter().collect::<BTreeSet<_>>().len(),
            PODS,
            "{:?}",
            scene.pods
        );
        scene.owners_are_as_ever();
    }
    let (echoes, longest) = stream.close();
    println!("{echoes} echoes, longest gap {longest:?}");
    assert!(echoes > 0);
}

/// The original translated; vpcnet is told not to, and to mark otherwise, and its pods' links to be named otherwise. Then it goes
/// back with the settings of the beginning.
#[test]
fn settings_that_change_on_the_way_leave_connections_of_before_what_they_need() {
    let lab = lab();
    let mut scene = Scene::set(&lab);
    let original = Original::of(Release::Nft, &scene.primary);
    original.add_others(&lab);
    scene.go_back(&original);
    scene.connect("under the original");
    let before = scene.drops();

    let other = [
        ENV,
        &[
            "AWS_VPC_K8S_CNI_EXTERNALSNAT=true",
            "AWS_VPC_K8S_CNI_CONNMARK=0x100",
        ],
    ]
    .concat();
    scene.node.start_agent(&other);
    scene.node.wait_until_ready(READY);
    let kept = wait_for("it is known what connections of before need", READY, || {
        let status = scene.status();
        let kept = status["agent"]["kept"].to_string();
        (kept.contains("connection mark 0x80 with its rule: kept for ")
            && kept.contains("translation to the node's address: kept for "))
        .then_some(kept)
    });
    println!("{kept}");
    wait_for("the original's rules are gone", READY, || {
        (original.shown(&lab) == original.others()).then_some(())
    });
    let pod = format!("pod/pod-{}", scene.pod);
    let young = Stream::open(&lab, &pod, "peer", &format!("{PEER}:7900"));
    let shown = lab.run(&[
        "exec",
        "peer",
        "--",
        "ss",
        "-Htn",
        "state",
        "established",
        "( sport = :7900 )",
    ]);
    let client = shown
        .split_whitespace()
        .nth(3)
        .unwrap_or_else(|| panic!("{shown:?}"));
    assert!(
        client.starts_with(&format!("{}:", scene.pods[scene.pod])),
        "not translated: {client}"
    );

    // It translates again, and marks otherwise than the original is going to. That one would give its own mark to whatever
    // arrives by the primary interface, if it had to care for node ports.
    let original = Original::of(Release::NoNodePorts, &scene.primary);
    let marks_otherwise = [ENV, &["AWS_VPC_K8S_CNI_CONNMARK=0x100"]].concat();
    scene.node.restart_after_kill(&marks_otherwise, READY);
    wait_for("translation is in force again", READY, || {
        in_node(&lab, "nft list table ip vpcnet")
            .contains("snat to")
            .then_some(())
    });
    let marked = Stream::open(&lab, &pod, "internet", &format!("{INTERNET}:7900"));
    lab.run(&["agent", "stop", NODE]);
    original.take_the_files(&scene.node);
    original.set_up(&lab, |_| {});
    let (code, said) = scene.handed_back("--timeout 1 --node-ports false");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("connections with mark 0x100, which it does not restore: 1 have to end"),
        "{said}"
    );
    assert!(
        in_node(&lab, "nft list tables").contains("ip vpcnet\n"),
        "nothing was changed"
    );
    let (echoes, _) = marked.close();
    assert!(echoes > 0);
    let (code, said) = scene.handed_back("--timeout 60 --node-ports false");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("removed table ip vpcnet, rule 1024 for mark 0x100"),
        "{said}"
    );
    assert_eq!(scene.drops(), before, "packets that left by a wrong way");
    scene.streams.push((
        "pod to peer, opened under vpcnet, not translated".to_owned(),
        young,
    ));
    scene.close();
}

/// The original used the kernel's older tables, and there is no program to look into them: that is said, pods are served all the
/// same, and it is made up for when there is one.
#[test]
fn what_cannot_be_taken_over_is_told_and_made_up_for() {
    let lab = lab();
    let mut scene = Scene::set(&lab);
    let original = Original::of(Release::Legacy, &scene.primary);
    original.add_others(&lab);
    scene.go_back(&original);

    let programs = tempfile::tempdir().unwrap();
    let nft = in_node(&lab, "command -v nft");
    std::os::unix::fs::symlink(nft.trim(), programs.path().join("nft")).unwrap();
    let path = format!("PATH={}", programs.path().display());
    scene.node.start_agent(&[ENV, &[&path]].concat());
    scene.node.wait_until_ready(READY);
    let said = wait_for("what is lacking is told of", READY, || {
        let status = scene.status();
        let error = status["agent"]["takeover_error"].as_str().unwrap();
        (!error.is_empty()).then(|| error.to_owned())
    });
    assert!(said.contains("legacy iptables tables (nat, mangle)"), "{said}");
    assert!(said.contains("install iptables-legacy"), "{said}");
    let program = binary("vpcnet").display().to_string();
    let shown = lab.run(&["exec", NODE, "--", &program, "status"]);
    assert!(shown.contains("! not taken over: "), "{shown}");
    scene.owners_are_as_ever();
    scene.connect("while both agents' rules are in force");

    std::os::unix::fs::symlink(
        in_node(&lab, "command -v iptables-legacy-save").trim(),
        programs.path().join("iptables-legacy-save"),
    )
    .unwrap();
    std::os::unix::fs::symlink(
        in_node(&lab, "command -v iptables-legacy-restore").trim(),
        programs.path().join("iptables-legacy-restore"),
    )
    .unwrap();
    wait_for("it is made up for", READY, || {
        (scene.status()["agent"]["takeover_error"] == "").then_some(())
    });
    assert_eq!(original.shown(&lab), original.others());
    scene.connect("under vpcnet");
    scene.close();
}

const IPV6: &[&str] = &[
    "IP_COOLDOWN_PERIOD=1",
    "ENABLE_IPv4=false",
    "ENABLE_IPv6=true",
    "ENABLE_PREFIX_DELEGATION=true",
];
/// What the original has in the packet filter of an IPv6 cluster's node: nobody opens connections to pods' IPv4 egress.
const REJECT: &str = r#"-d 169.254.172.0/22 -m conntrack --ctstate NEW -m comment --comment "Block Node Local Pod access via IPv4" -j REJECT"#;
/// Somebody's who does the same for another range.
const OTHER: &str =
    r#"-d 169.254.180.0/22 -m comment --comment "Block Node Local Pod access via IPv4, mine" -j REJECT"#;

/// Nothing is translated for pods with IPv6 addresses, so there are no chains; but that rule, the file and its addresses.
#[test]
fn a_node_of_an_ipv6_cluster_goes_back_and_over_under_streams_that_never_break() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large", "--ipv6"],
        env: &["IP_COOLDOWN_PERIOD=1"],
    });
    let (node, far) = (Node::new(&lab, NODE), Node::new(&lab, "node-2"));
    let far = far.must_add("far");
    let pods: BTreeSet<String> = (0..4).map(|n| node.must_add(&format!("pod-{n}"))).collect();
    let first = node.kernel_address("pod-0");
    let streams = [
        Stream::open(&lab, "pod/pod-1", "pod/pod-0", &format!("[{first}]:7000")),
        Stream::open(&lab, "pod/pod-0", "pod/far", &format!("[{far}]:7001")),
        Stream::open(&lab, "pod/far", "pod/pod-0", &format!("[{first}]:7002")),
    ];
    let taken_over = || node.introspect("/v1/vpcnet/status").unwrap()["agent"]["taken_over"].to_string();
    for program in ["iptables-nft", "iptables-legacy"] {
        println!("--- {program}");
        let shown = || in_node(&lab, &format!("{program} -t filter -S FORWARD"));
        in_node(&lab, &format!("{program} --wait -t filter -A FORWARD {OTHER}"));
        let others = shown();

        // Back: there is nothing to wait for, and the original finds its file.
        lab.run(&["agent", "stop", NODE]);
        let vpcnet = binary("vpcnet").display().to_string();
        let said = lab.run(&["exec", NODE, "--", &vpcnet, "handback", "--timeout", "0"]);
        assert!(said.contains("nothing to hand back"), "{said}");
        let file = node.checkpoint_file();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, AGES[0].write(&text).unwrap()).unwrap();
        in_node(&lab, &format!("{program} --wait -t filter -I FORWARD 1 {REJECT}"));
        // A pod of its time with egress, as far as the node's routes tell.
        in_node(
            &lab,
            "ip link add egress9 type veth peer name egress9p; ip link set egress9 up; ip link set egress9p up; ip route add 169.254.172.9 dev egress9 scope link",
        );
        let of_both = shown();

        // Over: what that pod needs stays.
        node.start_agent(IPV6);
        node.wait_until_ready(READY);
        assert_eq!(node.owners().into_keys().collect::<BTreeSet<_>>(), pods);
        let new = node.must_add("new");
        assert!(!pods.contains(&new), "an address was given twice");
        node.remove("new").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(shown(), of_both, "a pod needs it");

        // That pod is gone: nobody needs it any more.
        in_node(&lab, "ip link del egress9");
        node.restart_after_kill(IPV6, READY);
        node.wait_until_ready(READY);
        wait_for("the original's rule is gone", READY, || {
            (shown() == others).then_some(())
        });
        let told = wait_for("that is told", READY, || {
            let told = taken_over();
            told.contains("1 rule in other chains").then_some(told)
        });
        println!("taken over: {told}");
        in_node(&lab, &format!("{program} -t filter -F FORWARD"));
    }
    for stream in streams {
        let (echoes, longest) = stream.close();
        println!("{echoes} echoes, longest gap {longest:?}");
        assert!(echoes > 0);
    }
    let report = lab.json(&["check", "--json"]);
    assert_eq!(report["failed"], 0, "{:#}", report["failures"]);
}
