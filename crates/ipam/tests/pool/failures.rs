//! EC2 fails in every class, and what the pool makes of it.

use vpcnet_ipam::{
    Action, EniId, Event, Evidence, FailureClass, Mono, Outcome, RefusalCause, Stage, SubnetId, Targets,
};

use super::rig::{M5_LARGE, Rig, id_of, ip_targets, seconds};

fn token(action: &Action) -> &str {
    match action {
        Action::CreateInterface { client_token, .. } => client_token,
        other => panic!("{other:?}"),
    }
}

/// A node whose primary is full and that is about to make a second interface.
fn creating() -> (Rig, Action) {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    let create = rig.take_create();
    (rig, create)
}

#[test]
fn a_creation_whose_answer_is_lost_is_repeated_with_the_same_token_and_what_it_had_achieved() {
    let (mut rig, create) = creating();
    rig.progress(
        &create,
        Stage::Created {
            eni: EniId::from("eni-x"),
        },
    );
    rig.fail(&create, FailureClass::Retry, "timed out", None);
    assert_eq!(rig.ordered(), [""; 0], "after a pause");
    rig.pass(1_000);
    let again = rig.take_create();
    assert_eq!(token(&again), token(&create));
    assert_ne!(id_of(&again), id_of(&create), "an action's id is never reused");
    let Action::CreateInterface {
        done, addresses: 9, ..
    } = &again
    else {
        panic!("{again:?}")
    };
    assert_eq!(
        done[..],
        [Stage::Created {
            eni: EniId::from("eni-x")
        }]
    );
    rig.succeed(&again);
    assert_eq!(rig.sums(), (18, 1, 2));
}

#[test]
fn pauses_between_repeats_grow_unless_the_executor_knows_better() {
    let (mut rig, mut create) = creating();
    for pause in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        rig.fail(&create, FailureClass::Retry, "timed out", None);
        rig.pass(pause - 1);
        assert_eq!(rig.ordered(), [""; 0]);
        rig.pass(1);
        create = rig.take_create();
    }
    rig.fail(&create, FailureClass::Retry, "timed out", Some(70));
    rig.pass(70);
    rig.take_create();
}

#[test]
fn a_throttled_creation_had_no_effect_and_is_thought_over_anew() {
    let (mut rig, create) = creating();
    rig.fail(
        &create,
        FailureClass::Throttled,
        "RequestLimitExceeded",
        Some(3_000),
    );
    rig.del(1);
    rig.pass(60_000);
    assert_eq!(rig.ordered(), [""; 0], "nobody needs it any more");
}

#[test]
fn a_refused_call_is_named_and_tried_again_after_a_minute() {
    let (mut rig, create) = creating();
    rig.fail(
        &create,
        FailureClass::Refused,
        "UnauthorizedOperation: you may not",
        None,
    );
    let backoffs = rig.pool.view(rig.now()).backoffs;
    assert_eq!(backoffs.len(), 1);
    assert!(
        backoffs[0].message.contains("UnauthorizedOperation"),
        "{backoffs:?}"
    );
    rig.pass(59_999);
    assert_eq!(rig.ordered(), [""; 0]);
    rig.pass(1);
    assert_eq!(rig.ordered(), ["create 1 +9"]);
    let (mut rig, create) = creating();
    rig.add_all(2..=9);
    rig.fail(
        &create,
        FailureClass::Refused,
        "UnauthorizedOperation: you may not",
        None,
    );
    let request = rig.add(10);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::Ec2Refused, "no use to wait for it");
    assert!(
        refusal
            .message
            .contains("creating an interface failed: UnauthorizedOperation"),
        "{}",
        refusal.message
    );
    assert_eq!(refusal.retry_in, Some(seconds(60)));
}

#[test]
fn a_full_subnet_is_asked_for_less_and_then_less_often() {
    let mut rig = Rig::fresh(M5_LARGE, Targets::default());
    for wanted in [
        "assign eni-0 +9",
        "assign eni-0 +4",
        "assign eni-0 +2",
        "assign eni-0 +1",
    ] {
        assert_eq!(rig.ordered(), [wanted]);
        let assign = rig.take_assign();
        rig.fail(
            &assign,
            FailureClass::SubnetExhausted,
            "InsufficientFreeAddressesInSubnet",
            None,
        );
    }
    for pause in [10_000, 20_000, 40_000, 80_000, 120_000, 120_000] {
        rig.pass(pause - 1);
        assert_eq!(rig.ordered(), [""; 0]);
        rig.pass(1);
        let assign = rig.take_assign();
        rig.fail(
            &assign,
            FailureClass::SubnetExhausted,
            "InsufficientFreeAddressesInSubnet",
            None,
        );
    }
}

#[test]
fn a_pod_that_waits_has_a_full_subnet_asked_every_ten_seconds_and_learns_its_name() {
    let targets = Targets {
        max_eni: Some(1),
        ..ip_targets(1, 0)
    };
    let mut rig = Rig::fresh(M5_LARGE, targets);
    for _ in 0..8 {
        let assign = rig.take_assign();
        rig.fail(
            &assign,
            FailureClass::SubnetExhausted,
            "InsufficientFreeAddressesInSubnet",
            None,
        );
        rig.pass(120_000);
    }
    let request = rig.add(1);
    for _ in 0..6 {
        let assign = rig.take_assign();
        assert_eq!(rig.answer(request), None);
        rig.fail(
            &assign,
            FailureClass::SubnetExhausted,
            "InsufficientFreeAddressesInSubnet",
            None,
        );
        rig.pass(10_000);
    }
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::SubnetExhausted);
    assert!(
        refusal.message.contains("taking an address of subnet-1"),
        "{}",
        refusal.message
    );
    assert_eq!(refusal.retry_in, Some(seconds(10)));
}

#[test]
fn a_subnet_with_addresses_again_is_asked_at_once() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    let assign = rig.take_assign();
    rig.fail(
        &assign,
        FailureClass::SubnetExhausted,
        "InsufficientFreeAddressesInSubnet",
        None,
    );
    assert_eq!(rig.ordered(), [""; 0]);
    rig.tell(Event::SubnetFacts {
        subnet: SubnetId::from("subnet-1"),
        free_addresses: 3,
        free_prefixes: None,
    });
    assert_eq!(rig.ordered(), ["assign eni-0 +1"]);
}

#[test]
fn an_assignment_of_unknown_effect_is_looked_into_before_another_is_made() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(3, 0));
    let assign = rig.take_assign();
    rig.fail(&assign, FailureClass::Retry, "connection reset", None);
    assert_eq!(rig.ordered(), ["describe eni-0"]);
    let describe = rig.take_describe();
    let facts = rig.facts(0, 3);
    rig.done(&describe, Outcome::Described(Some(facts)));
    rig.pass(60_000);
    assert_eq!(
        (rig.ordered(), rig.sums()),
        (vec![], (3, 0, 1)),
        "it had taken effect"
    );
}

#[test]
fn an_assignment_that_had_no_effect_is_made_again() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(3, 0));
    let assign = rig.take_assign();
    rig.fail(&assign, FailureClass::Retry, "connection reset", None);
    let describe = rig.take_describe();
    rig.succeed(&describe);
    rig.pass(1_000);
    assert_eq!(rig.ordered(), ["assign eni-0 +3"]);
    rig.succeed_all();
    rig.pass(60_000);
    assert_eq!(
        rig.ordered(),
        ["describe eni-0"],
        "the lost call may have taken effect later: asked once"
    );
    rig.succeed_all();
    rig.pass(600_000);
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (3, 0, 1)));
}

#[test]
fn while_it_is_unknown_what_an_interface_has_the_pods_that_wait_count_on_it() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    let request = rig.add(1);
    let assign = rig.take_assign();
    rig.fail(&assign, FailureClass::Retry, "connection reset", None);
    let second = rig.add(2);
    assert_eq!(
        rig.ordered(),
        ["describe eni-0"],
        "no other interface is made meanwhile"
    );
    let describe = rig.take_describe();
    let facts = rig.facts(0, 1);
    rig.done(&describe, Outcome::Described(Some(facts)));
    rig.address(request);
    rig.pass(1_000);
    rig.succeed_all();
    rig.address(second);
}

#[test]
fn an_interface_that_cannot_be_looked_into_is_left_alone_and_others_serve() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(1, 0));
    let request = rig.add(1);
    let assign = rig.take_assign();
    rig.fail(&assign, FailureClass::Retry, "connection reset", None);
    let describe = rig.take_describe();
    rig.fail(&describe, FailureClass::Refused, "UnauthorizedOperation", None);
    assert_eq!(rig.ordered(), ["create 1 +2"]);
    rig.succeed_all();
    rig.address(request);
}

#[test]
fn at_the_limit_of_an_interface_ec2_is_asked_what_it_holds() {
    let mut rig = Rig::fresh(M5_LARGE, Targets::default());
    let assign = rig.take_assign();
    rig.fail(
        &assign,
        FailureClass::LimitReached,
        "PrivateIpAddressLimitExceeded",
        None,
    );
    let describe = rig.take_describe();
    let facts = rig.facts(0, 9);
    rig.done(&describe, Outcome::Described(Some(facts)));
    rig.pass(600_000);
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (9, 0, 1)), "no loop");
}

#[test]
fn an_interface_for_which_there_is_no_place_is_deleted_and_the_place_avoided() {
    let (mut rig, create) = creating();
    rig.at += 100_000;
    rig.progress(
        &create,
        Stage::Created {
            eni: EniId::from("eni-x"),
        },
    );
    rig.fail(
        &create,
        FailureClass::LimitReached,
        "AttachmentLimitExceeded",
        None,
    );
    assert_eq!(rig.ordered(), ["delete eni-x"]);
    let mut facts = rig.facts(1, 9);
    facts.id = EniId::from("eni-x");
    rig.seen(facts.clone());
    rig.tell(Event::InterfaceSeen {
        facts,
        evidence: Evidence::Ec2,
    });
    assert_eq!(
        rig.sums(),
        (9, 1, 1),
        "that it was attached after all makes it no place for pods now"
    );
    rig.succeed_all();
    rig.pass(60_000);
    assert_eq!(rig.ordered(), ["create 2 +9"], "somebody may sit at 1");
}

#[test]
fn where_somebody_else_sits_another_place_is_tried_at_once() {
    let (mut rig, create) = creating();
    rig.progress(
        &create,
        Stage::Created {
            eni: EniId::from("eni-x"),
        },
    );
    rig.fail(
        &create,
        FailureClass::DeviceTaken,
        "InvalidParameterValue: already has an interface attached at device index '1'",
        None,
    );
    assert_eq!(rig.ordered(), ["delete eni-x", "create 2 +9"]);
    let mut theirs = rig.facts(1, 9);
    theirs.managed = false;
    rig.tell(Event::InterfaceSeen {
        facts: theirs,
        evidence: Evidence::Ec2,
    });
    rig.succeed_all();
    rig.pass(600_000);
    assert_eq!(
        (rig.ordered(), rig.sums()),
        (vec![], (18, 1, 3)),
        "one in use, one in reserve, one that is not ours"
    );
}

#[test]
fn a_created_interface_that_vanished_is_made_anew_with_another_token() {
    let (mut rig, create) = creating();
    rig.progress(
        &create,
        Stage::Created {
            eni: EniId::from("eni-x"),
        },
    );
    rig.fail(
        &create,
        FailureClass::Gone,
        "InvalidNetworkInterfaceID.NotFound",
        None,
    );
    // A read that lags misses what was just made: it is looked for once more, when none can lag that far.
    assert_eq!(rig.ordered(), Vec::<String>::new());
    rig.pass(10_000);
    let repeat = rig.take_create();
    assert_eq!(token(&repeat), token(&create));
    rig.fail(
        &repeat,
        FailureClass::Gone,
        "InvalidNetworkInterfaceID.NotFound",
        None,
    );
    rig.pass(5_000);
    let again = rig.take_create();
    assert_ne!(token(&again), token(&create));
    let Action::CreateInterface { done, .. } = &again else {
        panic!("{again:?}")
    };
    assert_eq!(done[..], []);
}

#[test]
fn an_interface_that_is_gone_is_forgotten_and_its_owners_kept_and_explained() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    rig.succeed_all();
    rig.add_all(2..=9);
    let request = rig.add(10);
    let address = rig.address(request);
    rig.orders.clear();
    rig.pass(120_000);
    rig.listed(&["eni-0"]);
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(None));
    assert_eq!(rig.sums().2, 1);
    let view = rig.pool.view(rig.now());
    assert_eq!(view.contradictions.len(), 1);
    assert_eq!(view.contradictions[0].address, address);
    assert!(
        view.contradictions[0].message.contains("eni-new1"),
        "{:?}",
        view.contradictions[0]
    );
    assert_eq!(rig.pool.checkpoint().allocations.len(), 10);
    let vpcnet_ipam::Answer::Released(leases) = rig.del(10) else {
        panic!("it was the owner")
    };
    assert_eq!(
        (leases[0].address, leases[0].route_table),
        (address, 2),
        "so that its rules can be removed"
    );
}

#[test]
fn a_release_of_unknown_effect_is_looked_into_and_not_handed_out_meanwhile() {
    let mut rig = Rig::settled((1, 6), ip_targets(5, 0));
    rig.tell(Event::TargetsChanged(ip_targets(1, 0)));
    let release = rig.take(|a| matches!(a, Action::ReleaseAddresses { .. }));
    let Action::ReleaseAddresses { addresses, .. } = &release else {
        panic!()
    };
    rig.fail(&release, FailureClass::Retry, "timed out", None);
    rig.tell(Event::TargetsChanged(Targets {
        provisioning: false,
        ..ip_targets(1, 0)
    }));
    let first = rig.add(1);
    rig.address(first);
    let second = rig.add(2);
    assert!(
        !matches!(rig.answer(second), Some(vpcnet_ipam::Answer::Assigned(_))),
        "the others may be gone"
    );
    let describe = rig.take_describe();
    let mut facts = rig.facts(0, 0);
    facts.addresses = rig.pool.interfaces().next().unwrap().addresses;
    facts.addresses.retain(|a| *a != addresses[0]);
    rig.done(&describe, Outcome::Described(Some(facts.clone())));
    // A read that lags lists what is gone: asked again when none can lag that far.
    assert!(!matches!(
        rig.answer(second),
        Some(vpcnet_ipam::Answer::Assigned(_))
    ));
    rig.pass(10_000);
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(facts)));
    let held = rig.pool.interfaces().next().unwrap().addresses;
    assert!(!held.contains(&addresses[0]), "gone");
    assert_eq!(held.len(), 4, "the others came back");
}

#[test]
fn a_deletion_that_fails_is_tried_again_and_no_pod_lands_on_it() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    rig.succeed_all();
    rig.del(1);
    rig.pass(60_000);
    let delete = rig.take(|a| matches!(a, Action::DeleteInterface { .. }));
    rig.fail(&delete, FailureClass::Refused, "OperationNotPermitted", None);
    rig.add_all(1..=9);
    let tenth = rig.add(10);
    assert_eq!(rig.answer(tenth), None, "its addresses are no longer the pool's");
    assert!(
        rig.ordered().contains(&"create 2 +9".to_owned()),
        "{:?}",
        rig.ordered()
    );
    rig.pass(60_000);
    assert!(
        rig.ordered().contains(&"delete eni-new1".to_owned()),
        "{:?}",
        rig.ordered()
    );
}

#[test]
fn the_own_address_of_a_deleted_interface_may_become_a_pods() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    rig.succeed_all();
    let own = rig
        .pool
        .interfaces()
        .find(|i| !i.is_primary)
        .unwrap()
        .primary_address;
    rig.del(1);
    rig.pass(60_000);
    let delete = rig.take(|a| matches!(a, Action::DeleteInterface { .. }));
    rig.fail(&delete, FailureClass::Retry, "timed out", None);
    rig.tell(Event::TargetsChanged(ip_targets(10, 0)));
    let create = rig.take_create();
    let mut facts = rig.facts(2, 1);
    facts.addresses = vec![own];
    rig.done(&create, Outcome::InterfaceReady(facts));
    assert_eq!(
        rig.sums().0,
        10,
        "EC2 gave it to us again: the deletion took effect"
    );
}

#[test]
fn while_the_executor_waits_to_make_a_call_again_pods_are_told_what_ec2_said() {
    let (mut rig, create) = creating();
    rig.add_all(2..=9);
    let id = id_of(&create);
    rig.tell(Event::Stalled {
        id,
        class: FailureClass::Retry,
        message: "ec2:DescribeNetworkInterfaces failed: Unavailable: later".into(),
        retry_at: Some(Mono(rig.at + 7_000)),
    });
    let waits = rig.add_for(30, 2_000);
    rig.pass(2_000);
    let refusal = rig.refusal(waits);
    assert_eq!(refusal.cause, RefusalCause::Ec2Unreachable);
    assert!(
        refusal.message.contains("creation of an interface at device 1")
            && refusal.message.contains("Unavailable: later")
            && refusal.message.contains("tried again in 5.0 s"),
        "{refusal:?}"
    );
    assert_eq!(refusal.retry_in, Some(seconds(5)));

    // It goes on, by itself or further: what was is no reason any more.
    for report in [
        Event::Resumed { id },
        Event::Progress {
            id,
            stage: Stage::Created { eni: "eni-9".into() },
        },
    ] {
        let waits = rig.add_for(31, 1_000);
        rig.tell(report);
        rig.pass(1_000);
        let refusal = rig.refusal(waits);
        assert!(refusal.message.contains("under way"), "{refusal:?}");
        rig.tell(Event::Stalled {
            id,
            class: FailureClass::Throttled,
            message: "RequestLimitExceeded".into(),
            retry_at: None,
        });
    }
    rig.succeed(&create);
    let served = rig.add(32);
    rig.address(served);
}

#[test]
fn reports_about_unknown_actions_do_nothing() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let before = rig.pool.view(rig.now());
    let id = vpcnet_ipam::ActionId(9_999);
    let message = String::new();
    rig.tell(Event::ActionFailed {
        id,
        class: FailureClass::Gone,
        message,
        retry_at: None,
    });
    rig.tell(Event::ActionDone {
        id,
        outcome: Outcome::Gone,
    });
    rig.tell(Event::Progress {
        id,
        stage: Stage::Attached {
            attachment: "eni-attach-1".into(),
        },
    });
    rig.tell(Event::Stalled {
        id,
        class: FailureClass::Retry,
        message: String::new(),
        retry_at: None,
    });
    rig.tell(Event::Resumed { id });
    assert_eq!(rig.pool.view(rig.now()), before);
}
