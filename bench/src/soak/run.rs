//! What the threads of a run share: who lives, who is away, what went wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::judge::Verdict;
use super::world::{Pod, World};

/// After a trouble with EC2 has ended, the agent may still keep a pause: a minute at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Failures that are told in full; more only count.
const TOLD: usize = 200;
/// Examples kept of failed ADDs of one kind.
const EXAMPLES: usize = 8;

/// A run.
pub(super) struct Run {
    pub(super) world: World,
    pub(super) start: Instant,
    pub(super) stop: AtomicBool,
    /// Held for reading during an operation of the churn, for writing by who needs none under way.
    pub(super) turn: RwLock<()>,
    /// How many pods of the churn each node is to have.
    pub(super) wanted: Mutex<BTreeMap<&'static str, usize>>,
    /// Pods of the churn that nobody is just removing, by node.
    idle: Mutex<BTreeMap<&'static str, Vec<Pod>>>,
    /// Addresses of pods between the end of their ADD and the start of their DEL.
    alive: Mutex<BTreeMap<String, String>>,
    away: Mutex<Vec<Window>>,
    hindered: Mutex<Vec<Window>>,
    /// Nodes for which EC2 did an assignment twice, as long as their agents may not know what it brought.
    pub(super) doubled: Mutex<BTreeSet<&'static str>>,
    counts: Mutex<Counts>,
    failures: Mutex<Vec<String>>,
}

/// A time in which something was so on a node.
#[derive(Clone, Copy, Debug)]
struct Window {
    node: &'static str,
    from: Instant,
    until: Option<Instant>,
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) adds: Vec<f64>,
    pub(super) failed: BTreeMap<Verdict, u64>,
    pub(super) examples: BTreeMap<Verdict, Vec<String>>,
    pub(super) dels: u64,
    pub(super) dels_failed_while_away: u64,
    pub(super) dels_repeated: u64,
    pub(super) namespaces_gone_first: u64,
    pub(super) never_deleted: u64,
    pub(super) troubles: BTreeMap<String, u64>,
}

/// Takes a lock, also when its last holder panicked: the values are whole at each step.
pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    pub(super) fn new(world: World) -> Self {
        Self {
            world,
            start: Instant::now(),
            stop: AtomicBool::new(false),
            turn: RwLock::new(()),
            wanted: Mutex::default(),
            idle: Mutex::default(),
            alive: Mutex::default(),
            away: Mutex::default(),
            hindered: Mutex::default(),
            doubled: Mutex::default(),
            counts: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Notes something that must not be.
    pub(super) fn fail(&self, what: String) {
        self.say(&format!("FAIL {what}"));
        let mut failures = lock(&self.failures);
        if failures.len() < TOLD {
            failures.push(format!("at {} s: {what}", self.start.elapsed().as_secs()));
        }
    }

    pub(super) fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    /// Tells people how it goes.
    pub(super) fn say(&self, what: &str) {
        eprintln!("{:>5} s  {what}", self.start.elapsed().as_secs());
    }

    pub(super) fn count<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut lock(&self.counts))
    }

    /// Notes an ADD that failed.
    pub(super) fn add_failed(&self, verdict: Verdict, words: &str) {
        self.count(|counts| {
            *counts.failed.entry(verdict).or_default() += 1;
            let examples = counts.examples.entry(verdict).or_default();
            if examples.len() < EXAMPLES {
                examples.push(words.to_owned());
            }
        });
    }

    /// A pod has its address. `Some`: who has it already.
    pub(super) fn born(&self, pod: &Pod) -> Option<String> {
        lock(&self.alive).insert(pod.address.clone(), pod.name.clone())
    }

    /// Its DEL begins: from now on the address may go to another.
    pub(super) fn dies(&self, pod: &Pod) {
        let mut alive = lock(&self.alive);
        if alive.get(&pod.address) == Some(&pod.name) {
            alive.remove(&pod.address);
        }
    }

    /// A pod of the churn is there for whoever wants to remove one.
    pub(super) fn lay_down(&self, node: &'static str, pod: Pod) {
        lock(&self.idle).entry(node).or_default().push(pod);
    }

    /// Takes one that nobody else removes; `number` chooses.
    pub(super) fn take(&self, node: &'static str, number: u64) -> Option<Pod> {
        let mut idle = lock(&self.idle);
        let pods = idle.get_mut(node)?;
        let count = pods.len() as u64;
        (count > 0).then(|| pods.swap_remove((number % count) as usize))
    }

    pub(super) fn living(&self, node: &'static str) -> usize {
        lock(&self.idle).get(node).map_or(0, Vec::len)
    }

    pub(super) fn away_from(&self, node: &'static str) {
        begin(&self.away, node);
    }

    pub(super) fn back(&self, node: &'static str) {
        end(&self.away, node);
    }

    pub(super) fn hindered_from(&self, node: &'static str) {
        begin(&self.hindered, node);
    }

    pub(super) fn free_again(&self, node: &'static str) {
        end(&self.hindered, node);
    }

    /// Whether the agent was away at some time between the two.
    pub(super) fn was_away(&self, node: &str, from: Instant, until: Instant) -> bool {
        overlaps(&self.away, node, from, until)
    }

    /// Whether EC2, IMDS or the subnet hindered the agent between the two, or so short before that it may still pause.
    pub(super) fn was_hindered(&self, node: &str, from: Instant, until: Instant) -> bool {
        let from = from.checked_sub(LONGEST_PAUSE).unwrap_or(from);
        overlaps(&self.hindered, node, from, until)
    }
}

fn begin(windows: &Mutex<Vec<Window>>, node: &'static str) {
    lock(windows).push(Window {
        node,
        from: Instant::now(),
        until: None,
    });
}

/// Ends the one that began first.
fn end(windows: &Mutex<Vec<Window>>, node: &'static str) {
    let mut windows = lock(windows);
    let open = windows.iter_mut().find(|w| w.node == node && w.until.is_none());
    if let Some(window) = open {
        window.until = Some(Instant::now());
    }
}

fn overlaps(windows: &Mutex<Vec<Window>>, node: &str, from: Instant, until: Instant) -> bool {
    lock(windows)
        .iter()
        .any(|w| w.node == node && w.from <= until && w.until.is_none_or(|end| end >= from))
}
