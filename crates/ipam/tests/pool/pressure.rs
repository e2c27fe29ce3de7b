//! While EC2 gets too many calls, what nobody waits for stands back.

use std::collections::BTreeSet;

use vpcnet_ipam::{FailureClass, Identity, Pool, RefusalCause, RequestId, Targets};

use crate::rig::{M5_LARGE, Rig, identity, limits};

const SECOND: u64 = 1_000;

/// EC2 refuses the creation in hand; it may be tried again after so many seconds.
fn refuse(rig: &mut Rig, retry_in_s: u64) {
    let create = rig.take_create();
    rig.fail(
        &create,
        FailureClass::Throttled,
        "RequestLimitExceeded",
        Some(retry_in_s * SECOND),
    );
}

/// Nine addresses, one pod, and the creation of a warm interface that EC2 just refused.
fn refused(mut rig: Rig) -> Rig {
    rig.add(1);
    assert_eq!(
        rig.ordered(),
        ["create 1 +9"],
        "eight of nine are free: another interface is wanted"
    );
    refuse(&mut rig, 5);
    rig
}

fn node() -> Rig {
    refused(Rig::settled(M5_LARGE, Targets::default()))
}

#[test]
fn after_a_refusal_for_too_many_calls_nothing_is_asked_for_that_no_pod_waits_for() {
    let mut rig = node();
    rig.pass(899 * SECOND);
    assert_eq!(rig.ordered(), Vec::<String>::new(), "within the shortest time");
    rig.pass(902 * SECOND);
    assert_eq!(rig.ordered(), ["create 1 +9"], "after the longest");
}

#[test]
fn why_it_is_not_asked_for_is_told() {
    let mut rig = node();
    rig.pass(6 * SECOND);
    let report = rig.pool.explain(rig.now());
    assert!(
        report
            .lines
            .iter()
            .any(|l| l.starts_with("8 addresses") || l.contains("that no pod waits for must wait")),
        "{:?}",
        report.lines
    );
    assert!(
        rig.pool
            .view(rig.now())
            .backoffs
            .iter()
            .any(|b| b.what.contains("no pod waits for"))
    );
}

#[test]
fn a_pod_that_waits_is_served_all_the_same() {
    let mut rig = node();
    rig.add_all(2..=9);
    rig.pass(10 * SECOND);
    assert_eq!(
        rig.ordered(),
        Vec::<String>::new(),
        "nine addresses serve nine pods"
    );
    rig.add(10);
    assert_eq!(rig.ordered(), ["create 1 +9"], "the tenth has to wait for one");
}

#[test]
fn no_more_places_are_opened_than_those_who_wait_need() {
    let mut rig = node();
    rig.add_all(2..=9);
    rig.pass(10 * SECOND);
    rig.add_all(10..=18);
    // Nine pods fill the new interface, and the target would have one more beside it.
    assert_eq!(rig.ordered(), ["create 1 +9"]);
}

#[test]
fn each_refusal_doubles_the_time_to_an_hour() {
    let mut rig = node();
    let mut times = Vec::new();
    for _ in 0..6 {
        let before = rig.at;
        while rig.orders.is_empty() {
            rig.pass(SECOND);
        }
        times.push((rig.at - before) / SECOND);
        refuse(&mut rig, 0);
    }
    for (time, longest) in times.iter().zip([1800, 3600, 3600, 3600, 3600, 3600]) {
        assert!((longest / 2..=longest + 1).contains(time), "{times:?}");
    }
}

#[test]
fn nodes_that_are_refused_together_do_not_come_back_together() {
    let wakes: BTreeSet<u64> = (0..50)
        .map(|n| {
            let identity = Identity {
                instance_id: format!("i-{n}"),
                ..identity()
            };
            let mut rig = Rig::around(Pool::new(identity, limits(M5_LARGE), Targets::default()).unwrap());
            let facts = rig.facts(0, 9);
            rig.seen(facts);
            rig.listed(&["eni-0"]);
            let mut rig = refused(rig);
            let before = rig.at;
            while rig.orders.is_empty() {
                rig.pass(SECOND);
            }
            (rig.at - before) / SECOND
        })
        .collect();
    assert!(wakes.len() > 35, "{wakes:?}");
}

#[test]
fn a_pod_that_was_sent_away_counts_until_it_is_asked_for_again() {
    let mut rig = node();
    rig.add_all(2..=9);
    rig.pass(10 * SECOND);
    let request: RequestId = rig.add(10);
    refuse(&mut rig, 90);
    assert_eq!(
        rig.refusal(request).cause,
        RefusalCause::Throttled,
        "not before its deadline"
    );
    rig.pass(91 * SECOND);
    assert_eq!(
        rig.ordered(),
        ["create 1 +9"],
        "it will come back, and finds its address"
    );
}

#[test]
fn a_pod_that_has_its_address_counts_no_more() {
    let mut rig = node();
    rig.add_all(2..=9);
    rig.pass(10 * SECOND);
    let request = rig.add(10);
    refuse(&mut rig, 90);
    assert_eq!(rig.refusal(request).cause, RefusalCause::Throttled);
    // Another one goes, and it comes again.
    rig.del(9);
    rig.pass(31 * SECOND);
    let request = rig.add(10);
    rig.address(request);
    rig.pass(70 * SECOND);
    assert_eq!(
        rig.ordered(),
        Vec::<String>::new(),
        "nobody waits, and nobody is to come"
    );
}
