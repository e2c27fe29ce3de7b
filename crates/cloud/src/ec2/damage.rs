//! Recorded answers, damaged at random: whatever arrives, reading it ends with a value or an error.

use proptest::prelude::*;

use super::{
    AssignedIpv6, AssignedPrivateIpAddresses, Attached, call, instances, interface_ops, interfaces, network,
};
use crate::xml::{ErrorDocument, parse_answer};

const SHAPES: [&str; 10] = [
    include_str!("../../tests/shapes/create_network_interface.xml"),
    include_str!("../../tests/shapes/describe_network_interfaces.xml"),
    include_str!("../../tests/shapes/describe_instances.xml"),
    include_str!("../../tests/shapes/describe_instance_types.xml"),
    include_str!("../../tests/shapes/describe_subnets.xml"),
    include_str!("../../tests/shapes/describe_vpcs.xml"),
    include_str!("../../tests/shapes/describe_security_groups.xml"),
    include_str!("../../tests/shapes/attach_network_interface.xml"),
    include_str!("../../tests/shapes/assign_private_ip_addresses.xml"),
    include_str!("../../tests/shapes/assign_ipv6_addresses.xml"),
];

/// Reads a body as the answer of every action, whichever it is.
fn read_as_everything(body: &[u8]) {
    let _ = parse_answer::<interface_ops::Created>("CreateNetworkInterface", body);
    let _ = parse_answer::<interfaces::Answer>("DescribeNetworkInterfaces", body);
    let _ = parse_answer::<instances::Instances>("DescribeInstances", body);
    let _ = parse_answer::<instances::InstanceTypes>("DescribeInstanceTypes", body);
    let _ = parse_answer::<network::Subnets>("DescribeSubnets", body);
    let _ = parse_answer::<network::Vpcs>("DescribeVpcs", body);
    let _ = parse_answer::<network::SecurityGroups>("DescribeSecurityGroups", body);
    let _ = parse_answer::<Attached>("AttachNetworkInterface", body);
    let _ = parse_answer::<AssignedPrivateIpAddresses>("AssignPrivateIpAddresses", body);
    let _ = parse_answer::<AssignedIpv6>("AssignIpv6Addresses", body);
    let _ = parse_answer::<call::Done>("CreateTags", body);
    let _ = ErrorDocument::parse(body);
}

/// One change to a document: put something at a place, over so many bytes.
fn damage() -> impl Strategy<Value = (prop::sample::Index, usize, &'static str)> {
    let pieces = prop::sample::select(vec![
        "",
        "<",
        ">",
        "/",
        "<item>",
        "</item>",
        "<item/>",
        "&",
        "&lt;",
        "&#0;",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<!DOCTYPE a>",
        "<?x?>",
        "word",
        "-1",
        "99999999999999999999",
        "\0",
        "\u{fffd}",
        "='",
        " ",
    ]);
    (any::<prop::sample::Index>(), 0usize..40, pieces)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_damaged_answer_never_panics(shape in 0..SHAPES.len(), changes in prop::collection::vec(damage(), 1..5)) {
        let mut body = SHAPES[shape].as_bytes().to_vec();
        for (at, over, piece) in changes {
            let at = at.index(body.len() + 1);
            let end = (at + over).min(body.len());
            body.splice(at..end, piece.bytes());
        }
        read_as_everything(&body);
    }

    #[test]
    fn an_answer_cut_short_is_never_taken_for_whole(shape in 0..SHAPES.len(), at in any::<prop::sample::Index>()) {
        let whole = SHAPES[shape].trim_end();
        let cut = whole.get(..at.index(whole.len())).unwrap_or_default();
        prop_assert!(parse_answer::<interfaces::Answer>("DescribeNetworkInterfaces", cut.as_bytes()).is_err());
        prop_assert!(parse_answer::<network::Subnets>("DescribeSubnets", cut.as_bytes()).is_err());
        prop_assert!(parse_answer::<instances::Instances>("DescribeInstances", cut.as_bytes()).is_err());
    }
}
