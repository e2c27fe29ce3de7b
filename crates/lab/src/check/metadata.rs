//! IMDS from pods and nodes, at the hop limits that let tokens through to pods and that do not.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::imds;
use super::plan::{Endpoint, Kind};
use super::report::{Report, named};
use crate::control::{self, Ask, Status};
use crate::error::LabError;
use crate::state::Dir;

/// Pods and nodes get a token at hop limit 2, and at 1 the nodes only.
pub(crate) fn metadata(
    dir: &Dir,
    status: &Status,
    endpoints: &[Endpoint],
    report: &mut Report,
) -> Result<(), LabError> {
    let limits = HopLimits::remember(dir, status);
    limits.set(2)?;
    for (endpoint, got) in for_all(endpoints, imds::instance_id) {
        let node = match endpoint.kind {
            Kind::Pod { node, .. } => endpoints.get(node),
            _ => Some(endpoint),
        };
        let instance = node
            .and_then(|n| status.nodes.iter().find(|s| s.name == n.name))
            .map(|n| n.instance.clone());
        let kind = if matches!(endpoint.kind, Kind::Pod { .. }) {
            "pod-to-imds"
        } else {
            "node-to-imds"
        };
        let right = got.as_ref().ok() == instance.as_ref();
        let expected = format!("the id {}", instance.unwrap_or_default());
        let failure = || named(kind, &endpoint.name, "IMDS", expected, got.unwrap_or_else(|e| e));
        report.note(kind, right.then_some(()).ok_or_else(failure));
    }
    limits.set(1)?;
    let pods: Vec<Endpoint> = endpoints
        .iter()
        .filter(|e| matches!(e.kind, Kind::Pod { .. }))
        .cloned()
        .collect();
    for (endpoint, got) in for_all(&pods, imds::no_token) {
        let kind = "pod-to-imds-at-hop-limit-1";
        let failure = |got| named(kind, &endpoint.name, "IMDS", "no token".to_owned(), got);
        report.note(kind, got.map_err(failure));
    }
    let nodes: Vec<Endpoint> = endpoints
        .iter()
        .filter(|e| matches!(e.kind, Kind::Node { .. }))
        .cloned()
        .collect();
    for (endpoint, got) in for_all(&nodes, imds::instance_id) {
        let kind = "node-to-imds-at-hop-limit-1";
        let failure = |got| named(kind, &endpoint.name, "IMDS", "its instance id".to_owned(), got);
        report.note(kind, got.map(drop).map_err(failure));
    }
    Ok(())
}

/// Does `work` for every pod and node side by side.
fn for_all<T: Send>(
    endpoints: &[Endpoint],
    work: impl Fn(&Endpoint) -> Result<T, String> + Sync,
) -> Vec<(&Endpoint, Result<T, String>)> {
    let inside = endpoints
        .iter()
        .filter(|e| matches!(e.kind, Kind::Pod { .. } | Kind::Node { .. }));
    std::thread::scope(|scope| {
        let threads: Vec<_> = inside.map(|e| (e, scope.spawn(|| work(e)))).collect();
        let join = |t: std::thread::ScopedJoinHandle<'_, Result<T, String>>| {
            t.join()
                .unwrap_or_else(|_| Err("the asking thread panicked".to_owned()))
        };
        threads.into_iter().map(|(e, t)| (e, join(t))).collect()
    })
}

/// Hop limits of all nodes, restored when this is dropped.
struct HopLimits<'a> {
    dir: &'a Dir,
    nodes: Vec<&'a str>,
    before: Mutex<BTreeMap<&'a str, u8>>,
}

impl<'a> HopLimits<'a> {
    fn remember(dir: &'a Dir, status: &'a Status) -> Self {
        let nodes = status.nodes.iter().map(|n| n.name.as_str()).collect();
        Self {
            dir,
            nodes,
            before: Mutex::default(),
        }
    }

    fn set(&self, hops: u8) -> Result<(), LabError> {
        for &node in &self.nodes {
            let was: u8 = control::ask(
                self.dir,
                &Ask::HopLimit {
                    node: node.to_owned(),
                    hops,
                },
            )?;
            self.before
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .entry(node)
                .or_insert(was);
        }
        Ok(())
    }
}

impl Drop for HopLimits<'_> {
    fn drop(&mut self) {
        for (node, hops) in self
            .before
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iter()
        {
            let ask = Ask::HopLimit {
                node: (*node).to_owned(),
                hops: *hops,
            };
            if let Err(e) = control::ask::<u8>(self.dir, &ask) {
                tracing::warn!(error = %e, node, "the hop limit stays changed");
            }
        }
    }
}
