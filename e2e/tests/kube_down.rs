//! A lab with Kubernetes takes everything with it when it goes, whichever way it goes.

// Functions beside the tests are tests too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vpcnet_e2e::{AGNHOST, Cluster, wait_for_or};

/// What of a lab can be seen on the machine: all that holds its name.
fn traces(base: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut look = |path: &Path| {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(base) {
                found.insert(entry.path().display().to_string());
            }
        }
    };
    look(Path::new("/run"));
    look(Path::new("/run/netns"));
    look(Path::new("/var/lib/vpcnet-lab"));
    for group in fs::read_to_string("/proc/self/cgroup").unwrap().lines() {
        let mut parts = group.splitn(3, ':').skip(1);
        let hierarchy = match parts.next().unwrap().trim_start_matches("name=") {
            "" if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => "",
            "" => "unified",
            some => some,
        };
        let above = parts.next().unwrap().trim_start_matches('/');
        look(&Path::new("/sys/fs/cgroup").join(hierarchy).join(above));
        look(&Path::new("/sys/fs/cgroup").join(hierarchy));
    }
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        if line.contains(base) {
            found.insert(format!("mount {line}"));
        }
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let own = process.file_name().to_string_lossy() == std::process::id().to_string();
        if !own && String::from_utf8_lossy(&words).contains(base) {
            found.insert(format!("process {}", process.file_name().to_string_lossy()));
        }
    }
    found
}

/// Settings of the whole machine that a kubelet changes if it can.
fn settings() -> Vec<(PathBuf, String)> {
    [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/hostname",
    ]
    .map(|name| Path::new("/proc/sys").join(name))
    .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
    .into()
}

fn cluster_with_pods() -> (Cluster, String) {
    let cluster = Cluster::up(&["--nodes", "1"]);
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web, labels: {{app: web}}}}, spec: {{containers: [{{name: web, image: \"{AGNHOST}\", \
         args: [netexec]}}]}}}}"
    ));
    cluster.wait_for_pods("app=web", 1, Duration::from_secs(120));
    let base = cluster
        .lab
        .directory()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    (cluster, base)
}

#[test]
fn down_leaves_no_process_mount_group_namespace_or_file() {
    let before = settings();
    let (cluster, base) = cluster_with_pods();
    let there = traces(&base);
    for part in [
        "/run/netns/",
        "/sys/fs/cgroup/",
        "/var/lib/vpcnet-lab/",
        "process ",
    ] {
        assert!(
            there.iter().any(|t| t.starts_with(part)),
            "the test looks at the wrong places: no {part} in {there:?}"
        );
    }
    cluster.lab.run(&["down"]);
    assert_eq!(traces(&base), BTreeSet::new());
    assert_eq!(settings(), before);
}

#[test]
fn when_the_daemon_is_killed_the_machines_end_with_it_and_down_clears_the_rest() {
    let (cluster, base) = cluster_with_pods();
    let state = cluster.lab.directory().join("state.json");
    let state: serde_json::Value = serde_json::from_str(&fs::read_to_string(state).unwrap()).unwrap();
    let init = cluster.status()["node-1"]["kubernetes"]["init"].as_i64().unwrap();
    let daemon = state["daemon"]["pid"].as_i64().unwrap().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-KILL", &daemon])
        .status()
        .unwrap();
    assert!(killed.success());
    wait_for_or(
        || format!("pid 1 of the node, {init}, ends with the daemon"),
        Duration::from_secs(30),
        || (!Path::new("/proc").join(init.to_string()).exists()).then_some(()),
    );
    cluster.lab.run(&["down"]);
    assert_eq!(traces(&base), BTreeSet::new());
}
