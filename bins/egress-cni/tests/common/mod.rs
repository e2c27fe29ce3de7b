//! A bed for the built plugin: a throw-away node namespace with an interface to a throw-away outside, throw-away pod namespaces,
//! and a directory for the plugin's files.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// One of the two directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    V4,
    V6,
}

pub const WAYS: [Way; 2] = [Way::V4, Way::V6];

impl Way {
    pub fn node(self) -> &'static str {
        self.pick("203.0.113.10", "2001:db8:1::10")
    }

    pub fn outside(self) -> &'static str {
        self.pick("198.51.100.5", "2001:db8:2::5")
    }

    pub fn range(self) -> &'static str {
        self.pick("169.254.172.0/22", "fd00::ac:0/118")
    }

    pub fn first(self) -> &'static str {
        self.pick("169.254.172.2", "fd00::ac:2")
    }

    pub fn link(self) -> &'static str {
        self.pick("v4if0", "v6if0")
    }

    pub fn flag(self) -> &'static str {
        self.pick("-4", "-6")
    }

    /// nftables' name of the family.
    pub fn family(self) -> &'static str {
        self.pick("ip", "ip6")
    }

    pub fn chain_prefix(self) -> &'static str {
        self.pick("CNI-E4-", "CNI-E6-")
    }

    pub fn pick(self, v4: &'static str, v6: &'static str) -> &'static str {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

/// A network namespace under `/run/netns`, deleted at the end also of a failed test.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "egress-{}-{}-{role}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// `ip` in this namespace; its output.
    pub fn ip(&self, args: &str) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(args.split_whitespace());
        run("ip", &all)
    }

    /// Any program in this namespace; its output.
    pub fn sh(&self, command: &str) -> String {
        run(
            "nsenter",
            &[&format!("--net={}", self.path()), "sh", "-c", command],
        )
    }

    /// Whether it succeeds.
    pub fn try_sh(&self, command: &str) -> bool {
        Command::new("nsenter")
            .args([&format!("--net={}", self.path()), "sh", "-c", command])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    /// All of the network's state that the plugin could touch, as text. Without what the kernel changes by itself for a while
    /// after a link comes up, and the anycast addresses that it gives to an IPv6 router.
    pub fn state(&self) -> String {
        let mut text = String::new();
        for args in [
            "-o link show",
            "-o addr show",
            "-4 rule show",
            "-6 rule show",
            "-4 route show table all",
            "-6 route show table all",
            "neigh show nud permanent",
        ] {
            text.push_str(&format!("# {args}\n"));
            for line in self.ip(args).lines().filter(|l| {
                !["fe80::", "ff00::", "anycast"]
                    .iter()
                    .any(|word| l.contains(word))
            }) {
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
        text.push_str(&self.sh("nft list ruleset"));
        text
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e} (Debian: iproute2, util-linux, nftables)"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
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
    pub fn error(&self, code: u32, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        let object: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert_eq!(object["code"], code, "{self:?}");
        let text = object["msg"].as_str().unwrap();
        for word in words {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        assert!(!text.contains('\n'), "one line: {text}");
    }
}

/// A node whose interface `eth0` leads outside.
pub struct Bed {
    pub way: Way,
    pub node: Namespace,
    pub outside: Namespace,
    pub dir: tempfile::TempDir,
}

impl Bed {
    pub fn new(way: Way) -> Self {
        let bed = Self {
            way,
            node: Namespace::new("node"),
            outside: Namespace::new("out"),
            dir: tempfile::tempdir().unwrap(),
        };
        let (node, outside) = (&bed.node, &bed.outside);
        node.ip(&format!(
            "link add eth0 type veth peer name up0 netns {}",
            outside.name
        ));
        let (mask, lone, router) = (
            way.pick("24", "64"),
            way.pick("32", "128"),
            way.pick("203.0.113.1", "2001:db8:1::1"),
        );
        // No duplicate detection, which would hold the test for seconds.
        let nodad = way.pick("", "nodad");
        node.ip(&format!("addr add {}/{mask} dev eth0 {nodad}", way.node()));
        outside.ip(&format!("addr add {router}/{mask} dev up0 {nodad}"));
        outside.ip(&format!("addr add {}/{lone} dev lo {nodad}", way.outside()));
        node.ip("link set eth0 up");
        outside.ip("link set up0 up");
        node.ip(&format!("{} route add default via {router} dev eth0", way.flag()));
        // As on real nodes; new namespaces have 0, which would hide faults.
        node.sh("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
        bed
    }

    /// A new pod of a node, with the interface that the plugin before would have made.
    pub fn pod(&self) -> Namespace {
        let pod = Namespace::new("pod");
        pod.ip("link add eth0 type veth peer name eth0p");
        pod.ip("link set eth0 up");
        pod
    }

    /// Where the plugin has its files.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("aws-cni")
    }

    /// Names of the files of addresses.
    pub fn addresses(&self) -> Vec<String> {
        let mut all: Vec<String> = std::fs::read_dir(self.files())
            .map(|dir| {
                dir.map(|e| e.unwrap().file_name().into_string().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        all.retain(|name| name.parse::<std::net::IpAddr>().is_ok());
        all.sort();
        all
    }

    /// A configuration as the runtime sends it, with more keys or other values.
    pub fn conf(&self, version: &str, more: &Value) -> Value {
        let mut conf = json!({
            "cniVersion": version, "name": "aws-cni", "type": "egress-cni", "enabled": "true", "mtu": "1500",
            "randomizeSNAT": "prng", "nodeIP": self.way.node(),
            "ipam": {
                "type": "host-local", "ranges": [[{ "subnet": self.way.range() }]],
                "routes": [{ "dst": self.way.pick("0.0.0.0/0", "::/0") }], "dataDir": self.dir.path(),
            },
            "prevResult": prev_result(version),
        });
        conf.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        conf
    }

    /// The plugin for a container in `netns` (empty: none), started in the node's namespace.
    pub fn start(&self, verb: &str, container: &str, netns: &str, conf: &Value) -> Child {
        self.start_by(&[], verb, container, netns, conf)
    }

    /// The same by another program, which gets the plugin as its last argument.
    pub fn start_by(&self, by: &[&str], verb: &str, container: &str, netns: &str, conf: &Value) -> Child {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.node.path()))
            .args(by)
            .arg(plugin())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs([
                ("CNI_COMMAND", verb),
                ("CNI_PATH", "/opt/cni/bin"),
                ("CNI_IFNAME", "eth0"),
            ])
            .env("CNI_CONTAINERID", container);
        if !netns.is_empty() {
            command.env("CNI_NETNS", netns);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter (Debian: util-linux)");
        // A plugin that does not read to the end closes the pipe; that is its answer, not the test's failure.
        let _ = child.stdin.take().unwrap().write_all(conf.to_string().as_bytes());
        child
    }

    pub fn call(&self, verb: &str, container: &str, netns: &str, conf: &Value) -> Outcome {
        finish(self.start(verb, container, netns, conf))
    }

    pub fn add(&self, container: &str, pod: &Namespace) -> Outcome {
        self.call("ADD", container, &pod.path(), &self.conf("1.1.0", &json!({})))
    }

    pub fn del(&self, container: &str, pod: &Namespace) -> Outcome {
        self.call("DEL", container, &pod.path(), &self.conf("1.1.0", &json!({})))
    }

    /// CHECK with this result of ADD.
    pub fn check(&self, container: &str, pod: &Namespace, result: &Value) -> Outcome {
        let conf = self.conf("1.1.0", &json!({ "prevResult": result }));
        self.call("CHECK", container, &pod.path(), &conf)
    }

    /// GC with these containers alive.
    pub fn gc(&self, alive: &[&str]) -> Outcome {
        let list: Vec<Value> = alive
            .iter()
            .map(|id| json!({ "containerID": id, "ifname": "eth0" }))
            .collect();
        let conf = self.conf(
            "1.1.0",
            &json!({ "prevResult": null, "cni.dev/valid-attachments": list }),
        );
        self.call("GC", "", "", &conf)
    }

    pub fn status(&self) -> Outcome {
        self.call(
            "STATUS",
            "",
            "",
            &self.conf("1.1.0", &json!({ "prevResult": null })),
        )
    }

    /// The node's routes to pods' egress addresses.
    pub fn routes(&self) -> Vec<String> {
        let range = self.way.pick("169.254.17", "fd00::ac:");
        let all = self
            .node
            .ip(&format!("{} route show table main", self.way.flag()));
        all.lines()
            .filter(|l| l.starts_with(range))
            .map(str::to_owned)
            .collect()
    }

    /// The node's links of pods.
    pub fn links(&self) -> usize {
        self.node
            .ip("-o link show type veth")
            .lines()
            .filter(|l| l.contains(": veth"))
            .count()
    }

    pub fn has_table(&self) -> bool {
        self.node
            .try_sh(&format!("nft list table {} vpcnet_egress", self.way.family()))
    }
}

/// As aws-cni prints it.
pub fn prev_result(version: &str) -> Value {
    let mut result = json!({
        "cniVersion": version,
        "interfaces": [
            { "name": "enicc21c2d7785" },
            { "name": "eth0", "mac": "254", "sandbox": "/var/run/netns/x" },
            { "name": "dummycc21c2d7785", "mac": "0", "sandbox": "0" },
        ],
        "ips": [{ "interface": 1, "address": "10.0.1.5/32" }],
        "dns": {}
    });
    if matches!(version, "0.3.1" | "0.4.0") {
        result["ips"][0]["version"] = json!("4");
    }
    result
}

pub fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The plugin under test: the one just built, or the one that `EGRESS_CNI` names (the static one, for instance).
pub fn plugin() -> PathBuf {
    std::env::var_os("EGRESS_CNI")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_egress-cni")), PathBuf::from)
}

/// Waits for a condition, ten times as long as any step here takes.
#[track_caller]
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < end, "waited 10 s: {what}");
        std::thread::yield_now();
    }
}
