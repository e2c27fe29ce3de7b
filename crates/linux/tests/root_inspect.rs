//! What is said of a pod's part of the host. Needs root and `ip`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;

use common::{interface, new_netns, on_new_host, sh};
use vpcnet_linux::netlink::{MAIN, Socket};
use vpcnet_linux::pod::{self, Must, PodInterface, Question, inspect};

fn question(host: &mut Socket, pod: &PodInterface, eni: &str) -> Question {
    Question {
        address: pod.address,
        table: pod.table,
        host_names: vec![pod.host_name.clone()],
        mac: host.link(eni).unwrap().unwrap().mac,
    }
}

/// What is not as it must be.
fn wrong(host: &mut Socket, question: &Question) -> Vec<String> {
    let all = inspect(host, question).unwrap();
    let bad = all.into_iter().filter(|m| !m.is_so);
    bad.map(|Must { what, found, .. }| format!("{what}: {found}"))
        .collect()
}

fn eni() {
    sh("ip link add ens6 type veth peer name fabric6");
    sh("ip link set ens6 up");
    sh("ip route add default via 10.0.0.1 dev ens6 onlink table 3");
}

#[test]
fn a_pod_as_add_left_it_has_all_that_it_must_have() {
    on_new_host(|host| {
        eni();
        let inside = new_netns();
        let pod = interface(5, 3);
        pod::add(host, &inside, std::slice::from_ref(&pod)).unwrap();
        let question = question(host, &pod, "ens6");
        let all = inspect(host, &question).unwrap();
        assert!(all.iter().all(|m| m.is_so), "{all:#?}");
        assert_eq!(all.len(), 6, "{all:#?}");
        let says = |text: &str| all.iter().any(|m| m.what.contains(text));
        assert!(says(&format!(
            "rule 512: from all to {}/32 table 254",
            pod.address
        )));
        assert!(says(&format!("rule 1536: from {}/32 table 3", pod.address)));
        assert!(says("default route dev ens6 table 3"));
    });
}

#[test]
fn each_thing_that_is_missing_is_named_and_no_other() {
    on_new_host(|host| {
        eni();
        let inside = new_netns();
        let pod = interface(5, 3);
        pod::add(host, &inside, std::slice::from_ref(&pod)).unwrap();
        let question = question(host, &pod, "ens6");
        let (address, name) = (pod.address, &pod.host_name);
        for (harm, repair, said) in [
            (
                format!("ip rule delete to {address} priority 512"),
                format!("ip rule add to {address} priority 512 table main"),
                "rule 512: from all to",
            ),
            (
                format!("ip rule delete from {address} priority 1536"),
                format!("ip rule add from {address} priority 1536 table 3"),
                "rule 1536: from",
            ),
            (
                format!("ip route replace {address}/32 dev lo"),
                format!("ip route replace {address}/32 dev {name} scope link"),
                "packets to it take: ",
            ),
            (
                "ip route delete default table 3".into(),
                "ip route add default via 10.0.0.1 dev ens6 onlink table 3".into(),
                "the table has no default route",
            ),
        ] {
            sh(&harm);
            let found = wrong(host, &question);
            assert!(found.len() == 1 && found[0].contains(said), "{harm}: {found:#?}");
            sh(&repair);
            assert_eq!(wrong(host, &question), [""; 0], "{repair}");
        }
        // A second rule that comes first leads elsewhere.
        sh(&format!("ip rule delete from {address} priority 1536"));
        sh(&format!("ip rule add from {address} priority 1536 table 9"));
        let found = wrong(host, &question);
        assert!(
            found[0].contains("there is 1536: from") && found[0].contains("table 9"),
            "{found:#?}"
        );
    });
}

#[test]
fn a_pod_that_is_gone_and_an_interface_that_is_gone_are_told() {
    on_new_host(|host| {
        eni();
        let pod = interface(5, 3);
        let mut question = question(host, &pod, "ens6");
        let found = wrong(host, &question);
        assert!(found[0].contains("there is no such link"), "{found:#?}");
        assert_eq!(found.len(), 4, "link, route, two rules: {found:#?}");
        question.mac = Some("02:00:00:00:00:99".parse().unwrap());
        let found = wrong(host, &question);
        assert!(
            found
                .iter()
                .any(|f| f.contains("02:00:00:00:00:99") && f.contains("not attached")),
            "{found:#?}"
        );
    });
}

#[test]
fn a_pod_on_the_primary_interface_must_have_no_rule_of_its_own() {
    on_new_host(|host| {
        eni();
        let inside = new_netns();
        let pod = interface(6, MAIN);
        pod::add(host, &inside, std::slice::from_ref(&pod)).unwrap();
        let question = question(host, &pod, "ens6");
        assert_eq!(wrong(host, &question), [""; 0]);
        sh(&format!("ip rule add from {} priority 1536 table 3", pod.address));
        let found = wrong(host, &question);
        assert!(
            found.len() == 1 && found[0].contains("the primary one"),
            "{found:#?}"
        );
    });
}
