//! GC and STATUS of the built plugin. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Answer, Asked, Bed};
use serde_json::{Value, json};
use vpcnet_rpc::node::{Address, Attachment, GcReply, Owner, StatusReply};

/// GC and STATUS come with no variable but the verb and the path.
fn call(bed: &Bed, verb: &str, more: &Value) -> common::Outcome {
    let without = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"].map(|name| (name, ""));
    bed.run_with(verb, bed.conf("1.1.0", more).to_string().as_bytes(), &without)
}

fn owner(address: &str) -> Owner {
    Owner {
        network_name: "aws-cni".to_owned(),
        container_id: "c9".to_owned(),
        if_name: "eth0".to_owned(),
        pod_namespace: "default".to_owned(),
        pod_name: "sample-pod".to_owned(),
        addresses: vec![Address {
            address: address.to_owned(),
            route_table_id: 2,
        }],
    }
}

#[test]
fn gc_hands_the_list_on_and_removes_what_the_agent_freed() {
    let bed = Bed::new();
    bed.run("ADD", &bed.conf("1.1.0", &json!({}))).result();
    bed.agent.asked();
    bed.agent.set(|a| {
        a.gc = Answer::With(GcReply {
            released: vec![owner("10.0.1.5")],
            failures: vec![],
        })
    });
    let list = json!({ "cni.dev/valid-attachments": [{ "containerID": "c2", "ifname": "eth0" }],
                       "cni.dev/attachments": [{ "containerID": "c2", "ifname": "eth0" }] });
    call(&bed, "GC", &list).silent();
    let asked = bed.agent.asked();
    let [Asked::Gc(request)] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(request.network_name, "aws-cni");
    assert_eq!(
        request.valid,
        [Attachment {
            container_id: "c2".to_owned(),
            if_name: "eth0".to_owned()
        }]
    );
    assert!(!bed.node.ip(&["rule", "show"]).contains("10.0.1.5"));
    assert_eq!(bed.node.ip(&["route", "show", "10.0.1.5"]), "");
}

#[test]
fn gc_without_a_list_removes_nothing() {
    let bed = Bed::new();
    for more in [
        json!({}),
        json!({ "cni.dev/valid-attachments": null, "cni.dev/attachments": null }),
    ] {
        call(&bed, "GC", &more).error(7, &["cni.dev/valid-attachments", "nothing is removed"]);
    }
    call(
        &bed,
        "GC",
        &json!({ "cni.dev/valid-attachments": [{ "containerID": "c" }] }),
    )
    .error(6, &["ifname"]);
    assert_eq!(bed.agent.asked(), vec![]);
    // An empty list is a list.
    call(&bed, "GC", &json!({ "cni.dev/valid-attachments": [] })).silent();
    assert!(matches!(bed.agent.asked().as_slice(), [Asked::Gc(r)] if r.valid.is_empty()));
}

#[test]
fn gc_goes_on_and_reports_all() {
    let bed = Bed::new();
    bed.run("ADD", &bed.conf("1.1.0", &json!({}))).result();
    let reply = GcReply {
        released: vec![owner("nowhere"), owner("10.0.1.5")],
        failures: vec!["container c3: disk full".to_owned()],
    };
    bed.agent.set(|a| a.gc = Answer::With(reply));
    let list = json!({ "cni.dev/valid-attachments": [] });
    call(&bed, "GC", &list).error(106, &["container c3: disk full", "nowhere"]);
    assert!(
        !bed.node.ip(&["rule", "show"]).contains("10.0.1.5"),
        "the sound one is removed all the same"
    );
}

#[test]
fn gc_with_the_originals_agent_or_with_none() {
    let mut bed = Bed::new();
    bed.agent
        .set(|a| a.gc = Answer::Refuse(tonic::Code::Unimplemented, "unknown service".to_owned()));
    let list = json!({ "cni.dev/valid-attachments": [] });
    call(&bed, "GC", &list).silent();
    bed.agent.kill();
    call(&bed, "GC", &list).error(11, &["Gc", "ipamd.sock"]);
}

#[test]
fn status_is_silent_while_the_agent_serves() {
    let bed = Bed::new();
    call(&bed, "STATUS", &json!({})).silent();
    // The original's agent has a health service and no call for its state.
    bed.agent
        .set(|a| a.status = Answer::Refuse(tonic::Code::Unimplemented, "unknown service".to_owned()));
    call(&bed, "STATUS", &json!({})).silent();
}

#[test]
fn status_says_why_add_cannot_work() {
    let mut bed = Bed::new();
    let starting = "waiting for the instance's metadata, next try in 2 s";
    bed.agent.set(|a| {
        a.health = 2;
        a.status = Answer::With(StatusReply {
            message: starting.to_owned(),
            ..Default::default()
        });
    });
    call(&bed, "STATUS", &json!({})).error(50, &[starting]);
    bed.agent.set(|a| {
        a.health = 1;
        a.status = Answer::With(StatusReply {
            ready: true,
            impaired: "table 2 is missing".to_owned(),
            ..Default::default()
        });
    });
    call(&bed, "STATUS", &json!({})).error(51, &["table 2 is missing"]);
    bed.agent.kill();
    call(&bed, "STATUS", &json!({})).error(50, &["ipamd.sock"]);
}
