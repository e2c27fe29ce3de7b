//! Keeps the fabric in step with the model, in a thread of its own: making links must not hold up the API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::api::Engine;
use crate::error::LabError;
use crate::fabric::{DropLog, Fabric, NodePlace};
use crate::model::InstanceId;
use crate::state::{Dir, Records};

/// The fabric as the rest of the daemon sees it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    nodes: Arc<Mutex<BTreeMap<InstanceId, NodePlace>>>,
    fabric: Arc<Mutex<Fabric>>,
    applied: watch::Receiver<u64>,
}

impl Network {
    /// Makes the fabric and starts following the engine. Must be called inside the daemon's runtime.
    pub(crate) fn start(
        dir: &Dir,
        records: Records,
        engine: &Engine,
        drops: &DropLog,
    ) -> Result<Self, LabError> {
        let mut wanted = engine.subscribe();
        let generation = *wanted.borrow_and_update();
        let view = engine.with(|vpc, _| vpc.fabric());
        let fabric = Fabric::create(dir, records, &view, drops)?;
        let nodes = Arc::new(Mutex::new(fabric.nodes()));
        let fabric = Arc::new(Mutex::new(fabric));
        let (done, applied) = watch::channel(generation);
        let network = Self {
            nodes,
            fabric,
            applied,
        };
        let (engine, follower) = (engine.clone(), network.clone());
        tokio::spawn(async move {
            while wanted.changed().await.is_ok() {
                let generation = *wanted.borrow_and_update();
                // The view may be younger than the generation; then the next round finds nothing to do.
                let view = engine.with(|vpc, _| vpc.fabric());
                let worker = follower.clone();
                let apply = move || {
                    let mut fabric = worker.fabric.lock().unwrap_or_else(PoisonError::into_inner);
                    let start = Instant::now();
                    match fabric.apply(&view) {
                        Ok(()) => tracing::info!(generation, took = ?start.elapsed(), "the fabric followed"),
                        Err(e) => tracing::error!(error = %e, "a change of the fabric failed"),
                    }
                    *worker.nodes.lock().unwrap_or_else(PoisonError::into_inner) = fabric.nodes();
                };
                let _ = tokio::task::spawn_blocking(apply).await;
                done.send_replace(generation);
            }
        });
        Ok(network)
    }

    /// Waits until the fabric shows all that the model had when this was called.
    pub(crate) async fn caught_up(&self, engine: &Engine) {
        let wanted = *engine.subscribe().borrow();
        let mut applied = self.applied.clone();
        // An error means the follower has ended, and nothing more will come.
        let _ = applied.wait_for(|generation| *generation >= wanted).await;
    }

    pub(crate) fn nodes(&self) -> BTreeMap<InstanceId, NodePlace> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes down something else that is about to be made in this lab, or has gone.
    pub(crate) fn record(&self, change: impl FnOnce(&mut crate::state::Made)) -> Result<(), LabError> {
        self.fabric
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(change)
    }

    /// Dropped packets by reason.
    pub(crate) fn counters(&self) -> Result<BTreeMap<String, u64>, LabError> {
        self.fabric
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .counters()
    }
}
