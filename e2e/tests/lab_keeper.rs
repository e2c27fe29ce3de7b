//! What somebody else takes from the node's network, or changes in it, is put right while pods talk.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::time::{Duration, Instant};

use vpcnet_e2e::{Lab, Node, Options, Stream, wait_for};

const READY: Duration = Duration::from_secs(60);
/// Ten times what is promised.
const PUT_RIGHT: Duration = Duration::from_secs(1);
/// The whole pool of an m5.large, so that the pods live on three interfaces.
const ENV: &[&str] = &["MINIMUM_IP_TARGET=27", "WARM_IP_TARGET=1", "IP_COOLDOWN_PERIOD=1"];

fn lab() -> Lab {
    Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: ENV,
    })
}

fn in_node(lab: &Lab, script: &str) -> String {
    lab.run(&["exec", "node-1", "--", "bash", "-c", script])
}

/// Everything of the node's network that is kept, sorted: rules of one priority have no order that matters.
fn network(lab: &Lab) -> Vec<String> {
    let shown = in_node(
        lab,
        "ip -4 rule; ip -4 route show table all; ip -4 -o address show; nft list ruleset;
         ip -o link show up | cut -d: -f2; cat /proc/sys/net/ipv4/conf/*/rp_filter",
    );
    let mut lines: Vec<String> = shown.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn whatever_is_taken_or_changed_is_put_right_and_the_culprit_named() {
    let lab = lab();
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(27, READY);
    let pods: Vec<String> = (0..20).map(|n| node.must_add(&format!("pod-{n}"))).collect();
    let stream = Stream::open(&lab, "pod/pod-0", "pod/pod-19", &format!("{}:7000", pods[19]));
    // The last pod is on a secondary interface: it has a rule for its way out.
    let pod = pods.last().unwrap();
    let secondary = in_node(&lab, "ip -4 -o route show default table 2")
        .split_whitespace()
        .nth(4)
        .unwrap()
        .to_owned();
    let primary = in_node(&lab, "ip -4 -o route show default")
        .split_whitespace()
        .nth(4)
        .unwrap()
        .to_owned();
    wait_for("the table is there", READY, || {
        in_node(&lab, "nft list ruleset")
            .contains("table ip vpcnet")
            .then_some(())
    });
    let whole = network(&lab);
    for (harm, culprit) in [
        (format!("ip rule delete to {pod} priority 512"), "process"),
        (format!("ip rule delete from {pod} priority 1536"), "process"),
        (format!("ip route delete {pod}/32"), "process"),
        (format!("ip route replace {pod}/32 dev lo"), "process"),
        ("ip rule delete priority 1024".to_owned(), "process"),
        ("ip route flush table 2".to_owned(), "process"),
        (format!("ip address flush dev {secondary}"), "process"),
        // Of links and parameters the kernel does not say who changed them.
        (format!("ip link set {secondary} down"), ""),
        (format!("ip address add 10.9.9.9/24 dev {secondary}"), "process"),
        (format!("sysctl -qw net.ipv4.conf.{primary}.rp_filter=1"), ""),
        ("nft flush ruleset".to_owned(), "(nft)"),
        ("nft delete chain ip vpcnet source_nat".to_owned(), "(nft)"),
        (
            "nft add rule ip vpcnet source_nat counter accept".to_owned(),
            "(nft)",
        ),
    ] {
        let before = log(&lab).len();
        in_node(&lab, &harm);
        let start = Instant::now();
        wait_for(
            &format!("after {harm:?} the network is as before"),
            PUT_RIGHT,
            || (network(&lab) == whole).then_some(()),
        );
        println!("{harm}: within {} ms", start.elapsed().as_millis());
        let said = wait_for(&format!("{harm:?} is in the log"), PUT_RIGHT, || {
            let log = log(&lab);
            let line = log[before..]
                .lines()
                .find(|l| l.contains("edited by somebody else"));
            line.map(str::to_owned)
        });
        assert!(said.contains(culprit), "{harm}: {said}");
    }
    let (echoes, _) = stream.close();
    assert!(echoes > 0);
}

fn log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.directory().join("log/agent-node-1.log")).unwrap()
}

#[test]
fn who_keeps_undoing_is_answered_ever_more_seldom_and_told_of() {
    let lab = lab();
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(27, READY);
    let address = node.must_add("pod-0");
    let contested = || {
        let status = node.introspect("/v1/vpcnet/status").unwrap();
        let list = status["agent"]["contested"].as_array().unwrap().clone();
        (!list.is_empty()).then_some(list)
    };
    assert_eq!(contested(), None);
    let list = wait_for("the fight is told of", READY, || {
        in_node(&lab, &format!("ip rule delete to {address} priority 512 || true"));
        contested()
    });
    assert!(list[0].as_str().unwrap().contains(&address), "{list:?}");
    wait_for("it is put right all the same", READY, || {
        in_node(&lab, "ip -4 rule").contains(&address).then_some(())
    });
}

#[test]
fn pods_that_go_leave_no_rule_behind_that_was_put_back() {
    let lab = lab();
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(27, READY);
    let nothing = network(&lab);
    for round in 0..3 {
        for n in 0..10 {
            node.must_add(&format!("pod-{round}-{n}"));
        }
        for n in 0..10 {
            node.remove(&format!("pod-{round}-{n}"))
                .unwrap_or_else(|e| panic!("{e}"));
        }
    }
    wait_for("the last link is gone with its namespace", READY, || {
        (network(&lab) == nothing).then_some(())
    });
    // Longer than a look takes to come, and to be looked back at.
    let start = Instant::now();
    wait_for("a second has passed in which nothing came back", READY, || {
        assert_eq!(network(&lab), nothing);
        (start.elapsed() > Duration::from_secs(1)).then_some(())
    });
}
