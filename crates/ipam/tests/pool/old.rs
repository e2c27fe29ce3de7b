//! What earlier versions wrote down is read.

use vpcnet_ipam::{Checkpoint, InterfaceFacts, Journal, Outcome, Pool, Restored};

use super::rig::{M5_LARGE, Rig, identity, ip_targets, limits, prefixes};

/// Written by the version that knew single addresses only: a release, an assignment and a creation under way, one pod, and a
/// prefix that somebody else gave the interface.
fn state() -> Restored {
    let journal: Journal = serde_json::from_str(include_str!("../data/journal-1.json")).unwrap();
    let checkpoint = Checkpoint::parse(include_bytes!("../data/checkpoint-1.json")).unwrap();
    let kernel = vpcnet_ipam::KernelEvidence {
        veths: vec![super::rig::veth(&super::rig::meta(2))],
        ..Default::default()
    };
    Restored {
        checkpoint: Some(checkpoint),
        journal: Some(journal),
        kernel,
    }
}

fn woken(targets: vpcnet_ipam::Targets) -> Rig {
    let now = vpcnet_ipam::Now {
        mono: vpcnet_ipam::Mono(1_040_000),
        wall_ns: 1,
    };
    let (pool, _, actions) = Pool::restore(identity(), limits(M5_LARGE), targets, state(), now).unwrap();
    let mut rig = Rig::around(pool);
    rig.at = 1_040_000;
    rig.orders = actions;
    rig
}

#[test]
fn the_journal_of_version_1_is_taken_up_with_its_intents() {
    let mut rig = woken(ip_targets(12, 0));
    assert_eq!(
        rig.ordered(),
        ["release eni-0 -4", "describe eni-0", "create 1 +9"]
    );
    let create = rig
        .orders
        .iter()
        .find(|a| super::rig::short(a).starts_with("create"));
    assert!(
        matches!(
            create,
            Some(vpcnet_ipam::Action::CreateInterface { subnet: None, .. })
        ),
        "repeated as it was begun: {create:?}"
    );
    let view = rig.pool.view(rig.now());
    assert_eq!((view.totals.assigned, view.totals.prefixes), (1, 1));
    assert_eq!(
        view.totals.draining, 16,
        "of a prefix that this mode does not ask for"
    );
    let release = rig.take(|a| super::rig::short(a).starts_with("release"));
    rig.succeed(&release);
    let describe = rig.take_describe();
    let facts = rig.pool.interfaces().find(|i| i.is_primary).unwrap();
    rig.done(&describe, Outcome::Described(Some(facts)));
    rig.succeed_all();
    rig.pass(600_000);
    rig.succeed_all();
    rig.pass(600_000);
    let view = rig.pool.view(rig.now());
    assert_eq!((view.totals.draining, rig.ordered()), (0, vec![]));
}

#[test]
fn addresses_of_a_prefix_from_version_1_are_handed_out_in_prefix_mode() {
    let mut rig = woken(prefixes(1));
    let request = rig.add(7);
    let prefix: ipnet::Ipv4Net = "10.0.1.16/28".parse().unwrap();
    let std::net::IpAddr::V4(at) = rig.address(request) else {
        panic!("an IPv4 address")
    };
    assert!(prefix.contains(&at), "{at}");
    let primary: Vec<InterfaceFacts> = rig.pool.interfaces().filter(|i| i.is_primary).collect();
    assert_eq!(primary[0].prefixes, [prefix]);
    assert!(primary[0].addresses.iter().all(|at| !prefix.contains(at)));
}
