//! What ADD makes, and that DEL and a failed ADD leave nothing of it. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Bed, WAYS, Way, finish, prev_result, wait};
use serde_json::json;

#[test]
fn add_makes_the_originals_link_and_passes_the_result_on() {
    for way in WAYS {
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let bed = Bed::new(way);
            let pod = bed.pod();
            let mut before = prev_result(version);
            before["interfaces"][1]["socketPath"] = json!("/kept");
            let conf = bed.conf(version, &json!({ "prevResult": before }));
            let result = bed.call("ADD", "c1", &pod.path(), &conf).result();
            let mut expected = before;
            let ends = result["interfaces"].as_array().unwrap()[3..].to_vec();
            expected["interfaces"]
                .as_array_mut()
                .unwrap()
                .extend(ends.clone());
            assert_eq!(result, expected, "nothing but the two ends was added");
            let (host_end, mac) = (
                ends[0]["name"].as_str().unwrap(),
                ends[0]["mac"].as_str().unwrap(),
            );
            assert!(bed.node.ip(&format!("link show {host_end}")).contains(mac));
            assert_eq!(ends[1]["name"], way.link());
            assert_eq!(ends[1]["sandbox"], json!(pod.path()));
            let link = pod.ip(&format!("link show {}", way.link()));
            assert!(
                link.contains(ends[1]["mac"].as_str().unwrap()) && link.contains("mtu 1500"),
                "{link}"
            );
            assert_eq!(bed.addresses(), [way.first()]);
            assert_eq!(bed.routes().len(), 1);
            assert!(bed.routes()[0].contains(host_end), "{:?}", bed.routes());
        }
    }
}

#[test]
fn ipv4_addresses_and_routes_are_the_originals() {
    let bed = Bed::new(Way::V4);
    let pod = bed.pod();
    bed.add("c1", &pod).result();
    let addresses = pod.ip("-4 -o addr show v4if0");
    assert!(addresses.contains("169.254.172.2/22"), "{addresses}");
    let routes = pod.ip("-4 route show");
    for wanted in [
        "default via 169.254.172.1 dev v4if0",
        "169.254.172.0/22 via 169.254.172.1 dev v4if0 src 169.254.172.2",
        "169.254.172.1 dev v4if0 scope link src 169.254.172.2",
    ] {
        assert!(routes.contains(wanted), "no {wanted:?} in {routes}");
    }
    assert_eq!(routes.lines().count(), 3, "{routes}");
    let host = bed.node.ip("-4 -o addr show scope link");
    assert!(host.contains("169.254.172.1/32"), "{host}");
    assert_eq!(bed.node.sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
}

#[test]
fn ipv6_is_for_the_egress_link_alone() {
    let bed = Bed::new(Way::V6);
    let pod = bed.pod();
    // As some runtimes do.
    pod.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    bed.node.sh("echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra");
    bed.add("c1", &pod).result();
    assert_eq!(
        pod.sh("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6").trim(),
        "1"
    );
    assert_eq!(
        pod.sh("cat /proc/sys/net/ipv6/conf/v6if0/disable_ipv6").trim(),
        "0"
    );
    let addresses = pod.ip("-6 -o addr show v6if0 scope global");
    assert!(
        addresses.contains("fd00::ac:2/128") && !addresses.contains("tentative"),
        "{addresses}"
    );
    let routes = pod.ip("-6 route show default");
    assert!(
        routes.contains("via fe80::") && routes.contains("dev v6if0"),
        "{routes}"
    );
    assert_eq!(
        bed.node.sh("cat /proc/sys/net/ipv6/conf/all/forwarding").trim(),
        "1"
    );
    let accept_ra = bed.node.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra");
    assert_eq!(accept_ra.trim(), "2", "else the node loses its own default route");
}

#[test]
fn del_leaves_nothing_and_may_come_again_without_namespace_and_result() {
    for way in WAYS {
        let bed = Bed::new(way);
        let before = bed.node.state();
        for gone in [false, true] {
            let pod = bed.pod();
            bed.add("c1", &pod).result();
            assert!(bed.has_table());
            let conf = bed.conf("1.1.0", &json!({ "prevResult": null }));
            if gone {
                let path = pod.path();
                drop(pod);
                bed.call("DEL", "c1", &path, &conf).silent();
            } else {
                bed.del("c1", &pod).silent();
                drop(pod);
            }
            assert!(bed.addresses().is_empty());
            assert!(bed.routes().is_empty());
            bed.call("DEL", "c1", "", &conf).silent();
            wait(&format!("{way:?}: nothing is left"), || bed.links() == 0);
            // What the node keeps is that it forwards.
            assert_eq!(bed.node.state(), before);
        }
    }
}

#[test]
fn del_of_what_was_never_added_is_well() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pod = bed.pod();
        bed.del("c1", &pod).silent();
        assert!(!bed.files().exists(), "a DEL makes no directory");
    }
}

#[test]
fn a_link_whose_namespace_is_held_by_somebody_goes_with_del() {
    let bed = Bed::new(Way::V4);
    let pod = bed.pod();
    bed.add("c1", &pod).result();
    bed.call("DEL", "c1", "", &bed.conf("1.1.0", &json!({}))).silent();
    assert_eq!(bed.links(), 0, "without a namespace to end, the link is deleted");
}

#[test]
fn another_pods_egress_is_not_touched() {
    for way in WAYS {
        let bed = Bed::new(way);
        let (one, other) = (bed.pod(), bed.pod());
        let result = bed.add("c1", &one).result();
        bed.add("c2", &other).result();
        bed.del("c2", &other).silent();
        assert_eq!(bed.addresses(), [way.first()]);
        assert!(bed.has_table());
        bed.check("c1", &one, &result).silent();
    }
}

#[test]
fn not_enabled_the_result_is_passed_on_and_nothing_made_and_earlier_pods_are_cleaned_up() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pod = bed.pod();
        let (node, inside) = (bed.node.state(), pod.state());
        let off = bed.conf("0.4.0", &json!({ "enabled": "false", "nodeIP": "" }));
        assert_eq!(
            bed.call("ADD", "c1", &pod.path(), &off).result(),
            prev_result("0.4.0")
        );
        assert_eq!((bed.node.state(), pod.state()), (node, inside));
        bed.call("DEL", "c1", &pod.path(), &off).silent();
        // Enabled when the pod came, not any more when it goes.
        bed.add("c2", &pod).result();
        bed.call("DEL", "c2", &pod.path(), &off).silent();
        assert!(bed.addresses().is_empty() && bed.routes().is_empty() && !bed.has_table());
    }
}

#[test]
fn a_result_of_another_version_is_printed_in_the_configurations() {
    let bed = Bed::new(Way::V4);
    let pod = bed.pod();
    let conf = bed.conf(
        "1.0.0",
        &json!({ "prevResult": prev_result("0.4.0"), "enabled": "false" }),
    );
    assert_eq!(
        bed.call("ADD", "c1", &pod.path(), &conf).result(),
        prev_result("1.0.0")
    );
}

#[test]
fn what_is_refused_changes_nothing() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pod = bed.pod();
        let (node, inside) = (bed.node.state(), pod.state());
        let other_node = way.pick("2001:db8::1", "10.0.0.1");
        for (more, netns, code, words) in [
            (
                json!({ "prevResult": null }),
                pod.path(),
                7,
                ["prevResult", "chained"],
            ),
            (
                json!({ "nodeIP": other_node }),
                pod.path(),
                7,
                ["nodeIP", "family"],
            ),
            (json!({ "nodeIP": "" }), pod.path(), 7, ["nodeIP", "address"]),
            (json!({ "mtu": "big" }), pod.path(), 7, ["mtu", "big"]),
            (
                json!({}),
                "/nonexistent".to_owned(),
                8,
                ["CNI_NETNS", "/nonexistent"],
            ),
            (json!({}), bed.node.path(), 8, ["CNI_NETNS", "own"]),
        ] {
            let outcome = bed.call("ADD", "c1", &netns, &bed.conf("1.1.0", &more));
            outcome.error(code, &words);
            assert!(bed.addresses().is_empty());
        }
        assert_eq!((bed.node.state(), pod.state()), (node, inside));
    }
}

#[test]
fn a_second_add_for_the_container_is_refused_and_the_first_one_stays() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pod = bed.pod();
        let result = bed.add("c1", &pod).result();
        bed.add("c1", &pod).error(4, &[way.link(), "twice"]);
        assert_eq!(bed.addresses(), [way.first()]);
        bed.check("c1", &pod, &result).silent();
    }
}

#[test]
fn an_add_that_fails_half_way_is_undone() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pod = bed.pod();
        bed.node
            .sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let (node, inside) = (bed.node.state(), pod.state());
        // The link is made, and then its parameters cannot be written.
        let conf = bed.conf("1.1.0", &json!({}));
        let read_only =
            "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
        let child = bed.start_by(
            &["unshare", "--mount", "sh", "-c", read_only, "sh"],
            "ADD",
            "c1",
            &pod.path(),
            &conf,
        );
        finish(child).error(103, &["accept_ra", "cannot write"]);
        assert!(bed.addresses().is_empty());
        assert_eq!((bed.node.state(), pod.state()), (node.clone(), inside.clone()));
        // No directory for the files.
        let file = tempfile::NamedTempFile::new().unwrap();
        let ipam =
            json!({ "type": "host-local", "ranges": [[{ "subnet": way.range() }]], "dataDir": file.path() });
        let conf = bed.conf("1.1.0", &json!({ "ipam": ipam }));
        bed.call("ADD", "c1", &pod.path(), &conf)
            .error(5, &[file.path().to_str().unwrap()]);
        assert_eq!((bed.node.state(), pod.state()), (node, inside));
    }
}

#[test]
fn a_link_of_the_name_that_is_no_pods_is_left_alone_and_the_address_goes_back() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pod = bed.pod();
        let result = bed.add("c1", &pod).result();
        let name = result["interfaces"][3]["name"].as_str().unwrap().to_owned();
        bed.del("c1", &pod).silent();
        drop(pod);
        wait("the link ended with its namespace", || bed.links() == 0);
        bed.node.ip(&format!("link add {name} type bridge"));
        let before = bed.node.state();
        let pod = bed.pod();
        bed.add("c1", &pod).error(103, &[&name, "bridge"]);
        assert!(bed.addresses().is_empty());
        assert_eq!(bed.node.state(), before, "the table went again too");
    }
}
