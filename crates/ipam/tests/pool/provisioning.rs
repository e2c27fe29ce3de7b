//! When the pool is not to ask for anything, or for less; and targets of one node.

use std::time::Duration;

use vpcnet_ipam::{Ceiling, Event, InterfaceFacts, RefusalCause, TargetOverrides, Targets, plan};

use super::rig::{M5_LARGE, Rig, ip_targets, prefixes};

fn imds_only() -> Targets {
    Targets {
        imds_only: true,
        ..Targets::default()
    }
}

fn cordoned(targets: Targets) -> Targets {
    Targets {
        unschedulable: true,
        ..targets
    }
}

fn primary(rig: &Rig) -> InterfaceFacts {
    rig.pool.interfaces().find(|i| i.is_primary).unwrap()
}

#[test]
fn with_imds_only_nothing_is_asked_of_ec2_and_imds_takes_away_what_no_pod_has() {
    let mut rig = Rig::empty(M5_LARGE, imds_only());
    let facts = rig.facts(0, 3);
    rig.seen(facts.clone());
    let second = rig.facts(1, 3);
    rig.seen(second);
    rig.listed(&["eni-0", "eni-1"]);
    let request = rig.add(1);
    let address = rig.address(request);
    rig.pass(600_000);
    let less = InterfaceFacts {
        addresses: vec![],
        ..facts
    };
    rig.seen(less);
    rig.listed(&["eni-0"]);
    assert_eq!(rig.ordered(), [""; 0]);
    assert_eq!(rig.sums(), (1, 1, 1), "the pod's address, and one interface");
    assert_eq!(primary(&rig).addresses.len(), 1);
    let again = rig.add(1);
    assert_eq!(rig.address(again), address);
    let other = rig.add(2);
    assert_eq!(rig.refusal(other).cause, RefusalCause::TargetReached);
    rig.pass(600_000);
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
}

#[test]
fn what_imds_shows_later_is_used_at_once() {
    let mut rig = Rig::empty(M5_LARGE, imds_only());
    let facts = rig.facts(0, 0);
    rig.seen(facts);
    rig.listed(&["eni-0"]);
    let mut more = rig.facts(0, 0);
    more.prefixes = rig.fresh_prefixes(1);
    rig.seen(more);
    let request = rig.add(1);
    rig.address(request);
}

#[test]
fn a_cordoned_node_does_not_grow_and_frees_no_interface() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    rig.succeed_all();
    rig.del(1);
    rig.tell(Event::TargetsChanged(cordoned(Targets::default())));
    rig.pass(600_000);
    assert_eq!((rig.ordered(), rig.pool.next_wake()), (vec![], None));
    rig.tell(Event::TargetsChanged(Targets::default()));
    assert_eq!(rig.ordered(), ["delete eni-new1"]);
    let mut rig = Rig::fresh(M5_LARGE, cordoned(Targets::default()));
    assert_eq!(plan(&rig.pool, rig.now()).ceiling, Some(Ceiling::Unschedulable));
    let request = rig.add(1);
    let refusal = rig.refusal(request);
    assert_eq!(refusal.cause, RefusalCause::TargetReached);
    assert!(refusal.message.contains("cordoned"), "{}", refusal.message);
}

#[test]
fn a_cordoned_node_gives_addresses_and_prefixes_back() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(5, 0));
    rig.tell(Event::TargetsChanged(cordoned(ip_targets(2, 0))));
    assert_eq!(rig.ordered(), ["release eni-0 -3"]);
    let mut rig = Rig::settled(M5_LARGE, prefixes(3));
    rig.tell(Event::TargetsChanged(cordoned(prefixes(1))));
    assert_eq!(rig.ordered(), ["release eni-0 -2 prefixes"]);
}

#[test]
fn a_nodes_own_targets_take_the_place_of_all_nodes() {
    let all = Targets {
        warm_ip: Some(5),
        minimum_ip: Some(9),
        ..Targets::default()
    };
    assert_eq!(all.clone().overridden(&TargetOverrides::default()), all);
    let by = TargetOverrides {
        warm_ip: Some(0),
        minimum_ip: Some(0),
        warm_eni: Some(2),
        warm_prefix: Some(3),
        max_eni: Some(4),
        max_pods: Some(50),
        cooldown: Some(Duration::from_secs(7)),
        auto: Some(true),
    };
    let own = all.overridden(&by);
    assert_eq!(own.ip_targets(), None, "0 means not set");
    assert_eq!(
        (own.warm_eni, own.warm_prefix, own.max_eni),
        (2, Some(3), Some(4))
    );
    assert_eq!(
        (own.max_pods, own.cooldown, own.auto),
        (50, Duration::from_secs(7), true)
    );
}

#[test]
fn overrides_are_read_by_name_and_a_misspelt_one_is_an_error() {
    let read: TargetOverrides = serde_json::from_str(r#"{"warm_ip": 3}"#).unwrap();
    assert_eq!(read.warm_ip, Some(3));
    assert!(serde_json::from_str::<TargetOverrides>(r#"{"warm_ips": 3}"#).is_err());
}
