//! Making a failing history small, and keeping it.

use super::history::{Failure, History, run};
use super::script::Op;

/// Runs spent on it at most.
const RUNS: usize = 4_000;

/// The smallest part of a history that was found to break the same law: delta debugging over its operations, then each
/// number made smaller.
pub(crate) fn shrink(history: &History, failure: &Failure) -> History {
    let mut small = history.clone();
    small.ops.truncate(failure.at + 1);
    let mut runs = 0;
    let breaks = |h: &History, runs: &mut usize| {
        *runs += 1;
        run(h).is_err_and(|f| f.broken.law == failure.broken.law)
    };
    let waited_at_once = History {
        ops: together(&small.ops),
        ..small.clone()
    };
    if breaks(&waited_at_once, &mut runs) {
        small = waited_at_once;
    }
    let mut size = small.ops.len().div_ceil(2).max(1);
    while runs < RUNS {
        let mut from = 0;
        let mut shorter = false;
        while from < small.ops.len() && runs < RUNS {
            let mut next = small.clone();
            next.ops.drain(from..(from + size).min(next.ops.len()));
            if breaks(&next, &mut runs) {
                small = next;
                shorter = true;
            } else {
                from += size;
            }
        }
        if size == 1 && !shorter {
            break;
        }
        if !shorter || size > small.ops.len() {
            size = (size / 2).max(1);
        }
    }
    for at in 0..small.ops.len() {
        for simpler in simpler(&small.ops[at]) {
            let mut next = small.clone();
            next.ops[at] = simpler;
            if runs < RUNS && breaks(&next, &mut runs) {
                small = next;
            }
        }
    }
    for at in (0..small.setup.nodes.len()).rev() {
        let knobs = small.setup.nodes[at].knobs.len();
        for knob in (0..knobs).rev() {
            let mut next = small.clone();
            next.setup.nodes[at].knobs.remove(knob);
            if breaks(&next, &mut runs) {
                small = next;
            }
        }
    }
    small
}

/// Pauses in a row as one.
fn together(ops: &[Op]) -> Vec<Op> {
    let mut all: Vec<Op> = Vec::new();
    for op in ops {
        match (all.last_mut(), op) {
            (Some(Op::Pass(before)), Op::Pass(more)) => *before += more,
            _ => all.push(op.clone()),
        }
    }
    all
}

/// The same with less of it.
fn simpler(op: &Op) -> Vec<Op> {
    match op.clone() {
        Op::Pass(ms) => [0, 100, 1_000, 10_000, 60_000]
            .into_iter()
            .filter(|s| *s < ms)
            .rev()
            .map(Op::Pass)
            .collect(),
        Op::Burst { node, first, count } if count > 1 => {
            vec![
                Op::Burst {
                    node,
                    first,
                    count: 1,
                },
                Op::Burst {
                    node,
                    first,
                    count: count / 2,
                },
            ]
        }
        Op::Fault {
            node,
            target,
            wrong,
            times,
        } if times > 1 => {
            vec![Op::Fault {
                node,
                target,
                wrong,
                times: 1,
            }]
        }
        Op::Add {
            node, pod, plugin, ..
        } => vec![Op::Add {
            node,
            pod,
            plugin,
            patience_s: 60,
            every: false,
        }],
        _ => Vec::new(),
    }
}
