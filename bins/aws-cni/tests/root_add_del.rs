//! ADD, CHECK and DEL of the built plugin in every version of the specification, and what they do to the kernel. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::agent::{added, allocation, deleted};
use common::{Answer, Asked, Bed, HOST_LINK, VERSIONS};
use serde_json::{Value, json};

fn prev(result: &Value) -> Value {
    json!({ "prevResult": result })
}

#[test]
fn a_pods_life_in_every_version() {
    for version in VERSIONS {
        let bed = Bed::new();
        let before = bed.state();
        let result = bed.run("ADD", &bed.conf(version, &json!({}))).result();

        let mut ip = json!({ "interface": 1, "address": "10.0.1.5/32" });
        if version < "1.0.0" {
            ip["version"] = json!("4");
        }
        assert_eq!(
            result,
            json!({
                "cniVersion": version,
                "interfaces": [
                    { "name": HOST_LINK },
                    { "name": "eth0", "mac": "2", "sandbox": bed.pod.path() },
                    { "name": "dummycc21c2d7785", "mac": "0", "sandbox": "1" },
                ],
                "ips": [ip],
                "dns": {},
            })
        );
        let rules = bed.node.ip(&["rule", "show"]);
        assert!(
            rules.contains("512:\tfrom all to 10.0.1.5 lookup main"),
            "{rules}"
        );
        assert!(rules.contains("1536:\tfrom 10.0.1.5 lookup 2"), "{rules}");
        let route = bed.node.ip(&["route", "show", "10.0.1.5"]);
        assert_eq!(
            route.split_whitespace().collect::<Vec<_>>(),
            ["10.0.1.5", "dev", HOST_LINK, "scope", "link"]
        );
        let inside = bed.pod.ip(&["-o", "addr", "show", "dev", "eth0"]);
        assert!(inside.contains("inet 10.0.1.5/32"), "{inside}");
        let routes = bed.pod.ip(&["route", "show"]);
        assert!(routes.contains("default via 169.254.1.1 dev eth0"), "{routes}");

        if version != "0.3.1" {
            bed.run("CHECK", &bed.conf(version, &prev(&result))).silent();
        }
        // From 0.4.0 on the runtime hands the result to DEL.
        let with = if version == "0.3.1" {
            json!({})
        } else {
            prev(&result)
        };
        bed.run("DEL", &bed.conf(version, &with)).silent();
        let after = bed.node.ip(&["rule", "show"]);
        assert!(!after.contains("10.0.1.5"), "{after}");
        assert_eq!(bed.node.ip(&["route", "show", "10.0.1.5"]), "");
        // The link dies with the pod's namespace: that is the runtime's part.
        bed.pod.ip(&["link", "del", "eth0"]);
        assert_eq!(bed.state(), before, "{version}");

        // A second time: the agent no longer knows the pod.
        bed.agent
            .set(|a| a.del = Answer::Refuse(tonic::Code::Unknown, "datastore: unknown pod".to_owned()));
        bed.run("DEL", &bed.conf(version, &with)).silent();
        bed.run_with(
            "DEL",
            bed.conf(version, &with).to_string().as_bytes(),
            &[("CNI_NETNS", "")],
        )
        .silent();
    }
}

#[test]
fn the_agent_is_asked_with_all_it_needs() {
    let bed = Bed::new();
    let multi = json!({ "runtimeConfig": { "io.kubernetes.cri.pod-annotations":
        { "k8s.amazonaws.com/nicConfig": "multi-nic-attachment" } } });
    bed.run("ADD", &bed.conf("0.4.0", &multi)).result();
    bed.run("DEL", &bed.conf("0.4.0", &json!({}))).silent();
    let asked = bed.agent.asked();
    let [Asked::Add(add), Asked::Del(del)] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (add.k8s_pod_namespace.as_str(), add.k8s_pod_name.as_str()),
        ("default", "sample-pod")
    );
    assert_eq!(add.k8s_pod_infra_container_id, "c1");
    assert_eq!(add.netns, bed.pod.path());
    assert_eq!(
        (
            add.network_name.as_str(),
            add.container_id.as_str(),
            add.if_name.as_str()
        ),
        ("aws-cni", "c1", "eth0")
    );
    assert_eq!(add.client_version, "");
    assert!(add.requires_multi_nic_attachment);
    assert_eq!(
        (del.k8s_pod_namespace.as_str(), del.k8s_pod_name.as_str()),
        ("default", "sample-pod")
    );
    assert_eq!(
        (
            del.network_name.as_str(),
            del.container_id.as_str(),
            del.if_name.as_str()
        ),
        ("aws-cni", "c1", "eth0")
    );
    assert_eq!(
        (del.reason.as_str(), del.k8s_pod_uid.as_str()),
        ("PodDeleted", "u1")
    );
}

#[test]
fn a_pod_on_the_primary_interface_has_no_rule_from_it() {
    // 254 is main; older releases of the original said 1.
    for table in [254, 1] {
        let bed = Bed::new();
        bed.agent
            .set(|a| a.add = Answer::With(added(vec![allocation("10.0.1.6", 0, table)])));
        let result = bed.run("ADD", &bed.conf("1.0.0", &json!({}))).result();
        assert_eq!(result["interfaces"][1]["mac"], table.to_string());
        assert_eq!(result["interfaces"][2]["sandbox"], "0");
        let rules = bed.node.ip(&["rule", "show"]);
        assert!(
            rules.contains("512:\tfrom all to 10.0.1.6 lookup main"),
            "{rules}"
        );
        assert!(!rules.contains("1536:"), "{rules}");
    }
}

#[test]
fn several_cards_give_the_pod_several_interfaces() {
    let bed = Bed::new();
    let both = vec![allocation("10.0.1.7", 0, 254), allocation("10.0.2.7", 1, 10101)];
    bed.agent.set(|a| {
        a.add = Answer::With(added(both.clone()));
        a.del = Answer::With(deleted(both));
    });
    let result = bed.run("ADD", &bed.conf("1.1.0", &json!({}))).result();
    let names: Vec<_> = result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [HOST_LINK, "eth0", "enia0b7655f3c9", "mNicIf1", "dummycc21c2d7785"]
    );
    assert_eq!(
        result["ips"][1],
        json!({ "interface": 3, "address": "10.0.2.7/32" })
    );
    let rules = bed.pod.ip(&["rule", "show"]);
    assert!(rules.contains("1:\tfrom 10.0.2.7 lookup 1"), "{rules}");
    let rules = bed.node.ip(&["rule", "show"]);
    assert!(rules.contains("1536:\tfrom 10.0.2.7 lookup 10101"), "{rules}");
    bed.run("CHECK", &bed.conf("1.1.0", &prev(&result))).silent();
    bed.run("DEL", &bed.conf("1.1.0", &prev(&result))).silent();
    let rules = bed.node.ip(&["rule", "show"]);
    assert!(!rules.contains("10.0."), "{rules}");
}

#[test]
fn an_ipv6_pod() {
    let bed = Bed::new();
    bed.agent
        .set(|a| a.add = Answer::With(added(vec![allocation("2001:db8::5", 0, 254)])));
    let result = bed.run("ADD", &bed.conf("0.4.0", &json!({}))).result();
    assert_eq!(
        result["ips"][0],
        json!({ "version": "6", "interface": 1, "address": "2001:db8::5/128" })
    );
    let rules = bed.node.ip(&["-6", "rule", "show"]);
    assert!(
        rules.contains("512:\tfrom all to 2001:db8::5 lookup main"),
        "{rules}"
    );
    let address = bed
        .pod
        .ip(&["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"]);
    assert!(
        address.contains("2001:db8::5/128") && !address.contains("tentative"),
        "{address}"
    );
    bed.run("CHECK", &bed.conf("0.4.0", &prev(&result))).silent();
    bed.node.ip(&["-6", "route", "del", "2001:db8::5/128"]);
    bed.run("CHECK", &bed.conf("0.4.0", &prev(&result)))
        .error(105, &["2001:db8::5/128", "missing"]);
    // By the result of ADD alone, as when the agent is away.
    let refusal = Answer::Refuse(tonic::Code::Unavailable, "the agent is away".to_owned());
    bed.agent.set(|a| a.del = refusal);
    bed.run("DEL", &bed.conf("0.4.0", &prev(&result))).silent();
    let rules = bed.node.ip(&["-6", "rule", "show"]);
    assert!(!rules.contains("2001:db8::5"), "{rules}");
}

#[test]
fn prefix_and_mtu_of_the_configuration_are_used() {
    let bed = Bed::new();
    let conf = bed.conf("1.0.0", &json!({ "vethPrefix": "vpc", "mtu": "1400" }));
    bed.run("ADD", &conf).result();
    let link = bed.node.ip(&["-o", "link", "show", "dev", "vpccc21c2d7785"]);
    assert!(link.contains("mtu 1400") && link.contains("UP"), "{link}");
    assert!(
        bed.pod
            .ip(&["-o", "link", "show", "dev", "eth0"])
            .contains("mtu 1400")
    );
}

#[test]
fn the_link_of_an_earlier_pod_of_the_same_name_is_replaced() {
    let bed = Bed::new();
    bed.run("ADD", &bed.conf("1.0.0", &json!({}))).result();
    // The runtime has not removed the old namespace yet when the new sandbox comes.
    let second = common::Namespace::new("pod");
    bed.agent
        .set(|a| a.add = Answer::With(added(vec![allocation("10.0.1.8", 1, 2)])));
    let conf = bed.conf("1.0.0", &json!({})).to_string();
    let change = [("CNI_NETNS", second.path()), ("CNI_CONTAINERID", "c2".to_owned())];
    let change: Vec<_> = change.iter().map(|(k, v)| (*k, v.as_str())).collect();
    bed.run_with("ADD", conf.as_bytes(), &change).result();
    assert!(bed.node.ip(&["route", "show", "10.0.1.8"]).contains(HOST_LINK));
    assert!(
        second
            .ip(&["-o", "addr", "show", "dev", "eth0"])
            .contains("10.0.1.8/32")
    );
}

#[test]
fn check_tells_what_is_no_longer_as_add_left_it() {
    let bed = Bed::new();
    let result = bed.run("ADD", &bed.conf("1.0.0", &json!({}))).result();
    let conf = bed.conf("1.0.0", &prev(&result));
    bed.node.ip(&["rule", "del", "priority", "1536"]);
    bed.run("CHECK", &conf).error(105, &["from 10.0.1.5", "missing"]);
    bed.node.ip(&[
        "rule", "add", "priority", "1536", "from", "10.0.1.5", "lookup", "2",
    ]);
    bed.run("CHECK", &conf).silent();
    bed.pod.ip(&["route", "del", "default"]);
    bed.node.ip(&["link", "set", HOST_LINK, "down"]);
    bed.run("CHECK", &conf)
        .error(105, &["default via 169.254.1.1", HOST_LINK, "down"]);
}

#[test]
fn check_wants_the_agent_and_the_result() {
    let mut bed = Bed::new();
    let result = bed.run("ADD", &bed.conf("1.0.0", &json!({}))).result();
    bed.run("CHECK", &bed.conf("1.0.0", &json!({})))
        .error(7, &["prevResult"]);
    bed.run("CHECK", &bed.conf("1.0.0", &json!({ "prevResult": {} })))
        .error(6, &["prevResult", "eth0"]);
    bed.agent.kill();
    bed.run("CHECK", &bed.conf("1.0.0", &prev(&result)))
        .error(11, &["ipamd.sock"]);
}

#[test]
fn policies_are_in_force_before_add_answers_and_go_with_del() {
    let mut bed = Bed::new();
    bed.agent.with_policy();
    bed.run("ADD", &bed.conf("0.4.0", &json!({}))).result();
    bed.run("DEL", &bed.conf("0.4.0", &json!({}))).silent();
    let asked = bed.agent.asked();
    let [
        Asked::Add(_),
        Asked::Enforce(enforce),
        Asked::Del(_),
        Asked::DeletePolicy(delete),
    ] = asked.as_slice()
    else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (enforce.k8s_pod_namespace.as_str(), enforce.k8s_pod_name.as_str()),
        ("default", "sample-pod")
    );
    assert_eq!(
        (enforce.network_policy_mode.as_str(), enforce.interface_count),
        ("standard", 1)
    );
    assert_eq!(
        (delete.k8s_pod_namespace.as_str(), delete.k8s_pod_name.as_str()),
        ("default", "sample-pod")
    );
}
