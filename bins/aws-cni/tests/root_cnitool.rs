//! The reference runner `cnitool` drives the built plugin through add, check, del, gc and status in every version of the
//! specification that has them. Needs root, and cnitool: `make test-tools` builds it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Answer, Asked, Bed, Outcome, VERSIONS};
use serde_json::{Value, json};

const NETWORK: &str = "aws-cni";

/// `VPCNET_CNITOOL`, or where `make test-tools` puts it.
fn cnitool() -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("tools")
        .join("cnitool");
    let path = std::env::var_os("VPCNET_CNITOOL").map_or(built, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: run `make test-tools`, or set VPCNET_CNITOOL",
        path.display()
    );
    path
}

/// cnitool for one bed: configuration, plugin directory and cache of its own.
struct Runner<'a> {
    bed: &'a Bed,
    dir: tempfile::TempDir,
}

impl<'a> Runner<'a> {
    fn new(bed: &'a Bed, version: &str, more: &Value) -> Self {
        let runner = Self {
            bed,
            dir: tempfile::tempdir().unwrap(),
        };
        for name in ["net.d", "bin", "cache"] {
            std::fs::create_dir(runner.path(name)).unwrap();
        }
        std::os::unix::fs::symlink(common::plugin(), runner.path("bin").join("aws-cni")).unwrap();
        let mut plugin = json!({ "type": "aws-cni", "mtu": "9001", "agentSocket": bed.socket() });
        plugin
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let list = json!({ "cniVersion": version, "name": NETWORK, "plugins": [plugin] });
        std::fs::write(runner.path("net.d").join("10-aws.conflist"), list.to_string()).unwrap();
        runner
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `cnitool VERB` on the node. Its cache of results, /var/lib/cni, is this runner's: seen through a mount
    /// namespace, so that nothing of the machine's is read or left behind.
    fn run(&self, verb: &str) -> Outcome {
        let inside = "mount -t tmpfs none /var/lib && mkdir /var/lib/cni && mount --bind \"$1\" /var/lib/cni && shift && exec \"$@\"";
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.bed.node.path()))
            .args(["unshare", "--mount", "sh", "-c", inside, "sh"])
            .arg(self.path("cache"))
            .arg(cnitool())
            .args([verb, NETWORK, &self.bed.pod.path()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NETCONFPATH", self.path("net.d"))
            .env("CNI_PATH", self.path("bin"))
            .env("CNI_ARGS", common::POD)
            .output()
            .expect("nsenter and unshare (Debian: util-linux)");
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn succeeds(&self, verb: &str) {
        let outcome = self.run(verb);
        assert_eq!(outcome.code, Some(0), "cnitool {verb}: {outcome:?}");
    }

    /// cnitool prints the message of the plugin's error object on stderr.
    #[track_caller]
    fn fails(&self, verb: &str, words: &[&str]) {
        let outcome = self.run(verb);
        assert_eq!(outcome.code, Some(1), "cnitool {verb}: {outcome:?}");
        for word in words {
            assert!(
                outcome.stderr.contains(word),
                "cnitool {verb}: no {word:?} in {}",
                outcome.stderr
            );
        }
    }
}

fn rules(bed: &Bed) -> usize {
    bed.node
        .ip(&["rule", "show"])
        .lines()
        .filter(|l| l.contains("10.0.1.5"))
        .count()
}

#[test]
fn add_check_status_del() {
    for version in VERSIONS {
        let bed = Bed::new();
        let runner = Runner::new(&bed, version, &json!({}));
        let result = runner.run("add").result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0]["address"], "10.0.1.5/32");
        assert_eq!(rules(&bed), 2, "{version}");
        runner.succeeds("status");
        if version == "0.3.1" {
            runner.fails("check", &["does not support the CHECK command"]);
        } else {
            runner.succeeds("check");
            bed.node.ip(&["rule", "del", "priority", "512"]);
            runner.fails("check", &["to 10.0.1.5", "missing"]);
        }
        runner.succeeds("del");
        assert_eq!(rules(&bed), 0, "{version}");
        bed.agent
            .set(|a| a.del = Answer::Refuse(tonic::Code::Unknown, "datastore: unknown pod".to_owned()));
        runner.succeeds("del");
    }
}

#[test]
fn gc() {
    for version in VERSIONS {
        let bed = Bed::new();
        // cnitool itself never has a list, so it stands in the configuration.
        let runner = Runner::new(&bed, version, &json!({ "cni.dev/valid-attachments": [] }));
        runner.run("add").result();
        bed.agent.asked();
        runner.succeeds("gc");
        // In every version the library first deletes what it remembers; from 1.1.0 on it then calls GC.
        let asked = bed.agent.asked();
        match asked.as_slice() {
            [Asked::Del(_)] if version < "1.1.0" => {}
            [Asked::Del(_), Asked::Gc(gc)] if version == "1.1.0" => assert!(gc.valid.is_empty()),
            other => panic!("{version}: {other:?}"),
        }
        assert_eq!(rules(&bed), 0, "{version}");
    }
}

#[test]
fn gc_without_a_list_is_refused() {
    let bed = Bed::new();
    let runner = Runner::new(&bed, "1.1.0", &json!({}));
    runner.fails(
        "gc",
        &["cni.dev/valid-attachments is missing", "nothing is removed"],
    );
    assert_eq!(bed.agent.asked(), vec![]);
}

#[test]
fn status_fails_while_the_agent_is_down() {
    let mut bed = Bed::new();
    bed.agent.kill();
    Runner::new(&bed, "1.1.0", &json!({})).fails("status", &["cannot serve pods now", "ipamd.sock"]);
}

#[test]
fn add_fails_with_the_plugins_words() {
    let bed = Bed::new();
    let dry = "no free address, subnet subnet-1 is full; next try in 30 s";
    bed.agent
        .set(|a| a.add = Answer::Refuse(tonic::Code::ResourceExhausted, dry.to_owned()));
    let before = bed.state();
    Runner::new(&bed, "1.0.0", &json!({})).fails("add", &[dry]);
    assert_eq!(bed.state(), before);
}
