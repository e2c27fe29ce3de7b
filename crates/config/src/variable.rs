//! What there is to say about one variable. An entry is the only place that says it: reading, `docs/configuration.md` and
//! `vpcnet config check` all use it.

use std::fmt;

/// One environment variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variable {
    /// Its name, as the AWS VPC CNI spells it.
    pub name: &'static str,
    /// Where it stands in the documentation.
    pub group: Group,
    /// What may stand in it.
    pub kind: Kind,
    /// What holds when it is not set, as one would write it; empty: nothing.
    pub default: &'static str,
    /// What it does.
    pub text: &'static str,
    /// What a value does that is none.
    pub invalid: Invalid,
    /// What the AWS VPC CNI does differently; empty: nothing.
    pub original: &'static str,
}

/// Chapters of the documentation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Group {
    /// How many addresses and interfaces.
    Pool,
    /// Which kind of addresses, and from which interfaces and subnets.
    Interfaces,
    /// Routing, SNAT, marks, MTU.
    Host,
    /// Log, servers, files.
    Process,
    /// The API server, and what is told to other agents.
    Kubernetes,
    /// How EC2 and IMDS are reached.
    Cloud,
    /// The plugins' configuration file and the node's preparation.
    Install,
    /// Read by the EC2 client under the AWS SDKs' names.
    Credentials,
    /// Without effect.
    Retired,
}

impl Group {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Pool,
        Self::Interfaces,
        Self::Host,
        Self::Process,
        Self::Kubernetes,
        Self::Cloud,
        Self::Install,
        Self::Credentials,
        Self::Retired,
    ];

    /// The chapter's title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Pool => "Pool: how many addresses and interfaces",
            Self::Interfaces => "Kind of addresses, interfaces and subnets",
            Self::Host => "Host network",
            Self::Process => "Log, servers and files",
            Self::Kubernetes => "Kubernetes",
            Self::Cloud => "EC2 and IMDS",
            Self::Install => "Plugins' configuration file and the node's preparation",
            Self::Credentials => "Read by the EC2 client, as the AWS SDKs do",
            Self::Retired => "Without effect",
        }
    }
}

/// What may stand in a variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `1 t T TRUE true True` or `0 f F FALSE false False`.
    Bool,
    /// A decimal whole number within the bounds; an optional sign, no blanks.
    Number {
        /// Least.
        low: u32,
        /// Greatest.
        high: u32,
    },
    /// As [`Kind::Number`] from 0, where 0 means "not set".
    NumberOrNone,
    /// A whole number of seconds.
    Seconds {
        /// Least.
        low: u32,
    },
    /// A whole number of bytes from 576 (1280 with IPv6) to 9001.
    Mtu,
    /// One of these.
    Choice(&'static [&'static str]),
    /// One of these, in any case.
    ChoiceAnyCase(&'static [&'static str]),
    /// Any text.
    Text,
    /// A path.
    Path,
    /// A path, `stdout` or `stderr`.
    LogFile,
    /// A path or `stderr`: the plugins' stdout belongs to the container runtime.
    PluginLogFile,
    /// Comma list of IPv4 CIDRs.
    Cidrs,
    /// A JSON object of strings.
    Tags,
    /// A mark: base as in C, 1..2³²−1.
    Mark,
    /// The first letters of interface names.
    Prefix,
    /// `host:port`, `:port` or `unix:/path`.
    Bind,
    /// `http://host:port` or `https://host`.
    Url,
    /// Lower-case letters, digits and dashes.
    Region,
    /// Read elsewhere; any text.
    HandedOn,
    /// Read elsewhere, and never shown.
    Secret,
    /// Not read.
    Nothing,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Number { low, high: u32::MAX } => write!(f, "a whole number from {low}"),
            Self::Number { low, high } => write!(f, "a whole number from {low} to {high}"),
            Self::NumberOrNone => f.write_str("a whole number from 0 (0: not set)"),
            Self::Seconds { low } => write!(f, "a whole number of seconds from {low}"),
            Self::Mtu => f.write_str("a whole number of bytes from 576 (1280 with IPv6) to 9001"),
            Self::Choice(words) => f.write_str(&either(words)),
            Self::ChoiceAnyCase(words) => write!(f, "{}, in any case", either(words)),
            Self::Text | Self::HandedOn => f.write_str("text"),
            Self::Path => f.write_str("a path"),
            Self::LogFile => f.write_str("a path, stdout or stderr"),
            Self::PluginLogFile => f.write_str("a path or stderr (stdout carries the plugin's answer)"),
            Self::Cidrs => f.write_str("IPv4 CIDRs with commas between"),
            Self::Tags => f.write_str("a JSON object of strings"),
            Self::Mark => f.write_str("a number from 1 to 0xffffffff: decimal, 0x, 0o or 0b"),
            Self::Prefix => {
                f.write_str("1 to 4 letters, digits, '-', '_' or '.', and none of eth, vlan, lo, '.', '..'")
            }
            Self::Bind => f.write_str("host:port, :port (all addresses) or unix:/path"),
            Self::Url => f.write_str("http://host:port or https://host, without user and query"),
            Self::Region => f.write_str("a region's name: lower-case letters, digits and dashes"),
            Self::Secret => f.write_str("text (never shown)"),
            Self::Nothing => f.write_str("anything"),
        }
    }
}

/// `a, b or c`.
fn either(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// What a value does that is not of the variable's kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// As if it were not set, and that is said.
    AsUnset,
    /// Items that are none are left out, and that is said.
    Skipped,
    /// The agent does not start.
    Refused,
    /// The agent does not start if this other variable is true; else as if it were not set.
    RefusedWith(&'static str),
    /// There is no invalid value.
    Never,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsUnset => f.write_str("as if not set, with a note"),
            Self::Skipped => f.write_str("what is wrong is left out, with a note"),
            Self::Refused => f.write_str("the agent does not start"),
            Self::RefusedWith(other) => {
                write!(
                    f,
                    "the agent does not start if `{other}` is true; else as if not set, with a note"
                )
            }
            Self::Never => f.write_str("none is"),
        }
    }
}

impl Variable {
    /// The name of its test in `crates/config/tests/variables/`: the variable's, in lower case.
    #[must_use]
    pub fn test(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// Its value may not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }
}
