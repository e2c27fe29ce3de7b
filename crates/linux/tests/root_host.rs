//! The node's links, routes and rules; what the kernel shows of pods; watching. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;

use std::net::IpAddr;

use common::{interface, new_netns, on_new_host, sh, snapshot, wait_for};
use vpcnet_linux::Mac;
use vpcnet_linux::host::{self, HostWanted, OwnRule, Primary, Secondary};
use vpcnet_linux::netlink::{MAIN, Request, Rule, Socket};
use vpcnet_linux::observe::{self, FromRule, HostRoute};
use vpcnet_linux::pod::{self, Gone, PodInterface};
use vpcnet_linux::sysctl::Tree;
use vpcnet_linux::watch::{Event, Group, LinkEvent, Watch};

const ETH0: Mac = Mac([2, 0, 0, 0, 0, 0x10]);
const ETH1: Mac = Mac([2, 0, 0, 0, 0, 0x11]);

fn node() {
    sh("ip link add eth0 address 02:00:00:00:00:10 type veth peer name vpc0");
    sh("ip address add 10.0.0.10/20 dev eth0");
    sh("ip link set vpc0 up");
    sh("ip link set eth0 up");
    sh("ip route add default via 10.0.0.1 dev eth0");
}

fn attach() {
    sh("ip link add eth1 address 02:00:00:00:00:11 mtu 1500 type veth peer name vpc1");
    sh("ip link set vpc1 up");
}

fn wanted() -> HostWanted {
    let secondary = Secondary {
        mac: ETH1,
        mtu: 9001,
        address: "10.0.16.20/20".parse().unwrap(),
        gateway: "10.0.16.1".parse().unwrap(),
        table: 2,
        own_rule: OwnRule::Ours,
    };
    HostWanted {
        primary: Primary { mac: ETH0, mtu: 9001 },
        secondaries: vec![secondary],
        ipv6: false,
        marks: [0x80].into(),
        services: vec![],
        gone: vec![],
    }
}

fn bring_about(host: &mut Socket, wanted: &HostWanted) -> host::Plan {
    let tree = Tree::default();
    let plan = host::diff(&host::observe(host, &tree, wanted).unwrap(), wanted);
    let errors = host::apply(host, &tree, &plan.changes);
    assert!(errors.is_empty(), "{errors:?}");
    let again = host::diff(&host::observe(host, &tree, wanted).unwrap(), wanted);
    assert!(again.changes.is_empty(), "not settled: {again:?}");
    plan
}

fn lines(command: &str) -> Vec<String> {
    sh(command).lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_bare_node_gets_what_its_interfaces_need() {
    on_new_host(|host| {
        node();
        attach();
        let plan = bring_about(host, &wanted());
        assert!(plan.missing.is_empty());
        assert_eq!(
            lines("ip route show table 2"),
            ["default via 10.0.16.1 dev eth1", "10.0.16.1 dev eth1 scope link"]
        );
        assert_eq!(
            lines("ip route show table main"),
            [
                "default via 10.0.0.1 dev eth0",
                "10.0.0.0/20 dev eth0 proto kernel scope link src 10.0.0.10"
            ],
            "the secondary's subnet is not reached by the main table"
        );
        let rules = sh("ip rule show");
        assert!(
            rules.contains("1024:\tfrom all fwmark 0x80/0x80 lookup main\n"),
            "{rules}"
        );
        assert!(rules.contains("32765:\tfrom 10.0.16.20 lookup 2\n"), "{rules}");
        assert_eq!(rules.lines().count(), 5, "{rules}");
        let tree = Tree::default();
        assert_eq!(tree.read("net/ipv4/ip_forward").unwrap(), "1");
        assert_eq!(tree.read("net/ipv4/conf/eth0/rp_filter").unwrap(), "2");
        assert!(sh("ip link show eth1").contains("mtu 9001"));
        // Down and up again, the subnet's route does not come back.
        sh("ip link set eth1 down");
        bring_about(host, &wanted());
        assert_eq!(lines("ip route show table main").len(), 2);
    });
}

#[test]
fn what_others_set_up_wrongly_is_put_right() {
    on_new_host(|host| {
        node();
        attach();
        // As a DHCP client might, and an earlier life of the interface did.
        sh("ip link set eth1 up");
        sh("ip address add 10.0.16.99/20 dev eth1");
        sh("ip address add 10.0.16.20/20 dev eth1");
        sh("ip route add default via 10.0.16.7 dev eth1 table 2");
        sh("ip rule add pref 32765 from 10.0.16.20 table 9");
        sh("ip rule add pref 1024 fwmark 0x100/0x100 table main");
        bring_about(host, &wanted());
        assert!(!sh("ip address show eth1").contains("10.0.16.99"));
        assert_eq!(lines("ip route show table main").len(), 2);
        assert_eq!(lines("ip rule show").len(), 5);
    });
}

#[test]
fn a_node_that_is_as_wanted_is_not_written_to() {
    on_new_host(|host| {
        node();
        attach();
        bring_about(host, &wanted());
        let before = snapshot(host);
        assert!(bring_about(host, &wanted()).changes.is_empty());
        assert_eq!(snapshot(host), before);
    });
}

#[test]
fn a_detached_interface_leaves_nothing() {
    on_new_host(|host| {
        node();
        let primary_only = HostWanted {
            secondaries: vec![],
            ..wanted()
        };
        bring_about(host, &primary_only);
        let before = snapshot(host);
        attach();
        bring_about(host, &wanted());
        sh("ip link delete eth1");
        let gone = HostWanted {
            gone: vec!["10.0.16.20".parse().unwrap()],
            ..primary_only
        };
        bring_about(host, &gone);
        assert_eq!(snapshot(host), before);
    });
}

#[test]
fn an_interface_that_is_not_there_yet_is_set_up_when_its_link_comes() {
    on_new_host(|host| {
        node();
        let mut watch = Watch::open(&[Group::Link]).unwrap();
        assert_eq!(bring_about(host, &wanted()).missing, [ETH1]);
        attach();
        let event = wait_for("the link's event", || {
            match watch.next_event().unwrap().map(|n| n.event) {
                Some(Event::Link(event)) if event.mac == Some(ETH1) => Some(event),
                _ => None,
            }
        });
        assert!(
            matches!(event, LinkEvent { ref name, gone: false, .. } if name == "eth1"),
            "{event:?}"
        );
        assert!(bring_about(host, &wanted()).missing.is_empty());
    });
}

#[test]
fn watching_tells_of_links_addresses_routes_and_rules() {
    on_new_host(|host| {
        node();
        let groups = [Group::Link, Group::Address4, Group::Route4, Group::Rule4];
        let mut watch = Watch::open(&groups).unwrap();
        assert_eq!(watch.next_event().unwrap(), None, "what was before is not told");
        attach();
        bring_about(host, &wanted());
        let rule = Rule::from(32_765, "10.0.16.20".parse().unwrap(), 2);
        host.run_one(Request::DeleteRule(rule.clone())).unwrap();
        sh("ip link delete eth1");
        let mut seen = Vec::new();
        wait_for("eth1 to be told gone", || {
            let event = watch.next_event().unwrap()?.event;
            let last = matches!(&event, Event::Link(l) if l.gone && l.name == "eth1");
            seen.push(event);
            last.then_some(())
        });
        let has = |what: &dyn Fn(&Event) -> bool| assert!(seen.iter().any(what), "{seen:?}");
        has(&|e| matches!(e, Event::Link(l) if l.mac == Some(ETH1) && l.up && l.mtu == 9001));
        has(
            &|e| matches!(e, Event::Address { address, gone: false } if address.net == "10.0.16.20/20".parse().unwrap()),
        );
        has(
            &|e| matches!(e, Event::Route { route, gone: false } if route.table == 2 && route.gateway.is_some()),
        );
        has(&|e| {
            *e == Event::Rule {
                rule: rule.clone(),
                gone: false,
            }
        });
        has(&|e| {
            *e == Event::Rule {
                rule: rule.clone(),
                gone: true,
            }
        });
    });
}

#[test]
fn a_watcher_that_sleeps_too_long_is_told_so() {
    on_new_host(|host| {
        let mut watch = Watch::open(&[Group::Rule4]).unwrap();
        let rules = |n: u16| Rule::from(99, IpAddr::from([10, 9, (n >> 8) as u8, n as u8]), 7);
        let requests: Vec<Request> = (0..4000).map(|n| Request::AddRule(rules(n))).collect();
        assert!(host.run(&requests).unwrap().iter().all(Result::is_ok));
        let mut overrun = false;
        while let Some(notice) = watch.next_event().unwrap() {
            overrun |= notice.event == Event::Overrun;
        }
        assert!(overrun, "4000 unread events fit in no default buffer");
    });
}

#[test]
fn the_kernel_shows_which_pods_there_are() {
    on_new_host(|host| {
        node();
        let pods = [new_netns(), new_netns()];
        let second = PodInterface {
            address: "2001:db8::6".parse().unwrap(),
            ..interface(6, MAIN)
        };
        pod::add(host, &pods[0], &[interface(5, 3)]).unwrap();
        pod::add(host, &pods[1], std::slice::from_ref(&second)).unwrap();
        // A pod that is gone, with a rule that nobody took away.
        let left = IpAddr::from([10, 0, 1, 99]);
        host.run_one(Request::AddRule(Rule::from(pod::FROM_POD_RULE, left, 4)))
            .unwrap();
        let seen = observe::pods(host, &["eni", "vlan"]).unwrap();
        assert_eq!(
            seen.routes,
            [
                HostRoute {
                    address: "10.0.1.5".parse().unwrap(),
                    host_veth: "eni00000000005".into()
                },
                HostRoute {
                    address: second.address,
                    host_veth: "eni00000000006".into()
                },
            ]
        );
        assert_eq!(
            seen.from_rules,
            [
                FromRule {
                    address: "10.0.1.5".parse().unwrap(),
                    table: 3
                },
                FromRule {
                    address: left,
                    table: 4
                }
            ]
        );
        assert_eq!(
            seen.to_rules,
            ["10.0.1.5".parse::<IpAddr>().unwrap(), second.address]
        );
        assert_eq!(seen.veths, ["eni00000000005", "eni00000000006"]);
        // Of both families.
        assert_eq!(observe::prefixes(host).unwrap(), [("eni".to_owned(), 2)].into());
        pod::del(
            host,
            &[Gone {
                address: "10.0.1.5".parse().unwrap(),
                table: 3,
            }],
            &["eni00000000005"],
        );
        assert_eq!(observe::pods(host, &["eni"]).unwrap().routes.len(), 1);
    });
}
