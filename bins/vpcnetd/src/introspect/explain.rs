//! `/v1/vpcnet/explain?namespace=…&name=…`: one pod. What the pool knows of it, what the kernel must have for it and has, and why it
//! was refused last.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use vpcnet_ipam::{HeldAddress, MIGRATED_NETWORK, PodReport, host_veth_suffix_nth};
use vpcnet_linux::netlink::{NetlinkError, Socket};
use vpcnet_linux::pod::{Must, Question, inspect};

use super::Pages;
use crate::core::Refused;

/// Addresses of one pod are at most one a card; host veths are named by their number.
const MOST_VETHS: u32 = 16;

/// Which pod.
#[derive(Deserialize)]
pub(super) struct Which {
    namespace: String,
    name: String,
}

#[derive(Serialize)]
struct Page {
    namespace: String,
    name: String,
    /// Nanoseconds since the Unix epoch: what the times here are compared with.
    now_ns: i64,
    /// Why the agent has no pool yet; empty when it has one.
    starting: String,
    pod: PodReport,
    /// For each of the pod's addresses, in their order.
    kernel: Vec<Kernel>,
    refused: Option<Refused>,
}

/// What the kernel shows for one address.
#[derive(Serialize)]
struct Kernel {
    musts: Vec<Said>,
    /// It could not be read: why.
    error: Option<String>,
}

#[derive(Serialize)]
struct Said {
    what: String,
    is_so: bool,
    found: String,
}

pub(super) async fn page(State(pages): State<Pages>, Query(which): Query<Which>) -> Response {
    let prefixes = pages.leftovers.prefixes();
    let veths: Vec<String> = (0..MOST_VETHS)
        .flat_map(|index| names(&prefixes, &which.namespace, &which.name, index))
        .collect();
    let Which { namespace, name } = which;
    let answer = pages.core.look(move |view| {
        let pool = view
            .pool
            .map(|p| p.explain_pod(view.now, &namespace, &name, &veths));
        Page {
            starting: view.starting.to_owned(),
            now_ns: view.now.wall_ns,
            refused: view.refusals.of(&namespace, &name).cloned(),
            pod: pool.unwrap_or_default(),
            kernel: Vec::new(),
            namespace,
            name,
        }
    });
    let mut page = match answer.await {
        Ok(page) => page,
        Err(gone) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")).into_response(),
    };
    let questions: Vec<Question> = page.pod.holds.iter().map(|h| question(&prefixes, h)).collect();
    // The kernel's lists may be long and its lock taken: pods are not to wait for this.
    let asked = tokio::task::spawn_blocking(move || questions.iter().map(look).collect()).await;
    page.kernel = asked.unwrap_or_default();
    Json(page).into_response()
}

/// The names that a pod's host end may have, the present setting's first.
fn names(prefixes: &[String], namespace: &str, name: &str, index: u32) -> Vec<String> {
    let suffix = host_veth_suffix_nth(namespace, name, index);
    prefixes
        .iter()
        .map(|prefix| format!("{prefix}{suffix}"))
        .collect()
}

fn question(prefixes: &[String], held: &HeldAddress) -> Question {
    let host_names = if held.key.network == MIGRATED_NETWORK && held.meta.name.is_empty() {
        vec![held.key.container_id.clone()]
    } else {
        names(prefixes, &held.meta.namespace, &held.meta.name, held.index)
    };
    Question {
        address: held.address,
        table: held.route_table,
        host_names,
        mac: held.mac.parse().ok(),
    }
}

fn look(question: &Question) -> Kernel {
    let found: Result<Vec<Must>, NetlinkError> =
        Socket::open().and_then(|mut socket| inspect(&mut socket, question));
    match found {
        Ok(musts) => Kernel {
            musts: musts
                .into_iter()
                .map(|Must { what, is_so, found }| Said { what, is_so, found })
                .collect(),
            error: None,
        },
        Err(error) => Kernel {
            musts: Vec::new(),
            error: Some(error.to_string()),
        },
    }
}
