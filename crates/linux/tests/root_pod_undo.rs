//! ADD that fails at any step leaves the kernel as it was; DEL and CHECK. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;

use common::{interface, new_netns, on_new_host, sh, sh_in, snapshot};
use vpcnet_linux::netlink::{MAIN, NetlinkError, Request, Rule, Socket, faults};
use vpcnet_linux::pod::{self, Finding, Gone, PodInterface};

/// Two interfaces, one of them IPv6 and by a secondary ENI: every kind of message is among theirs.
fn two() -> [PodInterface; 2] {
    let second = PodInterface {
        name: "mNicIf1".into(),
        gateway_index: 2,
        address: "2001:db8::6".parse().unwrap(),
        ..interface(6, 10_102)
    };
    [interface(5, 2), second]
}

fn gone(interfaces: &[PodInterface]) -> Vec<Gone> {
    interfaces
        .iter()
        .map(|one| Gone {
            address: one.address,
            table: one.table,
        })
        .collect()
}

#[test]
fn a_refusal_of_any_message_leaves_host_and_pod_as_before() {
    on_new_host(|host| {
        let bystander = new_netns();
        pod::add(host, &bystander, &[interface(1, 2)]).unwrap();
        let pod = new_netns();
        let enabled = || vpcnet_linux::sysctl::Tree::default().write("net/ipv6/conf/lo/disable_ipv6", "0");
        pod.within(enabled).unwrap().unwrap();
        let before = (snapshot(host), snapshot(&mut Socket::open_in(&pod).unwrap()));
        let mut refused = 0;
        for nth in 0.. {
            faults::refuse_after(Some(nth));
            let result = pod::add(host, &pod, &two());
            if faults::waiting() {
                faults::refuse_after(None);
                result.unwrap();
                break;
            }
            let error = result.expect_err("the kernel refused a message");
            assert!(error.to_string().contains("EOPNOTSUPP"), "{error}");
            assert!(error.left_behind().is_empty(), "{error}");
            let after = (snapshot(host), snapshot(&mut Socket::open_in(&pod).unwrap()));
            assert_eq!(
                after.0, before.0,
                "host, after message {nth} was refused: {error}"
            );
            // Rules of the pod's own namespace die with it, but a second try must not meet them either.
            assert_eq!(after.1, before.1, "pod, after message {nth} was refused: {error}");
            refused += 1;
        }
        assert!(refused >= 2 + 11 + 9, "only {refused} messages were tried");
    });
}

#[test]
fn a_stale_veth_goes_with_its_peer_wherever_that_is() {
    on_new_host(|host| {
        sh("ip link add eni00000000005 type veth peer name peer");
        pod::add(host, &new_netns(), &[interface(5, 2)]).unwrap();
        assert_eq!(host.index_of("peer").unwrap(), None);
    });
}

#[test]
fn del_takes_route_and_rules_and_nothing_else() {
    on_new_host(|host| {
        let (pod, other) = (new_netns(), new_netns());
        pod::add(host, &other, &[interface(9, 2)]).unwrap();
        let before = snapshot(host);
        let both = two();
        pod::add(host, &pod, &both).unwrap();
        let names: Vec<&str> = both.iter().map(|one| one.host_name.as_str()).collect();
        let errors = pod::del(host, &gone(&both), &names);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(
            sh("ip rule show").lines().count(),
            5,
            "the other pod's two, and the kernel's three"
        );
        assert_eq!(sh("ip -6 rule show").lines().count(), 2);
        assert_eq!(sh("ip route show").lines().count(), 1);
        assert!(
            pod::del(host, &gone(&both), &names).is_empty(),
            "a second DEL is fine"
        );
        // The links die with the pod's namespace.
        drop(pod);
        common::wait_for("the veth to go", || {
            both.iter()
                .all(|one| host.index_of(&one.host_name).unwrap().is_none())
                .then_some(())
        });
        assert_eq!(snapshot(host), before);
    });
}

#[test]
fn del_takes_every_rule_of_the_address() {
    on_new_host(|host| {
        let one = interface(5, 2);
        for n in 0..5u8 {
            let to = Some(format!("172.{n}.0.0/16").parse().unwrap());
            let from = Rule {
                to,
                ..Rule::from(pod::FROM_POD_RULE, one.address, 2 + u32::from(n))
            };
            host.run_one(Request::AddRule(from)).unwrap();
        }
        assert!(pod::del(host, &gone(&[one]), &[]).is_empty());
        assert_eq!(host.rules(false).unwrap().len(), 3);
    });
}

#[test]
fn a_late_del_leaves_the_addresss_new_owner_alone() {
    on_new_host(|host| {
        let mine = interface(5, 2);
        let old = new_netns(); // Kept, so that its link does not go between the two looks below.
        pod::add(host, &old, std::slice::from_ref(&mine)).unwrap();
        // The address went to another pod since.
        let theirs = PodInterface {
            address: mine.address,
            ..interface(6, 3)
        };
        let pod = new_netns();
        pod::add(host, &pod, std::slice::from_ref(&theirs)).unwrap();
        let before = snapshot(host);
        assert!(pod::del(host, &gone(std::slice::from_ref(&mine)), &[&mine.host_name]).is_empty());
        assert_eq!(snapshot(host), before);
        assert!(pod::del(host, &gone(std::slice::from_ref(&theirs)), &[&theirs.host_name]).is_empty());
        assert_eq!(
            host.rules(false).unwrap().len(),
            3,
            "but the owner's own DEL works"
        );
    });
}

#[test]
fn check_passes_after_add_and_names_each_thing_that_is_missing() {
    on_new_host(|host| {
        let damages: [(bool, &str, &str); 9] = [
            (
                false,
                "ip rule del pref 512 to 10.0.1.5",
                "rule 512: from all to 10.0.1.5/32 table 254 on the host is missing",
            ),
            (
                false,
                "ip rule del pref 1536 from 10.0.1.5",
                "rule 1536: from 10.0.1.5/32 table 2 on the host is missing",
            ),
            (
                false,
                "ip rule add pref 1536 from 10.0.1.5 table 9",
                "rule 1536: from 10.0.1.5/32 table 9 on the host should not be there",
            ),
            (
                false,
                "ip route del 10.0.1.5",
                "route 10.0.1.5/32 dev eni00000000005 table 254 on the host is missing",
            ),
            (
                false,
                "ip link set eni00000000005 mtu 1500",
                "link eni00000000005 on the host: mtu is 1500, not 9001",
            ),
            (
                true,
                "ip route del default",
                "route default via 169.254.1.1 dev eth0 table 254 in the pod is missing",
            ),
            (
                true,
                "ip neighbour del 169.254.1.1 dev eth0",
                "neighbour 169.254.1.1 dev eth0 in the pod is missing",
            ),
            (
                true,
                "ip address flush dev eth0",
                "address 10.0.1.5/32 dev eth0 in the pod is missing",
            ),
            (
                true,
                "ip link set eth0 down",
                "interface eth0 in the pod: state is down, not up",
            ),
        ];
        for (in_pod, command, finding) in damages {
            let pod = new_netns();
            let both = two();
            pod::add(host, &pod, &both).unwrap();
            assert_eq!(pod::check(host, &pod, &both).unwrap(), []);
            if in_pod {
                sh_in(&pod, command);
            } else {
                sh(command);
            }
            let found: Vec<String> = pod::check(host, &pod, &both)
                .unwrap()
                .iter()
                .map(Finding::to_string)
                .collect();
            assert!(found.iter().any(|f| f == finding), "after `{command}`: {found:?}");
            let names: Vec<&str> = both.iter().map(|one| one.host_name.as_str()).collect();
            pod::del(host, &gone(&both), &names);
        }
    });
}

#[test]
fn check_of_a_pod_that_is_not_there_finds_everything_missing() {
    on_new_host(|host| {
        let found = pod::check(host, &new_netns(), &[interface(5, MAIN)]).unwrap();
        assert_eq!(found.len(), 3, "link, interface, rule: {found:?}");
    });
}

#[test]
fn a_list_that_changed_while_it_was_read_is_read_again_as_a_whole() {
    on_new_host(|host| {
        let rules = host.rules(false).unwrap();
        faults::interrupt_dumps(1);
        assert_eq!(
            host.rules(false).unwrap(),
            rules,
            "nothing missing, nothing twice"
        );
        faults::interrupt_dumps(5);
        let error = host.rules(false).unwrap_err();
        assert!(
            matches!(error, NetlinkError::Unsteady { tries: 5, .. }),
            "{error}"
        );
    });
}
