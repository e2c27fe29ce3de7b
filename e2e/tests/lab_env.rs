//! Promise 9: what `vpcnet lab env NODE` prints is enough to run any agent, and any EC2 client, in that node by hand.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vpcnet_e2e::{Lab, Node, Options, binary, wait_for};

#[test]
fn an_agent_started_by_hand_with_what_env_prints_serves_pods() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large", "--no-agent"],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    let script = format!(
        "eval \"$({} env node-1)\"; exec $VPCNET_LAB_ENTER {}",
        binary("vpcnet-lab").display(),
        binary("vpcnetd").display()
    );
    let log = lab.directory().join("log/by-hand.log");
    let file = std::fs::File::create(&log).expect("a log file");
    let mut agent = Command::new("bash")
        .args(["-c", &script])
        .env("VPCNET_LAB_DIR", lab.directory())
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("another handle"))
        .stderr(file)
        .spawn()
        .expect("bash starts");

    node.wait_until_ready(Duration::from_secs(60));
    let address = node.must_add("web");
    assert_eq!(node.kernel_address("web"), address);
    node.remove("web").unwrap_or_else(|e| panic!("{e}"));

    // By its process id, SIGTERM: it ends cleanly.
    let pid = agent.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().is_ok_and(|s| s.success()));
    let status = wait_for("the agent ends", Duration::from_secs(20), || {
        agent.try_wait().ok().flatten()
    });
    assert!(
        status.success(),
        "after SIGTERM it ended with {status}: {}",
        std::fs::read_to_string(log).unwrap_or_default()
    );
}

#[test]
fn boto3_reads_the_node_with_what_env_prints() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large", "--no-agent"],
        env: &[],
    });
    let python = std::env::var_os("VPCNET_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python3"),
        PathBuf::from,
    );
    assert!(
        python.exists(),
        "{} is not there: run `make test-tools` first",
        python.display()
    );
    let program = "import boto3\n\
                   for r in boto3.client('ec2').describe_instances()['Reservations']:\n\
                   \x20   for i in r['Instances']: print(i['InstanceId'], i['PrivateIpAddress'], i['InstanceType'])";
    let script = format!(
        "eval \"$({} env node-1)\"; exec $VPCNET_LAB_ENTER {} -c \"$1\"",
        binary("vpcnet-lab").display(),
        python.display()
    );
    let output = Command::new("bash")
        .args(["-c", &script, "bash", program])
        .env("VPCNET_LAB_DIR", lab.directory())
        .output()
        .expect("bash starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let node = Node::new(&lab, "node-1").status();
    for fact in ["instance", "primary", "instance_type"] {
        let fact = node[fact].as_str().unwrap_or("?");
        assert!(said.contains(fact), "boto3 does not see {fact}: {said}");
    }
}
