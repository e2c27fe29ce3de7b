//! Failed ADDs and DELs, judged: whether it had to be.

use super::laws::Pool;
use super::world::ROOM;

/// An address counts as one there was to give when it had been free for so long: less is a matter of who came first.
const FREE_FOR_MS: u64 = 250;

/// What the plugin says when the agent gives no address, and why it gives none.
const REASONS: [&str; 4] = [
    "no free address",
    "addresses are assigned",
    "does not know its interfaces yet",
    "the checkpoint could not be written",
];

/// What is known of a failed ADD.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed<'a> {
    /// The plugin's words.
    pub(super) words: &'a str,
    /// The agent was ended or starting for a part of the time.
    pub(super) agent_away: bool,
    /// Something was wrong with EC2, IMDS or the subnet for this node, so lately that a pause after a refusal may still last.
    pub(super) hindered: bool,
    /// Addresses for pods that EC2 has on the node's interfaces.
    pub(super) in_ec2: usize,
    /// Addresses that the pool had to give when it failed.
    pub(super) free: usize,
}

/// Whether it had to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Verdict {
    /// There was no agent to ask.
    AgentAway,
    /// The instance has all the addresses it can have, and pods have them or they cool down.
    NodeFull,
    /// EC2, IMDS or the subnet kept the agent from having an address.
    NoneToGive,
    /// It had to succeed.
    Wrong,
}

impl Verdict {
    /// For the report.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::AgentAway => "agent_away",
            Self::NodeFull => "node_full",
            Self::NoneToGive => "none_to_give",
            Self::Wrong => "wrong",
        }
    }
}

/// Judges an ADD.
pub(super) fn add(failed: Failed<'_>) -> Verdict {
    // TRY_AGAIN_LATER of the CNI specification: the runtime asks again.
    if !failed.words.contains("(CNI error 11)") {
        return Verdict::Wrong;
    }
    if !REASONS.iter().any(|reason| failed.words.contains(reason)) {
        return if failed.agent_away {
            Verdict::AgentAway
        } else {
            Verdict::Wrong
        };
    }
    if failed.free > 0 {
        Verdict::Wrong
    } else if failed.in_ec2 >= ROOM {
        Verdict::NodeFull
    } else if failed.hindered || failed.agent_away {
        Verdict::NoneToGive
    } else {
        Verdict::Wrong
    }
}

/// Addresses that the pool could have given at a time of its clock, ms.
pub(super) fn to_give(pool: &Pool, at: u64) -> usize {
    let long_ago = |since: &&u64| since.saturating_add(FREE_FOR_MS) <= at;
    pool.free.values().filter(long_ago).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRY: &str = "AddNetwork: 56 of 56 addresses are assigned; all 4 interfaces are full (CNI error 11)";

    fn failed(words: &str) -> Failed<'_> {
        Failed {
            words,
            agent_away: false,
            hindered: false,
            in_ec2: 20,
            free: 0,
        }
    }

    #[test]
    fn an_add_that_had_an_address_to_give_is_wrong_whatever_else_is() {
        let verdict = add(Failed {
            free: 1,
            hindered: true,
            agent_away: true,
            in_ec2: ROOM,
            ..failed(DRY)
        });
        assert_eq!(verdict, Verdict::Wrong);
    }

    #[test]
    fn a_dry_pool_needs_a_full_node_or_a_trouble() {
        assert_eq!(add(failed(DRY)), Verdict::Wrong);
        let full = Failed {
            in_ec2: ROOM,
            ..failed(DRY)
        };
        assert_eq!(add(full), Verdict::NodeFull);
        let hindered = Failed {
            hindered: true,
            ..failed(DRY)
        };
        assert_eq!(add(hindered), Verdict::NoneToGive);
    }

    #[test]
    fn words_without_a_reason_are_for_an_agent_that_was_away() {
        let words = "AddNetwork: node agent: connection refused (CNI error 11)";
        assert_eq!(add(failed(words)), Verdict::Wrong);
        let away = Failed {
            agent_away: true,
            ..failed(words)
        };
        assert_eq!(add(away), Verdict::AgentAway);
        let kernel = Failed {
            agent_away: true,
            ..failed("failed to set up the pod's network (CNI error 103)")
        };
        assert_eq!(add(kernel), Verdict::Wrong);
    }

    #[test]
    fn an_address_that_became_free_just_now_was_not_there_to_give() {
        let mut pool = Pool::default();
        pool.free.insert("10.0.0.2".to_owned(), 1000);
        assert_eq!(to_give(&pool, 1100), 0);
        assert_eq!(to_give(&pool, 1300), 1);
    }
}
