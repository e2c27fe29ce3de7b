//! What the fabric does with IPv6 packets, tried with real ones. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fabric_support;

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use fabric_support::{Lab, elements, eventually};
use vpcnet_lab::fabric::netns::Place;

/// A port the default security group opens to the internet.
const OPEN: u16 = 30100;

fn up() -> Lab {
    Lab::up(&["--ipv6"])
}

fn own(lab: &Lab, node: &str) -> Ipv6Addr {
    lab.node(node)["primary_ipv6"].as_str().unwrap().parse().unwrap()
}

fn udp(place: &Place, address: Ipv6Addr, port: u16) -> UdpSocket {
    let socket = place
        .run(|| Ok(UdpSocket::bind((address, port)).unwrap()))
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// Sends until it arrives, then back; the source the server saw.
fn exchange(client: &UdpSocket, server: &UdpSocket, to: SocketAddr) -> SocketAddr {
    let mut buffer = [0; 64];
    let mut seen = None;
    let talk = || {
        client.send_to(b"there", to).unwrap();
        let (_, from) = server.recv_from(&mut buffer).ok()?;
        server.send_to(b"back", from).unwrap();
        let (_, answered) = client.recv_from(&mut buffer).ok()?;
        assert_eq!(answered, to, "the answer came from somewhere else");
        Some(from)
    };
    let mut talk = talk;
    let start = std::time::Instant::now();
    while seen.is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "{to} does not answer");
        seen = talk();
    }
    seen.unwrap()
}

fn at(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddrV6::new(address, port, 0, 0).into()
}

/// Waits until a drop with that reason and these ends is logged.
fn dropped(lab: &Lab, reason: &str, source: Ipv6Addr, destination: Ipv6Addr) {
    let (source, destination) = (source.to_string(), destination.to_string());
    eventually(
        &format!("a drop for {reason} of {source} -> {destination}"),
        || {
            let drops = lab.json(&["drops", "--json"]);
            drops.as_array().unwrap().iter().any(|d| {
                d["reason"] == reason
                    && d["source"] == source.as_str()
                    && d["destination"] == destination.as_str()
            })
        },
    );
    assert!(lab.status()["drops"][reason].as_u64().unwrap() >= 1);
}

#[test]
fn a_node_has_its_address_alone_and_the_router_as_its_way_out() {
    let lab = up();
    let address = lab.exec(
        "node-1",
        &["ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"],
    );
    assert!(
        address.contains(&format!(" {}/128 ", own(&lab, "node-1"))),
        "{address}"
    );
    let route = lab.exec("node-1", &["ip", "-6", "route", "show", "default"]);
    assert!(route.contains("default via fe80:ec2::1 dev eth0"), "{route}");
    assert_eq!(
        lab.sh("node-1", "cat /proc/sys/net/ipv6/conf/all/forwarding"),
        "0\n"
    );
}

#[test]
fn nodes_reach_each_other_and_a_prefix_is_delivered_without_asking_for_it() {
    let lab = up();
    let (first, second) = (own(&lab, "node-1"), own(&lab, "node-2"));
    let (one, two) = (lab.place("node-1"), lab.place("node-2"));
    let client = udp(&one, first, 0);
    let server = udp(&two, second, 5000);
    assert_eq!(exchange(&client, &server, at(second, 5000)).ip(), first);

    let eni = lab.node("node-2")["interfaces"][0]["eni"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = lab.ec2(
        "AssignIpv6Addresses",
        &[&format!("NetworkInterfaceId={eni}"), "Ipv6PrefixCount=1"],
    );
    let prefix = elements(&answer, "item")[0].clone();
    let pod: Ipv6Addr = prefix.trim_end_matches("/80").parse().unwrap();
    eventually("the prefix shows in the lab's status", || {
        lab.node("node-2")["interfaces"][0]["ipv6"]
            .to_string()
            .contains(&prefix)
    });
    // On the loopback link nobody could answer neighbour discovery for it.
    lab.sh("node-2", &format!("ip -6 addr add {pod}/128 dev lo nodad"));
    let server = udp(&two, pod, 5001);
    assert_eq!(exchange(&client, &server, at(pod, 5001)).ip(), first);
    lab.ec2(
        "UnassignIpv6Addresses",
        &[
            &format!("NetworkInterfaceId={eni}"),
            &format!("Ipv6Prefix.1={prefix}"),
        ],
    );
    eventually("the prefix is gone", || {
        client.send_to(b"late", at(pod, 5001)).unwrap();
        lab.status()["drops"]["no-owner"].as_u64().unwrap() >= 1
    });
}

#[test]
fn a_packet_from_an_address_the_interface_does_not_own_is_dropped() {
    let lab = up();
    let (first, second) = (own(&lab, "node-1"), own(&lab, "node-2"));
    let foreign = Ipv6Addr::from_bits(first.to_bits() ^ 0xff00);
    lab.sh("node-1", &format!("ip -6 addr add {foreign}/128 dev lo nodad"));
    let liar = udp(&lab.place("node-1"), foreign, 0);
    liar.send_to(b"lie", at(second, 5000)).unwrap();
    dropped(&lab, "source-check", foreign, second);
    let nobody = Ipv6Addr::from_bits(second.to_bits() ^ 0xff00);
    udp(&lab.place("node-1"), first, 0)
        .send_to(b"where", at(nobody, 5000))
        .unwrap();
    dropped(&lab, "no-owner", first, nobody);
}

#[test]
fn the_internet_sees_nodes_as_they_are_and_reaches_only_those_of_public_subnets_where_their_groups_let_it() {
    let lab = up();
    let internet: Ipv6Addr = lab.status()["internet_ipv6"]["host"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let outside = lab.place("internet");
    let server = udp(&outside, internet, 5000);
    for node in ["node-1", "node-2"] {
        let address = own(&lab, node);
        let client = udp(&lab.place(node), address, 0);
        assert_eq!(
            exchange(&client, &server, at(internet, 5000)).ip(),
            address,
            "{node}"
        );
    }
    let (public, private) = (own(&lab, "node-1"), own(&lab, "node-2"));
    let client = udp(&outside, internet, 0);
    let open = udp(&lab.place("node-1"), public, OPEN);
    assert_eq!(exchange(&client, &open, at(public, OPEN)).ip(), internet);
    client.send_to(b"knock", at(public, 22)).unwrap();
    dropped(&lab, "security-group", internet, public);
    client.send_to(b"knock", at(private, OPEN)).unwrap();
    dropped(&lab, "egress-only", internet, private);
}

#[test]
fn an_empty_lab_passes_its_own_check_by_both_families() {
    let lab = up();
    let report = lab.json(&["check", "--json"]);
    assert_eq!(report["failed"], 0, "{report}");
    for kind in [
        "node-to-node",
        "ipv6-node-to-node",
        "ipv6-node-to-internet",
        "ipv6-spoofed-unowned-source",
    ] {
        assert!(
            report["kinds"][kind]["checks"].as_u64().unwrap_or_default() > 0,
            "{kind}: {report}"
        );
    }
}
