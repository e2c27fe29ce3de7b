//! What is said of a variable in a test.

use std::fmt::Debug;

use vpcnet_config::{Config, Finding, Invalid, Reading, Variable};

/// Reads `vars`, without regard to what this version can do.
pub(crate) fn read(vars: &[(&str, &str)]) -> Reading {
    Reading::of(&|name| {
        let found = vars.iter().rev().find(|(n, _)| *n == name)?;
        Some(found.1.to_owned())
    })
}

/// One variable, looked at through one value of the configuration.
pub(crate) struct Case<T> {
    variable: &'static Variable,
    look: fn(&Config) -> T,
    around: Vec<(&'static str, &'static str)>,
}

impl<T: PartialEq + Debug> Case<T> {
    pub(crate) fn new(variable: &'static Variable, look: fn(&Config) -> T) -> Self {
        Self {
            variable,
            look,
            around: Vec::new(),
        }
    }

    /// The rest of the environment, where the variable needs one to mean something.
    pub(crate) fn with(mut self, around: &[(&'static str, &'static str)]) -> Self {
        self.around = around.to_vec();
        self
    }

    fn read(&self, value: Option<&str>) -> Reading {
        let mut vars: Vec<(&str, &str)> = self.around.clone();
        vars.extend(value.map(|v| (self.variable.name, v)));
        read(&vars)
    }

    /// Findings about the value, not about how it goes with others.
    fn complaints(&self, reading: &Reading) -> Vec<Finding> {
        let about = format!("{}=", self.variable.name);
        let of_value = |text: &str| text.starts_with(&about) && text.contains(" must be ");
        let found = reading.findings.iter().filter(|f| of_value(&f.to_string()));
        found.cloned().collect()
    }

    /// What holds when it is not set, when it is empty, and when the documented default is spelled out.
    pub(crate) fn unset(self, want: T) -> Self {
        let unset = self.read(None);
        assert_eq!((self.look)(&unset.config), want, "{} not set", self.variable.name);
        assert_eq!(
            self.read(Some("")).config,
            unset.config,
            "{} empty",
            self.variable.name
        );
        if !self.variable.default.is_empty() {
            let spelled = self.read(Some(self.variable.default));
            assert_eq!(
                (self.look)(&spelled.config),
                want,
                "{} set to its default",
                self.variable.name
            );
            assert_eq!(self.complaints(&spelled), []);
        }
        self
    }

    /// Values and what comes of them.
    pub(crate) fn takes(self, values: &[(&str, T)]) -> Self {
        for (value, want) in values {
            let reading = self.read(Some(value));
            let name = self.variable.name;
            assert_eq!((self.look)(&reading.config), *want, "{name}={value:?}");
            assert_eq!(self.complaints(&reading), [], "{name}={value:?}");
            let given = reading.given.iter().find(|g| g.variable.name == name);
            assert!(given.is_some_and(|g| g.accepted), "{name}={value:?} is not taken");
        }
        self
    }

    /// Values that count as not set, each with one word about it.
    pub(crate) fn passes_over(self, values: &[&str]) -> Self {
        let name = self.variable.name;
        let documented = matches!(
            self.variable.invalid,
            Invalid::AsUnset | Invalid::RefusedWith(_) | Invalid::Skipped
        );
        assert!(documented, "{name} is documented otherwise");
        let unset = self.read(None);
        for value in values {
            let reading = self.read(Some(value));
            assert_eq!(reading.config, unset.config, "{name}={value:?}");
            let complaints = self.complaints(&reading);
            assert!(
                matches!(&complaints[..], [Finding::Ignored(_)]),
                "{name}={value:?}: {complaints:?}"
            );
        }
        self
    }

    /// Values with which the agent does not start; other settings stay as they are.
    pub(crate) fn refuses(self, values: &[&str]) -> Self {
        let name = self.variable.name;
        let documented = matches!(self.variable.invalid, Invalid::Refused | Invalid::RefusedWith(_));
        assert!(documented, "{name} is documented otherwise");
        let unset = self.read(None);
        for value in values {
            let reading = self.read(Some(value));
            assert_eq!(reading.config, unset.config, "{name}={value:?}");
            let complaints = self.complaints(&reading);
            assert!(
                matches!(&complaints[..], [Finding::Refused(_)]),
                "{name}={value:?}: {complaints:?}"
            );
            assert!(reading.accept().is_err());
        }
        self
    }
}

/// A switch: its default, all spellings, and what is none.
pub(crate) fn switch(variable: &'static Variable, default: bool, look: fn(&Config) -> bool) -> Case<bool> {
    switch_in(variable, default, look, &[])
}

/// As [`switch`], in an environment.
pub(crate) fn switch_in(
    variable: &'static Variable,
    default: bool,
    look: fn(&Config) -> bool,
    around: &[(&'static str, &'static str)],
) -> Case<bool> {
    Case::new(variable, look)
        .with(around)
        .unset(default)
        .takes(&["1", "t", "T", "TRUE", "true", "True"].map(|v| (v, true)))
        .takes(&["0", "f", "F", "FALSE", "false", "False"].map(|v| (v, false)))
        .passes_over(&["yes", "tRUE", " true", "true ", "2", "on", "-1"])
}

/// As [`switch`], for one that switches off what `look` sees.
pub(crate) fn off_switch(variable: &'static Variable, look: fn(&Config) -> bool) {
    Case::new(variable, look)
        .unset(true)
        .takes(&["1", "t", "T", "TRUE", "true", "True"].map(|v| (v, false)))
        .takes(&["0", "f", "F", "FALSE", "false", "False"].map(|v| (v, true)))
        .passes_over(&["yes", "tRUE", " true", "2"]);
}

/// Findings about how settings go together.
pub(crate) fn said(vars: &[(&str, &str)]) -> Vec<String> {
    read(vars).findings.iter().map(ToString::to_string).collect()
}

/// Asserts that exactly one thing is said, and that it has all these parts.
pub(crate) fn says(vars: &[(&str, &str)], parts: &[&str]) {
    let said = said(vars);
    assert_eq!(said.len(), 1, "{vars:?}: {said:?}");
    for part in parts {
        assert!(said[0].contains(part), "{vars:?}: {said:?} lacks {part:?}");
    }
}

/// Asserts that nothing is said.
pub(crate) fn silent(vars: &[(&str, &str)]) {
    assert_eq!(said(vars), Vec::<String>::new(), "{vars:?}");
}
