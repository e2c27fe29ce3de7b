//! The Prometheus metrics, under the names of the AWS VPC CNI where it has the same thing, under `vpcnet_` where it has not.

mod drop_in;
mod make;
mod process;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};
use vpcnet_cloud::{ErrorClass, class_of};
use vpcnet_ipam::RefusalCause;

use make::{counter, counters, float, floats, gauge, gauges, histogram, histograms};

pub use drop_in::DropIn;

/// All metrics of the agent.
pub struct Metrics {
    registry: Registry,
    /// Interfaces the pool may use at most.
    pub eni_max: IntGauge,
    /// Addresses the pool can have at most.
    pub ip_max: IntGauge,
    /// Interfaces in the pool.
    pub eni_allocated: IntGauge,
    /// Addresses in the pool.
    pub total: IntGauge,
    /// Addresses in pods' hands.
    pub assigned: IntGauge,
    /// /28 prefixes in the pool.
    pub prefixes: IntGauge,
    /// Addresses in pods' hands, by interface.
    pub assigned_per_eni: IntGaugeVec,
    /// ADDs that were refused because the pool had nothing.
    pub no_address: IntCounter,
    /// ADDs asked for.
    pub add_requests: IntCounter,
    /// DELs asked for, by reason.
    pub del_requests: IntCounterVec,
    /// What went wrong, by place.
    pub errors: IntCounterVec,
    /// EC2 calls, by operation.
    pub ec2_calls: IntCounterVec,
    /// EC2 calls that failed, by operation.
    pub ec2_failures: IntCounterVec,
    /// EC2 calls that failed, by operation and EC2's error code.
    pub api_errors: IntCounterVec,
    /// Duration of EC2 calls, by operation and result.
    pub ec2_seconds: HistogramVec,
    /// Where an ADD spends its time in the agent.
    pub add_stage: HistogramVec,
    /// Pods that wait for an address now, by cause.
    pub waiting: IntGaugeVec,
    /// ADDs and DELs that were refused, by cause.
    pub refused: IntCounterVec,
    /// EC2 calls, by action and what came of them.
    pub ec2_results: IntCounterVec,
    /// Free addresses of a subnet, by EC2's last count.
    pub subnet_free_addresses: IntGaugeVec,
    /// Free /28 blocks of a subnet, where somebody counts them.
    pub subnet_free_prefixes: IntGaugeVec,
    /// Addresses of the pool that no pod has, by subnet.
    pub pool_free_addresses: IntGaugeVec,
    /// Prefixes of the pool that no pod has an address of, by subnet.
    pub pool_free_prefixes: IntGaugeVec,
    /// Those of the original that are kept for its dashboards.
    pub drop_in: DropIn,
    /// From process start to the first request that could be served.
    pub ready_seconds: Gauge,
    /// Checkpoint writes.
    pub checkpoint_seconds: Histogram,
    /// Files found broken at start and set aside.
    pub broken_files: IntCounter,
    /// Owners rebuilt from the kernel at start.
    pub rebuilt_owners: IntGauge,
    /// Foreign edits that were put right, by place.
    pub repairs: IntCounterVec,
    /// EC2 calls that were not made because their action backs off, by operation.
    pub held_back: IntCounterVec,
    /// Leaked interfaces that this node deleted.
    pub leaked_freed: IntCounter,
    /// What of the original's was removed from the packet filter, by kind and back end.
    pub taken_over: IntCounterVec,
    /// Which of this node's objects are followed, 1, or are not, 0, because the API server is away.
    pub kubernetes_watching: IntGaugeVec,
    /// Build of the agent.
    pub build: GaugeVec,
}

/// Part of an ADD inside the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddStage {
    /// From the call's arrival until the pool saw it.
    Queue,
    /// Until the pool had an answer, which includes waiting for EC2.
    Decide,
    /// Writing the checkpoint that holds the answer.
    Checkpoint,
    /// Until the answer was handed to the transport.
    Reply,
}

impl AddStage {
    fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Decide => "decide",
            Self::Checkpoint => "checkpoint",
            Self::Reply => "reply",
        }
    }
}

impl Metrics {
    /// A fresh set.
    ///
    /// # Errors
    /// Only when two metrics had the same name, which a test rules out.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let r = Registry::new();
        let metrics = Self {
            eni_max: gauge(
                &r,
                "awscni_eni_max",
                "The maximum number of ENIs that can be attached to the instance",
            )?,
            ip_max: gauge(
                &r,
                "awscni_ip_max",
                "The maximum number of IP addresses that can be allocated to the instance",
            )?,
            eni_allocated: gauge(&r, "awscni_eni_allocated", "The number of ENIs allocated")?,
            total: gauge(
                &r,
                "awscni_total_ip_addresses",
                "The total number of IP addresses",
            )?,
            assigned: gauge(
                &r,
                "awscni_assigned_ip_addresses",
                "The number of IP addresses assigned to pods",
            )?,
            prefixes: gauge(
                &r,
                "awscni_total_ipv4_prefixes",
                "The total number of IPv4 prefixes",
            )?,
            assigned_per_eni: gauges(
                &r,
                "awscni_assigned_ip_per_eni",
                "IP addresses assigned to pods, by ENI",
                "eni",
            )?,
            no_address: counter(
                &r,
                "awscni_no_available_ip_addresses",
                "ADDs that found no available IP address",
            )?,
            add_requests: counter(&r, "awscni_add_ip_req_count", "ADD requests")?,
            del_requests: counters(&r, "awscni_del_ip_req_count", "DEL requests", &["reason"])?,
            errors: counters(&r, "awscni_ipamd_error_count", "Errors in the agent", &["fn"])?,
            ec2_calls: counters(&r, "awscni_ec2api_req_count", "Requests to the EC2 API", &["fn"])?,
            ec2_failures: counters(
                &r,
                "awscni_ec2api_error_count",
                "Failed requests to the EC2 API",
                &["fn"],
            )?,
            api_errors: counters(
                &r,
                "awscni_aws_api_error_count",
                "Failed AWS calls by error code",
                &["api", "error"],
            )?,
            ec2_seconds: histograms(
                &r,
                "vpcnet_ec2_call_seconds",
                "Duration of EC2 calls",
                &["api", "result"],
                vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            )?,
            add_stage: histograms(
                &r,
                "vpcnet_add_stage_seconds",
                "Where an ADD spends its time inside the agent",
                &["stage"],
                vec![
                    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0,
                ],
            )?,
            waiting: gauges(
                &r,
                "vpcnet_waiting_pods",
                "Pods that wait for an address now",
                "cause",
            )?,
            refused: counters(
                &r,
                "vpcnet_refusals_total",
                "ADDs and DELs that were refused",
                &["cause"],
            )?,
            ec2_results: counters(
                &r,
                "vpcnet_ec2_calls_total",
                "EC2 calls by action and result",
                &["action", "result"],
            )?,
            subnet_free_addresses: gauges(
                &r,
                "vpcnet_subnet_free_addresses",
                "Free addresses of the subnet, by EC2's last count",
                "subnet",
            )?,
            subnet_free_prefixes: gauges(
                &r,
                "vpcnet_subnet_free_prefixes",
                "Free /28 blocks of the subnet, where they are counted",
                "subnet",
            )?,
            pool_free_addresses: gauges(
                &r,
                "vpcnet_pool_free_addresses",
                "Addresses of this node that no pod has, by subnet",
                "subnet",
            )?,
            pool_free_prefixes: gauges(
                &r,
                "vpcnet_pool_free_prefixes",
                "/28 prefixes of this node that no pod has an address of, by subnet",
                "subnet",
            )?,
            drop_in: DropIn::new(&r)?,
            ready_seconds: float(
                &r,
                "vpcnet_ready_seconds",
                "From process start until requests were served",
            )?,
            checkpoint_seconds: histogram(
                &r,
                "vpcnet_checkpoint_write_seconds",
                "Duration of checkpoint writes",
                vec![0.000_05, 0.000_1, 0.000_5, 0.001, 0.01, 0.1, 1.0],
            )?,
            broken_files: counter(
                &r,
                "vpcnet_broken_state_files_total",
                "State files found broken and set aside",
            )?,
            rebuilt_owners: gauge(
                &r,
                "vpcnet_rebuilt_owners",
                "Address owners rebuilt from the kernel at start",
            )?,
            repairs: counters(
                &r,
                "vpcnet_repairs_total",
                "Foreign edits of the node's network that were put right",
                &["place"],
            )?,
            held_back: counters(
                &r,
                "vpcnet_ec2_held_back_total",
                "EC2 calls that were not made because their action backs off",
                &["api"],
            )?,
            leaked_freed: counter(
                &r,
                "vpcnet_leaked_interfaces_freed_total",
                "Leaked interfaces that this node deleted",
            )?,
            taken_over: counters(
                &r,
                "vpcnet_taken_over_total",
                "What of amazon-vpc-cni-k8s was removed from the packet filter at the start",
                &["kind", "backend"],
            )?,
            kubernetes_watching: gauges(
                &r,
                "vpcnet_kubernetes_watching",
                "Whether the objects of a resource are followed now",
                "resource",
            )?,
            build: floats(
                &r,
                "awscni_build_info",
                "Build of the agent",
                &["version", "goversion"],
            )?,
            registry: r,
        };
        process::register(&metrics.registry)?;
        metrics
            .build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), ""])
            .set(1.0);
        Ok(Arc::new(metrics))
    }

    /// Notes how long a stage of one ADD took.
    pub fn stage(&self, stage: AddStage, took: Duration) {
        self.add_stage
            .with_label_values(&[stage.label()])
            .observe(took.as_secs_f64());
    }

    /// Notes an error of the agent; `place` is one of a few fixed words, never error text.
    pub fn error(&self, place: &'static str) {
        self.errors.with_label_values(&[place]).inc();
    }

    /// Notes one EC2 call. `code` is EC2's error code, `None` for success; `status` HTTP's, if an answer came.
    pub fn ec2_call(&self, action: &str, code: Option<&str>, status: Option<u16>, took: Duration) {
        self.drop_in.call(action, code.is_some(), status, took);
        let outcome = code.map_or("success", |code| result_label(code, status));
        self.ec2_results.with_label_values(&[action, outcome]).inc();
        self.ec2_calls.with_label_values(&[action]).inc();
        if let Some(code) = code {
            self.ec2_failures.with_label_values(&[action]).inc();
            self.api_errors.with_label_values(&[action, code]).inc();
        }
        self.ec2_seconds
            .with_label_values(&[action, outcome])
            .observe(took.as_secs_f64());
    }

    /// Everything in the text format. Whatever cannot be written is left out rather than the whole.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 * 1024);
        let encoder = TextEncoder::new();
        for family in self.registry.gather() {
            let start = out.len();
            if encoder.encode(&[family], &mut out).is_err() {
                out.truncate(start);
            }
        }
        out
    }
}

/// A failed call's result as a label: a closed set, other than EC2's codes.
fn result_label(code: &str, status: Option<u16>) -> &'static str {
    match class_of(code, "", status.unwrap_or(0)) {
        _ if status.is_none() => "unanswered",
        ErrorClass::Throttled => "throttled",
        ErrorClass::Exhausted => "exhausted",
        ErrorClass::LimitReached => "limit_reached",
        ErrorClass::Gone => "gone",
        ErrorClass::Refused => "refused",
        ErrorClass::Retry => "failed",
    }
}

/// A cause as a label.
#[must_use]
pub fn cause_label(cause: RefusalCause) -> &'static str {
    match cause {
        RefusalCause::InstanceFull => "instance_full",
        RefusalCause::SubnetExhausted => "subnet_exhausted",
        RefusalCause::Throttled => "throttled",
        RefusalCause::Ec2Unreachable => "ec2_unreachable",
        RefusalCause::Ec2Refused => "ec2_refused",
        RefusalCause::CoolingDown => "cooling_down",
        RefusalCause::StillWorking => "still_working",
        RefusalCause::TargetReached => "target_reached",
        RefusalCause::Deleted => "deleted",
        RefusalCause::CheckpointFailed => "checkpoint_failed",
        RefusalCause::BadRequest => "bad_request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_those_scrapers_know_are_there() {
        let metrics = Metrics::new().unwrap();
        metrics.add_requests.inc();
        metrics.del_requests.with_label_values(&["PodDeleted"]).inc();
        metrics.ec2_call(
            "CreateNetworkInterface",
            Some("RequestLimitExceeded"),
            Some(503),
            Duration::from_millis(120),
        );
        metrics.stage(AddStage::Decide, Duration::from_micros(80));
        let text = String::from_utf8(metrics.text()).unwrap();
        for line in [
            "awscni_add_ip_req_count 1",
            "awscni_del_ip_req_count{reason=\"PodDeleted\"} 1",
            "awscni_ec2api_req_count{fn=\"CreateNetworkInterface\"} 1",
            "awscni_ec2api_error_count{fn=\"CreateNetworkInterface\"} 1",
            "awscni_aws_api_error_count{api=\"CreateNetworkInterface\",error=\"RequestLimitExceeded\"} 1",
            "vpcnet_ec2_calls_total{action=\"CreateNetworkInterface\",result=\"throttled\"} 1",
            "awscni_aws_api_latency_ms_count{api=\"CreateNetworkInterface\",error=\"true\",status=\"503\"} 1",
            "vpcnet_ec2_call_seconds_count{api=\"CreateNetworkInterface\",result=\"throttled\"} 1",
            "vpcnet_add_stage_seconds_bucket{stage=\"decide\",le=\"0.0001\"} 1",
            "awscni_total_ip_addresses 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.contains("awscni_build_info{"));
    }
}
