//! The SNAT table, judged by packets: a pod on each interface of a node, and a VPC that drops what comes by the wrong
//! interface. Needs root and `nft`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;
#[path = "common/node.rs"]
mod node;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use common::{DEADLINE, on_new_host, sh};
use node::{
    Connection, HOPELESS, IN_VPC, INTERNET, NODE, Node, PEER, POD_0, POD_1, config, node_port, seen_by,
};
use vpcnet_linux::earlier::Earlier;
use vpcnet_linux::netns::Netns;
use vpcnet_linux::nft::{Ensured, Randomize, SnatConfig, SnatTable};

#[test]
fn outside_sees_the_nodes_primary_address_and_the_vpc_the_pods_own() {
    on_new_host(|host| {
        let node = Node::new(host);
        assert_eq!(SnatTable::default().ensure(&config()).unwrap(), Ensured::Created);
        for (n, own) in [POD_0, POD_1].into_iter().enumerate() {
            assert_eq!(seen_by(&node, n, INTERNET), NODE);
            assert_eq!(seen_by(&node, n, PEER), NODE);
            assert_eq!(seen_by(&node, n, IN_VPC), own);
        }
        let home = Netns::current().unwrap();
        let to_node = Connection::open(&node.pods[1], None, &home, NODE, DEADLINE).unwrap();
        assert_eq!(to_node.seen(), POD_1);
        let pods = Connection::open(&node.pods[0], None, &node.pods[1], POD_1, DEADLINE).unwrap();
        assert_eq!(pods.seen(), POD_0);
    });
}

#[test]
fn without_the_table_a_pod_does_not_reach_the_internet_as_the_node() {
    on_new_host(|host| {
        // Proves that the tests above see what the table does.
        let node = Node::new(host);
        assert_eq!(seen_by(&node, 1, INTERNET), POD_1);
    });
}

#[test]
fn an_excluded_network_sees_the_pods_own_address() {
    on_new_host(|host| {
        let node = Node::new(host);
        // Overlapping the VPC's and each other's: an interval set would refuse them as they are.
        let exclude = ["172.31.0.0/16", "172.31.0.5/32", "10.0.128.0/17"].map(|net| net.parse().unwrap());
        SnatTable::default()
            .ensure(&SnatConfig {
                exclude: exclude.to_vec(),
                ..config()
            })
            .unwrap();
        assert_eq!(seen_by(&node, 1, PEER), POD_1);
        assert_eq!(seen_by(&node, 1, INTERNET), NODE);
    });
}

#[test]
fn a_reply_to_a_peer_that_called_the_pod_keeps_the_pods_address_and_way() {
    on_new_host(|host| {
        let node = Node::new(host);
        SnatTable::default().ensure(&config()).unwrap();
        for (n, own) in [POD_0, POD_1].into_iter().enumerate() {
            let mut call = Connection::open(&node.outside, Some(PEER), &node.pods[n], own, DEADLINE).unwrap();
            assert_eq!(call.seen(), PEER);
            call.still_talks();
        }
    });
}

#[test]
fn the_answer_of_a_node_port_leaves_by_the_interface_it_was_asked_by() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut table = SnatTable::default();
        table.ensure(&config()).unwrap();
        for (n, own) in [POD_0, POD_1].into_iter().enumerate() {
            let listener = node.pods[n]
                .within(|| TcpListener::bind(SocketAddr::new(own, 0)))
                .unwrap()
                .unwrap();
            node_port(listener.local_addr().unwrap());
            let target = SocketAddr::new(NODE, 30_080);
            let call = |limit| Connection::to(&node.outside, Some(INTERNET), &listener, target, limit);
            let mut answered = call(DEADLINE).unwrap();
            assert_eq!(answered.seen(), INTERNET);
            answered.still_talks();
            if own == POD_1 {
                // Without the support, the answer leaves by the pod's own interface and is dropped as spoofed.
                table
                    .ensure(&SnatConfig {
                        node_port: false,
                        ..config()
                    })
                    .unwrap();
                assert!(call(HOPELESS).is_err());
                answered.still_talks();
            }
            sh("nft delete table ip kubeproxy");
        }
    });
}

#[test]
fn it_is_a_services_backend_that_is_outside_or_not() {
    on_new_host(|host| {
        let node = Node::new(host);
        SnatTable::default().ensure(&config()).unwrap();
        sh("nft add table ip kubeproxy");
        sh("nft add chain ip kubeproxy services { type nat hook prerouting priority -100 ; }");
        // A service address outside the VPC with a backend inside, and the other way round.
        for (service, backend, seen) in [("10.96.0.7", IN_VPC, POD_1), ("10.0.250.7", INTERNET, NODE)] {
            let listen = || TcpListener::bind(SocketAddr::new(backend, 0));
            let listener = node.outside.within(listen).unwrap().unwrap();
            let to = listener.local_addr().unwrap();
            sh(&format!(
                "nft add rule ip kubeproxy services ip daddr {service} tcp dport 80 dnat to {to}"
            ));
            let service = SocketAddr::new(service.parse().unwrap(), 80);
            let mut call = Connection::to(&node.pods[1], None, &listener, service, DEADLINE).unwrap();
            assert_eq!(call.seen(), seen, "{service} with backend {backend}");
            call.still_talks();
        }
    });
}

#[test]
fn turning_snat_off_and_on_keeps_every_connection() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut table = SnatTable::default();
        let external = SnatConfig {
            external_snat: true,
            node_port: false,
            earlier: Earlier {
                translation: true,
                ..Earlier::default()
            },
            ..config()
        };
        table.ensure(&config()).unwrap();
        let open = || Connection::open(&node.pods[1], None, &node.outside, INTERNET, DEADLINE).unwrap();
        let mut translated = open();
        translated.still_talks();
        assert_eq!(table.ensure(&external).unwrap(), Ensured::Replaced);
        translated.still_talks();
        let mut plain = open();
        assert_eq!((translated.seen(), plain.seen()), (NODE, POD_1));
        plain.still_talks();
        assert!(table.has_translation().unwrap());
        assert_eq!(table.ensure(&config()).unwrap(), Ensured::Replaced);
        translated.still_talks();
        plain.still_talks();
        assert_eq!(open().seen(), NODE);
    });
}

#[test]
fn marks_of_others_live_on() {
    on_new_host(|host| {
        let node = Node::new(host);
        SnatTable::default().ensure(&config()).unwrap();
        // As kube-proxy and Calico set theirs, in packet and connection.
        sh("nft add table ip others");
        sh("nft add chain ip others before { type filter hook prerouting priority -160 ; }");
        sh(
            "nft add rule ip others before iifname eni* meta mark set meta mark or 0x4000 ct mark set ct mark or 0x10000",
        );
        sh("nft add chain ip others after { type filter hook forward priority 0 ; }");
        sh(
            "nft add rule ip others after iifname eni* meta mark and 0x4080 == 0x4080 ct mark and 0x10080 == 0x10080 accept",
        );
        sh("nft add rule ip others after iifname eni* drop");
        assert_eq!(seen_by(&node, 1, INTERNET), NODE);
    });
}

#[test]
fn kube_proxys_translation_comes_first() {
    on_new_host(|host| {
        let node = Node::new(host);
        SnatTable::default().ensure(&config()).unwrap();
        sh("ip address add 10.0.0.11/20 dev eth0");
        sh("nft add table ip kubeproxy");
        sh("nft add chain ip kubeproxy after { type nat hook postrouting priority 100 ; }");
        sh(&format!(
            "nft add rule ip kubeproxy after ip daddr {PEER} snat to 10.0.0.11"
        ));
        assert_eq!(seen_by(&node, 1, PEER), IpAddr::from([10, 0, 0, 11]));
        assert_eq!(seen_by(&node, 1, INTERNET), NODE);
    });
}

#[test]
fn a_table_that_is_as_wanted_is_not_written_in_any_mode() {
    on_new_host(|host| {
        let node = Node::new(host);
        let before: Vec<SnatConfig> = [Randomize::Prng, Randomize::Hashrandom, Randomize::None]
            .into_iter()
            .flat_map(|randomize| {
                [true, false].map(|external_snat| SnatConfig {
                    randomize,
                    external_snat,
                    ..config()
                })
            })
            .collect();
        for config in before {
            SnatTable::default().ensure(&config).unwrap();
            // Another value of the type, as after a restart of the agent: it knows only what the kernel shows.
            assert_eq!(
                SnatTable::default().ensure(&config).unwrap(),
                Ensured::Unchanged,
                "{config:?}"
            );
            let seen = if config.external_snat { POD_1 } else { NODE };
            assert_eq!(seen_by(&node, 1, INTERNET), seen, "{config:?}");
        }
    });
}

#[test]
fn each_setting_is_seen_in_the_table() {
    on_new_host(|_| {
        let others = [
            SnatConfig {
                primary_ip: Ipv4Addr::new(10, 0, 0, 11),
                ..config()
            },
            SnatConfig {
                primary_link: "ens5".into(),
                ..config()
            },
            SnatConfig {
                vpc_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
                ..config()
            },
            SnatConfig {
                exclude: vec!["192.0.2.7/32".parse().unwrap()],
                ..config()
            },
            SnatConfig {
                external_snat: true,
                ..config()
            },
            SnatConfig {
                randomize: Randomize::None,
                ..config()
            },
            SnatConfig {
                randomize: Randomize::Hashrandom,
                ..config()
            },
            SnatConfig {
                node_port: false,
                ..config()
            },
            SnatConfig {
                mark: 0x8000_0000,
                ..config()
            },
            SnatConfig {
                veth_prefix: "cali".into(),
                ..config()
            },
        ];
        for other in others {
            let mut table = SnatTable::default();
            table.ensure(&config()).unwrap();
            assert_eq!(table.ensure(&other).unwrap(), Ensured::Replaced, "{other:?}");
            // Also where `nft` shows a rule in other words than it was told: the highest bit alone as a prefix.
            assert_eq!(table.ensure(&other).unwrap(), Ensured::Unchanged, "{other:?}");
        }
    });
}

#[test]
fn what_somebody_else_does_to_the_table_is_put_right() {
    on_new_host(|_| {
        let mut table = SnatTable::default();
        table.ensure(&config()).unwrap();
        for damage in [
            "nft flush chain ip vpcnet source_nat",
            "nft add rule ip vpcnet set_mark drop",
            "nft insert rule ip vpcnet source_nat accept",
            "nft delete element ip vpcnet exempt { 10.0.0.0/16 }",
            "nft add element ip vpcnet exempt { 8.8.8.0/24 }",
            "nft add chain ip vpcnet extra",
        ] {
            sh(damage);
            assert_eq!(
                table.ensure(&config()).unwrap(),
                Ensured::Replaced,
                "after `{damage}`"
            );
            assert_eq!(
                table.ensure(&config()).unwrap(),
                Ensured::Unchanged,
                "after `{damage}`"
            );
        }
        sh("nft flush ruleset");
        assert_eq!(table.ensure(&config()).unwrap(), Ensured::Created);
        table.remove().unwrap();
        assert_eq!(table.observe().unwrap(), None);
        table.remove().unwrap();
    });
}

#[test]
fn a_refused_configuration_leaves_the_table_as_it_was() {
    on_new_host(|_| {
        let mut table = SnatTable::default();
        table.ensure(&config()).unwrap();
        let before = table.observe().unwrap();
        assert!(
            table
                .ensure(&SnatConfig {
                    vpc_cidrs: vec![],
                    ..config()
                })
                .is_err()
        );
        assert_eq!(table.observe().unwrap(), before);
    });
}
