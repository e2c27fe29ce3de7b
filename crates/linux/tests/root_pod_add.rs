//! What ADD leaves in the kernel, as other programs see it. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use common::{DEADLINE, interface, new_netns, on_new_host, sh, sh_in, snapshot, wait_for};
use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{Device, MAIN, Request, Rule, Socket, traffic_of_this_thread};
use vpcnet_linux::netns::Netns;
use vpcnet_linux::pod::{self, PodError, PodInterface};

/// A node's address, for pods to talk to.
fn host_address(address: &str) -> IpAddr {
    sh(&format!("ip address add {address} dev lo"));
    let address = address.split('/').next().unwrap().parse().unwrap();
    let mut socket = Socket::open().unwrap();
    // IPv6 addresses take a moment, even on loopback.
    wait_for("the node's address", || {
        socket.is_local(address).unwrap().then_some(())
    });
    address
}

fn talk(pod: &Netns, to: IpAddr, from: IpAddr) {
    let listener = TcpListener::bind(SocketAddr::new(to, 0)).unwrap();
    let target = listener.local_addr().unwrap();
    let stream = pod
        .within(|| TcpStream::connect_timeout(&target, DEADLINE))
        .unwrap()
        .unwrap();
    let (mut accepted, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), from, "the pod's own address is what the node sees");
    accepted.write_all(b"hello").unwrap();
    drop(accepted);
    let mut heard = String::new();
    (&stream).read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");
}

#[test]
fn the_ip_command_shows_what_the_original_plugin_leaves() {
    on_new_host(|host| {
        let pod = new_netns();
        let one = interface(5, 3);
        let added = pod::add(host, &pod, std::slice::from_ref(&one)).unwrap();
        assert_eq!(added.len(), 1);
        assert_eq!(host.index_of(&one.host_name).unwrap(), Some(added[0].host_index));

        let route = sh("ip route show table main");
        assert_eq!(
            route.trim(),
            format!("10.0.1.5 dev {} scope link", one.host_name),
            "proto boot is not shown"
        );
        let rules = sh("ip rule show");
        assert!(
            rules.contains("512:\tfrom all to 10.0.1.5 lookup main\n"),
            "{rules}"
        );
        assert!(rules.contains("1536:\tfrom 10.0.1.5 lookup 3\n"), "{rules}");
        assert_eq!(rules.lines().count(), 5, "{rules}");
        let link = sh(&format!("ip link show dev {}", one.host_name));
        assert!(
            link.contains(",UP,LOWER_UP>") && link.contains("mtu 9001") && link.contains("02:01:00:00:00:05"),
            "{link}"
        );

        let address = sh_in(&pod, "ip -o -4 address show dev eth0");
        assert!(
            address.contains("inet 10.0.1.5/32 scope global eth0"),
            "{address}"
        );
        let routes = sh_in(&pod, "ip route show table main");
        assert_eq!(
            routes.lines().map(str::trim).collect::<Vec<_>>(),
            [
                "default via 169.254.1.1 dev eth0 onlink",
                "169.254.1.1 dev eth0 scope link"
            ]
        );
        let neighbour = sh_in(&pod, "ip neighbour show dev eth0 nud permanent");
        assert_eq!(neighbour.trim(), "169.254.1.1 lladdr 02:01:00:00:00:05 PERMANENT");
        let link = sh_in(&pod, "ip link show dev eth0");
        assert!(
            link.contains("mtu 9001") && link.contains("02:02:00:00:00:05") && link.contains(",UP,"),
            "{link}"
        );
        for (parameter, value) in [("accept_ra", "0"), ("accept_redirects", "1"), ("forwarding", "0")] {
            let key = format!("net/ipv6/conf/{}/{parameter}", one.host_name);
            assert_eq!(
                vpcnet_linux::sysctl::Tree::default().read(&key).unwrap(),
                value,
                "{parameter}"
            );
        }
    });
}

#[test]
fn on_a_host_that_forwards_ipv6_the_pods_link_does_not() {
    on_new_host(|host| {
        let sysctl = vpcnet_linux::sysctl::Tree::default();
        sysctl.write("net/ipv6/conf/all/forwarding", "1").unwrap();
        let one = interface(5, 3);
        pod::add(host, &new_netns(), std::slice::from_ref(&one)).unwrap();
        let key = format!("net/ipv6/conf/{}/forwarding", one.host_name);
        assert_eq!(sysctl.read(&key).unwrap(), "0");
        assert_eq!(sysctl.read("net/ipv6/conf/all/forwarding").unwrap(), "1");
    });
}

#[test]
fn a_pod_on_the_primary_interface_has_no_from_rule() {
    on_new_host(|host| {
        for (n, table) in [(5, MAIN), (6, 0), (7, 1)] {
            pod::add(host, &new_netns(), &[interface(n, table)]).unwrap();
        }
        let rules = sh("ip rule show");
        assert!(
            !rules.contains("1536"),
            "rules are searched for every packet: {rules}"
        );
        assert_eq!(rules.matches("512:").count(), 3);
    });
}

#[test]
fn pod_and_node_talk_at_once() {
    on_new_host(|host| {
        let pod = new_netns();
        let one = interface(5, MAIN);
        let node = host_address("10.0.0.10/32");
        pod::add(host, &pod, std::slice::from_ref(&one)).unwrap();
        let begin = Instant::now();
        talk(&pod, node, one.address);
        let took = begin.elapsed();
        assert!(
            took.as_millis() < 900,
            "a packet was lost, and came again after a second: {took:?}"
        );
    });
}

#[test]
fn an_ipv6_pod_talks_at_once_even_if_its_namespace_had_ipv6_off() {
    on_new_host(|host| {
        let pod = new_netns();
        let off = || vpcnet_linux::sysctl::Tree::default().write("net/ipv6/conf/all/disable_ipv6", "1");
        pod.within(off).unwrap().unwrap();
        let one = PodInterface {
            address: "2001:db8::5".parse().unwrap(),
            ..interface(5, MAIN)
        };
        let node = host_address("2001:db8::1/128");
        pod::add(host, &pod, std::slice::from_ref(&one)).unwrap();
        let begin = Instant::now();
        talk(&pod, node, one.address);
        let took = begin.elapsed();
        assert!(
            took.as_millis() < 900,
            "a packet was lost, and came again after a second: {took:?}"
        );
        assert!(sh("ip -6 rule show").contains("512:\tfrom all to 2001:db8::5 lookup main"));
        let neighbour = sh("ip -6 neighbour show nud permanent");
        assert!(
            neighbour.contains("2001:db8::5") && neighbour.contains("02:02:00:00:00:05"),
            "{neighbour}"
        );
    });
}

#[test]
fn a_second_interface_has_its_own_gateway_table_and_rule() {
    on_new_host(|host| {
        let pod = new_netns();
        let second = PodInterface {
            name: "mNicIf1".into(),
            gateway_index: 2,
            ..interface(6, 10_102)
        };
        pod::add(host, &pod, &[interface(5, MAIN), second.clone()]).unwrap();
        assert_eq!(
            sh_in(&pod, "ip route show table 1")
                .lines()
                .map(str::trim)
                .collect::<Vec<_>>(),
            [
                "default via 169.254.1.2 dev mNicIf1 onlink",
                "169.254.1.2 dev mNicIf1 scope link"
            ]
        );
        assert!(sh_in(&pod, "ip rule show").contains("1:\tfrom 10.0.1.6 lookup 1\n"));
        assert!(sh("ip rule show").contains("1536:\tfrom 10.0.1.6 lookup 10102\n"));
        let node = host_address("10.0.0.10/32");
        talk(&pod, node, interface(5, MAIN).address);
    });
}

#[test]
fn a_recreated_pod_takes_the_place_of_its_forerunner() {
    on_new_host(|host| {
        let (first, second) = (new_netns(), new_netns());
        pod::add(host, &first, &[interface(5, 2)]).unwrap();
        let again = PodInterface {
            address: "10.0.1.9".parse().unwrap(),
            ..interface(5, MAIN)
        };
        pod::add(host, &second, std::slice::from_ref(&again)).unwrap();
        assert_eq!(
            sh("ip route show").lines().count(),
            1,
            "the forerunner's route went with its link"
        );
        talk(&second, host_address("10.0.0.10/32"), again.address);
    });
}

#[test]
fn rules_of_an_earlier_owner_of_the_address_do_not_misroute_the_pod() {
    on_new_host(|host| {
        let one = interface(5, 3);
        // What older releases of the AWS VPC CNI left: one rule for each CIDR, to another table.
        // And some to the very table of the new owner, which make the kernel say EEXIST to the rule for all destinations.
        for (to, table) in [
            (None, 2),
            (Some("10.0.0.0/16"), 4),
            (Some("172.31.0.0/16"), 3),
            (Some("10.1.0.0/16"), 3),
        ] {
            let to = to.map(|net| net.parse().unwrap());
            host.run_one(Request::AddRule(Rule {
                to,
                ..Rule::from(pod::FROM_POD_RULE, one.address, table)
            }))
            .unwrap();
        }
        let other = Rule::from(pod::FROM_POD_RULE, "10.0.1.77".parse().unwrap(), 2);
        host.run_one(Request::AddRule(other.clone())).unwrap();
        pod::add(host, &new_netns(), std::slice::from_ref(&one)).unwrap();
        let from: Vec<Rule> = host
            .rules(false)
            .unwrap()
            .into_iter()
            .filter(|r| r.priority == 1536)
            .collect();
        assert_eq!(from, [other, Rule::from(1536, one.address, 3)]);
    });
}

#[test]
fn a_single_rule_of_an_earlier_owner_goes_too() {
    on_new_host(|host| {
        // The pod on the primary interface adds no from rule, so nothing of its own would meet the old one.
        for (n, table) in [(5, 3), (6, MAIN)] {
            let one = interface(n, table);
            let old = Rule::from(pod::FROM_POD_RULE, one.address, 2);
            host.run_one(Request::AddRule(old.clone())).unwrap();
            pod::add(host, &new_netns(), std::slice::from_ref(&one)).unwrap();
            assert!(
                !host.rules(false).unwrap().contains(&old),
                "{old} misroutes the pod"
            );
        }
    });
}

#[test]
fn a_rule_that_is_there_already_is_fine() {
    on_new_host(|host| {
        let one = interface(5, 3);
        host.run_one(Request::AddRule(Rule::to(pod::TO_POD_RULE, one.address, MAIN)))
            .unwrap();
        host.run_one(Request::AddRule(Rule::from(pod::FROM_POD_RULE, one.address, 3)))
            .unwrap();
        pod::add(host, &new_netns(), std::slice::from_ref(&one)).unwrap();
        assert_eq!(host.rules(false).unwrap().len(), 5);
    });
}

#[test]
fn what_can_be_known_before_is_refused_before_any_change() {
    on_new_host(|host| {
        let pod = new_netns();
        sh_in(&pod, "ip link add eth0 type veth peer name other");
        sh("ip link add eni00000000009 type bridge");
        // A stale link of the very name: not even that may go before all else is known to be good.
        let old = new_netns(); // Kept: with its namespace the link would go by itself, at a time of the kernel's choosing.
        pod::add(host, &old, &[interface(5, 2)]).unwrap();
        let before = snapshot(host);
        let taken = pod::add(host, &pod, &[interface(5, 2)]).unwrap_err();
        assert!(matches!(taken, PodError::NameTaken { .. }), "{taken}");
        let own = pod::add(host, &Netns::current().unwrap(), &[interface(6, 2)]).unwrap_err();
        assert!(matches!(own, PodError::HostNamespace { .. }), "{own}");
        let invalid = pod::add(
            host,
            &new_netns(),
            &[PodInterface {
                mtu: 10,
                ..interface(6, 2)
            }],
        )
        .unwrap_err();
        assert!(
            matches!(invalid, PodError::Invalid { field: "MTU", .. }),
            "{invalid}"
        );
        let foreign = PodInterface {
            host_name: "eni00000000009".into(),
            ..interface(6, 2)
        };
        let foreign = pod::add(host, &new_netns(), &[foreign]).unwrap_err();
        assert!(
            matches!(&foreign, PodError::HostNameTaken { kind, .. } if kind == "bridge"),
            "{foreign}"
        );
        assert_eq!(snapshot(host), before);
    });
}

#[test]
fn the_two_hundredth_add_sends_as_much_as_the_first() {
    on_new_host(|host| {
        let mut pods = Vec::new();
        let mut cost = Vec::new();
        for n in 0..200 {
            let pod = new_netns();
            let before = traffic_of_this_thread();
            pod::add(host, &pod, &[interface(n, 2 + u32::from(n) % 3)]).unwrap();
            let after = traffic_of_this_thread();
            cost.push((
                after.sends - before.sends,
                after.messages - before.messages,
                after.answers - before.answers,
            ));
            pods.push(pod);
        }
        assert_eq!(cost[0].0, 3, "pairs, pod, host");
        assert!(cost.iter().all(|c| *c == cost[0]), "{cost:?}");
    });
}

#[test]
fn the_thread_is_at_home_after_an_add() {
    on_new_host(|host| {
        let home = Netns::current().unwrap();
        pod::add(host, &new_netns(), &[interface(5, 2)]).unwrap();
        assert!(Netns::current().unwrap().same(&home));
    });
}

#[test]
fn a_refusal_carries_the_kernels_own_words() {
    on_new_host(|host| {
        let request = Request::SetLink {
            device: Device::new(1, "lo"),
            up: None,
            mtu: Some(u32::MAX),
        };
        let error = host.run_one(request).unwrap_err().to_string();
        assert!(
            error.starts_with("set link lo mtu 4294967295: EINVAL (Invalid argument): "),
            "{error}"
        );
        let gone = Request::SetLink {
            device: Device::named("nothing"),
            up: Some(true),
            mtu: None,
        };
        let error = host.run_one(gone).unwrap_err().to_string();
        assert!(error.starts_with("set link nothing up: ENODEV"), "{error}");
    });
}

#[test]
fn each_answer_belongs_to_its_request() {
    on_new_host(|host| {
        // Far more than one datagram's worth of requests, every third refused.
        let address = |n: u16| IpAddr::from([10, 9, (n >> 8) as u8, n as u8]);
        let requests: Vec<Request> = (0..250)
            .map(|n| match n % 3 {
                0 => Request::DeleteRule(Rule::from(99, address(n), 7)),
                _ => Request::AddRule(Rule::from(99, address(n), 7)),
            })
            .collect();
        let outcomes = host.run(&requests).unwrap();
        assert_eq!(outcomes.len(), 250);
        for (n, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.is_err(), n % 3 == 0, "request {n}: {outcome:?}");
        }
        assert_eq!(host.rules(false).unwrap().len(), 3 + 250 - 84);
        assert_eq!(Mac::random_local().unwrap().0.len(), 6);
    });
}
