//! The record of owners is lost or broken while pods run: what the kernel shows is enough to go on.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use vpcnet_e2e::{Lab, Node, Options, Stream};

const READY: Duration = Duration::from_secs(60);
/// The whole pool of an m5.large, so that the pods live on three interfaces.
const ENV: &[&str] = &["MINIMUM_IP_TARGET=27", "WARM_IP_TARGET=1", "IP_COOLDOWN_PERIOD=1"];

#[test]
fn a_broken_checkpoint_is_kept_aside_and_the_owners_are_rebuilt_from_the_kernel() {
    owners_survive(
        |file| std::fs::write(file, r#"{"version":"vpc-cni-ipam/1","allocations":[{"netw"#).unwrap(),
        |file| {
            let directory = file.parent().unwrap();
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let kept = std::fs::read_dir(directory)
                .unwrap()
                .flatten()
                .filter(|e| e.file_name().to_string_lossy().starts_with(&name) && e.path() != file)
                .any(|e| std::fs::read_to_string(e.path()).is_ok_and(|text| text.ends_with(r#"[{"netw"#)));
            assert!(kept, "the broken file is not kept beside {}", file.display());
        },
    );
}

#[test]
fn a_missing_checkpoint_is_rebuilt_from_the_kernel() {
    owners_survive(|file| std::fs::remove_file(file).unwrap(), |_| {});
}

#[test]
fn owners_are_rebuilt_when_the_journal_is_missing_too() {
    owners_survive(
        |file| {
            std::fs::remove_file(file).unwrap();
            std::fs::remove_file(file.with_file_name("vpcnet-state.json")).unwrap();
        },
        |_| {},
    );
}

/// IMDS is as far behind as it can be: it shows the node as it was when it had no pods. With the journal gone too, only EC2
/// can tell what is attached; whoever trusts IMDS makes interfaces that are there already.
#[test]
fn owners_are_rebuilt_while_imds_shows_the_node_as_it_was_before_them() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large", "--imds-lag", "600000"],
        env: ENV,
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(27, READY);
    let before: BTreeSet<String> = (0..20).map(|n| node.must_add(&format!("old-{n}"))).collect();
    let created = |node: &Node<'_>| {
        let calls = node.ec2_calls();
        calls.iter().filter(|c| *c == "CreateNetworkInterface").count()
    };
    let calls = created(&node);
    assert_eq!(calls, 2);

    let file = node.checkpoint_file();
    node.kill_agent();
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(file.with_file_name("vpcnet-state.json")).unwrap();
    node.start_agent(ENV);
    node.wait_until_ready(READY);
    node.wait_for_pool(27, READY);

    assert_eq!(node.owners().into_keys().collect::<BTreeSet<_>>(), before);
    let new: BTreeSet<String> = (0..7).map(|n| node.must_add(&format!("new-{n}"))).collect();
    assert!(new.is_disjoint(&before), "{new:?} given away under live pods");
    assert_eq!(created(&node), calls, "interfaces made a second time");
}

/// Pods run, the agent dies, `harm` comes to its checkpoint, and the agent starts again.
fn owners_survive(harm: impl FnOnce(&Path), after: impl FnOnce(&Path)) {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: ENV,
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(27, READY);
    let before: Vec<String> = (0..20).map(|n| node.must_add(&format!("old-{n}"))).collect();
    let stream = Stream::open(&lab, "pod/old-0", "pod/old-19", &format!("{}:7000", before[19]));

    let file = node.checkpoint_file();
    node.kill_agent();
    harm(&file);
    node.start_agent(ENV);
    node.wait_until_ready(READY);
    node.wait_for_pool(27, READY);
    after(&file);

    let owned: BTreeSet<String> = node.owners().into_keys().collect();
    assert_eq!(
        owned,
        before.iter().cloned().collect(),
        "owned after the restart, held by pods before"
    );
    let new: Vec<String> = (0..7).map(|n| node.must_add(&format!("new-{n}"))).collect();
    for address in &new {
        assert!(
            !before.contains(address),
            "{address} was given away under a live pod"
        );
    }
    for (n, address) in before.iter().enumerate() {
        assert_eq!(
            &node.kernel_address(&format!("old-{n}")),
            address,
            "old-{n} in the kernel"
        );
    }
    let (echoes, _) = stream.close();
    assert!(echoes > 0);
    // Rebuilt owners have other keys than the plugin's; their DEL must find them all the same.
    for n in 0..20 {
        node.remove(&format!("old-{n}")).unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(
        node.owners().into_keys().collect::<BTreeSet<_>>(),
        new.into_iter().collect(),
        "owned after the old pods went"
    );
}
