//! Several network cards: a pool for each, with its own limits.

use vpcnet_ipam::{
    Action, Answer, CardIndex, CardLimits, Cards, CheckpointWriter, DeviceIndex, EniId, Event, FailureClass,
    InterfaceFacts, InterfaceKind, Lease, Limits, Mono, Part, Pool, RefusalCause, RequestId, Targets,
    host_veth_suffix_nth,
};

use super::rig::{Rig, identity, ip_targets, key, meta, prefixes};

/// Three interfaces on card 0, `others` on the further ones, five addresses for pods on each.
fn limits(others: &[u32]) -> Limits {
    let cards = [3].iter().chain(others).zip(0..);
    Limits {
        cards: cards
            .map(|(interfaces, n)| CardLimits {
                card: CardIndex(n),
                interfaces: *interfaces,
            })
            .collect(),
        ipv4_per_interface: 6,
    }
}

fn fresh(others: &[u32], targets: Targets) -> Rig {
    let mut rig = Rig::around(Pool::new(identity(), limits(others), targets).unwrap());
    let facts = rig.facts(0, 0);
    rig.seen(facts);
    rig.listed(&["eni-0"]);
    rig
}

fn add(rig: &mut Rig, n: u64, cards: Cards) -> RequestId {
    let request = RequestId(1_000 + n);
    let deadline = Mono(rig.at + 60_000);
    rig.tell(Event::PodWants {
        request,
        key: key(n),
        meta: meta(n),
        deadline,
        cards,
    });
    request
}

fn leases(rig: &Rig, request: RequestId) -> Vec<Lease> {
    match rig.answer(request) {
        Some(Answer::Assigned(leases)) => leases,
        other => panic!("no address: {other:?}"),
    }
}

/// (card, device, addresses) of the creations in hand.
fn creations(rig: &Rig) -> Vec<(u32, u32, u32)> {
    let create = |a: &Action| match a {
        Action::CreateInterface {
            card,
            device,
            addresses,
            prefixes,
            ..
        } => Some((card.0, device.0, addresses + 16 * prefixes)),
        _ => None,
    };
    rig.orders.iter().filter_map(create).collect()
}

/// Facts of an interface somebody else attached to card 1.
fn on_card_1(rig: &mut Rig, kind: InterfaceKind, managed: bool) -> InterfaceFacts {
    let facts = rig.facts(7, 0);
    InterfaceFacts {
        card: CardIndex(1),
        device: DeviceIndex(0),
        kind,
        managed,
        ..facts
    }
}

#[test]
fn the_first_card_follows_the_targets_and_each_other_one_holds_one_warm_address() {
    let mut rig = fresh(&[2, 2], ip_targets(3, 0));
    assert!(rig.ordered().contains(&"assign eni-0 +3".to_owned()));
    assert_eq!(creations(&rig), [(1, 0, 1), (2, 0, 1)]);
    rig.succeed_all();
    rig.pass(600_000);
    assert_eq!(
        (rig.ordered(), rig.sums(), rig.pool.next_wake()),
        (vec![], (5, 0, 3), None)
    );
}

#[test]
fn with_prefixes_the_one_warm_address_of_a_card_is_one_prefix_and_stays() {
    let mut rig = fresh(&[2], prefixes(1));
    rig.succeed_all();
    rig.pass(600_000);
    let t = rig.pool.view(rig.now()).totals;
    assert_eq!(
        (t.prefixes, t.total, rig.ordered()),
        (2, 32, vec![]),
        "one a card"
    );
}

#[test]
fn a_pod_of_every_card_gets_one_address_of_each_and_gives_all_back() {
    let mut rig = fresh(&[2, 2], ip_targets(1, 0));
    rig.succeed_all();
    let request = add(&mut rig, 1, Cards::Every);
    let leases = leases(&rig, request);
    let of: Vec<(u32, u32)> = leases.iter().map(|l| (l.card.0, l.route_table)).collect();
    assert_eq!(of, [(0, 254), (1, 10_100), (2, 10_200)]);
    assert!(leases.iter().all(|l| l.meta.interfaces == 3));
    rig.succeed_all();
    let Answer::Released(back) = rig.del(1) else {
        panic!("it was the owner")
    };
    assert_eq!(back.len(), 3);
}

#[test]
fn a_pod_of_every_card_gets_nothing_before_each_has_an_address() {
    let mut rig = fresh(&[2], ip_targets(1, 0));
    let assign = rig.take_assign();
    rig.succeed(&assign);
    let every = add(&mut rig, 1, Cards::Every);
    assert_eq!(
        (rig.answer(every), rig.sums().1),
        (None, 0),
        "card 1 has none yet"
    );
    let any = add(&mut rig, 2, Cards::Any);
    assert_eq!(leases(&rig, any).len(), 1, "who wants one is not held up");
    rig.succeed_all();
    assert_eq!(leases(&rig, every).len(), 2);
}

#[test]
fn a_pod_of_any_card_spills_to_the_next_when_the_first_is_full() {
    let mut rig = fresh(&[2], ip_targets(1, 0));
    rig.succeed_all();
    for n in 1..=15 {
        let request = add(&mut rig, n, Cards::Any);
        assert_eq!(leases(&rig, request)[0].card.0, 0);
        rig.succeed_all();
    }
    for n in 16..=25 {
        let request = add(&mut rig, n, Cards::Any);
        rig.succeed_all();
        assert_eq!(leases(&rig, request)[0].card.0, 1, "pod {n}");
    }
    let request = add(&mut rig, 26, Cards::Any);
    assert_eq!(rig.refusal(request).cause, RefusalCause::InstanceFull);
}

#[test]
fn a_pod_of_every_card_is_refused_at_once_when_one_card_is_full_and_told_which() {
    let mut rig = fresh(&[1], ip_targets(1, 0));
    rig.succeed_all();
    for n in 1..=5 {
        let request = add(&mut rig, n, Cards::Every);
        rig.succeed_all();
        assert_eq!(leases(&rig, request).len(), 2);
    }
    let request = add(&mut rig, 6, Cards::Every);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::InstanceFull);
    assert!(refusal.message.contains("network card 1"), "{}", refusal.message);
    let request = add(&mut rig, 7, Cards::Any);
    assert_eq!(leases(&rig, request).len(), 1);
}

#[test]
fn max_eni_counts_for_each_card() {
    let targets = Targets {
        max_eni: Some(1),
        ..ip_targets(9, 0)
    };
    let mut rig = fresh(&[2], targets);
    assert_eq!(creations(&rig), [(1, 0, 1)]);
    rig.succeed_all();
    assert_eq!(rig.sums().2, 2);
}

#[test]
fn interfaces_of_others_take_a_cards_places_and_give_nothing() {
    let mut rig = Rig::around(Pool::new(identity(), limits(&[1]), ip_targets(1, 0)).unwrap());
    let facts = rig.facts(0, 1);
    rig.seen(facts);
    let theirs = on_card_1(&mut rig, InterfaceKind::Interface, false);
    rig.seen(theirs);
    rig.listed(&["eni-0", "eni-7"]);
    assert_eq!(creations(&rig), [], "the card is full");
    let request = add(&mut rig, 1, Cards::Every);
    assert_eq!(rig.refusal(request).cause, RefusalCause::InstanceFull);
}

#[test]
fn a_card_with_an_address_less_efa_interface_is_left_alone_unless_another_is_managed() {
    let mut rig = Rig::around(Pool::new(identity(), limits(&[2]), ip_targets(1, 0)).unwrap());
    let facts = rig.facts(0, 1);
    rig.seen(facts);
    let efa = on_card_1(&mut rig, InterfaceKind::EfaOnly, true);
    rig.seen(efa);
    rig.listed(&["eni-0", "eni-7"]);
    assert_eq!(creations(&rig), []);
    let request = add(&mut rig, 1, Cards::Every);
    assert_eq!(leases(&rig, request).len(), 1, "one card is managed");
    rig.at += 100_000;
    let other = rig.facts(8, 1);
    rig.seen(InterfaceFacts {
        card: CardIndex(1),
        device: DeviceIndex(1),
        ..other
    });
    let request = add(&mut rig, 2, Cards::Every);
    rig.succeed_all();
    assert_eq!(leases(&rig, request).len(), 2);
}

#[test]
fn a_place_refused_on_one_card_is_not_refused_on_another() {
    let mut rig = fresh(&[2], ip_targets(1, 0));
    let create = rig.take_create();
    rig.fail(
        &create,
        FailureClass::LimitReached,
        "AttachmentLimitExceeded",
        None,
    );
    rig.succeed_all();
    rig.pass(60_000);
    assert_eq!(creations(&rig), [(1, 1, 1)], "somebody may sit at 0");
}

#[test]
fn the_checkpoint_of_a_card_holds_its_addresses_only() {
    let mut rig = fresh(&[2], ip_targets(1, 0));
    rig.succeed_all();
    let request = add(&mut rig, 1, Cards::Every);
    let leases = leases(&rig, request);
    for lease in &leases {
        let file = rig.pool.checkpoint_of(lease.card).to_json();
        let read = vpcnet_ipam::Checkpoint::parse(&file).unwrap();
        let of: Vec<_> = read.allocations.iter().map(|a| a.address).collect();
        assert_eq!((of, read.ours), (vec![lease.address], true));
    }
    assert_eq!(rig.pool.checkpoint().allocations.len(), 2, "all of them");
}

#[test]
fn a_rebuilt_pod_of_several_cards_is_found_by_all_its_veths() {
    let mut rig = fresh(&[2], ip_targets(1, 0));
    rig.succeed_all();
    let request = add(&mut rig, 1, Cards::Every);
    let leases = leases(&rig, request);
    rig.succeed_all();
    let pods: Vec<_> = leases
        .iter()
        .zip(0..)
        .map(|(l, n)| vpcnet_ipam::HostRoute {
            address: l.address,
            host_veth: format!("eni{}", host_veth_suffix_nth("default", "web-1", n)),
        })
        .collect();
    let (mut rig, notes) = rig.restart(|r| (r.checkpoint, r.kernel.pods) = (None, pods));
    assert_eq!(notes.len(), 2, "{notes:?}");
    let Answer::Released(back) = rig.del(1) else {
        panic!("found by its veths")
    };
    assert_eq!(back.len(), 2);
}

/// One address of card 0 is free, those of the others cool down; the instance can take no more interfaces.
#[test]
fn on_full_cards_a_pod_that_comes_later_does_not_take_what_a_pod_of_every_card_waits_with() {
    for card in [0, 1] {
        let targets = Targets {
            cooldown: std::time::Duration::from_secs(2),
            ..ip_targets(1, 0)
        };
        let mut rig = fresh(&[1], targets);
        rig.succeed_all();
        for n in 1..=20 {
            let request = add(&mut rig, n, Cards::Any);
            rig.succeed_all();
            assert_eq!(leases(&rig, request).len(), 1);
        }
        let on = |rig: &Rig, card: u32| {
            let mut owners = rig.pool.owners().filter(|l| l.card.0 == card);
            owners.next().unwrap().key
        };
        for (card, pause) in [(card, 1_000), (1 - card, 1_500)] {
            let pod = on(&rig, card);
            rig.del_as(pod, vpcnet_ipam::PodMeta::default());
            rig.pass(pause);
        }
        // Now the first one's address is free, the other's in half a second.
        let every = add(&mut rig, 100, Cards::Every);
        let any = add(&mut rig, 101, Cards::Any);
        assert!(!matches!(rig.answer(any), Some(Answer::Assigned(_))), "overtaken");
        rig.pass(600);
        assert_eq!(leases(&rig, every).len(), 2);
    }
}

#[test]
fn a_pod_of_every_card_is_overtaken_for_a_while_only() {
    let mut rig = fresh(&[2], ip_targets(1, 0));
    let assign = rig.take_assign();
    rig.succeed(&assign);
    // Card 1's interface is long in the making.
    let every = add(&mut rig, 100, Cards::Every);
    for n in 0..3 {
        let any = add(&mut rig, n, Cards::Any);
        assert!(
            rig.answer(any).is_some(),
            "nobody who wants one address waits for card 1"
        );
        while rig.ordered().iter().any(|o| o.starts_with("assign")) {
            let assign = rig.take_assign();
            rig.succeed(&assign);
        }
        rig.pass(2_000);
    }
    // Now EC2 is slow to answer for card 0 as well.
    let late: Vec<RequestId> = (3..7).map(|n| add(&mut rig, n, Cards::Any)).collect();
    let create = rig.take_create();
    rig.succeed(&create);
    assert_eq!(leases(&rig, every).len(), 2, "of card 0 one was kept");
    rig.succeed_all();
    assert!(
        late.iter().all(|any| rig.answer(*any).is_some()),
        "the others are not forgotten"
    );
}

#[test]
fn what_an_unanswered_add_left_behind_goes_with_the_next_one_or_after_the_grace() {
    for again in [true, false] {
        let mut rig = fresh(&[2], ip_targets(1, 0));
        rig.succeed_all();
        let request = add(&mut rig, 1, Cards::Every);
        let first = leases(&rig, request);
        rig.succeed_all();
        // The agent ended between card 1's file and card 0's; the plugin had no answer and made no link.
        let (mut rig, _) = rig.restart(|r| {
            let checkpoint = r.checkpoint.as_mut().unwrap();
            checkpoint.allocations.retain(|a| a.address != first[0].address);
            r.kernel = vpcnet_ipam::KernelEvidence::default();
        });
        assert_eq!(rig.pool.owners().map(|l| l.interface).collect::<Vec<_>>(), [None]);
        if again {
            let request = add(&mut rig, 1, Cards::Every);
            rig.succeed_all();
            let second = leases(&rig, request);
            assert_eq!(second.len(), 2);
            let old = |l: &Lease| first.iter().any(|f| f.address == l.address);
            assert!(!second.iter().any(old), "not cooled down");
        } else {
            rig.pass(31_000);
            assert_eq!(rig.pool.owners().count(), 0);
        }
    }
}

#[test]
fn an_address_that_only_the_kernel_shows_is_the_pods_whose_other_one_is_known() {
    for lost in 0..2 {
        let mut rig = fresh(&[2], ip_targets(1, 0));
        rig.succeed_all();
        let request = add(&mut rig, 1, Cards::Every);
        let before = leases(&rig, request);
        rig.succeed_all();
        let (mut rig, notes) = rig.restart(|r| {
            let checkpoint = r.checkpoint.as_mut().unwrap();
            checkpoint
                .allocations
                .retain(|a| a.address != before[lost].address);
            let pods = before.iter().zip(0..).map(|(l, n)| vpcnet_ipam::HostRoute {
                address: l.address,
                host_veth: format!("eni{}", host_veth_suffix_nth("default", "web-1", n)),
            });
            r.kernel.pods = pods.collect();
        });
        assert_eq!(notes, [""; 0]);
        let order: Vec<_> = rig.pool.owners().map(|l| (l.address, l.interface)).collect();
        assert_eq!(
            order,
            [(before[0].address, Some(0)), (before[1].address, Some(1))]
        );
        let Answer::Released(back) = rig.del(1) else {
            panic!("it is the owner")
        };
        assert_eq!(back.len(), 2);
    }
}

#[test]
fn cards_that_no_earlier_life_managed_are_looked_at_before_anything_is_made_there() {
    let one: &[u32] = &[];
    for (before, after, known) in [
        (one, one, true),
        (one, &[2], false),
        (&[2], one, true),
        (&[2], &[2], true),
    ] {
        let mut rig = fresh(before, ip_targets(1, 0));
        rig.succeed_all();
        let restored = vpcnet_ipam::Restored {
            checkpoint: Some(rig.pool.checkpoint()),
            journal: Some(rig.pool.journal()),
            ..Default::default()
        };
        let (targets, now) = (ip_targets(1, 0), rig.now());
        let (mut pool, _, actions) =
            Pool::restore(identity(), limits(after), targets, restored, now).unwrap();
        assert_eq!(
            (pool.knows_interfaces(), actions),
            (known, vec![]),
            "{before:?} {after:?}"
        );
        let listed = Event::InterfacesListed {
            ids: pool.interfaces().map(|i| i.id).collect(),
            evidence: vpcnet_ipam::Evidence::Ec2,
        };
        let made = pool.handle(now, listed).len();
        assert_eq!(made, usize::from(!known), "and then it is");
    }
}

#[test]
fn a_node_of_several_cards_at_rest_asks_ec2_for_nothing_when_it_is_restarted_nor_later() {
    let mut rig = fresh(&[3], ip_targets(2, 0));
    rig.succeed_all();
    for n in 0..12 {
        add(&mut rig, n, if n % 2 == 0 { Cards::Every } else { Cards::Any });
    }
    rig.succeed_all();
    for n in 0..5 {
        rig.del(n);
    }
    // What it made too much of is given back, an interface only when it is a minute old.
    let mut turns = 0..100;
    while let Some(at) = rig.pool.next_wake() {
        assert!(
            turns.next().is_some(),
            "it never comes to rest: {:?}",
            rig.ordered()
        );
        rig.pass(at.since(Mono(rig.at)).as_millis() as u64 + 1);
        rig.succeed_all();
    }
    let sums = rig.sums();
    for _ in 0..2 {
        rig = rig.restart(|_| {}).0;
        assert_eq!(rig.ordered(), [""; 0], "at the start");
        rig.pass(3_600_000);
        assert_eq!(rig.ordered(), [""; 0], "later");
        assert_eq!(rig.sums(), sums);
    }
}

#[test]
fn a_table_that_somebody_else_set_up_is_its_pods_table() {
    let mut rig = Rig::around(Pool::new(identity(), limits(&[2]), ip_targets(1, 0)).unwrap());
    let facts = rig.facts(0, 1);
    rig.seen(facts);
    let theirs = on_card_1(&mut rig, InterfaceKind::Interface, true);
    let addresses = vec![rig.fresh_address()];
    rig.seen(InterfaceFacts {
        table: Some(10_001),
        addresses,
        ..theirs
    });
    rig.listed(&["eni-0", "eni-7"]);
    let request = add(&mut rig, 1, Cards::Every);
    let tables = |leases: Vec<Lease>| leases.iter().map(|l| l.route_table).collect::<Vec<_>>();
    assert_eq!(tables(leases(&rig, request)), [254, 10_001]);
    let (rig, _) = rig.restart(|_| {});
    assert_eq!(tables(rig.pool.owners().collect()), [254, 10_001]);
}

#[test]
fn what_is_written_card_by_card_is_what_is_written_at_once() {
    let mut rig = fresh(&[2, 2], ip_targets(1, 0));
    rig.succeed_all();
    let rest = Part::AllBut([CardIndex(1)].into());
    let mut writers = [Part::Card(CardIndex(1)), rest].map(CheckpointWriter::of);
    for n in 0..40 {
        let cards = if n % 3 == 0 { Cards::Every } else { Cards::Any };
        if n % 4 == 3 {
            rig.del(n - 2);
        } else {
            add(&mut rig, n, cards);
        }
        rig.succeed_all();
        rig.pass(10_000);
        let mut whole = vpcnet_ipam::Checkpoint::default();
        for (writer, card) in writers.iter_mut().zip([1, 0]) {
            let mut file = Vec::new();
            writer.write(&rig.pool, &mut file);
            let part = vpcnet_ipam::Checkpoint::parse(&file).unwrap();
            assert!(part.ours);
            if card == 1 {
                assert_eq!(part.to_json(), rig.pool.checkpoint_of(CardIndex(1)).to_json());
            }
            whole.merge(part).unwrap();
        }
        let of = |c: &vpcnet_ipam::Checkpoint| {
            let mut all: Vec<_> = c.allocations.iter().map(|a| (a.key.clone(), a.address)).collect();
            all.sort();
            all
        };
        assert_eq!(of(&whole), of(&rig.pool.checkpoint()));
    }
}

#[test]
fn the_plan_is_explained_card_by_card() {
    let rig = fresh(&[2], ip_targets(3, 0));
    let report = rig.pool.explain(rig.now());
    let of = |n: u32| {
        report
            .lines
            .iter()
            .filter(|l| l.starts_with(&format!("card {n}: ")))
            .count()
    };
    assert!(of(0) >= 2 && of(1) >= 2, "{:#?}", report.lines);
    assert_eq!(report.plan.cards.len(), 2);
}

#[test]
fn a_trunks_place_is_kept_free_until_it_is_there() {
    let targets = Targets {
        reserve_trunk_slot: true,
        ..ip_targets(20, 0)
    };
    let mut rig = fresh(&[], targets);
    assert_eq!(rig.ordered(), ["assign eni-0 +5", "create 1 +5"], "not the third");
    rig.succeed_all();
    assert_eq!(rig.ordered(), [""; 0]);
    rig.at += 100_000;
    let trunk = rig.facts(2, 0);
    rig.seen(InterfaceFacts {
        id: EniId::from("eni-trunk"),
        kind: InterfaceKind::Trunk,
        ..trunk
    });
    assert_eq!((rig.ordered(), rig.sums().2), (vec![], 3), "and now it is taken");
}
