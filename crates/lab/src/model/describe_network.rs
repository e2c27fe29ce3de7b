//! DescribeSubnets, DescribeVpcs and DescribeSecurityGroups: what rarely changes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::error::ApiError;
use super::filter::{Filtered, check, passes};
use super::ids::{GroupId, SubnetId, VpcId};
use super::page::USUAL;
use super::request::{Describe, Tags};
use super::response::{Page, Response, SubnetView, VpcView};
use super::state::Group;
use super::vpc::Vpc;

const SUBNET_FILTERS: &[&str] = &[
    "availability-zone",
    "availability-zone-id",
    "availabilityZone",
    "available-ip-address-count",
    "cidr",
    "cidr-block",
    "cidrBlock",
    "default-for-az",
    "ipv6-cidr-block-association.ipv6-cidr-block",
    "map-public-ip-on-launch",
    "owner-id",
    "state",
    "subnet-id",
    "vpc-id",
];

const VPC_FILTERS: &[&str] = &[
    "cidr",
    "cidr-block",
    "cidr-block-association.cidr-block",
    "ipv6-cidr-block-association.ipv6-cidr-block",
    "is-default",
    "owner-id",
    "state",
    "vpc-id",
];

const GROUP_FILTERS: &[&str] = &["description", "group-id", "group-name", "owner-id", "vpc-id"];

struct SubnetIn<'a>(&'a Vpc, &'a SubnetView);

impl Filtered for SubnetIn<'_> {
    fn property(&self, name: &str) -> Option<Vec<String>> {
        let Self(vpc, view) = self;
        let s = &view.subnet;
        if name == "ipv6-cidr-block-association.ipv6-cidr-block" {
            return Some(s.ipv6.iter().map(ToString::to_string).collect());
        }
        Some(vec![match name {
            "availability-zone" | "availabilityZone" => s.zone.clone(),
            "availability-zone-id" => s.zone_id.clone(),
            "available-ip-address-count" => view.free.to_string(),
            "cidr" | "cidr-block" | "cidrBlock" => s.cidr.to_string(),
            "default-for-az" => "false".to_owned(),
            "map-public-ip-on-launch" => (s.route == super::config::SubnetRoute::Public).to_string(),
            "owner-id" => vpc.config.account.clone(),
            "state" => "available".to_owned(),
            "subnet-id" => s.id.to_string(),
            "vpc-id" => vpc.id.to_string(),
            _ => return None,
        }])
    }

    fn tags(&self) -> &Tags {
        &self.1.subnet.tags
    }
}

struct VpcIn<'a>(&'a Vpc);

impl Filtered for VpcIn<'_> {
    fn property(&self, name: &str) -> Option<Vec<String>> {
        let vpc = self.0;
        Some(match name {
            "cidr" | "cidr-block" => vec![vpc.config.cidr.to_string()],
            "cidr-block-association.cidr-block" => vpc.cidrs().iter().map(ToString::to_string).collect(),
            "ipv6-cidr-block-association.ipv6-cidr-block" => {
                vpc.config.ipv6.iter().map(ToString::to_string).collect()
            }
            "is-default" => vec!["false".to_owned()],
            "owner-id" => vec![vpc.config.account.clone()],
            "state" => vec!["available".to_owned()],
            "vpc-id" => vec![vpc.id.to_string()],
            _ => return None,
        })
    }

    fn tags(&self) -> &Tags {
        &self.0.tags
    }
}

struct GroupIn<'a>(&'a Vpc, &'a Group);

impl Filtered for GroupIn<'_> {
    fn property(&self, name: &str) -> Option<Vec<String>> {
        let Self(vpc, group) = self;
        Some(vec![match name {
            "description" => group.description.clone(),
            "group-id" => group.id.to_string(),
            "group-name" => group.name.clone(),
            "owner-id" => vpc.config.account.clone(),
            "vpc-id" => vpc.id.to_string(),
            _ => return None,
        }])
    }

    fn tags(&self) -> &Tags {
        &self.1.tags
    }
}

impl Vpc {
    /// All CIDRs, the first one first.
    #[must_use]
    pub fn cidrs(&self) -> Vec<ipnet::Ipv4Net> {
        std::iter::once(self.config.cidr)
            .chain(self.config.secondary_cidrs.iter().copied())
            .collect()
    }

    /// The internal DNS name of an address; the lab resolves none.
    #[must_use]
    pub fn private_name(&self, address: Ipv4Addr) -> String {
        let dashed = address.to_string().replace('.', "-");
        format!("ip-{dashed}.{}.compute.internal", self.config.region)
    }

    /// The public DNS name of a public address; the lab resolves none.
    #[must_use]
    pub fn public_name(&self, address: Ipv4Addr) -> String {
        let dashed = address.to_string().replace('.', "-");
        format!("ec2-{dashed}.{}.compute.amazonaws.com", self.config.region)
    }

    pub(crate) fn describe_subnets(&self, query: &Describe) -> Result<Response, ApiError> {
        USUAL.check(query, "subnetIds")?;
        check(query, SUBNET_FILTERS)?;
        let mut found = Vec::new();
        if query.ids.is_empty() {
            found.extend(self.subnets.values().cloned());
        }
        for id in &query.ids {
            found.push(self.subnet(&SubnetId::from(id.as_str()))?.clone());
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        let mut views: Vec<SubnetView> = found
            .into_iter()
            .map(|subnet| {
                let free = self.spaces.get(&subnet.id).map_or(0, super::space::Space::free);
                SubnetView { subnet, free }
            })
            .collect();
        views.retain(|v| passes(query, &SubnetIn(self, v)));
        let page = USUAL.cut(query, "DescribeSubnets", views, |v| v.subnet.id.to_string())?;
        Ok(Response::Subnets(page))
    }

    pub(crate) fn describe_vpcs(&self, query: &Describe) -> Result<Response, ApiError> {
        USUAL.check(query, "vpcIds")?;
        check(query, VPC_FILTERS)?;
        for id in &query.ids {
            if !VpcId::from(id.as_str()).well_formed() {
                return Err(ApiError::malformed("InvalidVpcID.Malformed", id, VpcId::PREFIX));
            }
            if self.id.as_str() != id {
                return Err(ApiError::client(
                    "InvalidVpcID.NotFound",
                    format!("The vpc ID '{id}' does not exist"),
                ));
            }
        }
        let mut items = Vec::new();
        if passes(query, &VpcIn(self)) {
            items.push(VpcView {
                id: self.id.clone(),
                cidrs: self.cidrs(),
                ipv6: self.config.ipv6,
                tags: self.tags.clone(),
            });
        }
        Ok(Response::Vpcs(
            USUAL.cut(query, "DescribeVpcs", items, |v| v.id.to_string())?,
        ))
    }

    pub(crate) fn describe_groups(&self, query: &Describe) -> Result<Response, ApiError> {
        USUAL.check(query, "groupIds")?;
        check(query, GROUP_FILTERS)?;
        let mut found: Vec<Arc<Group>> = Vec::new();
        if query.ids.is_empty() {
            found.extend(self.groups.values().cloned());
        }
        for wanted in &query.ids {
            let known = self.group_named(wanted).and_then(|id| self.groups.get(id));
            found.push(known.ok_or_else(|| ApiError::no_group(wanted))?.clone());
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        found.retain(|g| passes(query, &GroupIn(self, g)));
        let page: Page<Arc<Group>> =
            USUAL.cut(query, "DescribeSecurityGroups", found, |g| g.id.to_string())?;
        Ok(Response::SecurityGroups(page))
    }

    pub(crate) fn group_name(&self, id: &GroupId) -> String {
        self.groups.get(id).map(|g| g.name.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VpcConfig;

    #[test]
    fn every_listed_filter_has_a_property_behind_it() {
        let vpc = Vpc::new(VpcConfig::instant(), 1);
        let subnet = SubnetView {
            subnet: vpc.subnets.values().next().unwrap().clone(),
            free: 1,
        };
        for name in SUBNET_FILTERS {
            assert!(SubnetIn(&vpc, &subnet).property(name).is_some(), "{name}");
        }
        for name in VPC_FILTERS {
            assert!(VpcIn(&vpc).property(name).is_some(), "{name}");
        }
        for name in GROUP_FILTERS {
            assert!(
                GroupIn(&vpc, vpc.groups.values().next().unwrap())
                    .property(name)
                    .is_some(),
                "{name}"
            );
        }
    }
}
