//! What is said of an environment: what stops the start, what is passed over, what is worth knowing.

use std::fmt;

/// A setting that keeps the agent from starting: passing it over would put pods into another network than was asked for.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// Asked for something this version cannot do.
    #[error(
        "{name}={value}: this version of vpcnetd does not do this, and pods would get other addresses than asked for; unset it"
    )]
    Unsupported {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Not one of the values that may stand there.
    #[error("{name}={} must be {allowed}; correct or unset it", shown(value))]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What may stand there.
        allowed: String,
    },
    /// Settings that exclude or need each other.
    #[error("{settings}: {reason}")]
    Contradiction {
        /// The settings as they are.
        settings: String,
        /// Why they cannot be, and what to do.
        reason: &'static str,
    },
}

/// All that keeps the agent from starting; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing found in an environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The agent does not start.
    Refused(ConfigError),
    /// What somebody wrote has no effect, or another one than the words say.
    Ignored(String),
    /// It does what it says, but there is something to know.
    Noted(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Ignored(text) | Self::Noted(text) => f.write_str(text),
        }
    }
}

/// Longest value that is shown, in characters.
const SHOWN: usize = 60;

/// A value for people: quoted, control characters escaped, cut where it is long.
pub(crate) fn shown(value: &str) -> String {
    if value.chars().nth(SHOWN).is_none() {
        return format!("{value:?}");
    }
    let head: String = value.chars().take(SHOWN).collect();
    format!("{head:?}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_cut() {
        assert_eq!(shown("a\n\u{1b}[2J"), r#""a\n\u{1b}[2J""#);
        assert_eq!(shown(&"é".repeat(60)), format!("\"{}\"", "é".repeat(60)));
        assert_eq!(shown(&"é".repeat(61)), format!("\"{}\"…", "é".repeat(60)));
    }

    #[test]
    fn all_errors_are_told_a_line_each() {
        let error = |name| ConfigError::Unsupported {
            name,
            value: "true".into(),
        };
        let text = ConfigErrors(vec![error("A"), error("B")]).to_string();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().last().unwrap().starts_with("B=true"), "{text}");
    }
}
