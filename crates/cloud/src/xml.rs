//! EC2's XML: lists wrapped in `<item>`, values as text, elements that come and go.
//!
//! What is known is read strictly (a number written as a word is an error that shows the word), what is unknown is skipped.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

/// `<set><item>…</item><item>…</item></set>`
#[derive(Deserialize)]
struct Items<T> {
    #[serde(default = "Vec::new")]
    item: Vec<T>,
}

/// Reads a set of items; for `#[serde(default, deserialize_with = …)]`.
pub(crate) fn items<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Items::deserialize(from).map(|items| items.item)
}

/// Reads a value, `None` if the element is empty.
pub(crate) fn optional<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    let text = String::deserialize(from)?;
    match text.trim() {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|cause| D::Error::custom(format_args!("{:?} ({cause})", cut(text, 64)))),
    }
}

/// Reads a value that must be there.
pub(crate) fn value<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    optional(from)?.ok_or_else(|| D::Error::custom("an element is empty that must have a value"))
}

/// Reads a set in which each item wraps a single value, such as `<item><ipv4Prefix>10.0.0.0/28</ipv4Prefix></item>`, or is the value itself.
pub(crate) fn values<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    #[derive(Deserialize)]
    struct Wrapped {
        #[serde(
            alias = "privateIpAddress",
            alias = "ipv4Prefix",
            alias = "ipv6Address",
            alias = "ipv6Prefix",
            alias = "groupId",
            alias = "ipv6CidrBlock",
            rename = "$text"
        )]
        value: String,
    }
    let wrapped: Vec<Wrapped> = items(from)?;
    let parse = |text: &str| {
        text.trim()
            .parse()
            .map_err(|cause| D::Error::custom(format_args!("{:?} ({cause})", cut(text, 64))))
    };
    wrapped.iter().map(|w| parse(&w.value)).collect()
}

/// The first `most` characters of a text.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    text.char_indices()
        .nth(most)
        .map_or(text, |(at, _)| text.get(..at).unwrap_or_default())
}

/// Parses a whole document. The error names what did not fit.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8".to_owned())?;
    // AWS sends none, entities come from it, and quick-xml before 0.42 panics on one between two texts.
    if text.contains("<!DOCTYPE") || text.contains("<!doctype") {
        return Err("it has a document type declaration, which no AWS API sends".to_owned());
    }
    quick_xml::de::from_str(text).map_err(|error| error.to_string())
}

/// Parses the answer of an action: a document whose outermost element is `<ActionResponse>`, whole.
///
/// Every element within being optional, a log-in page of some proxy would else read as an answer that lists nothing.
pub(crate) fn parse_answer<T: DeserializeOwned>(action: &str, body: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body)
        .map_err(|_| "it is not UTF-8".to_owned())?
        .trim();
    let mut start = text.strip_prefix('\u{feff}').unwrap_or(text);
    while start.starts_with("<?") || start.starts_with("<!--") {
        let end = if start.starts_with("<?") { "?>" } else { "-->" };
        start = start.split_once(end).map_or("", |(_, rest)| rest.trim_start());
    }
    let inside = start
        .strip_prefix('<')
        .and_then(|s| s.strip_prefix(action))
        .and_then(|s| s.strip_prefix("Response"));
    let Some(inside) = inside.filter(|s| s.starts_with(|c: char| c == '>' || c == '/' || c.is_whitespace()))
    else {
        return Err(format!("it is no {action}Response"));
    };
    let closing = text
        .strip_suffix('>')
        .map(str::trim_end)
        .and_then(|s| s.strip_suffix("Response"));
    let closed = closing
        .and_then(|s| s.strip_suffix(action))
        .is_some_and(|s| s.ends_with("</"));
    let empty = inside.find('>').is_some_and(|at| at + 1 == inside.len()) && inside.ends_with("/>");
    if !closed && !empty {
        return Err(format!("it ends before its {action}Response does"));
    }
    parse(text.as_bytes())
}

/// An error document: EC2's `<Response><Errors><Error>`, or the `<ErrorResponse><Error>` of STS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ErrorDocument {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) request_id: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Errors", default)]
    errors: Option<EnvelopeErrors>,
    #[serde(rename = "Error", default)]
    error: Option<EnvelopeError>,
    #[serde(rename = "RequestID", alias = "RequestId", default)]
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct EnvelopeErrors {
    #[serde(rename = "Error", default)]
    error: Vec<EnvelopeError>,
}

#[derive(Deserialize)]
struct EnvelopeError {
    #[serde(rename = "Code", default)]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

impl ErrorDocument {
    /// Reads an error document; `None` if `body` is none.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let envelope: Envelope = parse(body).ok()?;
        let error = envelope
            .errors
            .and_then(|e| e.error.into_iter().next())
            .or(envelope.error)?;
        if error.code.is_empty() {
            return None;
        }
        let message = cut(error.message.trim(), 1024).to_owned();
        Some(Self {
            code: error.code.trim().to_owned(),
            message,
            request_id: envelope.request_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(rename_all = "camelCase")]
    struct Sample {
        #[serde(deserialize_with = "value")]
        index: u32,
        #[serde(default, deserialize_with = "optional")]
        address: Option<Ipv4Addr>,
        #[serde(default, deserialize_with = "values")]
        addresses: Vec<Ipv4Addr>,
    }

    #[test]
    fn missing_empty_and_unknown_elements_are_fine() {
        let minimal: Sample = parse(b"<x xmlns='u'><index> 3 </index></x>").unwrap();
        assert_eq!(
            minimal,
            Sample {
                index: 3,
                address: None,
                addresses: vec![]
            }
        );
        let empty: Sample = parse(
            b"<?xml version=\"1.0\"?>\n<x><index>3</index><new><deep a='1'/></new><address/><addresses/></x>",
        )
        .unwrap();
        assert_eq!(empty, minimal);
    }

    #[test]
    fn items_may_wrap_their_value_or_be_it() {
        let text = "<x><index>3</index><addresses><item>10.0.0.1</item>\n <item><privateIpAddress>10.0.0.2</privateIpAddress><primary>true</primary></item></addresses></x>";
        let sample: Sample = parse(text.as_bytes()).unwrap();
        assert_eq!(
            sample.addresses,
            [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
        );
    }

    #[test]
    fn a_number_as_a_word_is_an_error_that_shows_the_word() {
        let error = parse::<Sample>(b"<x><index>three</index></x>").unwrap_err();
        assert!(error.contains("three"), "{error}");
        let error = parse::<Sample>(b"<x><index>3</index><address>10.0.0.300</address></x>").unwrap_err();
        assert!(error.contains("10.0.0.300"), "{error}");
        assert!(parse::<Sample>(b"<x><index/></x>").unwrap_err().contains("empty"));
    }

    #[test]
    fn a_document_type_is_refused() {
        let error = parse::<Sample>(b"<x><index>1<!DOCTYPE x [<!ENTITY a 'b'>]>2</index></x>").unwrap_err();
        assert!(error.contains("document type"), "{error}");
    }

    #[test]
    fn truncated_documents_and_html_are_errors() {
        for bad in [
            "",
            "<x><index>3</index>",
            "<x><ind",
            "<html><body>Bad gateway</body></html>",
            "{}",
        ] {
            assert!(parse::<Sample>(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse::<Sample>(b"<x>\xff</x>").unwrap_err(), "it is not UTF-8");
    }

    #[derive(Deserialize, Debug)]
    struct Nothing {}

    #[test]
    fn an_answer_is_a_whole_document_of_its_action() {
        let read = |text: &str| parse_answer::<Nothing>("DescribeVpcs", text.as_bytes());
        for good in [
            "<DescribeVpcsResponse/>",
            "<DescribeVpcsResponse xmlns='x' />\n",
            "<DescribeVpcsResponse><vpcSet/></DescribeVpcsResponse>",
            "\u{feff}<?xml version='1.0'?>\n<!-- > -->\n<DescribeVpcsResponse xmlns='x'>\n</DescribeVpcsResponse >\n",
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good));
        }
        for bad in [
            "",
            "<?xml",
            "<html><body>It works!</body></html>",
            "<DescribeVpcsResponse>",
            "<DescribeVpcsResponse><vpcSet/>",
            "<DescribeVpcsResponse><vpcSet>",
            "<DescribeVpcsResponses/>",
            "<DescribeSubnetsResponse/>",
            "<Response><Errors/></Response>",
            "<DescribeVpcsResponse",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_forms_of_error_document_are_read() {
        let ec2 = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error></Errors><RequestID>r-1</RequestID></Response>";
        let read = ErrorDocument::parse(ec2).unwrap();
        assert_eq!(
            (read.code.as_str(), read.request_id.as_deref()),
            ("RequestLimitExceeded", Some("r-1"))
        );
        let sts = b"<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>No</Message></Error><RequestId>r-2</RequestId></ErrorResponse>";
        let read = ErrorDocument::parse(sts).unwrap();
        assert_eq!(
            (
                read.code.as_str(),
                read.message.as_str(),
                read.request_id.as_deref()
            ),
            ("AccessDenied", "No", Some("r-2"))
        );
        for none in [
            "",
            "<html/>",
            "<Response><Errors/></Response>",
            "<Response><Errors><Error/></Errors></Response>",
        ] {
            assert_eq!(ErrorDocument::parse(none.as_bytes()), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse::<Sample>(&body);
            let _ = parse_answer::<Sample>("x", &body);
            let _ = ErrorDocument::parse(&body);
        }

        #[test]
        fn no_xml_like_text_panics(pieces in prop::collection::vec(prop_oneof![
            Just("<x>"), Just("</x>"), Just("<index>"), Just("</index>"), Just("<addresses>"), Just("</addresses>"), Just("<item>"),
            Just("</item>"), Just("<item/>"), Just("3"), Just("&lt;"), Just("&#x0;"), Just("&bad;"), Just("<![CDATA[3]]>"), Just("<!-- -->"),
            Just("<?xml?>"), Just("<!DOCTYPE x [<!ENTITY a \"b\">]>"), Just("Errors"), Just("<Error>"), Just("\u{0}"), Just("10.0.0.1"),
        ], 0..30)) {
            let text = pieces.concat();
            let _ = parse::<Sample>(text.as_bytes());
            let _ = parse_answer::<Sample>("x", format!("<xResponse>{text}</xResponse>").as_bytes());
            let _ = ErrorDocument::parse(text.as_bytes());
        }
    }
}
