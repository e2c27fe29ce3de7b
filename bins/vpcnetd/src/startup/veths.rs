//! Owners whose veth was not there at start: their plugins may have been between our reply and the veth; and owners whose veth
//! was still there, though their DEL had come while nobody served it. Once, before the pool's grace ends, the kernel is
//! looked at again.

use std::time::Duration;

use vpcnet_ipam::{Checkpoint, Event, KernelEvidence, host_veth_suffix};

use super::{Surroundings, kernel_evidence};

/// Well within the pool's grace of 30 s, and long after any plugin that had its answer is done.
const AFTER: Duration = Duration::from_secs(25);
/// Pause between looks that fail.
const RETRY: Duration = Duration::from_millis(500);

/// Looks, and tells the pool.
pub async fn look_again(around: Surroundings) {
    tokio::time::sleep(AFTER).await;
    loop {
        match kernel_evidence(&around.leftovers.prefixes()) {
            Ok(KernelEvidence { veths, pods, .. }) => {
                return around.core.event(Event::VethSeen { names: veths, pods });
            }
            Err(error) => tracing::warn!(%error, "the kernel does not show its pods"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What to believe when the kernel cannot be read at start: that every pod of the checkpoint lives. An address that is kept
/// too long is a smaller evil than one that is given away twice.
#[must_use]
pub fn all_alive(checkpoint: Option<&Checkpoint>) -> KernelEvidence {
    let veths = checkpoint
        .into_iter()
        .flat_map(|c| &c.allocations)
        .map(|a| format!("eni{}", host_veth_suffix(&a.meta.namespace, &a.meta.name)))
        .collect();
    KernelEvidence {
        veths,
        ..KernelEvidence::default()
    }
}
