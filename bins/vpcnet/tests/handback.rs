//! `vpcnet handback` as it is typed, as far as it goes without root: what it does to a node is tested in the lab.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};

fn handback(arguments: &[&str], socket: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpcnet"));
    command
        .arg("handback")
        .args(arguments)
        .env_remove("VPCNET_SOCKET");
    if let Some(socket) = socket {
        command.env("VPCNET_SOCKET", socket);
    }
    command.output().unwrap()
}

#[test]
fn it_refuses_while_vpcnetd_runs_wherever_its_socket_is() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("ipamd.sock");
    let agent = File::create(dir.path().join("ipamd.lock")).unwrap();
    flock(&agent, FlockOperation::NonBlockingLockExclusive).unwrap();
    let told = socket.to_str().unwrap();
    for (arguments, environment) in [(vec!["--socket", told], None), (vec![], Some(socket.as_path()))] {
        let output = handback(&arguments, environment);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("vpcnetd runs on this node and holds"), "{said}");
        assert!(said.contains("stop it first"), "{said}");
    }
}

#[test]
fn what_it_does_not_understand_is_wrong_usage() {
    for arguments in [
        ["--timeout", "soon"],
        ["--external-snat", "maybe"],
        ["--node-ports", ""],
        ["--sockets", "x"],
    ] {
        assert_eq!(handback(&arguments, None).status.code(), Some(2), "{arguments:?}");
    }
}
