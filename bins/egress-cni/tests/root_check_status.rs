//! CHECK finds each harm, STATUS tells what an ADD would meet, and the AWS VPC CNI's pods are cleaned up. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::process::Command;

use common::{Bed, WAYS, Way};
use serde_json::json;

#[test]
fn check_finds_each_harm() {
    for way in WAYS {
        // Namespace of the harm, the command, a word of the finding. LINK is the pod's end, HOST the host's.
        let (node, pod) = (true, false);
        let common = [
            (
                node,
                "nft delete table FAMILY vpcnet_egress",
                "vpcnet_egress is missing",
            ),
            (
                node,
                "nft flush chain FAMILY vpcnet_egress source_nat",
                "source_nat",
            ),
            (
                node,
                "nft flush chain FAMILY vpcnet_egress refuse_new",
                "refuse_new",
            ),
            (
                node,
                "nft delete chain FAMILY vpcnet_egress refuse_new",
                "refuse_new",
            ),
            (
                node,
                "nft insert rule FAMILY vpcnet_egress source_nat accept",
                "more than ours",
            ),
            (
                node,
                "nft flush chain FAMILY vpcnet_egress source_nat; nft add rule FAMILY vpcnet_egress source_nat counter",
                "its rule is another",
            ),
            (
                node,
                "nft add table FAMILY vpcnet_egress '{ flags dormant; }'",
                "dormant",
            ),
            (node, "ip link set HOST down", "down"),
            (node, "ip link set HOST mtu 1400", "mtu is 1400"),
            (node, "ip link del HOST", "is missing"),
            (node, "ip FLAG route del FIRST", "route FIRST"),
            (node, "ip FLAG neigh del FIRST dev HOST", "neighbour FIRST"),
            (node, "rm FILES/FIRST", "another pod may get it"),
            (pod, "ip link set LINK down", "down"),
            (pod, "ip FLAG route del default", "route default"),
            (pod, "ip FLAG addr flush dev LINK scope global", "address FIRST"),
            (pod, "ip FLAG neigh flush dev LINK nud permanent", "neighbour"),
        ];
        let v4 = [
            (
                node,
                "ip addr del 169.254.172.1/32 dev HOST",
                "address 169.254.172.1",
            ),
            (node, "echo 0 > /proc/sys/net/ipv4/ip_forward", "ip_forward"),
            (
                pod,
                "ip route del 169.254.172.0/22 via 169.254.172.1",
                "route 169.254.172.0/22",
            ),
        ];
        let v6 = [(
            node,
            "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
            "forwarding",
        )];
        let own = if way == Way::V4 { &v4[..] } else { &v6[..] };
        let bed = Bed::new(way);
        for (n, (on_node, command, word)) in common.iter().chain(own).enumerate() {
            let container = format!("c{n}");
            let inside = bed.pod();
            let result = bed.add(&container, &inside).result();
            bed.check(&container, &inside, &result).silent();
            let first = bed.addresses()[0].clone();
            let filled = |text: &str| {
                text.replace("FAMILY", way.family())
                    .replace("FLAG", way.flag())
                    .replace("FIRST", &first)
                    .replace("HOST", result["interfaces"][3]["name"].as_str().unwrap())
                    .replace("LINK", way.link())
                    .replace("FILES", bed.files().to_str().unwrap())
            };
            let place = if *on_node { &bed.node } else { &inside };
            place.sh(&filled(command));
            bed.check(&container, &inside, &result)
                .error(105, &[&filled(word)]);
            bed.del(&container, &inside).silent();
            let _ = std::fs::remove_file(bed.files().join(&first));
            bed.gc(&[]).silent();
        }
    }
}

#[test]
fn the_next_add_restores_the_table() {
    for way in WAYS {
        let bed = Bed::new(way);
        let (one, other) = (bed.pod(), bed.pod());
        let result = bed.add("c1", &one).result();
        bed.node.sh(&format!(
            "nft flush chain {} vpcnet_egress source_nat",
            way.family()
        ));
        bed.status().error(51, &["source_nat"]);
        bed.add("c2", &other).result();
        bed.check("c1", &one, &result).silent();
        bed.status().silent();
    }
}

#[test]
fn a_pod_of_the_time_before_egress_is_well() {
    let bed = Bed::new(Way::V4);
    let pod = bed.pod();
    bed.check("c1", &pod, &common::prev_result("1.1.0")).silent();
}

#[test]
fn status_tells_what_an_add_would_meet() {
    for way in WAYS {
        let bed = Bed::new(way);
        bed.status().silent();
        let conf = bed.conf("1.1.0", &json!({ "nodeIP": "" }));
        bed.call("STATUS", "", "", &conf).error(50, &["nodeIP"]);
        let conf = bed.conf("1.1.0", &json!({ "nodeIP": "", "enabled": "false" }));
        bed.call("STATUS", "", "", &conf).silent();
    }
}

/// What the AWS VPC CNI's egress plugin has on a node for a pod, by the nft back end of iptables.
fn original_pod(bed: &Bed, container: &str, chain: &str, address: &str) -> bool {
    let iptables = bed.way.pick("iptables-nft", "ip6tables-nft");
    if Command::new(iptables).arg("--version").output().is_err() {
        return false;
    }
    let multicast = bed.way.pick("224.0.0.0/4", "ff00::/8");
    let comment = format!("-m comment --comment 'name: \"aws-cni\" id: \"{container}\"'");
    for rule in [
        format!("-N {chain}"),
        format!("-A {chain} -d {multicast} -j ACCEPT {comment}"),
        format!(
            "-A {chain} -j SNAT --to-source {} {comment} --random-fully",
            bed.way.node()
        ),
        format!("-A POSTROUTING -s {address} -j {chain} {comment}"),
    ] {
        bed.node.sh(&format!("{iptables} -t nat {rule}"));
    }
    std::fs::create_dir_all(bed.files()).unwrap();
    std::fs::write(bed.files().join(address), format!("{container}\r\neth0")).unwrap();
    std::fs::write(bed.files().join("last_reserved_ip.0"), address).unwrap();
    true
}

#[test]
fn pods_of_the_original_are_kept_beside_ours_and_cleaned_up_to_the_last_chain() {
    for way in WAYS {
        let bed = Bed::new(way);
        let chain = format!("{}5740307710ebfd5fb24f5", way.chain_prefix());
        let first = way.first();
        if !original_pod(&bed, "containerId-123", &chain, first) {
            eprintln!("no iptables-nft here: not tested");
            return;
        }
        bed.node.ip(&format!("{} route add {first} dev lo", way.flag()));
        // A chain of another network, and one that a dead pod left.
        let others = format!("{}ffffffffffffffffffff1", way.chain_prefix());
        let iptables = way.pick("iptables-nft", "ip6tables-nft");
        for (name, network) in [(others.as_str(), "other"), ("CNI-EX-dead", "aws-cni")] {
            let name = name.replace("CNI-EX-", way.chain_prefix());
            bed.node.sh(&format!(
                "{iptables} -t nat -N {name} && {iptables} -t nat -A POSTROUTING -s {first} -j {name} \
                 -m comment --comment 'name: \"{network}\" id: \"dead\"'"
            ));
        }
        let nat = || bed.node.sh(&format!("{iptables} -t nat -S"));
        let pod = bed.pod();
        bed.add("c1", &pod).result();
        assert_eq!(
            bed.addresses().len(),
            2,
            "the original's address was not given again"
        );
        assert!(nat().contains(&chain));
        bed.call(
            "DEL",
            "containerId-123",
            "",
            &bed.conf("1.1.0", &json!({ "prevResult": null })),
        )
        .silent();
        assert!(!nat().contains(&chain), "{}", nat());
        assert!(bed.routes().len() == 1 && bed.addresses().len() == 1);
        bed.gc(&["c1"]).silent();
        let left = nat();
        assert!(!left.contains(&format!("{}dead", way.chain_prefix())), "{left}");
        assert!(
            left.contains(&others),
            "another network's chain is none of ours: {left}"
        );
        assert_eq!(bed.addresses().len(), 1);
    }
}
