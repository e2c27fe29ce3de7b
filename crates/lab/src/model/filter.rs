//! Filters of Describe calls: property names as the EC2 API reference lists them, values with `*` and `?`.

use super::error::ApiError;
use super::request::{Describe, Filter, Tags};

/// Something a filter can look at.
pub(crate) trait Filtered {
    /// The values of a property; empty where the thing has none, `None` where EC2 knows no such filter.
    ///
    /// Tag filters (`tag:…`, `tag-key`) are answered by [`Filtered::tags`].
    fn property(&self, name: &str) -> Option<Vec<String>>;

    /// Its tags.
    fn tags(&self) -> &Tags;
}

/// Refuses filters that EC2 does not know for this kind of thing, also where there is nothing to filter.
pub(crate) fn check(query: &Describe, known: &[&str]) -> Result<(), ApiError> {
    for filter in &query.filters {
        let tag = filter.name == "tag-key"
            || filter
                .name
                .strip_prefix("tag:")
                .is_some_and(|key| !key.is_empty());
        if !tag && !known.contains(&filter.name.as_str()) {
            return Err(ApiError::invalid_value(format!(
                "The filter '{}' is invalid",
                filter.name
            )));
        }
        if filter.values.is_empty() {
            return Err(ApiError::invalid_value(format!(
                "The filter '{}' needs a value",
                filter.name
            )));
        }
    }
    Ok(())
}

/// Whether a thing passes all filters of a query.
pub(crate) fn passes(query: &Describe, thing: &impl Filtered) -> bool {
    query
        .filters
        .iter()
        .all(|filter| values_of(thing, filter).iter().any(|v| wanted(filter, v)))
}

fn values_of(thing: &impl Filtered, filter: &Filter) -> Vec<String> {
    if filter.name == "tag-key" {
        thing.tags().keys().cloned().collect()
    } else if let Some(key) = filter.name.strip_prefix("tag:") {
        thing.tags().get(key).cloned().into_iter().collect()
    } else {
        thing.property(&filter.name).unwrap_or_default()
    }
}

fn wanted(filter: &Filter, value: &str) -> bool {
    let text: Vec<char> = value.chars().collect();
    filter.values.iter().any(|pattern| {
        let pattern: Vec<char> = pattern.chars().collect();
        glob(&pattern, &text)
    })
}

/// Whether a text is as a pattern with `*` and `?` says.
pub(crate) fn glob_text(pattern: &str, text: &str) -> bool {
    if !pattern.contains(['*', '?', '\\']) {
        return pattern == text;
    }
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    glob(&pattern, &text)
}

/// `*` is any text, `?` one character, a backslash takes the next character as it is.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|n| text.get(n..).is_some_and(|t| glob(rest, t))),
        ['?', rest @ ..] => text.split_first().is_some_and(|(_, t)| glob(rest, t)),
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => text
            .split_first()
            .is_some_and(|(c, t)| c == literal && glob(rest, t)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        glob_text(pattern, text)
    }

    #[test]
    fn wildcards_match_as_ec2_documents_them() {
        assert!(matches("aws-K8S-*", "aws-K8S-i-1") && matches("*", "") && matches("a?c*", "abcd"));
        assert!(matches("a\\*c", "a*c") && !matches("a\\*c", "abc"));
        assert!(!matches("abc", "abcd") && !matches("a?", "a"));
    }

    #[test]
    fn an_unknown_filter_or_one_without_values_is_refused() {
        assert!(check(&Describe::all().filter("vpc-id", &["x"]), &["vpc-id"]).is_ok());
        assert!(check(&Describe::all().filter("tag:Name", &["x"]), &[]).is_ok());
        for bad in [
            Describe::all().filter("vpcid", &["x"]),
            Describe::all().filter("tag:", &["x"]),
            Describe::all().filter("vpc-id", &[]),
        ] {
            assert_eq!(
                check(&bad, &["vpc-id"]).unwrap_err().code,
                "InvalidParameterValue"
            );
        }
    }
}
