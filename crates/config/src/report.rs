//! An environment in plain words: `vpcnet config check`.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::error::Finding;
use crate::interplay::{brief, known, same};
use crate::meaning;
use crate::missing::{self, MISSING};
use crate::near;
use crate::read::{Given, Reading};
use crate::variable::Kind;
use crate::variables::vars;

/// Names that begin like this are meant for the agent, also when no variable is near.
const OURS: [&str; 4] = ["AWS_VPC_", "VPCNET_", "WARM_", "ENI_CONFIG_"];
/// How many names of other programs' variables are listed.
const OTHERS: usize = 8;

/// What an environment means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The configuration it gives.
    pub config: Config,
    /// What was found, in the order in which it is told.
    pub findings: Vec<Finding>,
    given: Vec<Given>,
    not_yet: Vec<String>,
    others: Vec<String>,
}

/// Reads an environment. `remarks` are said with the notes: what its source could not show.
#[must_use]
pub fn report(environment: &[(String, String)], remarks: Vec<String>) -> Report {
    let (mut values, mut twice) = (BTreeMap::new(), BTreeSet::new());
    for (name, value) in environment {
        if values.insert(name.as_str(), value.as_str()).is_some() && known(name).is_some() {
            twice.insert(name.as_str());
        }
    }
    let reading = Reading::of(&|name| values.get(name).map(|v| (*v).to_owned())).without(MISSING);
    let not_yet = missing::by_default(&reading);
    let mut findings = reading.findings;
    for name in twice {
        findings.push(Finding::Ignored(format!(
            "{name} is set more than once: the last counts"
        )));
    }
    let mut others = Vec::new();
    for name in values.keys().filter(|name| known(name).is_none()) {
        match unknown(name) {
            Some(finding) => findings.push(finding),
            None => others.push((*name).to_owned()),
        }
    }
    findings.extend(remarks.into_iter().map(Finding::Noted));
    Report {
        config: reading.config,
        findings,
        given: reading.given,
        not_yet,
        others,
    }
}

fn unknown(name: &str) -> Option<Finding> {
    let shown = brief(name);
    match near::meant(name) {
        Some(v) if v.name.eq_ignore_ascii_case(name) => Some(Finding::Ignored(format!(
            "{shown} is not a setting: upper and lower case count, it is {}",
            v.name
        ))),
        Some(v) => Some(Finding::Ignored(format!(
            "{shown} is not a setting: did you mean {}?",
            v.name
        ))),
        None if OURS.iter().any(|p| name.starts_with(p)) => {
            Some(Finding::Ignored(format!("{shown} is not a setting of vpcnetd")))
        }
        None => None,
    }
}

impl Report {
    /// The agent would start.
    #[must_use]
    pub fn starts(&self) -> bool {
        !self.findings.iter().any(|f| matches!(f, Finding::Refused(_)))
    }

    /// The whole report, a screen of lines.
    #[must_use]
    pub fn text(&self) -> String {
        let errors = self.of(|f| matches!(f, Finding::Refused(_)));
        let ignored = self.of(|f| matches!(f, Finding::Ignored(_)));
        let notes = self.of(|f| matches!(f, Finding::Noted(_)));
        let mut out = String::new();
        out.push_str(if self.starts() {
            "vpcnetd starts with this environment."
        } else {
            "vpcnetd does not start with this environment."
        });
        out.push_str(&format!(
            " {}, {}, {}\n",
            number(errors.len(), "error"),
            format_args!("{} ignored", ignored.len()),
            number(notes.len(), "note")
        ));
        for (title, found) in [("errors", errors), ("ignored", ignored), ("notes", notes)] {
            if found.is_empty() {
                continue;
            }
            out.push_str(&format!("\n{title}\n"));
            found
                .iter()
                .for_each(|text| out.push_str(&format!("  ! {text}\n")));
        }
        out.push_str(if self.starts() {
            "\nwhat it means\n"
        } else {
            "\nwhat it would mean without the errors\n"
        });
        for (topic, text) in meaning::lines(&self.config) {
            out.push_str(&format!("  {topic:<13}{text}\n"));
        }
        if !self.not_yet.is_empty() {
            out.push_str(&format!("  {:<13}{}\n", "but not yet", self.not_yet.join("; ")));
        }
        self.set_here(&mut out);
        out
    }

    fn of(&self, wanted: fn(&Finding) -> bool) -> Vec<String> {
        let found = self.findings.iter().filter(|f| wanted(f));
        found.map(ToString::to_string).collect()
    }

    fn set_here(&self, out: &mut String) {
        let lines: Vec<String> = self.given.iter().filter_map(line).collect();
        if !lines.is_empty() {
            out.push_str("\nset here\n");
            lines.iter().for_each(|l| out.push_str(&format!("  {l}\n")));
        }
        if !self.others.is_empty() {
            let mut names: Vec<String> = self.others.iter().take(OTHERS).map(|n| brief(n)).collect();
            if let Some(more) = self.others.len().checked_sub(OTHERS).filter(|n| *n > 0) {
                names.push(format!("{more} more"));
            }
            out.push_str(&format!("\nnot for vpcnetd: {}\n", names.join(", ")));
        }
    }
}

/// A setting that holds, and whether it says more than the default.
fn line(given: &Given) -> Option<String> {
    let variable = given.variable;
    let name = variable.name;
    match variable.kind {
        // Refused, and said above.
        _ if given.value.is_empty() && name == vars::NETWORK_POLICY_ENFORCING_MODE.name => None,
        _ if given.value.is_empty() => Some(format!("{name} is empty, which is as if it were not set")),
        Kind::Secret => Some(format!("{name} (not shown; for the EC2 client)")),
        Kind::HandedOn => Some(format!("{name}={} (for the EC2 client)", brief(&given.value))),
        _ if !given.accepted => None,
        kind if same(kind, &given.value, variable.default) => {
            Some(format!("{name}={} (the default)", brief(&given.value)))
        }
        _ => Some(format!("{name}={}", brief(&given.value))),
    }
}

fn number(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}
