//! Several sandboxes of one pod: links bear the name of the pod, and a later sandbox's takes the place of the earlier one's.

use std::net::IpAddr;

use vpcnet_ipam::{Answer, Event, HostRoute, KernelEvidence, Lease, PodKey, RestoreNote, Targets};

use super::rig::{M5_LARGE, Rig, key, meta, veth};

/// Another sandbox of pod `n`.
fn later(n: u64) -> PodKey {
    key(1_000 + n)
}

/// A node with pod 1 in two sandboxes: no DEL ever came for the first.
fn node() -> (Rig, IpAddr, IpAddr) {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let first = rig.add(1);
    let first = rig.address(first);
    let second = rig.add_as(later(1), meta(1));
    let second = rig.address(second);
    assert_ne!(first, second);
    rig.succeed_all();
    (rig, first, second)
}

/// The pod's link leads there.
fn leads_to(address: IpAddr) -> KernelEvidence {
    let host_veth = veth(&meta(1));
    KernelEvidence {
        veths: vec![host_veth.clone()],
        pods: vec![HostRoute { address, host_veth }],
        ..KernelEvidence::default()
    }
}

fn seen(rig: &mut Rig, kernel: KernelEvidence) {
    let KernelEvidence { veths, pods, .. } = kernel;
    rig.tell(Event::VethSeen { names: veths, pods });
}

fn lease(rig: &Rig, key: &PodKey) -> Option<Lease> {
    rig.pool.owners().find(|l| l.key == *key)
}

#[test]
fn an_owner_whose_del_never_came_is_given_up_though_the_next_sandbox_of_its_pod_has_a_link() {
    let (rig, first, second) = node();
    let (mut rig, notes) = rig.restart(|r| r.kernel = leads_to(second));
    assert!(
        notes.len() == 1 && notes[0].contains(&key(1).container_id) && notes[0].contains("given up in 30 s"),
        "{notes:?}"
    );
    rig.pass(25_000);
    seen(&mut rig, leads_to(second));
    rig.pass(5_000);
    assert_eq!(rig.pool.holder(first), None);
    assert_eq!(rig.pool.holder(second), Some(&later(1)));
    assert_eq!(rig.pool.next_wake(), None);
}

#[test]
fn an_owner_whose_link_was_replaced_right_after_the_start_is_given_up() {
    let (rig, first, second) = node();
    // The plugin of the second sandbox had its answer, and was at work when the agent started.
    let (mut rig, _) = rig.restart(|r| r.kernel = leads_to(first));
    rig.pass(25_000);
    seen(&mut rig, leads_to(second));
    rig.pass(5_000);
    assert_eq!(
        rig.pool.holder(second),
        Some(&later(1)),
        "its link was seen in time"
    );
    rig.pass(25_000);
    assert_eq!(rig.pool.holder(first), None);
    assert_eq!(rig.pool.holder(second), Some(&later(1)));
}

#[test]
fn a_link_that_leads_nowhere_may_be_anybodys_of_its_name() {
    let (rig, first, second) = node();
    let bare = || KernelEvidence {
        pods: vec![],
        ..leads_to(second)
    };
    let (mut rig, notes) = rig.restart(|r| r.kernel = bare());
    rig.pass(25_000);
    seen(&mut rig, bare());
    rig.pass(60_000);
    assert_eq!(notes, Vec::<String>::new());
    assert!(rig.pool.holder(first).is_some() && rig.pool.holder(second).is_some());
}

/// Who keeps the host's routes would lead the packets of the earlier one to the later one's link, and then nothing would tell them
/// apart.
#[test]
fn only_the_last_sandbox_of_a_pod_is_said_to_have_its_link() {
    let (mut rig, _, _) = node();
    assert_eq!(lease(&rig, &key(1)).unwrap().interface, None);
    assert_eq!(lease(&rig, &later(1)).unwrap().interface, Some(0));
    // It gave up before it had a link.
    assert!(matches!(rig.del_as(later(1), meta(1)), Answer::Released(_)));
    assert_eq!(lease(&rig, &key(1)).unwrap().interface, Some(0));
}

#[test]
fn a_wall_clock_that_steps_back_does_not_make_the_later_sandbox_the_earlier_one() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    let first = rig.add(1);
    rig.address(first);
    rig.wall_shift_ms = -86_400_000;
    rig.add_as(later(1), meta(1));
    assert_eq!(lease(&rig, &later(1)).unwrap().interface, Some(0));
    let (rig, _) = rig.restart(|_| {});
    assert_eq!(lease(&rig, &later(1)).unwrap().interface, Some(0));
    assert_eq!(lease(&rig, &key(1)).unwrap().interface, None);
}

#[test]
fn the_note_of_an_owner_in_doubt_names_its_sandbox() {
    let note = RestoreNote::Unconfirmed {
        key: key(1),
        meta: meta(1),
        address: "10.0.0.9".parse().unwrap(),
    };
    assert!(note.to_string().contains("no link that leads to it"));
}
