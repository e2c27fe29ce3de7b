//! What this version of vpcnetd cannot do yet. This is the only place that says so: to switch something on, delete its line.
//! Reading knows nothing of it.

use crate::config::Config;
use crate::error::{ConfigError, Finding};
use crate::interplay::brief;
use crate::read::Reading;
use crate::variable::Variable;
use crate::variables::vars;

/// Settings whose function is not there yet.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    /// The settings.
    pub variables: &'static [&'static Variable],
    /// They ask for what is not there.
    pub asked: fn(&Config) -> bool,
    /// What comes of it.
    pub verdict: Verdict,
}

/// What comes of a setting whose function is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The agent does not start: silently giving IPv4 addresses in an IPv6 cluster, or addresses of the wrong subnet, helps nobody.
    Refused,
    /// It starts; this is what holds instead.
    Noted(&'static str),
}

const fn refused(variables: &'static [&'static Variable], asked: fn(&Config) -> bool) -> Missing {
    Missing {
        variables,
        asked,
        verdict: Verdict::Refused,
    }
}

const fn noted(
    variables: &'static [&'static Variable],
    asked: fn(&Config) -> bool,
    instead: &'static str,
) -> Missing {
    Missing {
        variables,
        asked,
        verdict: Verdict::Noted(instead),
    }
}

/// What this version cannot do.
#[rustfmt::skip]
pub const MISSING: &[Missing] = &[
    noted(&[&vars::ENABLE_MULTI_NIC], |c| c.interfaces.multi_nic && !c.uses_all_cards(), "with IPv6 only the first network card is used"),
    refused(&[&vars::ENABLE_POD_ENI], |c| c.branch.enabled),
];

/// Adds what of `list` somebody asked for to the findings.
pub(crate) fn judge(reading: &mut Reading, list: &[Missing]) {
    for missing in list.iter().filter(|m| (m.asked)(&reading.config)) {
        let written = written(missing, reading);
        match missing.verdict {
            Verdict::Refused => {
                let refused = |(name, value)| Finding::Refused(ConfigError::Unsupported { name, value });
                reading.findings.extend(written.into_iter().map(refused));
            }
            Verdict::Noted(_) if written.is_empty() => {}
            Verdict::Noted(instead) => {
                let settings: Vec<String> = written.iter().map(|(n, v)| format!("{n}={v}")).collect();
                let settings = settings.join(", ");
                reading.findings.push(Finding::Noted(format!(
                    "{settings}: not done by this version of vpcnetd: {instead}"
                )));
            }
        }
    }
}

/// The variables of a line that somebody wrote.
fn written(missing: &Missing, reading: &Reading) -> Vec<(&'static str, String)> {
    let variables = missing.variables.iter();
    variables
        .filter_map(|v| Some((v.name, brief(reading.accepted(v)?))))
        .collect()
}

/// What only the defaults ask for: nothing to tell at each start, but part of what an environment means.
pub(crate) fn by_default(reading: &Reading) -> Vec<String> {
    let asked = MISSING.iter().filter(|m| (m.asked)(&reading.config));
    asked
        .filter(|m| written(m, reading).is_empty())
        .filter_map(|m| match m.verdict {
            Verdict::Noted(instead) => Some(format!("{instead} ({})", m.variables.first()?.name)),
            Verdict::Refused => None,
        })
        .collect()
}

/// The line of the list that a variable is in.
pub(crate) fn of(variable: &Variable) -> Option<&'static Missing> {
    MISSING
        .iter()
        .find(|m| m.variables.iter().any(|v| v.name == variable.name))
}
