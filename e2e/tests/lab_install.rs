//! Promise 23: `vpcnet init` and `vpcnet install` bring a node up as the image starts them, and `vpcnet health` tells of it;
//! `vpcnet doctor` says before whether that can be.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vpcnet_e2e::{Lab, Node, Options, binary, wait_for, wait_for_or};

/// The CNI project's plugins, as the distribution has them.
const CORE: &str = "/usr/lib/cni";
const SOON: Duration = Duration::from_secs(30);

/// A node without an agent, and the directories that a host would have.
struct Host {
    lab: Lab,
    files: tempfile::TempDir,
}

impl Host {
    fn new(arguments: &[&str]) -> Self {
        assert!(
            Path::new(CORE).join("portmap").exists(),
            "no {CORE}/portmap: run `scripts/setup test`"
        );
        let all = [&["--nodes", "1", "--type", "m5.large", "--no-agent"], arguments].concat();
        let host = Self {
            lab: Lab::up(&Options {
                arguments: &all,
                env: &[],
            }),
            files: tempfile::tempdir().expect("a directory"),
        };
        for directory in ["bin", "net.d"] {
            fs::create_dir(host.path(directory)).expect("a directory");
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn conflist(&self) -> Option<Value> {
        let text = fs::read_to_string(self.path("net.d/10-aws.conflist")).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("half a file: {e}: {text}")))
    }

    /// `program` in the node, with what the lab's agents are given.
    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-c", r#"eval "$("$0" env node-1)"; exec $VPCNET_LAB_ENTER "$@""#])
            .arg(binary("vpcnet-lab"))
            .arg(program)
            .args(arguments)
            .env("VPCNET_LAB_DIR", self.lab.directory())
            .env("HOST_CNI_BIN_PATH", self.path("bin"))
            .env("HOST_CNI_CONFDIR_PATH", self.path("net.d"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().expect("bash starts")
    }

    /// `vpcnet install`, as the container's first process.
    fn install(&self, environment: &[(&str, &str)]) -> Running {
        let log = self.path("install.log");
        let file = File::create(&log).expect("a log file");
        let mut command = self.command(&binary("vpcnet"), &["install", "--core", CORE]);
        command
            .envs(environment.iter().copied())
            .stdout(file.try_clone().expect("another handle"))
            .stderr(file);
        Running {
            child: command.spawn().expect("bash starts"),
            log,
        }
    }

    fn health(&self, arguments: &[&str]) -> (Option<i32>, String) {
        // By the name that the original's probes have.
        let probe = self.path("grpc-health-probe");
        if !probe.exists() {
            symlink(binary("vpcnet"), &probe).expect("a link");
        }
        let output = self.run(&probe, arguments);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let log = &self.log;
        wait_for_or(
            || format!("it ends: {}", fs::read_to_string(log).unwrap_or_default()),
            SOON,
            || child.try_wait().expect("a child"),
        )
    }

    fn signal(&self, signal: &str) {
        kill(self.child.id(), signal);
    }

    /// The agent's process.
    fn agent(&self) -> u32 {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        wait_for("the agent runs", SOON, || {
            let children = fs::read_to_string(&path).ok()?;
            let child: u32 = children.split_whitespace().next()?.parse().ok()?;
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name.trim() == "vpcnetd").then_some(child)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(self.child.id(), "TERM");
            let _ = self.child.wait();
        }
    }
}

fn kill(pid: u32, signal: &str) {
    let killed = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    assert!(
        killed.is_ok_and(|status| status.success()),
        "kill -{signal} {pid}"
    );
}

const SOCKET: &str = "-addr=unix:///var/run/aws-node/ipamd.sock";

#[test]
fn a_node_is_announced_when_pods_can_be_served_and_the_agents_end_is_the_installers() {
    let host = Host::new(&[]);
    let node = Node::new(&host.lab, "node-1");
    assert_eq!(host.health(&[SOCKET]).0, Some(2), "nobody listens");

    let mut install = host.install(&[("ENABLE_BANDWIDTH_PLUGIN", "true")]);
    let list = wait_for_or(|| install.log(), SOON, || host.conflist());
    // It served before the file was there.
    assert_eq!(
        host.health(&[SOCKET, "-connect-timeout=5s", "-rpc-timeout=5s"]).0,
        Some(0)
    );
    node.cni_status().expect("STATUS");
    let types: Vec<_> = list["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["type"].clone())
        .collect();
    assert_eq!(types, ["aws-cni", "egress-cni", "portmap", "bandwidth"]);
    assert_eq!(list["plugins"][2]["snat"], true);
    assert_eq!(list["cniVersion"], "0.4.0");
    // What the distribution's plugins speak, asked by other means.
    let speaks = |version: &str| {
        ["portmap", "bandwidth"]
            .iter()
            .all(|plugin| said_by(plugin).contains(version))
    };
    let wanted: Vec<_> = ["0.4.0", "1.0.0", "1.1.0"]
        .into_iter()
        .filter(|v| speaks(v))
        .collect();
    assert!(wanted.len() > 1, "{wanted:?}");
    assert_eq!(list["cniVersions"], json!(wanted));

    for name in ["aws-cni", "egress-cni", "portmap", "bandwidth"] {
        let there = host.path("bin").join(name);
        assert_eq!(
            fs::metadata(&there).unwrap().permissions().mode() & 0o7777,
            0o755,
            "{name}"
        );
    }
    assert_eq!(
        fs::read(host.path("bin/aws-cni")).unwrap(),
        fs::read(binary("aws-cni")).unwrap()
    );
    assert!(!host.path("bin/tuning").exists(), "not in the chain");

    let address = node.must_add("web");
    assert_eq!(node.kernel_address("web"), address);
    node.remove("web").unwrap_or_else(|e| panic!("{e}"));

    let agent = install.agent();
    install.signal("TERM");
    let status = install.ended();
    assert!(status.success(), "{status}: {}", install.log());
    assert!(
        !Path::new(&format!("/proc/{agent}")).exists(),
        "the agent ended first"
    );
    assert!(host.conflist().is_some(), "pods go on");
}

/// VERSION of one of the distribution's plugins.
fn said_by(plugin: &str) -> String {
    let mut child = Command::new(Path::new(CORE).join(plugin))
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"cniVersion\":\"0.4.0\"}")
        .unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn an_agent_that_dies_before_it_serves_ends_the_installer_and_announces_nothing() {
    let host = Host::new(&[]);
    // Without IMDS a new agent knows no instance and serves nobody.
    host.lab.run(&["fault", "add", "imds:*", "--hang"]);
    let mut install = host.install(&[]);
    let agent = install.agent();
    let answer = wait_for("the socket answers", SOON, || {
        let (code, text) = host.health(&[SOCKET, "-rpc-timeout=5s"]);
        (code == Some(4)).then_some(text)
    });
    assert!(answer.contains("NOT_SERVING"), "{answer}");
    assert_eq!(host.health(&[SOCKET, "-service=other"]).0, Some(3));
    wait_for_or(
        || install.log(),
        SOON,
        || install.log().contains("waiting: the agent: ").then_some(()),
    );
    kill(agent, "KILL");
    let status = install.ended();
    assert_eq!(status.code(), Some(137), "{}", install.log());
    assert!(
        install.log().contains("ended before it served pods"),
        "{}",
        install.log()
    );
    assert_eq!(host.conflist(), None);
}

#[test]
fn what_the_agent_would_not_start_with_and_a_chain_without_its_plugin_change_nothing() {
    let host = Host::new(&[]);
    for (environment, core, says) in [
        (
            ("AWS_VPC_K8S_CNI_VETHPREFIX", "ethernet"),
            CORE,
            "AWS_VPC_K8S_CNI_VETHPREFIX",
        ),
        (
            ("VPCNET_MAX_PODS", "10"),
            "/var/empty",
            "needs the plugin portmap",
        ),
    ] {
        let output = host
            .command(&binary("vpcnet"), &["install", "--core", core])
            .env(environment.0, environment.1)
            .output()
            .expect("bash starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert_eq!(host.conflist(), None);
    }
}

#[test]
fn init_prepares_a_fresh_node_and_says_when_the_primary_interface_is_not_there() {
    let host = Host::new(&[]);
    let sysctl = |key: &str| {
        let path = format!("/proc/sys/{key}");
        host.lab
            .run(&["exec", "node-1", "--", "cat", &path])
            .trim()
            .to_owned()
    };
    assert_eq!(
        (
            sysctl("net/ipv4/ip_forward").as_str(),
            sysctl("net/ipv4/conf/eth0/rp_filter").as_str()
        ),
        ("0", "1")
    );
    let init = |arguments: &[&str]| {
        let output = host.run(
            &binary("vpcnet"),
            &[&["init", "--core", CORE], arguments].concat(),
        );
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = init(&["--primary", "eth7"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no link eth7 (there are eth0 0"), "{said}");
    assert_eq!(sysctl("net/ipv4/conf/eth0/rp_filter"), "1");

    let (code, said) = init(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        (
            sysctl("net/ipv4/ip_forward").as_str(),
            sysctl("net/ipv4/conf/eth0/rp_filter").as_str()
        ),
        ("1", "2")
    );
    for name in [
        "portmap",
        "bandwidth",
        "tuning",
        "host-local",
        "loopback",
        "vpcnet",
    ] {
        assert!(host.path("bin").join(name).is_file(), "{name}");
    }
    // Again, with IMDS away: a node comes up without it.
    host.lab.run(&["fault", "add", "imds:*", "--hang"]);
    let (code, said) = init(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("taking eth0, which the default route leaves by"),
        "{said}"
    );
}

#[test]
fn the_doctor_finds_a_node_well_and_says_what_is_not_permitted_and_what_is_away() {
    let host = Host::new(&[]);
    let doctor = || {
        let output = host.run(&binary("vpcnet"), &["doctor", "--json", "--root", "/var/empty"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let json: Value = serde_json::from_str(&said)
            .unwrap_or_else(|e| panic!("{e}: {said} {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), json)
    };
    let problems = |json: &Value| -> Vec<String> {
        let all = json["findings"].as_array().unwrap().iter();
        all.filter(|f| f["verdict"] == "problem")
            .map(|f| f["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let calls = || host.lab.json(&["calls", "--json"]);
    let (code, json) = doctor();
    assert_eq!(problems(&json), Vec::<String>::new(), "{json:#}");
    assert_eq!((code, &json["ready"]), (Some(0), &Value::Bool(true)));
    let text = json.to_string();
    assert!(text.contains("asked by dry run, none is refused"), "{json:#}");
    // Nothing was done, whatever was asked.
    let interfaces = Node::new(&host.lab, "node-1").status()["interfaces"]
        .as_array()
        .map(Vec::len);
    assert_eq!(interfaces, Some(1), "{}", calls());

    // As EC2 answers who has not the right.
    host.lab.run(&[
        "fault",
        "add",
        "AttachNetworkInterface",
        "--error",
        "UnauthorizedOperation:403",
    ]);
    let (code, json) = doctor();
    assert_eq!(code, Some(1));
    assert_eq!(problems(&json), ["not permitted: ec2:AttachNetworkInterface"]);

    host.lab.run(&["fault", "clear"]);
    host.lab.run(&["fault", "add", "imds:*", "--hang"]);
    let (code, json) = doctor();
    assert_eq!(code, Some(1));
    assert!(problems(&json)[0].starts_with("IMDS does not answer"), "{json:#}");
}
