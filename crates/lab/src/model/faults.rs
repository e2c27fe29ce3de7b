//! The fault plan: which call fails, when, and how.
//!
//! A rule matches calls by face, action or path, caller and time; then by count or chance; then it says what happens.
//! The first rule that strikes wins. Rules are part of the VPC's value and draw from its seed, so a run repeats.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::Spread;
use super::error::ApiError;
use super::rng::Rng;

/// What calls a rule is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultTarget {
    /// EC2 actions: a name, or a beginning with `*` (`Describe*`, `*`).
    Ec2(String),
    /// IMDS paths below `/latest/`: whole, or a beginning with `*` (`meta-data/network/*`, `api/token`).
    Imds(String),
}

/// What happens to the call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Refused with this code before any effect.
    Error {
        /// EC2 error code; for IMDS only `status` matters.
        code: String,
        /// HTTP status.
        status: u16,
    },
    /// Carried out, then answered with this error as if it had failed.
    ErrorAfter {
        /// EC2 error code.
        code: String,
        /// HTTP status.
        status: u16,
    },
    /// No effect and no answer: the connection stays open until the client gives up.
    Hang,
    /// Carried out, but the client waits for ever.
    HangAfter,
    /// No effect; the connection is closed without an answer.
    Drop,
    /// Carried out; the connection is closed without an answer.
    LoseAnswer,
    /// Answered late by this much, on top of the latency.
    Slow(Spread),
    /// Carried out twice, as when a proxy repeats a request; the second answer is given.
    Duplicate,
    /// Answered from a state this old (reads and IMDS). A minute is kept, or the longest lag if that is more.
    Stale(Duration),
}

/// One line of the fault plan.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FaultRule {
    /// Which calls.
    pub target: FaultTarget,
    /// Only calls of this node, by name or instance id.
    #[serde(default)]
    pub node: Option<String>,
    /// Not before this lab time.
    #[serde(default)]
    pub from: Duration,
    /// Not at this lab time or later.
    #[serde(default)]
    pub until: Option<Duration>,
    /// Only the nth matching call, counted from 1.
    #[serde(default)]
    pub nth: Option<u64>,
    /// Only each nth matching call.
    #[serde(default)]
    pub every: Option<u64>,
    /// At most so often.
    #[serde(default)]
    pub times: Option<u64>,
    /// Chance for each matching call, 0 to 1; `None`: always.
    #[serde(default)]
    pub probability: Option<f64>,
    /// What happens.
    pub kind: FaultKind,
}

impl FaultRule {
    /// A rule that strikes every call of `target`.
    #[must_use]
    pub fn new(target: FaultTarget, kind: FaultKind) -> Self {
        Self {
            target,
            node: None,
            from: Duration::ZERO,
            until: None,
            nth: None,
            every: None,
            times: None,
            probability: None,
            kind,
        }
    }
}

/// A call as the plan sees it.
pub(crate) struct Subject<'a> {
    pub(crate) ec2_action: Option<&'a str>,
    pub(crate) imds_path: Option<&'a str>,
    /// Names of the caller's node: its name and its instance id.
    pub(crate) node: Option<(&'a str, &'a str)>,
}

/// A rule in force, with its counts.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ActiveFault {
    /// Number by which it is removed.
    pub id: u64,
    /// The rule.
    pub rule: FaultRule,
    /// Calls it matched.
    pub matched: u64,
    /// Calls it struck.
    pub struck: u64,
}

/// All rules in force.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Faults {
    rules: Vec<ActiveFault>,
    next_id: u64,
}

impl Faults {
    pub(crate) fn new(rules: &[FaultRule]) -> Self {
        let mut faults = Self::default();
        for rule in rules {
            faults.add(rule.clone());
        }
        faults
    }

    pub(crate) fn add(&mut self, rule: FaultRule) -> u64 {
        self.next_id += 1;
        self.rules.push(ActiveFault {
            id: self.next_id,
            rule,
            matched: 0,
            struck: 0,
        });
        self.next_id
    }

    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|f| f.id != id);
        self.rules.len() != before
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn list(&self) -> &[ActiveFault] {
        &self.rules
    }

    /// What happens to this call; every matching rule counts it, the first that strikes decides.
    pub(crate) fn strike(
        &mut self,
        now: Duration,
        subject: &Subject<'_>,
        rng: &mut Rng,
    ) -> Option<FaultKind> {
        let mut decided = None;
        for fault in &mut self.rules {
            if !fault.rule.matches(now, subject) {
                continue;
            }
            fault.matched += 1;
            if decided.is_none() && fault.strikes(rng) {
                fault.struck += 1;
                decided = Some(fault.rule.kind.clone());
            }
        }
        decided
    }
}

impl ActiveFault {
    fn strikes(&self, rng: &mut Rng) -> bool {
        let rule = &self.rule;
        rule.nth.is_none_or(|n| n == self.matched)
            && rule
                .every
                .is_none_or(|n| n != 0 && self.matched.is_multiple_of(n))
            && rule.times.is_none_or(|most| self.struck < most)
            && rule.probability.is_none_or(|p| rng.chance(p))
    }
}

impl FaultRule {
    fn matches(&self, now: Duration, subject: &Subject<'_>) -> bool {
        let target = match &self.target {
            FaultTarget::Ec2(pattern) => subject.ec2_action.is_some_and(|a| matches_pattern(pattern, a)),
            FaultTarget::Imds(pattern) => subject.imds_path.is_some_and(|p| matches_pattern(pattern, p)),
        };
        target
            && now >= self.from
            && self.until.is_none_or(|until| now < until)
            && self.node.as_ref().is_none_or(|wanted| {
                subject
                    .node
                    .is_some_and(|(name, id)| wanted == name || wanted == id)
            })
    }
}

/// `pattern` is a whole name, or the beginning of one with `*` after it.
pub(crate) fn matches_pattern(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == name, |start| name.starts_with(start))
}

/// The refusal a fault makes.
pub(crate) fn fault_error(code: &str, status: u16) -> ApiError {
    let message = match code {
        "RequestLimitExceeded" => "Request limit exceeded.".to_owned(),
        "InternalError" => "An internal error has occurred".to_owned(),
        "Unavailable" | "ServiceUnavailable" => {
            "The service is unavailable. Please try again shortly.".to_owned()
        }
        "InsufficientFreeAddressesInSubnet" => {
            "The specified subnet does not have enough free addresses to satisfy the request.".to_owned()
        }
        "InsufficientCidrBlocks" => {
            "The specified subnet does not have enough free cidr blocks to satisfy the request.".to_owned()
        }
        other => format!("{other} (from the lab's fault plan)"),
    };
    ApiError::with_status(status, code, message)
}
