//! Settings that change on a running node, judged by packets: what holds for new connections, what connections of before still need,
//! and what is left when they have ended. Needs root and `nft`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;
#[path = "common/node.rs"]
mod node;

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use common::{DEADLINE, on_new_host, sh, wait_for};
use node::{Connection, HOPELESS, INTERNET, NODE, Node, PEER, POD_0, POD_1, config, node_port, seen_by};
use vpcnet_linux::conntrack::{Conntrack, Filter};
use vpcnet_linux::earlier::{self, Earlier, Needs, Present};
use vpcnet_linux::netlink::Socket;
use vpcnet_linux::nft::{Randomize, SnatConfig, SnatTable};
use vpcnet_linux::observe;

fn marks(marks: &[u32]) -> BTreeSet<u32> {
    marks.iter().copied().collect()
}

fn present(mark: Option<u32>) -> Present {
    Present {
        mark,
        node: Some([10, 0, 0, 10].into()),
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
    }
}

fn open(node: &Node) -> Connection {
    Connection::open(&node.pods[1], None, &node.outside, INTERNET, DEADLINE).unwrap()
}

/// Waits until this is what is needed.
fn wait_until_needed(earlier: &Earlier, present: &Present, wanted: &Needs) {
    wait_for("the connections that live", || {
        let needs = earlier::look(earlier, present).unwrap();
        (needs == *wanted).then_some(())
    });
}

#[test]
fn connections_of_an_earlier_mark_go_on_while_it_is_kept_and_are_counted() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut table = SnatTable::default();
        table.ensure(&config()).unwrap();
        let mut old = open(&node);
        old.still_talks();
        let earlier = Earlier {
            marks: marks(&[0x80]),
            ..Earlier::default()
        };
        let new = SnatConfig {
            mark: 0x100,
            earlier: earlier.clone(),
            ..config()
        };
        node.lead(host, &[0x80, 0x100], &[]);
        assert_eq!(
            vpcnet_linux::host::marks(&host.rules(false).unwrap()),
            marks(&[0x80, 0x100])
        );
        table.ensure(&new).unwrap();
        old.still_talks();
        let mut young = open(&node);
        young.still_talks();
        assert_eq!((old.seen(), young.seen()), (NODE, NODE));
        let present = present(Some(0x100));
        let needs = |n| Needs {
            marks: [(0x80, n)].into(),
            ..Needs::default()
        };
        wait_until_needed(&earlier, &present, &needs(1));
        let marked = |mark| {
            let mut conntrack = Conntrack::open().unwrap();
            conntrack.count(Filter::Marked(mark), |_| true).unwrap()
        };
        assert_eq!((marked(0x80), marked(0x100), marked(0x180)), (1, 1, 0));
        drop(old);
        wait_until_needed(&earlier, &present, &needs(0));
        assert!(earlier::look(&earlier, &present).unwrap().still().is_nothing());
        node.lead(host, &[0x100], &[]);
        table
            .ensure(&SnatConfig {
                earlier: Earlier::default(),
                ..new
            })
            .unwrap();
        young.still_talks();
        assert!(!sh("nft list table ip vpcnet").contains("0x00000080"));
    });
}

#[test]
fn without_what_is_kept_a_connection_of_an_earlier_mark_would_break() {
    on_new_host(|host| {
        // Proves that the test above sees what keeping does.
        let node = Node::new(host);
        let mut table = SnatTable::default();
        table.ensure(&config()).unwrap();
        let mut old = open(&node);
        old.still_talks();
        node.lead(host, &[0x100], &[]);
        table
            .ensure(&SnatConfig {
                mark: 0x100,
                ..config()
            })
            .unwrap();
        assert!(!old.talks_within(HOPELESS));
    });
}

#[test]
fn turning_snat_off_keeps_translation_and_mark_until_the_last_connection_has_ended() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut table = SnatTable::default();
        table.ensure(&config()).unwrap();
        let mut translated = open(&node);
        translated.still_talks();
        assert!(table.has_translation().unwrap());
        let earlier = Earlier {
            marks: marks(&[0x80]),
            translation: true,
            ..Earlier::default()
        };
        let external = |earlier| SnatConfig {
            external_snat: true,
            node_port: false,
            earlier,
            ..config()
        };
        table.ensure(&external(earlier.clone())).unwrap();
        translated.still_talks();
        let mut plain = open(&node);
        plain.still_talks();
        assert_eq!(plain.seen(), POD_1);
        // Another value of the type, as after a restart: the kernel still shows it.
        assert!(SnatTable::default().has_translation().unwrap());
        let needs = |n| Needs {
            marks: [(0x80, n)].into(),
            translation: n,
            ..Needs::default()
        };
        wait_until_needed(&earlier, &present(None), &needs(1));
        drop(translated);
        wait_until_needed(&earlier, &present(None), &needs(0));
        table.ensure(&external(Earlier::default())).unwrap();
        node.lead(host, &[], &[]);
        assert!(!table.has_translation().unwrap());
        plain.still_talks();
        // And on again: a connection of the time without SNAT is not translated in its middle.
        node.lead(host, &[0x80], &[]);
        table.ensure(&config()).unwrap();
        plain.still_talks();
        assert_eq!(seen_by(&node, 1, INTERNET), NODE);
    });
}

#[test]
fn a_flow_that_nobody_answers_keeps_its_address_when_snat_is_turned_on() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut table = SnatTable::default();
        table
            .ensure(&SnatConfig {
                external_snat: true,
                ..config()
            })
            .unwrap();
        let server = node
            .outside
            .within(|| UdpSocket::bind(SocketAddr::new(INTERNET, 514)))
            .unwrap()
            .unwrap();
        server.set_read_timeout(Some(DEADLINE)).unwrap();
        let client = node.pods[1]
            .within(|| UdpSocket::bind(SocketAddr::new(POD_1, 0)))
            .unwrap()
            .unwrap();
        let mut heard = [0; 4];
        for turn in ["off", "on"] {
            client.send_to(b"line", SocketAddr::new(INTERNET, 514)).unwrap();
            let (_, from) = server.recv_from(&mut heard).expect(turn);
            assert_eq!(from.ip(), POD_1, "{turn}");
            table.ensure(&config()).unwrap();
        }
    });
}

#[test]
fn turning_node_ports_off_breaks_none_that_is_open_and_they_are_counted() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut table = SnatTable::default();
        let external = SnatConfig {
            external_snat: true,
            ..config()
        };
        table.ensure(&external).unwrap();
        let listener = node.listen(1);
        node_port(listener.local_addr().unwrap());
        let target = SocketAddr::new(NODE, 30_080);
        let mut call = Connection::to(&node.outside, Some(INTERNET), &listener, target, DEADLINE).unwrap();
        call.still_talks();
        table
            .ensure(&SnatConfig {
                node_port: false,
                ..external
            })
            .unwrap();
        call.still_talks();
        let earlier = Earlier {
            marks: marks(&[0x80]),
            ..Earlier::default()
        };
        assert_eq!(earlier::look(&earlier, &present(None)).unwrap().still(), earlier);
        drop(call);
        wait_for("it has ended", || {
            let needs = earlier::look(&earlier, &present(None)).unwrap();
            needs.still().is_nothing().then_some(())
        });
    });
}

#[test]
fn pods_of_an_earlier_prefix_are_served_as_the_present_setting_says_while_they_are_there() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut table = SnatTable::default();
        table.ensure(&config()).unwrap();
        let mut old = open(&node);
        old.still_talks();
        let found = observe::prefixes(host).unwrap();
        assert_eq!(found, [("eni".to_owned(), 2)].into());
        let earlier = Earlier {
            prefixes: ["eni".to_owned()].into(),
            ..Earlier::default()
        };
        let other = SnatConfig {
            veth_prefix: "abc".into(),
            earlier: earlier.clone(),
            ..config()
        };
        table.ensure(&other).unwrap();
        old.still_talks();
        assert_eq!(seen_by(&node, 1, INTERNET), NODE);
        let present = present(Some(0x80));
        let needs = earlier::look(&earlier, &present).unwrap();
        assert_eq!(needs.prefixes, found);
        drop((old, node));
        wait_for("the pods' links have gone with them", || {
            let needs = earlier::look(&earlier, &present).unwrap();
            needs.still().is_nothing().then_some(())
        });
    });
}

#[test]
fn services_outside_are_reached_by_the_primary_interface_while_the_setting_says_so() {
    on_new_host(|host| {
        let node = Node::new(host);
        // Excluded from SNAT, so that nothing but the rule tells their way.
        let excluded = SnatConfig {
            exclude: vec!["172.31.0.0/16".parse().unwrap()],
            ..config()
        };
        SnatTable::default().ensure(&excluded).unwrap();
        sh("nft add table ip spy");
        sh("nft add chain ip spy out { type filter hook postrouting priority 300 ; }");
        sh(&format!(
            "nft add rule ip spy out ip daddr {PEER} oifname eth0 counter"
        ));
        let by_primary = || !sh("nft list table ip spy").contains("packets 0");
        let call = || {
            let tried = Connection::open(&node.pods[1], None, &node.outside, PEER, HOPELESS);
            (tried.is_ok(), by_primary())
        };
        assert_eq!(call(), (true, false), "by its own interface");
        node.lead(host, &[0x80], &["172.31.0.0/16"]);
        assert!(sh("ip rule").contains("1535:\tfrom all to 172.31.0.0/16 lookup main"));
        assert_eq!(
            call(),
            (false, true),
            "by the primary, where its address is not known"
        );
        node.lead(host, &[0x80], &[]);
        assert!(!sh("ip rule").contains("1535:"));
        assert!(call().0, "by its own interface again");
    });
}

/// Source ports that outside sees of connections a pod opens from these ports.
fn ports_seen(node: &Node, from: std::ops::Range<u16>) -> Vec<(u16, u16)> {
    let listener = node.listen_outside(INTERNET);
    let target = listener.local_addr().unwrap();
    let seen = from.map(|port| {
        let from = SocketAddr::new(POD_0, port);
        let connection = Connection::from_to(&node.pods[0], Some(from), &listener, target, DEADLINE).unwrap();
        (port, connection.server.peer_addr().unwrap().port())
    });
    seen.collect()
}

#[test]
fn the_three_ways_to_choose_a_port_are_told_apart_by_the_ports_seen_outside() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut table = SnatTable::default();
        let first_port = |randomize| match randomize {
            Randomize::Prng => 41_000,
            Randomize::Hashrandom => 42_000,
            Randomize::None => 43_000,
        };
        for randomize in [Randomize::Prng, Randomize::Hashrandom, Randomize::None] {
            table
                .ensure(&SnatConfig {
                    randomize,
                    ..config()
                })
                .unwrap();
            let shown = sh("nft list chain ip vpcnet source_nat");
            let first = first_port(randomize);
            let seen = ports_seen(&node, first..first + 8);
            let same = seen.iter().filter(|(own, outside)| own == outside).count();
            match randomize {
                // One in 64,512 by chance.
                Randomize::Prng => assert!(same <= 1 && shown.contains("fully-random"), "{seen:?} {shown}"),
                Randomize::Hashrandom => assert!(
                    same <= 1 && shown.contains("random") && !shown.contains("fully"),
                    "{seen:?} {shown}"
                ),
                Randomize::None => assert!(same == 8 && !shown.contains("random"), "{seen:?} {shown}"),
            }
        }
    });
}

#[test]
fn the_node_itself_keeps_its_ports_whatever_is_chosen_for_pods() {
    on_new_host(|host| {
        let node = Node::new(host);
        SnatTable::default().ensure(&config()).unwrap();
        let listener = node.listen_outside(INTERNET);
        let home = vpcnet_linux::netns::Netns::current().unwrap();
        let from = SocketAddr::new(NODE, 44_000);
        let target = listener.local_addr().unwrap();
        let own = Connection::from_to(&home, Some(from), &listener, target, DEADLINE).unwrap();
        assert_eq!(own.server.peer_addr().unwrap(), from);
        let _: &mut Socket = host;
    });
}
