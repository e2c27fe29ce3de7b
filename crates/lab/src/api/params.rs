//! The parameters of a Query API call: flat names with numbers in them (`Filter.1.Value.2`) that spell out a tree.
//!
//! Each reader takes what it knows. What is left at the end was not understood, and EC2 refuses a call for one
//! unknown parameter; so does the lab.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use crate::model::{ApiError, Tags};

/// Parameters not yet taken, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Params {
    values: BTreeMap<String, String>,
    /// What the names begin with in the request, for messages.
    prefix: String,
}

impl Params {
    /// Reads a form or a query string.
    pub(crate) fn read(forms: &[&[u8]]) -> Self {
        let mut values = BTreeMap::new();
        for form in forms {
            let text = String::from_utf8_lossy(form);
            for pair in text.split('&').filter(|p| !p.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let text = |s| String::from_utf8_lossy(&decode(s)).into_owned();
                values.insert(text(name), text(value));
            }
        }
        Self {
            values,
            prefix: String::new(),
        }
    }

    /// Looks at one value.
    pub(crate) fn peek(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Takes one value.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// Takes one value that must be there.
    pub(crate) fn need(&mut self, name: &str) -> Result<String, ApiError> {
        self.take(name).ok_or_else(|| {
            let full = self.full(name);
            ApiError::missing(&lower_first(&full))
        })
    }

    /// Takes one value of a type of its own.
    pub(crate) fn parse<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: Display,
    {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| self.bad(name, &text))
    }

    /// Takes one count: 0 to 2147483647.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<u32>, ApiError> {
        let value: Option<i32> = self.parse(name)?;
        value
            .map(|v| u32::try_from(v).map_err(|_| self.bad(name, &v.to_string())))
            .transpose()
    }

    /// Takes one truth value.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true" | "True" | "1") => Ok(Some(true)),
            Some("false" | "False" | "0") => Ok(Some(false)),
            Some(other) => Err(self.bad(name, other)),
        }
    }

    /// Takes `name.1`, `name.2`, … in the order of their numbers.
    pub(crate) fn list(&mut self, name: &str) -> Vec<String> {
        let mut found: Vec<(u64, String)> = Vec::new();
        let start = format!("{name}.");
        let keys: Vec<String> = self
            .values
            .keys()
            .filter(|k| k.starts_with(&start))
            .cloned()
            .collect();
        for key in keys {
            let number = key.strip_prefix(&start).and_then(|n| n.parse().ok());
            if let Some(number) = number
                && let Some(value) = self.values.remove(&key)
            {
                found.push((number, value));
            }
        }
        found.sort();
        found.into_iter().map(|(_, v)| v).collect()
    }

    /// Takes a list whose items have a type of their own.
    pub(crate) fn parsed_list<T: FromStr>(&mut self, name: &str) -> Result<Vec<T>, ApiError> {
        self.list(name)
            .into_iter()
            .map(|text| text.parse().map_err(|_| self.bad(name, &text)))
            .collect()
    }

    /// Takes `name.1.…`, `name.2.…` as parameters of their own, in the order of their numbers.
    pub(crate) fn structures(&mut self, name: &str) -> Vec<Self> {
        let start = format!("{name}.");
        let mut found: BTreeMap<u64, Self> = BTreeMap::new();
        let keys: Vec<String> = self
            .values
            .keys()
            .filter(|k| k.starts_with(&start))
            .cloned()
            .collect();
        for key in keys {
            let parts = key.strip_prefix(&start).and_then(|rest| rest.split_once('.'));
            let Some((number, rest)) = parts.and_then(|(n, rest)| Some((n.parse().ok()?, rest.to_owned())))
            else {
                continue;
            };
            if let Some(value) = self.values.remove(&key) {
                let prefix = self.full(&format!("{name}.{number}."));
                let item = found.entry(number).or_insert_with(|| Self {
                    values: BTreeMap::new(),
                    prefix,
                });
                item.values.insert(rest, value);
            }
        }
        found.into_values().collect()
    }

    /// Takes `name.…` as parameters of their own; `None`: there are none.
    pub(crate) fn structure(&mut self, name: &str) -> Option<Self> {
        let start = format!("{name}.");
        let keys: Vec<String> = self
            .values
            .keys()
            .filter(|k| k.starts_with(&start))
            .cloned()
            .collect();
        let mut inner = Self {
            values: BTreeMap::new(),
            prefix: self.full(&start),
        };
        for key in keys {
            if let (Some(rest), Some(value)) = (key.strip_prefix(&start), self.values.get(&key)) {
                inner.values.insert(rest.to_owned(), value.clone());
            }
            self.values.remove(&key);
        }
        if inner.values.is_empty() {
            None
        } else {
            Some(inner)
        }
    }

    /// Takes `Tag.N.Key` and `Tag.N.Value`.
    pub(crate) fn tags(&mut self) -> Result<Tags, ApiError> {
        let mut tags = Tags::new();
        for mut tag in self.structures("Tag") {
            let key = tag.need("Key")?;
            if tags
                .insert(key.clone(), tag.take("Value").unwrap_or_default())
                .is_some()
            {
                return Err(ApiError::invalid_value(format!(
                    "Duplicate tag key '{key}' specified."
                )));
            }
            tag.finish()?;
        }
        Ok(tags)
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(&self) -> Result<(), ApiError> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::client(
                "UnknownParameter",
                format!("The parameter {} is not recognized", self.full(name)),
            )),
        }
    }

    /// The refusal of a value.
    pub(crate) fn bad(&self, name: &str, value: &str) -> ApiError {
        let full = self.full(name);
        ApiError::invalid_value(format!("Invalid value '{value}' for {}.", lower_first(&full)))
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// EC2 begins parameter names with a small letter in its messages.
fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// Undoes percent-encoding; `+` is a blank. A broken sequence stays as it is.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |b: Option<u8>| {
            b.and_then(|b| char::from(b).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        out.push(high * 16 + low);
                        bytes = ahead;
                    }
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_the_order_of_their_numbers() {
        let mut p = Params::read(&[b"Id.10=c&Id.2=b&Id.1=a&Name=x"]);
        assert_eq!(p.list("Id"), ["a", "b", "c"]);
        assert_eq!(p.take("Name").as_deref(), Some("x"));
        assert!(p.finish().is_ok());
    }

    #[test]
    fn structures_hold_their_own_parameters_and_name_them_in_full() {
        let mut p = Params::read(&[b"Filter.1.Name=vpc-id&Filter.1.Value.1=v&Filter.1.Odd=1"]);
        let mut filters = p.structures("Filter");
        assert_eq!(filters[0].take("Name").as_deref(), Some("vpc-id"));
        assert_eq!(filters[0].list("Value"), ["v"]);
        let error = filters[0].finish().unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("UnknownParameter", "The parameter Filter.1.Odd is not recognized")
        );
    }

    #[test]
    fn forms_are_decoded() {
        let mut p = Params::read(&[b"a=x%20y+z%2Fw", b"b=100%", b"c=%C3%A4"]);
        assert_eq!(p.take("a").as_deref(), Some("x y z/w"));
        assert_eq!(p.take("b").as_deref(), Some("100%"));
        assert_eq!(p.take("c").as_deref(), Some("ä"));
    }

    #[test]
    fn counts_are_whole_and_not_negative() {
        let mut p = Params::read(&[b"a=-1&b=1.5&c=7"]);
        assert!(p.count("a").is_err() && p.count("b").is_err());
        assert_eq!(p.count("c"), Ok(Some(7)));
    }
}
