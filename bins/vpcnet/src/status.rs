//! `vpcnet status`: the agent, its pool, who waits and why, on one screen.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::Value;
use vpcnet_ipam::{AddressState, InterfaceView, PoolView};

use crate::{Failure, http, print};

/// The agent answers but serves no pods yet.
const NOT_READY: u8 = 3;
/// A start without a checkpoint has one note for each pod; the first ones tell the story.
const NOTES: usize = 10;

pub(crate) async fn run(address: &str, json: bool) -> Result<ExitCode, Failure> {
    let body = http::get(address, "/v1/vpcnet/status").await?;
    let status: Value = serde_json::from_slice(&body)?;
    let ready = status
        .pointer("/agent/ready")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&status)?))?;
    } else {
        let pool: Option<PoolView> = match status.get("pool") {
            None | Some(Value::Null) => None,
            Some(pool) => Some(serde_json::from_value(pool.clone())?),
        };
        print(&page(&status, pool.as_ref()))?;
    }
    Ok(if ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_READY)
    })
}

fn page(status: &Value, pool: Option<&PoolView>) -> String {
    let text = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "vpcnetd {} on {} ({} {}, {}): {}",
        text("/agent/version"),
        first(&[text("/agent/node"), text("/instance/local_ipv4"), "this node"]),
        first(&[text("/instance/instance_id"), "instance not known"]),
        text("/instance/instance_type"),
        first(&[text("/instance/availability_zone"), "zone not known"]),
        if text("/agent/starting").is_empty() {
            "serving".into()
        } else {
            format!("starting: {}", text("/agent/starting"))
        },
    );
    for (what, path) in [
        ("impaired", "/agent/impaired"),
        ("checkpoint", "/agent/checkpoint_error"),
        ("not taken over", "/agent/takeover_error"),
    ] {
        if !text(path).is_empty() {
            let _ = writeln!(out, "! {what}: {}", text(path));
        }
    }
    for place in texts(status, "/agent/contested") {
        let _ = writeln!(
            out,
            "! contested: somebody keeps changing {place}, so it is put right ever more seldom; the agent's log names him"
        );
    }
    for what in texts(status, "/agent/taken_over") {
        let _ = writeln!(out, "taken over from amazon-vpc-cni-k8s: {what}");
    }
    for kept in texts(status, "/agent/kept") {
        let _ = writeln!(out, "kept of earlier settings: {kept}");
    }
    let notes: Vec<&str> = texts(status, "/agent/notes").collect();
    for note in notes.iter().take(NOTES) {
        let _ = writeln!(out, "! {note}");
    }
    if notes.len() > NOTES {
        let _ = writeln!(out, "! and {} more: see --json", notes.len() - NOTES);
    }
    if let Some(pool) = pool {
        pool_lines(&mut out, pool);
    }
    out
}

fn texts<'a>(status: &'a Value, path: &str) -> impl Iterator<Item = &'a str> {
    let list = status.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn pool_lines(out: &mut String, pool: &PoolView) {
    let t = &pool.totals;
    let _ = writeln!(
        out,
        "{} of {} interfaces; {} addresses: {} assigned, {} free, {} cooling down; {} coming",
        t.interfaces, pool.max_interfaces, t.total, t.assigned, t.free, t.cooling, t.coming
    );
    for interface in &pool.interfaces {
        interface_line(out, interface);
    }
    for pod in &pool.waiting {
        let _ = writeln!(out, "waiting {} for {} ms: {}", pod.meta, pod.for_ms, pod.message);
    }
    for intent in &pool.intents {
        let paused = intent
            .paused_ms
            .map(|ms| format!(", tried again in {ms} ms"))
            .unwrap_or_default();
        let _ = writeln!(out, "under way: {} for {} ms{paused}", intent.what, intent.for_ms);
        if let Some(trouble) = &intent.trouble {
            let _ = writeln!(out, "  failed {} times: {}", trouble.failures, trouble.message);
        }
    }
    for backoff in &pool.backoffs {
        let _ = writeln!(
            out,
            "not before {} ms: {}: {}",
            backoff.retry_in_ms, backoff.what, backoff.message
        );
    }
    for contradiction in &pool.contradictions {
        let _ = writeln!(
            out,
            "! {} of {}: {}",
            contradiction.address, contradiction.meta, contradiction.message
        );
    }
}

fn interface_line(out: &mut String, i: &InterfaceView) {
    let count = |wanted: fn(&AddressState) -> bool| i.addresses.iter().filter(|a| wanted(&a.state)).count();
    let _ = writeln!(
        out,
        "  {} device {} {} {}{}{}: {} assigned, {} free, {} cooling",
        i.id,
        i.device,
        i.primary_address,
        i.subnet,
        if i.is_primary { ", primary" } else { "" },
        match (i.managed, i.deleting) {
            (false, _) => ", not managed",
            (true, true) => ", being deleted",
            (true, false) => "",
        },
        count(|s| *s == AddressState::Assigned),
        count(|s| *s == AddressState::Free),
        count(|s| matches!(s, AddressState::Cooling { .. })),
    );
    ipv6_lines(out, i);
}

/// Of a /80 nobody counts what is free.
fn ipv6_lines(out: &mut String, i: &InterfaceView) {
    for prefix in &i.ipv6_prefixes {
        let inside = || i.ipv6.iter().filter(|a| prefix.contains(&a.address));
        let assigned = inside().filter(|a| a.state == AddressState::Assigned).count();
        let cooling = inside().filter(|a| matches!(a.state, AddressState::Cooling { .. }));
        let _ = writeln!(
            out,
            "    {prefix}: {assigned} assigned, {} cooling",
            cooling.count()
        );
    }
}

/// The first that says something.
fn first<'a>(texts: &[&'a str]) -> &'a str {
    texts.iter().find(|t| !t.is_empty()).copied().unwrap_or_default()
}
