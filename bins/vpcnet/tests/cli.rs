//! The command line as it is typed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use vpcnet_ipam::{
    CardIndex, CardLimits, DeviceIndex, EniId, Event, Evidence, Identity, InterfaceFacts, InterfaceKind,
    Limits, Mono, Now, Pool, SubnetId, Targets,
};

fn vpcnet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vpcnet"))
        .args(arguments)
        .env_remove("INTROSPECTION_BIND_ADDRESS")
        .output()
        .unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An m5.large with its primary interface, nine addresses and no pods, as `/v1/vpcnet/pool` shows it.
fn saved_pool() -> String {
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
    let mut pool = Pool::new(
        identity,
        limits,
        Targets {
            warm_eni: 2,
            ..Targets::default()
        },
    )
    .unwrap();
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
        addresses: (0..9).map(|n| [10, 0, 1, n].into()).collect(),
        prefixes: Vec::new(),
        ipv6_prefixes: Vec::new(),
        table: None,
    };
    let now = Now {
        mono: Mono(1000),
        wall_ns: 0,
    };
    pool.handle(
        now,
        Event::InterfaceSeen {
            facts,
            evidence: Evidence::Ec2,
        },
    );
    serde_json::json!({ "now": now, "pool": pool }).to_string()
}

#[test]
fn the_version_is_printed() {
    let output = vpcnet(&["--version"]);
    assert!(output.status.success());
    assert_eq!(
        said(&output.stdout),
        format!("vpcnet {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [&["statu"][..], &[], &["status", "--jsn"], &["plan", "a", "b"]] {
        let output = vpcnet(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            said(&output.stderr)
        );
    }
}

#[test]
fn without_an_agent_the_address_and_what_to_check_are_named() {
    // Bound and not listening: nobody else can get the port meanwhile.
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("127.0.0.1:{}", taken.local_addr().unwrap().port());
    for arguments in [
        &["status", "--address", &address][..],
        &["plan", "--why", "--address", &address],
    ] {
        let output = vpcnet(arguments);
        assert_eq!(output.status.code(), Some(1));
        let text = said(&output.stderr);
        assert!(
            text.contains(&address) && text.contains("is vpcnetd running") && text.contains("--address"),
            "{text}"
        );
    }
    let output = vpcnet(&["status", "--address", "unix:/nonexistent/socket"]);
    assert!(said(&output.stderr).contains("unix:/nonexistent/socket"));
}

#[test]
fn a_plan_is_explained_from_a_saved_pool_by_name_and_from_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pool.json");
    std::fs::write(&file, saved_pool()).unwrap();
    let output = vpcnet(&["plan", "--why", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output.stderr));
    let text = said(&output.stdout);
    assert!(
        text.contains("warm ENI target 2 × 9 addresses = 18 wanted free"),
        "{text}"
    );

    let mut child = Command::new(env!("CARGO_BIN_EXE_vpcnet"))
        .args(["plan", "--why", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(saved_pool().as_bytes())
        .unwrap();
    assert_eq!(said(&child.wait_with_output().unwrap().stdout), text);

    let output = vpcnet(&["plan", "--json", file.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        json["lines"].is_array() && json["plan"]["steps"].is_array(),
        "{json}"
    );
}

#[test]
fn a_file_that_is_no_pool_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pool.json");
    std::fs::write(&file, "{}").unwrap();
    let output = vpcnet(&["plan", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output.stderr).contains("pool.json holds no pool"),
        "{}",
        said(&output.stderr)
    );
    let output = vpcnet(&["plan", "/nonexistent/pool.json"]);
    assert!(said(&output.stderr).contains("cannot read /nonexistent/pool.json"));
}

/// Puts a program in its place by another process. One that this process wrote itself may be "busy" when it is run: a
/// child that another test starts meanwhile holds the descriptor it was written by until it has exec'd.
fn install(program: &Path, to: &Path) {
    let installed = Command::new("install")
        .args(["-m", "755"])
        .arg(program)
        .arg(to)
        .status();
    assert!(installed.unwrap().success());
}

#[test]
fn lab_hands_its_arguments_to_the_program_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("vpcnet");
    install(Path::new(env!("CARGO_BIN_EXE_vpcnet")), &copy);
    let missing = Command::new(&copy)
        .args(["lab", "up"])
        .env("PATH", dir.path().join("empty"))
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        said(&missing.stderr).contains("vpcnet-lab"),
        "{}",
        said(&missing.stderr)
    );

    let lab = dir.path().join("vpcnet-lab");
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 7\n").unwrap();
    install(&script, &lab);
    let output = Command::new(&copy)
        .args(["lab", "up", "--nodes", "2", "--help", "--", "a b"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(said(&output.stdout), "up\n--nodes\n2\n--help\n--\na b\n");
}
