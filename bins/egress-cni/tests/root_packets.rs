//! Real packets of pods with an egress link: out by the node's address, in only as answers. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::{Bed, Namespace, WAYS, Way};
use serde_json::json;
use vpcnet_linux::netns::Netns;

/// Ten times what any step here takes.
const DEADLINE: Duration = Duration::from_secs(10);

fn within<T>(namespace: &Namespace, visit: impl FnOnce() -> T) -> T {
    Netns::open(namespace.path()).unwrap().within(visit).unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

/// A system call with a time limit is not begun again after a stop of the process.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Sends from the pod to the outside and back; gives the source that outside sees.
fn source_seen(bed: &Bed, pod: &Namespace, from: Option<&str>) -> SocketAddr {
    let server = within(&bed.outside, || {
        UdpSocket::bind(at(bed.way.outside(), 0)).unwrap()
    });
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let any = bed.way.pick("0.0.0.0", "::");
    let client = within(pod, || UdpSocket::bind(at(from.unwrap_or(any), 0)).unwrap());
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send_to(b"there", server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let (_, source) = receive(&server, &mut buffer).expect("the packet came out");
    server.send_to(b"back", source).unwrap();
    let (length, _) = receive(&client, &mut buffer).expect("the answer came back");
    assert_eq!(&buffer[..length], b"back");
    source
}

#[test]
fn a_pod_talks_outside_by_the_nodes_address_from_its_first_packet_on() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pod = bed.pod();
        bed.add("c1", &pod).result();
        assert_eq!(
            source_seen(&bed, &pod, None).ip().to_string(),
            way.node(),
            "{way:?}"
        );
        let listener = within(&bed.outside, || TcpListener::bind(at(way.outside(), 0)).unwrap());
        let to = listener.local_addr().unwrap();
        let mut stream = within(&pod, || TcpStream::connect_timeout(&to, DEADLINE).unwrap());
        let (mut other, from) = listener.accept().unwrap();
        assert_eq!(from.ip().to_string(), way.node(), "{way:?}");
        stream.write_all(b"x").unwrap();
        other.set_read_timeout(Some(DEADLINE)).unwrap();
        other.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn the_node_reaches_the_pod() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pod = bed.pod();
        bed.add("c1", &pod).result();
        let listener = within(&pod, || TcpListener::bind(at(way.first(), 0)).unwrap());
        let to = listener.local_addr().unwrap();
        within(&bed.node, || TcpStream::connect_timeout(&to, DEADLINE)).expect("node to pod");
    }
}

#[test]
fn neither_other_pods_nor_outside_open_connections_to_the_range() {
    for way in WAYS {
        let bed = Bed::new(way);
        let (one, other) = (bed.pod(), bed.pod());
        bed.add("c1", &one).result();
        bed.add("c2", &other).result();
        let listener = within(&one, || TcpListener::bind(at(way.first(), 0)).unwrap());
        let to = listener.local_addr().unwrap();
        bed.outside.ip(&format!(
            "{} route add {} via {} dev up0",
            way.flag(),
            way.range(),
            way.node()
        ));
        for from in [&other, &bed.outside] {
            let outcome = within(from, || TcpStream::connect_timeout(&to, DEADLINE));
            let kind = outcome.expect_err("it is rejected, not dropped").kind();
            assert_eq!(
                kind,
                std::io::ErrorKind::ConnectionRefused,
                "{way:?} from {}",
                from.name
            );
        }
    }
}

#[test]
fn ports_are_kept_or_chosen_at_random_as_configured() {
    for way in WAYS {
        for (word, kept) in [("none", true), ("prng", false), ("hashrandom", false)] {
            let bed = Bed::new(way);
            let pod = bed.pod();
            let conf = bed.conf("1.1.0", &json!({ "randomizeSNAT": word }));
            bed.call("ADD", "c1", &pod.path(), &conf).result();
            let listing = bed
                .node
                .sh(&format!("nft list table {} vpcnet_egress", way.family()));
            let shown = match word {
                "prng" => listing.contains("fully-random"),
                "hashrandom" => listing.contains(" random") && !listing.contains("fully"),
                _ => !listing.contains("random"),
            };
            assert!(shown, "{word}: {listing}");
            // A random port is the pod's own by chance only.
            let same = (0..4).filter(|_| {
                let server = within(&bed.outside, || UdpSocket::bind(at(way.outside(), 0)).unwrap());
                server.set_read_timeout(Some(DEADLINE)).unwrap();
                let client = within(&pod, || UdpSocket::bind(at(way.first(), 0)).unwrap());
                client.send_to(b"x", server.local_addr().unwrap()).unwrap();
                let (_, source) = receive(&server, &mut [0; 4]).unwrap();
                source.port() == client.local_addr().unwrap().port()
            });
            assert_eq!(same.count() == 4, kept, "{way:?} {word}");
        }
    }
}

#[test]
fn a_running_connection_survives_that_others_come_and_go() {
    let bed = Bed::new(Way::V4);
    let pod = bed.pod();
    bed.add("c1", &pod).result();
    let listener = within(&bed.outside, || {
        TcpListener::bind(at(bed.way.outside(), 0)).unwrap()
    });
    let to = listener.local_addr().unwrap();
    let mut stream = within(&pod, || TcpStream::connect_timeout(&to, DEADLINE).unwrap());
    let (mut other, _) = listener.accept().unwrap();
    other.set_read_timeout(Some(DEADLINE)).unwrap();
    for n in 0..3 {
        let second = bed.pod();
        bed.add(&format!("d{n}"), &second).result();
        bed.del(&format!("d{n}"), &second).silent();
        drop(second);
        stream.write_all(b"x").unwrap();
        other.read_exact(&mut [0]).unwrap();
    }
    // Somebody takes the table; the next ADD brings it back, and the connection goes on.
    bed.node.sh("nft flush ruleset");
    let second = bed.pod();
    bed.add("e", &second).result();
    stream.write_all(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
}
