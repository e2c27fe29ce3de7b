//! Promise 6: the node lives alone. Whoever is away, pods come and go on what the node has; and when that is used up, it says
//! why, and when it is tried again.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::time::{Duration, Instant};

use vpcnet_e2e::{Lab, Node, Options, Stream, wait_for};

const READY: Duration = Duration::from_secs(60);
/// Ten times what is promised: figures proper are the benchmark's.
const SERVES_AGAIN: Duration = Duration::from_secs(1);
/// An ADD that the pool can serve waits for nobody.
const AT_ONCE: Duration = Duration::from_secs(5);
/// An ADD waits for an address at most 60 s, whatever EC2 does.
const LONGEST_ADD: Duration = Duration::from_secs(75);

/// Everything of EC2 and everything of IMDS.
const EC2: &str = "*";
const IMDS: &str = "imds:*";

#[test]
fn pods_come_and_go_while_ec2_is_silent() {
    pods_come_and_go_without(&[&[EC2, "--hang"]]);
}

#[test]
fn pods_come_and_go_while_imds_is_silent() {
    pods_come_and_go_without(&[&[IMDS, "--hang"]]);
}

#[test]
fn pods_come_and_go_while_ec2_and_imds_are_away() {
    pods_come_and_go_without(&[&[EC2, "--drop"], &[IMDS, "--drop"]]);
}

#[test]
fn pods_come_and_go_while_ec2_and_imds_answer_with_errors() {
    pods_come_and_go_without(&[&[EC2, "--error", "Unavailable:503"], &[IMDS, "--error", "x:500"]]);
}

/// ADD from the pool and DEL, before and after a restart of the agent; then everybody comes back, and the pool grows again.
fn pods_come_and_go_without(faults: &[&[&str]]) {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &["IP_COOLDOWN_PERIOD=1"],
    });
    let node = Node::new(&lab, "node-1");
    let old = [
        node.must_add("old-0"),
        node.must_add("old-1"),
        node.must_add("old-2"),
    ];
    // The default targets: one interface in use, one in reserve.
    node.wait_for_pool(18, READY);
    let stream = Stream::open(&lab, "pod/old-0", "pod/old-1", &format!("{}:7000", old[1]));

    for fault in faults {
        lab.run(&[&["fault", "add"], *fault].concat());
    }
    let add_and_remove = |name: &str| {
        let start = Instant::now();
        let address = node.must_add(name);
        assert_eq!(node.kernel_address(name), address);
        node.remove(name).unwrap_or_else(|e| panic!("{e}"));
        assert!(
            !node.owners().contains_key(&address),
            "{address} is still owned after DEL"
        );
        assert!(
            start.elapsed() < AT_ONCE,
            "ADD and DEL of {name} took {:?}",
            start.elapsed()
        );
    };
    add_and_remove("before-restart");
    node.restart_after_kill(&["IP_COOLDOWN_PERIOD=1"], SERVES_AGAIN);
    add_and_remove("after-restart");
    node.remove("old-2").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(node.kernel_address("old-0"), old[0]);
    stream.close();

    lab.run(&["fault", "clear"]);
    // More than two interfaces have.
    for n in 0..20 {
        node.must_add(&format!("new-{n}"));
    }
}

#[test]
fn a_dry_pool_says_what_ec2_answers_and_when_it_is_asked_again() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &["IP_COOLDOWN_PERIOD=1"],
    });
    let node = Node::new(&lab, "node-1");
    node.must_add("fits-0");
    node.wait_for_pool(18, READY);
    lab.run(&["fault", "add", EC2, "--error", "Unavailable:503"]);
    for n in 1..18 {
        node.must_add(&format!("fits-{n}"));
    }

    let start = Instant::now();
    let said = node
        .add("one-too-many")
        .expect_err("ADD on a dry pool")
        .to_string();
    assert!(
        start.elapsed() < LONGEST_ADD,
        "it took {:?} to be refused",
        start.elapsed()
    );
    assert!(said.contains("Unavailable"), "it does not say why: {said}");
    assert!(says_when(&said), "it does not say when: {said}");
    as_before_the_refused_add(node, 18);

    lab.run(&["fault", "clear"]);
    node.must_add("now-it-fits");
}

#[test]
fn a_full_node_says_so_and_takes_the_next_pod_when_one_has_gone() {
    let env = &["MAX_ENI=1", "IP_COOLDOWN_PERIOD=1"];
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env,
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(9, READY);
    for n in 0..9 {
        node.must_add(&format!("fits-{n}"));
    }

    let said = node
        .add("one-too-many")
        .expect_err("ADD on a full node")
        .to_string();
    assert!(
        said.contains("MAX_ENI"),
        "it does not name what forbids more: {said}"
    );
    assert!(says_when(&said), "it does not say when: {said}");
    as_before_the_refused_add(node, 9);

    node.remove("fits-0").unwrap_or_else(|e| panic!("{e}"));
    // The address cools down for a second first; the ADD waits for it.
    node.must_add("now-it-fits");
}

#[test]
fn a_pod_that_waits_for_throttled_ec2_gets_its_address_without_asking_again() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &["WARM_ENI_TARGET=0"],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(READY);
    lab.run(&[
        "fault",
        "add",
        EC2,
        "--error",
        "RequestLimitExceeded",
        "--times",
        "2",
    ]);
    for n in 0..12 {
        node.must_add(&format!("patient-{n}"));
    }
}

#[test]
fn a_pod_that_waits_for_an_attachment_whose_answer_was_lost_hears_what_ec2_says() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &["WARM_ENI_TARGET=0"],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(9, READY);
    for n in 0..8 {
        node.must_add(&format!("fits-{n}"));
    }
    lab.run(&[
        "fault",
        "add",
        "AttachNetworkInterface",
        "--lose-answer",
        "--times",
        "1",
    ]);
    lab.run(&[
        "fault",
        "add",
        "DescribeNetworkInterfaces",
        "--error",
        "Unavailable:503",
    ]);
    // The ninth takes the last address, which has an interface made.
    node.must_add("fits-8");
    std::thread::scope(|scope| {
        let late = scope.spawn(|| node.add("late"));
        let told = wait_for(
            "what EC2 said reaches the pod that waits",
            Duration::from_secs(20),
            || {
                let page = node
                    .introspect("/v1/vpcnet/explain?namespace=default&name=late")
                    .ok()?;
                let message = page["pod"]["waits"][0]["message"].as_str()?.to_owned();
                message.contains("Unavailable").then_some(message)
            },
        );
        assert!(
            told.contains("creation of an interface") && told.contains("tried again"),
            "it does not name the thing, or does not say when: {told}"
        );
        lab.run(&["fault", "clear"]);
        late.join().unwrap().unwrap_or_else(|e| panic!("{e}"));
    });
}

/// What a refused ADD leaves: the pool's owners as they were, no pod, no interface on the host beside those of the others.
fn as_before_the_refused_add(node: Node<'_>, owners: usize) {
    assert_eq!(node.owners().len(), owners, "owners after a refused ADD");
    assert_eq!(node.pods().len(), owners, "pods after a refused ADD");
    assert_eq!(
        node.host_veths().len(),
        owners,
        "host veths after a refused ADD: {:?}",
        node.host_veths()
    );
}

fn says_when(said: &str) -> bool {
    ["tries again in", "free again when"]
        .iter()
        .any(|word| said.contains(word))
}
