//! Tells events: what people read with `kubectl describe`. Nothing waits for it, and what cannot be told in ten minutes is not told.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use vpcnet_kube::objects::{Event, Note, ObjectReference, Series};
use vpcnet_kube::{ApiError, Client};

use super::ledger::{Ledger, Say};
use crate::clock;

/// Who tells them: the name under which amazon-vpc-cni-k8s does.
const CONTROLLER: &str = "aws-node";
/// Events that wait while the API server is away; those beyond are not told.
const WAITING: usize = 64;
/// First and longest pause before one is tried again,
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// and how old it may become.
const OLD: Duration = Duration::from_secs(600);

/// What is known of events so far.
pub(super) struct Teller {
    ledger: Ledger,
    instance: String,
    jobs: mpsc::Sender<Event>,
    /// Told of the node, and still so.
    complaints: BTreeSet<String>,
    named: u64,
}

impl Teller {
    pub(super) fn new(client: Client, instance: String) -> Self {
        let (jobs, todo) = mpsc::channel(WAITING);
        tokio::spawn(send_all(client, todo));
        Self {
            ledger: Ledger::new(clock::mono()),
            instance,
            jobs,
            complaints: BTreeSet::new(),
            named: 0,
        }
    }

    /// Tells that something is wrong with an object.
    pub(super) fn tell(&mut self, regarding: ObjectReference, reason: &str, action: &str, text: String) {
        let note = Note {
            regarding,
            reason: reason.to_owned(),
            action: action.to_owned(),
            text,
        };
        self.put(note, action);
    }

    /// `trouble`: what tells it from others of the object.
    fn put(&mut self, note: Note, trouble: &str) {
        let now = clock::now();
        self.named = self.named.wrapping_add(1);
        let named = self.named;
        let fresh = || name(&note.regarding.name, now.wall_ns, named);
        let (name, count) = match self.ledger.take(&note, trouble, now.mono, fresh) {
            Say::Nothing => return,
            Say::New { name } => (name, 1),
            Say::Again { name, count } => (name, count),
        };
        let at = micro_time(now.wall_ns);
        let mut event = Event::warning(name, at.clone(), CONTROLLER, &self.instance, note);
        if count > 1 {
            event.series = Some(Series {
                count,
                last_observed_time: at,
            });
        }
        if self.jobs.try_send(event).is_err() {
            tracing::debug!("an event is not told: too many wait for the API server");
        }
    }

    /// Tells what is wrong with what the node's objects say, each once as long as it is so.
    pub(super) fn complain(&mut self, node: Option<&ObjectReference>, complaints: &[String]) {
        let new: Vec<String> = complaints
            .iter()
            .filter(|c| !self.complaints.contains(*c))
            .cloned()
            .collect();
        self.complaints = complaints.iter().cloned().collect();
        for text in new {
            tracing::warn!(complaint = %text, "this node's objects");
            let Some(node) = node else { continue };
            let note = Note {
                regarding: node.clone(),
                reason: "InvalidNodeConfiguration".into(),
                action: "Configure".into(),
                text: text.clone(),
            };
            // Told once, so one must not be taken for the other words of another.
            self.put(note, &text);
        }
    }
}

/// A name that no other event has: the object's, the time and a number.
fn name(of: &str, wall_ns: i64, number: u64) -> String {
    let short: String = of.chars().take(200).collect();
    let short = short.trim_end_matches(['.', '-']);
    format!("{short}.{:x}.{number:x}", wall_ns.max(0))
}

/// RFC 3339 with microseconds, as events have it.
fn micro_time(wall_ns: i64) -> String {
    let seconds = clock::rfc3339(wall_ns);
    let micros = wall_ns.rem_euclid(1_000_000_000) / 1000;
    format!("{}.{micros:06}Z", seconds.trim_end_matches('Z'))
}

/// One after the other, in the order in which they were told.
async fn send_all(client: Client, mut todo: mpsc::Receiver<Event>) {
    while let Some(event) = todo.recv().await {
        let began = tokio::time::Instant::now();
        let mut pause = RETRY.0;
        loop {
            match send(&client, &event).await {
                Ok(()) => break,
                Err(error) if error.is_away() && began.elapsed() < OLD => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
                Err(error) => {
                    tracing::warn!(%error, note = event.note, "event not told");
                    break;
                }
            }
        }
    }
}

async fn send(client: &Client, event: &Event) -> Result<(), ApiError> {
    let namespace = Some(event.metadata.namespace.as_str());
    if let Some(series) = &event.series {
        let patch = json!({ "series": series });
        match client
            .patch::<Event>(namespace, &event.metadata.name, &patch)
            .await
        {
            // The API server has forgotten it: it is told anew.
            Err(error) if error.is_not_found() => {}
            other => return other,
        }
    }
    match client.create("Event", namespace, event).await {
        // Made by a request whose answer was lost.
        Err(error) if error.is_conflict() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_for_any_object() {
        assert_eq!(name("node-1.example", 255, 16), "node-1.example.ff.10");
        let long = name(&format!("{}.x", "a".repeat(199)), 1, 1);
        assert_eq!(long, format!("{}.1.1", "a".repeat(199)));
        assert!(long.len() <= 253);
    }

    #[test]
    fn times_have_microseconds() {
        assert_eq!(micro_time(1_500_000_042_000), "1970-01-01T00:25:00.000042Z");
    }
}
