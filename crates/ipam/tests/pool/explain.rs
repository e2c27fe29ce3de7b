//! What is said of one pod, of the subnets, and of a node that differs.

use std::time::Duration;

use vpcnet_ipam::{
    AddressState, CustomNetwork, Event, FailureClass, Mode, SubnetId, Subnets, TargetOverrides, Targets,
};

use super::rig::{M5_LARGE, Rig, ip_targets, meta, prefixes, veth};

fn lines(rig: &Rig) -> Vec<String> {
    rig.pool.explain(rig.now()).lines
}

#[test]
fn a_pod_has_an_address_and_the_reason_why_this_one() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.pass(12_300);
    let request = rig.add(7);
    let report = rig.pool.explain_pod(rig.now(), "default", "web-7", &[]);
    let [held] = &report.holds[..] else {
        panic!("{report:?}")
    };
    assert_eq!(held.address, rig.address(request));
    assert_eq!(
        (held.eni.0.as_str(), held.device.0, held.route_table, held.index),
        ("eni-0", 0, 254, 0)
    );
    assert_eq!(held.assigned_ns, rig.now().wall_ns);
    assert_eq!(held.subnet, SubnetId::from("subnet-1"));
    let why = held.why.as_deref().unwrap();
    assert!(
        why.contains("the first interface that had one") && why.contains("idle longest, 12.3 s"),
        "{why}"
    );
    assert!(report.waits.is_empty() && report.had.is_empty());
    assert!(
        rig.pool
            .explain_pod(rig.now(), "default", "web-8", &[])
            .is_empty()
    );
    assert!(rig.pool.explain_pod(rig.now(), "other", "web-7", &[]).is_empty());
}

#[test]
fn in_prefix_mode_the_reason_names_the_prefix_and_how_full_it_was() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(1));
    rig.add_all(1..=3);
    let report = rig.pool.explain_pod(rig.now(), "default", "web-3", &[]);
    let held = &report.holds[0];
    let why = held.why.as_deref().unwrap();
    let prefix = held.prefix.unwrap();
    assert!(
        why.starts_with(&format!("{prefix} was the fullest prefix")),
        "{why}"
    );
    assert!(why.contains("(2 of 16 taken)"), "{why}");
}

#[test]
fn a_pod_that_waits_is_told_what_for_and_one_that_went_when_its_address_is_free_again() {
    let targets = Targets {
        max_eni: Some(1),
        ..Targets::default()
    };
    let mut rig = Rig::settled(M5_LARGE, targets);
    rig.add_all(1..=9);
    let had = rig.pool.explain_pod(rig.now(), "default", "web-3", &[]).holds[0].address;
    rig.del(3);
    rig.add(10);
    rig.pass(1_000);
    let waits = rig.pool.explain_pod(rig.now(), "default", "web-10", &[]).waits;
    assert_eq!((waits[0].for_ms, waits[0].left_ms), (1_000, 59_000));
    assert!(waits[0].message.contains("cool down"), "{}", waits[0].message);
    assert_eq!(waits[0].retry_in_ms, Some(29_000));
    let gone = rig.pool.explain_pod(rig.now(), "default", "web-3", &[]);
    assert!(gone.holds.is_empty());
    assert_eq!(gone.had[0].address, had);
    assert_eq!(gone.had[0].state, AddressState::Cooling { for_ms: 29_000 });
}

#[test]
fn an_owner_known_by_its_veth_only_is_found_by_the_veth() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    let key = vpcnet_ipam::rebuilt_key(&veth(&meta(9)));
    let mut value = serde_json::to_value(&rig.pool).unwrap();
    // The pool as it is after a start without a checkpoint.
    let text = value.to_string();
    let held = rig.pool.explain_pod(rig.now(), "default", "web-1", &[]).holds;
    let text = text
        .replace(&held[0].key.container_id, &key.container_id)
        .replace("\"web-1\"", "\"\"")
        .replace("\"Confirmed\"", "{\"Rebuilt\":{\"superseded\":null}}");
    value = serde_json::from_str(&text).unwrap();
    let pool: vpcnet_ipam::Pool = serde_json::from_value(value).unwrap();
    let found = pool.explain_pod(rig.now(), "default", "web-9", &[veth(&meta(9))]);
    assert!(
        found.holds[0].standing.contains("host veth only"),
        "{:?}",
        found.holds
    );
}

#[test]
fn a_node_that_differs_says_so_first() {
    let overrides = TargetOverrides {
        warm_ip: Some(5),
        cooldown: Some(Duration::from_secs(10)),
        auto: Some(false),
        ..TargetOverrides::default()
    };
    let rig = Rig::settled(M5_LARGE, Targets::default().overridden(&overrides));
    assert_eq!(
        lines(&rig)[0],
        "for this node only: WARM_IP_TARGET = 5, IP_COOLDOWN_PERIOD = 10, auto = off"
    );
    let rig = Rig::settled(M5_LARGE, Targets::default());
    assert!(
        lines(&rig)
            .iter()
            .all(|l| !l.contains("this node only") && !l.contains("lie in")),
        "{:#?}",
        lines(&rig)
    );
}

#[test]
fn the_plan_says_where_new_interfaces_lie_and_which_subnets_are_excluded_or_dry() {
    let subnets = Subnets {
        candidates: vec!["subnet-1".into(), "subnet-2".into(), "subnet-3".into()],
        excluded: ["subnet-1".into()].into(),
        custom: None,
    };
    let targets = Targets {
        subnets,
        ..ip_targets(2, 0)
    };
    let mut rig = Rig::settled(M5_LARGE, targets);
    rig.tell(Event::SubnetFacts {
        subnet: "subnet-3".into(),
        free_addresses: 40,
        free_prefixes: Some(2),
    });
    let said = lines(&rig);
    assert!(
        said.contains(
            &"new interfaces lie in subnet-3 (40 addresses and 2 /28 blocks left), then subnet-2 (not counted yet)".to_owned()
        ),
        "{said:#?}"
    );
    assert!(
        said.iter()
            .any(|l| l.starts_with("subnet-1 is excluded by its tags: its 1 interfaces")),
        "{said:#?}"
    );
    rig.add(1);
    loop {
        let create = rig.take(|_| true);
        rig.fail(
            &create,
            FailureClass::SubnetExhausted,
            "InsufficientFreeAddressesInSubnet",
            None,
        );
        if lines(&rig).iter().any(|l| l.contains(" has no addresses: ")) {
            break;
        }
    }
    let said = lines(&rig);
    assert!(
        said.iter()
            .any(|l| l.contains(" has no addresses: InsufficientFreeAddressesInSubnet (asked again in 10 s")),
        "{said:#?}"
    );
}

#[test]
fn custom_networking_is_explained_by_name_and_groups() {
    let subnets = Subnets {
        custom: Some(CustomNetwork {
            name: "zone-a".into(),
            subnets: vec![],
            security_groups: vec!["sg-1".into()],
            ..CustomNetwork::default()
        }),
        ..Subnets::default()
    };
    let rig = Rig::settled(
        M5_LARGE,
        Targets {
            subnets,
            ..Targets::default()
        },
    );
    let said = lines(&rig);
    assert!(
        said.iter()
            .any(|l| l.contains("custom networking \"zone-a\"") && l.contains("security groups sg-1")),
        "{said:#?}"
    );
    assert!(
        said.iter().any(|l| l.contains("new interfaces lie in no subnet")),
        "{said:#?}"
    );
}

#[test]
fn sums_are_by_subnet_and_by_cidr() {
    let mut rig = Rig::settled(M5_LARGE, prefixes(1));
    rig.add_all(1..=17);
    rig.succeed_all();
    rig.tell(Event::SubnetFacts {
        subnet: "subnet-1".into(),
        free_addresses: 4_000,
        free_prefixes: None,
    });
    let [subnet] = &rig.pool.view(rig.now()).subnets[..] else {
        panic!("one subnet")
    };
    let totals = rig.pool.view(rig.now()).totals;
    assert_eq!((subnet.left_addresses, subnet.left_prefixes), (Some(4_000), None));
    assert_eq!(subnet.pool_free_addresses, totals.total - 17);
    assert_eq!(subnet.pool_free_prefixes, totals.free_prefixes);
    let by_cidr = rig.pool.assigned_by_cidr();
    assert_eq!(by_cidr.values().sum::<u32>(), 17);
    assert_eq!(by_cidr.values().max(), Some(&16));
    assert_eq!(by_cidr.len(), totals.prefixes as usize, "free prefixes too");
    assert!(by_cidr.keys().all(|cidr| cidr.prefix_len() == 28));
    // Single addresses are there when a pod has them.
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    let cidrs: Vec<_> = rig.pool.assigned_by_cidr().into_iter().collect();
    assert!(cidrs.len() == 1 && cidrs[0].0.prefix_len() == 32 && cidrs[0].1 == 1);
}

#[test]
fn ipv6_is_explained_too() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            mode: Mode::Ipv6,
            ..Targets::default()
        },
    );
    rig.add(1);
    let report = rig.pool.explain_pod(rig.now(), "default", "web-1", &[]);
    let held = &report.holds[0];
    assert!(
        held.address.is_ipv6() && held.prefix.unwrap().prefix_len() == 80,
        "{held:?}"
    );
    assert!(held.why.as_deref().unwrap().contains("/80"));
    assert_eq!(rig.pool.assigned_by_cidr().values().sum::<u32>(), 1);
}
