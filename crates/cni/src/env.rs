//! The `CNI_*` variables: which each verb needs, and what may stand in them.

/// What the runtime asks for, `CNI_COMMAND`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    /// Give the container its interface.
    Add,
    /// Take it away.
    Del,
    /// See whether it is as ADD left it.
    Check,
    /// Drop what belongs to no attachment in the list.
    Gc,
    /// Say whether ADD could work now.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Add,
        Self::Del,
        Self::Check,
        Self::Gc,
        Self::Status,
        Self::Version,
    ];

    /// As in `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// By its exact text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }

    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Self::Gc | Self::Status => &["CNI_PATH"],
            Self::Version => &[],
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The variables of one call, checked. Those the verb has no use for are empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Env {
    /// `CNI_COMMAND`.
    pub verb: Verb,
    /// `CNI_CONTAINERID`: the sandbox; letters, digits, `_`, `.`, `-`, the first one a letter or digit.
    pub container_id: String,
    /// `CNI_NETNS`: path of the namespace; may be empty for DEL.
    pub netns: String,
    /// `CNI_IFNAME`: 1 to 15 bytes that the kernel takes as a name.
    pub if_name: String,
    /// `CNI_ARGS`, not looked into; may be empty.
    pub args: String,
    /// `CNI_NETNS_OVERRIDE` is 1 or true: the namespace may be the plugin's own.
    pub netns_override: bool,
}

/// A variable is missing or malformed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvError {
    /// `CNI_COMMAND` is none of the verbs.
    #[error("CNI_COMMAND: unknown verb {found:?} (known: ADD, DEL, CHECK, GC, STATUS, VERSION)")]
    Verb {
        /// Its value.
        found: String,
    },
    /// Variables that the verb needs are not set or empty.
    #[error("required env variables {names:?} missing for CNI_COMMAND={verb}")]
    Missing {
        /// The verb.
        verb: Verb,
        /// The variables.
        names: Vec<&'static str>,
    },
    /// `CNI_CONTAINERID` has characters that the specification does not allow.
    #[error(
        "CNI_CONTAINERID: {found:?} is no container id (letters, digits, '_', '.', '-'; starts with a letter or digit)"
    )]
    ContainerId {
        /// Its value.
        found: String,
    },
    /// `CNI_IFNAME` is no name that the kernel takes.
    #[error("CNI_IFNAME: {found:?} is no interface name: {why}")]
    IfName {
        /// Its value.
        found: String,
        /// Which rule it breaks.
        why: &'static str,
    },
}

impl Env {
    /// Reads the variables through `get`, which gives nothing for those not set (or not UTF-8).
    ///
    /// # Errors
    /// See [`EnvError`].
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvError> {
        let var = |name: &str| get(name).unwrap_or_default();
        let command = var("CNI_COMMAND");
        let verb = Verb::parse(&command).ok_or(EnvError::Verb { found: command })?;
        let names: Vec<&'static str> = verb
            .needs()
            .iter()
            .copied()
            .filter(|name| var(name).is_empty())
            .collect();
        if !names.is_empty() {
            return Err(EnvError::Missing { verb, names });
        }
        let needs = |name: &str| verb.needs().contains(&name);
        let used = |name: &'static str| if needs(name) { var(name) } else { String::new() };
        let env = Self {
            verb,
            container_id: used("CNI_CONTAINERID"),
            netns: if verb == Verb::Del {
                var("CNI_NETNS")
            } else {
                used("CNI_NETNS")
            },
            if_name: used("CNI_IFNAME"),
            args: if needs("CNI_CONTAINERID") {
                var("CNI_ARGS")
            } else {
                String::new()
            },
            netns_override: matches!(
                var("CNI_NETNS_OVERRIDE").to_ascii_lowercase().as_str(),
                "1" | "true"
            ),
        };
        if needs("CNI_CONTAINERID") {
            check_container_id(&env.container_id)?;
            check_if_name(&env.if_name)?;
        }
        Ok(env)
    }
}

fn check_container_id(id: &str) -> Result<(), EnvError> {
    if is_identifier(id) {
        Ok(())
    } else {
        Err(EnvError::ContainerId { found: id.to_owned() })
    }
}

/// `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`, the specification's rule for container ids and network names.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The kernel's `dev_valid_name`: shorter than IFNAMSIZ (16), not `.` or `..`, no `/`, `:` or blank.
fn check_if_name(name: &str) -> Result<(), EnvError> {
    const LONGEST: usize = 15;
    let why = if name.len() > LONGEST {
        "longer than 15 characters"
    } else if matches!(name, "." | "..") {
        "neither . nor .. may be one"
    } else if name.chars().any(|c| matches!(c, '/' | ':') || c.is_whitespace()) {
        "it contains '/', ':' or a blank"
    } else {
        return Ok(());
    };
    Err(EnvError::IfName {
        found: name.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Env, EnvError> {
        Env::read(|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    const FULL: [(&str, &str); 6] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "0a.b_c-d"),
        ("CNI_NETNS", "/var/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", "K8S_POD_NAME=p"),
    ];

    fn full_with(name: &str, value: &str) -> Result<Env, EnvError> {
        let mut vars = FULL.to_vec();
        vars.retain(|(n, _)| *n != name);
        vars.push((name, value));
        read(&vars)
    }

    #[test]
    fn a_whole_environment_is_read() {
        let env = read(&FULL).unwrap();
        assert_eq!(env.verb, Verb::Add);
        assert_eq!(env.container_id, "0a.b_c-d");
        assert_eq!(env.netns, "/var/run/netns/x");
        assert_eq!(env.if_name, "eth0");
        assert_eq!(env.args, "K8S_POD_NAME=p");
        assert!(!env.netns_override);
        assert!(full_with("CNI_NETNS_OVERRIDE", "True").unwrap().netns_override);
    }

    #[test]
    fn each_verb_names_all_that_it_lacks() {
        let missing = |verb: &str| match read(&[("CNI_COMMAND", verb)]) {
            Err(EnvError::Missing { names, .. }) => names,
            other => panic!("{verb}: {other:?}"),
        };
        let whole = vec!["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
        assert_eq!(missing("ADD"), whole);
        assert_eq!(missing("CHECK"), whole);
        assert_eq!(missing("DEL"), vec!["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]);
        assert_eq!(missing("GC"), vec!["CNI_PATH"]);
        assert_eq!(missing("STATUS"), vec!["CNI_PATH"]);
        assert!(read(&[("CNI_COMMAND", "VERSION")]).is_ok());
    }

    #[test]
    fn del_works_without_a_namespace_and_takes_one() {
        let mut vars = FULL.to_vec();
        vars[0].1 = "DEL";
        assert_eq!(read(&vars).unwrap().netns, "/var/run/netns/x");
        vars.retain(|(n, _)| *n != "CNI_NETNS");
        assert_eq!(read(&vars).unwrap().netns, "");
    }

    #[test]
    fn container_ids_by_the_specifications_pattern() {
        for bad in ["-a", ".a", "_a", "a/b", "a b", "a\n", "ä"] {
            assert!(
                matches!(
                    full_with("CNI_CONTAINERID", bad),
                    Err(EnvError::ContainerId { .. })
                ),
                "{bad:?}"
            );
        }
        assert!(full_with("CNI_CONTAINERID", &"f".repeat(64)).is_ok());
    }

    #[test]
    fn interface_names_by_the_kernels_rule() {
        for bad in [
            "0123456789abcdef",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\u{a0}b",
        ] {
            assert!(
                matches!(full_with("CNI_IFNAME", bad), Err(EnvError::IfName { .. })),
                "{bad:?}"
            );
        }
        assert!(full_with("CNI_IFNAME", "0123456789abcde").is_ok());
    }

    #[test]
    fn an_unknown_verb_is_named() {
        let error = read(&[("CNI_COMMAND", "add")]).unwrap_err();
        assert!(error.to_string().contains("\"add\""));
    }
}
