//! Nothing is left of a lab, however it ended. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fabric_support;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use fabric_support::{Lab, eventually, exists};
use rustix::process::{Pid, Signal, kill_process};

/// Processes of the lab: daemon and holders.
fn processes(lab: &Lab) -> Vec<i64> {
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(lab.dir.join("state.json")).unwrap()).unwrap();
    let mut pids = vec![state["daemon"]["pid"].as_i64().unwrap()];
    pids.extend(
        state["processes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p[1]["pid"].as_i64().unwrap()),
    );
    pids
}

fn namespaces(lab: &Lab) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries.flatten().map(|e| e.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&lab.base())).collect()
}

fn kill_9(pid: i64) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

fn assert_nothing_left(lab: &Lab, processes: &[i64]) {
    assert_eq!(namespaces(lab), Vec::<String>::new());
    assert!(!lab.dir.exists(), "the state directory is still there");
    // A killed child of another process is a zombie until that one looks; these are the daemon's or init's.
    eventually("all processes are gone", || {
        processes.iter().all(|pid| !exists(*pid) || is_zombie(*pid))
    });
    let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    assert!(
        !links.contains("internet@") && !links.contains("peer@"),
        "a link came back to the machine: {links}"
    );
}

fn is_zombie(pid: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "))
}

#[test]
fn down_removes_everything_with_processes_still_inside() {
    let lab = Lab::up(&[]);
    lab.attach("node-1");
    assert_eq!(namespaces(&lab).len(), 5);
    let mut inside = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}-node-1", lab.base()))
        .args(["sleep", "600"])
        .spawn()
        .unwrap();
    let mut all = processes(&lab);
    all.push(i64::from(inside.id()));
    assert_eq!(all.len(), 4, "daemon, two holders, the one above");
    lab.ok(&["down"]);
    inside.wait().unwrap();
    assert_nothing_left(&lab, &all);
    assert!(
        lab.ok(&["down"]).contains("No lab is up"),
        "a second down finds nothing"
    );
}

#[test]
fn down_removes_everything_after_the_daemon_was_killed() {
    let lab = Lab::up(&[]);
    lab.attach("node-2");
    let all = processes(&lab);
    kill_9(all[0]);
    eventually("the nodes' holders end with the daemon", || {
        all.iter().all(|p| !exists(*p) || is_zombie(*p))
    });
    let status = lab.run(&["status"]);
    assert!(!status.status.success());
    assert!(
        String::from_utf8(status.stderr).unwrap().contains("down"),
        "it says what to do"
    );
    lab.ok(&["down"]);
    assert_nothing_left(&lab, &all);
}

#[test]
fn a_daemon_killed_while_it_makes_things_leaves_nothing_that_down_does_not_find() {
    for delay_ms in [5, 15, 30, 50, 80] {
        let lab = Lab::up(&["--nodes", "0"]);
        let daemon = processes(&lab)[0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    lab.run(&["node", "add"]);
                }
            });
            std::thread::sleep(std::time::Duration::from_millis(delay_ms));
            kill_9(daemon);
        });
        lab.ok(&["down"]);
        assert_nothing_left(&lab, &[daemon]);
    }
}

#[test]
fn a_second_lab_in_the_same_directory_is_refused_and_one_elsewhere_is_not_disturbed() {
    let (one, two) = (Lab::up(&[]), Lab::up(&[]));
    let again = one.run(&["up", "--no-agent"]);
    assert!(!again.status.success());
    assert!(String::from_utf8(again.stderr).unwrap().contains("already up"));
    one.ok(&["down"]);
    let report = two.json(&["check", "--json"]);
    assert_eq!(report["failed"], 0, "{report:#}");
}

#[test]
fn up_clears_up_after_a_crashed_lab_in_its_directory() {
    let lab = Lab::up(&[]);
    let old = processes(&lab);
    kill_9(old[0]);
    eventually("the daemon is gone", || !exists(old[0]) || is_zombie(old[0]));
    lab.ok(&["up", "--no-agent"]);
    assert_eq!(lab.json(&["check", "--json"])["failed"], 0);
}

#[test]
fn a_node_comes_and_goes() {
    let lab = Lab::up(&[]);
    lab.ok(&["node", "add", "--subnet", "subnet-b"]);
    let added = lab.node("node-3");
    assert!(added["primary"].as_str().unwrap().starts_with("10.0."));
    assert_eq!(
        lab.json(&["check", "--json"])["kinds"]["node-to-node"]["failed"],
        0
    );
    lab.ok(&["node", "remove", "node-3"]);
    assert!(!namespaces(&lab).contains(&format!("{}-node-3", lab.base())));
    assert!(!exists(added["holder"].as_i64().unwrap()) || is_zombie(added["holder"].as_i64().unwrap()));
    assert!(!lab.run(&["node", "remove", "node-3"]).status.success());
}

#[test]
fn a_node_has_its_own_agent_directory_and_leaves_the_machines_alone() {
    let lab = Lab::up(&[]);
    let before = Path::new("/run/aws-node").exists();
    lab.sh(
        "node-1",
        "echo mine > /var/run/aws-node/ipam.json; echo log > /var/log/aws-routed-eni/x.log",
    );
    assert_eq!(lab.sh("node-2", "ls /run/aws-node"), "");
    assert_eq!(lab.sh("node-1", "cat /run/aws-node/ipam.json"), "mine\n");
    assert_eq!(
        Path::new("/run/aws-node").exists(),
        before,
        "the machine got a directory"
    );
    assert_eq!(
        std::fs::read_to_string(lab.dir.join("log/node-1/x.log")).unwrap(),
        "log\n"
    );
    assert_eq!(lab.sh("node-1", "ls /sys/class/net"), "eth0\nlo\n");
}

#[test]
fn without_root_it_says_what_it_would_change_and_why() {
    let temp = tempfile::tempdir().unwrap();
    // Where nobody may read the build's directory, the program could not even start.
    let program = temp.path().join("vpcnet-lab");
    // By another process: what this one writes is "busy" while a child that another test starts has its descriptor.
    let steps = [
        Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_vpcnet-lab"))
            .arg(&program)
            .status(),
        Command::new("chmod")
            .args(["-R", "a+rx"])
            .arg(temp.path())
            .status(),
    ];
    assert!(steps.into_iter().all(|step| step.unwrap().success()));
    let output = Command::new(&program)
        .args(["--dir", "/tmp/nowhere-lab", "up"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("needs root") && words.contains("namespaces") && words.contains("not touched"),
        "{words}"
    );
    assert!(!Path::new("/tmp/nowhere-lab").exists());
}
