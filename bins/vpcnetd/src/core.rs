//! The loop around the pool: events in, one checkpoint for a batch of them, answers and actions out.
//!
//! Order is everything here. A caller is answered after the checkpoint that holds its answer was written; an EC2 action is
//! started after the journal that holds its intent was written. What the pool decides is none of this file's business.

mod checkpoints;
mod commit;
mod handle;
mod refusals;
mod waiting_room;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use vpcnet_ipam::{Action, Answer, Event, Mono, PodKey, PodMeta, Pool, RequestId, Size};

use crate::clock;
use crate::metrics::{AddStage, Metrics};
use crate::news::Newsroom;
use crate::state::{Facts, Intent};
use crate::store::FileStore;
use checkpoints::Checkpoints;
use handle::{Call, Input, Wish};
use waiting_room::WaitingRoom;

pub use handle::{CoreGone, CoreHandle, View};
pub use refusals::{Refusals, Refused};

/// Inputs handled with one checkpoint write. Enough for any burst a node sees; bounds the wait of the first of them.
const BATCH: usize = 256;
/// How long the journal may lag when no action depends on it and calls keep coming.
const JOURNAL_LAG: Duration = Duration::from_millis(100);
/// A journal that cannot be written is tried again after this time.
const JOURNAL_RETRY: Duration = Duration::from_secs(5);

/// A pool that can be served from, and what belongs to it.
pub struct Started {
    /// The pool.
    pub pool: Pool,
    /// What it decided while it was restored.
    pub actions: Vec<Action>,
    /// The instance.
    pub facts: Facts,
    /// The file on disk does not hold the pool's owners: write it at once.
    pub rewrite: bool,
    /// What was odd while it was restored.
    pub notes: Vec<String>,
}

/// An EC2 action to be carried out.
#[derive(Debug)]
pub struct Order {
    /// What to do.
    pub action: Action,
    /// For a `CreateInterface`: what its call is made with, each time.
    pub intent: Option<Intent>,
}

/// The pool's files.
pub struct Files {
    /// The original's checkpoint; that of the first network card, the others' lie beside it.
    pub checkpoint: FileStore,
    /// Our own state.
    pub state: FileStore,
}

/// A caller whose call the pool has.
struct Caller {
    reply: oneshot::Sender<Answer>,
    key: PodKey,
    meta: PodMeta,
    is_add: bool,
    arrived: Instant,
    seen: Instant,
}

/// An answer that was given, for the log and the metrics.
struct Told {
    answer: Answer,
    key: PodKey,
    meta: PodMeta,
    is_add: bool,
    /// From the call's arrival to the answer.
    took: Duration,
    /// Where an ADD's time went, if its answer arrived.
    stages: Option<[(AddStage, Duration); 3]>,
}

/// The pool and how far it is on disk.
struct Running {
    pool: Pool,
    checkpoints: Checkpoints,
    written_generation: u64,
    /// `None`: not written yet.
    journal_generation: Option<u64>,
    journal_at: Instant,
    /// Not before this time, after a failure.
    journal_not_before: Instant,
}

/// What a batch has come to so far.
#[derive(Default)]
struct Batch {
    replies: Vec<(RequestId, Answer)>,
    orders: Vec<Action>,
}

/// The loop's state.
pub struct Core {
    inbox: mpsc::UnboundedReceiver<Input>,
    orders: mpsc::UnboundedSender<Order>,
    files: Files,
    metrics: Arc<Metrics>,
    facts: Facts,
    running: Option<Running>,
    room: WaitingRoom,
    callers: BTreeMap<RequestId, Caller>,
    /// Told when a pod is refused.
    starved: Arc<Notify>,
    /// Answers that are given and not yet logged.
    told: Vec<Told>,
    refusals: Refusals,
    news: Newsroom,
    checkpoint_error: Option<String>,
    notes: Vec<String>,
    stopping: bool,
}

impl Core {
    /// A core without a pool yet, the handle to it, and the orders it gives.
    #[must_use]
    pub fn new(files: Files, metrics: Arc<Metrics>) -> (Self, CoreHandle, mpsc::UnboundedReceiver<Order>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let (orders, carried_out) = mpsc::unbounded_channel();
        let starved = Arc::new(Notify::new());
        let handle = CoreHandle::new(sender, Arc::clone(&starved));
        let core = Self {
            inbox,
            orders,
            files,
            metrics,
            facts: Facts::default(),
            running: None,
            room: WaitingRoom::default(),
            callers: BTreeMap::new(),
            starved,
            told: Vec::new(),
            refusals: Refusals::default(),
            news: Newsroom::default(),
            checkpoint_error: None,
            notes: Vec::new(),
            stopping: false,
        };
        (core, handle, carried_out)
    }

    /// Tells what becomes of pods here as well.
    #[must_use]
    pub fn telling(mut self, news: Newsroom) -> Self {
        self.news = news;
        self
    }

    /// Runs until it is stopped or nobody holds a handle any more.
    pub async fn run(mut self) {
        while !self.stopping {
            let wake = self.next_wake();
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep(clock::until(at)).await,
                    None => std::future::pending().await,
                }
            };
            let mut events = VecDeque::new();
            tokio::select! {
                biased;
                input = self.inbox.recv() => match input {
                    Some(input) => self.take(input, &mut events).await,
                    None => break,
                },
                () = timer => events.push_back(Event::Tick),
            }
            // Lets the other connections that are ready put their calls in, so that they share one checkpoint write.
            tokio::task::yield_now().await;
            for _ in 0..BATCH {
                match self.inbox.try_recv() {
                    Ok(input) => self.take(input, &mut events).await,
                    Err(_) => break,
                }
            }
            self.room.expire(clock::mono());
            self.told.append(&mut self.room.told);
            self.settle(events).await;
            // The callers' connections run now, and their answers are on their way before the log and the journal are written.
            tokio::task::yield_now().await;
            self.note_answers();
            self.write_journal_if_moved(self.inbox.is_empty());
        }
        self.write_journal_if_moved(true);
    }

    fn next_wake(&self) -> Option<Mono> {
        let pool = self.running.as_ref().and_then(|r| {
            let unwritten = r.journal_generation != Some(r.pool.journal_generation());
            let journal =
                unwritten.then(|| clock::from_instant(r.journal_not_before.max(r.journal_at + JOURNAL_LAG)));
            r.pool.next_wake().into_iter().chain(journal).min()
        });
        pool.into_iter().chain(self.room.next_wake()).min()
    }

    /// Turns an input into events for the pool, or deals with it at once.
    async fn take(&mut self, input: Input, events: &mut VecDeque<Event>) {
        match input {
            Input::Call(call) if self.running.is_none() => self.room.enter(call),
            Input::Call(call) => events.push_back(self.admit(call)),
            Input::HungUp(request) => {
                self.room.leave(request);
                if self.callers.remove(&request).is_some() {
                    events.push_back(Event::RequestGone { request });
                }
            }
            Input::Event(event) => {
                if self.running.is_some() {
                    events.push_back(event);
                }
            }
            Input::Start(started) => self.start(*started, events).await,
            Input::Starting(why) => self.room.set_why(why),
            Input::Learnt(change) => {
                change(&mut self.facts);
                if let Some(running) = &mut self.running {
                    running.journal_generation = None;
                }
            }
            Input::Look(look) => self.look(look),
            Input::Stop => self.stopping = true,
        }
    }

    fn look(&self, look: handle::Look) {
        look(&View {
            pool: self.running.as_ref().map(|r| &r.pool),
            facts: &self.facts,
            starting: if self.running.is_some() {
                ""
            } else {
                self.room.why()
            },
            callers: self.callers.len().saturating_add(self.room.len()),
            checkpoint_error: self.checkpoint_error.as_deref(),
            notes: &self.notes,
            refusals: &self.refusals,
            now: clock::now(),
        });
    }

    /// Notes who waits for the answer, and gives the event that asks for it.
    fn admit(&mut self, call: Call) -> Event {
        let seen = Instant::now();
        let Call {
            request,
            key,
            meta,
            wish,
            reply,
            arrived,
        } = call;
        let is_add = matches!(wish, Wish::Address { .. });
        let event = match wish {
            Wish::Address { deadline, cards } => Event::PodWants {
                request,
                key: key.clone(),
                meta: meta.clone(),
                deadline,
                cards,
            },
            Wish::GiveBack => Event::PodGone {
                request,
                key: key.clone(),
                meta: meta.clone(),
            },
        };
        if is_add {
            self.metrics
                .stage(AddStage::Queue, seen.saturating_duration_since(arrived));
        }
        self.callers.insert(
            request,
            Caller {
                reply,
                key,
                meta,
                is_add,
                arrived,
                seen,
            },
        );
        event
    }

    /// Takes the pool over, and lets those in who wait for it.
    async fn start(&mut self, started: Started, events: &mut VecDeque<Event>) {
        let Started {
            pool,
            actions,
            facts,
            rewrite,
            notes,
        } = started;
        let generation = pool.checkpoint_generation();
        let mut running = Running {
            checkpoints: Checkpoints::of(&pool, &self.files.checkpoint),
            written_generation: generation,
            journal_generation: None,
            journal_at: Instant::now(),
            journal_not_before: Instant::now(),
            pool,
        };
        if rewrite {
            // Not fatal, as in the original: ADDs will be refused with the cause as long as it cannot be written.
            if let Err(error) = running.checkpoints.write(&running.pool) {
                tracing::error!(%error, "checkpoint not rewritten at start");
                self.checkpoint_error = Some(error.to_string());
                running.written_generation = generation.wrapping_sub(1);
            }
        } else {
            running.checkpoints.are_on_disk();
        }
        self.facts = facts;
        self.notes = notes;
        self.running = Some(running);
        for call in self.room.open() {
            let event = self.admit(call);
            events.push_back(event);
        }
        let first = Batch {
            replies: Vec::new(),
            orders: actions,
        };
        self.commit(first, events).await;
    }

    /// Hands the events to the pool and carries out what comes of them, until nothing more comes.
    async fn settle(&mut self, mut events: VecDeque<Event>) {
        if self.running.is_none() {
            return;
        }
        loop {
            let mut batch = Batch::default();
            if let Some(running) = &mut self.running {
                let now = clock::now();
                while let Some(event) = events.pop_front() {
                    let is_evidence = matches!(
                        event,
                        Event::InterfaceSeen { .. } | Event::InterfacesListed { .. }
                    );
                    let before = is_evidence.then(|| running.pool.size());
                    batch.add(running.pool.handle(now, event));
                    if let Some(before) = before {
                        count_reconciled(&self.metrics, before, running.pool.size());
                    }
                }
            }
            self.commit(batch, &mut events).await;
            if events.is_empty() {
                return;
            }
        }
    }
}

/// Counts what evidence changed without a call of ours, under the original's names.
fn count_reconciled(metrics: &Metrics, before: Size, after: Size) {
    let count = |name: &str, more: usize, fewer: usize| {
        if more > fewer {
            let by = u64::try_from(more - fewer).unwrap_or(u64::MAX);
            metrics.drop_in.reconciles.with_label_values(&[name]).inc_by(by);
        }
    };
    count("eniReconcileAdd", after.interfaces, before.interfaces);
    count("eniReconcileDel", before.interfaces, after.interfaces);
    count("eniDataStorePoolReconcileAdd", after.addresses, before.addresses);
    count("eniIPPoolReconcileDel", before.addresses, after.addresses);
}

impl Batch {
    fn add(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Reply { request, answer } => self.replies.push((request, answer)),
                other => self.orders.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests;
