//! Bad input and faults: each gets an error object with its code and a message that names the thing and the cause, and
//! leaves kernel and pool as they were. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::agent::{added, allocation};
use common::{Answer, Asked, Bed, Outcome, Way};
use serde_json::{Value, json};
use vpcnet_rpc::direct::socket_beside;
use vpcnet_rpc::pb::{AddNetworkReply, EnforceNpReply};

/// ADD with another configuration or other variables fails so, without a change and without the agent being asked.
#[track_caller]
fn refused(bed: &Bed, conf: &[u8], change: &[(&str, &str)], code: u32, words: &[&str]) -> Value {
    let before = bed.state();
    let object = bed.run_with("ADD", conf, change).error(code, words);
    assert_eq!(bed.agent.asked(), vec![], "the agent was asked");
    assert_eq!(bed.state(), before, "the kernel changed");
    object
}

fn good(bed: &Bed) -> Vec<u8> {
    bed.conf("1.0.0", &json!({})).to_string().into_bytes()
}

#[test]
fn configurations_that_cannot_be_used() {
    let bed = Bed::new();
    refused(&bed, b"", &[], 6, &["not JSON"]);
    refused(&bed, b"{\"cniVersion\":", &[], 6, &["not JSON"]);
    refused(&bed, b"\xff\xfe", &[], 6, &["not JSON"]);
    refused(&bed, b"[]", &[], 6, &["expected an object, found an array"]);
    let with = |more: Value| bed.conf("1.0.0", &more).to_string().into_bytes();
    refused(&bed, &with(json!({ "cniVersion": 1 })), &[], 6, &["cniVersion"]);
    refused(
        &bed,
        &with(json!({ "cniVersion": "" })),
        &[],
        1,
        &["incompatible CNI versions"],
    );
    let object = refused(
        &bed,
        &with(json!({ "cniVersion": "2.0.0" })),
        &[],
        1,
        &["2.0.0", "1.1.0"],
    );
    assert_eq!(
        object["cniVersion"], "1.1.0",
        "the newest, as the asked one is not spoken"
    );
    refused(&bed, &with(json!({ "name": null })), &[], 7, &["name"]);
    refused(&bed, &with(json!({ "name": "a b" })), &[], 7, &["a b"]);
    refused(
        &bed,
        &with(json!({ "name": 5 })),
        &[],
        6,
        &["name", "the number 5"],
    );
    refused(
        &bed,
        &with(json!({ "mtu": 9001 })),
        &[],
        6,
        &["mtu", "the number 9001"],
    );
    refused(
        &bed,
        &with(json!({ "vethPrefix": "vpcni" })),
        &[],
        7,
        &["vpcni", "at most 4 characters"],
    );
    refused(
        &bed,
        &with(json!({ "vethPrefix": ["eni"] })),
        &[],
        6,
        &["vethPrefix", "an array"],
    );
    refused(
        &bed,
        &with(json!({ "runtimeConfig": "x" })),
        &[],
        6,
        &["runtimeConfig"],
    );
    let object = refused(
        &bed,
        &with(json!({ "prevResult": 3 })),
        &[],
        6,
        &["could not parse prevResult"],
    );
    assert_eq!(object["cniVersion"], "1.0.0");
}

#[test]
fn variables_that_are_missing_or_malformed() {
    let bed = Bed::new();
    let conf = good(&bed);
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
        refused(&bed, &conf, &[(name, "")], 4, &[name, "missing"]);
    }
    refused(
        &bed,
        &conf,
        &[("CNI_CONTAINERID", "../x")],
        4,
        &["CNI_CONTAINERID", "../x"],
    );
    refused(
        &bed,
        &conf,
        &[("CNI_IFNAME", "0123456789abcdef")],
        4,
        &["CNI_IFNAME", "15"],
    );
    refused(&bed, &conf, &[("CNI_IFNAME", "a/b")], 4, &["CNI_IFNAME"]);
    refused(
        &bed,
        &conf,
        &[("CNI_ARGS", "K8S_POD_NAME")],
        4,
        &["CNI_ARGS", "K8S_POD_NAME"],
    );
    refused(
        &bed,
        &conf,
        &[("CNI_ARGS", "FOO=1;K8S_POD_NAME=a;K8S_POD_NAMESPACE=b")],
        4,
        &["FOO", "IgnoreUnknown"],
    );
    refused(&bed, &conf, &[("CNI_ARGS", "")], 4, &["K8S_POD_NAME"]);
    refused(
        &bed,
        &conf,
        &[("CNI_ARGS", "K8S_POD_NAME=a")],
        4,
        &["K8S_POD_NAMESPACE"],
    );
    refused(
        &bed,
        &conf,
        &[("CNI_COMMAND", "GIVE")],
        4,
        &["CNI_COMMAND", "GIVE"],
    );
}

#[test]
fn namespaces_that_are_none() {
    let bed = Bed::new();
    let conf = good(&bed);
    let file = bed.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(
        &bed,
        &conf,
        &[("CNI_NETNS", "/run/netns/not-there")],
        8,
        &["CNI_NETNS", "/run/netns/not-there"],
    );
    refused(
        &bed,
        &conf,
        &[("CNI_NETNS", file.to_str().unwrap())],
        8,
        &[file.to_str().unwrap()],
    );
    refused(
        &bed,
        &conf,
        &[("CNI_NETNS", bed.dir.path().to_str().unwrap())],
        8,
        &[],
    );
    refused(
        &bed,
        &conf,
        &[("CNI_NETNS", "/proc/self/ns/uts")],
        8,
        &["/proc/self/ns/uts"],
    );
    refused(
        &bed,
        &conf,
        &[("CNI_NETNS", &bed.node.path())],
        8,
        &["own network namespace"],
    );
    refused(
        &bed,
        &conf,
        &[("CNI_NETNS", &bed.node.path()), ("CNI_NETNS_OVERRIDE", "1")],
        8,
        &[],
    );
}

#[test]
fn an_interface_name_that_is_taken() {
    let bed = Bed::new();
    bed.pod.ip(&["link", "add", "eth0", "type", "bridge"]);
    refused(
        &bed,
        &good(&bed),
        &[],
        4,
        &["CNI_IFNAME", "eth0", "exists already", &bed.pod.name],
    );
    refused(&bed, &good(&bed), &[("CNI_IFNAME", "lo")], 4, &["lo"]);
}

#[test]
fn an_add_repeated_for_a_running_container_leaves_it_its_address() {
    let bed = Bed::new();
    bed.run("ADD", &bed.conf("1.0.0", &json!({}))).result();
    bed.agent.asked();
    // Above all no DelNetwork: the agent would give the running pod's address away.
    refused(&bed, &good(&bed), &[], 4, &["exists already"]);
}

#[test]
fn verbs_that_the_version_does_not_define() {
    let bed = Bed::new();
    for (version, verb) in [("0.3.1", "CHECK"), ("1.0.0", "GC"), ("0.4.0", "STATUS")] {
        let object = bed
            .run(verb, &bed.conf(version, &json!({})))
            .error(1, &[verb, version]);
        assert_eq!(object["cniVersion"], version);
    }
}

/// ADD fails so while the agent behaves as set; kernel unchanged.
#[track_caller]
fn fails(bed: &Bed, code: u32, words: &[&str]) -> Outcome {
    let before = bed.state();
    let outcome = bed.run("ADD", &bed.conf("1.0.0", &json!({})));
    outcome.error(code, words);
    assert_eq!(bed.state(), before, "the kernel changed");
    outcome
}

#[test]
fn an_agent_that_is_down() {
    let mut bed = Bed::new();
    let socket = bed.socket();
    bed.agent.kill();
    let path = socket.to_str().unwrap().to_owned();
    fails(
        &bed,
        11,
        &["AddNetwork", &path, "refused", "aws-node", "ask again"],
    );
    std::fs::remove_file(&socket).unwrap();
    fails(
        &bed,
        11,
        &["AddNetwork", &path, "No such file", "aws-node", "ask again"],
    );
}

#[test]
fn an_agents_refusal_is_passed_on_in_its_own_words() {
    let bed = Bed::new();
    let dry = "no free address on eni-1 and eni-2, subnet subnet-1 is full; next try in 30 s";
    for (grpc, code) in [
        (tonic::Code::ResourceExhausted, 11),
        (tonic::Code::Unavailable, 11),
        (tonic::Code::InvalidArgument, 101),
        (tonic::Code::PermissionDenied, 101),
    ] {
        bed.agent.set(|a| a.add = Answer::Refuse(grpc, dry.to_owned()));
        fails(&bed, code, &[dry, "AddNetwork"]);
        let asked = bed.agent.asked();
        assert!(
            matches!(asked.as_slice(), [Asked::Add(_)]),
            "nothing was given, nothing goes back: {asked:?}"
        );
    }
    bed.agent
        .set(|a| a.add = Answer::With(AddNetworkReply::default()));
    fails(&bed, 11, &["AddNetwork", "Success=false"]);
}

#[test]
fn an_agent_that_dies_in_mid_call() {
    for way in [Way::Direct, Way::Grpc] {
        let mut bed = Bed::served(&[way]);
        bed.agent.set(|a| a.add = Answer::Never);
        let before = bed.state();
        let vars = bed.vars("ADD");
        let conf = good(&bed);
        std::thread::scope(|scope| {
            let node = &bed.node;
            let call = scope.spawn(move || common::run_in(node, &vars, &conf));
            bed.agent.wait_for_a_call();
            bed.agent.kill();
            call.join()
                .unwrap()
                .error(11, &["AddNetwork", "broke before the answer", "ask again"]);
        });
        assert_eq!(bed.state(), before);
    }
}

#[test]
fn something_on_the_socket_that_is_no_agent() {
    for way in [Way::Direct, Way::Grpc] {
        let bed = Bed::served(&[]);
        let socket = match way {
            Way::Direct => socket_beside(&bed.socket()),
            Way::Grpc => bed.socket(),
        };
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        fails(&bed, 11, &["AddNetwork", "ipamd.sock"]);
        server.join().unwrap();
    }
}

/// What was given is given back, for the original's reason.
#[track_caller]
fn given_back(bed: &Bed) {
    let asked = bed.agent.asked();
    let Some(Asked::Del(del)) = asked.iter().find(|a| matches!(a, Asked::Del(_))) else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (del.reason.as_str(), del.k8s_pod_uid.as_str()),
        ("SetupNSFailed", "")
    );
    assert_eq!((del.container_id.as_str(), del.if_name.as_str()), ("c1", "eth0"));
}

#[test]
fn answers_that_make_no_sense_go_back() {
    let bed = Bed::new();
    for (allocations, word) in [
        (vec![], "without an address"),
        (vec![allocation("10.0.1", 0, 254)], "10.0.1"),
        (vec![allocation("10.0.1.5", 0, -2)], "-2"),
    ] {
        bed.agent.set(|a| a.add = Answer::With(added(allocations)));
        fails(&bed, 102, &["AddNetwork", word]);
        given_back(&bed);
    }
    let same = vec![allocation("10.0.1.5", 0, 254), allocation("10.0.1.5", 1, 10101)];
    bed.agent.set(|a| a.add = Answer::With(added(same)));
    fails(&bed, 103, &["10.0.1.5"]);
    given_back(&bed);
}

#[test]
fn branch_pods_are_refused() {
    let bed = Bed::new();
    let branch = AddNetworkReply {
        pod_vlan_id: 7,
        ..added(vec![allocation("10.0.1.5", -1, 0)])
    };
    bed.agent.set(|a| a.add = Answer::With(branch));
    fails(
        &bed,
        100,
        &["branch-ENI pods are not supported by this version", "7"],
    );
    given_back(&bed);
}

#[test]
fn a_step_of_the_kernel_that_fails_is_undone_and_the_address_goes_back() {
    let bed = Bed::new();
    // A link of the host that is no pod's has the name: it must stay.
    bed.node.ip(&["link", "add", common::HOST_LINK, "type", "bridge"]);
    fails(&bed, 103, &[common::HOST_LINK]);
    given_back(&bed);
}

#[test]
fn what_was_made_before_the_failing_step_is_unmade() {
    let bed = Bed::new();
    // The pod's namespace has a default route already: links and addresses are made before the kernel refuses ours.
    bed.pod.ip(&["link", "add", "other", "type", "bridge"]);
    bed.pod.ip(&["link", "set", "other", "up"]);
    bed.pod
        .ip(&["route", "add", "default", "dev", "other", "scope", "link"]);
    fails(&bed, 103, &["default"]);
    given_back(&bed);
}

#[test]
fn an_address_that_cannot_be_given_back_is_told() {
    let bed = Bed::new();
    bed.node.ip(&["link", "add", common::HOST_LINK, "type", "bridge"]);
    bed.agent
        .set(|a| a.del = Answer::Refuse(tonic::Code::Unavailable, "disk full".to_owned()));
    fails(
        &bed,
        103,
        &[common::HOST_LINK, "taking back", "DelNetwork: disk full"],
    );
}

#[test]
fn without_the_policy_agent_nothing_stays() {
    let mut bed = Bed::new();
    bed.agent.name_policy_mode();
    fails(&bed, 104, &["npa.sock", "EnforceNpToPod"]);
    given_back(&bed);
    bed.agent.with_policy();
    bed.agent
        .set(|a| a.enforce = Answer::With(EnforceNpReply { success: false }));
    fails(&bed, 104, &["EnforceNpToPod", "Success=false"]);
    let asked = bed.agent.asked();
    assert!(
        asked.iter().any(|a| matches!(a, Asked::DeletePolicy(_))),
        "{asked:?}"
    );
    assert!(asked.iter().any(|a| matches!(a, Asked::Del(_))), "{asked:?}");
}
