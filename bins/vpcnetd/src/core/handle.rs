//! How the servers talk to the core: typed calls over one channel, each with its own answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot};
use vpcnet_ipam::{Answer, Cards, Event, Mono, Now, PodKey, PodMeta, Pool, RequestId};

use super::Started;
use super::refusals::Refusals;
use crate::state::Facts;

/// A look at the pool, run by the core between two batches.
pub(crate) type Look = Box<dyn FnOnce(&View<'_>) + Send>;

/// What a look can see.
pub struct View<'a> {
    /// The pool; `None` while the agent does not know its instance yet.
    pub pool: Option<&'a Pool>,
    /// What the agent knows of its instance.
    pub facts: &'a Facts,
    /// Why there is no pool yet; empty when there is one.
    pub starting: &'a str,
    /// Callers that wait for an answer.
    pub callers: usize,
    /// Why the last checkpoint could not be written; `None` when it was.
    pub checkpoint_error: Option<&'a str>,
    /// What was odd at start.
    pub notes: &'a [String],
    /// Who was refused lately.
    pub refusals: &'a Refusals,
    /// Now.
    pub now: Now,
}

/// A caller's request.
pub(crate) enum Wish {
    /// ADD.
    Address {
        /// When it ends with a refusal.
        deadline: Mono,
        /// From which cards.
        cards: Cards,
    },
    /// DEL.
    GiveBack,
}

/// One call with the channel for its answer.
pub(crate) struct Call {
    pub(crate) request: RequestId,
    pub(crate) key: PodKey,
    pub(crate) meta: PodMeta,
    pub(crate) wish: Wish,
    pub(crate) reply: oneshot::Sender<Answer>,
    pub(crate) arrived: Instant,
}

/// Everything that can reach the core.
pub(crate) enum Input {
    /// ADD or DEL.
    Call(Call),
    /// A caller hung up.
    HungUp(RequestId),
    /// What executors report, and evidence from elsewhere.
    Event(Event),
    /// The pool is known.
    Start(Box<Started>),
    /// Why it is not known yet.
    Starting(String),
    /// Something learnt of the instance.
    Learnt(Box<dyn FnOnce(&mut Facts) + Send>),
    /// A look at the pool.
    Look(Look),
    /// Write what is unwritten and end.
    Stop,
}

/// The core went away before it answered: only while the agent ends.
#[derive(Debug, thiserror::Error)]
#[error("the agent is stopping; the runtime tries again")]
pub struct CoreGone;

/// Cheap to clone; all servers hold one.
#[derive(Clone)]
pub struct CoreHandle {
    sender: mpsc::UnboundedSender<Input>,
    requests: Arc<AtomicU64>,
    starved: Arc<Notify>,
}

impl CoreHandle {
    pub(crate) fn new(sender: mpsc::UnboundedSender<Input>, starved: Arc<Notify>) -> Self {
        Self {
            sender,
            starved,
            requests: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Told when a pod is refused an address.
    #[must_use]
    pub fn starved(&self) -> Arc<Notify> {
        Arc::clone(&self.starved)
    }

    /// ADD: waits for an address, at most until `deadline`. Dropping the future is what a client that hangs up does: the wait ends.
    ///
    /// # Errors
    /// [`CoreGone`].
    pub async fn add(
        &self,
        key: PodKey,
        meta: PodMeta,
        cards: Cards,
        deadline: Mono,
    ) -> Result<Answer, CoreGone> {
        self.call(key, meta, Wish::Address { deadline, cards }).await
    }

    /// DEL.
    ///
    /// # Errors
    /// [`CoreGone`].
    pub async fn del(&self, key: PodKey, meta: PodMeta) -> Result<Answer, CoreGone> {
        self.call(key, meta, Wish::GiveBack).await
    }

    async fn call(&self, key: PodKey, meta: PodMeta, wish: Wish) -> Result<Answer, CoreGone> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let call = Call {
            request,
            key,
            meta,
            wish,
            reply,
            arrived: Instant::now(),
        };
        self.sender.send(Input::Call(call)).map_err(|_| CoreGone)?;
        let mut guard = HangUp {
            handle: self,
            request: Some(request),
        };
        let answer = answer.await;
        guard.request = None;
        answer.map_err(|_| CoreGone)
    }

    /// Tells the pool something.
    pub fn event(&self, event: Event) {
        self.send(Input::Event(event));
    }

    /// Notes what was learnt of the instance.
    pub fn learnt(&self, change: impl FnOnce(&mut Facts) + Send + 'static) {
        self.send(Input::Learnt(Box::new(change)));
    }

    /// Says why there is no pool yet.
    pub fn starting(&self, why: String) {
        self.send(Input::Starting(why));
    }

    /// Gives the core its pool.
    pub fn start(&self, started: Started) {
        self.send(Input::Start(Box::new(started)));
    }

    /// Ends the core after its last write.
    pub fn stop(&self) {
        self.send(Input::Stop);
    }

    /// Looks at the pool between two batches.
    ///
    /// # Errors
    /// [`CoreGone`].
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, CoreGone> {
        let (tell, told) = oneshot::channel();
        self.sender
            .send(Input::Look(Box::new(move |view| {
                // Nobody waits any more: nothing to do about it.
                let _ = tell.send(look(view));
            })))
            .map_err(|_| CoreGone)?;
        told.await.map_err(|_| CoreGone)
    }

    /// Once the core has ended nothing needs telling any more.
    fn send(&self, input: Input) {
        let _ = self.sender.send(input);
    }
}

/// Tells the core when a caller is dropped before its answer came.
struct HangUp<'a> {
    handle: &'a CoreHandle,
    request: Option<RequestId>,
}

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.handle.send(Input::HungUp(request));
        }
    }
}
