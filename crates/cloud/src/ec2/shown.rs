//! Every action's answer, read and shown, for fuzzing.

use std::fmt::Debug;

use serde::de::DeserializeOwned;

use super::{
    AssignedIpv6, AssignedPrivateIpAddresses, Attached, call, instances, interface_ops, interfaces, network,
};
use crate::xml::parse_answer;

/// The actions that [`shown`] reads.
pub(crate) const SHOWN: [&str; 11] = [
    "CreateNetworkInterface",
    "DescribeNetworkInterfaces",
    "DescribeInstances",
    "DescribeInstanceTypes",
    "DescribeSubnets",
    "DescribeVpcs",
    "DescribeSecurityGroups",
    "AttachNetworkInterface",
    "AssignPrivateIpAddresses",
    "AssignIpv6Addresses",
    "CreateTags",
];

/// Reads the answer of an action as its caller does, and shows it.
pub(crate) fn shown(action: &str, body: &[u8]) -> Result<String, String> {
    fn read<T: DeserializeOwned + Debug>(action: &str, body: &[u8]) -> Result<String, String> {
        parse_answer::<T>(action, body).map(|read| format!("{read:?}"))
    }
    match action {
        "CreateNetworkInterface" => read::<interface_ops::Created>(action, body),
        "DescribeNetworkInterfaces" => read::<interfaces::Answer>(action, body),
        "DescribeInstances" => read::<instances::Instances>(action, body),
        "DescribeInstanceTypes" => read::<instances::InstanceTypes>(action, body),
        "DescribeSubnets" => read::<network::Subnets>(action, body),
        "DescribeVpcs" => read::<network::Vpcs>(action, body),
        "DescribeSecurityGroups" => read::<network::SecurityGroups>(action, body),
        "AttachNetworkInterface" => read::<Attached>(action, body),
        "AssignPrivateIpAddresses" => read::<AssignedPrivateIpAddresses>(action, body),
        "AssignIpv6Addresses" => read::<AssignedIpv6>(action, body),
        "CreateTags" => read::<call::Done>(action, body),
        _ => Err(format!("no action {action:?} is read here")),
    }
}
