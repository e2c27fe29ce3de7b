//! Waiting for a condition instead of sleeping.

use std::time::{Duration, Instant};

/// Asks `condition` again and again until it gives a value.
///
/// # Panics
/// When `deadline` has passed without one; the message is `what`.
pub fn wait_for<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    wait_for_or(|| what.to_owned(), deadline, condition)
}

/// The same; what is said when the deadline has passed is found out only then.
///
/// # Panics
/// When `deadline` has passed without a value.
pub fn wait_for_or<T>(
    what: impl FnOnce() -> String,
    deadline: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        if Instant::now() >= end {
            panic!("not within {deadline:?}: {}", what());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
