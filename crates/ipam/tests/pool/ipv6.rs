//! IPv6: a /80, and no arithmetic.

use std::net::{IpAddr, Ipv6Addr};

use vpcnet_ipam::{
    Action, Answer, Checkpoint, Event, Evidence, FailureClass, HostRoute, InterfaceFacts, Mode, Outcome,
    RefusalCause, Targets,
};

use super::rig::{M5_LARGE, Rig, key, meta, seconds, veth};

fn ipv6() -> Targets {
    Targets {
        mode: Mode::Ipv6,
        max_pods: 29,
        warm_ip: Some(7),
        ..Targets::default()
    }
}

fn take(rig: &mut Rig) -> Action {
    rig.take(|a| matches!(a, Action::AssignIpv6Prefix { .. }))
}

/// What follows the prefix of the rig's /80.
fn host(at: IpAddr) -> u128 {
    let IpAddr::V6(at) = at else {
        panic!("{at} is no IPv6 address")
    };
    let prefix: Ipv6Addr = "fd00:1:2:3:4::".parse().unwrap();
    at.to_bits() - prefix.to_bits()
}

fn primary(rig: &Rig) -> InterfaceFacts {
    rig.pool.interfaces().find(|i| i.is_primary).unwrap()
}

#[test]
fn a_fresh_node_asks_for_one_prefix_on_the_primary_interface_and_nothing_more() {
    let mut rig = Rig::fresh(M5_LARGE, ipv6());
    assert_eq!(rig.ordered(), ["assign eni-0 /80"]);
    rig.succeed_all();
    for n in 1..=29 {
        let request = rig.add(n);
        assert_eq!(host(rig.address(request)), u128::from(n - 1), "from the first on");
    }
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
}

#[test]
fn a_prefix_that_is_there_is_used() {
    let mut rig = Rig::empty(M5_LARGE, ipv6());
    let mut facts = rig.facts(0, 0);
    facts.ipv6_prefixes = vec!["fd00:1:2:3:4::/80".parse().unwrap()];
    rig.seen(facts);
    rig.listed(&["eni-0"]);
    assert_eq!(rig.ordered(), [""; 0]);
    let request = rig.add(1);
    assert_eq!(host(rig.address(request)), 0);
}

#[test]
fn an_address_is_not_used_again_before_its_cool_down_is_over() {
    let mut rig = Rig::settled(M5_LARGE, ipv6());
    let first = rig.add(1);
    let first = rig.address(first);
    rig.del(1);
    let others: Vec<IpAddr> = (2..=20)
        .map(|n| {
            let request = rig.add(n);
            rig.address(request)
        })
        .collect();
    assert!(!others.contains(&first));
    rig.pass(30_000);
    let again = rig.add(21);
    assert_eq!(rig.address(again), first);
}

#[test]
fn max_pods_bounds_it() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            max_pods: 2,
            ..ipv6()
        },
    );
    rig.add_all(1..=2);
    let request = rig.add(3);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::TargetReached);
    assert!(refusal.message.contains("max-pods 2"), "{}", refusal.message);
    rig.del(1);
    let request = rig.add(4);
    rig.address(request);
}

#[test]
fn pods_wait_for_the_prefix_and_are_all_served_by_it() {
    let mut rig = Rig::fresh(M5_LARGE, ipv6());
    let requests: Vec<_> = (1..=5).map(|n| rig.add(n)).collect();
    assert_eq!(rig.ordered(), ["assign eni-0 /80"]);
    rig.succeed_all();
    let hosts: Vec<u128> = requests.iter().map(|r| host(rig.address(*r))).collect();
    assert_eq!(hosts, [0, 1, 2, 3, 4]);
}

#[test]
fn a_refused_prefix_is_named_and_asked_for_again() {
    let mut rig = Rig::fresh(M5_LARGE, ipv6());
    let assign = take(&mut rig);
    rig.fail(
        &assign,
        FailureClass::Throttled,
        "RequestLimitExceeded",
        Some(2_000),
    );
    let request = rig.add(1);
    assert_eq!(rig.answer(request), None);
    rig.pass(2_000);
    let assign = take(&mut rig);
    rig.fail(&assign, FailureClass::Refused, "UnauthorizedOperation: no", None);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::Ec2Refused);
    assert!(
        refusal.message.contains("UnauthorizedOperation: no"),
        "{}",
        refusal.message
    );
    assert_eq!(refusal.retry_in, Some(seconds(60)));
    rig.pass(60_000);
    take(&mut rig);
}

#[test]
fn a_lost_answer_is_looked_into_before_another_prefix_is_asked_for() {
    let mut rig = Rig::fresh(M5_LARGE, ipv6());
    let assign = take(&mut rig);
    let request = rig.add(1);
    rig.fail(&assign, FailureClass::Retry, "timed out", None);
    assert_eq!(
        (rig.ordered(), rig.answer(request)),
        (vec!["describe eni-0".to_owned()], None)
    );
    let describe = rig.take_describe();
    let mut facts = rig.facts(0, 0);
    facts.ipv6_prefixes = vec!["fd00:1:2:3:4::/80".parse().unwrap()];
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert_eq!(host(rig.address(request)), 0);
    assert_eq!(rig.ordered(), [""; 0]);
}

#[test]
fn the_checkpoint_says_ipv6_as_the_originals_does_and_a_restart_reads_it() {
    let mut rig = Rig::settled(M5_LARGE, ipv6());
    rig.add(1);
    let text = String::from_utf8(rig.pool.checkpoint().to_json()).unwrap();
    assert!(
        text.contains(r#""ifName":"eth0","ipv6":"fd00:1:2:3:4::","allocationTimestamp""#),
        "{text}"
    );
    assert_eq!(text.as_bytes(), rig.pool.checkpoint().to_json());
    let (mut rig, notes) = rig.restart(|_| {});
    assert_eq!((notes, rig.ordered()), (vec![], vec![]));
    let again = rig.add(1);
    assert_eq!(host(rig.address(again)), 0);
    let other = rig.add(2);
    assert_eq!(host(rig.address(other)), 1);
    let lease = rig.pool.owners().next().unwrap();
    assert_eq!((lease.eni.0.as_str(), lease.route_table), ("eni-0", 254));
}

#[test]
fn cool_downs_go_on_across_a_restart() {
    let mut rig = Rig::settled(M5_LARGE, ipv6());
    rig.add(1);
    rig.del(1);
    rig.pass(10_000);
    let (mut rig, _) = rig.restart(|_| {});
    let request = rig.add(2);
    assert_eq!(host(rig.address(request)), 1, "20 s are left");
    rig.pass(20_000);
    let request = rig.add(3);
    assert_eq!(host(rig.address(request)), 0);
}

#[test]
fn owners_are_placed_when_the_interface_is_shown_and_rebuilt_from_the_kernel() {
    let mut rig = Rig::settled(M5_LARGE, ipv6());
    rig.add_all(1..=2);
    let facts = primary(&rig);
    let pods = vec![HostRoute {
        address: "fd00:1:2:3:4::1".parse().unwrap(),
        host_veth: veth(&meta(2)),
    }];
    let (mut rig, notes) = rig.restart(|r| (r.checkpoint, r.journal, r.kernel.pods) = (None, None, pods));
    assert!(notes[0].contains("is in use behind"), "{notes:?}");
    assert_eq!(rig.pool.view(rig.now()).totals.orphans, 1);
    rig.seen(facts);
    rig.listed(&["eni-0"]);
    assert_eq!(rig.pool.view(rig.now()).totals.orphans, 0);
    let request = rig.add(3);
    assert_eq!(host(rig.address(request)), 0);
    let request = rig.add(4);
    assert_eq!(host(rig.address(request)), 2, "the second lives with 1");
    assert!(matches!(rig.del_as(key(2), meta(2)), Answer::Released(_)));
}

#[test]
fn what_could_not_be_written_down_did_not_happen() {
    let mut rig = Rig::settled(M5_LARGE, ipv6());
    rig.add(1);
    let before = rig.pool.checkpoint();
    rig.add(2);
    rig.del(1);
    rig.tell(Event::CheckpointFailed {
        keys: vec![key(2)],
        released: vec![key(1)],
        message: "disk full".into(),
    });
    assert_eq!(rig.pool.checkpoint(), before);
    rig.pass(1_000);
    let request = rig.add(3);
    assert_eq!(
        host(rig.address(request)),
        1,
        "that of the second, who never had it"
    );
}

#[test]
fn a_prefix_that_ec2_denies_is_given_to_nobody_else_and_the_pod_keeps_its_address() {
    let mut rig = Rig::settled(M5_LARGE, ipv6());
    let request = rig.add(1);
    let address = rig.address(request);
    rig.at += 600_000;
    let facts = InterfaceFacts {
        ipv6_prefixes: vec![],
        ..primary(&rig)
    };
    rig.tell(Event::InterfaceSeen {
        facts,
        evidence: Evidence::Ec2,
    });
    assert_eq!(rig.ordered(), ["assign eni-0 /80"]);
    let view = rig.pool.view(rig.now());
    assert_eq!(view.contradictions[0].address, address);
    let again = rig.add(1);
    assert_eq!(rig.address(again), address);
}

#[test]
fn ipv4_pods_of_a_switched_node_stay_and_new_ones_are_of_the_other_family() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let old = rig.add(1);
    let old = rig.address(old);
    rig.succeed_all();
    rig.tell(Event::TargetsChanged(ipv6()));
    rig.succeed_all();
    let new = rig.add(2);
    assert_eq!(host(rig.address(new)), 0);
    let again = rig.add(1);
    assert_eq!(rig.address(again), old);
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
    let read = Checkpoint::parse(&rig.pool.checkpoint().to_json()).unwrap();
    assert_eq!(read.allocations.len(), 2);
}

#[test]
fn the_plan_says_that_there_is_no_arithmetic() {
    let mut rig = Rig::settled(M5_LARGE, ipv6());
    rig.add(1);
    let lines = rig.pool.explain(rig.now()).lines;
    let want =
        "one /80 serves; max-pods 29 − 1 assigned = 28 more pods; the warm targets have no meaning with IPv6";
    assert!(lines.iter().any(|l| l == want), "{lines:#?}");
    let rig = Rig::fresh(M5_LARGE, ipv6());
    let lines = rig.pool.explain(rig.now()).lines;
    assert!(
        lines.iter().any(|l| l.starts_with("a /80 is missing")),
        "{lines:#?}"
    );
}
