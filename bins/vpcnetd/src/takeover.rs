//! Taking the node over from amazon-vpc-cni-k8s: once our table is in force, what that agent left in the packet filter is removed,
//! and the rules that its first releases made for pods are put into the present form.
//!
//! At every start, once: a node that it has never run on, or that was taken over before, costs a few netlink questions.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use vpcnet_linux::netlink::{NetlinkError, Socket};
use vpcnet_linux::original::{self, Found, OriginalError, Programs, Removed};

use crate::metrics::Metrics;
use crate::published::Publisher;

/// First and longest pause between attempts.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// It is not done.
#[derive(Debug, thiserror::Error)]
enum TakeoverError {
    #[error(transparent)]
    Original(#[from] OriginalError),
    #[error("the rules of pods cannot be put into the present form: {0}")]
    Rules(#[from] NetlinkError),
    #[error("it was cut short: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// What came of it.
#[derive(Default)]
struct Done {
    removed: Vec<Removed>,
    /// Pods whose rules have the present form now.
    collapsed: Vec<Ipv4Addr>,
    /// Pods whose connections need the old ones.
    left: Vec<Ipv4Addr>,
}

/// The take-over.
pub struct Takeover {
    /// The mark that is in force; none where there is none.
    mark: Option<u32>,
    translates: OnceLock<bool>,
    begun: AtomicBool,
    publisher: Publisher,
    metrics: Arc<Metrics>,
}

impl Takeover {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(mark: Option<u32>, publisher: Publisher, metrics: Arc<Metrics>) -> Self {
        Self {
            mark,
            translates: OnceLock::new(),
            begun: AtomicBool::new(false),
            publisher,
            metrics,
        }
    }

    /// Whether the original translates, as it was when this was first asked: then there may be connections that live by it. Blocks.
    ///
    /// # Errors
    /// Netlink's.
    pub fn original_translates(&self) -> Result<bool, NetlinkError> {
        if let Some(known) = self.translates.get() {
            return Ok(*known);
        }
        let translates = Found::look(&Programs::default())?.in_force().translates;
        Ok(*self.translates.get_or_init(|| translates))
    }

    /// Begins it, if it was not. To be called when our table is in force.
    pub fn begin(self: &Arc<Self>) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.run().await });
        }
    }

    /// Goes on until nothing of the original's is left.
    async fn run(&self) {
        let mut pause = RETRY.0;
        loop {
            let (done, outcome) = self.attempt().await;
            self.tell(done);
            let Err(error) = outcome else {
                return self.publisher.change(|p| p.takeover_error.clear());
            };
            self.metrics.error("takeOverFailed");
            tracing::error!(%error, retry_in_s = pause.as_secs(), "what amazon-vpc-cni-k8s left in the packet filter is not all removed");
            let text = format!("chains of amazon-vpc-cni-k8s may be in force beside our table: {error}");
            self.publisher.change(|p| p.takeover_error = text);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Takes away the rule by which the original keeps everybody from opening connections to the addresses of pods' egress. To be
    /// called when our table does that, or nobody has such an address. Blocks.
    ///
    /// # Errors
    /// [`OriginalError`]; the rule may be there yet.
    pub fn remove_reject(&self, v6: bool) -> Result<(), OriginalError> {
        let (removed, outcome) = original::remove_reject(&Programs::default(), v6);
        self.tell(Done {
            removed,
            ..Done::default()
        });
        outcome
    }

    async fn attempt(&self) -> (Done, Result<(), TakeoverError>) {
        let mark = self.mark;
        // It may run a program and wait for it.
        let work = tokio::task::spawn_blocking(move || {
            let (removed, outcome) = original::remove(&Programs::default());
            let mut done = Done {
                removed,
                ..Done::default()
            };
            let rules = collapse(&mut done, mark);
            (done, outcome.map_err(TakeoverError::from).and(rules))
        });
        work.await
            .unwrap_or_else(|error| (Done::default(), Err(error.into())))
    }

    fn tell(&self, done: Done) {
        let mut sentences = Vec::new();
        for removed in &done.removed {
            let backend = removed.backend.name();
            for (kind, count) in [
                ("table", removed.tables.len()),
                ("chain", removed.chains.len()),
                ("rule", removed.rules),
            ] {
                let counter = self.metrics.taken_over.with_label_values(&[kind, backend]);
                counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
            }
            sentences.push(format!("removed {removed}"));
        }
        if !done.collapsed.is_empty() {
            let pods = join(&done.collapsed);
            sentences.push(format!(
                "rules by destination made one for each of the pods {pods}"
            ));
        }
        if !done.left.is_empty() {
            let pods = join(&done.left);
            sentences.push(format!(
                "rules by destination left for the pods {pods}: with SNAT and NodePort support off nothing else leads their translated connections"
            ));
        }
        // What is left is left at each attempt.
        sentences.retain(|what| !self.publisher.get().taken_over.contains(what));
        for what in &sentences {
            tracing::info!(%what, "taken over from amazon-vpc-cni-k8s");
        }
        if !sentences.is_empty() {
            self.publisher.change(|p| p.taken_over.extend(sentences));
        }
    }
}

fn collapse(done: &mut Done, mark: Option<u32>) -> Result<(), TakeoverError> {
    let mut socket = Socket::open()?;
    for old in original::old_rules(&mut socket)? {
        if original::collapse(&mut socket, &old, mark)? {
            done.collapsed.push(old.pod);
        } else {
            done.left.push(old.pod);
        }
    }
    Ok(())
}

fn join(pods: &[Ipv4Addr]) -> String {
    let all: Vec<String> = pods.iter().map(ToString::to_string).collect();
    all.join(", ")
}
