//! Takes values from an environment by the table's rules, and collects what is to be said about them. An empty value counts as not
//! set. A value that is none leaves its variable's default, and touches nothing else.

use std::time::Duration;

use crate::error::{ConfigError, Finding, shown};
use crate::parse;
use crate::read::Given;
use crate::variable::{Invalid, Kind, Variable};
use crate::variables;

/// Where values come from: the process environment, a file, or a table in a test.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The variables that are set, and the findings so far.
pub(crate) struct Reader {
    given: Vec<Given>,
    findings: Vec<Finding>,
}

impl Reader {
    /// Looks every variable up, once.
    pub(crate) fn new(lookup: &Lookup<'_>) -> Self {
        let given = variables::all()
            .filter_map(|variable| {
                Some(Given {
                    variable,
                    value: lookup(variable.name)?,
                    accepted: false,
                })
            })
            .collect();
        Self {
            given,
            findings: Vec::new(),
        }
    }

    pub(crate) fn into_parts(self) -> (Vec<Given>, Vec<Finding>) {
        (self.given, self.findings)
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// The value as it stands, also when it is empty.
    pub(crate) fn raw(&self, variable: &Variable) -> Option<String> {
        let given = self.given.iter().find(|g| g.variable.name == variable.name)?;
        Some(given.value.clone())
    }

    /// Marks what stands there as a value that holds.
    pub(crate) fn accept(&mut self, variable: &Variable) {
        if let Some(given) = self
            .given
            .iter_mut()
            .find(|g| g.variable.name == variable.name && !g.value.is_empty())
        {
            given.accepted = true;
        }
    }

    /// Says that what stands there is no value, in the way of the variable.
    pub(crate) fn reject(&mut self, variable: &Variable, value: &str) {
        let refused = match variable.invalid {
            Invalid::Refused => true,
            Invalid::RefusedWith(other) => self
                .given
                .iter()
                .any(|g| g.variable.name == other && parse::boolean(&g.value) == Some(true)),
            Invalid::AsUnset | Invalid::Skipped | Invalid::Never => false,
        };
        let name = variable.name;
        self.find(if refused {
            Finding::Refused(ConfigError::Invalid {
                name,
                value: value.to_owned(),
                allowed: variable.kind.to_string(),
            })
        } else {
            let default = match variable.default {
                "" => String::new(),
                default => format!(" (the default is {default})"),
            };
            Finding::Ignored(format!(
                "{name}={} must be {}; it counts as not set{default}",
                shown(value),
                variable.kind
            ))
        });
    }

    /// What `parse` makes of the value; `None` when there is none, or it is none.
    fn take<T>(&mut self, variable: &Variable, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.raw(variable).filter(|v| !v.is_empty())?;
        let parsed = parse(&value);
        match parsed {
            Some(_) => self.accept(variable),
            None => self.reject(variable, &value),
        }
        parsed
    }

    /// As [`Reader::take`], with the table's default.
    fn or_default<T: Default>(&mut self, variable: &Variable, parse: impl Fn(&str) -> Option<T>) -> T {
        self.take(variable, &parse)
            .or_else(|| parse(variable.default))
            .unwrap_or_default()
    }

    pub(crate) fn bool(&mut self, variable: &Variable) -> bool {
        self.or_default(variable, parse::boolean)
    }

    /// `None` when it is not set.
    pub(crate) fn bool_if_set(&mut self, variable: &Variable) -> Option<bool> {
        self.take(variable, parse::boolean)
    }

    /// A number within the bounds of its kind.
    pub(crate) fn number(&mut self, variable: &Variable) -> u32 {
        let (low, high) = bounds(variable.kind);
        self.or_default(variable, |text| parse::number(text, low, high))
    }

    /// A number that is "not set" when it is 0.
    pub(crate) fn number_or_none(&mut self, variable: &Variable) -> Option<u32> {
        self.take(variable, |text| parse::number(text, 0, u32::MAX))
            .filter(|n| *n > 0)
    }

    pub(crate) fn seconds(&mut self, variable: &Variable) -> Duration {
        Duration::from_secs(u64::from(self.number(variable)))
    }

    /// An MTU from `low` bytes.
    pub(crate) fn mtu(&mut self, variable: &Variable, low: u32) -> Option<u32> {
        self.take(variable, |text| parse::number(text, low, 9001))
            .or_else(|| parse::number(variable.default, low, 9001))
    }

    /// The word of the list that stands there.
    pub(crate) fn choice(&mut self, variable: &Variable) -> &'static str {
        let word = |text: &str| match variable.kind {
            Kind::Choice(words) => words.iter().copied().find(|w| *w == text),
            Kind::ChoiceAnyCase(words) => words.iter().copied().find(|w| w.eq_ignore_ascii_case(text)),
            _ => None,
        };
        self.take(variable, word)
            .or_else(|| word(variable.default))
            .unwrap_or_default()
    }

    pub(crate) fn mark(&mut self, variable: &Variable) -> u32 {
        self.or_default(variable, parse::mark)
    }

    pub(crate) fn prefix(&mut self, variable: &Variable) -> String {
        self.or_default(variable, parse::prefix)
    }

    /// Any text; `None` when it is not set and has no default.
    pub(crate) fn text(&mut self, variable: &Variable) -> Option<String> {
        self.take(variable, |text| Some(text.to_owned()))
            .or_else(|| (!variable.default.is_empty()).then(|| variable.default.to_owned()))
    }

    /// Text that `parse` takes; `None` when it is not set.
    pub(crate) fn text_of(
        &mut self,
        variable: &Variable,
        parse: fn(&str) -> Option<String>,
    ) -> Option<String> {
        self.take(variable, parse)
    }

    /// A plugin's log: anything but `stdout`.
    pub(crate) fn plugin_log(&mut self, variable: &Variable) -> std::path::PathBuf {
        self.or_default(variable, |text| (text != "stdout").then(|| text.into()))
    }

    pub(crate) fn bind(&mut self, variable: &Variable) -> Option<parse::Bind> {
        self.take(variable, parse::bind)
            .or_else(|| parse::bind(variable.default))
    }
}

fn bounds(kind: Kind) -> (u32, u32) {
    match kind {
        Kind::Number { low, high } => (low, high),
        Kind::Seconds { low } => (low, u32::MAX),
        _ => (0, u32::MAX),
    }
}
