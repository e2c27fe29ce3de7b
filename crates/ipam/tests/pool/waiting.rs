//! Pods that wait for an address.

use vpcnet_ipam::{
    Answer, CardIndex, Cards, Event, FailureClass, Mono, PodKey, RefusalCause, RequestId, Targets,
};

use super::rig::{M5_4XLARGE, M5_LARGE, Rig, ip_targets, key, meta};

/// All 27 addresses of an m5.large in pods' hands.
fn full_node() -> Rig {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    for n in 1..=27 {
        rig.add(n);
        rig.succeed_all();
    }
    assert_eq!(rig.sums(), (27, 27, 3));
    rig
}

#[test]
fn those_who_wait_are_served_oldest_first_the_moment_addresses_exist() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    let requests: Vec<_> = (1..=3).map(|n| rig.add(n)).collect();
    let assign = rig.take_assign();
    rig.succeed(&assign);
    assert!(rig.answer(requests[0]).is_some());
    assert_eq!((rig.answer(requests[1]), rig.answer(requests[2])), (None, None));
    assert_eq!(
        rig.ordered(),
        ["assign eni-0 +3"],
        "one call for both and the warm one"
    );
    rig.succeed_all();
    assert!(
        requests
            .iter()
            .all(|r| matches!(rig.answer(*r), Some(Answer::Assigned(_))))
    );
}

#[test]
fn what_is_coming_counts_so_that_nothing_is_asked_for_twice() {
    let mut rig = Rig::fresh(M5_LARGE, Targets::default());
    for n in 1..=9 {
        rig.add(n);
    }
    assert_eq!(rig.ordered(), ["assign eni-0 +9", "create 1 +9"]);
    rig.succeed_all();
    assert_eq!(rig.sums(), (18, 9, 2));
}

#[test]
fn as_many_interfaces_as_the_waiting_pods_need_are_made_side_by_side() {
    let mut rig = Rig::settled(
        M5_4XLARGE,
        Targets {
            max_pods: 234,
            ..Targets::default()
        },
    );
    for n in 1..=29 {
        rig.add(n);
    }
    assert_eq!(rig.ordered(), ["create 1 +29"], "29 assigned, 29 coming");
    for n in 30..=37 {
        let request = rig.add(n);
        assert_eq!(rig.answer(request), None);
    }
    assert_eq!(
        rig.ordered(),
        ["create 1 +29", "create 2 +29"],
        "8 wait: 66 wanted, 58 there or coming"
    );
    for n in 38..=66 {
        rig.add(n);
    }
    assert_eq!(rig.ordered(), ["create 1 +29", "create 2 +29", "create 3 +29"]);
    rig.succeed_all();
    assert_eq!(rig.sums(), (116, 66, 4));
}

#[test]
fn a_burst_on_an_empty_node_asks_for_everything_at_once_and_no_more() {
    let mut rig = Rig::fresh(
        M5_4XLARGE,
        Targets {
            max_pods: 234,
            ..Targets::default()
        },
    );
    for n in 1..=100 {
        rig.add(n);
    }
    let orders = rig.ordered();
    assert_eq!(
        orders.len(),
        5,
        "100 waiting + 29 warm = 129 of 29 each: {orders:?}"
    );
    rig.succeed_all();
    assert_eq!(rig.sums(), (145, 100, 5));
}

#[test]
fn the_same_sandbox_gets_the_same_address_twice() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let (first, again) = (rig.add(1), rig.add(1));
    assert_eq!(rig.address(first), rig.address(again));
    assert_eq!(rig.sums().1, 1);
}

#[test]
fn two_callers_that_wait_for_the_same_sandbox_get_the_same_address() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    let (first, again) = (rig.add(1), rig.add(1));
    rig.succeed_all();
    assert_eq!(rig.address(first), rig.address(again));
    assert_eq!(rig.sums(), (2, 1, 1), "one demand, not two");
}

#[test]
fn a_caller_that_hangs_up_ends_its_wait_and_no_other() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    let (first, again, other) = (rig.add(1), rig.add(1), rig.add(2));
    rig.tell(Event::RequestGone { request: first });
    rig.tell(Event::RequestGone { request: other });
    rig.succeed_all();
    assert_eq!((rig.answer(first), rig.answer(other)), (None, None));
    rig.address(again);
    assert_eq!(rig.sums().1, 1);
}

#[test]
fn a_del_ends_the_wait_of_its_sandbox() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    let request = rig.add(1);
    assert_eq!(rig.del(1), Answer::UnknownPod);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::Deleted);
    assert!(
        refusal.message.contains(&key(1).container_id),
        "{}",
        refusal.message
    );
    rig.succeed_all();
    assert_eq!(rig.sums().1, 0);
}

#[test]
fn a_full_instance_refuses_at_once_and_says_so() {
    let mut rig = full_node();
    let request = rig.add(28);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::InstanceFull);
    assert_eq!(
        refusal.message,
        "27 of 27 addresses are assigned; all 3 interfaces that instance i-1 can have are full"
    );
    assert_eq!(rig.pool.next_wake(), None, "nothing is left to wait for");
}

#[test]
fn a_pod_for_which_nothing_is_left_of_what_is_coming_is_refused_at_once() {
    let mut rig = Rig::fresh((1, 3), Targets::default());
    let (first, second, third) = (rig.add(1), rig.add(2), rig.add(3));
    assert_eq!((rig.answer(first), rig.answer(second)), (None, None));
    let refusal = rig.refusal(third);
    assert_eq!(refusal.cause, RefusalCause::InstanceFull);
    assert_eq!(
        refusal.message,
        "0 of 0 addresses are assigned and the 2 that are coming are for pods that waited before; all 1 interfaces \
         that instance i-1 can have are full"
    );
}

#[test]
fn an_interface_in_the_making_counts_with_all_its_room() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(1, 0));
    rig.add_all(1..=8);
    rig.succeed_all();
    rig.add(9);
    assert_eq!(rig.ordered(), ["create 1 +1"]);
    let requests: Vec<_> = (10..=18).map(|n| rig.add(n)).collect();
    assert_eq!(
        rig.ordered(),
        ["create 1 +1", "create 2 +1"],
        "ten more wanted, nine of them for the first"
    );
    rig.succeed_all();
    requests.iter().for_each(|r| assert!(rig.address(*r).is_ipv4()));
    assert_eq!(rig.sums(), (19, 18, 3));
}

#[test]
fn on_a_full_instance_a_pod_waits_for_a_cool_down_that_ends_in_time() {
    let mut rig = full_node();
    rig.del(5);
    let (in_time, too_late, one_too_many) = (rig.add(28), rig.add_for(29, 10_000), rig.add(30));
    assert_eq!(rig.answer(in_time), None);
    let refusal = rig.refusal(too_late);
    assert_eq!(refusal.cause, RefusalCause::CoolingDown);
    assert_eq!(refusal.retry_in, Some(std::time::Duration::from_secs(30)));
    assert_eq!(
        rig.refusal(one_too_many).cause,
        RefusalCause::CoolingDown,
        "the only one is spoken for"
    );
    assert_eq!(rig.pool.next_wake(), Some(Mono(rig.at + 30_000)));
    rig.pass(30_000);
    rig.address(in_time);
}

#[test]
fn growing_is_preferred_to_waiting_for_a_cool_down() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(0, 2));
    for n in 1..=2 {
        rig.add(n);
    }
    rig.del(1);
    let request = rig.add(3);
    assert_eq!(rig.ordered(), ["assign eni-0 +1"]);
    rig.succeed_all();
    rig.address(request);
}

#[test]
fn max_eni_and_max_pods_refuse_by_their_names() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            max_eni: Some(1),
            ..Targets::default()
        },
    );
    rig.add_all(1..=9);
    let request = rig.add(10);
    assert_eq!(rig.refusal(request).cause, RefusalCause::TargetReached);
    assert!(
        rig.refusal(request).message.contains("MAX_ENI"),
        "{}",
        rig.refusal(request).message
    );
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            max_pods: 9,
            ..Targets::default()
        },
    );
    rig.add_all(1..=9);
    let request = rig.add(10);
    assert!(
        rig.refusal(request).message.contains("max-pods 9"),
        "{}",
        rig.refusal(request).message
    );
}

#[test]
fn at_the_deadline_a_pod_is_told_what_is_under_way_and_for_how_long() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    rig.pass(1_000);
    let request = rig.add(1);
    assert_eq!(rig.pool.next_wake(), Some(Mono(rig.at + 60_000)));
    rig.pass(59_999);
    assert_eq!(rig.answer(request), None);
    rig.pass(1);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::StillWorking);
    assert!(
        refusal.message.contains("assignment of 1 addresses to eni-0"),
        "{}",
        refusal.message
    );
    assert!(refusal.message.contains("61 s"), "{}", refusal.message);
}

#[test]
fn a_dry_pool_with_ec2_silent_names_the_last_error_and_the_next_try() {
    let mut rig = Rig::fresh(
        M5_LARGE,
        Targets {
            max_eni: Some(1),
            ..ip_targets(1, 0)
        },
    );
    let request = rig.add(1);
    let assign = rig.take_assign();
    rig.fail(
        &assign,
        FailureClass::Throttled,
        "RequestLimitExceeded: slow down",
        Some(2_000),
    );
    assert_eq!(
        (rig.answer(request), rig.ordered()),
        (None, vec![]),
        "it keeps waiting"
    );
    rig.pass(2_000);
    let assign = rig.take_assign();
    rig.pass(55_000);
    rig.fail(
        &assign,
        FailureClass::Throttled,
        "RequestLimitExceeded: slower",
        Some(20_000),
    );
    let refusal = rig.refusal(request);
    assert_eq!(
        refusal.cause,
        RefusalCause::Throttled,
        "the next try comes after the deadline: no use to wait"
    );
    assert!(
        refusal.message.contains("RequestLimitExceeded: slower"),
        "{}",
        refusal.message
    );
    assert_eq!(refusal.retry_in, Some(std::time::Duration::from_secs(20)));
}

#[test]
fn a_pool_that_does_not_know_its_interfaces_lets_pods_wait() {
    let mut rig = Rig::empty(M5_LARGE, Targets::default());
    let request = rig.add(1);
    assert_eq!(rig.answer(request), None);
    let facts = rig.facts(0, 9);
    rig.seen(facts);
    rig.address(request);
    assert_eq!(
        rig.ordered(),
        [""; 0],
        "nothing is asked for before all interfaces are known"
    );
    let late = rig.add(2);
    rig.address(late);
    rig.listed(&["eni-0"]);
    assert_eq!(rig.ordered(), ["create 1 +9"]);
}

#[test]
fn a_request_without_a_sandbox_is_refused() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let request = RequestId(77);
    let key = PodKey {
        container_id: String::new(),
        ..key(1)
    };
    rig.tell(Event::PodWants {
        request,
        key,
        meta: meta(1),
        deadline: Mono(u64::MAX),
        cards: Cards::Any,
    });
    assert_eq!(rig.refusal(request).cause, RefusalCause::BadRequest);
}

#[test]
fn a_pod_of_every_card_gets_one_address_where_one_card_is_managed() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let (request, deadline) = (RequestId(77), Mono(u64::MAX));
    rig.tell(Event::PodWants {
        request,
        key: key(1),
        meta: meta(1),
        deadline,
        cards: Cards::Every,
    });
    let Some(Answer::Assigned(leases)) = rig.answer(request) else {
        panic!("not served")
    };
    assert_eq!((leases.len(), leases[0].card), (1, CardIndex(0)));
}

#[test]
fn what_could_not_be_written_down_did_not_happen() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            warm_eni: 0,
            ..Targets::default()
        },
    );
    let kept = rig.add(1);
    let kept = rig.address(kept);
    let before = rig.pool.checkpoint();
    let lost = rig.add(2);
    let lost = rig.address(lost);
    rig.del(1);
    rig.tell(Event::CheckpointFailed {
        keys: vec![key(2)],
        released: vec![key(1)],
        message: "disk full".into(),
    });
    assert_eq!(rig.pool.checkpoint(), before);
    let again = rig.add(1);
    assert_eq!(rig.address(again), kept);
    rig.pass(1_000);
    let view = rig.pool.view(rig.now());
    let lost = view.interfaces[0]
        .addresses
        .iter()
        .find(|a| std::net::IpAddr::V4(a.address) == lost)
        .unwrap();
    assert_eq!(lost.state, vpcnet_ipam::AddressState::Free);
}

#[test]
fn after_a_failed_checkpoint_those_who_wait_are_served_a_moment_later() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    let (first, second) = (rig.add(1), rig.add(2));
    rig.succeed_all();
    rig.address(first);
    rig.address(second);
    let third = rig.add(3);
    rig.address(third);
    let fourth = rig.add(4);
    assert_eq!(rig.answer(fourth), None);
    rig.tell(Event::CheckpointFailed {
        keys: vec![key(3)],
        released: vec![],
        message: "disk full".into(),
    });
    assert_eq!(rig.answer(fourth), None, "not in the same breath");
    rig.pass(250);
    rig.address(fourth);
}
