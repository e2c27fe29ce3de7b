//! Figures of one run, and the table.

use std::time::Duration;

use crate::account::Account;
use crate::scenario::{NODES, PODS};

/// One run.
pub(crate) struct Run {
    pub(crate) who: &'static str,
    pub(crate) account: Account,
    /// When the first pods of all nodes had their addresses, and how long each had waited.
    pub(crate) served: Vec<(u64, u64)>,
    /// Of pods that came later.
    pub(crate) later: Vec<u64>,
    /// ADDs that were refused.
    pub(crate) refusals: u64,
    pub(crate) events: u64,
    pub(crate) took: Duration,
}

/// Seconds of a time in milliseconds.
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn percentile(sorted: &[u64], part: f64) -> u64 {
    let rank = (part * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(rank).copied().unwrap_or(0)
}

impl Run {
    pub(crate) fn calls(&self) -> (u64, u64) {
        let sum = |(made, refused), (_, c): (_, crate::account::Count)| (made + c.made, refused + c.refused);
        self.account.counts().fold((0, 0), sum)
    }

    /// How much later than forced the pods were served, by rank, in milliseconds.
    pub(crate) fn beyond(&self, forced: &[u64]) -> Vec<u64> {
        let mut times: Vec<u64> = self.served.iter().map(|(at, _)| *at).collect();
        times.sort_unstable();
        let mut beyond: Vec<u64> = times
            .iter()
            .zip(forced)
            .map(|(at, f)| at.saturating_sub(*f))
            .collect();
        beyond.sort_unstable();
        beyond
    }

    pub(crate) fn print(&self, forced: &[u64]) {
        let (made, refused) = self.calls();
        let beyond = self.beyond(forced);
        let late = beyond.iter().filter(|ms| **ms > 60_000).count() + (NODES * PODS - self.served.len());
        let last = self.served.iter().map(|(at, _)| *at).max().unwrap_or(0);
        let mut waits: Vec<u64> = self.served.iter().map(|(_, wait)| *wait).collect();
        waits.sort_unstable();
        println!(
            "  {:22} {:>8.0} {:>8.0} {:>9.1} {:>9.1} {:>9.0} {:>10} {:>9} {:>6.1} %",
            self.who,
            seconds(last),
            seconds(percentile(&waits, 0.5)),
            seconds(percentile(&waits, 0.99)),
            seconds(percentile(&beyond, 1.0)),
            late as f64 / (NODES * PODS) as f64 * 100.0,
            made,
            refused,
            refused as f64 / made.max(1) as f64 * 100.0
        );
        let by_action: Vec<String> = self
            .account
            .counts()
            .map(|(action, c)| {
                if c.refused == 0 {
                    format!("{action} {}", c.made)
                } else {
                    format!("{action} {} ({} throttled)", c.made, c.refused)
                }
            })
            .collect();
        println!("      {}", by_action.join(", "));
        let mut later = self.later.clone();
        later.sort_unstable();
        let churn = if later.is_empty() {
            String::new()
        } else {
            format!(
                "; {} pods came later, the slowest after {:.1} s",
                later.len(),
                seconds(percentile(&later, 1.0))
            )
        };
        println!(
            "      {} ADDs refused and repeated{churn}; {} events in {:.1} s",
            self.refusals,
            self.events,
            self.took.as_secs_f64()
        );
    }
}

pub(crate) fn heading(title: &str, forced: &[u64]) {
    println!("\n{title}");
    println!(
        "  forced by the buckets: the last pod {:.0} s after the start",
        seconds(forced.last().copied().unwrap_or(0))
    );
    println!(
        "  {:22} {:>8} {:>8} {:>9} {:>9} {:>9} {:>10} {:>9} {:>8}",
        "", "last pod", "wait p50", "wait p99", "beyond", "> 60 s, %", "EC2 calls", "throttled", "share"
    );
}
