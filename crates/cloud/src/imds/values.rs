//! The forms that IMDS's values have, for fuzzing: the readers themselves are beside what they are for.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::ImdsError;
use super::facts::{groups, plain_word};
use super::interface::{is_mac, parse_list, parse_one};

/// Reads a value; gives what was read, as words.
type Reader = fn(&str) -> Result<Vec<String>, ImdsError>;

/// The forms, by name.
pub(crate) const FORMS: [(&str, Reader); 8] = [
    ("word", |text| {
        plain_word("word", text).map(|()| vec![text.to_owned()])
    }),
    ("security-groups", |text| groups("security-groups", text)),
    ("number", |text| {
        parse_one::<u32>("number", text).map(|n| vec![n.to_string()])
    }),
    ("ipv4s", |text| words(parse_list::<Ipv4Addr>("ipv4s", text))),
    ("ipv6s", |text| words(parse_list::<Ipv6Addr>("ipv6s", text))),
    ("ipv4-cidrs", |text| {
        words(parse_list::<Ipv4Net>("ipv4-cidrs", text))
    }),
    ("ipv6-cidrs", |text| {
        words(parse_list::<Ipv6Net>("ipv6-cidrs", text))
    }),
    ("macs", |text| {
        let all: Vec<String> = text
            .split_whitespace()
            .map(|m| m.trim_end_matches('/').to_ascii_lowercase())
            .collect();
        match all.iter().find(|m| !is_mac(m)) {
            None => Ok(all),
            Some(_) => Err(ImdsError::Malformed {
                path: "macs".to_owned(),
                reason: "one of its entries is no MAC address".to_owned(),
            }),
        }
    }),
];

fn words<T: ToString>(list: Result<Vec<T>, ImdsError>) -> Result<Vec<String>, ImdsError> {
    list.map(|all| all.iter().map(ToString::to_string).collect())
}
