//! The report: one JSON value, and its figures for people.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::flat::{Growth, Reading};
use super::run::Run;
use super::stream::Figures;
use super::{Look, Readings};
use crate::report::percentile;

/// What the run does not know of itself.
pub(super) struct Parts<'a> {
    pub(super) seed: u64,
    pub(super) minutes: u64,
    pub(super) looks: &'a [Look],
    pub(super) readings: &'a Readings,
    pub(super) warm: Duration,
    pub(super) growth: Option<Growth>,
    pub(super) streams: &'a [(String, Figures)],
    pub(super) calls: Value,
}

pub(super) fn whole(run: &Run, parts: &Parts<'_>) -> Value {
    let counts = run.count(|counts| counts.clone());
    let mut took = counts.adds.clone();
    took.sort_by(f64::total_cmp);
    let failed: Map<String, Value> = counts
        .failed
        .iter()
        .map(|(verdict, count)| (verdict.title().to_owned(), json!(count)))
        .collect();
    let examples: Map<String, Value> = counts
        .examples
        .iter()
        .map(|(verdict, words)| (verdict.title().to_owned(), json!(words)))
        .collect();
    let looks: Vec<Value> = parts
        .looks
        .iter()
        .map(|l| {
            json!({
                "at_s": l.at.as_secs(), "settled_after_s": l.settled_after.as_secs_f64(),
                "pods": l.pods, "packet_checks": l.packets, "addresses_of_doubled_calls": l.unknown,
            })
        })
        .collect();
    let longest = parts
        .looks
        .iter()
        .map(|l| l.settled_after)
        .max()
        .unwrap_or_default();
    let streams: Vec<Value> = parts
        .streams
        .iter()
        .map(|(title, f)| json!({ "title": title, "echoes": f.echoes, "longest_ms": f.longest.as_secs_f64() * 1e3 }))
        .collect();
    let failures = run.failures();
    json!({
        "seed": parts.seed,
        "minutes": parts.minutes,
        "seconds": run.start.elapsed().as_secs(),
        "verdict": if failures.is_empty() { "passed" } else { "failed" },
        "failures": failures,
        "adds": {
            "succeeded": took.len(), "failed": failed, "examples": examples,
            "p50_ms": percentile(&took, 0.5), "p99_ms": percentile(&took, 0.99), "max_ms": percentile(&took, 1.0),
        },
        "dels": {
            "succeeded": counts.dels, "repeated": counts.dels_repeated, "namespace_gone_first": counts.namespaces_gone_first,
            "failed_while_the_agent_was_away": counts.dels_failed_while_away, "never_made": counts.never_deleted,
        },
        "troubles": counts.troubles,
        "looks": looks,
        "longest_until_settled_s": longest.as_secs_f64(),
        "memory": {
            "warm_up_s": parts.warm.as_secs(),
            "steady": parts.growth.map_or(Value::Null, Growth::report),
            "steady_mib": series(&parts.readings.steady), "shaken_mib": series(&parts.readings.shaken),
        },
        "streams": streams,
        "calls": parts.calls,
    })
}

/// `[seconds, MiB]` each.
fn series(readings: &[Reading]) -> Value {
    readings
        .iter()
        .map(|r| json!([r.at.as_secs(), (r.rss_mib * 100.0).round() / 100.0]))
        .collect()
}

/// For people: all but the lists.
pub(super) fn table(report: &Value) -> String {
    let mut out = String::new();
    let at = |path: &str| report.pointer(path).unwrap_or(&Value::Null);
    let count = |path: &str| {
        let value = at(path);
        let map = value.as_object().map(|m| m.len());
        map.or(value.as_array().map(Vec::len)).unwrap_or_default()
    };
    for (title, path) in [
        ("seed", "/seed"),
        ("seconds", "/seconds"),
        ("ADDs that succeeded", "/adds/succeeded"),
        ("  p50, ms", "/adds/p50_ms"),
        ("  p99, ms", "/adds/p99_ms"),
        ("  longest, ms", "/adds/max_ms"),
        ("ADDs that failed", "/adds/failed"),
        ("DELs", "/dels"),
        ("until all was in its place, s", "/longest_until_settled_s"),
        ("memory of the steady agent", "/memory/steady"),
        ("verdict", "/verdict"),
    ] {
        let _ = writeln!(out, "{title:<32} {}", at(path));
    }
    let _ = writeln!(out, "{:<32} {}", "looks", count("/looks"));
    let _ = writeln!(out, "{:<32} {}", "kinds of trouble", count("/troubles"));
    let _ = writeln!(out, "{:<32} {}", "connections kept", count("/streams"));
    for failure in at("/failures").as_array().into_iter().flatten() {
        let _ = writeln!(out, "FAIL {}", failure.as_str().unwrap_or_default());
    }
    out
}
