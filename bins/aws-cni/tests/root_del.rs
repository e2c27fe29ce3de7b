//! The table of DEL: what is removed and what is answered in each situation. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::agent::{allocation, deleted};
use common::{Answer, Asked, Bed, Outcome};
use serde_json::{Value, json};
use vpcnet_rpc::pb::{DelNetworkReply, DeleteNpReply};

/// A pod that ADD made, and the configuration for its DEL.
fn with_pod() -> (Bed, Value) {
    let bed = Bed::new();
    let result = bed.run("ADD", &bed.conf("0.4.0", &json!({}))).result();
    bed.agent.asked();
    let conf = bed.conf("0.4.0", &json!({ "prevResult": result }));
    (bed, conf)
}

fn rules(bed: &Bed) -> usize {
    bed.node
        .ip(&["rule", "show"])
        .lines()
        .filter(|l| l.contains("10.0.1.5"))
        .count()
}

fn without_netns(bed: &Bed, conf: &Value) -> Outcome {
    bed.run_with("DEL", conf.to_string().as_bytes(), &[("CNI_NETNS", "")])
}

#[test]
fn agent_away_the_result_of_add_is_gone_by() {
    let (mut bed, conf) = with_pod();
    assert_eq!(rules(&bed), 2);
    bed.agent.kill();
    bed.run("DEL", &conf).silent();
    assert_eq!(rules(&bed), 0);
    assert_eq!(bed.node.ip(&["route", "show", "10.0.1.5"]), "");
}

#[test]
fn agent_refuses_the_result_of_add_is_gone_by() {
    let (bed, conf) = with_pod();
    bed.agent
        .set(|a| a.del = Answer::Refuse(tonic::Code::FailedPrecondition, "wrong client version".to_owned()));
    bed.run("DEL", &conf).silent();
    assert_eq!(rules(&bed), 0);
}

#[test]
fn agent_away_and_no_result_is_still_success() {
    let (mut bed, _) = with_pod();
    bed.agent.kill();
    let outcome = bed.run("DEL", &bed.conf("0.4.0", &json!({})));
    outcome.silent();
    assert!(
        outcome.stderr.contains("no result of ADD to go by"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_result_of_the_originals_is_gone_by_too() {
    // As version 1.23 prints it, with what egress-cni adds behind; the table stands in the interface's mac.
    let (mut bed, _) = with_pod();
    let prev = json!({ "cniVersion": "0.4.0",
        "interfaces": [
            { "name": "enicc21c2d7785" },
            { "name": "eth0", "mac": "2", "sandbox": bed.pod.path() },
            { "name": "dummycc21c2d7785", "mac": "0", "sandbox": "1" },
            { "name": "vethv6if", "mac": "aa:bb:cc:dd:ee:ff" },
            { "name": "v6if0", "mac": "aa:bb:cc:dd:ee:fe", "sandbox": bed.pod.path() },
        ],
        "ips": [{ "version": "4", "interface": 1, "address": "10.0.1.5/32" },
                { "version": "6", "interface": 4, "address": "fd00::ac:1/118", "gateway": "fd00::ac:2" }],
        "dns": {} });
    bed.agent.kill();
    bed.run("DEL", &bed.conf("0.4.0", &json!({ "prevResult": prev })))
        .silent();
    assert_eq!(rules(&bed), 0);
}

#[test]
fn an_unknown_pod_is_success_and_the_policy_agent_is_left_alone() {
    let (mut bed, conf) = with_pod();
    bed.agent.with_policy();
    let text = "rpc error: datastore: unknown pod";
    bed.agent
        .set(|a| a.del = Answer::Refuse(tonic::Code::Unknown, text.to_owned()));
    bed.run("DEL", &conf).silent();
    let asked = bed.agent.asked();
    assert!(matches!(asked.as_slice(), [Asked::Del(_)]), "{asked:?}");
}

#[test]
fn a_bare_no_of_the_agent_is_an_error() {
    let (bed, conf) = with_pod();
    bed.agent
        .set(|a| a.del = Answer::With(DelNetworkReply::default()));
    bed.run("DEL", &conf).error(11, &["DelNetwork", "Success=false"]);
    assert_eq!(rules(&bed), 2);
}

#[test]
fn a_reply_without_address_is_success() {
    let (bed, conf) = with_pod();
    bed.agent.set(|a| a.del = Answer::With(deleted(vec![])));
    let outcome = bed.run("DEL", &conf);
    outcome.silent();
    assert!(outcome.stderr.contains("named no address"), "{}", outcome.stderr);
}

#[test]
fn an_address_of_another_pod_by_now_is_not_touched() {
    let (bed, conf) = with_pod();
    // The address went to another pod: its route leads to another link.
    bed.node.ip(&["link", "add", "eniother", "type", "bridge"]);
    bed.node.ip(&["link", "set", "eniother", "up"]);
    bed.node
        .ip(&["route", "replace", "10.0.1.5", "dev", "eniother", "scope", "link"]);
    bed.run("DEL", &conf).silent();
    assert_eq!(rules(&bed), 2);
    assert!(bed.node.ip(&["route", "show", "10.0.1.5"]).contains("eniother"));
}

#[test]
fn rules_that_older_releases_wrote_for_each_cidr_go_too() {
    let (bed, conf) = with_pod();
    for cidr in ["10.0.0.0/16", "172.31.0.0/16"] {
        bed.node.ip(&[
            "rule", "add", "priority", "1536", "from", "10.0.1.5", "to", cidr, "lookup", "2",
        ]);
    }
    assert_eq!(rules(&bed), 4);
    bed.run("DEL", &conf).silent();
    assert_eq!(rules(&bed), 0);
}

#[test]
fn branch_pods_are_refused_but_for_those_whose_namespace_is_gone() {
    let (bed, mut conf) = with_pod();
    conf["prevResult"]["interfaces"][2]["mac"] = json!("7");
    let before = bed.state();
    bed.run("DEL", &conf)
        .error(100, &["branch-ENI pods are not supported by this version", "7"]);
    without_netns(&bed, &conf).silent();
    assert_eq!(bed.agent.asked(), vec![], "neither agent is asked");
    // The same when only the agent knows it.
    let conf = bed.conf("0.4.0", &json!({}));
    bed.agent.set(|a| {
        a.del = Answer::With(DelNetworkReply {
            pod_vlan_id: 7,
            ..deleted(vec![allocation("10.0.1.5", -1, 0)])
        });
    });
    bed.run("DEL", &conf).error(100, &["branch-ENI"]);
    without_netns(&bed, &conf).silent();
    assert_eq!(bed.state(), before);
}

#[test]
fn a_malformed_note_in_the_result_is_an_error_before_anything_is_done() {
    let (bed, mut conf) = with_pod();
    conf["prevResult"]["interfaces"][2]["mac"] = json!("seven");
    bed.run("DEL", &conf)
        .error(6, &["malformed vlanID in prevResult", "seven"]);
    conf["prevResult"]["ips"][0]["address"] = json!("nowhere");
    bed.run("DEL", &conf)
        .error(6, &["could not parse prevResult", "nowhere"]);
    assert_eq!(bed.agent.asked(), vec![]);
    assert_eq!(rules(&bed), 2);
}

#[test]
fn a_policy_agent_that_is_away_fails_del_after_the_rest_is_done() {
    let (bed, conf) = with_pod();
    bed.agent.name_policy_mode();
    bed.run("DEL", &conf).error(104, &["npa.sock", "DeletePodNp"]);
    assert_eq!(rules(&bed), 0);
}

#[test]
fn a_policy_agent_that_refuses_is_only_logged() {
    let (mut bed, conf) = with_pod();
    bed.agent.with_policy();
    bed.agent
        .set(|a| a.delete_policy = Answer::With(DeleteNpReply { success: false }));
    let outcome = bed.run("DEL", &conf);
    outcome.silent();
    assert!(outcome.stderr.contains("DeletePodNp"), "{}", outcome.stderr);
}

#[test]
fn the_plugins_own_namespace_is_told_after_the_work() {
    let (bed, conf) = with_pod();
    let conf = conf.to_string();
    let own = bed.node.path();
    bed.run_with("DEL", conf.as_bytes(), &[("CNI_NETNS", &own)])
        .error(8, &[&own, "own network namespace"]);
    assert_eq!(rules(&bed), 0);
    bed.run_with(
        "DEL",
        conf.as_bytes(),
        &[("CNI_NETNS", &own), ("CNI_NETNS_OVERRIDE", "1")],
    )
    .silent();
}

#[test]
fn a_namespace_that_is_gone_is_what_del_is_for() {
    let (bed, conf) = with_pod();
    bed.pod.ip(&["link", "del", "eth0"]);
    bed.run_with(
        "DEL",
        conf.to_string().as_bytes(),
        &[("CNI_NETNS", "/run/netns/gone-long-ago")],
    )
    .silent();
    assert_eq!(rules(&bed), 0);
}
