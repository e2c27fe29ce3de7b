//! Prefix mode: sixteen addresses at a time.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use vpcnet_ipam::{
    Action, Answer, Event, Evidence, FailureClass, InterfaceFacts, Mode, Outcome, RequestId, SubnetId,
    Targets,
};

use super::rig::{M5_4XLARGE, M5_LARGE, Rig, ip_targets, prefixes, seconds};

/// What EC2 says where no /28 is whole.
const NO_BLOCK: &str = "InsufficientCidrBlocks: not enough free cidr blocks";

fn prefix_of(rig: &Rig, request: RequestId) -> Ipv4Net {
    let IpAddr::V4(at) = rig.address(request) else {
        panic!("an IPv4 address")
    };
    let view = rig.pool.view(rig.now());
    let mut all = view.interfaces.iter().flat_map(|i| &i.addresses);
    all.find(|a| a.address == at)
        .and_then(|a| a.prefix)
        .expect("an address of a prefix")
}

fn with_prefixes(targets: Targets) -> Targets {
    Targets {
        mode: Mode::Prefixes,
        ..targets
    }
}

fn primary(rig: &Rig) -> InterfaceFacts {
    rig.pool.interfaces().find(|i| i.is_primary).unwrap()
}

fn take_prefixes(rig: &mut Rig) -> Action {
    rig.take(|a| matches!(a, Action::AssignPrefixes { .. }))
}

fn deny_prefixes(rig: &mut Rig) {
    let assign = rig.take(|a| match a {
        Action::AssignPrefixes { .. } => true,
        Action::CreateInterface { prefixes, .. } => *prefixes > 0,
        _ => false,
    });
    rig.fail(&assign, FailureClass::SubnetExhausted, NO_BLOCK, None);
}

/// (prefixes, of them without a pod, addresses, assigned)
fn held(rig: &Rig) -> (u32, u32, u32, u32) {
    let t = rig.pool.view(rig.now()).totals;
    (t.prefixes, t.free_prefixes, t.total, t.assigned)
}

#[test]
fn an_idle_node_holds_the_warm_prefixes_and_rests() {
    let mut rig = Rig::fresh(M5_LARGE, prefixes(1));
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"]);
    rig.succeed_all();
    assert_eq!((held(&rig), rig.pool.next_wake()), ((1, 1, 16, 0), None));
    let rig = Rig::fresh(M5_LARGE, prefixes(3));
    assert_eq!(rig.ordered(), ["assign eni-0 +3 prefixes"]);
}

#[test]
fn the_first_address_taken_from_the_warm_prefix_brings_the_next() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(1));
    let first = rig.add(1);
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"]);
    rig.succeed_all();
    let prefix = prefix_of(&rig, first);
    for n in 2..=16 {
        let request = rig.add(n);
        assert_eq!(
            (prefix_of(&rig, request), rig.ordered()),
            (prefix, vec![]),
            "pod {n}"
        );
    }
    assert_eq!(held(&rig), (2, 1, 32, 16));
    rig.add(17);
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"]);
}

#[test]
fn all_sixteen_addresses_of_a_prefix_are_handed_out_each_once() {
    let mut rig = Rig::settled((1, 2), with_prefixes(ip_targets(16, 0)));
    let requests: Vec<_> = (1..=16).map(|n| rig.add(n)).collect();
    let mut all: Vec<IpAddr> = requests.iter().map(|r| rig.address(*r)).collect();
    all.sort();
    all.dedup();
    let last: Vec<u8> = all
        .iter()
        .map(|a| match a {
            IpAddr::V4(at) => at.octets()[3] % 16,
            IpAddr::V6(_) => 99,
        })
        .collect();
    assert_eq!(last, (0..16).collect::<Vec<u8>>());
}

#[test]
fn warm_prefix_target_0_keeps_the_last_free_address_rather_than_asking_for_it_again() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(0));
    assert_eq!(held(&rig), (1, 1, 16, 0));
    rig.pass(600_000);
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
    rig.add_all(1..=15);
    assert_eq!(rig.ordered(), [""; 0], "one is available");
    rig.add(16);
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"]);
}

#[test]
fn ip_targets_are_rounded_up_to_prefixes() {
    let rig = Rig::fresh(M5_LARGE, with_prefixes(ip_targets(5, 0)));
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"]);
    let rig = Rig::fresh(M5_LARGE, with_prefixes(ip_targets(0, 33)));
    assert_eq!(rig.ordered(), ["assign eni-0 +3 prefixes"]);
    let mut rig = Rig::settled(M5_LARGE, with_prefixes(ip_targets(5, 0)));
    rig.add_all(1..=11);
    assert_eq!(rig.ordered(), [""; 0]);
    rig.add(12);
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"], "four are left");
}

#[test]
fn a_burst_asks_for_as_many_prefixes_as_it_needs_at_once() {
    let mut rig = Rig::fresh(
        M5_4XLARGE,
        Targets {
            max_pods: 250,
            ..prefixes(1)
        },
    );
    rig.add_all(1..=100);
    assert_eq!(
        rig.ordered(),
        ["assign eni-0 +1 prefixes"],
        "asked for before they came; on one interface calls follow each other"
    );
    rig.succeed_all();
    assert_eq!(held(&rig), (8, 1, 128, 100), "100 pods need 7, one is warm");
}

#[test]
fn a_full_interface_is_followed_by_a_new_one_with_what_is_missing() {
    let mut rig = Rig::settled((2, 3), prefixes(1));
    rig.add_all(1..=16);
    rig.succeed_all();
    assert_eq!(held(&rig), (2, 1, 32, 16));
    rig.add(17);
    assert_eq!(rig.ordered(), ["create 1 +1 prefixes"]);
    rig.succeed_all();
    assert_eq!((held(&rig), rig.sums().2), ((3, 1, 48, 17), 2));
}

#[test]
fn at_max_pods_no_prefix_is_added() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            max_pods: 16,
            ..prefixes(1)
        },
    );
    rig.add_all(1..=16);
    assert_eq!((rig.ordered(), held(&rig)), (vec![], (1, 0, 16, 16)));
}

#[test]
fn pods_go_to_the_fullest_prefix_so_that_emptier_ones_come_free() {
    let targets = Targets {
        cooldown: seconds(1),
        ..prefixes(1)
    };
    let mut rig = Rig::settled(M5_LARGE, targets);
    let requests: Vec<_> = (1..=20).map(|n| rig.add(n)).collect();
    rig.succeed_all();
    let (first, second) = (prefix_of(&rig, requests[0]), prefix_of(&rig, requests[17]));
    assert_ne!(first, second);
    for n in 1..=8 {
        rig.del(n);
    }
    rig.pass(5_000);
    // Eight are left in the first, four in the second.
    for n in 31..=38 {
        let request = rig.add(n);
        assert_eq!(prefix_of(&rig, request), first);
    }
    let request = rig.add(39);
    assert_eq!(prefix_of(&rig, request), second);
}

#[test]
fn a_prefix_that_comes_free_goes_whole_once_nothing_of_it_cools_down() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(1));
    let requests: Vec<_> = (1..=17).map(|n| rig.add(n)).collect();
    rig.succeed_all();
    assert_eq!(held(&rig), (3, 1, 48, 17));
    let second = prefix_of(&rig, requests[16]);
    rig.del(17);
    assert_eq!(
        rig.ordered(),
        ["release eni-0 -1 prefixes"],
        "the one that nobody had yet goes first"
    );
    let Action::ReleasePrefixes { prefixes, .. } = &rig.orders[0] else {
        panic!("{:?}", rig.orders)
    };
    assert!(!prefixes.contains(&second), "it cools down");
    rig.succeed_all();
    assert_eq!(held(&rig), (2, 1, 32, 16));
    rig.pass(600_000);
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
}

#[test]
fn a_prefix_with_a_cooling_address_is_not_released() {
    let targets = with_prefixes(ip_targets(0, 16));
    let mut rig = Rig::settled(M5_LARGE, targets);
    rig.add_all(1..=17);
    rig.succeed_all();
    assert_eq!(held(&rig), (2, 0, 32, 17));
    rig.del(17);
    assert_eq!(rig.ordered(), [""; 0], "its address cools down");
    rig.pass(31_000 - 1);
    assert_eq!(rig.ordered(), [""; 0]);
    rig.pass(1);
    assert_eq!(rig.ordered(), ["release eni-0 -1 prefixes"]);
}

#[test]
fn an_interface_without_pods_goes_whole_when_the_others_hold_the_warm_prefixes() {
    let mut rig = Rig::settled((3, 3), prefixes(1));
    rig.add_all(1..=33);
    rig.succeed_all();
    assert_eq!((held(&rig), rig.sums().2), ((4, 1, 64, 33), 2));
    for n in 17..=33 {
        rig.del(n);
    }
    let mut ordered = Vec::new();
    for _ in 0..5 {
        rig.pass(31_000);
        ordered.extend(rig.ordered());
        rig.succeed_all();
    }
    assert!(ordered.contains(&"delete eni-new1".to_owned()), "{ordered:?}");
    assert_eq!((held(&rig), rig.pool.next_wake()), ((2, 1, 32, 16), None));
}

#[test]
fn where_no_block_is_free_pods_get_single_addresses_at_once() {
    let mut rig = Rig::fresh(M5_LARGE, prefixes(1));
    let requests: Vec<_> = (1..=3).map(|n| rig.add(n)).collect();
    deny_prefixes(&mut rig);
    while rig.ordered() == ["assign eni-0 +1 prefixes"] {
        deny_prefixes(&mut rig);
    }
    assert_eq!(rig.ordered(), ["assign eni-0 +9", "create 1 +9", "create 2 +1"]);
    let at = rig.at;
    rig.succeed_all();
    for request in requests {
        assert!(rig.address(request).is_ipv4());
    }
    assert_eq!(rig.at, at, "nobody waited for a back-off");
    assert_eq!(rig.sums(), (19, 3, 3), "16 warm ones and three");
    rig.pass(600_000);
    assert_eq!(
        (rig.ordered(), rig.pool.next_wake()),
        (vec![], None),
        "and the pool rests"
    );
}

#[test]
fn a_fragmented_subnet_is_asked_for_fewer_prefixes_before_it_is_given_up() {
    let mut rig = Rig::fresh(M5_4XLARGE, prefixes(4));
    for wanted in [
        "assign eni-0 +4 prefixes",
        "assign eni-0 +2 prefixes",
        "assign eni-0 +1 prefixes",
    ] {
        assert_eq!(rig.ordered(), [wanted]);
        deny_prefixes(&mut rig);
    }
    assert!(
        rig.ordered().iter().all(|o| !o.contains("prefixes")),
        "{:?}",
        rig.ordered()
    );
}

/// A node whose subnet had no /28 when its only pod came: it lives with single addresses.
fn fragmented() -> Rig {
    let mut rig = Rig::fresh(M5_LARGE, with_prefixes(ip_targets(3, 0)));
    deny_prefixes(&mut rig);
    assert_eq!(rig.ordered(), ["assign eni-0 +3"]);
    rig.succeed_all();
    rig.add(1);
    assert_eq!(rig.ordered(), ["assign eni-0 +1"]);
    rig.succeed_all();
    assert_eq!((held(&rig), rig.pool.next_wake()), ((0, 0, 4, 1), None));
    rig
}

#[test]
fn when_blocks_are_free_again_the_pool_goes_back_to_prefixes_and_drains_the_rest() {
    let mut rig = fragmented();
    rig.tell(Event::SubnetFacts {
        subnet: SubnetId::from("subnet-1"),
        free_addresses: 100,
        free_prefixes: Some(3),
    });
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"]);
    rig.succeed_all();
    rig.pass(60_000);
    assert_eq!(rig.ordered(), [""; 0]);
    rig.succeed_all();
    assert_eq!(held(&rig), (1, 1, 17, 1), "the pod keeps its address");
    rig.del(1);
    rig.pass(120_000);
    rig.succeed_all();
    assert_eq!((held(&rig), rig.pool.next_wake()), ((1, 1, 16, 0), None));
}

#[test]
fn growing_asks_for_a_prefix_again_once_the_pause_is_over() {
    let mut rig = fragmented();
    rig.pass(10_000);
    rig.add(2);
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"]);
    deny_prefixes(&mut rig);
    assert_eq!(rig.ordered(), ["assign eni-0 +1"], "still none");
}

#[test]
fn switched_to_prefixes_a_running_node_keeps_its_pods_and_drains_single_addresses() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let request = rig.add(1);
    let address = rig.address(request);
    rig.succeed_all();
    rig.tell(Event::TargetsChanged(prefixes(1)));
    for _ in 0..20 {
        rig.succeed_all();
        rig.pass(31_000);
    }
    let t = rig.pool.view(rig.now()).totals;
    assert_eq!(
        (t.prefixes, t.total, t.assigned, t.draining, t.interfaces),
        (1, 17, 1, 0, 2),
        "the first was full: the prefix is on the second"
    );
    let again = rig.add(1);
    assert_eq!(rig.address(again), address);
    let other = rig.add(2);
    prefix_of(&rig, other);
    assert_eq!(rig.pool.next_wake(), None);
}

#[test]
fn a_full_node_makes_room_for_prefixes_with_what_no_pod_has() {
    let mut rig = Rig::settled((1, 4), Targets::default());
    rig.add(1);
    rig.tell(Event::TargetsChanged(prefixes(1)));
    assert_eq!(
        rig.ordered(),
        ["release eni-0 -1"],
        "one place is enough for a prefix"
    );
    rig.succeed_all();
    assert_eq!(held(&rig).0, 1);
    rig.pass(120_000);
    rig.succeed_all();
    assert_eq!((held(&rig), rig.pool.next_wake()), ((1, 1, 17, 1), None));
}

#[test]
fn switched_back_to_single_addresses_prefixes_go_as_their_pods_do() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(1));
    rig.add(1);
    rig.succeed_all();
    rig.tell(Event::TargetsChanged(ip_targets(3, 0)));
    rig.succeed_all();
    rig.pass(60_000);
    rig.succeed_all();
    let t = rig.pool.view(rig.now()).totals;
    assert_eq!((t.prefixes, t.total, t.assigned), (1, 4, 1), "the pod's stays");
    rig.del(1);
    rig.pass(120_000);
    rig.succeed_all();
    let t = rig.pool.view(rig.now()).totals;
    assert_eq!((t.prefixes, t.total, t.draining), (0, 3, 0));
    assert_eq!(rig.pool.next_wake(), None);
}

#[test]
fn without_provisioning_a_switched_mode_releases_nothing() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.tell(Event::TargetsChanged(Targets {
        provisioning: false,
        ..prefixes(1)
    }));
    rig.pass(600_000);
    assert_eq!(rig.ordered(), [""; 0]);
    let request = rig.add(1);
    rig.address(request);
}

#[test]
fn a_lost_answer_to_a_prefix_is_looked_into() {
    let mut rig = Rig::fresh(M5_LARGE, prefixes(2));
    let assign = take_prefixes(&mut rig);
    rig.fail(&assign, FailureClass::Retry, "timed out", None);
    let describe = rig.take_describe();
    let mut facts = rig.facts(0, 0);
    facts.prefixes = rig.fresh_prefixes(2);
    rig.done(&describe, Outcome::Described(Some(facts)));
    rig.pass(60_000);
    assert_eq!((rig.ordered(), held(&rig)), (vec![], (2, 2, 32, 0)));
}

#[test]
fn a_prefix_given_back_does_not_return_because_imds_lags() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(2));
    let before = primary(&rig);
    rig.tell(Event::TargetsChanged(prefixes(1)));
    assert_eq!(rig.ordered(), ["release eni-0 -1 prefixes"]);
    rig.succeed_all();
    rig.at += 2_000;
    rig.seen(before.clone());
    assert_eq!((rig.ordered(), held(&rig)), (vec![], (1, 1, 16, 0)));
    rig.at += 100_000;
    rig.seen(before);
    assert_eq!(rig.ordered(), ["describe eni-0"]);
}

#[test]
fn a_pods_address_of_a_prefix_that_ec2_denies_stays_the_pods() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(0));
    let request = rig.add(1);
    let address = rig.address(request);
    rig.at += 600_000;
    let facts = InterfaceFacts {
        prefixes: Vec::new(),
        ..primary(&rig)
    };
    rig.tell(Event::InterfaceSeen {
        facts: facts.clone(),
        evidence: Evidence::Ec2,
    });
    let view = rig.pool.view(rig.now());
    assert_eq!(view.contradictions[0].address, address);
    assert_eq!(
        view.interfaces[0].addresses.len(),
        1,
        "the fifteen others are gone"
    );
    rig.orders.clear();
    assert!(matches!(rig.del(1), Answer::Released(_)));
    let describe = rig.take_describe();
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert_eq!(primary(&rig).prefixes, []);
}

#[test]
fn a_release_of_prefixes_under_way_at_a_crash_is_repeated() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(2));
    rig.tell(Event::TargetsChanged(prefixes(1)));
    let (mut rig, _) = rig.restart(|_| {});
    assert_eq!(rig.ordered(), ["release eni-0 -1 prefixes"]);
    let release = rig.orders.remove(0);
    rig.fail(&release, FailureClass::Retry, "timed out", None);
    assert_eq!(held(&rig), (1, 1, 16, 0), "nobody gets its addresses");
    let describe = rig.take_describe();
    let Action::ReleasePrefixes { prefixes, .. } = &release else {
        panic!("{release:?}")
    };
    let mut facts = primary(&rig);
    facts.prefixes.retain(|p| !prefixes.contains(p));
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert_eq!(primary(&rig).prefixes.len(), 1);
}

#[test]
fn a_prefix_in_which_a_pod_lives_is_not_released_though_an_old_journal_was_about_to() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(2));
    let request = rig.add(1);
    let at = rig.address(request);
    let (owned, checkpoint) = (prefix_of(&rig, request), rig.pool.checkpoint());
    rig.del(1);
    rig.succeed_all();
    rig.tell(Event::TargetsChanged(ip_targets(1, 0)));
    let gives_it_back =
        |a: &Action| matches!(a, Action::ReleasePrefixes { prefixes, .. } if prefixes.contains(&owned));
    for _ in 0..50 {
        if rig.orders.iter().any(gives_it_back) {
            break;
        }
        match rig.orders.first().cloned() {
            Some(order) => {
                rig.orders.remove(0);
                rig.succeed(&order);
            }
            None => rig.pass(5_000),
        }
    }
    assert!(rig.orders.iter().any(gives_it_back), "{:?}", rig.ordered());
    let (mut rig, _) = rig.restart(|r| r.checkpoint = Some(checkpoint));
    assert_eq!(rig.ordered(), ["describe eni-0"], "what is there has to be asked");
    let again = rig.add(1);
    assert_eq!(rig.address(again), at);
    let describe = rig.take_describe();
    rig.succeed(&describe);
    assert_eq!(primary(&rig).prefixes.iter().filter(|p| **p == owned).count(), 1);
    rig.pass(120_000);
    rig.succeed_all();
    assert!(primary(&rig).prefixes.contains(&owned));
}

#[test]
fn a_prefix_under_way_at_a_crash_is_asked_about_first() {
    let rig = Rig::fresh(M5_LARGE, prefixes(1));
    let (mut rig, _) = rig.restart(|_| {});
    assert_eq!(rig.ordered(), ["describe eni-0"]);
    let describe = rig.take_describe();
    let mut facts = rig.facts(0, 0);
    facts.prefixes = rig.fresh_prefixes(1);
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert_eq!((rig.ordered(), held(&rig)), (vec![], (1, 1, 16, 0)));
}

#[test]
fn the_plan_says_what_the_prefix_target_means() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(1));
    rig.add(1);
    rig.orders.clear();
    let mut other = Rig::settled(M5_LARGE, prefixes(1));
    other.tell(Event::TargetsChanged(Targets {
        provisioning: false,
        ..prefixes(1)
    }));
    other.add(1);
    let lines = other.pool.explain(other.now()).lines;
    let want = "warm prefix target 1 × 16 addresses = 16 wanted free; 16 total − 1 assigned = 15 free → short by 1, \
                1 prefixes of 16";
    assert!(lines.iter().any(|l| l == want), "{lines:#?}");
    assert!(
        lines[0].contains("1 prefixes, 0 of them without a pod"),
        "{lines:#?}"
    );
}

#[test]
fn single_addresses_of_a_shared_range_never_come_twice() {
    // EC2 would never list it so; were it to, the address is the prefix's.
    let mut rig = Rig::empty((1, 3), prefixes(1));
    let mut facts = rig.facts(0, 0);
    facts.prefixes = rig.fresh_prefixes(1);
    facts.addresses = vec![Ipv4Addr::from(facts.prefixes[0].network().to_bits() + 3)];
    rig.seen(facts);
    rig.listed(&["eni-0"]);
    assert_eq!(held(&rig), (1, 1, 16, 0));
}
