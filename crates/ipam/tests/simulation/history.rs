//! Histories: drawn from a seed, run, and kept as files.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use super::draw::Draw;
use super::script::{Op, Setup};
use super::world::{Broken, World};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) setup: Setup,
    pub(crate) ops: Vec<Op>,
}

/// A law was broken.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) broken: Broken,
    /// By this operation.
    pub(crate) at: usize,
    /// After so many steps.
    pub(crate) steps: u64,
    /// What led to it.
    pub(crate) log: Vec<String>,
}

/// Runs a history. Gives the number of steps.
pub(crate) fn run(history: &History) -> Result<u64, Failure> {
    again(history, false)
}

/// The same, with everything written down that led to a failure.
pub(crate) fn tell(history: &History) -> Result<u64, Failure> {
    again(history, true)
}

fn again(history: &History, told: bool) -> Result<u64, Failure> {
    let mut ops = history.ops.iter().cloned();
    go(&history.setup, told, &mut Vec::new(), |_| ops.next())
}

/// Draws a history of at least so many steps from a seed, and runs it.
pub(crate) fn draw(seed: u64, steps: u64) -> (History, Result<u64, Failure>) {
    let (mut draw, setup) = Draw::new(seed);
    let mut ops = Vec::new();
    let mut over = false;
    // The number of steps is asked for before each operation; the last one is the calm after it all.
    let result = go(&setup, false, &mut ops, |so_far| {
        if over {
            return None;
        }
        over = so_far >= steps;
        Some(if over { Op::Calm } else { draw.next() })
    });
    (History { setup, ops }, result)
}

fn go(
    setup: &Setup,
    told: bool,
    ops: &mut Vec<Op>,
    mut next: impl FnMut(u64) -> Option<Op>,
) -> Result<u64, Failure> {
    let mut world = World::new(setup, told);
    loop {
        if let Some(broken) = world.broken.take() {
            return Err(failure(&world, broken, ops.len().saturating_sub(1)));
        }
        let Some(op) = next(world.steps) else {
            return Ok(world.steps);
        };
        ops.push(op.clone());
        // A panic in the pool is a broken law too.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.apply(&op))) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let detail = text.unwrap_or_default();
            return Err(failure(
                &world,
                Broken {
                    law: "nothing panics",
                    detail,
                },
                ops.len() - 1,
            ));
        }
    }
}

fn failure(world: &World, broken: Broken, at: usize) -> Failure {
    Failure {
        broken,
        at,
        steps: world.steps,
        log: world.log.iter().cloned().collect(),
    }
}

impl History {
    /// One line each: what it begins with, then what happens. Lines that begin with `#` are for people.
    pub(crate) fn to_text(&self, about: &str) -> String {
        let mut text: String = about.lines().map(|l| format!("# {l}\n")).collect();
        let setup = serde_json::to_string(&self.setup).expect("JSON");
        let ops = self.ops.iter().map(|op| serde_json::to_string(op).expect("JSON"));
        for line in std::iter::once(setup).chain(ops) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    pub(crate) fn of_text(text: &str) -> Self {
        let mut lines = text
            .lines()
            .filter(|l| !l.starts_with('#') && !l.trim().is_empty());
        let setup = serde_json::from_str(lines.next().expect("a first line")).expect("a setup");
        let ops = lines.map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}")));
        Self {
            setup,
            ops: ops.collect(),
        }
    }
}
