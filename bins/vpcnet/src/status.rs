//! `vpcnet status`: what a tired reader needs first stands first. The state in one line, then what is wrong, then who waits, then the
//! pool, its interfaces and subnets, and what is under way.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::Value;
use vpcnet_ipam::{AddressState, InterfaceKind, InterfaceView, PoolView, SubnetView};

use crate::explain::{Refused, refusal};
use crate::span::span;
use crate::{Failure, http, print};

/// The agent answers but serves no pods yet.
const NOT_READY: u8 = 3;
/// A start without a checkpoint has one note for each pod; the first ones tell the story.
const NOTES: usize = 10;
/// So many pods that wait, and refusals, are listed.
const LISTED: usize = 10;

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
        let refused: Vec<Refused> = match status.get("refused") {
            None => Vec::new(),
            Some(refused) => serde_json::from_value(refused.clone())?,
        };
        print(&page(&status, pool.as_ref(), &refused))?;
    }
    Ok(if ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_READY)
    })
}

fn page(status: &Value, pool: Option<&PoolView>, refused: &[Refused]) -> String {
    let text = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let number = |path: &str| status.pointer(path).and_then(Value::as_i64).unwrap_or_default();
    let uptime = u64::try_from(number("/agent/uptime_ms")).unwrap_or(0);
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "vpcnetd {} on {} ({} {}, {}), up {}: {}",
        text("/agent/version"),
        first(&[text("/agent/node"), text("/instance/local_ipv4"), "this node"]),
        first(&[text("/instance/instance_id"), "instance not known"]),
        text("/instance/instance_type"),
        first(&[text("/instance/availability_zone"), "zone not known"]),
        span(uptime),
        if text("/agent/starting").is_empty() {
            "serving".into()
        } else {
            format!("starting: {}", text("/agent/starting"))
        },
    );
    wrong(&mut out, status);
    if let Some(pool) = pool {
        for c in &pool.contradictions {
            let _ = writeln!(out, "! {} of {}: {}", c.address, c.meta, c.message);
        }
        waiting(&mut out, pool);
    }
    for one in refused.iter().take(LISTED) {
        let _ = writeln!(out, "refused: {}", refusal(one, number("/now_ns")));
    }
    more(&mut out, refused.len(), "refused lately");
    if let Some(pool) = pool {
        pool_lines(&mut out, pool);
    }
    out
}

/// What is not as it should be.
fn wrong(out: &mut String, status: &Value) {
    let text = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or_default();
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
}

fn texts<'a>(status: &'a Value, path: &str) -> impl Iterator<Item = &'a str> {
    let list = status.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn waiting(out: &mut String, pool: &PoolView) {
    for pod in pool.waiting.iter().take(LISTED) {
        let _ = writeln!(
            out,
            "waiting {} for {}, {} more at most: {}",
            pod.meta,
            span(pod.for_ms),
            span(pod.left_ms),
            pod.message
        );
    }
    more(out, pool.waiting.len(), "waiting");
}

fn more(out: &mut String, all: usize, what: &str) {
    if all > LISTED {
        let _ = writeln!(out, "and {} more {what}: see --json", all - LISTED);
    }
}

fn pool_lines(out: &mut String, pool: &PoolView) {
    let t = &pool.totals;
    let prefixes = if t.prefixes > 0 {
        format!(
            " in {} prefixes ({} of them without a pod)",
            t.prefixes, t.free_prefixes
        )
    } else {
        String::new()
    };
    let _ = writeln!(
        out,
        "{} of {} interfaces; {} addresses{prefixes}: {} assigned, {} free, {} cooling down; {} coming",
        t.interfaces, pool.max_interfaces, t.total, t.assigned, t.free, t.cooling, t.coming
    );
    for interface in &pool.interfaces {
        interface_line(out, interface);
    }
    for subnet in &pool.subnets {
        subnet_line(out, subnet);
    }
    for intent in &pool.intents {
        let paused = intent
            .paused_ms
            .map(|ms| format!(", tried again in {}", span(ms)))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "under way: {} for {}{paused}",
            intent.what,
            span(intent.for_ms)
        );
        if let Some(trouble) = &intent.trouble {
            let _ = writeln!(out, "  failed {} times: {}", trouble.failures, trouble.message);
        }
    }
    for backoff in &pool.backoffs {
        let when = match backoff.retry_in_ms {
            0 => "tried again when it is wanted".to_owned(),
            ms => format!("not before {}", span(ms)),
        };
        let _ = writeln!(out, "{when}: {}: {}", backoff.what, backoff.message);
    }
}

fn interface_line(out: &mut String, i: &InterfaceView) {
    let states = || {
        let v4 = i.addresses.iter().map(|a| a.state);
        v4.chain(i.ipv6.iter().map(|a| a.state))
    };
    let count = |wanted: fn(&AddressState) -> bool| states().filter(wanted).count();
    let held = match (i.prefixes.len(), i.ipv6_prefixes.len()) {
        (0, 0) => String::new(),
        (n, 0) => format!(", {n} /28 prefixes"),
        (0, n) => format!(", {n} /80 prefixes"),
        (n, m) => format!(", {n} /28 and {m} /80 prefixes"),
    };
    let _ = writeln!(
        out,
        "  {} device {} of card {} {} {}{}{}{held}: {} assigned, {} free, {} cooling",
        i.id,
        i.device,
        i.card,
        i.primary_address,
        i.subnet,
        match i.kind {
            _ if i.is_primary => ", primary",
            InterfaceKind::EfaOnly => ", EFA only",
            InterfaceKind::Trunk => ", trunk",
            InterfaceKind::Interface | InterfaceKind::Efa => "",
        },
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

/// Only what says more than the interfaces do; that it ran dry stands among what is not tried before when.
fn subnet_line(out: &mut String, s: &SubnetView) {
    let mut said = Vec::new();
    match (s.left_addresses, s.left_prefixes) {
        (Some(a), Some(p)) => said.push(format!("{a} addresses and {p} /28 blocks left")),
        (Some(a), None) => said.push(format!("{a} addresses left")),
        (None, _) => {}
    }
    if s.excluded {
        said.push("excluded by its tags: no new pods there".to_owned());
    }
    if !said.is_empty() {
        let _ = writeln!(out, "  {}: {}", s.id, said.join("; "));
    }
}

/// The first that says something.
fn first<'a>(texts: &[&'a str]) -> &'a str {
    texts.iter().find(|t| !t.is_empty()).copied().unwrap_or_default()
}
