//! A lab with a node that changes its agent, pods on all its interfaces, and connections of every kind.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use vpcnet_e2e::{Lab, Node, Options, Stream, binary, wait_for};

use super::Original;

pub(crate) const READY: Duration = Duration::from_secs(60);
/// The whole pool of an m5.large, so that the pods live on three interfaces.
pub(crate) const ENV: &[&str] = &["MINIMUM_IP_TARGET=27", "WARM_IP_TARGET=1", "IP_COOLDOWN_PERIOD=1"];
pub(crate) const NODE: &str = "node-1";
/// Hosts outside the VPC; the second sees the address that leaves the node.
pub(crate) const INTERNET: &str = "203.0.113.77";
pub(crate) const PEER: &str = "172.31.0.77";
pub(crate) const NODE_PORT: u16 = 30080;
pub(crate) const PODS: usize = 16;

/// Two nodes, and a chain for kube-proxy's part on the one that changes its agent.
pub(crate) fn lab() -> Lab {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large"],
        env: ENV,
    });
    in_node(
        &lab,
        "nft 'table ip kubeproxy { chain services { type nat hook prerouting priority -100; }; }'",
    );
    lab
}

pub(crate) fn in_node(lab: &Lab, script: &str) -> String {
    lab.run(&["exec", NODE, "--", "bash", "-ec", script])
}

/// A node with pods on all its interfaces, and one of them that the tests look at: it is on a secondary interface.
pub(crate) struct Scene<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) node: Node<'a>,
    pub(crate) far: String,
    pub(crate) pods: Vec<String>,
    pub(crate) pod: usize,
    /// Of the node: as the VPC knows it, and as the internet does.
    pub(crate) primary: String,
    pub(crate) public: String,
    pub(crate) streams: Vec<(String, Stream)>,
    pub(crate) port: u16,
}

impl<'a> Scene<'a> {
    pub(crate) fn set(lab: &'a Lab) -> Self {
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
    pub(crate) fn connect(&mut self, time: &str) {
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

    pub(crate) fn close(&mut self) {
        for (what, stream) in self.streams.drain(..) {
            let (echoes, longest) = stream.close();
            println!("{what}: {echoes} echoes, longest gap {longest:?}");
            assert!(echoes > 0, "{what}");
        }
    }

    /// Every pod has the address it was given at first, and it is the owner in the agent's file.
    pub(crate) fn owners_are_as_ever(&self) {
        let owned: BTreeSet<String> = self.node.owners().into_keys().collect();
        assert_eq!(owned, self.pods.iter().cloned().collect());
        for (n, address) in self.pods.iter().enumerate() {
            assert_eq!(&self.node.kernel_address(&format!("pod-{n}")), address);
        }
    }

    pub(crate) fn status(&self) -> Value {
        self.node.introspect("/v1/vpcnet/status").unwrap()
    }

    /// Packets that the VPC dropped so far: one that left untranslated, or by a wrong interface, is among them. The kernel tells of
    /// drops in the end, and in their order: so one more is provoked, and waited for.
    pub(crate) fn drops(&self) -> Vec<Value> {
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
    pub(crate) fn check(&self) {
        let checked = self.lab.json(&["check", "--json"]);
        assert_eq!(checked["failed"], 0, "{checked}");
    }

    pub(crate) fn handback(&self, arguments: &str) -> Child {
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
    pub(crate) fn handed_back(&self, arguments: &str) -> (Option<i32>, String) {
        let output = self.handback(arguments).wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said)
    }

    /// Stops vpcnetd and lets the original serve, while handback waits for it.
    pub(crate) fn go_back(&mut self, original: &Original) {
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
    pub(crate) fn go_over(&mut self, original: &Original) {
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
