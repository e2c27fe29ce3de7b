//! How single values are read. The rules are those of the AWS VPC CNI, which is written in Go: its spellings of numbers and
//! booleans are meant.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

/// `1 t T TRUE true True` or `0 f F FALSE false False`.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A decimal number with optional sign and no blanks, within the bounds.
pub(crate) fn number(text: &str, low: u32, high: u32) -> Option<u32> {
    let n = text.parse::<i64>().ok()?;
    u32::try_from(n).ok().filter(|n| (low..=high).contains(n))
}

/// Number literal with the base in front, as Go's `ParseInt` with base 0 reads it: `0x80`, `0o200`, `0200`, `0b1`, `128`;
/// within 1..2³²−1.
pub(crate) fn mark(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let based = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, base)| Some((lower.strip_prefix(prefix)?, base)));
    let (digits, base) = match (based, lower.strip_prefix('0')) {
        (Some(found), _) => found,
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        (None, _) => (lower.as_str(), 10),
    };
    u32::from_str_radix(digits, base).ok().filter(|n| *n > 0)
}

/// A comma list of IPv4 CIDRs, each brought to its network address, and the items that are none.
pub(crate) fn cidrs(text: &str) -> (Vec<Ipv4Net>, Vec<String>) {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match item.parse::<Ipv4Net>() {
            Ok(net) if found.contains(&net.trunc()) => {}
            Ok(net) => found.push(net.trunc()),
            Err(_) => wrong.push(item.to_owned()),
        }
    }
    (found, wrong)
}

/// EC2 allows 50 tags on an interface; the agent's own are four.
const MOST_TAGS: usize = 46;
/// Longest key and value EC2 allows, in characters.
const LONGEST: (usize, usize) = (128, 256);

/// Tags from a JSON object of strings, and the keys left out with the reason. `None`: it is no such object.
#[allow(
    clippy::type_complexity,
    reason = "a name for a pair used once says less than the pair"
)]
pub(crate) fn tags(text: &str) -> Option<(BTreeMap<String, String>, Vec<(String, &'static str)>)> {
    let all: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
    let (mut kept, mut dropped) = (BTreeMap::new(), Vec::new());
    for (key, value) in all {
        let wrong = if key.contains("k8s.amazonaws.com") {
            Some("keys with k8s.amazonaws.com are the agent's own")
        } else if key.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("aws:")) {
            Some("keys that begin with aws: are AWS's own")
        } else if key.is_empty() || key.chars().count() > LONGEST.0 {
            Some("a key has 1 to 128 characters")
        } else if value.chars().count() > LONGEST.1 {
            Some("a value has at most 256 characters")
        } else if kept.len() == MOST_TAGS {
            Some("an interface has room for 46 beside the agent's four")
        } else {
            None
        };
        match wrong {
            Some(reason) => dropped.push((key, reason)),
            None => {
                kept.insert(key, value);
            }
        }
    }
    Some((kept, dropped))
}

/// A prefix of interface names. It becomes part of file names in `/proc` and of patterns in nftables, so not all that the kernel
/// takes will do; with the 11 characters of the hash it has to fit into 15; and three names are the node's own.
pub(crate) fn prefix(text: &str) -> Option<String> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let taken = ["eth", "vlan", "lo", ".", ".."].contains(&text);
    (plain && !taken && (1..=4).contains(&text.len())).then(|| text.to_owned())
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bind {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
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
pub(crate) fn bind(text: &str) -> Option<Bind> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path
            .strip_prefix("//")
            .filter(|p| p.starts_with('/'))
            .unwrap_or(path);
        return (!path.is_empty()).then(|| Bind::Unix(path.into()));
    }
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().ok()?;
        return Some(Bind::Tcp((Ipv4Addr::UNSPECIFIED, port).into()));
    }
    let text = text
        .strip_prefix("localhost:")
        .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().ok().map(Bind::Tcp)
}

/// An endpoint: `http://host:port` or `https://host`, a path below it allowed; no user, no query, nothing unprintable. What calls it
/// judges more closely; this is to tell what cannot be one.
pub(crate) fn url(text: &str) -> Option<String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://")?;
    let http = ["http", "https"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
    let plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['?', '#', '"', '<', '>', '\\']);
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address are within its brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_fits = if host.starts_with('[') {
        host.strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok())
    } else {
        !host.is_empty() && !host.contains(['@', ':', '[', ']'])
    };
    let port_fits = port.is_none_or(|p| p.parse::<u16>().is_ok());
    (http && plain && host_fits && port_fits).then(|| text.to_owned())
}

/// A region's name. It becomes part of a host name that is sent signatures.
pub(crate) fn region(text: &str) -> Option<String> {
    let plain = text.len() <= 40
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (plain && !text.is_empty()).then(|| text.to_owned())
}
