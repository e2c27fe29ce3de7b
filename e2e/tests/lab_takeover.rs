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
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use takeover::{Original, Release};
use vpcnet_e2e::{Lab, Node, Options, Stream, binary, wait_for};

const READY: Duration = Duration::from_secs(60);
/// The whole pool of an m5.large, so that the pods live on three interfaces.
const ENV: &[&str] = &["MINIMUM_IP_TARGET=27", "WARM_IP_TARGET=1", "IP_COOLDOWN_PERIOD=1"];
const NODE: &str = "node-1";
/// Hosts outside the VPC; the second sees the address that leaves the node.
const INTERNET: &str = "203.0.113.77";
const PEER: &str = "172.31.0.77";
const NODE_PORT: u16 = 30080;
const PODS: usize = 16;

fn in_node(lab: &Lab, script: &str) -> String {
    lab.run(&["exec", NODE, "--", "bash", "-ec", script])
}

/// A node with pods on all its interfaces, and one of them that the tests look at: it is on a secondary interface.
struct Scene<'a> {
    lab: &'a Lab,
    node: Node<'a>,
    far: String,
    pods: Vec<String>,
    pod: usize,
    /// Of the node: as the VPC knows it, and as the internet does.
    primary: String,
    public: String,
    streams: Vec<(String, Stream)>,
    port: u16,
}

impl<'a> Scene<'a> {
    fn set(lab: &'a Lab) -> Self {
        let (far, node) = (Node::new(lab, "node-2"), Node::new(lab, NODE));
        far.wait_until_ready(READY);
        node.wait_for_pool(27, READY);
        let far = far.must_add("far");
        let pods: Vec<String> = (0..PODS).map(|n| node.must_add(&format!("pod-{n}"))).collect();
        let rules = in_node(lab, "ip -4 rule");
        let on_secondary = |address: &String| rules.contains(&format!("1536:\tfrom {address} "));
        let pod = pods
            .iter()
            .position(on_secondary)
            .expect("a pod on a secondary interface");
        let status = node.status();
        Self {
            lab,
            node,
            far,
            pods,
            pod,
            primary: status["primary"].as_str().unwrap().to_owned(),
            public: status["public"].as_str().unwrap().to_owned(),
            streams: Vec::new(),
            port: 7000,
        }
    }

    /// New connections of every kind, kept from now on. The peer must see the node's address.
    fn connect(&mut self, time: &str) {
        let (pod, other) = (
            format!("pod/pod-{}", self.pod),
            format!("pod/pod-{}", (self.pod + 1) % PODS),
        );
        let (address, neighbour) = (&self.pods[self.pod], &self.pods[(self.pod + 1) % PODS]);
        self.port += 10;
        let port = self.port;
        let at = |address: &str, n: u16| format!("{address}:{}", port + n);
        let open = |from: &str, to: &str, at: String| Stream::open(self.lab, from, to, &at);
        let node_port = format!("{}:{NODE_PORT}", self.public);
        // kube-proxy's part: the port leads to the pod that the newest stream serves in.
        let lead = format!(
            "nft 'flush chain ip kubeproxy services; add rule ip kubeproxy services fib daddr type local tcp dport {NODE_PORT} dnat to {address}:{}'",
            port + 5
        );
        in_node(self.lab, &lead);
        let new = [
            ("pod to internet", open(&pod, "internet", at(INTERNET, 0))),
            ("pod to peer", open(&pod, "peer", at(PEER, 1))),
            ("peer to pod", open("peer", &pod, at(address, 2))),
            ("pod to pod, other node", open(&pod, "pod/far", at(&self.far, 3))),
            ("pod to pod, same node", open(&pod, &other, at(neighbour, 4))),
            (
                "internet to node port",
                Stream::open_by(self.lab, "internet", &pod, &at(address, 5), &node_port),
            ),
        ];
        let filter = format!("ss -Htn state established '( sport = :{} )'", port + 1);
        let shown = self.lab.run(&["exec", "peer", "--", "bash", "-c", &filter]);
        let client = shown
            .split_whitespace()
            .nth(3)
            .unwrap_or_else(|| panic!("{shown:?}"));
        assert_eq!(
            client.rsplit_once(':').unwrap().0,
            self.primary,
            "who the peer sees, {time}"
        );
        let named = new
            .into_iter()
            .map(|(what, stream)| (format!("{what}, opened {time}"), stream));
        self.streams.extend(named);
    }

    fn close(&mut self) {
        for (what, stream) in self.streams.drain(..) {
            let (echoes, longest) = stream.close();
            println!("{what}: {echoes} echoes, longest gap {longest:?}");
            assert!(echoes > 0, "{what}");
        }
    }

    /// Every pod has the address it was given at first, and it is the owner in the agent's file.
    fn owners_are_as_ever(&self) {
        let owned: BTreeSet<String> = self.node.owners().into_keys().collect();
        assert_eq!(owned, self.pods.iter().cloned().collect());
        for (n, address) in self.pods.iter().enumerate() {
            assert_eq!(&self.node.kernel_address(&format!("pod-{n}")), address);
        }
    }

    fn status(&self) -> Value {
        self.node.introspect("/v1/vpcnet/status").unwrap()
    }

    /// Packets that the VPC dropped so far: one that left untranslated, or by a wrong interface, is among them. The kernel tells of
    /// drops in the end, and in their order: so one more is provoked, and waited for.
    fn drops(&self) -> Vec<Value> {
        let nobody = format!("10.0.240.{}", self.port / 10 % 256);
        in_node(self.lab, &format!("echo > /dev/udp/{nobody}/9"));
        wait_for("a drop that was provoked is told of", READY, || {
            let drops = self.lab.json(&["drops", "--json"]);
            let (provoked, others): (Vec<Value>, Vec<Value>) =
                drops.as_array().unwrap().iter().cloned().partition(|drop| {
                    drop["destination"]
                        .as_str()
                        .is_some_and(|to| to.starts_with("10.0.240."))
                });
            provoked
                .iter()
                .any(|drop| drop["destination"] == nobody)
                .then_some(others)
        })
    }

    /// The lab's packets between everything, all right.
    fn check(&self) {
        let checked = self.lab.json(&["check", "--json"]);
        assert_eq!(checked["failed"], 0, "{checked}");
    }

    fn handback(&self, arguments: &str) -> Child {
        let program = binary("vpcnet").display().to_string();
        let script = format!("exec {program} handback {arguments} 2>&1");
        self.lab
            .command(&["exec", NODE, "--", "bash", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Its exit code and all it said.
    fn handed_back(&self, arguments: &str) -> (Option<i32>, String) {
        let output = self.handback(arguments).wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said)
    }

    /// Stops vpcnetd and lets the original serve, while handback waits for it.
    fn go_back(&mut self, original: &Original) {
        let (code, said) = self.handed_back("--timeout 0");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("vpcnetd runs on this node"), "{said}");
        let before = in_node(self.lab, "ip rule; nft list table ip vpcnet");
        self.lab.run(&["agent", "stop", NODE]);
        let after = in_node(self.lab, "ip rule; nft list table ip vpcnet");
        assert_eq!(before, after, "stopping removes nothing");

        let (code, said) = self.handed_back("--timeout 0");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("AWS-SNAT-CHAIN-0 is not there"), "{said}");
        let waiting = self.handback("--timeout 60");
        original.take_the_files(&self.node);
        original.set_up(self.lab, |rules| {
            let done = !in_node(self.lab, "nft list tables").contains("ip vpcnet\n");
            assert!(
                !done,
                "ours went before all of theirs was there: {rules} of its rules"
            );
        });
        let output = waiting.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.contains("waiting") && said.contains("removed table ip vpcnet"),
            "{said}"
        );
        assert!(!in_node(self.lab, "nft list ruleset").contains("table ip vpcnet {"));
        let (code, said) = self.handed_back("--timeout 0");
        assert_eq!(code, Some(0), "a second time: {said}");
        assert!(said.contains("nothing to hand back"), "{said}");
    }

    /// Starts vpcnetd on the node of the original.
    fn go_over(&mut self, original: &Original) {
        self.node.start_agent(ENV);
        self.node.wait_until_ready(READY);
        self.node.wait_for_pool(27, READY);
        let told = wait_for("what was taken over is told of", READY, || {
            let told = self.status()["agent"]["taken_over"].to_string();
            told.contains("AWS-SNAT-CHAIN-0").then_some(told)
        });
        println!("taken over: {told}");
        assert_eq!(self.status()["agent"]["takeover_error"], "");
        assert_eq!(
            original.shown(self.lab),
            original.others(),
            "what is left in the tables"
        );
        assert!(in_node(self.lab, "nft list tables").contains("ip vpcnet\n"));
        let metrics = in_node(
            self.lab,
            "exec 3<>/dev/tcp/127.0.0.1/61678; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
        );
        assert!(metrics.contains("vpcnet_taken_over_total{"), "{metrics}");
    }
}

#[test]
fn a_node_goes_back_and_over_under_streams_that_never_break() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large"],
        env: ENV,
    });
    in_node(
        &lab,
        "nft 'table ip kubeproxy { chain services { type nat hook prerouting priority -100; }; }'",
    );
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
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large"],
        env: ENV,
    });
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
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large"],
        env: ENV,
    });
    in_node(
        &lab,
        "nft 'table ip kubeproxy { chain services { type nat hook prerouting priority -100; }; }'",
    );
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
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large"],
        env: ENV,
    });
    in_node(
        &lab,
        "nft 'table ip kubeproxy { chain services { type nat hook prerouting priority -100; }; }'",
    );
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
