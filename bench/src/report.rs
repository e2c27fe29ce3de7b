//! Figures: summaries, the tables for people, the ratios.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::run::Cost;

/// Ends of the flatness comparison: medians of the first and of the last so many runs.
const ENDS: usize = 20;

/// Of all runs of one verb of one peer; `peak_kib`: the largest resident set, from runs of their own.
pub(crate) fn summary(costs: &[Cost], peak_kib: u64) -> Value {
    let mut wall: Vec<f64> = costs.iter().map(|c| c.wall.as_secs_f64() * 1e3).collect();
    let ends = ENDS.min(wall.len() / 2);
    let first = median(wall.iter().take(ends).copied().collect());
    let last = median(wall.iter().rev().take(ends).copied().collect());
    wall.sort_by(f64::total_cmp);
    json!({
        "runs": wall.len(),
        "min_ms": percentile(&wall, 0.0),
        "p50_ms": percentile(&wall, 0.5),
        "p99_ms": percentile(&wall, 0.99),
        "cpu_p50_ms": median(costs.iter().map(|c| c.cpu.as_secs_f64() * 1e3).collect()),
        "peak_rss_mib": peak_kib as f64 / 1024.0,
        "first_p50_ms": first,
        "last_p50_ms": last,
        "last_over_first": last / first,
    })
}

pub(crate) fn per_second(rates: &[f64]) -> Value {
    json!({ "per_s": median(rates.to_vec()), "rounds_per_s": rates })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

/// Nearest rank of a sorted list; NaN of an empty one.
pub(crate) fn percentile(sorted: &[f64], p: f64) -> f64 {
    let rank = (p * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(rank).copied().unwrap_or(f64::NAN)
}

/// Adds `ratios` to a finished report: ours over the floor, ours over ptp.
pub(crate) fn add_ratios(report: &mut Value) {
    let figure = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let over = |kind: &str, peer: &str| {
        figure(&format!("/{kind}/ours/p50_ms")) / figure(&format!("/{kind}/{peer}/p50_ms"))
    };
    let ratios = json!({
        "add_over_floor": over("add", "floor"),
        "add_over_ptp": over("add", "ptp"),
        "del_over_floor": over("del", "floor"),
        "del_over_ptp": over("del", "ptp"),
        "add_last_over_first": figure("/add/ours/last_over_first"),
        "parallel_rate_over_floor": figure("/add_parallel/ours/per_s") / figure("/add_parallel/floor/per_s"),
    });
    if let Value::Object(map) = report {
        map.insert("ratios".to_owned(), ratios);
    }
}

/// The report as tables.
pub(crate) fn tables(report: &Value) -> String {
    let mut out = String::new();
    let columns = [
        "min_ms",
        "p50_ms",
        "p99_ms",
        "cpu_p50_ms",
        "peak_rss_mib",
        "first_p50_ms",
        "last_p50_ms",
    ];
    for kind in ["add", "del"] {
        let _ = write!(out, "\n{:<18}", kind.to_uppercase());
        for column in columns {
            let _ = write!(out, "{column:>14}");
        }
        for peer in ["ours", "floor", "ptp"] {
            let _ = write!(out, "\n  {peer:<16}");
            for column in columns {
                let value = report
                    .pointer(&format!("/{kind}/{peer}/{column}"))
                    .and_then(Value::as_f64);
                let _ = write!(out, "{:>14.3}", value.unwrap_or(f64::NAN));
            }
        }
        out.push('\n');
    }
    for (title, path) in [
        ("ADD side by side", "/add_parallel"),
        ("ratios", "/ratios"),
        ("agent", "/agent"),
        ("idle", "/idle"),
        ("EC2 calls by occasion", "/ec2_calls"),
        ("burst", "/burst"),
        ("IPv6", "/ipv6"),
        ("binary sizes, MiB", "/sizes_mib"),
    ] {
        let _ = writeln!(out, "\n{title}");
        if let Some(Value::Object(map)) = report.pointer(path) {
            for (name, value) in map {
                let _ = writeln!(out, "  {name:<28} {}", plain(value));
            }
        }
    }
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::Number(n) if n.is_f64() => format!("{:.3}", n.as_f64().unwrap_or(f64::NAN)),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| format!("{k} {}", plain(v)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank_of_the_sorted_list() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert_eq!(percentile(&values, 0.5), 3.0);
        assert_eq!(percentile(&values, 0.99), 5.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn ratios_compare_medians_of_ours_with_those_of_the_others() {
        let mut report = json!({
            "add": {"ours": {"p50_ms": 3.0, "last_over_first": 1.0}, "floor": {"p50_ms": 2.0}, "ptp": {"p50_ms": 12.0}},
            "del": {"ours": {"p50_ms": 1.0}, "floor": {"p50_ms": 1.0}, "ptp": {"p50_ms": 4.0}},
            "add_parallel": {"ours": {"per_s": 80.0}, "floor": {"per_s": 100.0}},
        });
        add_ratios(&mut report);
        assert_eq!(report["ratios"]["add_over_floor"], 1.5);
        assert_eq!(report["ratios"]["add_over_ptp"], 0.25);
        assert_eq!(report["ratios"]["parallel_rate_over_floor"], 0.8);
    }
}
