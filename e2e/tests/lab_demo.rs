//! `make lab`: the demo, from nothing to nothing.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::process::Command;

use vpcnet_e2e::binary;

#[test]
fn the_demo_checks_every_path_and_leaves_nothing_behind() {
    let directory = format!("/run/vtdemo{}", std::process::id());
    let before = traces();
    let output = Command::new(binary("vpcnet"))
        .args(["lab", "demo"])
        .env("VPCNET_LAB_DIR", &directory)
        .output()
        .expect("vpcnet starts");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{}: {said}", output.status);

    for word in ["node-1", "node-2", " 0 failed"] {
        assert!(said.contains(word), "the demo does not say {word:?}: {said}");
    }
    let left: Vec<String> = traces().difference(&before).cloned().collect();
    assert!(left.is_empty(), "left behind: {left:#?}\n{said}");
    assert!(
        !std::path::Path::new(&directory).exists(),
        "{directory} is left behind"
    );
}

/// Everything of this machine that a lab could leave something in. What others do on it at the same time is left out where
/// it can be told apart.
fn traces() -> BTreeSet<String> {
    let ours = |name: &str| {
        ["vtdemo", "vpcnet", "aws-node", "aws-routed-eni"]
            .iter()
            .any(|part| name.contains(part))
    };
    let programs = std::fs::canonicalize(binary("vpcnet")).expect("the programs' directory");
    let programs = programs.parent().expect("the programs' directory").to_owned();
    let mut all = BTreeSet::new();
    let commands: [&[&str]; 5] = [
        &["ip", "-brief", "link"],
        &["ip", "-brief", "address"],
        &["ip", "rule"],
        &["ip", "route", "show", "table", "all"],
        &["nft", "list", "tables"],
    ];
    for command in commands {
        let output = Command::new(command[0])
            .args(&command[1..])
            .output()
            .expect("it starts");
        all.extend(
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|l| format!("{}: {l}", command.join(" "))),
        );
    }
    for directory in ["/run", "/run/netns", "/tmp", "/var/lib", "/var/log", "/etc/netns"] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path().display().to_string();
            if ours(&path) {
                all.insert(path);
            }
        }
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(program) = std::fs::read_link(entry.path().join("exe")) else {
            continue;
        };
        if program.starts_with(&programs) {
            all.insert(format!(
                "process {} {}",
                program.display(),
                entry.path().display()
            ));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    all.extend(mounts.lines().filter(|l| ours(l)).map(|l| format!("mount {l}")));
    all
}
