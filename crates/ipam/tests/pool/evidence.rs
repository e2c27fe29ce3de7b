//! What IMDS and EC2 say, and how far they are believed.

use std::net::IpAddr;

use vpcnet_ipam::{Answer, Event, Evidence, InterfaceFacts, InterfaceKind, Outcome, Targets};

use super::rig::{M5_LARGE, Rig, ip_targets};

/// The facts of the primary as the pool has them.
fn primary(rig: &Rig) -> InterfaceFacts {
    rig.pool.interfaces().find(|i| i.is_primary).unwrap()
}

/// A node at rest whose last change is long ago.
fn old_node() -> Rig {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.at += 600_000;
    rig
}

#[test]
fn what_imds_misses_is_asked_of_ec2_and_not_taken_away() {
    let mut rig = old_node();
    let mut facts = primary(&rig);
    let missed = facts.addresses.pop().unwrap();
    rig.seen(facts.clone());
    assert_eq!(rig.sums().0, 9);
    assert_eq!(rig.ordered(), ["describe eni-0"]);
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert!(
        !primary(&rig).addresses.contains(&missed),
        "EC2's word takes away what no pod has"
    );
}

#[test]
fn what_ec2_confirmed_a_moment_ago_imds_may_miss() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.at += 2_000;
    let facts = rig.facts(0, 0);
    rig.seen(facts);
    rig.listed(&[]);
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (9, 0, 1)));
}

#[test]
fn what_imds_shows_that_is_not_known_is_added() {
    let mut rig = old_node();
    let mut facts = primary(&rig);
    facts.addresses.pop();
    let new = rig.fresh_address();
    let mut more = primary(&rig);
    more.addresses.push(new);
    rig.seen(more);
    assert_eq!(rig.sums().0, 10);
    assert!(primary(&rig).addresses.contains(&new));
}

#[test]
fn an_address_that_was_just_given_back_does_not_return_because_imds_lags() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(5, 0));
    let before = primary(&rig);
    rig.tell(Event::TargetsChanged(ip_targets(2, 0)));
    rig.succeed_all();
    rig.at += 2_000;
    rig.seen(before.clone());
    assert_eq!((rig.ordered(), rig.sums().0), (vec![], 2));
    rig.at += 100_000;
    rig.seen(before);
    assert_eq!(rig.ordered(), ["describe eni-0"], "that late it is no lag");
    assert_eq!(rig.sums().0, 2);
}

#[test]
fn a_deleted_interface_does_not_return_because_imds_lags() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    rig.succeed_all();
    let second = rig.pool.interfaces().find(|i| !i.is_primary).unwrap();
    rig.del(1);
    rig.pass(60_000);
    rig.succeed_all();
    rig.at += 2_000;
    rig.seen(second);
    rig.listed(&["eni-0", "eni-new1"]);
    assert_eq!((rig.ordered(), rig.sums().2), (vec![], 1));
}

#[test]
fn an_owners_address_that_ec2_denies_stays_the_owners_and_is_reported() {
    let mut rig = old_node();
    let request = rig.add(1);
    let address = rig.address(request);
    rig.orders.clear();
    let mut facts = primary(&rig);
    facts.addresses.retain(|a| IpAddr::V4(*a) != address);
    rig.tell(Event::InterfaceSeen {
        facts: facts.clone(),
        evidence: Evidence::Ec2,
    });
    let again = rig.add(1);
    assert_eq!(rig.address(again), address);
    let contradictions = rig.pool.view(rig.now()).contradictions;
    assert_eq!(contradictions[0].address, address);
    assert!(
        contradictions[0].message.contains("the pod keeps it"),
        "{contradictions:?}"
    );
    assert!(matches!(rig.del(1), Answer::Released(_)));
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert!(
        !primary(&rig).addresses.iter().any(|a| IpAddr::V4(*a) == address),
        "then nobody gets it"
    );
    assert_eq!(rig.pool.view(rig.now()).contradictions, []);
}

#[test]
fn an_interfaces_own_address_is_never_a_pods() {
    let mut rig = Rig::empty((1, 3), ip_targets(1, 0));
    let mut facts = rig.facts(0, 1);
    facts.addresses.insert(0, facts.primary_address);
    let own = facts.primary_address;
    rig.seen(facts);
    rig.listed(&["eni-0"]);
    let request = rig.add(1);
    assert_ne!(rig.address(request), IpAddr::V4(own));
    assert_eq!(rig.sums().0, 1);
}

#[test]
fn an_interface_without_addresses_to_give_only_takes_a_place() {
    let mut rig = Rig::empty(M5_LARGE, Targets::default());
    let facts = rig.facts(0, 9);
    rig.seen(facts);
    let efa = rig.facts(1, 0);
    rig.seen(InterfaceFacts {
        kind: InterfaceKind::EfaOnly,
        ..efa
    });
    let trunk = rig.facts(2, 0);
    rig.seen(InterfaceFacts {
        kind: InterfaceKind::Trunk,
        ..trunk
    });
    rig.listed(&["eni-0", "eni-1", "eni-2"]);
    rig.add(1);
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (9, 1, 3)));
}

#[test]
fn a_created_interface_is_used_when_its_executor_says_so_not_when_imds_shows_it() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    let create = rig.take_create();
    let facts = rig.facts(1, 9);
    rig.seen(facts.clone());
    assert_eq!(rig.sums(), (9, 1, 1), "its link may not be there yet");
    rig.done(&create, Outcome::InterfaceReady(facts));
    assert_eq!(rig.sums(), (18, 1, 2));
}

#[test]
fn a_read_of_ec2_that_lags_behind_its_own_answer_is_asked_again_later() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let full = primary(&rig);
    let stale = InterfaceFacts {
        addresses: vec![],
        ..full.clone()
    };
    rig.tell(Event::InterfaceSeen {
        facts: stale.clone(),
        evidence: Evidence::Ec2,
    });
    assert_eq!(rig.sums().0, 9);
    rig.pass(10_000);
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(stale)));
    assert_eq!(rig.sums().0, 0, "now it cannot lag");
}

#[test]
fn interfaces_of_other_cards_are_left_alone() {
    let mut rig = Rig::empty(M5_LARGE, Targets::default());
    let facts = rig.facts(0, 9);
    rig.seen(facts);
    let other = rig.facts(1, 9);
    rig.seen(InterfaceFacts {
        card: vpcnet_ipam::CardIndex(1),
        ..other
    });
    rig.listed(&["eni-0", "eni-1"]);
    assert_eq!(rig.sums(), (9, 0, 1));
    rig.add(1);
    assert_eq!(rig.ordered(), ["create 1 +9"]);
}
