//! A bed for the built plugin: a throw-away node namespace in which it runs, throw-away pod namespaces, and an agent
//! that answers what the test says and notes what it was asked.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod agent;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

pub use agent::{Agent, Answer, Asked, Way};

/// The specification's versions that the plugin speaks.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A network namespace under `/run/netns`, deleted at the end also of a failed test.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "awscni-{}-{}-{role}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// `ip` in this namespace; its output.
    pub fn ip(&self, args: &[&str]) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(args);
        ip(&all)
    }

    /// All of the network's state that the plugin could touch, as text. Without what the kernel changes by itself for a while
    /// after a link comes up: its operational state, and the IPv6 addresses and routes it gives to each link.
    pub fn state(&self) -> String {
        let mut text = String::new();
        for args in [
            &["-o", "link", "show"][..],
            &["-o", "addr", "show"],
            &["-4", "rule", "show"],
            &["-6", "rule", "show"],
            &["-4", "route", "show", "table", "all"],
            &["-6", "route", "show", "table", "all"],
            &["neigh", "show", "nud", "permanent"],
        ] {
            text.push_str(&format!("# {}\n", args.join(" ")));
            for line in self
                .ip(args)
                .lines()
                .filter(|l| !l.contains("fe80::") && !l.contains("ff00::"))
            {
                let words = line.split_whitespace();
                let steady =
                    words.filter(|w| !matches!(*w, "UP" | "DOWN" | "UNKNOWN") && !w.starts_with('<'));
                text.push_str(&steady.collect::<Vec<_>>().join(" "));
                text.push_str(if line.contains("UP,") || line.contains(",UP") {
                    " up\n"
                } else {
                    "\n"
                });
            }
        }
        text
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub fn ip(args: &[&str]) -> String {
    let output = Command::new("ip")
        .args(args)
        .output()
        .expect("the ip program (Debian: iproute2)");
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What the plugin did.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Exit 0 and this on stdout, parsed.
    #[track_caller]
    pub fn result(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Exit 0 and nothing on stdout.
    #[track_caller]
    pub fn silent(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.stdout, "");
    }

    /// Exit 1 and an error object of that code whose message has all these words.
    #[track_caller]
    pub fn error(&self, code: u32, words: &[&str]) -> Value {
        assert_eq!(self.code, Some(1), "{self:?}");
        let object: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert_eq!(object["code"], code, "{self:?}");
        for word in words {
            assert!(
                object["msg"].as_str().unwrap().contains(word),
                "no {word:?} in {}",
                object["msg"]
            );
        }
        assert!(
            !object["msg"].as_str().unwrap().contains('\n'),
            "one line: {object}"
        );
        object
    }
}

/// A node, one pod namespace and an agent.
pub struct Bed {
    pub node: Namespace,
    pub pod: Namespace,
    pub agent: Agent,
    pub dir: tempfile::TempDir,
}

pub const POD: &str =
    "K8S_POD_NAMESPACE=default;K8S_POD_NAME=sample-pod;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1";
pub const HOST_LINK: &str = "enicc21c2d7785";

impl Bed {
    pub fn new() -> Self {
        Self::served(&[Way::Direct, Way::Grpc])
    }

    /// With these of the agent's sockets.
    pub fn served(ways: &[Way]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agent = Agent::start(&dir.path().join("ipamd.sock"), ways);
        Self {
            node: Namespace::new("node"),
            pod: Namespace::new("pod"),
            agent,
            dir,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("ipamd.sock")
    }

    /// A configuration as the runtime sends it, with more keys.
    pub fn conf(&self, version: &str, more: &Value) -> Value {
        let mut conf = json!({ "cniVersion": version, "name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001" });
        conf.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        conf
    }

    /// The variables of a call for this bed's pod.
    pub fn vars(&self, verb: &str) -> Vec<(String, String)> {
        [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", &self.pod.path()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
            ("CNI_ARGS", POD),
            ("VPCNET_SOCKET", self.socket().to_str().unwrap()),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec()
    }

    /// Runs the plugin on the node for this bed's pod.
    pub fn run(&self, verb: &str, conf: &Value) -> Outcome {
        run_in(&self.node, &self.vars(verb), conf.to_string().as_bytes())
    }

    /// The same with other variables; an empty value takes one away.
    pub fn run_with(&self, verb: &str, conf: &[u8], change: &[(&str, &str)]) -> Outcome {
        let mut vars = self.vars(verb);
        for (name, value) in change {
            vars.retain(|(n, _)| n != name);
            if !value.is_empty() {
                vars.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        run_in(&self.node, &vars, conf)
    }

    /// State of both namespaces.
    pub fn state(&self) -> (String, String) {
        (self.node.state(), self.pod.state())
    }
}

/// Runs the plugin in `node`'s network namespace with exactly these variables.
pub fn run_in(node: &Namespace, vars: &[(String, String)], stdin: &[u8]) -> Outcome {
    let mut child = Command::new("nsenter")
        .arg(format!("--net={}", node.path()))
        .arg(plugin())
        .env_clear()
        .envs(vars.iter().map(|(k, v)| (k, v)))
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter (Debian: util-linux)");
    // A plugin that does not read to the end closes the pipe; that is its answer, not the test's failure.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The plugin under test: the one just built, or the one that `AWS_CNI` names (the static one, for instance).
pub fn plugin() -> PathBuf {
    std::env::var_os("AWS_CNI").map_or_else(
        || Path::new(env!("CARGO_BIN_EXE_aws-cni")).to_path_buf(),
        PathBuf::from,
    )
}
