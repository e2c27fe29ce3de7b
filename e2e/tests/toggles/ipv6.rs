//! Where pods have IPv6 addresses nothing is translated or marked, so most settings mean nothing there, and must do nothing; pods'
//! egress in the other family is the egress plugin's, and none of the agent's settings takes it away.

use serde_json::{Value, json};
use vpcnet_e2e::{Lab, Node, Options, Stream, binary, wait_for};

use crate::{
    EXCLUDED, EXTERNAL, NO_NODE_PORTS, NO_TRACE, OTHER_MARK, OTHER_PREFIX, READY, SERVICES, kept, opened_by,
};

/// A node in the public subnet: the internet may call its pods.
const NODE: &str = "node-1";
const INTERNET: &str = "203.0.113.77";
/// In the range that the pods' security group opens to the internet.
const OPEN: usize = 30_600;

struct Step {
    env: &'static [&'static str],
    /// Of rule 1024.
    mark: Option<&'static str>,
    /// Of the node's interfaces, bytes.
    mtu: u32,
}

const DEFAULT: Step = Step {
    env: &[],
    mark: Some("0x80"),
    mtu: 9001,
};

const fn without_effect(env: &'static [&'static str]) -> Step {
    Step {
        env,
        mark: DEFAULT.mark,
        mtu: DEFAULT.mtu,
    }
}

const STEPS: &[Step] = &[
    DEFAULT,
    without_effect(&[EXTERNAL]),
    without_effect(&[NO_NODE_PORTS]),
    DEFAULT,
    Step {
        env: &[EXTERNAL, NO_NODE_PORTS],
        mark: None,
        mtu: 9001,
    },
    DEFAULT,
    Step {
        env: &[OTHER_MARK],
        mark: Some("0x100"),
        mtu: 9001,
    },
    DEFAULT,
    without_effect(&[EXCLUDED, SERVICES, "AWS_VPC_K8S_CNI_RANDOMIZESNAT=none"]),
    DEFAULT,
    without_effect(&[OTHER_PREFIX]),
    DEFAULT,
    Step {
        env: &["AWS_VPC_ENI_MTU=1500"],
        mark: Some("0x80"),
        mtu: 1500,
    },
    DEFAULT,
    without_effect(&["ENABLE_V4_EGRESS=false"]),
    DEFAULT,
    without_effect(&[OTHER_PREFIX]),
];

fn in_node(lab: &Lab, script: &str) -> String {
    lab.run(&["exec", NODE, "--", "bash", "-c", script])
}

fn rules(lab: &Lab) -> String {
    in_node(lab, "ip -4 rule; ip -6 rule")
}

fn tables(lab: &Lab) -> String {
    in_node(lab, "nft list ruleset")
}

fn is_in_force(lab: &Lab, step: &Step) -> bool {
    let (rules, links) = (in_node(lab, "ip -6 rule"), in_node(lab, "ip -o link show up"));
    let of_1024: Vec<&str> = rules.lines().filter(|line| line.starts_with("1024:")).collect();
    let wanted: Vec<String> = step
        .mark
        .iter()
        .map(|mark| format!("1024:\tfrom all fwmark {mark}/{mark} lookup main"))
        .collect();
    let mtu = format!("mtu {} ", step.mtu);
    of_1024 == wanted
        && links
            .lines()
            .filter(|l| l.contains(": eth"))
            .all(|l| l.contains(&mtu))
}

/// Egress in the other family for a pod that is there, by the plugin second in the chain.
struct Egress<'a> {
    lab: &'a Lab,
    files: &'a str,
    range: &'static str,
    route: &'static str,
    /// The node's address of the range's family.
    node: String,
    link: &'static str,
}

impl Egress<'_> {
    fn call(&self, verb: &str, pod: &str) {
        let pods = self.lab.json(&["pod", "list", "--json"]);
        let found = pods.as_array().unwrap().iter().find(|p| p["name"] == pod);
        let pod = found.unwrap_or_else(|| panic!("no {pod} in {pods}"));
        let text = |key: &str| pod[key].as_str().unwrap_or_default();
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "aws-cni", "type": "egress-cni", "enabled": "true", "mtu": "9001",
            "nodeIP": self.node, "randomizeSNAT": "prng", "prevResult": pod["result"],
            "ipam": {
                "type": "host-local", "ranges": [[{ "subnet": self.range }]],
                "routes": [{ "dst": self.route }], "dataDir": self.files,
            },
        });
        config["prevResult"]["cniVersion"] = json!("1.0.0");
        let plugin = binary("egress-cni");
        let plugin = plugin.display();
        in_node(
            self.lab,
            &format!(
                "printf '%s' '{config}' | CNI_COMMAND={verb} CNI_CONTAINERID={} CNI_NETNS=/run/netns/{} CNI_IFNAME=eth0 \
                 CNI_PATH=/ CNI_ARGS='K8S_POD_NAMESPACE=default;K8S_POD_NAME={}' {plugin}",
                text("container_id"),
                text("netns"),
                text("name"),
            ),
        );
    }

    /// The address that the pod has by it.
    fn address(&self, pod: &str) -> String {
        let place = format!("pod/{pod}");
        let show = [
            "exec", &place, "--", "ip", "-json", "addr", "show", "dev", self.link,
        ];
        let shown = self.lab.json(&show);
        let all = shown[0]["addr_info"].as_array().unwrap().iter();
        let mut global = all.filter(|a| a["scope"] == "global");
        global.next().unwrap()["local"].as_str().unwrap().to_owned()
    }
}

/// Another pod opens no connection to an egress address where somebody listens.
fn refused(lab: &Lab, pod: &str, address: &str, port: usize) {
    let script = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
    let came = lab.try_run(&["exec", &format!("pod/{pod}"), "--", "bash", "-c", &script]);
    assert!(came.is_err(), "{pod} connected to the egress address {address}");
}

fn restart(lab: &Lab, node: Node<'_>, family: &[&str], step: &Step) {
    let env: Vec<&str> = family.iter().chain(step.env).copied().collect();
    node.restart_after_kill(&env, READY);
    wait_for(&format!("{:?} is in force", step.env), READY, || {
        is_in_force(lab, step).then_some(())
    });
}

fn node_says(lab: &Lab, key: &str) -> String {
    let status: Value = Node::new(lab, NODE).status();
    status[key]
        .as_str()
        .unwrap_or_else(|| panic!("{status}"))
        .to_owned()
}

/// The host of the internet that has an IPv6 address of its own.
fn internet(lab: &Lab) -> String {
    let status = lab.json(&["status", "--json"]);
    status["internet_ipv6"]["host"].as_str().unwrap().to_owned()
}

fn close(streams: Vec<Stream>) {
    for stream in streams {
        let (echoes, longest) = stream.close();
        println!("{echoes} echoes, longest gap {longest:?}");
        assert!(echoes > 0);
    }
}

#[test]
fn with_ipv6_addresses_settings_change_both_ways_and_pods_and_their_egress_never_notice() {
    let family = [
        "IP_COOLDOWN_PERIOD=1",
        "ENABLE_IPv4=false",
        "ENABLE_IPv6=true",
        "ENABLE_PREFIX_DELEGATION=true",
    ];
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large", "--ipv6"],
        env: &family,
    });
    let (node, far) = (Node::new(&lab, NODE), Node::new(&lab, "node-2"));
    node.wait_until_ready(READY);
    far.wait_until_ready(READY);
    let far_pod = far.must_add("far");
    let pods: Vec<String> = (0..3).map(|n| node.must_add(&format!("pod-{n}"))).collect();
    let files = tempfile::tempdir().unwrap();
    let before = (rules(&lab), tables(&lab));
    let egress = Egress {
        lab: &lab,
        files: files.path().to_str().unwrap(),
        range: "169.254.172.0/22",
        route: "0.0.0.0/0",
        node: node_says(&lab, "primary"),
        link: "v4if0",
    };
    egress.call("ADD", "pod-0");
    egress.call("ADD", "pod-1");
    let by_egress = egress.address("pod-0");
    let public = node_says(&lab, "public");
    let with_egress = tables(&lab);
    assert!(with_egress.contains("refuse_new"), "{with_egress}");

    let at = |address: &str, port: usize| format!("[{address}]:{port}");
    let internet = internet(&lab);
    let mut streams = vec![
        Stream::open(&lab, "pod/pod-0", "internet", &at(&internet, 7000)),
        Stream::open(&lab, "pod/pod-0", "pod/pod-2", &at(&pods[2], 7000)),
        Stream::open(&lab, "pod/pod-0", "pod/far", &at(&far_pod, 7000)),
        Stream::open(&lab, "pod/far", "pod/pod-0", &at(&pods[0], 7001)),
        Stream::open(&lab, "internet", "pod/pod-0", &at(&pods[0], OPEN)),
        Stream::open(&lab, "pod/pod-0", "internet", &format!("{INTERNET}:7000")),
        // Somebody listens at the egress address.
        Stream::open(&lab, "pod/pod-0", "pod/pod-0", &format!("{by_egress}:7400")),
    ];
    for (n, step) in STEPS.iter().enumerate() {
        restart(&lab, node, &family, step);
        let port = 7100 + n;
        streams.push(Stream::open(&lab, "pod/pod-0", "internet", &at(&internet, port)));
        assert_eq!(opened_by(&lab, "internet", port), pods[0], "with {:?}", step.env);
        let port = 7200 + n;
        streams.push(Stream::open(
            &lab,
            "pod/pod-0",
            "internet",
            &format!("{INTERNET}:{port}"),
        ));
        assert_eq!(opened_by(&lab, "internet", port), public, "with {:?}", step.env);
        streams.push(Stream::open(
            &lab,
            "internet",
            "pod/pod-0",
            &at(&pods[0], OPEN + 1 + n),
        ));
        refused(&lab, "pod-1", &by_egress, 7400);
        // Neither translation nor marks, and the egress plugin's table is as it was.
        assert_eq!(tables(&lab), with_egress, "with {:?}", step.env);
        assert!(!rules(&lab).contains("1535:"), "with {:?}", step.env);
        println!("{:?}: kept {:?}", step.env, kept(node));
    }
    let said = "pods' links named eni…: kept for 3 links of the time before AWS_VPC_K8S_CNI_VETHPREFIX=abc";
    wait_for("it is known whose links have the earlier names", NO_TRACE, || {
        (kept(node) == [said]).then_some(())
    });
    close(streams);
    for pod in ["pod-0", "pod-1"] {
        egress.call("DEL", pod);
    }
    for n in 0..3 {
        node.remove(&format!("pod-{n}")).unwrap_or_else(|e| panic!("{e}"));
    }
    wait_for("no trace is left", NO_TRACE, || {
        kept(node).is_empty().then_some(())
    });
    restart(&lab, node, &family, &DEFAULT);
    let of_settings = |rules: &str| -> Vec<String> {
        let rules = rules.lines().filter(|rule| !rule.starts_with("512:"));
        rules.map(str::to_owned).collect()
    };
    wait_for("everything is as it was", NO_TRACE, || {
        let now = (rules(&lab), tables(&lab));
        (of_settings(&now.0) == of_settings(&before.0) && now.1 == before.1).then_some(())
    });
}

#[test]
fn with_ipv4_addresses_settings_change_both_ways_and_egress_by_ipv6_goes_on() {
    let family = [
        "IP_COOLDOWN_PERIOD=1",
        "ENABLE_IPv4=true",
        "ENABLE_IPv6=false",
        "ENABLE_PREFIX_DELEGATION=false",
    ];
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large", "--ipv6"],
        env: &family,
    });
    let node = Node::new(&lab, NODE);
    node.wait_until_ready(READY);
    for pod in ["pod-0", "pod-1"] {
        node.must_add(pod);
    }
    let files = tempfile::tempdir().unwrap();
    let egress = Egress {
        lab: &lab,
        files: files.path().to_str().unwrap(),
        range: "fd00::ac:0/118",
        route: "::/0",
        node: node_says(&lab, "primary_ipv6"),
        link: "v6if0",
    };
    egress.call("ADD", "pod-0");
    egress.call("ADD", "pod-1");
    let by_egress = egress.address("pod-0");
    let table = || in_node(&lab, "nft list table ip6 vpcnet_egress");
    let before = table();
    assert!(before.contains("refuse_new"), "{before}");
    let at = |address: &str, port: usize| format!("[{address}]:{port}");
    let internet = internet(&lab);
    let mut streams = vec![
        Stream::open(&lab, "pod/pod-0", "internet", &at(&internet, 7000)),
        Stream::open(&lab, "pod/pod-0", "internet", &format!("{INTERNET}:7000")),
        Stream::open(&lab, "pod/pod-0", "pod/pod-0", &at(&by_egress, 7400)),
    ];
    let steps: [&[&str]; 7] = [
        &["ENABLE_V6_EGRESS=true"],
        &[],
        &[EXTERNAL, NO_NODE_PORTS],
        &["ENABLE_V6_EGRESS=true", OTHER_MARK],
        &[OTHER_PREFIX],
        &["AWS_VPC_ENI_MTU=1500"],
        &[],
    ];
    for (n, step) in steps.iter().enumerate() {
        let env: Vec<&str> = family.iter().chain(*step).copied().collect();
        node.restart_after_kill(&env, READY);
        node.wait_until_ready(READY);
        let port = 7100 + n;
        streams.push(Stream::open(&lab, "pod/pod-0", "internet", &at(&internet, port)));
        assert_eq!(opened_by(&lab, "internet", port), egress.node, "with {step:?}");
        refused(&lab, "pod-1", &by_egress, 7400);
        assert_eq!(table(), before, "with {step:?}");
    }
    close(streams);
    for pod in ["pod-0", "pod-1"] {
        egress.call("DEL", pod);
    }
    let tables = in_node(&lab, "nft list tables");
    assert!(!tables.contains("vpcnet_egress"), "{tables}");
}
