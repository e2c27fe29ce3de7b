//! A start without a journal: what was given back a moment before is on no record, and lists lag behind it.

use std::net::IpAddr;

use vpcnet_ipam::{
    Action, Answer, Event, Evidence, FailureClass, InterfaceFacts, Outcome, Restored, Targets,
};

use super::rig::{M5_LARGE, Rig, ip_targets, prefixes};

/// A node whose files are lost, and that was just shown its interfaces: the primary one with so many addresses.
fn node(size: (u32, u32), targets: Targets, addresses: u32, evidence: Evidence) -> (Rig, InterfaceFacts) {
    let (mut rig, _) = Rig::empty(size, targets).restart(|r| *r = Restored::default());
    let facts = rig.facts(0, addresses);
    rig.tell(Event::InterfaceSeen {
        facts: facts.clone(),
        evidence,
    });
    rig.listed(&["eni-0"]);
    (rig, facts)
}

fn without(facts: &InterfaceFacts, gone: usize) -> InterfaceFacts {
    let mut facts = facts.clone();
    facts.addresses.remove(gone);
    facts
}

#[test]
fn what_a_list_says_is_given_to_nobody_before_reads_no_longer_lag() {
    for evidence in [Evidence::Imds, Evidence::Ec2] {
        let (mut rig, facts) = node((1, 4), Targets::default(), 3, evidence);
        let pods = [rig.add(1), rig.add(2), rig.add(3)];
        rig.pass(9_999);
        assert!(pods.iter().all(|pod| rig.answer(*pod).is_none()));
        assert_eq!(rig.ordered(), Vec::<String>::new());
        rig.pass(1);
        let describe = rig.take_describe();
        // The first had been given back.
        rig.done(&describe, Outcome::Described(Some(without(&facts, 0))));
        let given: Vec<IpAddr> = pods[..2].iter().map(|pod| rig.address(*pod)).collect();
        assert!(!given.contains(&IpAddr::V4(facts.addresses[0])), "{given:?}");
        assert_eq!(rig.answer(pods[2]), None);
        assert_eq!(rig.ordered(), ["assign eni-0 +1"]);
    }
}

#[test]
fn what_is_asked_for_in_this_life_is_sure_at_once() {
    let (mut rig, _) = node(M5_LARGE, Targets::default(), 3, Evidence::Ec2);
    let pod = rig.add(1);
    let assign = rig.take_assign();
    rig.succeed(&assign);
    rig.address(pod);
}

#[test]
fn an_address_that_ec2_gives_again_is_sure_at_once() {
    let (mut rig, facts) = node(M5_LARGE, ip_targets(1, 0), 1, Evidence::Imds);
    let pod = rig.add(1);
    let assign = rig.take_assign();
    rig.done(
        &assign,
        Outcome::Assigned {
            addresses: facts.addresses.clone(),
            prefixes: vec![],
        },
    );
    assert_eq!(rig.address(pod), IpAddr::V4(facts.addresses[0]));
}

#[test]
fn a_question_asked_too_early_is_asked_again() {
    let (mut rig, facts) = node(M5_LARGE, Targets::default(), 2, Evidence::Imds);
    rig.add(1);
    let assign = rig.take_assign();
    // EC2 and we disagree, so it is asked, and its answer takes long.
    rig.fail(&assign, FailureClass::LimitReached, "full", None);
    let early = rig.take_describe();
    rig.pass(10_500);
    rig.done(&early, Outcome::Described(Some(facts.clone())));
    let free = |rig: &Rig| rig.pool.view(rig.now()).totals.free;
    assert_eq!(free(&rig), 0, "that read was made when it could still lag");
    rig.pass(1);
    let late = rig.take_describe();
    rig.done(&late, Outcome::Described(Some(facts)));
    assert_eq!(rig.sums(), (2, 1, 1));
}

#[test]
fn another_start_in_between_does_not_make_it_sure() {
    let (rig, facts) = node((1, 4), Targets::default(), 3, Evidence::Ec2);
    let (mut rig, _) = rig.restart(|_| {});
    let pod = rig.add(1);
    rig.pass(9_999);
    assert_eq!(rig.answer(pod), None);
    rig.pass(1);
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(facts)));
    rig.address(pod);
}

/// The same agent after the machine started anew.
fn in_another_boot(rig: Rig) -> Rig {
    rig.restart(|r| r.journal.as_mut().unwrap().boot_id = "boot-0".into())
        .0
}

#[test]
fn nor_does_a_machine_that_starts_anew_in_between() {
    let (mut rig, facts) = node((1, 4), Targets::default(), 3, Evidence::Ec2);
    rig.pass(4_000);
    let mut rig = in_another_boot(rig);
    let pods = [rig.add(1), rig.add(2), rig.add(3)];
    rig.pass(9_999);
    assert_eq!(rig.ordered(), Vec::<String>::new(), "its read would lag");
    assert!(pods.iter().all(|pod| rig.answer(*pod).is_none()));
    rig.pass(1);
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(without(&facts, 0))));
    let given: Vec<IpAddr> = pods[..2].iter().map(|pod| rig.address(*pod)).collect();
    assert!(!given.contains(&IpAddr::V4(facts.addresses[0])), "{given:?}");
}

#[test]
fn what_is_listed_after_a_machine_started_anew_in_between_is_no_surer() {
    let (rig, mut facts) = node((1, 4), Targets::default(), 2, Evidence::Ec2);
    let mut rig = in_another_boot(rig);
    let later = rig.facts(0, 1).addresses[0];
    facts.addresses.push(later);
    // What became of the assignment that was under way is asked at once.
    let early = rig.take_describe();
    rig.done(&early, Outcome::Described(Some(facts.clone())));
    let pods = [rig.add(1), rig.add(2), rig.add(3)];
    rig.pass(9_999);
    assert!(pods.iter().all(|pod| rig.answer(*pod).is_none()));
    rig.pass(1);
    let late = rig.take_describe();
    rig.done(&late, Outcome::Described(Some(facts)));
    assert!(pods.iter().all(|pod| rig.answer(*pod).is_some()));
}

#[test]
fn nothing_of_it_is_given_back_before_it_is_sure() {
    let (mut rig, facts) = node(M5_LARGE, ip_targets(1, 0), 5, Evidence::Ec2);
    rig.pass(9_999);
    assert_eq!(rig.ordered(), Vec::<String>::new());
    rig.pass(1);
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert_eq!(rig.ordered(), ["release eni-0 -4"]);
}

#[test]
fn nor_is_a_prefix_of_it() {
    let (mut rig, _) = Rig::empty(M5_LARGE, prefixes(1)).restart(|r| *r = Restored::default());
    let mut facts = rig.facts(0, 0);
    facts.prefixes = rig.fresh_prefixes(3);
    rig.tell(Event::InterfaceSeen {
        facts: facts.clone(),
        evidence: Evidence::Ec2,
    });
    rig.listed(&["eni-0"]);
    rig.pass(9_999);
    assert_eq!(rig.ordered(), Vec::<String>::new());
    rig.pass(1);
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert_eq!(rig.ordered(), ["release eni-0 -2 prefixes"]);
}

#[test]
fn an_interface_that_a_list_still_showed_is_forgotten_when_ec2_does_not_know_it() {
    let targets = Targets {
        warm_eni: 0,
        ..Targets::default()
    };
    let (mut rig, _) = node(M5_LARGE, targets, 0, Evidence::Ec2);
    let facts = rig.facts(1, 9);
    rig.tell(Event::InterfaceSeen {
        facts,
        evidence: Evidence::Ec2,
    });
    rig.pass(10_000);
    let of_second = |a: &Action| matches!(a, Action::Describe { eni, .. } if eni.0 == "eni-1");
    let describe = rig.take(of_second);
    rig.done(&describe, Outcome::Described(None));
    assert!(rig.pool.interfaces().all(|i| i.id.0 != "eni-1"));
}

#[test]
fn a_pod_that_waits_for_it_is_told_so() {
    let (mut rig, _) = node((1, 4), Targets::default(), 3, Evidence::Imds);
    let pod = rig.add_for(1, 12_000);
    rig.pass(1_000);
    assert_eq!(rig.answer(pod), None, "there is hope");
    rig.pass(11_000);
    let refusal = rig.refusal(pod);
    assert!(
        refusal
            .message
            .contains("3 were found by a start without own state"),
        "{refusal:?}"
    );
}

#[test]
fn a_first_start_asks_nobody() {
    let (mut rig, _) = node(M5_LARGE, ip_targets(0, 0), 0, Evidence::Imds);
    rig.succeed_all();
    rig.pass(20_000);
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
}

/// A list that lags does not show what a pod lives with: that interface may be the one.
#[test]
fn an_interface_that_may_hold_a_pods_address_is_not_deleted() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add_all(1..=10);
    rig.succeed_all();
    let facts: Vec<InterfaceFacts> = rig.pool.interfaces().collect();
    for n in 1..=9 {
        assert!(matches!(rig.del(n), Answer::Released(_)));
    }
    let (mut rig, _) = rig.restart(|r| r.journal = None);
    let last = rig.pool.owners().next().unwrap().address;
    for mut facts in facts {
        facts.addresses.retain(|at| IpAddr::V4(*at) != last);
        rig.tell(Event::InterfaceSeen {
            facts,
            evidence: Evidence::Ec2,
        });
    }
    rig.listed(&["eni-0", "eni-new1", "eni-new2"]);
    rig.pass(10_000);
    // EC2 lags further than ever.
    rig.succeed_all();
    rig.pass(120_000);
    assert!(
        rig.ordered().iter().all(|o| !o.starts_with("delete")),
        "{:?}",
        rig.ordered()
    );
}
