//! What amazon-vpc-cni-k8s leaves in the packet filter, as its releases write it: found and taken away in both back ends of
//! iptables, with what is of others left alone. Needs root, `nft` and both programs of iptables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;
#[path = "common/node.rs"]
mod node;
#[path = "common/original.rs"]
mod original;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use common::{DEADLINE, on_new_host, sh, wait_for};
use node::{Connection, HOPELESS, INTERNET, NODE, Node, PEER, POD_1, config, node_port, seen_by};
use original::{Iptables, MARK, NATIVE_MARK, OLD, OTHERS, PRESENT, shell};
use vpcnet_linux::handback::{self, Lacking, Wants};
use vpcnet_linux::netlink::Rule;
use vpcnet_linux::netns::Netns;
use vpcnet_linux::nft::{SnatConfig, SnatTable};
use vpcnet_linux::original::{self as theirs, Backend, Found, InForce, Programs};

/// A client outside, by a port of the node, to the pod on the secondary interface.
fn by_node_port(node: &Node) -> Connection {
    let listener = node.listen(1);
    node_port(listener.local_addr().unwrap());
    let target = SocketAddr::new(NODE, 30080);
    Connection::to(&node.outside, Some(INTERNET), &listener, target, DEADLINE).unwrap()
}

const BOTH: [Iptables; 2] = [Iptables::Nft, Iptables::Legacy];

fn look() -> Found {
    let found = Found::look(&Programs::default()).unwrap();
    assert!(found.unread().is_none(), "{:?}", found.unread());
    found
}

fn remove() -> Vec<theirs::Removed> {
    let (removed, outcome) = theirs::remove(&Programs::default());
    outcome.unwrap();
    removed
}

fn whole() -> InForce {
    InForce {
        begun: true,
        translates: true,
        marks_outgoing: true,
        marks_incoming: true,
        restores: [0x80].into(),
    }
}

fn begin(iptables: Iptables) {
    iptables.run(PRESENT);
    match iptables {
        Iptables::Nft => drop(shell(NATIVE_MARK)),
        Iptables::Legacy => iptables.run(MARK),
    }
}

#[test]
fn on_a_node_without_anything_nothing_is_found_and_no_table_is_made() {
    on_new_host(|_| {
        assert!(look().is_nothing());
        assert_eq!(remove(), []);
        assert_eq!(sh("nft list ruleset"), "");
        let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        assert_eq!(names, "", "looking makes no older table");
    });
}

#[test]
fn chains_and_rules_of_every_release_go_and_those_of_others_stay() {
    for iptables in BOTH {
        for theirs in [PRESENT, MARK, OLD] {
            on_new_host(move |_| {
                iptables.run(OTHERS);
                let before = iptables.shown();
                iptables.run(theirs);
                assert!(!look().is_nothing());
                let removed = remove();
                let backend = match iptables {
                    Iptables::Nft => Backend::Nftables,
                    Iptables::Legacy => Backend::Legacy,
                };
                assert_eq!(removed.len(), 1, "{removed:?}");
                assert_eq!(removed[0].backend, backend);
                assert_eq!(iptables.shown(), before, "{iptables:?} after {theirs}");
                assert!(look().is_nothing());
                assert_eq!(remove(), [], "a second time there is nothing to do");
            });
        }
    }
}

#[test]
fn a_rule_of_somebody_that_leads_to_a_chain_of_theirs_does_not_keep_it() {
    for iptables in BOTH {
        on_new_host(move |_| {
            iptables.run(PRESENT);
            iptables.run("-t nat -N MINE\n-t nat -A MINE -s 10.9.0.0/16 -j AWS-SNAT-CHAIN-0");
            remove();
            assert_eq!(iptables.shown(), ["-N MINE"]);
        });
    }
}

#[test]
fn the_rule_for_addresses_of_egress_goes_in_each_family_and_back_end_and_nothing_beside_it() {
    for (program, v6, backend) in [
        ("iptables-nft", false, Backend::Nftables),
        ("ip6tables-nft", true, Backend::Nftables),
        ("iptables-legacy", false, Backend::Legacy),
        ("ip6tables-legacy", true, Backend::Legacy),
    ] {
        on_new_host(move |_| {
            let range = theirs::egress_range(v6);
            let version = if v6 { "IPv6" } else { "IPv4" };
            let reject = |comment: &str| {
                format!(
                    "{program} --wait -t filter -I FORWARD 1 -d {range} -m conntrack --ctstate NEW -m comment --comment \"{comment}\" -j REJECT"
                )
            };
            let shown = || shell(&format!("{program} -t filter -S"));
            shell(&reject("mine"));
            let others = shown();
            shell(&reject(&format!("Block Node Local Pod access via {version}")));
            let (removed, outcome) = theirs::remove_reject(&Programs::default(), !v6);
            outcome.unwrap();
            assert_eq!(removed, [], "of the other family");
            let (removed, outcome) = theirs::remove_reject(&Programs::default(), v6);
            outcome.unwrap();
            let [removed] = &removed[..] else {
                panic!("{removed:?}")
            };
            assert_eq!((removed.backend, removed.rules), (backend, 1));
            assert_eq!(shown(), others);
            let (removed, _) = theirs::remove_reject(&Programs::default(), v6);
            assert_eq!(removed, [], "a second time");
        });
    }
}

#[test]
fn the_table_of_the_releases_that_mark_by_nftables_goes_as_a_whole() {
    on_new_host(|_| {
        shell("nft add table ip mine");
        shell(NATIVE_MARK);
        let found = look().in_force();
        assert!(found.marks_outgoing && !found.begun, "{found:?}");
        let removed = remove();
        assert_eq!(removed[0].tables, ["ip aws-cni"]);
        assert_eq!(shell("nft list tables"), "table ip mine\n");
    });
}

#[test]
fn both_back_ends_are_cleaned_where_both_were_used() {
    on_new_host(|_| {
        Iptables::Legacy.run(OLD);
        begin(Iptables::Nft);
        assert_eq!(remove().len(), 2);
        for iptables in BOTH {
            assert_eq!(iptables.shown(), Vec::<String>::new());
        }
    });
}

#[test]
fn what_is_in_force_is_told_step_by_step_as_the_original_sets_it_up() {
    for iptables in BOTH {
        on_new_host(move |_| {
            assert_eq!(look().in_force(), InForce::default());
            let mut steps = Vec::new();
            for line in PRESENT.trim().lines() {
                iptables.run(line);
                steps.push(look().in_force());
            }
            let first = |is: fn(&InForce) -> bool| steps.iter().position(is);
            assert_eq!(first(|f| f.begun), Some(0));
            assert_eq!(first(|f| f.translates), Some(3));
            assert_eq!(first(|f| f.marks_incoming), Some(4));
            assert_eq!(first(|f| !f.restores.is_empty()), Some(5));
            assert_eq!(first(|f| f.marks_outgoing), None);
            if iptables == Iptables::Legacy {
                for line in MARK.trim().lines() {
                    assert!(!look().in_force().marks_outgoing);
                    iptables.run(line);
                }
            } else {
                shell(NATIVE_MARK);
            }
            assert_eq!(look().in_force(), whole());
        });
    }
}

/// Connections of a pod to the internet, one after the other, each of which has to be translated: there is no moment in which
/// none is.
struct Others {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Others {
    fn begin(node: &Node) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let [outside, pod] = [&node.outside, &node.pods[1]]
            .map(|netns| Netns::open(format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd())).unwrap());
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !told.load(Ordering::Relaxed) || count <= 20 {
                let one = Connection::open(&pod, None, &outside, INTERNET, DEADLINE).unwrap();
                assert_eq!(one.seen(), NODE, "connection {count}");
                count += 1;
            }
            count
        });
        Self { stop, thread }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_node_goes_over_and_back_under_connections_that_never_break() {
    for iptables in BOTH {
        on_new_host(move |host| {
            let node = Node::new(host);
            begin(iptables);
            // The original's time.
            let open = |node: &Node| {
                Connection::open(&node.pods[1], None, &node.outside, INTERNET, DEADLINE).unwrap()
            };
            let mut connections = vec![open(&node)];
            connections.push(by_node_port(&node));
            assert_eq!(connections[0].seen(), NODE);
            let others = Others::begin(&node);
            // Over.
            let mut table = SnatTable::default();
            table.ensure(&config()).unwrap();
            connections.push(open(&node));
            remove();
            connections.push(open(&node));
            assert_eq!(seen_by(&node, 1, INTERNET), NODE);
            connections.iter_mut().for_each(Connection::still_talks);
            // Back.
            let wait = handback::look(&Programs::default(), Wants::default()).unwrap();
            assert_eq!(wait.lacking.len(), 5, "{:?}", wait.lacking);
            begin(iptables);
            let ready = handback::look(&Programs::default(), Wants::default()).unwrap();
            assert_eq!(ready.lacking, []);
            assert!(!ready.is_done());
            assert_eq!(handback::remove(&ready).unwrap(), ["table ip vpcnet"]);
            connections.push(open(&node));
            assert_eq!(seen_by(&node, 1, INTERNET), NODE);
            connections.iter_mut().for_each(Connection::still_talks);
            assert!(others.end() > 20);
            assert!(!shell("nft list tables").contains("vpcnet"));
            let done = handback::look(&Programs::default(), Wants::default()).unwrap();
            assert!(done.is_done());
        });
    }
}

#[test]
fn a_table_that_marks_otherwise_than_the_original_stays_until_its_connections_end() {
    on_new_host(|host| {
        let node = Node::new(host);
        node.lead(host, &[0x80, 0x100], &[]);
        let ours = SnatConfig {
            mark: 0x100,
            ..config()
        };
        SnatTable::default().ensure(&ours).unwrap();
        let mut old = Connection::open(&node.pods[1], None, &node.outside, INTERNET, DEADLINE).unwrap();
        old.still_talks();
        begin(Iptables::Nft);
        let lacking = || {
            handback::look(&Programs::default(), Wants::default())
                .unwrap()
                .lacking
        };
        assert_eq!(
            lacking(),
            [Lacking::Connections {
                mark: 0x100,
                count: 1
            }]
        );
        drop(old);
        wait_for("the connection's end", || lacking().is_empty().then_some(()));
        let ready = handback::look(&Programs::default(), Wants::default()).unwrap();
        let done = handback::remove(&ready).unwrap();
        assert_eq!(done, ["table ip vpcnet", "rule 1024 for mark 0x100"]);
        let rules = sh("ip rule");
        assert!(
            rules.contains("fwmark 0x80/0x80") && !rules.contains("0x100"),
            "{rules}"
        );
    });
}

#[test]
fn the_only_chain_that_translates_stays_while_translated_connections_live() {
    on_new_host(|host| {
        let node = Node::new(host);
        SnatTable::default().ensure(&config()).unwrap();
        let mut old = Connection::open(&node.pods[1], None, &node.outside, INTERNET, DEADLINE).unwrap();
        // The original, told not to translate, makes an empty chain and nothing that hangs on a NAT hook.
        Iptables::Nft.run("-t nat -N AWS-SNAT-CHAIN-0");
        Iptables::Nft.run(
            &PRESENT
                .lines()
                .filter(|l| l.contains("mangle"))
                .collect::<Vec<_>>()
                .join("\n"),
        );
        let wants = Wants {
            translation: Some(false),
            node_ports: None,
        };
        let lacking = || handback::look(&Programs::default(), wants).unwrap().lacking;
        assert_eq!(lacking(), [Lacking::Translated { count: 1 }]);
        old.still_talks();
        // With somebody's NAT chain beside it, it may go at once.
        shell("nft 'table ip proxy { chain c { type nat hook prerouting priority -100; }; }'");
        let ready = handback::look(&Programs::default(), wants).unwrap();
        assert_eq!(ready.lacking, []);
        handback::remove(&ready).unwrap();
        old.still_talks();
    });
}

/// As the first releases: no mark for what leaves, and only packets to the VPC led to the interface's table.
fn first_release(node: &Node) -> Connection {
    sh(&format!("ip rule delete from {POD_1} priority 1536"));
    for net in ["10.0.0.0/16", "10.1.0.0/16"] {
        sh(&format!(
            "ip rule add from {POD_1} to {net} table 2 priority 1536"
        ));
    }
    let snat: Vec<&str> = OLD.lines().filter(|line| line.contains("SNAT")).collect();
    Iptables::Legacy.run(&snat.join("\n"));
    let old = Connection::open(&node.pods[1], None, &node.outside, INTERNET, DEADLINE).unwrap();
    assert_eq!(old.seen(), NODE);
    SnatTable::default().ensure(&config()).unwrap();
    remove();
    old
}

#[test]
fn rules_by_destination_become_one_and_connections_of_their_time_go_on() {
    on_new_host(|host| {
        let node = Node::new(host);
        let mut old = first_release(&node);
        let pods = theirs::old_rules(host).unwrap();
        assert_eq!(pods.len(), 1);
        assert!(
            !theirs::collapse(host, &pods[0], None).unwrap(),
            "no mark would lead it back"
        );
        assert_eq!(theirs::old_rules(host).unwrap(), pods);
        assert!(theirs::collapse(host, &pods[0], Some(0x80)).unwrap());
        let rules = host.rules(false).unwrap();
        let from: Vec<&Rule> = rules.iter().filter(|r| r.priority == 1536).collect();
        assert_eq!(from, [&Rule::from(1536, POD_1, 2)]);
        old.still_talks();
        assert_eq!(theirs::old_rules(host).unwrap(), []);
        assert_eq!(seen_by(&node, 1, INTERNET), NODE);
        // A peer calls the pod: its answer goes by the pod's own interface, which the old rules did not do.
        Connection::open(&node.outside, Some(PEER), &node.pods[1], POD_1, DEADLINE)
            .unwrap()
            .still_talks();
    });
}

#[test]
fn without_its_mark_a_connection_of_that_time_would_break() {
    on_new_host(|host| {
        // Proves that the test above sees what marking does.
        let node = Node::new(host);
        let mut old = first_release(&node);
        old.still_talks();
        sh(&format!("ip rule add from {POD_1} table 2 priority 1537"));
        assert!(!old.talks_within(HOPELESS));
    });
}
