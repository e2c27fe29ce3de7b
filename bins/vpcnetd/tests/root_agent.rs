//! The agent's process, and what only root can show: full and read-only disks, callers with another user id.
//!
//! Each test makes what it needs (a tmpfs, a network namespace of its own) and takes it away, also when it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::SOON;
use common::root::{Tmpfs, need_root};
use vpcnet_rpc::node::StatusRequest;
use vpcnet_rpc::node::node_agent_client::NodeAgentClient;
use vpcnet_rpc::pb::AddNetworkRequest;
use vpcnet_rpc::pb::cni_backend_client::CniBackendClient;
use vpcnet_rpc::{Connection, direct, method};
use vpcnetd::store::FileStore;

const NOBODY: u32 = 65_534;

#[test]
fn on_a_full_disk_the_old_content_stands_and_writing_works_again_when_there_is_room() {
    need_root();
    let disk = Tmpfs::new(64);
    let store = FileStore::new(disk.path().join("ipam.json"));
    store.write(b"old").unwrap();
    fs::write(disk.path().join("filler"), vec![0; 56 * 1024]).unwrap();
    let error = store.write(&vec![b'n'; 32 * 1024]).unwrap_err().to_string();
    assert!(
        error.contains("write temporary file") && error.contains("ipam.json"),
        "{error}"
    );
    assert_eq!(store.read().unwrap().unwrap(), b"old");
    assert_eq!(
        fs::read_dir(disk.path()).unwrap().count(),
        2,
        "no half-written file is left to fill the disk"
    );
    fs::remove_file(disk.path().join("filler")).unwrap();
    store.write(b"new").unwrap();
    assert_eq!(store.read().unwrap().unwrap(), b"new");
}

#[test]
fn on_a_read_only_disk_reading_works_and_writing_says_so() {
    need_root();
    let disk = Tmpfs::new(64);
    let store = FileStore::new(disk.path().join("ipam.json"));
    store.write(b"old").unwrap();
    disk.remount("ro");
    let error = store.write(b"new").unwrap_err().to_string();
    assert!(error.contains("Read-only file system"), "{error}");
    assert!(store.set_aside().is_err());
    assert_eq!(store.read().unwrap().unwrap(), b"old");
    disk.remount("rw");
    store.write(b"new").unwrap();
}

/// A vpcnetd in a network namespace of its own, where nobody answers.
struct Agent {
    child: Child,
    dir: tempfile::TempDir,
}

impl Agent {
    fn start(dir: tempfile::TempDir) -> Self {
        let child = Command::new("unshare")
            .args(["-n", "--", env!("CARGO_BIN_EXE_vpcnetd")])
            .env("VPCNET_SOCKET", dir.path().join("ipamd.sock"))
            .env("AWS_VPC_K8S_CNI_BACKING_STORE", dir.path().join("ipam.json"))
            .env("AWS_VPC_K8S_CNI_LOG_FILE", dir.path().join("log"))
            .env(
                "INTROSPECTION_BIND_ADDRESS",
                format!("unix:{}", dir.path().join("introspection.sock").display()),
            )
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("ipamd.sock")
    }

    fn serving() -> Self {
        let agent = Self::start(tempfile::tempdir().unwrap());
        let deadline = Instant::now() + SOON;
        while UnixStream::connect(agent.socket()).is_err() {
            assert!(
                Instant::now() < deadline,
                "the socket is not served: {}",
                agent.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        agent
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Somebody waits for an answer: the status page counts the callers.
    fn is_waited_for(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.dir.path().join("introspection.sock")) else {
            return false;
        };
        stream
            .write_all(b"GET /v1/vpcnet/status HTTP/1.0\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page.contains("\"callers\":1")
    }

    /// `unshare` becomes the program it starts, so this is the agent's own process.
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The agent's status by the direct socket, as our plugin asks for it.
fn status_directly(socket: &Path) -> Result<vpcnet_rpc::node::StatusReply, String> {
    let connection =
        direct::Connection::open(&direct::socket_beside(socket), SOON).map_err(|e| e.to_string())?;
    connection
        .call(&method::STATUS, &StatusRequest {}, SOON)
        .map_err(|e| e.to_string())
}

/// The agent's status by gRPC.
async fn status(socket: &Path) -> Result<vpcnet_rpc::node::StatusReply, tonic::Status> {
    let connection = Connection::unix(socket, SOON)
        .await
        .map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    Ok(NodeAgentClient::new(connection)
        .status(StatusRequest {})
        .await?
        .into_inner())
}

/// An ADD that must fail.
async fn add(socket: &Path) -> tonic::Status {
    let connection = Connection::unix(socket, SOON).await.unwrap();
    let request = AddNetworkRequest {
        network_name: "aws-cni".into(),
        container_id: "sandbox".into(),
        if_name: "eth0".into(),
        ..AddNetworkRequest::default()
    };
    CniBackendClient::new(connection)
        .add_network(request)
        .await
        .unwrap_err()
}

#[test]
fn without_imds_the_agent_is_there_says_why_it_is_not_ready_and_ends_when_told_to() {
    need_root();
    let mut agent = Agent::serving();
    let deadline = Instant::now() + SOON;
    loop {
        let reply = block_on(status(&agent.socket())).unwrap();
        assert!(!reply.ready);
        if reply.message.contains("IMDS cannot be reached") {
            break;
        }
        assert!(Instant::now() < deadline, "{}", reply.message);
        std::thread::sleep(Duration::from_millis(20));
    }
    let socket = agent.socket();
    let waiting = std::thread::spawn(move || block_on(add(&socket)));
    let deadline = Instant::now() + SOON;
    while !agent.is_waited_for() {
        assert!(Instant::now() < deadline, "the ADD does not reach the agent");
        std::thread::sleep(Duration::from_millis(5));
    }
    let told = Instant::now();
    agent.signal(rustix::process::Signal::TERM);
    let refused = waiting.join().unwrap();
    assert!(
        refused.message().contains("stopping"),
        "who waits is told to come back: {refused}"
    );
    let ended = agent.child.wait().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", agent.log());
    assert!(told.elapsed() < SOON * 2, "ended after {:?}", told.elapsed());
}

#[test]
fn a_second_agent_on_the_same_socket_says_so_and_the_first_goes_on() {
    need_root();
    let agent = Agent::serving();
    let mut second = Command::new("unshare")
        .args(["-n", "--", env!("CARGO_BIN_EXE_vpcnetd")])
        .env("VPCNET_SOCKET", agent.socket())
        .env(
            "AWS_VPC_K8S_CNI_BACKING_STORE",
            agent.dir.path().join("other.json"),
        )
        .env("AWS_VPC_K8S_CNI_LOG_FILE", agent.dir.path().join("log2"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    second.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(
        said.contains("another agent serves") && said.contains("ipamd.sock"),
        "{said}"
    );
    block_on(status(&agent.socket())).unwrap();
    status_directly(&agent.socket()).unwrap();
}

#[test]
fn a_killed_agent_s_socket_is_taken_over() {
    need_root();
    let mut first = Agent::serving();
    first.signal(rustix::process::Signal::KILL);
    first.child.wait().unwrap();
    assert!(first.socket().exists() && UnixStream::connect(first.socket()).is_err());
    let dir = std::mem::replace(&mut first.dir, tempfile::tempdir().unwrap());
    let second = Agent::start(dir);
    let deadline = Instant::now() + SOON;
    while block_on(status(&second.socket())).is_err() || status_directly(&second.socket()).is_err() {
        assert!(Instant::now() < deadline, "{}", second.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Set in the processes that `somebody_else_is_refused` starts under another user id: the socket to ask,
const ASK: &str = "VPCNET_TEST_SOCKET_TO_ASK";
/// and the refusal expected.
const EXPECT: &str = "VPCNET_TEST_REFUSAL_TO_EXPECT";

#[test]
fn somebody_else_is_refused_by_the_mode_and_where_that_lets_him_in_by_his_credentials() {
    if let Ok(socket) = std::env::var(ASK) {
        let socket = Path::new(&socket);
        let by_grpc = block_on(status(socket)).unwrap_err();
        for refused in [by_grpc.message().to_owned(), status_directly(socket).unwrap_err()] {
            assert!(refused.contains(&std::env::var(EXPECT).unwrap()), "{refused}");
        }
        return;
    }
    need_root();
    let agent = Agent::serving();
    fs::set_permissions(agent.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    ask_as_nobody(&agent, "Permission denied");
    for socket in [agent.socket(), direct::socket_beside(&agent.socket())] {
        fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).unwrap();
    }
    ask_as_nobody(
        &agent,
        "only root may call the node agent; the caller's user id is 65534",
    );
    block_on(status(&agent.socket())).unwrap();
    status_directly(&agent.socket()).unwrap();
}

/// Runs the test above as nobody.
fn ask_as_nobody(agent: &Agent, expect: &str) {
    // A copy that anybody may run, wherever the build lies.
    let copy = agent.dir.path().join("test");
    // By another process: what this one writes is "busy" while a child that another test starts has its descriptor.
    let installed = Command::new("install")
        .args(["-m", "755"])
        .arg(std::env::current_exe().unwrap())
        .arg(&copy)
        .status();
    assert!(installed.unwrap().success());
    let name = "somebody_else_is_refused_by_the_mode_and_where_that_lets_him_in_by_his_credentials";
    let output = Command::new(&copy)
        .args(["--exact", name, "--nocapture"])
        .env(ASK, agent.socket())
        .env(EXPECT, expect)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
