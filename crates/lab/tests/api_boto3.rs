//! boto3 reads and drives the lab's faces, and moto's answers stand beside ours: clients and an EC2 that nobody here
//! wrote. What is asked and expected is in `boto3_drive.py`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpListener;
use vpcnet_lab::api::{Engine, serve_ec2, serve_imds};
use vpcnet_lab::model::{Bucket, FaultKind, FaultRule, FaultTarget, NodeSpec, RoleConfig, Vpc, VpcConfig};

/// The script takes seconds; this is for a machine that is busy with the rest of the tests.
const DEADLINE: Duration = Duration::from_secs(240);

/// The Python with boto3 and moto.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("VPCNET_PYTHON") {
        return python.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let python = target.join("venv/bin/python");
    assert!(
        python.exists(),
        "this test needs boto3 and moto in {}: run `make test-tools`, or set VPCNET_PYTHON to a Python that has both",
        python.display()
    );
    python
}

#[tokio::test]
async fn boto3_drives_every_operation() {
    let classes = [
        "BesideMoto",
        "Instances",
        "Interfaces",
        "Keys",
        "Metadata",
        "Reads",
        "Refusals",
    ];
    drive(&classes, Vec::new()).await;
}

#[tokio::test]
async fn boto3_drives_the_ipv6_operations_of_a_dual_stack_vpc() {
    drive_on(VpcConfig::instant().dual_stack(), &["Ipv6"], Vec::new()).await;
}

#[tokio::test]
async fn boto3_gets_through_lost_late_and_false_answers() {
    let rule = |action: &str, nth, kind| FaultRule {
        nth: Some(nth),
        ..FaultRule::new(FaultTarget::Ec2(action.to_owned()), kind)
    };
    let faults = vec![
        rule("CreateNetworkInterface", 1, FaultKind::LoseAnswer),
        rule(
            "DescribeVpcs",
            1,
            FaultKind::Error {
                code: "RequestLimitExceeded".to_owned(),
                status: 503,
            },
        ),
        rule("DescribeVpcs", 2, FaultKind::Hang),
        rule(
            "AttachNetworkInterface",
            1,
            FaultKind::ErrorAfter {
                code: "Unavailable".to_owned(),
                status: 503,
            },
        ),
    ];
    drive(&["Lossy"], faults).await;
}

/// Runs test classes of the script against faces of their own.
async fn drive(classes: &[&str], faults: Vec<FaultRule>) {
    drive_on(VpcConfig::instant(), classes, faults).await;
}

async fn drive_on(config: VpcConfig, classes: &[&str], faults: Vec<FaultRule>) {
    let mut config = VpcConfig { faults, ..config };
    config.buckets.enabled = true;
    let plenty = Bucket {
        size: 1e6,
        per_second: 1e6,
    };
    config.buckets.mutating = plenty;
    config.buckets.reads = plenty;
    // The script deletes a tag here and there, and at last makes twelve such calls at once.
    config.buckets.by_action.insert(
        "DeleteTags".to_owned(),
        Bucket {
            size: 7.0,
            per_second: 0.0,
        },
    );
    let mut vpc = Vpc::new(config, 1);
    let node = vpc
        .run_instance(Duration::ZERO, &NodeSpec::new("node-1", "m5.large"))
        .unwrap();
    let keys = vpc.role_credentials(RoleConfig::ADMIN).unwrap();
    let engine = Engine::new(vpc);

    let ec2 = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let imds = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lab = serde_json::json!({
        "ec2": format!("http://{}", ec2.local_addr().unwrap()),
        "imds": format!("http://{}", imds.local_addr().unwrap()),
        "node": node,
        "access_key": keys.access_key,
        "secret_key": keys.secret_key,
    });
    let clock = engine.clone();
    let tasks = [
        tokio::spawn(async move { clock.run().await }),
        tokio::spawn(serve_ec2(ec2, engine.clone())),
        tokio::spawn(serve_imds(imds, engine.clone(), move |_: IpAddr| {
            Some(node.clone())
        })),
    ];

    let script = tokio::process::Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/boto3_drive.py"))
        .args(classes)
        .env("LAB", lab.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, script)
        .await
        .expect("the script ends in time")
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(engine.with(|vpc, _| vpc.check()), Vec::<String>::new());
    for task in tasks {
        task.abort();
    }
}
