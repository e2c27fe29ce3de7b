//! `lab fault`: the fault plan.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::Value;

use super::print_json;
use crate::control::{self, Ask};
use crate::error::LabError;
use crate::model::{FaultKind, FaultRule, FaultTarget, Spread};
use crate::state::Dir;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a rule; the first rule that strikes decides
    Add(Box<Add>),
    /// List the rules, with how often each matched and struck
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a rule, or all of them
    Clear {
        /// The rule's number
        id: Option<u64>,
    },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("kind").required(true)))]
pub(super) struct Add {
    /// EC2 action or `imds:PATH`; a trailing * matches all that begins so (`*`, `Describe*`, `imds:*`)
    target: String,
    /// Answer with this error and do nothing
    #[arg(long, group = "kind", value_name = "CODE[:STATUS]")]
    error: Option<String>,
    /// Do it, then answer with this error
    #[arg(long, group = "kind", value_name = "CODE[:STATUS]")]
    error_after: Option<String>,
    /// Never answer, and do nothing
    #[arg(long, group = "kind")]
    hang: bool,
    /// Do it, but never answer
    #[arg(long, group = "kind")]
    hang_after: bool,
    /// Close the connection and do nothing
    #[arg(long, group = "kind")]
    drop: bool,
    /// Do it, then close the connection
    #[arg(long, group = "kind")]
    lose_answer: bool,
    /// Take this much longer
    #[arg(long, group = "kind", value_name = "MS[-MS]")]
    slow: Option<String>,
    /// Do it twice
    #[arg(long, group = "kind")]
    duplicate: bool,
    /// Answer a read from this long ago
    #[arg(long, group = "kind", value_name = "MS")]
    stale: Option<u64>,
    /// Calls of this node only
    #[arg(long)]
    node: Option<String>,
    /// The Nth matching call only
    #[arg(long, value_name = "N")]
    nth: Option<u64>,
    /// Every Nth matching call
    #[arg(long, value_name = "N")]
    every: Option<u64>,
    /// At most so often
    #[arg(long, value_name = "N")]
    times: Option<u64>,
    /// By chance, 0 to 1
    #[arg(long, value_name = "P")]
    probability: Option<f64>,
    /// From this time of the lab on
    #[arg(long, value_name = "MS", default_value_t = 0)]
    from: u64,
    /// Until then
    #[arg(long, value_name = "MS")]
    until: Option<u64>,
}

impl Add {
    fn rule(&self) -> Result<FaultRule, LabError> {
        let target = match self.target.strip_prefix("imds:") {
            Some(path) => FaultTarget::Imds(path.to_owned()),
            None => FaultTarget::Ec2(
                self.target
                    .strip_prefix("ec2:")
                    .unwrap_or(&self.target)
                    .to_owned(),
            ),
        };
        let kind = if let Some(text) = &self.error {
            let (code, status) = error(text)?;
            FaultKind::Error { code, status }
        } else if let Some(text) = &self.error_after {
            let (code, status) = error(text)?;
            FaultKind::ErrorAfter { code, status }
        } else if let Some(text) = &self.slow {
            FaultKind::Slow(spread(text)?)
        } else if let Some(ms) = self.stale {
            FaultKind::Stale(Duration::from_millis(ms))
        } else if self.hang {
            FaultKind::Hang
        } else if self.hang_after {
            FaultKind::HangAfter
        } else if self.drop {
            FaultKind::Drop
        } else if self.lose_answer {
            FaultKind::LoseAnswer
        } else {
            FaultKind::Duplicate
        };
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err(LabError::Usage("--probability goes from 0 to 1".to_owned()));
        }
        let mut rule = FaultRule::new(target, kind);
        rule.node.clone_from(&self.node);
        (rule.nth, rule.every, rule.times, rule.probability) =
            (self.nth, self.every, self.times, self.probability);
        rule.from = Duration::from_millis(self.from);
        rule.until = self.until.map(Duration::from_millis);
        Ok(rule)
    }
}

/// `CODE` or `CODE:STATUS`; without a status the one EC2 gives with such a code.
fn error(text: &str) -> Result<(String, u16), LabError> {
    match text.split_once(':') {
        Some((code, status)) => {
            let status = status.parse().ok().filter(|s| (100..600).contains(s));
            let bad = || {
                LabError::Usage(format!(
                    "'{text}': after the colon comes an HTTP status, 100 to 599"
                ))
            };
            Ok((code.to_owned(), status.ok_or_else(bad)?))
        }
        None => {
            let status = match text {
                "RequestLimitExceeded" | "Unavailable" | "ServiceUnavailable" => 503,
                "InternalError" | "InternalFailure" => 500,
                "UnauthorizedOperation" => 403,
                _ => 400,
            };
            Ok((text.to_owned(), status))
        }
    }
}

fn spread(text: &str) -> Result<Spread, LabError> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    match (min.parse(), max.parse()) {
        (Ok(min), Ok(max)) if min <= max => Ok(Spread::millis(min, max)),
        _ => Err(LabError::Usage(format!("'{text}' is no MS or MS-MS"))),
    }
}

pub(super) fn run(dir: &Dir, command: Command) -> Result<(), LabError> {
    match command {
        Command::Add(add) => {
            let id: u64 = control::ask(dir, &Ask::FaultAdd { rule: add.rule()? })?;
            println!("{id}");
        }
        Command::List { json } => {
            let faults: Vec<Value> = control::ask(dir, &Ask::FaultList)?;
            if json {
                return print_json(&faults);
            }
            for fault in faults {
                let number = |key: &str| fault.get(key).and_then(Value::as_u64).unwrap_or_default();
                let rule = fault.get("rule").cloned().unwrap_or_default();
                println!(
                    "{:>3}  matched {:>5}  struck {:>5}  {rule}",
                    number("id"),
                    number("matched"),
                    number("struck")
                );
            }
        }
        Command::Clear { id } => {
            let _: Value = control::ask(dir, &Ask::FaultClear { id })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        add: Add,
    }

    fn rule(args: &[&str]) -> Result<FaultRule, LabError> {
        Line::try_parse_from(std::iter::once(&"x").chain(args))
            .map_err(|e| LabError::Usage(e.to_string()))?
            .add
            .rule()
    }

    #[test]
    fn a_throttled_call_is_told_with_the_status_ec2_gives() {
        let rule = rule(&[
            "AssignPrivateIpAddresses",
            "--error",
            "RequestLimitExceeded",
            "--times",
            "2",
        ])
        .unwrap();
        assert_eq!(
            rule.target,
            FaultTarget::Ec2("AssignPrivateIpAddresses".to_owned())
        );
        assert_eq!(
            rule.kind,
            FaultKind::Error {
                code: "RequestLimitExceeded".to_owned(),
                status: 503
            }
        );
        assert_eq!(rule.times, Some(2));
    }

    #[test]
    fn a_path_of_imds_is_named_with_its_prefix() {
        assert_eq!(
            rule(&["imds:*", "--slow", "5-10"]).unwrap().target,
            FaultTarget::Imds("*".to_owned())
        );
    }

    #[test]
    fn exactly_one_kind_of_fault_must_be_asked_for() {
        assert!(rule(&["*"]).is_err());
        assert!(rule(&["*", "--hang", "--drop"]).is_err());
        assert!(rule(&["*", "--slow", "10-5"]).is_err());
        assert!(rule(&["*", "--hang", "--probability", "1.5"]).is_err());
        assert!(rule(&["*", "--error", "X:99"]).is_err());
    }
}
