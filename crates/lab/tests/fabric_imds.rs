//! The metadata service as nodes and pods reach it. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fabric_support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use fabric_support::Lab;
use vpcnet_lab::fabric::netns::{self, Place};

/// A namespace removed when the test ends.
struct Pod(String);

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = netns::delete(&self.0);
    }
}

/// What a token request gets within half a second; `None`: silence.
fn token(place: &Place) -> Option<String> {
    place
        .run(|| {
            let mut stream = TcpStream::connect("169.254.169.254:80").unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let put = "PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\
                       X-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(put.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            Ok((!answer.is_empty()).then_some(answer))
        })
        .unwrap()
}

fn hop_limit(lab: &Lab, hops: u32) {
    let instance = lab.node("node-1")["instance"].as_str().unwrap().to_owned();
    let parameters = [
        format!("InstanceId={instance}"),
        format!("HttpPutResponseHopLimit={hops}"),
    ];
    lab.ec2("ModifyInstanceMetadataOptions", &[&parameters[0], &parameters[1]]);
}

#[test]
fn a_token_reaches_the_node_at_hop_limit_1_and_pods_behind_it_at_2_only() {
    let lab = Lab::up(&[]);
    // A pod by hand, behind the node's translation as the agents make it for what leaves the VPC.
    let pod = Pod(format!("{}-byhand", lab.base()));
    netns::create(&pod.0).unwrap();
    lab.sh(
        "node-1",
        &format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
             ip link add pod0 type veth peer name eth0 netns {0}
             ip addr add 192.168.7.1/24 dev pod0
             ip link set pod0 up
             nft 'table ip t {{ chain c {{ type nat hook postrouting priority 100; oifname \"eth0\" masquerade; }}; }}'
             ip -n {0} addr add 192.168.7.2/24 dev eth0
             ip -n {0} link set eth0 up
             ip -n {0} route add default via 192.168.7.1",
            pod.0
        ),
    );
    let (node, inside) = (lab.place("node-1"), Place::named(&pod.0).unwrap());
    hop_limit(&lab, 2);
    assert!(token(&inside).unwrap().starts_with("HTTP/1.1 200"));
    assert!(token(&node).unwrap().starts_with("HTTP/1.1 200"));
    hop_limit(&lab, 1);
    assert_eq!(token(&inside), None, "a token came a hop too far");
    assert!(token(&node).unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn each_node_is_told_its_own_instance_id_and_nobody_else_is_answered() {
    let lab = Lab::up(&[]);
    let report = lab.json(&["check", "--json"]);
    assert_eq!(report["kinds"]["node-to-imds"]["checks"], 2);
    assert_eq!(report["failed"], 0, "{report:#}");
    for outside in ["internet", "peer"] {
        let reached = lab.place(outside).run(|| {
            let address = "169.254.169.254:80".parse().unwrap();
            Ok(TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok())
        });
        assert!(!reached.unwrap(), "IMDS answers the {outside}");
    }
}
