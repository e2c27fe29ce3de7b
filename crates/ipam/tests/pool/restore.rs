//! Starts: what an earlier life left behind, in every state of repair.

use std::net::IpAddr;

use vpcnet_ipam::{
    Action, Answer, Checkpoint, EniId, FailureClass, FromRule, HostRoute, KernelEvidence, Outcome, PodKey,
    PodMeta, Pool, Restored, Stage, Targets, host_veth_suffix, rebuilt_key,
};

use super::rig::{M5_LARGE, Rig, identity, ip_targets, key, limits, meta, veth};

/// A node with pods 1 to `n` on it, at rest.
fn node(n: u64) -> Rig {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add_all(1..=n);
    rig.succeed_all();
    rig
}

/// EC2 says again what a start without a journal was shown, when its reads cannot lag.
fn confirmed(rig: &mut Rig) {
    rig.pass(10_000);
    let describe = rig.take_describe();
    rig.succeed(&describe);
}

fn address_of(rig: &Rig, n: u64) -> IpAddr {
    rig.pool.owners().find(|l| l.key == key(n)).unwrap().address
}

#[test]
fn a_restarted_agent_serves_at_once_and_asks_nobody() {
    let rig = node(3);
    let (owners, sums) = (rig.pool.checkpoint(), rig.sums());
    let (mut rig, notes) = rig.restart(|_| {});
    assert_eq!((notes, rig.ordered()), (vec![], vec![]));
    assert_eq!((rig.pool.checkpoint(), rig.sums()), (owners, sums));
    let request = rig.add(4);
    rig.address(request);
    assert!(matches!(rig.del(2), Answer::Released(_)));
    let again = rig.add(1);
    assert_eq!(rig.address(again), address_of(&rig, 1));
    assert_eq!(rig.pool.next_wake(), None);
}

#[test]
fn cool_downs_go_on_across_a_restart_and_start_anew_in_another_boot() {
    let mut rig = Rig::settled((1, 3), Targets::default());
    rig.add_all(1..=2);
    rig.del(1);
    rig.pass(20_000);
    let (mut rig, _) = rig.restart(|_| {});
    let request = rig.add(3);
    rig.pass(9_999);
    assert_eq!(rig.answer(request), None);
    rig.pass(1);
    rig.address(request);
    rig.del(3);
    rig.pass(20_000);
    let (checkpoint, journal) = (rig.pool.checkpoint(), rig.pool.journal());
    let restored = Restored {
        checkpoint: Some(checkpoint),
        journal: Some(journal),
        ..Restored::default()
    };
    let other_boot = vpcnet_ipam::Identity {
        boot_id: "boot-2".into(),
        ..identity()
    };
    let now = vpcnet_ipam::Now {
        mono: vpcnet_ipam::Mono(5_000),
        wall_ns: 1,
    };
    let targets = Targets::default();
    let (pool, _, _) = Pool::restore(other_boot, limits((1, 3)), targets, restored, now).unwrap();
    let mut rig = Rig::around(pool);
    rig.at = 5_000;
    let request = rig.add(4);
    rig.pass(29_999);
    assert_eq!(
        rig.answer(request),
        None,
        "30 s from now: how long it lay in the other boot nobody knows"
    );
    rig.pass(1);
    rig.address(request);
}

#[test]
fn an_address_that_was_owned_when_the_journal_was_written_and_is_not_now_cools_down() {
    let rig = node(2);
    let journal = rig.pool.journal();
    let address = address_of(&rig, 2);
    let mut rig = rig;
    rig.del(2);
    let (mut rig, _) = rig.restart(|r| r.journal = Some(journal));
    let requests: Vec<_> = (3..=9).map(|n| rig.add(n)).collect();
    assert!(requests.iter().all(|r| rig.address(*r) != address));
}

#[test]
fn calls_under_way_at_a_crash_are_taken_up_again() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    let create = rig.take_create();
    rig.progress(
        &create,
        Stage::Created {
            eni: EniId::from("eni-x"),
        },
    );
    let (mut rig, notes) = rig.restart(|_| {});
    assert_eq!(
        notes,
        ["the creation of an interface at device 1 with 9 addresses of the earlier life is taken up again"]
    );
    let again = rig.take_create();
    let (
        Action::CreateInterface {
            client_token: a,
            done,
            ..
        },
        Action::CreateInterface { client_token: b, .. },
    ) = (&again, &create)
    else {
        panic!()
    };
    assert_eq!(
        (a, &done[..]),
        (
            b,
            &[Stage::Created {
                eni: EniId::from("eni-x")
            }][..]
        )
    );
    rig.succeed(&again);
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (18, 1, 2)));
}

#[test]
fn an_assignment_under_way_at_a_crash_is_asked_about_first() {
    let rig = Rig::fresh(M5_LARGE, Targets::default());
    let (mut rig, _) = rig.restart(|_| {});
    assert_eq!(rig.ordered(), ["describe eni-0"]);
    let describe = rig.take_describe();
    let facts = rig.facts(0, 9);
    rig.done(&describe, Outcome::Described(Some(facts)));
    assert_eq!(
        (rig.ordered(), rig.sums()),
        (vec![], (9, 0, 1)),
        "it had taken effect"
    );
}

#[test]
fn releases_and_deletions_under_way_at_a_crash_are_repeated() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(5, 0));
    rig.tell(vpcnet_ipam::Event::TargetsChanged(ip_targets(2, 0)));
    let (rig, _) = rig.restart(|_| {});
    assert_eq!(rig.ordered(), ["release eni-0 -3"]);
    let mut rig = node(1);
    rig.del(1);
    rig.pass(60_000);
    assert_eq!(rig.ordered(), ["delete eni-new1"]);
    let (rig, _) = rig.restart(|_| {});
    assert_eq!(rig.ordered(), ["delete eni-new1"]);
}

#[test]
fn a_repeated_release_that_is_throttled_proves_nothing() {
    let mut rig = Rig::settled((1, 4), ip_targets(3, 0));
    rig.tell(vpcnet_ipam::Event::TargetsChanged(ip_targets(1, 0)));
    let (mut rig, _) = rig.restart(|_| {});
    let release = rig.take(|a| matches!(a, Action::ReleaseAddresses { .. }));
    rig.fail(&release, FailureClass::Throttled, "RequestLimitExceeded", None);
    assert_eq!(
        rig.ordered(),
        ["describe eni-0"],
        "the earlier life's call may have been carried out"
    );
    assert_eq!(rig.sums().0, 1, "and meanwhile nobody gets them");
}

#[test]
fn ids_and_tokens_of_an_earlier_life_are_not_used_again() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    let first = rig.take_create();
    let (mut rig, _) = rig.restart(|_| {});
    let again = rig.take_create();
    assert!(super::rig::id_of(&again) > super::rig::id_of(&first));
}

#[test]
fn the_journal_is_not_used_when_another_agent_wrote_the_checkpoint_since() {
    let (rig, notes) = node(2).restart(|r| {
        r.checkpoint = r.checkpoint.take().map(|c| Checkpoint { ours: false, ..c });
    });
    assert!(
        notes[0].contains("another agent wrote the checkpoint since"),
        "{notes:?}"
    );
    assert_eq!(rig.sums().2, 0, "the interfaces have to be shown again");
    assert_eq!(rig.pool.checkpoint().allocations.len(), 2, "the owners stand");
    let mut rig = rig;
    assert!(matches!(rig.del(1), Answer::Released(_)));
}

#[test]
fn the_journal_of_another_instance_or_format_is_not_used() {
    let journal = node(0).pool.journal();
    let mut other = serde_json::to_value(&journal).unwrap();
    other["version"] = 99.into();
    let other = serde_json::from_value(other).unwrap();
    let (_, notes) = node(0).restart(|r| r.journal = Some(other));
    assert!(notes[0].contains("version 99"), "{notes:?}");
    let mut cloned = serde_json::to_value(&journal).unwrap();
    cloned["instance_id"] = "i-2".into();
    let cloned = serde_json::from_value(cloned).unwrap();
    let (_, notes) = node(0).restart(|r| r.journal = Some(cloned));
    assert!(notes[0].contains("instance i-2"), "{notes:?}");
}

#[test]
fn owners_of_a_lost_checkpoint_are_rebuilt_from_the_kernel() {
    let rig = node(10);
    let (first, tenth) = (address_of(&rig, 1), address_of(&rig, 10));
    let (mut rig, notes) = rig.restart(|r| {
        r.checkpoint = None;
        r.kernel.pods = [(first, 1), (tenth, 10)]
            .map(|(address, n)| HostRoute {
                address,
                host_veth: veth(&meta(n)),
            })
            .to_vec();
        r.kernel.from_rules = vec![FromRule {
            address: tenth,
            table: 2,
        }];
    });
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("is in use behind"), "{notes:?}");
    assert_eq!(rig.sums().1, 2);
    let requests: Vec<_> = (20..=27).map(|n| rig.add(n)).collect();
    assert!(
        requests.iter().all(|r| rig.address(*r) != first),
        "a live pod's address is given to nobody"
    );
    let Answer::Released(leases) = rig.del_as(key(10), meta(10)) else {
        panic!("found by its veth")
    };
    assert_eq!((leases[0].address, leases[0].route_table), (tenth, 2));
    assert_eq!(leases[0].key, rebuilt_key(&veth(&meta(10))));
    assert_eq!(rig.del_as(key(10), meta(10)), Answer::UnknownPod);
}

#[test]
fn a_rebuilt_owner_survives_the_next_restart_as_such() {
    let rig = node(1);
    let address = address_of(&rig, 1);
    let pods = vec![HostRoute {
        address,
        host_veth: veth(&meta(1)),
    }];
    let routes = pods.clone();
    let (rig, _) = rig.restart(|r| (r.checkpoint, r.kernel.pods) = (None, routes));
    let (mut rig, notes) = rig.restart(|r| r.kernel.pods = pods);
    assert_eq!(notes, [""; 0]);
    let Answer::Released(leases) = rig.del(1) else {
        panic!("found by its veth")
    };
    assert_eq!(leases[0].address, address);
}

#[test]
fn a_new_sandbox_of_a_rebuilt_owners_pod_gets_a_fresh_address_and_the_old_one_goes() {
    let rig = node(1);
    let address = address_of(&rig, 1);
    let (mut rig, _) = rig.restart(|r| {
        r.checkpoint = None;
        r.kernel.pods = vec![HostRoute {
            address,
            host_veth: veth(&meta(1)),
        }];
    });
    let request = rig.add(1);
    assert_ne!(rig.address(request), address);
    rig.pass(29_999);
    assert_eq!(rig.sums().1, 2, "the plugin may still be at it");
    rig.pass(1);
    assert_eq!(rig.sums().1, 1);
    assert_eq!(rig.pool.view(rig.now()).totals.cooling, 1);
}

#[test]
fn a_running_pod_that_a_sound_checkpoint_does_not_name_keeps_its_address_too() {
    let rig = node(1);
    let stray = rig.pool.interfaces().next().unwrap().addresses[5];
    let (mut rig, notes) = rig.restart(|r| {
        r.kernel.pods = vec![HostRoute {
            address: stray.into(),
            host_veth: "eni0123456789a".into(),
        }];
    });
    assert!(notes[0].contains("not in the checkpoint"), "{notes:?}");
    let requests: Vec<_> = (2..=8).map(|n| rig.add(n)).collect();
    assert!(requests.iter().all(|r| rig.address(*r) != IpAddr::V4(stray)));
}

#[test]
fn an_owner_that_the_kernel_does_not_show_is_kept_for_a_grace() {
    let (mut rig, notes) = node(2).restart(|r| r.kernel.veths = vec![veth(&meta(2))]);
    assert!(notes[0].contains("given up in 30 s"), "{notes:?}");
    rig.pass(29_999);
    assert_eq!(rig.sums().1, 2);
    let generation = rig.pool.checkpoint_generation();
    rig.pass(1);
    assert_eq!(rig.sums().1, 1);
    assert_ne!(rig.pool.checkpoint_generation(), generation, "to be written");
    assert_eq!(rig.pool.checkpoint().allocations[0].key, key(2));
}

#[test]
fn an_owner_whose_veth_shows_up_within_the_grace_stays() {
    let (mut rig, _) = node(2).restart(|r| r.kernel.veths = vec![]);
    rig.tell(vpcnet_ipam::Event::VethSeen {
        names: vec![format!("eni{}", host_veth_suffix("default", "web-1"))],
        pods: vec![],
    });
    rig.pass(10_000);
    let again = rig.add(2);
    rig.address(again);
    rig.pass(60_000);
    assert_eq!(rig.sums().1, 2, "one was seen, the other asked again");
    assert_eq!(rig.pool.next_wake(), None);
}

/// Its DEL came while the agent was away, and its namespace was still being taken down when the agent was back.
#[test]
fn an_owner_whose_link_goes_right_after_the_start_is_given_up_too() {
    let (mut rig, notes) = node(2).restart(|r| r.kernel.veths = vec![veth(&meta(1)), veth(&meta(2))]);
    assert!(notes.is_empty(), "{notes:?}");
    let new = rig.add(3);
    rig.address(new);
    rig.tell(vpcnet_ipam::Event::VethSeen {
        names: vec![veth(&meta(1))],
        pods: vec![],
    });
    rig.pass(29_999);
    assert_eq!(rig.sums().1, 3, "a list may be taken in mid-change");
    rig.pass(1);
    assert_eq!(rig.sums().1, 2);
    let left: Vec<_> = rig.pool.checkpoint().keys().collect();
    assert_eq!(
        left,
        [key(1), key(3)],
        "whose plugin may not have come so far is not doubted"
    );
}

#[test]
fn entries_without_a_pods_name_are_kept_without_a_veth() {
    let rig = node(1);
    let mut checkpoint = rig.pool.checkpoint();
    checkpoint.allocations[0].meta = PodMeta {
        interfaces: 1,
        ..PodMeta::default()
    };
    checkpoint.allocations[0].key = PodKey {
        network: "_migrated-from-cri".into(),
        container_id: key(1).container_id,
        if_name: "unknown".into(),
    };
    let (mut rig, notes) = rig.restart(|r| {
        r.checkpoint = Some(checkpoint);
        r.kernel = KernelEvidence::default();
    });
    assert_eq!((notes, rig.pool.next_wake()), (vec![], None));
    assert!(
        matches!(rig.del(1), Answer::Released(_)),
        "found by its container id"
    );
}

#[test]
fn an_owner_on_no_known_interface_is_kept_until_an_interface_claims_its_address() {
    let rig = node(1);
    let address = address_of(&rig, 1);
    let mut facts: Vec<_> = rig.pool.interfaces().collect();
    let (mut rig, notes) = rig.restart(|r| r.journal = None);
    assert!(notes[0].contains("on no interface that is known"), "{notes:?}");
    assert_eq!(rig.pool.view(rig.now()).totals.orphans, 1);
    facts.sort_by_key(|f| f.device);
    rig.seen(facts.remove(0));
    assert_eq!(rig.pool.view(rig.now()).totals.orphans, 0);
    assert_eq!(rig.sums().1, 1);
    let lease = rig.pool.owners().next().unwrap();
    assert_eq!((lease.address, lease.eni.0.as_str()), (address, "eni-0"));
    confirmed(&mut rig);
    let requests: Vec<_> = (2..=9).map(|n| rig.add(n)).collect();
    assert!(requests.iter().all(|r| rig.address(*r) != address));
}

#[test]
fn an_interface_that_was_ready_before_the_journal_said_so_is_used_for_its_pods() {
    let mut rig = Rig::settled((2, 3), Targets::default());
    rig.add_all(1..=2);
    let journal = rig.pool.journal();
    rig.succeed_all();
    let third = rig.add(3);
    let address = rig.address(third);
    let facts = rig.pool.interfaces().find(|i| !i.is_primary).unwrap();
    let (mut rig, _) = rig.restart(|r| r.journal = Some(journal));
    assert_eq!(rig.pool.view(rig.now()).totals.orphans, 1);
    let create = rig.take_create();
    rig.seen(facts.clone());
    assert_eq!(rig.sums(), (4, 3, 2));
    let again = rig.add(3);
    assert_eq!(rig.address(again), address);
    rig.done(&create, Outcome::InterfaceReady(facts));
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (4, 3, 2)));
}

#[test]
fn an_address_given_back_while_its_interface_is_unknown_cools_down_all_the_same() {
    let rig = node(1);
    let mut facts: Vec<_> = rig.pool.interfaces().collect();
    let address = address_of(&rig, 1);
    let (mut rig, _) = rig.restart(|r| r.journal = None);
    assert!(matches!(rig.del(1), Answer::Released(_)));
    facts.sort_by_key(|f| f.device);
    rig.seen(facts.remove(0));
    confirmed(&mut rig);
    let requests: Vec<_> = (2..=9).map(|n| rig.add(n)).collect();
    assert!(requests.iter().all(|r| rig.address(*r) != address));
    assert_eq!(rig.pool.view(rig.now()).totals.cooling, 1);
}

#[test]
fn an_interface_of_an_owner_is_not_deleted_though_an_earlier_life_was_about_to() {
    let mut rig = node(1);
    rig.del(1);
    rig.pass(60_000);
    assert_eq!(rig.ordered(), ["delete eni-new1"]);
    let on_it = rig
        .pool
        .interfaces()
        .find(|i| i.id == EniId::from("eni-new1"))
        .unwrap()
        .addresses[0];
    let (rig, _) = rig.restart(|r| {
        r.kernel.pods = vec![HostRoute {
            address: on_it.into(),
            host_veth: "eni0123456789a".into(),
        }];
    });
    assert_eq!(rig.ordered(), ["describe eni-new1"]);
    assert_eq!(rig.sums(), (18, 1, 2));
}

#[test]
fn with_nothing_left_the_pool_starts_empty_and_waits_to_be_shown_what_there_is() {
    let (mut rig, notes) = node(0).restart(|r| *r = Restored::default());
    assert_eq!(
        (notes, rig.ordered(), rig.pool.next_wake()),
        (vec![], vec![], None)
    );
    let facts = rig.facts(0, 9);
    rig.seen(facts);
    rig.listed(&["eni-0"]);
    assert_eq!((rig.ordered(), rig.sums()), (vec![], (9, 0, 1)));
}

#[test]
fn an_entry_whose_address_another_pod_lives_with_is_older_than_the_kernel() {
    let rig = node(1);
    let address = address_of(&rig, 1);
    let host_veth = veth(&meta(2));
    let (mut rig, notes) = rig.restart(|r| {
        r.kernel = KernelEvidence {
            pods: vec![HostRoute {
                address,
                host_veth: host_veth.clone(),
            }],
            from_rules: vec![],
            veths: vec![host_veth.clone()],
        };
    });
    assert!(notes.iter().any(|n| n.contains("is not its link")), "{notes:?}");
    assert_eq!(
        rig.del(1),
        Answer::UnknownPod,
        "a late DEL of the one frees nothing of the other"
    );
    assert_eq!(rig.pool.holder(address), Some(&rebuilt_key(&host_veth)));
    assert!(matches!(rig.del(2), Answer::Released(_)));
}
