//! `vpcnet config check` on environments that people write. The whole answer is compared with the file beside the environment;
//! `VPCNET_UPDATE_EXPECTED=1 cargo test -p vpcnet --test config_check` writes it anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn environments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/environments")
}

/// With no environment but what the test gives.
fn vpcnet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpcnet"));
    command.args(arguments).env_clear();
    command
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the file, and compares all that is said.
fn answers(file: &str, code: i32) -> String {
    let path = environments().join(file);
    let output = vpcnet(&["config", "check", "--file", path.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{file}: {}",
        said(&output.stderr)
    );
    assert_eq!(said(&output.stderr), "");
    let answer = said(&output.stdout);
    let expected = path.with_extension("expected");
    if std::env::var_os("VPCNET_UPDATE_EXPECTED").is_some() {
        std::fs::write(&expected, &answer).unwrap();
    }
    let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
    assert_eq!(answer, wanted, "{}", expected.display());
    answer
}

#[test]
fn conflicting_targets_and_mistyped_names_start_and_are_explained() {
    answers("targets.env", 0);
}

#[test]
fn both_families_and_values_out_of_range_do_not_start() {
    let answer = answers("families.yaml", 1);
    assert!(!answer.contains("wJalrXUtnFEMI"), "a secret is shown: {answer}");
}

#[test]
fn reserved_tags_and_values_of_the_wrong_type_start_and_are_explained() {
    let answer = answers("values.json", 0);
    assert!(!answer.contains("wJalrXUtnFEMI"), "a secret is shown: {answer}");
}

#[test]
fn an_environment_that_says_nothing_is_fine() {
    let output = vpcnet(&["config", "check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let answer = said(&output.stdout);
    assert!(
        answer.starts_with("vpcnetd starts with this environment. 0 errors, 0 ignored, 0 notes\n"),
        "{answer}"
    );
}

#[test]
fn the_environment_of_the_process_is_checked_where_there_is_no_file() {
    let output = vpcnet(&["config", "check"])
        .env("ENABLE_IPv4", "false")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stdout).contains("ENABLE_IPv4=false and ENABLE_IPv6=false"));
}

#[test]
fn a_value_that_is_no_utf8_is_invalid_and_not_missing() {
    use std::os::unix::ffi::OsStrExt;
    let value = std::ffi::OsStr::from_bytes(b"tr\xffue");
    let output = vpcnet(&["config", "check"])
        .env("ENABLE_POD_ENI", value)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output.stdout).contains("ENABLE_POD_ENI=\"tr\u{fffd}ue\" must be true or false"));
}

fn with_stdin(arguments: &[&str], text: &str) -> Output {
    let mut child = vpcnet(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn stdin_is_read_and_the_process_environment_is_then_left_alone() {
    let output = with_stdin(&["config", "check", "--file", "-"], "WARM_IP_TARGET=5\n");
    assert_eq!(output.status.code(), Some(0));
    let answer = said(&output.stdout);
    assert!(
        answer.contains("keeps 5 addresses free") && answer.contains("WARM_IP_TARGET=5"),
        "{answer}"
    );
}

#[test]
fn what_cannot_be_checked_is_exit_code_2() {
    for (arguments, text, part) in [
        (
            &["config", "check", "--file", "/nowhere/at/all"][..],
            "",
            "cannot read /nowhere/at/all",
        ),
        (
            &["config", "check", "--file", "-"],
            "A=1\nnonsense",
            "stdin, line 2",
        ),
        (
            &["config", "check", "--file", "-"],
            "kind: Service",
            "no container",
        ),
        (
            &["config", "check", "--file", "-", "--container", "x"],
            "containers: [{name: y}]",
            "no container x, but: y",
        ),
        (&["config", "check", "--container", "x"], "", "--file"),
        (&["config"], "", "check"),
        (&["config", "check", "file"], "", "file"),
    ] {
        let output = with_stdin(arguments, text);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            said(&output.stderr).contains(part),
            "{arguments:?}: {}",
            said(&output.stderr)
        );
    }
}
