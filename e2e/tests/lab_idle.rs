//! Promise 7: a node where nothing happens asks nobody for anything, but two values of IMDS that cannot be pushed. Where something
//! happens they are read again at once.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::time::Duration;

use vpcnet_e2e::{Lab, Node, Options, wait_for};

/// Two turns of the 30 s between two readings, and a margin.
const WATCHED: Duration = Duration::from_secs(66);

#[test]
fn an_idle_node_never_calls_ec2_and_reads_two_values_of_imds_every_thirty_seconds() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(Duration::from_secs(60));
    // Default targets: as many free addresses as one interface has. What it takes to get there is not idleness.
    node.must_add("web");
    node.wait_for_pool(18, Duration::from_secs(60));
    settled(&lab, node);

    let (ec2, imds) = (node.calls("ec2").len(), node.calls("imds").len());
    let agent = node.status()["agent"].clone();
    let connection = node.imds_connections();
    assert_eq!(connection.len(), 1, "connections to IMDS: {connection:?}");
    // The time itself is what is under test.
    std::thread::sleep(WATCHED);

    assert_eq!(
        node.imds_connections(),
        connection,
        "the connection to IMDS is kept"
    );
    let ec2: Vec<String> = node
        .calls("ec2")
        .iter()
        .skip(ec2)
        .map(|c| c["action"].to_string())
        .collect();
    assert!(ec2.is_empty(), "an idle node called EC2: {ec2:?}");
    let reads: Vec<(f64, String)> = node
        .calls("imds")
        .iter()
        .skip(imds)
        .map(|c| {
            (
                c["at_ms"].as_f64().unwrap_or_default(),
                c["action"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let of = |end: &str| {
        reads
            .iter()
            .filter(|(_, path)| path.trim_end_matches('/').ends_with(end))
            .count()
    };
    let (cidrs, groups) = (of("vpc-ipv4-cidr-blocks"), of("security-group-ids"));
    assert!(
        (2..=3).contains(&cidrs),
        "reads of the VPC's CIDRs in {WATCHED:?}: {reads:?}"
    );
    assert!(
        (2..=3).contains(&groups),
        "reads of the primary's security groups in {WATCHED:?}: {reads:?}"
    );
    assert_eq!(reads.len(), cidrs + groups, "nothing else is read: {reads:?}");
    assert_eq!(
        node.status()["agent"],
        agent,
        "the agent was the same all the time"
    );
}

/// How often the primary interface's groups were read.
fn readings(node: Node<'_>) -> usize {
    let calls = node.calls("imds");
    let of_groups = |c: &&serde_json::Value| {
        c["action"]
            .as_str()
            .unwrap_or_default()
            .contains("security-group-ids")
    };
    calls.iter().filter(of_groups).count()
}

/// What stands in the first element of that name.
fn element(xml: &str, name: &str) -> String {
    let rest = xml
        .split_once(&format!("<{name}>"))
        .unwrap_or_else(|| panic!("no {name} in {xml}"))
        .1;
    rest.split_once('<').unwrap().0.to_owned()
}

#[test]
fn where_the_pool_asks_for_something_both_values_are_read_again_and_what_is_made_follows_the_primarys_groups()
{
    const TURN: Duration = Duration::from_secs(35);
    const AT_ONCE: Duration = Duration::from_secs(15);
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large", "--imds-lag", "0"],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(Duration::from_secs(60));
    node.wait_for_pool(9, Duration::from_secs(60));
    let primary = node.status()["interfaces"][0]["eni"].as_str().unwrap().to_owned();
    let filter = ["Filter.1.Name=group-name", "Filter.1.Value.1=default"];
    let other = element(
        &lab.run(&[&["ec2", "DescribeSecurityGroups"], &filter[..]].concat()),
        "groupId",
    );
    let groups = |eni: &str| {
        let id = format!("NetworkInterfaceId.1={eni}");
        let xml = lab.run(&["ec2", "DescribeNetworkInterfaces", &id]);
        element(xml.split_once("<groupSet>").unwrap().1, "groupId")
    };

    // The clock has just had them read: its next turn is half a minute away.
    let before = readings(node);
    wait_for("a reading by the clock", TURN, || {
        (readings(node) > before).then_some(())
    });
    lab.run(&[
        "ec2",
        "ModifyNetworkInterfaceAttribute",
        &format!("NetworkInterfaceId={primary}"),
        &format!("SecurityGroupId.1={other}"),
    ]);
    // One of nine is in use: an interface is made.
    node.must_add("web");
    let made = wait_for("another interface", AT_ONCE, || {
        let status = node.status();
        let mut all = status["interfaces"]
            .as_array()?
            .iter()
            .filter_map(|i| i["eni"].as_str());
        all.find(|eni| *eni != primary).map(str::to_owned)
    });
    wait_for("it has the primary's groups", AT_ONCE, || {
        (groups(&made) == other).then_some(())
    });
    settled(&lab, node);
    let read = readings(node) - before - 1;
    assert!((1..=3).contains(&read), "readings for one interface: {read}");
}

/// Nothing is under way any more: no call in the time in which one would follow another.
fn settled(lab: &Lab, node: Node<'_>) {
    let uptime = || {
        lab.json(&["status", "--json"])["uptime_ms"]
            .as_f64()
            .unwrap_or_default()
    };
    wait_for("no more calls to EC2", Duration::from_secs(60), || {
        let last = node
            .calls("ec2")
            .last()
            .and_then(|c| c["at_ms"].as_f64())
            .unwrap_or_default();
        (uptime() - last > 3_000.0).then_some(())
    });
}
