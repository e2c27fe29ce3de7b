//! What needs neither root nor an agent: VERSION, the text for people, the log.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn run(vars: &[(&str, &str)], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aws-cni"))
        .env_clear()
        .envs(vars.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn version_answers_whatever_stands_on_stdin() {
    for (stdin, version) in [
        ("", "1.1.0"),
        ("garbage", "1.1.0"),
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
    ] {
        let output = run(&[("CNI_COMMAND", "VERSION")], stdin);
        assert!(output.status.success());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            answer,
            json!({ "cniVersion": version, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] })
        );
    }
}

#[test]
fn without_a_verb_it_says_what_it_is() {
    for vars in [&[][..], &[("CNI_COMMAND", "")]] {
        let output = run(vars, "");
        assert!(output.status.success());
        assert!(output.stdout.is_empty());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains(env!("CARGO_PKG_VERSION")) && text.contains("0.3.1, 0.4.0, 1.0.0, 1.1.0"),
            "{text}"
        );
    }
}

fn status(log_file: &str, log_level: &str) -> Output {
    let conf = json!({ "cniVersion": "1.1.0", "name": "aws-cni", "type": "aws-cni",
                       "pluginLogFile": log_file, "pluginLogLevel": log_level });
    let vars = [
        ("CNI_COMMAND", "STATUS"),
        ("CNI_PATH", "/bin"),
        ("VPCNET_SOCKET", "/nonexistent/ipamd.sock"),
    ];
    run(&vars, &conf.to_string())
}

#[test]
fn the_log_is_json_lines_in_the_configured_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin.log");
    for _ in 0..2 {
        let output = status(path.to_str().unwrap(), "debug");
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stderr.is_empty());
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["level"], "error");
    assert!(
        lines[0]["msg"].as_str().unwrap().contains("STATUS failed"),
        "{text}"
    );
    assert!(lines[0]["ts"].as_str().unwrap().ends_with('Z'), "{text}");
}

#[test]
fn a_log_that_cannot_be_opened_changes_nothing_but_the_log() {
    let wanted = status("", "debug");
    let output = status("/nonexistent/dir/plugin.log", "debug");
    assert_eq!(
        (output.status.code(), output.stdout),
        (wanted.status.code(), wanted.stdout)
    );
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/nonexistent/dir/plugin.log"), "{text}");
}
