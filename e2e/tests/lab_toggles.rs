//! Settings of the node's network changed on a running node, each both ways: in force for new connections at once, while those of
//! every earlier setting go on; and when they have ended, no trace of those settings is left.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod toggles;

use std::time::Duration;

use vpcnet_e2e::{Lab, Node, Options, Stream, binary, wait_for};

const READY: Duration = Duration::from_secs(60);
/// The agent looks every 10 s.
const NO_TRACE: Duration = Duration::from_secs(40);
/// A node in the private subnet: the internet answers it also where the node itself does not translate.
const NODE: &str = "node-2";
/// Hosts outside the VPC; the second sees the address that leaves the node.
const INTERNET: &str = "203.0.113.77";
const PEER: &str = "172.31.0.77";
const ENV: &[&str] = &["MINIMUM_IP_TARGET=27", "WARM_IP_TARGET=1", "IP_COOLDOWN_PERIOD=1"];

const EXTERNAL: &str = "AWS_VPC_K8S_CNI_EXTERNALSNAT=true";
const NO_NODE_PORTS: &str = "AWS_VPC_CNI_NODE_PORT_SUPPORT=false";
const OTHER_MARK: &str = "AWS_VPC_K8S_CNI_CONNMARK=0x100";
const OTHER_PREFIX: &str = "AWS_VPC_K8S_CNI_VETHPREFIX=abc";
const SERVICES: &str = "AWS_EXTERNAL_SERVICE_CIDRS=198.51.100.0/24,192.0.2.7/32";
const EXCLUDED: &str = "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=172.31.0.0/16";

fn in_node(lab: &Lab, script: &str) -> String {
    lab.run(&["exec", NODE, "--", "bash", "-c", script])
}

/// What the node shows of its settings.
struct Shown {
    rules: String,
    table: String,
    links: String,
}

impl Shown {
    fn of(lab: &Lab) -> Self {
        Self {
            rules: in_node(lab, "ip -4 rule"),
            table: in_node(lab, "nft list table ip vpcnet 2>/dev/null || true"),
            links: in_node(lab, "ip -o link show up"),
        }
    }

    /// Its rules but for those of pods and interfaces.
    fn of_settings(&self) -> Vec<&str> {
        let others = ["512:", "1536:", "32765:"];
        let rules = self.rules.lines();
        rules
            .filter(|rule| !others.iter().any(|priority| rule.starts_with(priority)))
            .collect()
    }

    fn translates(&self) -> bool {
        self.table.contains("snat to")
    }

    fn rule_for(&self, mark: &str) -> bool {
        self.rules
            .contains(&format!("1024:\tfrom all fwmark {mark}/{mark} lookup main"))
    }
}

/// Who the peer takes the pod for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Seen {
    Node,
    Pod,
}

struct Step {
    env: &'static [&'static str],
    in_force: fn(&Shown) -> bool,
    seen: Seen,
}

const DEFAULT: Step = Step {
    env: &[],
    in_force: |s| {
        let table = s.translates() && s.table.contains("fib daddr . iif") && s.table.contains("fully-random");
        table && s.rule_for("0x80") && !s.rules.contains("1535:") && !s.table.contains("172.31.0.0")
    },
    seen: Seen::Node,
};

/// Each setting, and back. In between, what comes together where it matters.
const STEPS: &[Step] = &[
    DEFAULT,
    Step {
        env: &[EXTERNAL],
        in_force: |s| !s.translates() && s.table.contains("fib daddr . iif") && s.rule_for("0x80"),
        seen: Seen::Pod,
    },
    DEFAULT,
    Step {
        env: &[EXTERNAL, NO_NODE_PORTS],
        in_force: |s| !s.translates() && !s.table.contains("fib daddr . iif"),
        seen: Seen::Pod,
    },
    DEFAULT,
    Step {
        env: &[OTHER_MARK],
        in_force: |s| s.translates() && s.rule_for("0x100"),
        seen: Seen::Node,
    },
    DEFAULT,
    Step {
        env: &[EXCLUDED],
        in_force: |s| s.translates() && s.table.contains("172.31.0.0/16"),
        seen: Seen::Pod,
    },
    DEFAULT,
    Step {
        env: &["AWS_VPC_K8S_CNI_RANDOMIZESNAT=none"],
        in_force: |s| s.translates() && !s.table.contains("random"),
        seen: Seen::Node,
    },
    Step {
        env: &["AWS_VPC_K8S_CNI_RANDOMIZESNAT=hashrandom"],
        in_force: |s| s.table.contains("random") && !s.table.contains("fully-random"),
        seen: Seen::Node,
    },
    DEFAULT,
    Step {
        env: &[SERVICES],
        in_force: |s| {
            s.rules.contains("1535:\tfrom all to 198.51.100.0/24 lookup main")
                && s.rules.contains("1535:\tfrom all to 192.0.2.7 lookup main")
        },
        seen: Seen::Node,
    },
    DEFAULT,
    Step {
        env: &[OTHER_PREFIX],
        in_force: |s| s.table.contains("\"abc*\"") && s.table.contains("\"eni*\""),
        seen: Seen::Node,
    },
    DEFAULT,
    Step {
        env: &["AWS_VPC_ENI_MTU=1500"],
        in_force: |s| {
            !s.links
                .lines()
                .any(|l| l.contains(": eth") && l.contains("mtu 9001"))
        },
        seen: Seen::Node,
    },
    DEFAULT,
    Step {
        env: &[NO_NODE_PORTS],
        in_force: |s| s.translates() && !s.table.contains("fib daddr . iif"),
        seen: Seen::Node,
    },
    Step {
        env: &[EXTERNAL, NO_NODE_PORTS, OTHER_PREFIX, OTHER_MARK],
        in_force: |s| !s.translates() && s.table.contains("\"abc*\""),
        seen: Seen::Pod,
    },
];

fn kept(node: Node<'_>) -> Vec<String> {
    let status = node.introspect("/v1/vpcnet/status").unwrap();
    let list = status["agent"]["kept"]
        .as_array()
        .unwrap_or_else(|| panic!("{status}"));
    list.iter().map(|k| k.as_str().unwrap().to_owned()).collect()
}

/// Starts the agent anew, with the settings of the mode and those of the step.
fn restart(lab: &Lab, node: Node<'_>, mode: &[&str], step: &Step) {
    let env: Vec<&str> = ENV.iter().chain(mode).chain(step.env).copied().collect();
    node.restart_after_kill(&env, READY);
    wait_for(&format!("{:?} is in force", step.env), READY, || {
        (step.in_force)(&Shown::of(lab)).then_some(())
    });
}

/// A pod under test, by one of its addresses.
struct Subject<'a> {
    place: &'a str,
    address: &'a str,
    /// The kernel of the pod would choose another address than this one: it is on a further network card.
    further: bool,
}

impl Subject<'_> {
    /// A connection of the pod's.
    fn dial(&self, lab: &Lab, to: &str, address: &str) -> Stream {
        if self.further {
            Stream::open_from(lab, self.place, self.address, to, address)
        } else {
            Stream::open(lab, self.place, to, address)
        }
    }

    /// A connection to the peer, and who the peer thinks opened it.
    fn dial_peer(&self, lab: &Lab, port: usize) -> (Stream, String) {
        let stream = self.dial(lab, "peer", &format!("{PEER}:{port}"));
        (stream, opened_by(lab, "peer", port))
    }
}

/// Who is at the other end of the connection to a port that `place` serves.
fn opened_by(lab: &Lab, place: &str, port: usize) -> String {
    let filter = format!("ss -Htn state established '( sport = :{port} )'");
    let shown = lab.run(&["exec", place, "--", "bash", "-c", &filter]);
    let client = shown
        .split_whitespace()
        .nth(3)
        .unwrap_or_else(|| panic!("{shown:?}"));
    let address = client.rsplit_once(':').unwrap().0;
    address.trim_matches(['[', ']']).to_owned()
}

#[test]
fn every_setting_is_changed_both_ways_under_connections_that_never_break_and_leaves_no_trace() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large"],
        env: ENV,
    });
    Node::new(&lab, NODE).wait_for_pool(27, READY);
    toggle(&lab, &[], &[]);
}

#[test]
fn so_it_is_with_prefixes_and_custom_networking() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let setting = format!("VPCNET_NODE_FILE={}", file.path().display());
    let mode = [
        "ENABLE_PREFIX_DELEGATION=true",
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true",
        &setting,
    ];
    let env: Vec<&str> = ENV.iter().chain(&mode).copied().collect();
    let lab = Lab::up(&Options {
        arguments: &["--subnet", "a=10.0.64.0/20,a", "--subnet", "b=10.0.80.0/20,b"],
        env: &env,
    });
    let subnets: Vec<String> = ["a", "b"].iter().map(|name| subnet_id(&lab, name)).collect();
    let config = serde_json::json!({ "eniConfig": { "name": "pods", "subnets": subnets } });
    std::fs::write(file.path(), config.to_string()).unwrap();
    Node::new(&lab, NODE).wait_for_pool(32, READY);
    toggle(&lab, &mode, &[]);
}

#[test]
fn so_it_is_with_the_address_of_a_second_network_card() {
    let mode = ["ENABLE_MULTI_NIC=true"];
    let env: Vec<&str> = ENV.iter().chain(&mode).copied().collect();
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "hpc7a.12xlarge"],
        env: &env,
    });
    toggle(&lab, &mode, &["--every-card"]);
}

fn subnet_id(lab: &Lab, name: &str) -> String {
    let filter = format!("Filter.1.Value.1={name}");
    let printed = lab.run(&["ec2", "DescribeSubnets", "Filter.1.Name=tag:Name", &filter]);
    let (_, rest) = printed
        .split_once("<subnetId>")
        .unwrap_or_else(|| panic!("{printed}"));
    rest.split_once('<').unwrap().0.to_owned()
}

/// The addresses of a pod, in the order of its interfaces.
fn addresses(lab: &Lab, pod: &str) -> Vec<String> {
    let pods = lab.json(&["pod", "list", "--json"]);
    let pod = pods
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == pod)
        .unwrap();
    let ips = pod["result"]["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap())
        .map(|net| net.split_once('/').unwrap().0.to_owned())
        .collect()
}

/// `mode`: settings of the pool that do not change; `cards`: what pods ask for beside a name.
fn toggle(lab: &Lab, mode: &[&str], cards: &[&str]) {
    let (far, node) = (Node::new(lab, "node-1"), Node::new(lab, NODE));
    far.wait_until_ready(READY);
    node.wait_until_ready(READY);
    let before = Shown::of(lab);
    let add = |node: &str, pod: &str| -> Vec<String> {
        lab.run(&[&["pod", "add", node, pod], cards].concat());
        addresses(lab, pod)
    };
    let far_pod = add("node-1", "far").pop().unwrap();
    let pods: Vec<String> = (0..14)
        .map(|n| add(NODE, &format!("pod-{n}")).pop().unwrap())
        .collect();
    let primary = node.status()["primary"].as_str().unwrap().to_owned();
    let rules = in_node(lab, "ip -4 rule");
    let (number, address) = pods
        .iter()
        .enumerate()
        .find(|(_, address)| rules.contains(&format!("1536:\tfrom {address} ")))
        .expect("a pod on a secondary interface");
    let place = format!("pod/pod-{number}");
    let pod = Subject {
        place: &place,
        address,
        further: !cards.is_empty(),
    };
    let other = (0..14).find(|n| *n != number).unwrap();
    let mut streams = vec![
        pod.dial(lab, "internet", &format!("{INTERNET}:7000")),
        pod.dial(lab, &format!("pod/pod-{other}"), &format!("{}:7000", pods[other])),
        pod.dial(lab, "pod/far", &format!("{far_pod}:7000")),
        Stream::open(lab, "pod/far", &place, &format!("{address}:7001")),
        // The peer calls the pod.
        Stream::open(lab, "peer", &place, &format!("{address}:7002")),
    ];
    for (n, step) in STEPS.iter().enumerate() {
        restart(lab, node, mode, step);
        if step.env == [SERVICES] {
            in_node(lab, "ip -4 rule delete to 192.0.2.7 priority 1535");
            wait_for("a rule that somebody took is back", READY, || {
                (step.in_force)(&Shown::of(lab)).then_some(())
            });
        }
        let (stream, seen) = pod.dial_peer(lab, 7100 + n);
        let wanted = if step.seen == Seen::Node {
            &primary
        } else {
            address
        };
        assert_eq!(&seen, wanted, "who the peer sees with {:?}", step.env);
        streams.push(stream);
        println!("{:?}: kept {:?}", step.env, kept(node));
    }
    streams.push(pod.dial(lab, "internet", &format!("{INTERNET}:7001")));

    let said = wait_for("it is known who needs what of earlier settings", NO_TRACE, || {
        let said = kept(node);
        (!said.iter().any(|line| line.contains("until it is known"))).then_some(said)
    });
    // A pod has one for each of its cards.
    let links = pods.len() * addresses(lab, "pod-0").len();
    let of_pods = format!(
        "pods' links named eni…: kept for {links} links of the time before AWS_VPC_K8S_CNI_VETHPREFIX=abc"
    );
    for part in [
        "connection mark 0x80 with its rule: kept for ",
        "connection mark 0x100 with its rule: kept for 1 connection of the time before",
        "translation to the node's address: kept for ",
        &of_pods,
    ] {
        assert!(said.iter().any(|line| line.starts_with(part)), "{part}: {said:?}");
    }
    let program = binary("vpcnet").display().to_string();
    let status = lab.run(&["exec", NODE, "--", &program, "status"]);
    assert!(
        status.contains("kept of earlier settings: connection mark 0x80"),
        "{status}"
    );

    for stream in streams {
        let (echoes, longest) = stream.close();
        println!("{echoes} echoes, longest gap {longest:?}");
        assert!(echoes > 0);
    }
    wait_for("only what pods need is left", NO_TRACE, || {
        let shown = Shown::of(lab);
        let trace = shown.rules.contains("fwmark")
            || shown.table.contains("chain source_nat")
            || shown.table.contains("0x00000080");
        (!trace && kept(node).len() == 1).then_some(())
    });
    for n in 0..14 {
        node.remove(&format!("pod-{n}")).unwrap_or_else(|e| panic!("{e}"));
    }
    wait_for("no trace is left", NO_TRACE, || {
        let trace = Shown::of(lab).table.contains("\"eni*\"");
        (!trace && kept(node).is_empty()).then_some(())
    });
    restart(lab, node, mode, &DEFAULT);
    wait_for("everything is as it was", NO_TRACE, || {
        let now = Shown::of(lab);
        (now.of_settings() == before.of_settings() && now.table == before.table).then_some(())
    });
}
