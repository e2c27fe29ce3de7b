//! The body of a Query API request: `Action=…&Version=…&Name=value…`.

use std::fmt::{Display, Write};

use crate::Ec2Action;
use crate::percent::encode_into;

/// The API version of every shape in this crate.
const VERSION: &str = "2016-11-15";

/// A filter of a Describe call: the name, and the values of which one must match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// `vpc-id`, `tag:NAME`, `tag-key`…
    pub name: String,
    /// Alternatives; `*` and `?` are wildcards.
    pub values: Vec<String>,
}

impl Filter {
    /// A filter with one value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            values: vec![value.into()],
        }
    }
}

/// A form being written.
#[derive(Clone)]
pub(crate) struct Form {
    text: String,
}

impl Form {
    pub(crate) fn new(action: Ec2Action) -> Self {
        let mut form = Self {
            text: String::with_capacity(256),
        };
        form.put("Action", action.name());
        form.put("Version", VERSION);
        form
    }

    pub(crate) fn put(&mut self, name: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push('&');
        }
        encode_into(&mut self.text, name, false);
        self.text.push('=');
        encode_into(&mut self.text, value, false);
    }

    pub(crate) fn number(&mut self, name: &str, value: impl Display) {
        let mut text = String::new();
        let _ = write!(text, "{value}");
        self.put(name, &text);
    }

    pub(crate) fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    /// `name.1=…&name.2=…`
    pub(crate) fn list<T: Display>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        for (at, value) in values.into_iter().enumerate() {
            self.number(&format!("{name}.{}", at + 1), value);
        }
    }

    pub(crate) fn filters(&mut self, filters: &[Filter]) {
        for (at, filter) in filters.iter().enumerate() {
            let at = at + 1;
            self.put(&format!("Filter.{at}.Name"), &filter.name);
            self.list(&format!("Filter.{at}.Value"), &filter.values);
        }
    }

    pub(crate) fn into_body(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_names_action_and_version_and_counts_from_one() {
        let mut form = Form::new(Ec2Action::DescribeSubnets);
        form.list("SubnetId", ["subnet-1", "subnet-2"]);
        form.filters(&[Filter {
            name: "tag:a b".to_owned(),
            values: vec!["x&y".to_owned(), "z".to_owned()],
        }]);
        form.optional("MaxResults", Some(5));
        form.optional("NextToken", None::<&str>);
        assert_eq!(
            form.into_body(),
            "Action=DescribeSubnets&Version=2016-11-15&SubnetId.1=subnet-1&SubnetId.2=subnet-2\
             &Filter.1.Name=tag%3Aa%20b&Filter.1.Value.1=x%26y&Filter.1.Value.2=z&MaxResults=5"
        );
    }

    proptest! {
        /// Whatever a value holds, it cannot become a second parameter.
        #[test]
        fn a_value_cannot_break_out(name in "[A-Za-z.]{1,20}", value in any::<String>()) {
            let mut form = Form::new(Ec2Action::CreateTags);
            form.put(&name, &value);
            let body = form.into_body();
            prop_assert_eq!(body.matches('&').count(), 2);
            prop_assert_eq!(body.matches('=').count(), 3);
            prop_assert!(body.is_ascii());
        }
    }
}
