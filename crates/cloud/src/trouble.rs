//! What goes wrong with a call while it is still being made: for those who wait for the whole of it, and may wait for a minute.

use std::future::Future;
use std::sync::Arc;

use crate::Ec2Error;

/// What became of one try.
#[derive(Clone, Copy, Debug)]
pub enum Try<'a> {
    /// It failed. [`Ec2Error::retry_at`] says when the action may be called again.
    Failed(&'a Ec2Error),
    /// It was not made: earlier calls of this action failed, perhaps of others.
    HeldBack(&'a Ec2Error),
    /// EC2 did it.
    Done,
}

type Listener = Arc<dyn Fn(Try<'_>) + Send + Sync>;

tokio::task_local! {
    static LISTENER: Listener;
}

/// Does `work`, and tells `listener` of each try of each call to EC2 in it. Not of those in tasks that it spawns: nobody who waits
/// for `work` waits for them. The listener is called on the async executor: it must not block.
pub async fn telling_tries<F: Future>(
    listener: impl Fn(Try<'_>) + Send + Sync + 'static,
    work: F,
) -> F::Output {
    LISTENER.scope(Arc::new(listener), work).await
}

pub(crate) fn tell(what: Try<'_>) {
    // Outside of `telling_tries` nobody listens.
    let _ = LISTENER.try_with(|listener| listener(what));
}
