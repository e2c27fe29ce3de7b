//! Many pods at once, processes that are killed, namespaces that go without a DEL: every address has one owner, and none is lost.
//! Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::collections::BTreeSet;

use common::{Bed, WAYS, Way, finish, wait};
use serde_json::{Value, json};

#[test]
fn thirty_two_at_once_get_distinct_addresses() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pods: Vec<_> = (0..32).map(|_| bed.pod()).collect();
        let conf = bed.conf("1.1.0", &json!({}));
        let started: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(n, pod)| bed.start("ADD", &format!("c{n}"), &pod.path(), &conf))
            .collect();
        for child in started {
            finish(child).result();
        }
        assert_eq!(bed.addresses().len(), 32);
        let in_pods: BTreeSet<String> = pods
            .iter()
            .map(|pod| {
                pod.ip(&format!(
                    "-o {} addr show {} scope global",
                    way.flag(),
                    way.link()
                ))
            })
            .map(|text| text.split_whitespace().nth(3).unwrap().to_owned())
            .collect();
        assert_eq!(in_pods.len(), 32);
        let started: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(n, pod)| bed.start("DEL", &format!("c{n}"), &pod.path(), &conf))
            .collect();
        for child in started {
            finish(child).silent();
        }
        assert!(bed.addresses().is_empty() && bed.routes().is_empty() && !bed.has_table());
    }
}

#[test]
fn killed_at_any_moment_del_finds_all_of_it() {
    for way in WAYS {
        let bed = Bed::new(way);
        let conf = bed.conf("1.1.0", &json!({}));
        let mut cut = 0;
        // From before the first step to after the last, in steps of a tenth of a millisecond.
        for n in 0..60_u32 {
            let pod = bed.pod();
            let mut child = bed.start("ADD", "c1", &pod.path(), &conf);
            let end = std::time::Instant::now() + std::time::Duration::from_micros(100) * n;
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
            let _ = child.kill();
            let whole = child.wait_with_output().unwrap().status.success();
            cut += u32::from(!whole);
            // Every other time without its namespace, as after a node's crash.
            if n % 2 == 0 {
                bed.del("c1", &pod).silent();
            } else {
                bed.call("DEL", "c1", "", &conf).silent();
                assert_eq!(bed.links(), 0, "{way:?} after {n}");
            }
            let left = (bed.addresses(), bed.routes());
            assert!(
                left.0.is_empty() && left.1.is_empty(),
                "{way:?} after {n}: {left:?}"
            );
            drop(pod);
            wait("the link ended with its namespace", || bed.links() == 0);
        }
        assert!(!bed.has_table());
        assert!(cut > 5, "only {cut} of 60 were cut short: the test shows nothing");
    }
}

#[test]
fn gc_frees_what_no_attachment_owns() {
    for way in WAYS {
        let bed = Bed::new(way);
        let pods: Vec<_> = (0..3).map(|_| bed.pod()).collect();
        let results: Vec<Value> = (0..3)
            .map(|n| bed.add(&format!("c{n}"), &pods[n]).result())
            .collect();
        bed.gc(&["c1", "unknown"]).silent();
        assert_eq!(bed.addresses().len(), 1);
        assert_eq!(bed.routes().len(), 1);
        assert_eq!(
            bed.links(),
            1,
            "the links of the dead go too, though their namespaces are there"
        );
        bed.check("c1", &pods[1], &results[1]).silent();
        bed.gc(&[]).silent();
        assert!(bed.addresses().is_empty() && bed.routes().is_empty() && !bed.has_table());
        bed.gc(&[]).silent();
        let conf = bed.conf("1.1.0", &json!({ "prevResult": null }));
        bed.call("GC", "", "", &conf)
            .error(7, &["cni.dev/valid-attachments"]);
    }
}

#[test]
fn a_full_range_takes_back_what_nobody_uses_and_says_when_there_is_none() {
    let bed = Bed::new(Way::V4);
    let ipam = json!({ "type": "host-local", "ranges": [[{ "subnet": "169.254.172.0/29" }]], "dataDir": bed.dir.path() });
    let conf = bed.conf("1.1.0", &json!({ "ipam": ipam }));
    let mut pods: Vec<_> = (0..5).map(|_| bed.pod()).collect();
    for (n, pod) in pods.iter().enumerate() {
        bed.call("ADD", &format!("c{n}"), &pod.path(), &conf).result();
    }
    let late = bed.pod();
    let add_late = || bed.call("ADD", "late", &late.path(), &conf);
    add_late().error(11, &["all 5 egress addresses"]);
    // Somebody took a route: the pod lives, and keeps its address.
    bed.node.ip("route del 169.254.172.3");
    add_late().error(11, &["all 5 egress addresses"]);
    // A namespace is gone, and its DEL never came.
    drop(pods.remove(2));
    wait("the link ended with its namespace", || bed.links() == 4);
    add_late().result();
    assert!(late.ip("-4 -o addr show v4if0").contains("169.254.172.4/29"));
}
