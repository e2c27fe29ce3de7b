//! `vpcnet explain pod` and `vpcnet status` as they are read, with an agent that says what it is told to say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::{Value, json};
use vpcnet_ipam::{
    CardIndex, CardLimits, Cards, DeviceIndex, EniId, Event, Evidence, Identity, InterfaceFacts,
    InterfaceKind, Limits, Mono, Now, PodKey, PodMeta, Pool, RequestId, SubnetId, Targets,
};

const START: u64 = 1_000_000;

fn at(ms: u64) -> Now {
    Now {
        mono: Mono(START + ms),
        wall_ns: 1_700_000_000_000_000_000 + i64::try_from(ms).unwrap() * 1_000_000,
    }
}

/// One interface with two addresses, which cannot grow.
fn pool() -> Pool {
    let limits = Limits {
        cards: vec![CardLimits {
            card: CardIndex(0),
            interfaces: 3,
        }],
        ipv4_per_interface: 10,
    };
    let identity = Identity {
        instance_id: "i-1".into(),
        token_salt: "salt".into(),
        boot_id: "boot".into(),
    };
    let targets = Targets {
        max_eni: Some(1),
        max_pods: 2,
        ..Targets::default()
    };
    let mut pool = Pool::new(identity, limits, targets).unwrap();
    let facts = InterfaceFacts {
        id: EniId("eni-1".into()),
        mac: "02:00:00:00:00:01".into(),
        device: DeviceIndex(0),
        card: CardIndex(0),
        subnet: SubnetId("subnet-1".into()),
        subnet_cidr: "10.0.0.0/20".parse().unwrap(),
        primary_address: [10, 0, 0, 10].into(),
        is_primary: true,
        kind: InterfaceKind::Interface,
        managed: true,
        addresses: (0..2).map(|n| [10, 0, 1, n].into()).collect(),
        prefixes: Vec::new(),
        ipv6_prefixes: Vec::new(),
    };
    let ids = vec![facts.id.clone()];
    let evidence = Evidence::Ec2;
    pool.handle(at(0), Event::InterfaceSeen { facts, evidence });
    pool.handle(at(0), Event::InterfacesListed { ids, evidence });
    pool
}

fn sandbox(n: u32) -> (PodKey, PodMeta) {
    let key = PodKey {
        network: "aws-cni".into(),
        container_id: format!("sandbox-{n}"),
        if_name: "eth0".into(),
    };
    let meta = PodMeta {
        namespace: "default".into(),
        name: format!("web-{n}"),
        interfaces: 1,
    };
    (key, meta)
}

fn add(pool: &mut Pool, ms: u64, n: u32) {
    let (key, meta) = sandbox(n);
    pool.handle(
        at(ms),
        Event::PodWants {
            request: RequestId(n.into()),
            key,
            meta,
            deadline: Mono(START + ms + 60_000),
            cards: Cards::Any,
        },
    );
}

fn del(pool: &mut Pool, ms: u64, n: u32) {
    let (key, meta) = sandbox(n);
    let request = RequestId(100 + u64::from(n));
    pool.handle(at(ms), Event::PodGone { request, key, meta });
}

/// The agent's page on a pod.
fn page(pool: &Pool, ms: u64, name: &str, musts: &Value, refused: &Value) -> Value {
    let report = pool.explain_pod(at(ms), "default", name, &[]);
    let kernel: Vec<Value> = report
        .holds
        .iter()
        .map(|_| json!({"musts": musts, "error": null}))
        .collect();
    json!({
        "namespace": "default", "name": name, "now_ns": at(ms).wall_ns, "starting": "", "pod": report,
        "kernel": kernel, "refused": refused,
    })
}

fn refusal(name: &str) -> Value {
    json!({
        "meta": {"namespace": "default", "name": name, "interfaces": 1},
        "key": {"network": "aws-cni", "container_id": "sandbox-9", "if_name": "eth0"},
        "verb": "ADD", "at_ns": at(0).wall_ns, "waited_ms": 60_000, "cause": "instance_full",
        "message": "all 3 interfaces that instance i-1 can have are full", "retry_in_ms": 2_500, "times": 3,
    })
}

/// Runs the command against an agent that answers one request with this.
fn run(arguments: &[&str], answer: &Value) -> (Output, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let body = answer.to_string();
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        request.truncate(read);
        String::from_utf8(request).unwrap()
    });
    let output = Command::new(env!("CARGO_BIN_EXE_vpcnet"))
        .args(arguments)
        .args(["--address", &address])
        .output()
        .unwrap();
    let request = agent.join().unwrap();
    (output, request.lines().next().unwrap().to_owned())
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_pod_that_has_an_address_is_explained_down_to_the_rule_that_is_missing() {
    let mut pool = pool();
    add(&mut pool, 12_000, 1);
    let musts = json!([
        {"what": "link enicc21c2d7785 up", "is_so": true, "found": "mtu 9001"},
        {"what": "rule 512: from all to 10.0.1.0/32 table 254", "is_so": false, "found": "it is missing"},
    ]);
    let answer = page(&pool, 75_000, "web-1", &musts, &Value::Null);
    let (output, request) = run(&["explain", "pod", "default/web-1"], &answer);
    assert_eq!(
        request,
        "GET /v1/vpcnet/explain?namespace=default&name=web-1 HTTP/1.1"
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    assert_eq!(
        said(&output.stdout),
        "\
default/web-1 has 10.0.1.0; the host lacks something for it: see ✗
  sandbox    sandbox-1, given 1 min 3 s ago
  interface  eni-1 (device 0 of card 0, 02:00:00:00:00:01, subnet-1)
  table      main: the interface is the primary one
  why it     of those on the first interface that had one it had lain idle longest, 12.0 s
  owner      it asked for the address in this life of the agent
  ✓ link enicc21c2d7785 up (mtu 9001)
  ✗ rule 512: from all to 10.0.1.0/32 table 254 (it is missing)
"
    );
    let (output, _) = run(&["explain", "pod", "--json", "default/web-1"], &answer);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, answer, "all of it, for programs");
}

#[test]
fn a_pod_that_waits_is_told_what_for_until_when_and_when_it_is_tried_again() {
    let mut pool = pool();
    add(&mut pool, 0, 1);
    add(&mut pool, 0, 2);
    del(&mut pool, 1_000, 1);
    add(&mut pool, 2_000, 3);
    let (output, _) = run(
        &["explain", "pod", "default/web-3"],
        &page(&pool, 5_000, "web-3", &json!([]), &Value::Null),
    );
    let text = said(&output.stdout);
    assert!(
        text.starts_with("default/web-3 waits for an address, for 3 s now, 57 s more at most\n"),
        "{text}"
    );
    assert!(text.contains("1 cool down"), "{text}");
    assert!(text.ends_with("  next try   in 26 s\n"), "{text}");
    let (output, _) = run(
        &["explain", "pod", "default/web-1"],
        &page(&pool, 5_000, "web-1", &json!([]), &Value::Null),
    );
    assert_eq!(
        said(&output.stdout),
        "default/web-1 had 10.0.1.0 on eni-1 until 4 s ago, which cools down for 26 s more\n"
    );
}

#[test]
fn a_pod_that_was_refused_is_told_why_also_when_nobody_waits_any_more() {
    let answer = page(&pool(), 90_000, "web-9", &json!([]), &refusal("web-9"));
    let (output, _) = run(&["explain", "pod", "default/web-9"], &answer);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        said(&output.stdout),
        "default/web-9's ADD was refused 1 min 30 s ago after waiting 1 min, 3 times in all: all 3 interfaces that instance i-1 can \
         have are full; it was to be tried again 2.5 s later\n"
    );
}

#[test]
fn a_pod_that_nobody_knows_is_exit_code_1_and_what_is_no_name_2() {
    let answer = page(&pool(), 0, "web-7", &json!([]), &Value::Null);
    let (output, _) = run(&["explain", "pod", "default/web-7"], &answer);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output.stderr);
    assert!(
        text.contains("knows nothing of pod default/web-7") && text.contains("hostNetwork"),
        "{text}"
    );
    for name in ["web-7", "a/b/c", "default/web?7"] {
        let output = Command::new(env!("CARGO_BIN_EXE_vpcnet"))
            .args(["explain", "pod", name])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(said(&output.stderr).contains("NAMESPACE/NAME"), "{name}");
    }
}

#[test]
fn the_status_says_first_what_is_wrong_then_who_waits_then_what_there_is() {
    let mut pool = pool();
    add(&mut pool, 0, 1);
    add(&mut pool, 0, 2);
    del(&mut pool, 1_000, 1);
    add(&mut pool, 2_000, 3);
    pool.handle(
        at(3_000),
        Event::SubnetFacts {
            subnet: "subnet-1".into(),
            free_addresses: 17,
            free_prefixes: Some(3),
        },
    );
    let answer = json!({
        "agent": {
            "version": "0.1.0", "uptime_ms": 11_100_000_u64, "node": "node-1", "ready": true, "starting": "",
            "impaired": "pods may not reach addresses outside the VPC: the SNAT table is not in force: nft is not there",
            "checkpoint_error": "cannot write /x/ipam.json (write temporary file): No space left on device",
            "contested": ["the node's interfaces"], "kept": ["x for 2 connections"], "notes": ["n1"],
        },
        "instance": {"instance_id": "i-1", "instance_type": "m5.large", "availability_zone": "eu-1a"},
        "now_ns": at(90_000).wall_ns, "refused": [refusal("web-9")],
        "pool": pool.view(at(5_000)),
    });
    let (output, request) = run(&["status"], &answer);
    assert_eq!(request, "GET /v1/vpcnet/status HTTP/1.1");
    assert_eq!(output.status.code(), Some(0));
    let text = said(&output.stdout);
    let begins: Vec<&str> = text
        .lines()
        .map(|l| l.split([' ', ':']).next().unwrap())
        .collect();
    assert_eq!(
        begins,
        [
            "vpcnetd", "!", "!", "!", "kept", "!", "waiting", "refused", "1", "", ""
        ],
        "{text}"
    );
    assert!(
        text.starts_with("vpcnetd 0.1.0 on node-1 (i-1 m5.large, eu-1a), up 3 h 5 min: serving\n"),
        "{text}"
    );
    assert!(
        text.contains("waiting default/web-3 for 3 s, 57 s more at most: ")
            && text.contains("the first for 26 s more"),
        "{text}"
    );
    assert!(
        text.contains("\n  subnet-1: 17 addresses and 3 /28 blocks left\n"),
        "{text}"
    );
}
