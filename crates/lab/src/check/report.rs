//! What the check found, in its stable form.

use std::collections::BTreeMap;

use serde::Serialize;

/// The result. Its JSON form is stable.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// How many checks were made.
    pub checks: usize,
    /// How many of them failed.
    pub failed: usize,
    /// By family.
    pub kinds: BTreeMap<String, Count>,
    /// The failed ones.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub seconds: f64,
    /// Put before the families of what is noted now.
    #[serde(skip)]
    pub(crate) prefix: &'static str,
}

/// Of one family of checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Count {
    /// How many were made.
    pub checks: usize,
    /// How many failed.
    pub failed: usize,
}

/// A failed check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// Its family.
    pub kind: String,
    /// Who asked.
    pub from: String,
    /// Who or what was asked.
    pub to: String,
    /// What should have come of it.
    pub expected: String,
    /// What came of it.
    pub got: String,
}

impl Report {
    pub(crate) fn note(&mut self, kind: &str, result: Result<(), Failure>) {
        let kind = format!("{}{kind}", self.prefix);
        let count = self.kinds.entry(kind.clone()).or_default();
        count.checks += 1;
        self.checks += 1;
        if let Err(mut failure) = result {
            failure.kind = kind;
            count.failed += 1;
            self.failed += 1;
            self.failures.push(failure);
        }
    }
}

pub(crate) fn named(kind: &str, from: &str, to: &str, expected: String, got: String) -> Failure {
    Failure {
        kind: kind.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        expected,
        got,
    }
}
