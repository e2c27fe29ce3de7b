//! Commands that show things, and the ones that run something inside the lab.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use ipnet::Ipv4Net;
use serde_json::Value;

use super::{need_root, picture, print_json};
use crate::check::{self, Report};
use crate::control::{self, Ask, NodeEnv, Status};
use crate::daemon::options::{pair, policy as policy_file};
use crate::error::LabError;
use crate::fabric::DroppedPacket;
use crate::fabric::netns::Place;
use crate::pods;
use crate::state::Dir;

pub(super) fn status(dir: &Dir, json: bool) -> Result<(), LabError> {
    let status: Status = control::ask(dir, &Ask::Status)?;
    let pods = pods::list(dir)?;
    if !json {
        print!("{}", picture::draw(&status, &pods));
        return Ok(());
    }
    let mut value = serde_json::to_value(&status).map_err(|e| LabError::Refused(e.to_string()))?;
    let pods = serde_json::to_value(&pods).map_err(|e| LabError::Refused(e.to_string()))?;
    if let Some(map) = value.as_object_mut() {
        map.insert("pods".to_owned(), pods);
    }
    print_json(&value)
}

pub(super) fn env(dir: &Dir, node: &str) -> Result<(), LabError> {
    let env: NodeEnv = control::ask(
        dir,
        &Ask::Env {
            node: node.to_owned(),
        },
    )?;
    for (key, value) in &env.variables {
        println!("export {key}={}", quote(value));
    }
    let prefix: Vec<String> = env.prefix.iter().map(|p| quote(p)).collect();
    println!("export VPCNET_LAB_ENTER={}", quote(&prefix.join(" ")));
    println!(
        "# EC2 from outside the lab's namespaces: {}",
        env.outside_endpoint
    );
    println!("# Run a command in the node: {} COMMAND", prefix.join(" "));
    Ok(())
}

/// Quotes a word for the shell where it needs it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

pub(super) fn exec(dir: &Dir, place: &str, command: &[String]) -> Result<(), LabError> {
    need_root()?;
    if let Some(node) = place.strip_prefix("kubelet/") {
        return super::kubernetes::enter(dir, node, command);
    }
    let names = dir.names();
    let inside = match (place, place.strip_prefix("pod/")) {
        (_, Some(pod)) => Place::named(&pods::find(dir, pod)?.netns)?,
        ("internet", _) => Place::named(&names.internet())?,
        ("peer", _) => Place::named(&names.peer())?,
        ("vpc", _) => Place::named(&names.vpc())?,
        (node, _) => {
            let status: Status = control::ask(dir, &Ask::Status)?;
            let node = status.node(node)?;
            Place::of_node(&node.namespace, node.holder)?
        }
    };
    let Some((program, args)) = command.split_first() else {
        return Ok(());
    };
    // The only thread, and it never comes back: exec replaces the program.
    inside.enter()?;
    let source = Command::new(program).args(args).exec();
    Err(LabError::Spawn {
        program: program.clone(),
        source,
    })
}

pub(super) fn check(dir: &Dir, json: bool, untranslated: &[Ipv4Net]) -> Result<ExitCode, LabError> {
    need_root()?;
    let report = check::run(dir, untranslated)?;
    if json {
        print_json(&report)?;
    } else {
        print_report(&report);
    }
    Ok(if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How many failures of a family are told in full.
const SHOWN: usize = 4;

/// The report for people.
pub(super) fn print_report(report: &Report) {
    for (kind, count) in &report.kinds {
        let mark = if count.failed == 0 { "ok  " } else { "FAIL" };
        let failed = if count.failed == 0 {
            String::new()
        } else {
            format!(", {} failed", count.failed)
        };
        println!("{mark} {kind:<32} {:>5} checks{failed}", count.checks);
    }
    for kind in report.kinds.keys() {
        let of_kind: Vec<_> = report.failures.iter().filter(|f| f.kind == *kind).collect();
        for f in of_kind.iter().take(SHOWN) {
            println!(
                "FAIL {kind}: {} -> {}: expected {}; got {}",
                f.from, f.to, f.expected, f.got
            );
        }
        if of_kind.len() > SHOWN {
            println!(
                "     … and {} more of {kind}: see 'check --json'",
                of_kind.len() - SHOWN
            );
        }
    }
    println!(
        "{} checks, {} failed, in {:.1} s",
        report.checks, report.failed, report.seconds
    );
}

pub(super) fn ec2(dir: &Dir, action: &str, parameters: &[String]) -> Result<(), LabError> {
    let mut all = vec![("Action".to_owned(), action.to_owned())];
    for text in parameters {
        all.push(pair(text)?);
    }
    let xml: String = control::ask(dir, &Ask::Ec2 { parameters: all })?;
    println!("{xml}");
    Ok(())
}

pub(super) fn policy(dir: &Dir, file: Option<&Path>) -> Result<(), LabError> {
    let policy = file.map(policy_file).transpose()?;
    let now: Value = control::ask(dir, &Ask::Policy { policy })?;
    print_json(&now)
}

pub(super) fn calls(dir: &Dir, json: bool, since_ms: u64) -> Result<(), LabError> {
    let calls: Vec<Value> = control::ask(dir, &Ask::Calls { since_ms })?;
    if json {
        return print_json(&calls);
    }
    for call in calls {
        let text = |key: &str| {
            call.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let number = |key: &str| call.get(key).and_then(Value::as_f64).unwrap_or_default();
        println!(
            "{:>10.3} s  {:<5} {:<10} {:<36} {:<24} {:>8.1} ms",
            number("at_ms") / 1e3,
            text("face"),
            text("caller"),
            text("action"),
            text("result"),
            number("latency_ms")
        );
    }
    Ok(())
}

pub(super) fn drops(dir: &Dir, json: bool, since_ms: u64) -> Result<(), LabError> {
    let drops: Vec<DroppedPacket> = control::ask(dir, &Ask::Drops { since_ms })?;
    if json {
        return print_json(&drops);
    }
    let end = |address: Option<std::net::IpAddr>, port: Option<u16>| {
        let address = match address {
            // Else the port would look like a part of it.
            Some(std::net::IpAddr::V6(a)) if port.is_some() => format!("[{a}]"),
            Some(a) => a.to_string(),
            None => "?".to_owned(),
        };
        port.map_or_else(|| address.clone(), |p| format!("{address}:{p}"))
    };
    for d in &drops {
        let side = d.side.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
        println!(
            "{:>10.3} s  {:<22} {:<5} {} -> {}  from {}",
            std::time::Duration::from_millis(d.at_ms).as_secs_f64(),
            format!("{}{side}", d.reason),
            d.protocol,
            end(d.source, d.source_port),
            end(d.destination, d.destination_port),
            d.from.as_deref().unwrap_or("-")
        );
    }
    if std::io::stdout().is_terminal() {
        let status: Status = control::ask(dir, &Ask::Status)?;
        println!();
        for (reason, meaning) in crate::fabric::reasons() {
            let count = status.drops.get(*reason).copied().unwrap_or_default();
            println!("{count:>8}  {reason:<18} {meaning}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_the_shell_would_read_them_otherwise() {
        assert_eq!(
            quote("http://169.254.169.249:8773"),
            "http://169.254.169.249:8773"
        );
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
