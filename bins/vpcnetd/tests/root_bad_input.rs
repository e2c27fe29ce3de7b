//! A start among broken things, which only root can show: a read-only disk, an IMDS that serves a log-in page.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use vpcnet_ipam::{Answer, Cards, PodKey, PodMeta, RefusalCause};
use vpcnet_rpc::node::StatusRequest;
use vpcnet_rpc::{direct, method};
use vpcnetd::core::{Core, Files};
use vpcnetd::metrics::Metrics;
use vpcnetd::store::FileStore;
use vpcnetd::{clock, files};

use common::root::{Tmpfs, need_root, run};
use common::{SOON, started};

fn pod(n: u32) -> (PodKey, PodMeta) {
    let key = PodKey {
        network: "aws-cni".into(),
        container_id: format!("sandbox-{n}"),
        if_name: "eth0".into(),
    };
    let meta = PodMeta {
        namespace: "default".into(),
        name: format!("pod-{n}"),
        interfaces: 1,
    };
    (key, meta)
}

#[tokio::test]
async fn on_a_read_only_disk_the_agent_starts_refuses_pods_with_the_reason_and_serves_when_it_can_write() {
    need_root();
    let disk = Tmpfs::new(256);
    let stores = || Files {
        checkpoint: FileStore::new(disk.path().join("ipam.json")),
        state: FileStore::new(disk.path().join("vpcnet-state.json")),
    };
    // A broken file that cannot even be set aside.
    let broken = r#"{"version":"vpc-cni-ipam/1","allocations":[{"netw"#;
    fs::write(disk.path().join("ipam.json"), broken).unwrap();
    disk.remount("ro");
    let metrics = Metrics::new().unwrap();
    let found = files::read(&stores(), &metrics);
    assert!(found.checkpoint.is_none());
    assert!(
        found.notes[0].contains("will be overwritten") && found.notes[0].contains("Read-only file system"),
        "{:?}",
        found.notes
    );
    let (core, handle, _orders) = Core::new(stores(), Arc::clone(&metrics));
    tokio::spawn(core.run());
    handle.start(started(2, false));
    let add = async |n| {
        let (key, meta) = pod(n);
        let deadline = clock::mono().plus(SOON);
        handle.add(key, meta, Cards::Any, deadline).await.unwrap()
    };
    let Answer::Refused(refusal) = add(1).await else {
        panic!("an address that is written down nowhere was given")
    };
    assert_eq!(refusal.cause, RefusalCause::CheckpointFailed);
    assert!(
        refusal.message.contains("ipam.json") && refusal.message.contains("Read-only file system"),
        "{}",
        refusal.message
    );
    let told = handle
        .look(|v| v.checkpoint_error.map(str::to_owned))
        .await
        .unwrap();
    assert!(told.unwrap().contains("Read-only file system"));
    assert_eq!(fs::read_to_string(disk.path().join("ipam.json")).unwrap(), broken);
    disk.remount("rw");
    common::until("an ADD works again", async || {
        matches!(add(1).await, Answer::Assigned(_))
    })
    .await;
    let text = fs::read_to_string(disk.path().join("ipam.json")).unwrap();
    assert!(text.contains("sandbox-1"), "{text}");
}

/// Set in the process that the test starts for itself in a network namespace of its own: where its files are.
const INSIDE: &str = "VPCNET_TEST_FILES";
const LOG_IN: &str = "<html><body>Please log in</body></html>";

/// The agent, whatever the test comes to.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_imds_that_serves_a_log_in_page_keeps_the_agent_waiting_and_it_says_what_it_was_served() {
    if let Ok(directory) = std::env::var(INSIDE) {
        return inside(Path::new(&directory));
    }
    need_root();
    let dir = tempfile::tempdir().unwrap();
    let name = "an_imds_that_serves_a_log_in_page_keeps_the_agent_waiting_and_it_says_what_it_was_served";
    let output = Command::new("unshare")
        .args(["-n", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Serves the page to whoever asks for anything.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some() {
                while lines.next().is_some_and(|l| l.is_ok_and(|l| !l.is_empty())) {}
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{LOG_IN}",
                    LOG_IN.len()
                );
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}

fn inside(directory: &Path) {
    run("ip", &["link", "set", "lo", "up"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || serve(&listener));
    let socket = directory.join("ipamd.sock");
    let child = Command::new(env!("CARGO_BIN_EXE_vpcnetd"))
        .env("VPCNET_SOCKET", &socket)
        .env("AWS_VPC_K8S_CNI_BACKING_STORE", directory.join("ipam.json"))
        .env("AWS_VPC_K8S_CNI_LOG_FILE", directory.join("log"))
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
        .env("DISABLE_INTROSPECTION", "true")
        .env("DISABLE_METRICS", "true")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut agent = Agent(child);
    let deadline = Instant::now() + SOON;
    loop {
        let asked = direct::Connection::open(&direct::socket_beside(&socket), SOON)
            .map_err(|e| e.to_string())
            .and_then(|c| {
                c.call(&method::STATUS, &StatusRequest {}, SOON)
                    .map_err(|e| e.to_string())
            });
        let said = match asked {
            Ok(reply) => {
                assert!(!reply.ready);
                reply.message
            }
            Err(error) => error,
        };
        // The path, and what is wrong with it.
        if said.contains("IMDS") && said.contains("mac") && said.contains("MAC address") {
            break;
        }
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "{said}\n{}", log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(agent.0.try_wait().unwrap().is_none(), "it goes on asking");
}
