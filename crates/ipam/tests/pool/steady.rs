//! What the pool strives for when nothing goes wrong.

use std::net::IpAddr;

use vpcnet_ipam::{Action, Answer, CardIndex, CardLimits, ConfigError, Event, Limits, Mode, Pool, Targets};

use super::rig::{M5_4XLARGE, M5_LARGE, Rig, identity, ip_targets, limits, seconds};

#[test]
fn by_default_an_idle_node_fills_its_primary_interface_and_rests() {
    let mut rig = Rig::fresh(M5_LARGE, Targets::default());
    assert_eq!(rig.ordered(), ["assign eni-0 +9"]);
    rig.succeed_all();
    assert_eq!(rig.sums(), (9, 0, 1));
    assert_eq!(rig.pool.next_wake(), None);
}

#[test]
fn the_first_pod_brings_a_second_interface() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let request = rig.add(1);
    rig.address(request);
    assert_eq!(rig.ordered(), ["create 1 +9"]);
    rig.succeed_all();
    assert_eq!(rig.sums(), (18, 1, 2));
    assert_eq!(rig.pool.next_wake(), None);
}

#[test]
fn an_idle_pool_wants_nothing_for_ever() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    rig.succeed_all();
    for _ in 0..10 {
        rig.at += 3_600_000;
        assert_eq!(rig.tell(Event::Tick), vec![]);
        assert_eq!(rig.pool.next_wake(), None);
    }
}

#[test]
fn a_pod_gets_an_address_of_the_primary_first_and_its_place() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let request = rig.add(1);
    let Some(Answer::Assigned(leases)) = rig.answer(request) else {
        panic!("not served")
    };
    assert_eq!(
        (
            leases[0].eni.0.as_str(),
            leases[0].device.0,
            leases[0].route_table
        ),
        ("eni-0", 0, 254)
    );
    rig.succeed_all();
    for n in 2..=9 {
        rig.add(n);
    }
    let request = rig.add(10);
    let Some(Answer::Assigned(leases)) = rig.answer(request) else {
        panic!("not served")
    };
    assert_eq!(
        (
            leases[0].eni.0.as_str(),
            leases[0].device.0,
            leases[0].route_table
        ),
        ("eni-new1", 1, 2)
    );
}

#[test]
fn an_address_cools_down_before_it_is_handed_out_again() {
    let mut rig = Rig::settled((1, 3), Targets::default());
    let first = rig.add(1);
    let first = rig.address(first);
    let second = rig.add(2);
    rig.address(second);
    rig.del(1);
    let request = rig.add(3);
    rig.pass(29_999);
    assert_eq!(rig.answer(request), None, "it cools down for 30 s");
    rig.pass(1);
    assert_eq!(rig.address(request), first);
}

#[test]
fn the_address_that_lay_idle_longest_is_handed_out() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            warm_eni: 0,
            cooldown: seconds(0),
            ..Targets::default()
        },
    );
    let first = rig.add(1);
    let first = rig.address(first);
    rig.pass(1000);
    rig.del(1);
    rig.pass(1000);
    let requests: Vec<_> = (2..=9).map(|n| rig.add(n)).collect();
    let others: Vec<_> = requests.iter().map(|r| rig.address(*r)).collect();
    assert!(!others.contains(&first), "the eight others come first");
    let last = rig.add(10);
    assert_eq!(rig.address(last), first);
}

#[test]
fn warm_eni_target_0_grows_only_when_nothing_is_available() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            warm_eni: 0,
            ..Targets::default()
        },
    );
    for n in 1..=8 {
        rig.add(n);
        assert_eq!(rig.ordered(), [""; 0], "one is available");
    }
    rig.add(9);
    assert_eq!(rig.ordered(), ["create 1 +9"]);
}

#[test]
fn warm_eni_target_0_does_not_free_what_it_would_make_again() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            warm_eni: 0,
            ..Targets::default()
        },
    );
    for n in 1..=9 {
        rig.add(n);
    }
    rig.succeed_all();
    rig.pass(600_000);
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (18, 9, 2)));
}

#[test]
fn ip_targets_ask_for_exactly_what_is_missing() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(2, 5));
    assert_eq!(rig.ordered(), ["assign eni-0 +5"]);
    rig.succeed_all();
    for n in 1..=3 {
        rig.add(n);
        assert_eq!(rig.ordered(), [""; 0]);
    }
    rig.add(4);
    assert_eq!(
        rig.ordered(),
        ["assign eni-0 +1"],
        "two free addresses are wanted, one is left"
    );
}

#[test]
fn a_minimum_alone_stops_growing_at_the_floor() {
    let mut rig = Rig::fresh(M5_LARGE, ip_targets(0, 3));
    rig.succeed_all();
    for n in 1..=3 {
        rig.add(n);
    }
    assert_eq!(rig.ordered(), [""; 0]);
    rig.add(4);
    assert_eq!(
        rig.ordered(),
        ["assign eni-0 +1"],
        "but a pod that waits is demand on top"
    );
}

#[test]
fn existing_interfaces_are_filled_before_new_ones_are_made() {
    let rig = Rig::fresh(M5_LARGE, ip_targets(12, 0));
    assert_eq!(rig.ordered(), ["assign eni-0 +9", "create 1 +3"]);
}

#[test]
fn max_eni_below_the_instances_limit_counts() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            max_eni: Some(2),
            ..Targets::default()
        },
    );
    for n in 1..=12 {
        rig.add(n);
        rig.succeed_all();
    }
    assert_eq!(rig.sums(), (18, 12, 2));
    let unlimited = limits(M5_LARGE);
    assert_eq!(
        unlimited.max_interfaces(&Targets {
            max_eni: Some(0),
            ..Targets::default()
        }),
        3
    );
    assert_eq!(
        unlimited.max_interfaces(&Targets {
            max_eni: Some(9),
            ..Targets::default()
        }),
        3
    );
}

#[test]
fn at_max_pods_the_pool_stops_growing() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            max_pods: 9,
            ..Targets::default()
        },
    );
    for n in 1..=9 {
        rig.add(n);
    }
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (9, 9, 1)));
    let rig = Rig::fresh(
        M5_LARGE,
        Targets {
            max_pods: 5,
            ..ip_targets(9, 0)
        },
    );
    assert_eq!(
        rig.ordered(),
        ["assign eni-0 +5"],
        "with IP targets to the address"
    );
}

#[test]
fn an_unused_interface_is_freed_once_it_is_a_minute_old_and_nothing_cools_on_it() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    for n in 1..=10 {
        rig.add(n);
        rig.succeed_all();
    }
    assert_eq!(rig.sums(), (27, 10, 3));
    for n in 1..=10 {
        rig.del(n);
    }
    assert_eq!(rig.ordered(), [""; 0], "too young");
    rig.pass(59_999);
    assert_eq!(rig.ordered(), [""; 0], "too young");
    rig.pass(1);
    assert_eq!(
        rig.ordered(),
        ["delete eni-new2"],
        "one at a time, the last first"
    );
    rig.succeed_all();
    rig.pass(60_000);
    assert_eq!(rig.sums(), (9, 0, 1));
    assert_eq!(rig.pool.next_wake(), None);
}

#[test]
fn an_interface_on_which_an_address_cools_down_stays() {
    let targets = Targets {
        cooldown: seconds(300),
        ..Targets::default()
    };
    let mut rig = Rig::settled(M5_LARGE, targets);
    for n in 1..=10 {
        rig.add(n);
        rig.succeed_all();
    }
    for n in 1..=10 {
        rig.del(n);
    }
    rig.pass(200_000);
    assert_eq!(rig.ordered(), ["delete eni-new2"], "no pod was on the third");
    rig.succeed_all();
    rig.pass(100_000);
    assert_eq!(
        rig.ordered(),
        [""; 0],
        "the tenth pod's address cools down on the second"
    );
    rig.pass(1_000);
    assert_eq!(rig.ordered(), ["delete eni-new1"]);
}

#[test]
fn surplus_of_ip_targets_is_released_every_30_s_but_nothing_owned_or_cooling() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(5, 0));
    let requests: Vec<_> = (1..=4).map(|n| rig.add(n)).collect();
    rig.succeed_all();
    assert_eq!(rig.sums(), (9, 4, 1));
    for n in 1..=2 {
        rig.del(n);
    }
    assert_eq!(
        rig.ordered(),
        ["release eni-0 -1"],
        "one of the five that are free: those that cool down count as warm"
    );
    let kept: Vec<_> = requests.iter().map(|r| rig.address(*r)).collect();
    let released = |action: &Action| match action {
        Action::ReleaseAddresses { addresses, .. } => {
            addresses.iter().map(|a| (*a).into()).collect::<Vec<IpAddr>>()
        }
        other => panic!("{other:?}"),
    };
    assert!(released(&rig.orders[0]).iter().all(|a| !kept.contains(a)));
    rig.succeed_all();
    rig.pass(29_000);
    rig.del(3);
    rig.pass(999);
    assert_eq!(rig.ordered(), [""; 0]);
    rig.pass(1);
    assert_eq!(rig.ordered(), ["release eni-0 -2"]);
    assert!(
        released(&rig.orders[0]).iter().all(|a| !kept.contains(a)),
        "they cool down, or did so a moment ago"
    );
    rig.succeed_all();
    rig.del(4);
    rig.pass(120_000);
    rig.succeed_all();
    assert_eq!((rig.sums(), rig.pool.next_wake()), ((5, 0, 1), None));
}

#[test]
fn with_ip_targets_an_interface_goes_whole_when_the_others_suffice() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(2, 0));
    for n in 1..=9 {
        rig.add(n);
        rig.succeed_all();
    }
    assert_eq!(rig.sums(), (11, 9, 2));
    for n in 1..=4 {
        rig.del(n);
    }
    assert_eq!(
        rig.ordered(),
        ["release eni-new1 -1"],
        "one too many after the first DEL, and two on the interface"
    );
    rig.succeed_all();
    rig.pass(40_000);
    assert_eq!(
        rig.ordered(),
        ["release eni-0 -2"],
        "the last address of the other is left to go with it"
    );
    rig.succeed_all();
    rig.pass(20_000);
    assert_eq!(rig.ordered(), ["delete eni-new1"], "now it is old enough");
    rig.succeed_all();
    rig.pass(120_000);
    rig.succeed_all();
    assert_eq!((rig.sums(), rig.pool.next_wake()), ((7, 5, 1), None));
}

#[test]
fn the_primary_interface_is_never_deleted() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(0, 1));
    for n in 1..=10 {
        rig.add(n);
        rig.succeed_all();
    }
    for n in 1..=9 {
        rig.del(n);
    }
    rig.pass(300_000);
    assert_eq!(
        rig.ordered(),
        ["release eni-0 -9"],
        "the last pod is on the other"
    );
    rig.succeed_all();
    rig.pass(300_000);
    assert_eq!(
        (rig.ordered(), rig.sums(), rig.pool.next_wake()),
        (vec![], (1, 1, 2), None)
    );
}

#[test]
fn a_pool_without_provisioning_neither_grows_nor_shrinks_but_serves() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.tell(Event::TargetsChanged(Targets {
        provisioning: false,
        ..Targets::default()
    }));
    let request = rig.add(1);
    rig.address(request);
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
}

#[test]
fn changed_targets_take_effect_at_once() {
    let mut rig = Rig::settled(M5_4XLARGE, ip_targets(2, 0));
    rig.tell(Event::TargetsChanged(ip_targets(7, 0)));
    assert_eq!(rig.ordered(), ["assign eni-0 +5"]);
}

#[test]
fn interfaces_that_others_look_after_take_a_place_and_give_nothing() {
    let mut rig = Rig::empty(M5_LARGE, Targets::default());
    let primary = rig.facts(0, 9);
    rig.seen(primary);
    let theirs = rig.facts(1, 9);
    rig.seen(vpcnet_ipam::InterfaceFacts {
        managed: false,
        ..theirs
    });
    rig.listed(&["eni-0", "eni-1"]);
    assert_eq!(rig.sums(), (9, 0, 2));
    for n in 1..=10 {
        rig.add(n);
    }
    assert_eq!(rig.ordered(), ["create 2 +9"], "one place is left, not two");
}

#[test]
fn modes_and_machines_that_are_not_managed_are_refused_at_construction() {
    assert_eq!(Mode::of(false, false), Ok(Mode::SecondaryIp));
    assert_eq!(Mode::of(true, false), Ok(Mode::Prefixes));
    assert_eq!(Mode::of(true, true), Ok(Mode::Ipv6));
    let error = Mode::of(false, true).unwrap_err().to_string();
    assert!(error.contains("ENABLE_PREFIX_DELEGATION"), "{error}");
    let pool = |limits| Pool::new(identity(), limits, Targets::default()).map(|_| ());
    assert_eq!(pool(Limits::default()), Err(ConfigError::NoCard));
    assert_eq!(
        pool(limits((3, 1))),
        Err(ConfigError::NoRoom { per_interface: 1 })
    );
    let two = vec![
        CardLimits {
            card: CardIndex(0),
            interfaces: 1
        };
        2
    ];
    assert_eq!(
        pool(Limits {
            cards: two,
            ipv4_per_interface: 10
        }),
        Err(ConfigError::SameCard { card: CardIndex(0) })
    );
}

/// The quickest of some ADDs to a node with so many addresses free.
fn quickest_add(interfaces: u32) -> std::time::Duration {
    let targets = Targets {
        warm_eni: interfaces,
        max_pods: 9999,
        ..Targets::default()
    };
    let mut rig = Rig::settled((interfaces, 51), targets);
    rig.succeed_all();
    assert_eq!(rig.sums(), (interfaces * 50, 0, interfaces));
    let one = |n| {
        let start = std::time::Instant::now();
        rig.add(n);
        start.elapsed()
    };
    (1..=40).map(one).min().unwrap()
}

#[test]
fn an_adds_work_does_not_grow_with_the_square_of_the_addresses() {
    // 15 interfaces of 50 addresses, three times the largest common node, and 1 of 50. Both are measured here, the quickest of
    // forty each, so that a busy machine is one for both; the square would be 225.
    let (many, few) = (quickest_add(15), quickest_add(1));
    assert!(many < few * 60, "{many:?}, {few:?}");
}
