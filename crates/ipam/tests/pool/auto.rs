//! The warm pool sized by what comes.

use vpcnet_ipam::{Event, Mode, SubnetId, Targets};

use super::rig::{M5_4XLARGE, Rig};

/// 110 pods at most: seven addresses are warm when nothing is known.
fn auto() -> Targets {
    Targets {
        auto: true,
        warm_eni: 4,
        ..Targets::default()
    }
}

fn left(rig: &mut Rig, free_addresses: u32) {
    rig.tell(Event::SubnetFacts {
        subnet: SubnetId::from("subnet-1"),
        free_addresses,
        free_prefixes: None,
    });
}

/// Addresses beyond those of pods, at rest.
fn spare(rig: &mut Rig) -> u32 {
    rig.succeed_all();
    let t = rig.pool.view(rig.now()).totals;
    t.total - t.assigned
}

#[test]
fn a_node_of_which_nothing_is_known_keeps_a_sixteenth_of_max_pods_warm() {
    let mut rig = Rig::fresh(M5_4XLARGE, auto());
    assert_eq!(rig.ordered(), ["assign eni-0 +7"]);
    assert_eq!((spare(&mut rig), rig.pool.next_wake()), (7, None));
}

#[test]
fn as_many_as_came_in_the_busiest_minute_are_kept_for_ten_minutes() {
    let mut rig = Rig::settled(M5_4XLARGE, auto());
    for n in 1..=20 {
        rig.add(n);
        rig.succeed_all();
    }
    assert_eq!(spare(&mut rig), 20);
    for _ in 0..20 {
        rig.pass(60_000);
        rig.succeed_all();
    }
    assert_eq!(spare(&mut rig), 7, "nothing came since");
    assert_eq!(rig.pool.next_wake(), None);
}

#[test]
fn where_the_subnet_runs_low_one_is_enough_and_the_rest_goes_back() {
    let mut rig = Rig::settled(M5_4XLARGE, auto());
    left(&mut rig, 109);
    assert_eq!(rig.ordered(), ["release eni-0 -6"]);
    assert_eq!(spare(&mut rig), 1);
    let lines = rig.pool.explain(rig.now()).lines;
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("auto: a subnet has less left than this node could use: 1 wanted free")),
        "{lines:#?}"
    );
    left(&mut rig, 110);
    assert_eq!(spare(&mut rig), 7);
}

#[test]
fn no_more_is_kept_than_pods_can_still_come() {
    let mut rig = Rig::settled(
        M5_4XLARGE,
        Targets {
            max_pods: 12,
            ..auto()
        },
    );
    for n in 1..=11 {
        rig.add(n);
        rig.succeed_all();
    }
    assert_eq!(spare(&mut rig), 1);
}

#[test]
fn with_prefixes_it_is_rounded_up_to_them() {
    let targets = Targets {
        mode: Mode::Prefixes,
        ..auto()
    };
    let mut rig = Rig::fresh(M5_4XLARGE, targets);
    assert_eq!(rig.ordered(), ["assign eni-0 +1 prefixes"]);
    assert_eq!(spare(&mut rig), 16);
}

#[test]
fn it_says_how_it_came_to_its_size() {
    let mut rig = Rig::settled(M5_4XLARGE, auto());
    for n in 1..=9 {
        rig.add(n);
        rig.succeed_all();
    }
    let lines = rig.pool.explain(rig.now()).lines;
    let want = "auto: 9 pods came in the busiest of the last ten minutes, at least max-pods 110 ÷ 16 = 7: 9 wanted free";
    assert!(lines.iter().any(|l| l.starts_with(want)), "{lines:#?}");
}

#[test]
fn it_is_off_unless_asked_for() {
    let rig = Rig::fresh(M5_4XLARGE, Targets::default());
    assert_eq!(rig.ordered(), ["assign eni-0 +29"]);
}
