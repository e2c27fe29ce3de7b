//! What is said while it waits: each thing once, and not at once, since a start that goes well is over before.

use std::time::{Duration, Instant};

/// As long as a usual start takes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells on stderr.
#[derive(Debug)]
pub(crate) struct Teller {
    name: &'static str,
    began: Instant,
    last: String,
}

impl Teller {
    /// For a command.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            began: Instant::now(),
            last: String::new(),
        }
    }

    /// Something that happened.
    pub(crate) fn say(&self, text: impl std::fmt::Display) {
        eprintln!("vpcnet {}: {text}", self.name);
    }

    /// Something that is waited for.
    pub(crate) fn waiting(&mut self, text: String) {
        if self.began.elapsed() >= PATIENCE && self.last != text {
            self.say(format_args!("waiting: {text}"));
            self.last = text;
        }
    }
}
