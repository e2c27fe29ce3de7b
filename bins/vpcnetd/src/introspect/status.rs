//! `/v1/vpcnet/status`: the agent and its pool on one page.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Pages;
use crate::clock;
use crate::core::Refused;

pub(super) async fn page(State(pages): State<Pages>) -> Response {
    let config = std::sync::Arc::clone(&pages.config);
    let published = pages.publisher.get();
    let answer = pages.core.look(move |view| {
        let mut notes: Vec<String> = config.notes.to_vec();
        notes.extend(view.notes.iter().cloned());
        notes.extend(published.complaints.iter());
        notes.extend(published.kubernetes.away.iter().cloned());
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
            "kubernetes": published.kubernetes,
            "instance": view.facts.machine,
            "vpc": { "cidrs": view.facts.vpc_cidrs, "ipv6_cidrs": view.facts.vpc_ipv6_cidrs, "security_groups": view.facts.groups },
            "now_ns": view.now.wall_ns,
            "refused": view.refusals.iter().collect::<Vec<&Refused>>(),
            "pool": view.pool.map(|pool| pool.view(view.now)),
        })
    });
    match answer.await {
        Ok(page) => Json::<Value>(page).into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")).into_response(),
    }
}
