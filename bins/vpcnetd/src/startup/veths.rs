//! Owners whose veth was not there at start: their plugins may have been between our reply and the veth; and owners whose veth
//! was still there, though their DEL had come while nobody served it. Once, before the pool's grace ends, the kernel is
//! looked at again; and after that whenever a pod's link has gone, as long as there are owners who did not ask in this life: a
//! namespace outlives its pod for as long as a connection of the pod's is being closed, which may take minutes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use vpcnet_ipam::{Checkpoint, Doubt, Event, KernelEvidence, host_veth_suffix};

use super::{Surroundings, kernel_evidence};

/// Well within the pool's grace of 30 s, and long after any plugin that had its answer is done.
const AFTER: Duration = Duration::from_secs(25);
/// Pause between looks that fail.
const RETRY: Duration = Duration::from_millis(500);

/// Looks, and tells the pool. `gone`: told when a pod's link has gone.
pub async fn look_again(around: Surroundings, gone: Arc<Notify>) {
    looks(&gone, || look(around.clone())).await;
}

async fn look(around: Surroundings) -> Doubt {
    loop {
        match kernel_evidence(&around.leftovers.prefixes()) {
            Ok(KernelEvidence { veths, pods, .. }) => {
                around.core.event(Event::VethSeen { names: veths, pods });
                break;
            }
            Err(error) => tracing::warn!(%error, "the kernel does not show its pods"),
        }
        tokio::time::sleep(RETRY).await;
    }
    // Asked behind the event, so it is the answer to it.
    let doubt = around.core.look(|view| view.pool.map(|pool| pool.doubt())).await;
    doubt.ok().flatten().unwrap_or(Doubt::Nobody)
}

/// When to look, until nobody can be doubted any more.
async fn looks<F: Future<Output = Doubt>>(gone: &Notify, mut look: impl FnMut() -> F) {
    loop {
        tokio::time::sleep(AFTER).await;
        match look().await {
            // Once more, before the grace of whom this look did not find ends.
            Doubt::Now => {}
            Doubt::Possible => gone.notified().await,
            Doubt::Nobody => return,
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// The seconds at which it was looked, when the looks end thus, and links go at these seconds.
    async fn seconds(doubts: &[Doubt], links_go: &[u64]) -> Vec<u64> {
        let (start, gone, at) = (Instant::now(), Notify::new(), Mutex::new(Vec::new()));
        let look = || {
            let mut at = at.lock().unwrap();
            let doubt = doubts.get(at.len()).copied().unwrap_or(Doubt::Nobody);
            at.push(start.elapsed().as_secs());
            async move { doubt }
        };
        let links = async {
            for second in links_go {
                sleep(Duration::from_secs(*second).saturating_sub(start.elapsed())).await;
                gone.notify_one();
            }
            sleep(Duration::from_secs(10_000)).await;
        };
        tokio::select! {
            () = looks(&gone, look) => {}
            () = links => {}
        }
        at.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_goes_later_is_looked_for_as_well() {
        use Doubt::Possible;
        assert_eq!(seconds(&[Possible; 9], &[]).await, [25]);
        assert_eq!(
            seconds(&[Possible; 9], &[40, 41, 42, 300]).await,
            [25, 65, 90, 325]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_found_is_looked_for_once_more_within_his_grace() {
        use Doubt::{Now, Possible};
        assert_eq!(seconds(&[Possible, Now, Possible], &[100]).await, [25, 125, 150]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_everybody_has_asked_in_this_life_nobody_looks() {
        assert_eq!(seconds(&[Doubt::Nobody], &[40, 50]).await, [25]);
    }
}
