//! The order of a batch's end: checkpoint, journal, answers, orders.

use std::collections::VecDeque;
use std::time::Instant;

use vpcnet_ipam::{Action, Answer, Event, FailureClass, Refusal, RefusalCause, RequestId};

use super::{Batch, Core, JOURNAL_LAG, JOURNAL_RETRY, Order, Told};
use crate::clock;
use crate::metrics::{AddStage, cause_label};
use crate::news::{News, PodName};
use crate::state::{Intent, StateFile};

/// EC2 remembers a client token for a day.
const INTENT_LIFE_NS: i64 = 24 * 3600 * 1_000_000_000;

impl Core {
    /// Makes a batch's decisions last, then carries them out. What that brings up is appended to `events`.
    pub(super) async fn commit(&mut self, batch: Batch, events: &mut VecDeque<Event>) {
        let decided = Instant::now();
        let batch = self.write_checkpoint(batch);
        let written = Instant::now();
        let Batch { replies, orders } = batch;
        // Answers first: nobody who has an address should wait for the journal of an intent, nor for a line of the log.
        let answered = !replies.is_empty();
        for (request, answer) in replies {
            self.answer(request, answer, decided, written, events);
        }
        if orders.is_empty() {
            // No action depends on the journal: the loop writes it when the answers are out.
            return;
        }
        if answered {
            // Lets the callers' connections send them.
            tokio::task::yield_now().await;
        }
        let orders: Vec<Order> = orders.into_iter().map(|action| self.order(action)).collect();
        if self.write_journal_if_moved(true) {
            for order in orders {
                tracing::info!(action = ?order.action, "ordered");
                // The executor ends only with the agent.
                let _ = self.orders.send(order);
            }
        } else {
            // An intent that is not written down is not acted on: a crash would leave an interface nobody knows of.
            let retry_at = Some(clock::mono().plus(JOURNAL_RETRY));
            for id in orders.iter().filter_map(|o| o.action.id()) {
                events.push_back(Event::ActionFailed {
                    id,
                    class: FailureClass::NotBegun,
                    message: "the agent's state file cannot be written, so no EC2 call is made".into(),
                    retry_at,
                });
            }
        }
    }

    /// Adds what the call is to be made with. EC2 takes a repeat of a creation for the same one only if nothing in it
    /// differs, so what could differ by then is fixed, and journalled, before the first call.
    fn order(&mut self, action: Action) -> Order {
        let Action::CreateInterface {
            client_token, groups, ..
        } = &action
        else {
            return Order { action, intent: None };
        };
        let wall_ns = clock::now().wall_ns;
        if !self.facts.intents.contains_key(client_token) {
            self.facts
                .intents
                .retain(|_, i| wall_ns.saturating_sub(i.created_at_ns) < INTENT_LIFE_NS);
            let intent = Intent {
                created_at_ns: wall_ns,
                groups: if groups.is_empty() {
                    self.facts.groups.clone()
                } else {
                    groups.clone()
                },
                tags: self.facts.tags.clone(),
                unsure: false,
            };
            self.facts.intents.insert(client_token.clone(), intent);
            if let Some(running) = &mut self.running {
                running.journal_generation = None;
            }
        }
        let intent = self.facts.intents.get(client_token).cloned();
        Order { action, intent }
    }

    /// Writes the owners if they changed; if that fails the batch becomes one in which they did not.
    fn write_checkpoint(&mut self, batch: Batch) -> Batch {
        let Some(running) = &mut self.running else {
            return batch;
        };
        let generation = running.pool.checkpoint_generation();
        if generation == running.written_generation {
            return batch;
        }
        let start = Instant::now();
        let result = running.checkpoints.write(&running.pool);
        self.metrics
            .checkpoint_seconds
            .observe(start.elapsed().as_secs_f64());
        let error = match result {
            Ok(()) => {
                if self.checkpoint_error.take().is_some() {
                    tracing::info!("the checkpoint can be written again");
                }
                running.written_generation = generation;
                return batch;
            }
            Err(error) => error,
        };
        tracing::error!(%error, "checkpoint not written: what it would have held is undone");
        self.metrics.error("writeCheckpointFailed");
        let (keys, released) = running.checkpoints.difference();
        let message = error.to_string();
        self.checkpoint_error = Some(message.clone());
        let mut undone = Batch::default();
        let actions = running.pool.handle(
            clock::now(),
            Event::CheckpointFailed {
                keys: keys.clone(),
                released: released.clone(),
                message: message.clone(),
            },
        );
        undone.add(actions);
        // The pool is back at what the files hold; only if it is not (it could not undo all) are they written again.
        if running.checkpoints.write_back(&running.pool) {
            running.written_generation = running.pool.checkpoint_generation();
        }
        let touched = |request: &RequestId| {
            self.callers
                .get(request)
                .is_some_and(|c| keys.contains(&c.key) || released.contains(&c.key))
        };
        let mut kept = Batch {
            replies: Vec::new(),
            orders: batch.orders,
        };
        for (request, answer) in batch.replies {
            if !touched(&request) {
                kept.replies.push((request, answer));
            } else if !undone.replies.iter().any(|(r, _)| *r == request) {
                // Whatever the pool says of it, this caller's answer is not on disk and must not be given.
                let refusal = Refusal {
                    cause: RefusalCause::CheckpointFailed,
                    message: message.clone(),
                    retry_in: None,
                };
                kept.replies.push((request, Answer::Refused(refusal)));
            }
        }
        kept.replies.append(&mut undone.replies);
        kept.orders.append(&mut undone.orders);
        kept
    }

    /// Writes the journal if the pool's own state moved. Unless `now`, it may lag a little while calls keep coming.
    /// False when it is not on disk.
    pub(super) fn write_journal_if_moved(&mut self, now: bool) -> bool {
        let Some(running) = &mut self.running else {
            return true;
        };
        let generation = running.pool.journal_generation();
        if running.journal_generation == Some(generation) {
            return true;
        }
        let clock = Instant::now();
        let lags = clock.saturating_duration_since(running.journal_at) >= JOURNAL_LAG;
        if clock < running.journal_not_before || !(now || lags) {
            return false;
        }
        let bytes = match StateFile::write(&self.facts, &running.pool.journal()) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, "agent state has no JSON form");
                running.journal_not_before = clock + JOURNAL_RETRY;
                return false;
            }
        };
        running.journal_at = clock;
        match self.files.state.write(&bytes) {
            Ok(()) => {
                running.journal_generation = Some(generation);
                true
            }
            Err(error) => {
                tracing::error!(%error, "agent state not written: a restart will be slower");
                self.metrics.error("writeStateFailed");
                running.journal_not_before = clock + JOURNAL_RETRY;
                false
            }
        }
    }

    fn answer(
        &mut self,
        request: RequestId,
        answer: Answer,
        decided: Instant,
        written: Instant,
        events: &mut VecDeque<Event>,
    ) {
        let Some(caller) = self.callers.remove(&request) else {
            return;
        };
        let given = matches!(answer, Answer::Assigned(_));
        let lost = caller.reply.send(answer.clone()).is_err() && given;
        if lost {
            events.push_back(Event::ReplyLost {
                request,
                key: caller.key.clone(),
            });
        }
        self.told.push(Told {
            answer,
            key: caller.key,
            meta: caller.meta,
            is_add: caller.is_add,
            took: caller.arrived.elapsed(),
            stages: (caller.is_add && !lost).then(|| {
                [
                    (AddStage::Decide, decided.saturating_duration_since(caller.seen)),
                    (AddStage::Checkpoint, written.saturating_duration_since(decided)),
                    (AddStage::Reply, written.elapsed()),
                ]
            }),
        });
    }

    /// Logs and counts what was answered since the last time.
    pub(super) fn note_answers(&mut self) {
        for told in std::mem::take(&mut self.told) {
            self.log(&told);
            for (stage, took) in told.stages.into_iter().flatten() {
                self.metrics.stage(stage, took);
            }
        }
    }

    /// Tells the cluster.
    fn tell(&self, told: &Told) {
        let meta = &told.meta;
        let pod = PodName::new(&meta.namespace, &meta.name);
        match &told.answer {
            Answer::Assigned(leases) => {
                if let Some(first) = leases.first() {
                    let address = first.address;
                    self.news.tell(News::Assigned { pod, address });
                }
            }
            // A DEL need not name the pod; the pool knows whose it was.
            Answer::Released(leases) => {
                if let Some(first) = leases.first() {
                    let pod = PodName::new(&first.meta.namespace, &first.meta.name);
                    let address = first.address;
                    self.news.tell(News::Released { pod, address });
                }
            }
            Answer::Refused(refusal) if told.is_add => {
                let text = crate::grpc::refusal_text(refusal);
                self.news.tell(News::Refused { pod, text });
            }
            Answer::Refused(_) | Answer::UnknownPod => {}
        }
    }

    fn log(&mut self, told: &Told) {
        let Told {
            answer, key, took, ..
        } = told;
        if self.news.is_heard() {
            self.tell(told);
        }
        let took_us = took.as_micros();
        match answer {
            Answer::Assigned(leases) => {
                for lease in leases {
                    tracing::info!(pod = %lease.meta, sandbox = %key.container_id, address = %lease.address, eni = %lease.eni, took_us, "assigned");
                }
            }
            Answer::Released(leases) => {
                for lease in leases {
                    tracing::info!(pod = %lease.meta, sandbox = %key.container_id, address = %lease.address, took_us, "released");
                }
            }
            Answer::UnknownPod => tracing::debug!(sandbox = %key.container_id, took_us, "no such owner"),
            Answer::Refused(refusal) => {
                self.refusals
                    .note(key, &told.meta, told.is_add, refusal, clock::now().wall_ns, *took);
                let refused = &self.metrics.refused;
                refused.with_label_values(&[cause_label(refusal.cause)]).inc();
                if told.is_add && is_want(refusal.cause) {
                    self.metrics.no_address.inc();
                    self.starved.notify_one();
                }
                tracing::warn!(pod = %told.meta, sandbox = %key.container_id, cause = ?refusal.cause, message = %refusal.message, took_us, "refused");
            }
        }
    }
}

/// Was there no address to give? Otherwise something else was the matter.
fn is_want(cause: RefusalCause) -> bool {
    !matches!(
        cause,
        RefusalCause::Deleted | RefusalCause::CheckpointFailed | RefusalCause::BadRequest
    )
}
