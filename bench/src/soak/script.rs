//! What goes wrong when: drawn from the seed alone, so that a run can be made again.

use std::time::Duration;

use super::dice::Dice;

/// A trouble that lasts for a while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spell {
    /// After the round's start.
    pub(super) from: Duration,
    pub(super) lasts: Duration,
    /// The node it is for.
    pub(super) node: &'static str,
    pub(super) trouble: Trouble,
}

/// What goes wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// A rule of the lab's fault plan: the arguments of `fault add`, without the node.
    Calls {
        title: &'static str,
        arguments: Vec<String>,
    },
    /// The node's subnet has so many addresses left.
    Subnet { left: u32 },
    /// The agent ends and starts again when the spell is over.
    Agent { end: End, lost: Lost },
}

/// How an agent ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Kill,
    Stop,
}

/// What is gone when it starts again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    Nothing,
    /// The checkpoint: owners are rebuilt from the kernel.
    Checkpoint,
    /// Its own state: cool-downs, intents, the last known interfaces.
    State,
    /// A pod's namespace, and no DEL for it ever.
    Pods,
}

/// The node whose agent lives through the whole run: its memory is watched.
pub(super) const STEADY: &str = "node-1";
/// The node whose agent is killed and restarted.
pub(super) const SHAKEN: &str = "node-2";

/// EC2's reads are at most ten seconds behind, says the lab's law; an agent without its own state has to believe them.
const READS_CAUGHT_UP: Duration = Duration::from_secs(12);

/// The title of the rule and its words after `fault add`; `{}` is for a number that is drawn from the range.
const CALLS: &[(&str, &str, (u64, u64))] = &[
    (
        "throttled",
        "* --error RequestLimitExceeded --probability 0.{}",
        (3, 9),
    ),
    (
        "throttled",
        "AssignPrivateIpAddresses --error RequestLimitExceeded",
        (0, 0),
    ),
    (
        "throttled",
        "CreateNetworkInterface --error RequestLimitExceeded",
        (0, 0),
    ),
    ("fails", "* --error InternalError --probability 0.{}", (3, 9)),
    ("fails", "* --error Unavailable --probability 0.{}", (3, 9)),
    (
        "done and failed",
        "AssignPrivateIpAddresses --error-after InternalError --probability 0.{}",
        (3, 9),
    ),
    (
        "done and failed",
        "* --error-after Unavailable --probability 0.{}",
        (2, 6),
    ),
    (
        "answer lost",
        "AssignPrivateIpAddresses --lose-answer --probability 0.{}",
        (3, 9),
    ),
    (
        "answer lost",
        "UnassignPrivateIpAddresses --lose-answer --probability 0.{}",
        (3, 9),
    ),
    (
        "answer lost",
        "CreateNetworkInterface --lose-answer --probability 0.{}",
        (3, 9),
    ),
    (
        "answer lost",
        "AttachNetworkInterface --lose-answer --probability 0.{}",
        (3, 9),
    ),
    ("answer lost", "* --lose-answer --probability 0.{}", (2, 6)),
    ("closed", "* --drop --probability 0.{}", (2, 8)),
    ("silent", "* --hang", (0, 0)),
    ("silent", "AssignPrivateIpAddresses --hang --times {}", (1, 2)),
    (
        "done and silent",
        "AssignPrivateIpAddresses --hang-after --times {}",
        (1, 2),
    ),
    (
        "done and silent",
        "CreateNetworkInterface --hang-after --times {}",
        (1, 2),
    ),
    (
        "done and silent",
        "AttachNetworkInterface --hang-after --times {}",
        (1, 2),
    ),
    (
        "done and silent",
        "UnassignPrivateIpAddresses --hang-after --times {}",
        (1, 2),
    ),
    ("slow", "* --slow 500-{}000", (2, 6)),
    (
        "done twice",
        "AssignPrivateIpAddresses --duplicate --probability 0.{}",
        (3, 9),
    ),
    (
        "done twice",
        "UnassignPrivateIpAddresses --duplicate --probability 0.{}",
        (3, 9),
    ),
    (
        "done twice",
        "AttachNetworkInterface --duplicate --probability 0.{}",
        (3, 9),
    ),
    ("stale", "Describe* --stale {}000", (4, 9)),
    (
        "IMDS knows nothing",
        "imds:meta-data/network/* --error 404:404 --probability 0.{}",
        (3, 9),
    ),
    ("IMDS fails", "imds:* --error 500:500 --probability 0.{}", (3, 9)),
    (
        "IMDS throttles",
        "imds:* --error 429:429 --probability 0.{}",
        (3, 9),
    ),
    ("IMDS is silent", "imds:* --hang", (0, 0)),
    ("IMDS is stale", "imds:meta-data/network/* --stale {}000", (5, 30)),
    ("IMDS closes", "imds:* --drop --probability 0.{}", (3, 9)),
];

/// What is always so: every second read is from a replica that is some seconds behind. Comes last, as the first rule that strikes decides.
pub(super) const LAG: &[&str] = &["Describe*", "--stale", "3000", "--probability", "0.5"];

/// One round: spells that begin and end within `length`, by their beginning.
pub(super) fn round(dice: &mut Dice, length: Duration) -> Vec<Spell> {
    let mut spells = Vec::new();
    for node in [STEADY, SHAKEN] {
        for _ in 0..dice.between(1, 3) {
            let (from, lasts) = when(dice, length);
            let trouble = if dice.percent(15) {
                let left = dice.between(0, 6) as u32;
                Trouble::Subnet { left }
            } else {
                calls(dice)
            };
            spells.push(Spell {
                from,
                lasts,
                node,
                trouble,
            });
        }
    }
    let restarts = dice.between(1, 3);
    let part = length / restarts as u32;
    for number in 0..restarts as u32 {
        let from = part * number + Duration::from_millis(dice.between(0, part.as_millis() as u64 / 2));
        let end = if dice.percent(70) { End::Kill } else { End::Stop };
        let lost = match dice.between(0, 9) {
            0 => Lost::Checkpoint,
            1 => Lost::State,
            2 | 3 => Lost::Pods,
            _ => Lost::Nothing,
        };
        let lasts = match lost {
            Lost::Checkpoint | Lost::State => READS_CAUGHT_UP,
            _ => Duration::from_millis(dice.between(0, 4000)),
        };
        spells.push(Spell {
            from,
            lasts,
            node: SHAKEN,
            trouble: Trouble::Agent { end, lost },
        });
    }
    spells.sort_by_key(|s| s.from);
    spells
}

fn when(dice: &mut Dice, length: Duration) -> (Duration, Duration) {
    let whole = length.as_millis() as u64;
    let from = dice.between(0, whole * 7 / 10);
    let lasts = dice.between(whole / 12, (whole - from).min(whole / 2));
    (Duration::from_millis(from), Duration::from_millis(lasts))
}

fn calls(dice: &mut Dice) -> Trouble {
    let Some((title, words, (low, high))) = dice.pick(CALLS).copied() else {
        return Trouble::Subnet { left: 0 };
    };
    let words = words.replace("{}", &dice.between(low, high).to_string());
    Trouble::Calls {
        title,
        arguments: words.split(' ').map(str::to_owned).collect(),
    }
}

impl Trouble {
    /// Whether EC2 gives addresses that no answer names.
    pub(super) fn doubles_assignments(&self) -> bool {
        let Self::Calls { arguments, .. } = self else {
            return false;
        };
        let about = |action: &str| arguments.first().is_some_and(|first| first == action);
        about("AssignPrivateIpAddresses") && arguments.iter().any(|word| word == "--duplicate")
    }

    /// For the log and the report.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Calls { title, arguments } => {
                let whose = if title.starts_with("IMDS") { "" } else { "EC2 " };
                format!("{whose}{title}: {}", arguments.join(" "))
            }
            Self::Subnet { left } => format!("subnet with {left} addresses left"),
            Self::Agent { end, lost } => {
                let end = match end {
                    End::Kill => "agent killed",
                    End::Stop => "agent stopped",
                };
                let lost = match lost {
                    Lost::Nothing => "",
                    Lost::Checkpoint => ", its checkpoint lost",
                    Lost::State => ", its own state lost",
                    Lost::Pods => ", pods gone without a DEL meanwhile",
                };
                format!("{end}{lost}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_secs(120);

    #[test]
    fn a_seed_gives_the_same_troubles_each_time() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..20).map(|_| round(&mut dice, ROUND)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn the_steady_node_keeps_its_agent_and_the_other_loses_it_in_each_round() {
        let mut dice = Dice::new(1);
        for _ in 0..200 {
            let spells = round(&mut dice, ROUND);
            let ends: Vec<&Spell> = spells
                .iter()
                .filter(|s| matches!(s.trouble, Trouble::Agent { .. }))
                .collect();
            assert!(!ends.is_empty());
            assert!(ends.iter().all(|s| s.node == SHAKEN));
        }
    }

    #[test]
    fn what_is_wrong_with_calls_and_subnets_ends_within_the_round() {
        let mut dice = Dice::new(2);
        for _ in 0..500 {
            for spell in round(&mut dice, ROUND) {
                assert!(spell.lasts + spell.from <= ROUND + READS_CAUGHT_UP, "{spell:?}");
                if !matches!(spell.trouble, Trouble::Agent { .. }) {
                    assert!(spell.lasts + spell.from <= ROUND, "{spell:?}");
                }
            }
        }
    }
}
