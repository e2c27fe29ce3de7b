//! DescribeInstanceTypes: the limits table as EC2 shows it.

use std::collections::BTreeMap;

use vpcnet_limits::{Hypervisor, InstanceLimits};

use super::error::ApiError;
use super::filter::{Filtered, check, passes};
use super::page::PageSize;
use super::request::{Describe, Tags};
use super::response::{Page, Response};

const FILTERS: &[&str] = &[
    "bare-metal",
    "hypervisor",
    "instance-type",
    "network-info.maximum-network-interfaces",
    "network-info.ipv4-addresses-per-interface",
    "current-generation",
];

struct Kind(InstanceLimits);

impl Filtered for Kind {
    fn property(&self, name: &str) -> Option<Vec<String>> {
        Some(match name {
            "bare-metal" => vec![self.0.bare_metal.to_string()],
            "hypervisor" => match self.0.hypervisor {
                Hypervisor::Nitro => vec!["nitro".to_owned()],
                Hypervisor::Xen => vec!["xen".to_owned()],
                Hypervisor::Unknown => Vec::new(),
            },
            "instance-type" => vec![self.0.instance_type.to_string()],
            "network-info.maximum-network-interfaces" => vec![all_interfaces(&self.0).to_string()],
            "network-info.ipv4-addresses-per-interface" => vec![self.0.ipv4_per_interface.to_string()],
            "current-generation" => vec!["true".to_owned()],
            _ => return None,
        })
    }

    fn tags(&self) -> &Tags {
        static NONE: Tags = BTreeMap::new();
        &NONE
    }
}

/// EC2's `maximumNetworkInterfaces`: of all cards together.
pub(crate) fn all_interfaces(limits: &InstanceLimits) -> u32 {
    limits.cards.iter().map(|c| c.interfaces).sum()
}

pub(crate) fn describe(query: &Describe) -> Result<Response, ApiError> {
    let size = PageSize { least: 5, most: 100 };
    size.check(query, "instanceType")?;
    check(query, FILTERS)?;
    let unknown: Vec<&str> = query
        .ids
        .iter()
        .map(String::as_str)
        .filter(|t| vpcnet_limits::lookup(t).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(ApiError::client(
            "InvalidInstanceType",
            format!(
                "The following supplied instance types do not exist: [{}]",
                unknown.join(", ")
            ),
        ));
    }
    let mut kinds: Vec<Kind> = if query.ids.is_empty() {
        vpcnet_limits::all().map(Kind).collect()
    } else {
        query
            .ids
            .iter()
            .filter_map(|t| vpcnet_limits::lookup(t))
            .cloned()
            .map(Kind)
            .collect()
    };
    kinds.retain(|k| passes(query, k));
    kinds.sort_by(|a, b| a.0.instance_type.cmp(&b.0.instance_type));
    kinds.dedup_by(|a, b| a.0.instance_type == b.0.instance_type);
    let page = size.cut(query, "DescribeInstanceTypes", kinds, |k| {
        k.0.instance_type.to_string()
    })?;
    let items = page.items.into_iter().map(|k| k.0).collect();
    Ok(Response::InstanceTypes(Page {
        items,
        next_token: page.next_token,
    }))
}
