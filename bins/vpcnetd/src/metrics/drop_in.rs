//! Metrics of the AWS VPC CNI that have no other place here, by its names, types and labels, so that dashboards and alerts of it
//! go on. Which of its metrics are left out, and why, is in `docs/metrics.md`.

use std::time::Duration;

use prometheus::{Error, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::make::{counter, counters, gauges, histograms};
use super::summary::Summaries;

/// From milliseconds (a start with own state) to minutes (IMDS is away).
const STARTS: [f64; 10] = [0.025, 0.1, 0.25, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 300.0];

/// They.
pub struct DropIn {
    /// What the agent is at: `nodeInit`, `increaseDatastorePool`, `decreaseDatastorePool`, `nodeIPPoolReconcile`; 0 when at rest.
    pub in_progress: IntGaugeVec,
    /// Addresses in pods' hands, by prefix or single address.
    pub assigned_per_cidr: IntGaugeVec,
    /// What evidence from IMDS or EC2 changed in the pool without a call of ours.
    pub reconciles: IntCounterVec,
    /// Duration of EC2 calls in milliseconds.
    pub latency: Summaries,
    /// Errors outside of EC2 and IMDS calls: credentials.
    pub utils_errors: IntCounterVec,
    /// From process start to serving.
    pub startup: HistogramVec,
    /// From the first look at the node to the pool.
    pub node_init: HistogramVec,
    /// How marks are kept; nftables, always.
    pub connmark_backend: IntGaugeVec,
    /// Times the table of marks and SNAT was looked at or written.
    pub connmark_reconciles: IntCounterVec,
    /// Interfaces taken from pods.
    _force_removed_enis: IntCounter,
    /// Addresses taken from pods.
    _force_removed_ips: IntCounter,
}

impl DropIn {
    pub(super) fn new(r: &Registry) -> Result<Self, Error> {
        let made = Self {
            in_progress: gauges(
                r,
                "awscni_ipamd_action_inprogress",
                "The number of ipamd actions in progress",
                "fn",
            )?,
            assigned_per_cidr: gauges(
                r,
                "awscni_assigned_ip_per_cidr",
                "IP addresses assigned to pods, by CIDR",
                "cidr",
            )?,
            reconciles: counters(
                r,
                "awscni_reconcile_count",
                "What evidence from IMDS or EC2 changed in the pool",
                &["fn"],
            )?,
            latency: Summaries::new(
                r,
                "awscni_aws_api_latency_ms",
                "AWS API call latency in ms",
                &["api", "error", "status"],
            )?,
            utils_errors: counters(
                r,
                "awscni_aws_utils_error_count",
                "Errors outside of EC2 and IMDS calls",
                &["fn", "error"],
            )?,
            startup: histograms(
                r,
                "awscni_ipamd_startup_duration_seconds",
                "From process start until pods were served",
                &["success", "with_api_server", "failure_reason"],
                STARTS.to_vec(),
            )?,
            node_init: histograms(
                r,
                "awscni_ipamd_node_initialization_duration_seconds",
                "Time taken to get to the pool, each attempt",
                &["success"],
                STARTS.to_vec(),
            )?,
            connmark_backend: gauges(
                r,
                "awscni_connmark_backend",
                "How connection marks are kept",
                "backend",
            )?,
            connmark_reconciles: counters(
                r,
                "awscni_connmark_reconcile_total",
                "Times the table of connection marks was looked at or written",
                &["result"],
            )?,
            _force_removed_enis: counter(
                r,
                "awscni_force_removed_enis",
                "ENIs removed while pods had addresses of them (this agent never does)",
            )?,
            _force_removed_ips: counter(
                r,
                "awscni_force_removed_ips",
                "IP addresses removed while pods had them (this agent never does)",
            )?,
        };
        made.connmark_backend.with_label_values(&["nftables"]).set(1);
        Ok(made)
    }

    /// The agent serves pods.
    pub fn started(&self, took: Duration, with_api_server: bool) {
        self.startup
            .with_label_values(&["true", if with_api_server { "true" } else { "false" }, ""])
            .observe(took.as_secs_f64());
    }

    /// An attempt to get to the pool ended.
    pub fn initialised(&self, success: bool, took: Duration) {
        let success = if success { "true" } else { "false" };
        self.node_init
            .with_label_values(&[success])
            .observe(took.as_secs_f64());
    }

    /// The table of marks and SNAT was looked at, and written if need be.
    pub fn connmark_reconciled(&self, success: bool) {
        let result = if success { "success" } else { "error" };
        self.connmark_reconciles.with_label_values(&[result]).inc();
    }

    /// An EC2 call ended, with this HTTP status if any.
    pub fn call(&self, action: &str, failed: bool, status: Option<u16>, took: Duration) {
        let error = if failed { "true" } else { "false" };
        let status = status.map(|s| s.to_string()).unwrap_or_default();
        self.latency
            .observe(&[action, error, &status], took.as_secs_f64() * 1000.0);
    }
}
