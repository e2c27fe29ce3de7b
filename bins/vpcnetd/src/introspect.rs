//! The introspection server: the original's pages, and ours with the whole pool and its next plan.

mod enis;
mod explain;
mod gauges;
mod status;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::config::{Config, PortChoice};
use crate::core::{CoreHandle, View};
use crate::leftovers::Leftovers;
use crate::metrics::Metrics;
use crate::published::Publisher;

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    /// The pool's loop.
    pub core: CoreHandle,
    /// Settings.
    pub config: Arc<Config>,
    /// What servers tell.
    pub publisher: Publisher,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What pods' host ends may be called.
    pub leftovers: Arc<Leftovers>,
}

const PATHS: [&str; 9] = [
    "/v1/enis",
    "/v1/eni-configs",
    "/v1/networkutils-env-settings",
    "/v1/ipamd-env-settings",
    "/v1/vpcnet/status",
    "/v1/vpcnet/pool",
    "/v1/vpcnet/plan",
    "/v1/vpcnet/explain",
    "/metrics",
];

/// The pages on the introspection address.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/v1/enis", get(enis))
        .route("/v1/eni-configs", get(eni_configs))
        .route("/v1/networkutils-env-settings", get(network_settings))
        .route("/v1/ipamd-env-settings", get(pool_settings))
        .route("/v1/vpcnet/status", get(status::page))
        .route("/v1/vpcnet/pool", get(pool))
        .route("/v1/vpcnet/plan", get(plan))
        .route("/v1/vpcnet/explain", get(explain::page))
        .route("/metrics", get(metrics))
        .fallback(|| async { Json(json!({ "AvailableCommands": PATHS })) })
        .with_state(pages)
}

/// The page on the metrics address.
pub fn metrics_router(pages: Pages) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(pages)
}

/// A page from a look at the pool.
async fn from_pool<T, F>(pages: &Pages, look: F) -> Response
where
    T: IntoResponse + Send + 'static,
    F: FnOnce(&View<'_>) -> Option<T> + Send + 'static,
{
    match pages
        .core
        .look(|view| look(view).ok_or_else(|| view.starting.to_owned()))
        .await
    {
        Ok(Ok(page)) => page.into_response(),
        Ok(Err(why)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the agent has no pool yet: {why}\n"),
        )
            .into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")).into_response(),
    }
}

async fn enis(State(pages): State<Pages>) -> Response {
    from_pool(&pages, |view| Some(Json(enis::page(&view.pool?.view(view.now))))).await
}

/// The name of the ENIConfig in force, as the original: 404 where there is none.
async fn eni_configs(State(pages): State<Pages>) -> Response {
    from_pool(&pages, |view| {
        let custom = view.pool?.targets().subnets.custom.as_ref();
        Some(match custom {
            Some(custom) if custom.name.is_empty() => {
                (StatusCode::NOT_FOUND, "no ENIConfig is known for this node\n").into_response()
            }
            Some(custom) => Json(custom.name.clone()).into_response(),
            None => (StatusCode::NOT_FOUND, "custom networking is off\n").into_response(),
        })
    })
    .await
}

async fn pool(State(pages): State<Pages>) -> Response {
    from_pool(&pages, |view| {
        // Serialised here, not copied: a look must be short, but a copy of the pool is memory that is never given back.
        let text = serde_json::to_vec(&json!({ "now": view.now, "pool": view.pool? })).ok()?;
        Some(([(header::CONTENT_TYPE, "application/json")], text))
    })
    .await
}

async fn plan(State(pages): State<Pages>) -> Response {
    from_pool(&pages, |view| Some(Json(view.pool?.explain(view.now)))).await
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let counts = Arc::clone(&pages.metrics);
    // Gauges are set when somebody reads them: an idle agent does nothing to keep them.
    let _ = pages.core.look(move |view| gauges::set(view, &counts)).await;
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        pages.metrics.text(),
    )
        .into_response()
}

async fn network_settings(State(pages): State<Pages>) -> Json<Value> {
    let host = &pages.config.host;
    let exclude: Vec<String> = host.exclude_snat.iter().map(ToString::to_string).collect();
    let services: Vec<String> = host.external_services.iter().map(ToString::to_string).collect();
    Json(json!({
        "AWS_VPC_K8S_CNI_CONNMARK": host.mark,
        "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": if exclude.is_empty() { Value::Null } else { exclude.into() },
        "AWS_VPC_K8S_CNI_EXTERNALSNAT": host.external_snat,
        "AWS_EXTERNAL_SERVICE_CIDRS": if services.is_empty() { Value::Null } else { services.into() },
        "AWS_VPC_ENI_MTU": host.mtu,
        "AWS_VPC_K8S_CNI_VETHPREFIX": host.veth_prefix,
        "AWS_VPC_CNI_NODE_PORT_SUPPORT": host.node_port,
        "AWS_VPC_K8S_CNI_RANDOMIZESNAT": match host.ports {
            PortChoice::Kernel => 0,
            PortChoice::HashRandom => 1,
            PortChoice::Random => 2,
        },
    }))
}

async fn pool_settings(State(pages): State<Pages>) -> Json<Value> {
    let (pool, interfaces) = (&pages.config.pool, &pages.config.interfaces);
    Json(json!({
        "WARM_IP_TARGET": pool.warm_ip.unwrap_or(0),
        "WARM_ENI_TARGET": pool.warm_eni,
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": interfaces.custom_networking.is_some(),
        "AWS_MANAGE_ENIS_NON_SCHEDULABLE": pool.manage_when_unschedulable,
        "ENABLE_SUBNET_DISCOVERY": interfaces.subnet_discovery,
    }))
}
