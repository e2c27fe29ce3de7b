//! For tests: makes the n-th request of this thread be one that the kernel refuses.

use std::cell::Cell;

thread_local! {
    static COUNTDOWN: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The request after `skip` more of this thread's changes (over all its sockets) reaches the kernel with a message type
/// that does not exist, and is answered EOPNOTSUPP. None takes a waiting fault back.
pub fn refuse_after(skip: Option<u32>) {
    COUNTDOWN.set(skip);
}

/// Whether a fault is still waiting.
pub fn waiting() -> bool {
    COUNTDOWN.get().is_some()
}

/// Counts one request; says whether it is the one.
pub(super) fn strikes() -> bool {
    match COUNTDOWN.get() {
        Some(0) => {
            COUNTDOWN.set(None);
            true
        }
        Some(n) => {
            COUNTDOWN.set(Some(n - 1));
            false
        }
        None => false,
    }
}
