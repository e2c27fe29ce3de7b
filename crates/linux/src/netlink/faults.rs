//! For tests: makes the n-th request of this thread be one that the kernel refuses, and dumps ones that were interrupted.

use std::cell::Cell;

thread_local! {
    static COUNTDOWN: Cell<Option<u32>> = const { Cell::new(None) };
    static INTERRUPTIONS: Cell<u32> = const { Cell::new(0) };
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

/// The next `count` dumps of this thread end as if the list had changed while it was read.
pub fn interrupt_dumps(count: u32) {
    INTERRUPTIONS.set(count);
}

/// Counts one dump; says whether it was interrupted.
pub(super) fn interrupts() -> bool {
    let left = INTERRUPTIONS.get();
    INTERRUPTIONS.set(left.saturating_sub(1));
    left > 0
}
