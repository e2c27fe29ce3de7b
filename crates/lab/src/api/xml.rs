//! Writing XML as EC2 does: elements and text, no attributes but the name space of the root.

use std::fmt::{Display, Write};

/// The name space of every answer.
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// A document under way.
#[derive(Default)]
pub(crate) struct Xml {
    text: String,
}

impl Xml {
    /// The answer of an action, with its request id.
    pub(crate) fn answer(action: &str, request_id: &str, body: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self {
            text: String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"),
        };
        // Writing to a string cannot fail.
        let _ = write!(xml.text, "<{action}Response xmlns=\"{NAMESPACE}\">");
        xml.leaf("requestId", request_id);
        body(&mut xml);
        let _ = write!(xml.text, "</{action}Response>");
        xml.text
    }

    /// The answer to a call that was refused.
    pub(crate) fn refusal(code: &str, message: &str, request_id: &str) -> String {
        let mut xml = Self {
            text: String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"),
        };
        xml.element("Response", |x| {
            x.element("Errors", |x| {
                x.element("Error", |x| {
                    x.leaf("Code", code);
                    x.leaf("Message", message);
                });
            });
            x.leaf("RequestID", request_id);
        });
        xml.text
    }

    /// An element with others in it.
    pub(crate) fn element(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        let _ = write!(self.text, "<{name}>");
        inner(self);
        let _ = write!(self.text, "</{name}>");
    }

    /// An element with text in it.
    pub(crate) fn leaf(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        let _ = write!(
            self.text,
            "<{name}>{}</{name}>",
            quick_xml::escape::escape(value.as_str())
        );
    }

    /// An element with text in it, where there is a value.
    pub(crate) fn leaf_if(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.leaf(name, value);
        }
    }

    /// A list: an `item` for each.
    pub(crate) fn items<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        each: impl Fn(&mut Self, T),
    ) {
        self.element(name, |x| {
            for item in items {
                x.element("item", |x| each(x, item));
            }
        });
    }

    /// A list whose items are the values themselves.
    pub(crate) fn values<T: Display>(&mut self, name: &str, values: &[T]) {
        self.element(name, |x| values.iter().for_each(|value| x.leaf("item", value)));
    }

    /// A set of tags.
    pub(crate) fn tags(&mut self, tags: &crate::model::Tags) {
        self.items("tagSet", tags, |x, (key, value)| {
            x.leaf("key", key);
            x.leaf("value", value);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_the_root_names_the_action() {
        let text = Xml::answer("CreateTags", "id", |x| x.leaf("a", "<&>\"'"));
        assert!(text.contains("<a>&lt;&amp;&gt;&quot;&apos;</a>"), "{text}");
        assert!(text.contains("<CreateTagsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">"));
        assert!(text.ends_with("</CreateTagsResponse>"));
    }
}
