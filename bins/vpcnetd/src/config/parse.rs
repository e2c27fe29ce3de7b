//! How single environment values are read. The rules are those of the AWS VPC CNI, so that a manifest means the same to
//! both: what cannot be read counts as not set, with a note for the log, and never ends the agent.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Where values come from: the process environment, or a table in a test.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Reads variables and collects what is to be said about them.
pub(super) struct Reader<'a> {
    lookup: &'a Lookup<'a>,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader over `lookup` with no notes yet.
    pub(super) fn new(lookup: &'a Lookup<'a>) -> Self {
        Self {
            lookup,
            notes: Vec::new(),
        }
    }

    /// What was found wrong so far, one sentence each.
    pub(super) fn into_notes(self) -> Vec<String> {
        self.notes
    }

    /// Adds a sentence for the log and the status.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// The value as it stands; `None` when unset or empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|v| !v.is_empty())
    }

    /// `1 t T TRUE true True` or `0 f F FALSE false False`; anything else is `default`.
    pub(super) fn bool(&mut self, name: &str, default: bool) -> bool {
        let Some(value) = self.text(name) else {
            return default;
        };
        match value.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => {
                self.note(format!(
                    "{name}={value:?} is neither true nor false: {default} is used"
                ));
                default
            }
        }
    }

    /// A decimal number with optional sign and no blanks; `None` when unset or not a number.
    pub(super) fn int(&mut self, name: &str) -> Option<i64> {
        let value = self.text(name)?;
        match value.parse::<i64>() {
            Ok(n) => Some(n),
            Err(_) => {
                self.note(format!("{name}={value:?} is not a whole number: ignored"));
                None
            }
        }
    }

    /// A number within `low..=high`; `None`, with a note, when it is outside.
    pub(super) fn int_within(&mut self, name: &str, low: u32, high: u32) -> Option<u32> {
        let n = self.int(name)?;
        match u32::try_from(n) {
            Ok(n) if (low..=high).contains(&n) => Some(n),
            _ => {
                self.note(format!("{name}={n} is outside {low}..{high}: ignored"));
                None
            }
        }
    }

    /// A comma list of IPv4 CIDRs, each brought to its network address; what is not one is dropped with a note.
    pub(super) fn cidrs(&mut self, name: &str) -> Vec<Ipv4Net> {
        let Some(value) = self.text(name) else {
            return Vec::new();
        };
        let mut found: Vec<Ipv4Net> = Vec::new();
        for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match item.parse::<Ipv4Net>() {
                Ok(net) if !found.contains(&net.trunc()) => found.push(net.trunc()),
                Ok(_) => {}
                Err(_) => self.note(format!("{name}: {item:?} is not an IPv4 CIDR: skipped")),
            }
        }
        found
    }

    /// A number written with its base as C does it: `0x80`, `0o200`, `0200`, `0b1`, `128`; within 1..2³²−1.
    pub(super) fn mark(&mut self, name: &str, default: u32) -> u32 {
        let Some(value) = self.text(name) else {
            return default;
        };
        match parse_based(&value)
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n > 0)
        {
            Some(n) => n,
            None => {
                self.note(format!(
                    "{name}={value:?} is not a mark between 1 and 0xffffffff: {default:#x} is used"
                ));
                default
            }
        }
    }
}

/// Number literal with the base in front, as Go's `ParseInt` with base 0 reads it.
fn parse_based(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    for (prefix, base) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return u64::from_str_radix(digits, base).ok();
        }
    }
    match lower.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => u64::from_str_radix(digits, 8).ok(),
        _ => lower.parse().ok(),
    }
}

/// Where the introspection server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bind {
    /// A TCP address.
    Tcp(std::net::SocketAddr),
    /// A unix socket.
    Unix(std::path::PathBuf),
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `127.0.0.1:61679`, `:61679` (all interfaces) or `unix:/path`.
pub(super) fn parse_bind(text: &str) -> Option<Bind> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path
            .strip_prefix("//")
            .filter(|p| p.starts_with('/'))
            .unwrap_or(path);
        return (!path.is_empty()).then(|| Bind::Unix(path.into()));
    }
    if let Some(port) = text.strip_prefix(':') {
        return port
            .parse()
            .ok()
            .map(|port| Bind::Tcp((Ipv4Addr::UNSPECIFIED, port).into()));
    }
    let text = text
        .strip_prefix("localhost:")
        .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().ok().map(Bind::Tcp)
}
