//! Promise 3: the reference runner of the CNI project, `cnitool`, drives the plugin through every verb of every version.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vpcnet_e2e::{Lab, Node, Options, binary, wait_for};

const READY: Duration = Duration::from_secs(60);
/// Of what somebody takes of the node's network; ten times what is promised.
const PUT_RIGHT: Duration = Duration::from_secs(1);

#[test]
fn cnitool_drives_each_version_through_the_verbs_it_defines() {
    let lab = up();
    let node = Node::new(&lab, "node-1");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let runner = Cnitool::new(&lab, version);
        let pod = Namespace::new();
        let owned = assigned(node);

        if version == "1.1.0" {
            runner.must("status", &pod);
        }
        let result: Value = serde_json::from_str(&runner.must("add", &pod)).expect("ADD prints a result");
        assert_eq!(result["cniVersion"], version, "{result}");
        let address = result["ips"][0]["address"].as_str().unwrap_or_default();
        assert_eq!(
            format!("{}/32", pod.address()),
            address,
            "{version}: in the kernel, in the result"
        );
        assert_eq!(
            assigned(node),
            owned + 1,
            "{version}: addresses with an owner after add"
        );
        if version != "0.3.1" {
            runner.must("check", &pod);
        }
        runner.must("del", &pod);
        assert_eq!(
            assigned(node),
            owned,
            "{version}: addresses with an owner after del"
        );
        runner.must("del", &pod);

        if version == "1.1.0" {
            // cnitool's gc ends every attachment that it remembers. A new pod: the interface of one that was deleted
            // goes with its namespace.
            let pod = Namespace::new();
            runner.must("add", &pod);
            runner.must("gc", &pod);
            assert_eq!(
                assigned(node),
                owned,
                "{version}: addresses with an owner after gc"
            );
            // One that the runtime has forgotten is freed by the plugin itself: the list does not name it.
            let pod = Namespace::new();
            runner.must("add", &pod);
            runner.forget();
            runner.must("gc", &pod);
            assert_eq!(
                assigned(node),
                owned,
                "{version}: addresses with an owner after gc of what the runtime forgot"
            );
        }
    }
}

#[test]
fn gc_without_a_list_of_valid_attachments_takes_no_address_from_a_live_pod() {
    let lab = up();
    let node = Node::new(&lab, "node-1");
    let address = node.must_add("alive");
    // The same network's name as the lab's pods have.
    let runner = Cnitool::with(&lab, "1.1.0", "aws-cni", json!({}));
    let said = runner
        .run("gc", &Namespace::new())
        .expect_err("GC without a list");
    assert!(
        said.contains("cni.dev/valid-attachments"),
        "it does not name what is missing: {said}"
    );
    assert!(
        node.owners().contains_key(&address),
        "the owner of {address} is gone"
    );
}

#[test]
fn check_tells_what_is_no_longer_as_add_left_it() {
    let lab = up();
    let runner = Cnitool::new(&lab, "1.0.0");
    let pod = Namespace::new();
    runner.must("add", &pod);
    runner.must("check", &pod);
    pod.run(&["ip", "route", "del", "default"]);
    let said = runner
        .run("check", &pod)
        .expect_err("CHECK of a pod without its default route");
    assert!(
        said.contains("default"),
        "CHECK does not name what is missing: {said}"
    );
    runner.must("del", &pod);
}

#[test]
fn status_and_add_say_that_the_agent_is_away_and_del_goes_on() {
    let lab = up();
    let node = Node::new(&lab, "node-1");
    let runner = Cnitool::new(&lab, "1.1.0");
    let (pod, late) = (Namespace::new(), Namespace::new());
    runner.must("add", &pod);
    lab.run(&["agent", "stop", "node-1"]);

    let status = runner.run("status", &pod).expect_err("STATUS without an agent");
    let add = runner.run("add", &late).expect_err("ADD without an agent");
    for said in [&status, &add] {
        assert!(
            said.contains("ipamd.sock"),
            "it does not name the agent's socket: {said}"
        );
    }
    assert_eq!(
        late.links(),
        ["lo"],
        "what a failed ADD left in the pod's namespace"
    );

    node.start_agent(&[]);
    node.wait_until_ready(READY);
    runner.must("status", &pod);
    runner.must("add", &late);
    runner.must("del", &late);
    runner.must("del", &pod);
}

#[test]
fn the_egress_plugin_is_driven_behind_it_and_leaves_nothing() {
    let lab = up();
    let node = Node::new(&lab, "node-1");
    lab.run(&[
        "exec",
        "node-1",
        "--",
        "ip",
        "addr",
        "add",
        "2001:db8:1::10/64",
        "dev",
        "eth0",
        "nodad",
    ]);
    for (version, network) in [("0.4.0", "egress-old"), ("1.1.0", "egress")] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = directory.path().join("ipam");
        let egress = json!({
            "type": "egress-cni", "enabled": "true", "mtu": "9001", "nodeIP": "2001:db8:1::10", "randomizeSNAT": "prng",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "fd00::ac:00/118"}]], "routes": [{"dst": "::/0"}], "dataDir": files},
            "pluginLogFile": "stderr", "cni.dev/valid-attachments": [],
        });
        let first = json!({"type": "aws-cni", "vethPrefix": "eni", "mtu": "9001", "pluginLogFile": "stderr",
                           "cni.dev/valid-attachments": []});
        std::fs::create_dir(directory.path().join("lib")).expect("a directory for the cache");
        let runner = Cnitool::of(&lab, version, network, directory, &[first, egress]);
        let given = || -> usize {
            let names = std::fs::read_dir(files.join(network)).expect("the plugin's files");
            names
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<std::net::IpAddr>().ok())
                .count()
        };
        let pod = Namespace::new();
        let owned = assigned(node);
        let result: Value = serde_json::from_str(&runner.must("add", &pod)).expect("ADD prints a result");
        let names: Vec<&str> = result["interfaces"]
            .as_array()
            .expect("interfaces")
            .iter()
            .filter_map(|i| i["name"].as_str())
            .collect();
        assert_eq!(
            (names.len(), names[1], names[4]),
            (5, "eth0", "v6if0"),
            "{result}"
        );
        assert_eq!(result["ips"].as_array().map(Vec::len), Some(1), "{result}");
        assert_eq!((assigned(node), given()), (owned + 1, 1));
        runner.must("check", &pod);
        // What somebody takes of the node's part, the agent puts back.
        for harm in [
            "nft flush ruleset",
            "nft flush chain ip6 vpcnet_egress source_nat",
        ] {
            lab.run(&["exec", "node-1", "--", "bash", "-c", harm]);
            wait_for(
                &format!("after {harm:?} the pod's egress is as before"),
                PUT_RIGHT,
                || runner.run("check", &pod).ok(),
            );
        }
        pod.run(&["ip", "-6", "route", "del", "default"]);
        let said = runner
            .run("check", &pod)
            .expect_err("CHECK of a pod without its IPv6 route");
        assert!(said.contains("route default"), "{said}");
        runner.must("del", &pod);
        runner.must("del", &pod);
        assert_eq!((assigned(node), given()), (owned, 0), "{version}: after del");
        if version == "1.1.0" {
            let pod = Namespace::new();
            runner.must("status", &pod);
            runner.must("add", &pod);
            runner.forget();
            runner.must("gc", &pod);
            assert_eq!(
                (assigned(node), given()),
                (owned, 0),
                "what the runtime forgot is freed by both plugins"
            );
        }
        let tables = lab.run(&["exec", "node-1", "--", "nft", "list", "tables"]);
        assert!(!tables.contains("vpcnet_egress"), "{tables}");
    }
}

fn up() -> Lab {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &["IP_COOLDOWN_PERIOD=1"],
    });
    Node::new(&lab, "node-1").wait_until_ready(READY);
    lab
}

fn assigned(node: Node<'_>) -> u64 {
    node.pool()
        .map(|(_, assigned)| assigned)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// `cnitool` with a configuration and a cache of its own.
struct Cnitool<'a> {
    lab: &'a Lab,
    network: String,
    directory: tempfile::TempDir,
}

impl<'a> Cnitool<'a> {
    /// cnitool itself never has a list of what lives, so it stands in the configuration.
    fn new(lab: &'a Lab, version: &str) -> Self {
        let network = format!("vpc-{}", version.replace('.', "-"));
        Self::with(lab, version, &network, json!({"cni.dev/valid-attachments": []}))
    }

    fn with(lab: &'a Lab, version: &str, network: &str, more: Value) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("lib")).expect("a directory for the cache");
        let mut plugin =
            json!({"type": "aws-cni", "vethPrefix": "eni", "mtu": "9001", "pluginLogFile": "stderr"});
        if let (Some(plugin), Value::Object(more)) = (plugin.as_object_mut(), more) {
            plugin.extend(more);
        }
        Self::of(lab, version, network, directory, &[plugin])
    }

    fn of(
        lab: &'a Lab,
        version: &str,
        network: &str,
        directory: tempfile::TempDir,
        plugins: &[Value],
    ) -> Self {
        let list = json!({"cniVersion": version, "name": network, "plugins": plugins});
        std::fs::write(directory.path().join("10-net.conflist"), list.to_string())
            .expect("the configuration is written");
        Self {
            lab,
            network: network.to_owned(),
            directory,
        }
    }

    /// Takes the runtime's memory of its attachments away, as the loss of its disk would.
    fn forget(&self) {
        let cache = self.directory.path().join("lib");
        std::fs::remove_dir_all(&cache).expect("the cache goes");
        std::fs::create_dir(&cache).expect("an empty cache");
    }

    /// What it printed; the error is what it said when it failed.
    fn run(&self, verb: &str, pod: &Namespace) -> Result<String, String> {
        let cnitool = std::env::var_os("VPCNET_CNITOOL").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/cnitool"),
            PathBuf::from,
        );
        assert!(
            cnitool.exists(),
            "{} is not there: run `make test-tools` first",
            cnitool.display()
        );
        let here = self.directory.path().display();
        let plugins = binary("aws-cni");
        let plugins = plugins.parent().unwrap_or(Path::new("/")).display();
        // libcni keeps its cache below /var/lib/cni: a directory of this test lies over /var/lib while it runs.
        let script = format!(
            "mount --bind {here}/lib /var/lib && export CNI_PATH={plugins} NETCONFPATH={here} \
             CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=cnitool' && exec {} {verb} {} {}",
            cnitool.display(),
            self.network,
            pod.path(),
        );
        let arguments = [
            "exec", "node-1", "--", "unshare", "--mount", "bash", "-c", &script,
        ];
        self.lab
            .try_run(&arguments)
            .map_err(|e| format!("{}{}", e.stdout, e.stderr))
    }

    #[track_caller]
    fn must(&self, verb: &str, pod: &Namespace) -> String {
        self.run(verb, pod)
            .unwrap_or_else(|e| panic!("cnitool {verb} {}: {e}", self.network))
    }
}

/// A pod's network namespace, held by a process.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let child = command.spawn().expect("unshare starts");
        let ours = std::fs::read_link("/proc/self/ns/net").expect("our own namespace");
        let theirs = format!("/proc/{}/ns/net", child.id());
        wait_for("the namespace is there", Duration::from_secs(10), || {
            (std::fs::read_link(&theirs).ok()? != ours).then_some(())
        });
        Self(child)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn run(&self, command: &[&str]) -> String {
        let net = format!("--net={}", self.path());
        let output = Command::new("nsenter")
            .arg(net)
            .args(command)
            .output()
            .expect("nsenter starts");
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn address(&self) -> String {
        let json: Value =
            serde_json::from_str(&self.run(&["ip", "-json", "-4", "addr", "show", "dev", "eth0"])).unwrap();
        json[0]["addr_info"][0]["local"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn links(&self) -> Vec<String> {
        let json: Value = serde_json::from_str(&self.run(&["ip", "-json", "link", "show"])).unwrap();
        let links = json.as_array().cloned().unwrap_or_default();
        links
            .iter()
            .filter_map(|l| l["ifname"].as_str().map(str::to_owned))
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The process ends when its standard input does, and the namespace with it.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
