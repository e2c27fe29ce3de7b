//! EC2's answers, as a proxy, a truncated connection or a newer API version may deliver them.

use vpcnet_cloud::fuzzing::{EC2_ACTIONS, ec2_answer, ec2_error};

use crate::Target;

pub(crate) const EC2_XML: Target = Target {
    name: "ec2_xml",
    check,
    words: &[
        "<item>",
        "</item>",
        "<item/>",
        "<new><deep a='1'/></new>",
        "<!-- -->",
        "<?x?>",
        "<![CDATA[",
        "]]>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]>",
        "&amp;",
        "&a;",
        "&#0;",
        "three",
        "-1",
        "4294967296",
        "10.0.0.300",
        "10.0.0.0/33",
        "true",
        "xmlns='x'",
        "<ipv4PrefixSet><item><ipv4Prefix>10.0.0.0/28</ipv4Prefix></item></ipv4PrefixSet>",
        "<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>",
        "<DescribeSubnetsResponse>",
        "</DescribeSubnetsResponse>",
    ],
};

/// An element that no version of the API has, with text, children and attributes.
const UNKNOWN: &str = "<vpcnetUnknown a='1'><item>7</item>text</vpcnetUnknown>";

fn check(body: &[u8]) {
    if let Some((code, _)) = ec2_error(body) {
        assert!(!code.is_empty());
    }
    for action in EC2_ACTIONS {
        let shown = match ec2_answer(action, body) {
            Ok(shown) => shown,
            Err(error) => {
                assert!(!error.trim().is_empty(), "an error without a word");
                continue;
            }
        };
        let text = std::str::from_utf8(body).expect("it was read as text");
        let end = format!("</{action}Response");
        let Some((before, after)) = text.rsplit_once(end.as_str()) else {
            continue; // An empty element: there is nothing in it to cut or to add to.
        };
        // An element that is not known changes nothing.
        let longer = format!("{before}{UNKNOWN}{end}{after}");
        assert_eq!(
            ec2_answer(action, longer.as_bytes()).as_ref(),
            Ok(&shown),
            "{action} with an unknown element"
        );
        // And half an answer is none.
        let cut = (body.len().wrapping_mul(31)) % before.len().max(1);
        let half = body.get(..cut).unwrap_or_default();
        if let Ok(read) = ec2_answer(action, half) {
            // Text of the outermost element may hold what looks like its end.
            assert!(
                text.get(..cut).is_some_and(|t| t.contains(end.as_str())),
                "{cut} bytes of {action} were read: {read}"
            );
        }
    }
}
