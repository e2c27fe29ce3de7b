//! What every Prometheus client library tells of its process, under the common names, read from `/proc` when somebody asks.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, Gauge, Registry};

/// The kernel counts in USER_HZ, which is 100 on every architecture we run on.
const TICKS: f64 = 100.0;

/// The collector.
struct Process {
    cpu: Counter,
    start: Gauge,
    resident: Gauge,
    virtual_size: Gauge,
    open: Gauge,
    limit: Gauge,
}

/// Registers it.
///
/// # Errors
/// A taken name.
pub(super) fn register(r: &Registry) -> Result<(), Error> {
    r.register(Box::new(Process {
        cpu: Counter::new(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds",
        )?,
        start: Gauge::new(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds",
        )?,
        resident: Gauge::new("process_resident_memory_bytes", "Resident memory size in bytes")?,
        virtual_size: Gauge::new("process_virtual_memory_bytes", "Virtual memory size in bytes")?,
        open: Gauge::new("process_open_fds", "Number of open file descriptors")?,
        limit: Gauge::new("process_max_fds", "Maximum number of open file descriptors")?,
    }))
}

impl Process {
    /// Sets what can be read; the rest stays as it was.
    fn read(&self) {
        // The second field is the program's name in parentheses and may itself hold blanks; the third is the first of these.
        if let Ok(stat) = fs::read_to_string("/proc/self/stat")
            && let Some((_, rest)) = stat.rsplit_once(')')
        {
            let fields: Vec<f64> = rest
                .split_whitespace()
                .map(|f| f.parse().unwrap_or(0.0))
                .collect();
            let field = |n: usize| fields.get(n - 3).copied().unwrap_or(0.0);
            let cpu = (field(14) + field(15)) / TICKS;
            self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
            self.virtual_size.set(field(23));
            if let Some(boot) = boot_time() {
                self.start.set(boot + field(22) / TICKS);
            }
        }
        if let Some(kib) = line("/proc/self/status", "VmRSS:") {
            self.resident.set(kib * 1024.0);
        }
        if let Some(limit) = line("/proc/self/limits", "Max open files") {
            self.limit.set(limit);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The one that lists them is among them.
            let count = u32::try_from(open.count().saturating_sub(1)).unwrap_or(u32::MAX);
            self.open.set(f64::from(count));
        }
    }

    fn all(&self) -> [&dyn Collector; 6] {
        [
            &self.cpu,
            &self.start,
            &self.resident,
            &self.virtual_size,
            &self.open,
            &self.limit,
        ]
    }
}

/// Of the line that begins so, the number that follows.
fn line(path: &str, begins: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(begins))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Seconds since the Unix epoch.
fn boot_time() -> Option<f64> {
    line("/proc/stat", "btime")
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
