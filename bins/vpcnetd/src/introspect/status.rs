//! `/v1/vpcnet/status`: the agent and its pool on one page; and the gauges, which say the same in numbers.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use vpcnet_ipam::{AddressState, RefusalCause};

use super::Pages;
use crate::clock;
use crate::core::View;
use crate::metrics::Metrics;

pub(super) async fn page(State(pages): State<Pages>) -> Response {
    let config = std::sync::Arc::clone(&pages.config);
    let published = pages.publisher.get();
    let answer = pages.core.look(move |view| {
        let mut notes: Vec<&str> = config.notes.iter().map(String::as_str).collect();
        notes.extend(view.notes.iter().map(String::as_str));
        notes.extend(published.complaints.iter());
        json!({
            "agent": {
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "uptime_ms": u64::try_from(clock::since_start().as_millis()).unwrap_or(u64::MAX),
                "node": config.kubernetes.node_name,
                "ready": published.ready,
                "starting": view.starting,
                "impaired": published.impaired,
                "contested": published.contested,
                "kept": published.kept,
                "taken_over": published.taken_over,
                "takeover_error": published.takeover_error,
                "callers": view.callers,
                "checkpoint": config.checkpoint,
                "checkpoint_error": view.checkpoint_error,
                "socket": config.socket,
                "notes": notes,
            },
            "instance": view.facts.machine,
            "vpc": { "cidrs": view.facts.vpc_cidrs, "ipv6_cidrs": view.facts.vpc_ipv6_cidrs, "security_groups": view.facts.groups },
            "pool": view.pool.map(|pool| pool.view(view.now)),
        })
    });
    match answer.await {
        Ok(page) => Json::<Value>(page).into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")).into_response(),
    }
}

/// Sets the gauges from the pool.
pub(super) fn gauges(view: &View<'_>, metrics: &Metrics) {
    let Some(pool) = view.pool else { return };
    let pool = pool.view(view.now);
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let managed = || pool.interfaces.iter().filter(|i| i.managed);
    let addresses = || {
        managed()
            .flat_map(|i| &i.addresses)
            .filter(|a| a.state != AddressState::Releasing)
    };
    metrics.eni_max.set(i64::from(pool.max_interfaces));
    metrics.ip_max.set(i64::from(
        pool.max_interfaces.saturating_mul(pool.limits.per_eni()),
    ));
    metrics.eni_allocated.set(number(managed().count()));
    // Of a /80 more than any number of pods: counted as what it holds.
    let prefixes = managed().map(|i| i.ipv6_prefixes.len()).sum::<usize>();
    let ipv6_total = number(prefixes).saturating_mul(1 << 48);
    metrics
        .total
        .set(number(addresses().count()).saturating_add(ipv6_total));
    let ipv6 = || managed().flat_map(|i| &i.ipv6);
    let with_ipv6 = ipv6().filter(|a| a.state == AddressState::Assigned).count();
    let with_ipv4 = addresses().filter(|a| a.state == AddressState::Assigned).count();
    metrics.assigned.set(number(with_ipv4 + with_ipv6));
    metrics
        .prefixes
        .set(number(managed().map(|i| i.prefixes.len()).sum()));
    // Interfaces that went must not stay as series.
    metrics.assigned_per_eni.reset();
    for interface in managed() {
        let assigned = interface
            .addresses
            .iter()
            .filter(|a| a.state == AddressState::Assigned)
            .count();
        let ipv6 = interface
            .ipv6
            .iter()
            .filter(|a| a.state == AddressState::Assigned);
        let assigned = assigned + ipv6.count();
        metrics
            .assigned_per_eni
            .with_label_values(&[&interface.id.0])
            .set(number(assigned));
    }
    let mut waiting: BTreeMap<&'static str, i64> = BTreeMap::new();
    for pod in &pool.waiting {
        *waiting.entry(label(pod.cause)).or_default() += 1;
    }
    metrics.waiting.reset();
    for (cause, pods) in waiting {
        metrics.waiting.with_label_values(&[cause]).set(pods);
    }
}

/// A cause as a label.
fn label(cause: RefusalCause) -> &'static str {
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
