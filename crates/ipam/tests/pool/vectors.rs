//! The original's figures, by the pool itself: what it holds at rest with so many pods.

use vpcnet_ipam::{Mode, Targets};

use super::rig::{Rig, ip_targets, prefixes};

struct Vector {
    /// Interfaces, addresses of each with its own.
    size: (u32, u32),
    targets: Targets,
    pods: u64,
    /// Addresses at rest.
    held: u32,
}

fn at_rest(v: &Vector) -> u32 {
    let mut rig = Rig::settled(v.size, v.targets.clone());
    for n in 1..=v.pods {
        rig.add(n);
        rig.succeed_all();
    }
    for _ in 0..20 {
        rig.pass(60_000);
        rig.succeed_all();
    }
    assert_eq!(rig.pool.next_wake(), None, "{} pods", v.pods);
    let t = rig.pool.view(rig.now()).totals;
    assert_eq!(u64::from(t.assigned), v.pods);
    t.total
}

fn check(vectors: Vec<Vector>) {
    for v in vectors {
        assert_eq!(at_rest(&v), v.held, "{:?} with {} pods", v.targets, v.pods);
    }
}

fn vectors(size: (u32, u32), targets: &Targets, table: &[(u64, u32)]) -> Vec<Vector> {
    let vector = |(pods, held): &(u64, u32)| Vector {
        size,
        targets: targets.clone(),
        pods: *pods,
        held: *held,
    };
    table.iter().map(vector).collect()
}

#[test]
fn an_m4_4xlarge_with_the_defaults() {
    let table = [(0, 29), (1, 58), (29, 58), (30, 87), (58, 87)];
    check(vectors((8, 30), &Targets::default(), &table));
}

#[test]
fn a_t3_small_with_the_defaults() {
    check(vectors((3, 4), &Targets::default(), &[(0, 3), (5, 9)]));
}

#[test]
fn warm_and_minimum_ip_targets() {
    check(vectors((3, 10), &ip_targets(5, 0), &[(0, 5), (2, 7), (20, 25)]));
    check(vectors((3, 10), &ip_targets(2, 5), &[(0, 5), (3, 5), (5, 7)]));
    check(vectors((3, 10), &ip_targets(1, 10), &[(2, 10), (12, 13)]));
}

#[test]
fn a_minimum_alone_stops_at_the_floor_and_serves_no_further_than_asked() {
    check(vectors(
        (3, 10),
        &ip_targets(0, 12),
        &[(0, 12), (12, 12), (13, 13)],
    ));
}

#[test]
fn max_pods_stops_growth() {
    let targets = Targets {
        max_pods: 3,
        ..Targets::default()
    };
    check(vectors((3, 4), &targets, &[(0, 3), (3, 3)]));
}

#[test]
fn prefix_targets() {
    check(vectors(
        (3, 10),
        &prefixes(1),
        &[(0, 16), (1, 32), (16, 32), (17, 48)],
    ));
    check(vectors((3, 10), &prefixes(0), &[(0, 16), (15, 16), (16, 32)]));
    let by_ip = |targets| Targets {
        mode: Mode::Prefixes,
        ..targets
    };
    check(vectors(
        (3, 10),
        &by_ip(ip_targets(5, 0)),
        &[(0, 16), (11, 16), (12, 32)],
    ));
    check(vectors((3, 10), &by_ip(ip_targets(16, 0)), &[(0, 16), (1, 32)]));
    check(vectors((3, 10), &by_ip(ip_targets(0, 33)), &[(0, 48), (48, 48)]));
}

#[test]
fn ip_targets_set_make_the_others_void() {
    let targets = Targets {
        warm_eni: 3,
        warm_prefix: Some(4),
        ..ip_targets(2, 0)
    };
    check(vectors((3, 10), &targets, &[(0, 2)]));
    let targets = Targets {
        mode: Mode::Prefixes,
        ..targets
    };
    check(vectors((3, 10), &targets, &[(0, 16)]));
}
