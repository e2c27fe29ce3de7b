//! Times as a tired reader wants them: two figures at most.

/// A length of time: `850 ms`, `12.3 s`, `4 min 10 s`, `3 h 5 min`, `2 d 4 h`.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..60 if ms % 1000 >= 100 && s < 20 => format!("{s}.{} s", ms % 1000 / 100),
        1..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

fn two(large: u64, unit: &str, small: u64, smaller: &str) -> String {
    if small == 0 {
        format!("{large} {unit}")
    } else {
        format!("{large} {unit} {small} {smaller}")
    }
}

/// How long ago, by the agent's clock; both in nanoseconds since the Unix epoch.
pub(crate) fn ago(then_ns: i64, now_ns: i64) -> String {
    let ms = now_ns.saturating_sub(then_ns) / 1_000_000;
    format!("{} ago", span(u64::try_from(ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_two_figures_at_most() {
        for (ms, text) in [
            (0, "0 ms"),
            (850, "850 ms"),
            (1_000, "1 s"),
            (12_340, "12.3 s"),
            (45_900, "45 s"),
            (60_000, "1 min"),
            (250_000, "4 min 10 s"),
            (11_100_000, "3 h 5 min"),
            (187_200_000, "2 d 4 h"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!(ago(0, 5_000_000_000), "5 s ago");
        assert_eq!(ago(9, 0), "0 ms ago", "a clock that was set back");
    }
}
