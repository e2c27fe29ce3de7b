//! What counts as earlier, and how it is told.

use vpcnet_config::Config;

use super::*;

fn settings(change: impl FnOnce(&mut HostSettings)) -> HostSettings {
    let mut settings = Config::default().host;
    change(&mut settings);
    settings
}

fn off() -> HostSettings {
    settings(|s| {
        s.external_snat = true;
        s.node_port = false;
    })
}

fn of(settings: &HostSettings, marks: &[u32], prefixes: &[&str]) -> Earlier {
    earlier_than(
        settings,
        marks.iter().copied().collect(),
        prefixes.iter().map(|p| (*p).to_owned()).collect(),
    )
}

#[test]
fn the_same_settings_leave_nothing() {
    assert!(of(&settings(|_| ()), &[0x80], &["eni"]).is_nothing());
    assert!(of(&off(), &[], &["eni"]).is_nothing());
}

#[test]
fn a_mark_is_earlier_if_nothing_sets_it_any_more() {
    assert_eq!(of(&off(), &[0x80], &[]).marks, [0x80].into());
    let node_ports = settings(|s| s.external_snat = true);
    assert!(of(&node_ports, &[0x80], &[]).is_nothing());
    let other = settings(|s| s.mark = 0x100);
    assert_eq!(of(&other, &[0x80, 0x100], &[]).marks, [0x80].into());
    // With all bits of the present one it is led as that is; with some of them it is not.
    assert!(of(&other, &[0x180], &[]).is_nothing());
    let wide = settings(|s| s.mark = 0x180);
    assert_eq!(of(&wide, &[0x100], &[]).marks, [0x100].into());
}

#[test]
fn a_prefix_is_earlier_if_the_present_one_does_not_match_its_links() {
    let other = settings(|s| s.veth_prefix = "abc".into());
    assert_eq!(
        of(&other, &[0x80], &["abc", "eni"]).prefixes,
        ["eni".to_owned()].into()
    );
    let shorter = settings(|s| s.veth_prefix = "en".into());
    assert!(of(&shorter, &[0x80], &["eni"]).is_nothing());
}

#[test]
fn each_thing_is_told_with_who_needs_it_and_since_when_it_is_not_wanted() {
    let earlier = Earlier {
        marks: [0x80].into(),
        prefixes: ["abc".to_owned()].into(),
        translation: true,
    };
    let needs = Needs {
        marks: [(0x80, 3)].into(),
        prefixes: [("abc".to_owned(), 2)].into(),
        translation: 1,
    };
    assert_eq!(
        sentences(&earlier, Some(&Ok(needs)), &off()),
        [
            "connection mark 0x80 with its rule: kept for 3 connections of the time before \
             AWS_VPC_K8S_CNI_EXTERNALSNAT=true and AWS_VPC_CNI_NODE_PORT_SUPPORT=false",
            "translation to the node's address: kept for 1 connection of the time before AWS_VPC_K8S_CNI_EXTERNALSNAT=true",
            "pods' links named abc…: kept for 2 links of the time before AWS_VPC_K8S_CNI_VETHPREFIX=eni",
        ]
    );
    let marked = Earlier {
        marks: [0x80].into(),
        ..Earlier::default()
    };
    let other = settings(|s| s.mark = 0x100);
    assert_eq!(
        sentences(&marked, None, &other),
        [
            "connection mark 0x80 with its rule: kept until it is known which connections of the time before \
             AWS_VPC_K8S_CNI_CONNMARK=0x100 need it"
        ]
    );
    let refused = Err("list connections: EPERM".to_owned());
    let told = sentences(&marked, Some(&refused), &other);
    assert!(
        told[0].contains("kept, as it cannot be seen") && told[0].ends_with("EPERM"),
        "{told:?}"
    );
    assert!(sentences(&Earlier::default(), None, &other).is_empty());
}

#[test]
fn what_is_found_is_kept_until_it_is_looked_at() {
    let leftovers = Leftovers::new(settings(|s| s.veth_prefix = "abc".into()));
    assert!(leftovers.earlier().is_nothing());
    leftovers.add(of(&leftovers.settings, &[0x100], &["eni"]));
    leftovers.found_translation();
    let earlier = leftovers.earlier();
    assert!(earlier.translation && earlier.marks == [0x100].into());
    assert_eq!(leftovers.prefixes(), ["abc", "eni"]);
}
