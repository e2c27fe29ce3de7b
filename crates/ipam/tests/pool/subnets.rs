//! Where new interfaces lie: several subnets, excluded ones, custom networking.

use vpcnet_ipam::{
    Action, Ceiling, CustomNetwork, Event, FailureClass, RefusalCause, SubnetId, Subnets, Targets, plan,
};

use super::rig::{M5_LARGE, Rig, ip_targets, prefixes};

fn subnet(n: u32) -> SubnetId {
    SubnetId(format!("subnet-{n}"))
}

/// The primary interface lies in subnet 1.
fn candidates(all: &[u32]) -> Subnets {
    Subnets {
        candidates: all.iter().map(|n| subnet(*n)).collect(),
        ..Subnets::default()
    }
}

fn custom(all: &[u32]) -> Subnets {
    let custom = CustomNetwork {
        name: "zone-a".into(),
        subnets: all.iter().map(|n| subnet(*n)).collect(),
        security_groups: vec!["sg-1".into(), "sg-2".into()],
        ..CustomNetwork::default()
    };
    Subnets {
        custom: Some(custom),
        ..Subnets::default()
    }
}

fn with(subnets: Subnets, targets: Targets) -> Targets {
    Targets { subnets, ..targets }
}

fn left(rig: &mut Rig, n: u32, free_addresses: u32, free_prefixes: Option<u32>) {
    rig.tell(Event::SubnetFacts {
        subnet: subnet(n),
        free_addresses,
        free_prefixes,
    });
}

/// The subnet and the security groups of the only creation in hand.
fn created(rig: &mut Rig) -> (Action, String, Vec<String>) {
    let create = rig.take_create();
    let Action::CreateInterface { subnet, groups, .. } = &create else {
        panic!("{create:?}")
    };
    let (subnet, groups) = (subnet.clone().expect("it is named").0, groups.clone());
    (create, subnet, groups)
}

fn deny(rig: &mut Rig, order: &Action, what: &str) {
    rig.fail(order, FailureClass::SubnetExhausted, what, None);
}

#[test]
fn without_candidates_the_primary_interfaces_subnet_is_named() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    assert_eq!(created(&mut rig).1, "subnet-1");
}

#[test]
fn the_subnet_with_the_most_addresses_left_is_used_else_the_first_in_the_list() {
    let targets = with(candidates(&[1, 2, 3]), Targets::default());
    let mut rig = Rig::settled(M5_LARGE, targets.clone());
    rig.add(1);
    assert_eq!(created(&mut rig).1, "subnet-1");
    let mut rig = Rig::settled(M5_LARGE, targets);
    left(&mut rig, 1, 20, None);
    left(&mut rig, 3, 200, None);
    left(&mut rig, 2, 100, None);
    rig.add(1);
    assert_eq!(
        created(&mut rig),
        (created_again(&rig), "subnet-3".into(), vec![])
    );
}

/// What the pool would order again after a crash: the same call.
fn created_again(rig: &Rig) -> Action {
    let mut all = Vec::new();
    let journal = serde_json::to_value(rig.pool.journal()).unwrap();
    let intents = journal["intents"].as_object().unwrap();
    for intent in intents.values() {
        let (create, phase) = (&intent["what"]["Create"], &intent["phase"]["Running"]);
        all.push(Action::CreateInterface {
            id: vpcnet_ipam::ActionId(phase.as_u64().unwrap()),
            card: vpcnet_ipam::CardIndex(0),
            device: vpcnet_ipam::DeviceIndex(1),
            subnet: Some(SubnetId::from(create["subnet"].as_str().unwrap())),
            groups: vec![],
            addresses: 9,
            prefixes: 0,
            client_token: create["client_token"].as_str().unwrap().to_owned(),
            done: vec![],
        });
    }
    all.remove(0)
}

#[test]
fn with_prefixes_the_subnet_with_the_most_free_blocks_is_used() {
    let targets = with(
        candidates(&[1, 2]),
        Targets {
            max_eni: Some(2),
            ..prefixes(1)
        },
    );
    let mut rig = Rig::settled((2, 2), targets);
    left(&mut rig, 1, 2_000, Some(1));
    left(&mut rig, 2, 100, Some(4));
    rig.add(1);
    assert_eq!(created(&mut rig).1, "subnet-2");
}

#[test]
fn a_subnet_that_denies_is_passed_over_for_the_next_at_once() {
    let mut rig = Rig::settled(M5_LARGE, with(candidates(&[1, 2, 3]), Targets::default()));
    rig.add(1);
    let at = rig.at;
    let mut asked = Vec::new();
    for _ in 0..3 {
        let (create, subnet, _) = created(&mut rig);
        deny(&mut rig, &create, "InsufficientFreeAddressesInSubnet");
        asked.push(subnet);
    }
    assert_eq!(
        (asked, rig.at),
        (vec!["subnet-1".into(), "subnet-2".into(), "subnet-3".into()], at)
    );
    assert_eq!(rig.ordered(), ["create 1 +4"], "all denied: half as many");
}

#[test]
fn where_the_first_subnet_has_no_block_the_next_gives_a_prefix_before_single_addresses_are_asked_for() {
    let mut rig = Rig::fresh(M5_LARGE, with(candidates(&[1, 2]), prefixes(1)));
    let request = rig.add(1);
    let assign = rig.take(|a| matches!(a, Action::AssignPrefixes { .. }));
    deny(&mut rig, &assign, "InsufficientCidrBlocks");
    assert_eq!(rig.ordered(), ["create 1 +2 prefixes"]);
    let (create, subnet, _) = created(&mut rig);
    assert_eq!(subnet, "subnet-2");
    rig.succeed(&create);
    rig.address(request);
    assert_eq!(rig.ordered(), [""; 0]);
}

#[test]
fn when_no_subnet_has_a_block_single_addresses_serve_at_once() {
    let mut rig = Rig::fresh((2, 3), with(candidates(&[1, 2]), prefixes(0)));
    let request = rig.add(1);
    while let Some(at) = rig
        .orders
        .iter()
        .position(|a| super::rig::short(a).contains("prefixes"))
    {
        let order = rig.orders.remove(at);
        deny(&mut rig, &order, "InsufficientCidrBlocks");
    }
    assert_eq!(rig.ordered(), ["assign eni-0 +2"]);
    rig.succeed_all();
    rig.address(request);
    rig.pass(600_000);
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
}

#[test]
fn a_subnet_that_counted_none_is_not_asked() {
    let mut rig = Rig::settled(M5_LARGE, with(candidates(&[1, 2]), Targets::default()));
    left(&mut rig, 1, 0, None);
    rig.add(1);
    assert_eq!(created(&mut rig).1, "subnet-2");
}

#[test]
fn an_interface_in_an_excluded_subnet_keeps_its_pods_and_gives_the_rest_back() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(3, 0));
    let request = rig.add(1);
    let address = rig.address(request);
    rig.succeed_all();
    let subnets = Subnets {
        excluded: [subnet(1)].into(),
        ..candidates(&[1, 2])
    };
    rig.tell(Event::TargetsChanged(with(subnets, ip_targets(3, 0))));
    assert_eq!(rig.ordered(), ["create 1 +3"]);
    let (create, subnet, _) = created(&mut rig);
    assert_eq!(subnet, "subnet-2");
    let waiting = rig.add(2);
    assert_eq!(rig.answer(waiting), None, "three are free, where it may not be");
    rig.succeed(&create);
    let got = rig.pool.owners().find(|l| l.key == super::rig::key(2)).unwrap();
    assert_eq!(got.device.0, 1);
    rig.succeed_all();
    rig.pass(60_000);
    rig.succeed_all();
    let again = rig.add(1);
    assert_eq!(rig.address(again), address);
    let primary = rig.pool.interfaces().find(|i| i.is_primary).unwrap();
    assert_eq!(primary.addresses.len(), 1, "only the pod's is left");
}

#[test]
fn with_all_subnets_excluded_a_pod_is_refused_and_told_so() {
    let subnets = Subnets {
        excluded: [subnet(1)].into(),
        ..Subnets::default()
    };
    let mut rig = Rig::fresh(M5_LARGE, with(subnets, Targets::default()));
    let request = rig.add(1);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::SubnetExhausted);
    assert!(refusal.message.contains("excluded"), "{}", refusal.message);
    assert_eq!(plan(&rig.pool, rig.now()).ceiling, Some(Ceiling::NoSubnet));
}

#[test]
fn custom_networking_leaves_the_primary_interface_alone_and_names_subnet_and_groups() {
    let mut rig = Rig::fresh(M5_LARGE, with(custom(&[4, 5]), Targets::default()));
    assert_eq!(rig.ordered(), ["create 1 +9"]);
    let (create, subnet, groups) = created(&mut rig);
    assert_eq!(
        (subnet.as_str(), groups),
        ("subnet-4", vec!["sg-1".to_owned(), "sg-2".to_owned()])
    );
    deny(&mut rig, &create, "InsufficientFreeAddressesInSubnet");
    let (create, subnet, _) = created(&mut rig);
    assert_eq!(subnet, "subnet-5", "unlike the original, another is tried");
    rig.succeed(&create);
    let request = rig.add(1);
    rig.address(request);
    let lease = rig.pool.owners().next().unwrap();
    assert_eq!(lease.device.0, 1);
    rig.succeed_all();
    assert_eq!(rig.sums(), (18, 1, 3), "two of three interfaces are for pods");
}

#[test]
fn custom_networking_without_a_subnet_says_its_name() {
    let mut rig = Rig::fresh(M5_LARGE, with(custom(&[]), Targets::default()));
    let request = rig.add(1);
    let refusal = rig.refusal(request);
    assert!(refusal.message.contains("zone-a"), "{}", refusal.message);
}

#[test]
fn a_creation_is_repeated_in_its_subnet_with_its_groups_whatever_changed() {
    let mut rig = Rig::fresh(M5_LARGE, with(custom(&[4]), Targets::default()));
    let (create, ..) = created(&mut rig);
    rig.tell(Event::TargetsChanged(with(custom(&[5]), Targets::default())));
    rig.fail(&create, FailureClass::Retry, "timed out", None);
    rig.pass(1_000);
    let (_, subnet, groups) = created(&mut rig);
    assert_eq!((subnet.as_str(), groups.len()), ("subnet-4", 2));
}

#[test]
fn an_excluded_interface_without_pods_is_deleted() {
    let targets = with(candidates(&[2]), Targets::default());
    let mut rig = Rig::settled(M5_LARGE, targets);
    rig.add(1);
    rig.succeed_all();
    rig.del(1);
    let subnets = Subnets {
        excluded: [subnet(2)].into(),
        ..candidates(&[1, 2])
    };
    rig.tell(Event::TargetsChanged(with(subnets, Targets::default())));
    for _ in 0..4 {
        rig.pass(31_000);
        rig.succeed_all();
    }
    let there: Vec<String> = rig.pool.interfaces().map(|i| i.id.0).collect();
    assert!(!there.contains(&"eni-new1".to_owned()), "{there:?}");
}

#[test]
fn a_creation_that_was_overtaken_is_decided_anew_at_once() {
    let targets = with(candidates(&[1, 2]), Targets::default());
    let mut rig = Rig::settled(M5_LARGE, targets.clone());
    rig.add(1);
    let (create, subnet, _) = created(&mut rig);
    assert_eq!(subnet, "subnet-1");
    let mut left = targets.clone();
    left.subnets.candidates = vec![self::subnet(2)];
    left.subnets.excluded = [self::subnet(1)].into();
    rig.tell(Event::TargetsChanged(Targets { ..left }));
    rig.fail(
        &create,
        FailureClass::Overtaken,
        "subnet-1 is no longer for pods",
        None,
    );
    let (again, subnet, _) = created(&mut rig);
    assert_eq!(subnet, "subnet-2");
    let token = |action: &Action| match action {
        Action::CreateInterface { client_token, .. } => client_token.clone(),
        other => panic!("{other:?}"),
    };
    assert_ne!(token(&create), token(&again));
}
