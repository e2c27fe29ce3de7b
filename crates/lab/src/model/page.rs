//! Answers in pages.

use super::error::ApiError;
use super::request::Describe;
use super::response::Page;

/// What a Describe call allows for `MaxResults` (EC2 API reference of each).
#[derive(Clone, Copy)]
pub(crate) struct PageSize {
    pub(crate) least: u32,
    pub(crate) most: u32,
}

pub(crate) const USUAL: PageSize = PageSize { least: 5, most: 1000 };

impl PageSize {
    /// Refuses a page size out of range, or one beside ids: EC2 does not page a list the caller wrote.
    pub(crate) fn check(self, query: &Describe, ids_parameter: &str) -> Result<(), ApiError> {
        let Some(size) = query.max_results else {
            return Ok(());
        };
        if !query.ids.is_empty() {
            return Err(ApiError::combination(format!(
                "The parameter {ids_parameter} cannot be used with the parameter maxResults"
            )));
        }
        if size < self.least {
            return Err(ApiError::invalid_value(format!(
                "Value ( {size} ) for parameter maxResults is invalid. Expecting a value greater than {}.",
                self.least - 1
            )));
        }
        if size > self.most {
            return Err(ApiError::invalid_value(format!(
                "Value ( {size} ) for parameter maxResults is invalid. Expecting a value less than or equal to {}.",
                self.most
            )));
        }
        Ok(())
    }

    /// Cuts the page that was asked for out of all results, which come in the order of `key`.
    ///
    /// The token names the last result shown, so results that come and go between two pages neither repeat nor hide others.
    pub(crate) fn cut<T>(
        self,
        query: &Describe,
        action: &str,
        all: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> Result<Page<T>, ApiError> {
        let after = query
            .next_token
            .as_deref()
            .map(|t| read_token(action, t))
            .transpose()?;
        let size = usize::try_from(query.max_results.unwrap_or(self.most)).unwrap_or(usize::MAX);
        let mut rest = all
            .into_iter()
            .filter(|item| after.as_ref().is_none_or(|a| key(item) > *a));
        let items: Vec<T> = rest.by_ref().take(size).collect();
        let more = rest.next().is_some();
        let next_token = items
            .last()
            .filter(|_| more)
            .map(|last| write_token(action, &key(last)));
        Ok(Page { items, next_token })
    }
}

fn write_token(action: &str, last: &str) -> String {
    format!("{action}/{last}")
        .bytes()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn read_token(action: &str, token: &str) -> Result<String, ApiError> {
    let bad = || {
        ApiError::client(
            "InvalidPaginationToken",
            "The specified pagination token is not valid or is expired.",
        )
    };
    let mut text = String::new();
    let mut digits = token.chars();
    while let Some(high) = digits.next() {
        let low = digits.next().ok_or_else(bad)?;
        let (high, low) = (
            high.to_digit(16).ok_or_else(bad)?,
            low.to_digit(16).ok_or_else(bad)?,
        );
        text.push(char::from_u32(high * 16 + low).ok_or_else(bad)?);
    }
    let last = text
        .strip_prefix(action)
        .and_then(|t| t.strip_prefix('/'))
        .ok_or_else(bad)?;
    Ok(last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(all: &[u32], size: u32, token: Option<String>) -> Page<u32> {
        let query = Describe {
            max_results: Some(size),
            next_token: token,
            ..Describe::default()
        };
        USUAL
            .cut(&query, "DescribeThings", all.to_vec(), |n| format!("{n:03}"))
            .unwrap()
    }

    #[test]
    fn pages_together_are_the_whole_and_the_last_has_no_token() {
        let all: Vec<u32> = (0..12).collect();
        let (mut seen, mut token, mut pages) = (Vec::new(), None, 0);
        loop {
            let p = page(&all, 5, token);
            seen.extend(p.items);
            pages += 1;
            token = p.next_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!((seen, pages), (all, 3));
    }

    #[test]
    fn a_result_that_went_meanwhile_does_not_shift_the_next_page() {
        let all: Vec<u32> = (0..10).collect();
        let first = page(&all, 5, None);
        let second = page(&all[3..], 5, first.next_token);
        assert_eq!(second.items, [5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_token_of_another_call_is_refused() {
        for token in ["", "zz", "4", "ff", &write_token("DescribeOthers", "1")] {
            assert!(read_token("DescribeThings", token).is_err(), "{token}");
        }
    }
}
