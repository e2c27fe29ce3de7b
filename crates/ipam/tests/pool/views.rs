//! What people see.

use vpcnet_ipam::{AddressState, Ceiling, FailureClass, Mono, Now, Pool, Step, Targets, plan};

use super::rig::{M5_LARGE, Rig, ip_targets, meta};

#[test]
fn the_plan_is_explained_by_its_arithmetic() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            max_pods: 20,
            ..Targets::default()
        },
    );
    rig.add_all(1..=2);
    let report = rig.pool.explain(rig.now());
    let want =
        "warm ENI target 1 × 9 addresses = 9 wanted free; 9 total + 9 coming − 2 assigned = 16 free → enough";
    assert!(report.lines.iter().any(|l| l == want), "{:#?}", report.lines);
    assert!(report.lines[0].starts_with("1 of 3 interfaces; 9 addresses in all − 2 assigned = 7 available"));
    assert!(
        report
            .lines
            .iter()
            .any(|l| l.contains("creation of an interface at device 1 with 9 addresses"))
    );
    assert_eq!(report.actions, [""; 0]);
    rig.succeed_all();
    rig.add_all(3..=20);
    rig.succeed_all();
    let report = rig.pool.explain(rig.now());
    assert!(
        report.lines.iter().any(|l| l.contains("max-pods 20: not grown")),
        "{:#?}",
        report.lines
    );
}

#[test]
fn a_plan_of_a_pool_read_from_a_file_is_the_plan_of_the_pool() {
    let rig = Rig::settled(M5_LARGE, Targets::default());
    let text = serde_json::to_string(&rig.pool).unwrap();
    let mut pool: Pool = serde_json::from_str(&text).unwrap();
    assert_eq!(pool.explain(rig.now()), rig.pool.explain(rig.now()));
    assert_eq!(serde_json::to_string(&pool).unwrap(), text);
    let more = ip_targets(12, 0);
    pool = serde_json::from_str(&text.replace("\"warm_ip\":null", "\"warm_ip\":12")).unwrap();
    assert_eq!(pool.targets().warm_ip, more.warm_ip);
    let steps = plan(&pool, rig.now()).steps;
    assert!(
        matches!(steps[..], [Step::Create { addresses: 3, .. }]),
        "{steps:?}"
    );
}

#[test]
fn a_pool_in_the_midst_of_everything_survives_being_written_and_read() {
    let mut rig = Rig::settled(M5_LARGE, ip_targets(1, 0));
    rig.add_all(1..=3);
    let assign = rig.take_assign();
    rig.fail(
        &assign,
        FailureClass::SubnetExhausted,
        "InsufficientFreeAddressesInSubnet",
        None,
    );
    rig.del(1);
    let text = serde_json::to_string(&rig.pool).unwrap();
    let pool: Pool = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&pool).unwrap(), text);
    assert_eq!(pool.view(rig.now()), rig.pool.view(rig.now()));
}

#[test]
fn the_view_shows_owners_cooling_and_what_waits() {
    let mut rig = Rig::settled(
        M5_LARGE,
        Targets {
            max_eni: Some(1),
            ..Targets::default()
        },
    );
    rig.add_all(1..=9);
    rig.del(3);
    let waiting = rig.add(10);
    rig.pass(1_000);
    assert_eq!(rig.answer(waiting), None);
    let view = rig.pool.view(rig.now());
    assert_eq!(
        (
            view.totals.total,
            view.totals.assigned,
            view.totals.available,
            view.totals.cooling
        ),
        (9, 8, 1, 1)
    );
    let cooling: Vec<_> = view.interfaces[0]
        .addresses
        .iter()
        .filter(|a| a.state == AddressState::Cooling { for_ms: 29_000 })
        .collect();
    assert_eq!(
        cooling[0].owner.as_ref().unwrap().meta,
        meta(3),
        "who had it last"
    );
    assert_eq!(view.waiting[0].meta, meta(10));
    assert_eq!((view.waiting[0].for_ms, view.waiting[0].left_ms), (1_000, 59_000));
    assert!(
        view.waiting[0].message.contains("cool down"),
        "{}",
        view.waiting[0].message
    );
    assert_eq!(view.next_wake_in_ms, Some(29_000));
}

#[test]
fn the_plan_is_a_function_of_pool_and_time() {
    let rig = Rig::empty(M5_LARGE, Targets::default());
    let now = Now {
        mono: Mono(5),
        wall_ns: 1,
    };
    assert_eq!(plan(&rig.pool, now), plan(&rig.pool, now));
    assert_eq!(plan(&rig.pool, now).ceiling, Some(Ceiling::NotListed));
}
