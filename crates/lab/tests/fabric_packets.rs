//! What the fabric does with packets, tried with real ones. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fabric_support;

use std::net::{Ipv4Addr, SocketAddrV4};

use fabric_support::{Lab, element, eventually, exchange, udp};

/// A port the default security group opens to the internet.
const OPEN: u16 = 30100;
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[test]
fn a_node_starts_as_a_dhcp_client_leaves_it() {
    let lab = Lab::up(&[]);
    let node = lab.node("node-2");
    let mac = node["interfaces"][0]["mac"].as_str().unwrap().to_owned();
    let link = lab.exec("node-2", &["ip", "-o", "link", "show", "eth0"]);
    assert!(
        link.contains(&mac) && link.contains("mtu 9001") && link.contains("state UP"),
        "{link}"
    );
    let address = lab.exec("node-2", &["ip", "-4", "-o", "addr", "show", "eth0"]);
    assert!(
        address.contains(&format!(" {}/20 ", lab.primary("node-2"))),
        "{address}"
    );
    assert!(
        lab.exec("node-2", &["ip", "route"])
            .contains("default via 10.0.16.1 dev eth0")
    );
    let sysctls = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter";
    assert_eq!(lab.sh("node-2", sysctls), "0\n1\n");
}

#[test]
fn an_attached_interface_appears_down_and_bare_and_goes_when_it_is_detached() {
    let lab = Lab::up(&[]);
    let eni = lab.attach("node-1");
    let link = lab.exec("node-1", &["ip", "-o", "addr", "show", "eth1"]);
    assert_eq!(link, "", "it must have no address");
    let link = lab.exec("node-1", &["ip", "-o", "link", "show", "eth1"]);
    assert!(link.contains(&eni.mac) && link.contains("state DOWN"), "{link}");
    let all = lab.ec2(
        "DescribeNetworkInterfaces",
        &[&format!("NetworkInterfaceId.1={}", eni.id)],
    );
    lab.ec2(
        "DetachNetworkInterface",
        &[&format!("AttachmentId={}", element(&all, "attachmentId"))],
    );
    eventually("the link goes", || {
        !lab.exec("node-1", &["ip", "-o", "link"]).contains("eth1")
    });
}

#[test]
fn a_packet_leaves_only_by_the_interface_that_owns_its_source() {
    let lab = Lab::up(&[]);
    let eni = lab.attach("node-1");
    let (first, second) = (lab.primary("node-1"), lab.primary("node-2"));
    // By hand what an agent does, but the default route stays on the primary interface.
    lab.sh(
        "node-1",
        &format!("ip link set eth1 up; ip addr add {}/32 dev eth1", eni.primary),
    );
    let server = udp(&lab.place("node-2"), second, 5000);
    let to = SocketAddrV4::new(second, 5000);
    let liar = udp(&lab.place("node-1"), eni.primary, 0);
    liar.send_to(b"lie", to).unwrap();
    lab.dropped("source-check", eni.primary, second);
    let honest = udp(&lab.place("node-1"), first, 0);
    assert_eq!(exchange(&honest, &server, to).ip(), first);

    let check = |on: &str| {
        let interface = lab.node("node-1")["interfaces"][0]["eni"]
            .as_str()
            .unwrap()
            .to_owned();
        let parameters = [
            format!("NetworkInterfaceId={interface}"),
            format!("SourceDestCheck.Value={on}"),
        ];
        lab.ec2(
            "ModifyNetworkInterfaceAttribute",
            &[&parameters[0], &parameters[1]],
        );
    };
    check("false");
    server
        .set_read_timeout(Some(std::time::Duration::from_millis(100)))
        .unwrap();
    eventually("with the check off the same packet arrives", || {
        liar.send_to(b"allowed", to).unwrap();
        let mut buffer = [0; 16];
        matches!(server.recv_from(&mut buffer), Ok((7, from)) if from.ip() == eni.primary)
    });
}

#[test]
fn packets_reach_the_owner_of_an_address_though_it_answers_no_arp_for_it() {
    let lab = Lab::up(&[]);
    let primary = lab.node("node-2")["interfaces"][0]["eni"]
        .as_str()
        .unwrap()
        .to_owned();
    let addresses = lab.assign(&primary, 2);
    // Like a pod's address: known behind the node, not on its interface.
    lab.sh(
        "node-2",
        &format!(
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1; ip addr add {}/32 dev lo",
            addresses[0]
        ),
    );
    let server = udp(&lab.place("node-2"), addresses[0], 5000);
    let client = udp(&lab.place("node-1"), ANY, 0);
    assert_eq!(
        exchange(&client, &server, SocketAddrV4::new(addresses[0], 5000)).ip(),
        lab.primary("node-1")
    );

    lab.ec2(
        "UnassignPrivateIpAddresses",
        &[
            &format!("NetworkInterfaceId={primary}"),
            &format!("PrivateIpAddress.1={}", addresses[0]),
        ],
    );
    eventually("the address has no owner any more", || {
        !lab.exec("vpc", &["ip", "route"])
            .contains(&format!("{} ", addresses[0]))
    });
    client
        .send_to(b"late", SocketAddrV4::new(addresses[0], 5000))
        .unwrap();
    lab.dropped("no-owner", lab.primary("node-1"), addresses[0]);
}

#[test]
fn all_sixteen_addresses_of_a_prefix_are_delivered() {
    let lab = Lab::up(&[]);
    let primary = lab.node("node-2")["interfaces"][0]["eni"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = lab.ec2(
        "AssignPrivateIpAddresses",
        &[&format!("NetworkInterfaceId={primary}"), "Ipv4PrefixCount=1"],
    );
    let prefix = element(&answer, "ipv4Prefix");
    lab.exec("node-2", &["ip", "route", "add", "local", &prefix, "dev", "lo"]);
    let net: ipnet::Ipv4Net = prefix.parse().unwrap();
    let client = udp(&lab.place("node-1"), ANY, 0);
    let first = u32::from(net.network());
    for address in (first..first + 16).map(Ipv4Addr::from) {
        let server = udp(&lab.place("node-2"), address, 5000);
        exchange(&client, &server, SocketAddrV4::new(address, 5000));
    }
}

#[test]
fn a_destination_without_an_owner_gets_nothing_and_the_log_says_so() {
    let lab = Lab::up(&[]);
    let nobody = Ipv4Addr::new(10, 0, 31, 200);
    let client = udp(&lab.place("node-1"), ANY, 0);
    client
        .send_to(b"anybody", SocketAddrV4::new(nobody, 5000))
        .unwrap();
    lab.dropped("no-owner", lab.primary("node-1"), nobody);
}

#[test]
fn security_groups_let_in_what_their_rules_say_and_answers_to_what_went_out() {
    let lab = Lab::up(&[]);
    let public: Ipv4Addr = lab.node("node-1")["public"].as_str().unwrap().parse().unwrap();
    let internet = lab.place("internet");
    let host: Ipv4Addr = lab.status()["internet"]["host"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let client = udp(&internet, host, 0);
    client.send_to(b"ssh?", SocketAddrV4::new(public, 22)).unwrap();
    lab.dropped("security-group", host, lab.primary("node-1"));
    let open = udp(&lab.place("node-1"), lab.primary("node-1"), OPEN);
    assert_eq!(
        exchange(&client, &open, SocketAddrV4::new(public, OPEN)).ip(),
        host
    );
    // No rule lets this in; it passes as the answer to a question from inside.
    let outside = udp(&internet, host, 53);
    let inside = udp(&lab.place("node-1"), ANY, 0);
    exchange(&inside, &outside, SocketAddrV4::new(host, 53));
}

#[test]
fn an_interface_outside_the_groups_a_rule_names_is_kept_out() {
    let lab = Lab::up(&[]);
    let default = lab.ec2(
        "DescribeSecurityGroups",
        &["Filter.1.Name=group-name", "Filter.1.Value.1=default"],
    );
    let interface = lab.node("node-2")["interfaces"][0]["eni"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.ec2(
        "ModifyNetworkInterfaceAttribute",
        &[
            &format!("NetworkInterfaceId={interface}"),
            &format!("SecurityGroupId.1={}", element(&default, "groupId")),
        ],
    );
    let (one, two) = (lab.primary("node-1"), lab.primary("node-2"));
    let client = udp(&lab.place("node-1"), one, 0);
    eventually("the group 'default' keeps out who is not in it", || {
        client
            .send_to(b"let me in", SocketAddrV4::new(two, 5000))
            .unwrap();
        lab.status()["drops"]["security-group"].as_u64() > Some(0)
    });
    lab.dropped("security-group", one, two);
}

#[test]
fn the_internet_sees_public_addresses_only() {
    let lab = Lab::up(&[]);
    let host: Ipv4Addr = lab.status()["internet"]["host"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let server = udp(&lab.place("internet"), host, 53);
    let to = SocketAddrV4::new(host, 53);
    let public: Ipv4Addr = lab.node("node-1")["public"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        exchange(&udp(&lab.place("node-1"), ANY, 0), &server, to).ip(),
        public,
        "one to one"
    );
    let nat: Ipv4Addr = lab.status()["nat_public"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        exchange(&udp(&lab.place("node-2"), ANY, 0), &server, to).ip(),
        nat,
        "by the NAT gateway"
    );

    let primary = lab.node("node-1")["interfaces"][0]["eni"]
        .as_str()
        .unwrap()
        .to_owned();
    let bare = lab.assign(&primary, 1)[0];
    lab.exec(
        "node-1",
        &["ip", "addr", "add", &format!("{bare}/32"), "dev", "eth0"],
    );
    let route = format!("{bare} ");
    eventually("the address is routed", || {
        lab.exec("vpc", &["ip", "route"]).contains(&route)
    });
    udp(&lab.place("node-1"), bare, 0)
        .send_to(b"from a private address", to)
        .unwrap();
    lab.dropped("no-public-address", bare, host);
}

#[test]
fn the_peered_network_sees_addresses_as_they_are() {
    let lab = Lab::up(&[]);
    let host: Ipv4Addr = lab.status()["peer"]["host"].as_str().unwrap().parse().unwrap();
    let peer = udp(&lab.place("peer"), host, 5000);
    for node in ["node-1", "node-2"] {
        let client = udp(&lab.place(node), ANY, 0);
        assert_eq!(
            exchange(&client, &peer, SocketAddrV4::new(host, 5000)).ip(),
            lab.primary(node)
        );
    }
    let node = udp(&lab.place("node-2"), lab.primary("node-2"), 5001);
    let client = udp(&lab.place("peer"), ANY, 0);
    assert_eq!(
        exchange(&client, &node, SocketAddrV4::new(lab.primary("node-2"), 5001)).ip(),
        host
    );
}

#[test]
fn a_packet_of_9001_bytes_passes_inside_and_is_too_large_for_the_internet() {
    let lab = Lab::up(&[]);
    let two = lab.primary("node-2");
    let server = udp(&lab.place("node-2"), two, 5000);
    let client = udp(&lab.place("node-1"), ANY, 0);
    rustix::net::sockopt::set_ip_mtu_discover(&client, rustix::net::sockopt::Ipv4PathMtuDiscovery::DO)
        .unwrap();
    let largest = vec![0; 9001 - 28];
    client.send_to(&largest, SocketAddrV4::new(two, 5000)).unwrap();
    let mut buffer = vec![0; 10_000];
    assert_eq!(server.recv_from(&mut buffer).unwrap().0, largest.len());
    let host: Ipv4Addr = lab.status()["internet"]["host"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    eventually("the router says that 1500 is all that fits", || {
        client.send_to(&largest, SocketAddrV4::new(host, 53)).is_err()
    });
}

#[test]
fn twenty_nine_addresses_of_one_call_are_routed_at_once() {
    let lab = Lab::up(&["--type", "m5.4xlarge"]);
    let primary = lab.node("node-1")["interfaces"][0]["eni"]
        .as_str()
        .unwrap()
        .to_owned();
    let addresses = lab.assign(&primary, 29);
    let start = std::time::Instant::now();
    eventually("all are routed", || {
        let routes = lab.exec("vpc", &["ip", "route"]);
        addresses.iter().all(|a| routes.contains(&format!("{a} ")))
    });
    // Ten times what it may take, as the rest of this machine is busy too.
    assert!(
        start.elapsed() < std::time::Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
}
