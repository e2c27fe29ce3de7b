//! Waiting for a condition instead of sleeping.

use std::time::{Duration, Instant};

/// Asks `condition` again and again until it gives a value.
///
/// # Panics
/// When `deadline` has passed without one; the message is `what`.
pub fn wait_for<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
