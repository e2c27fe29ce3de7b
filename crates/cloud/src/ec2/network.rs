//! Subnets, VPCs and security groups: read only.

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::form::{Filter, Form};
use super::{Ec2, Tag};
use crate::xml::{items, optional};
use crate::{Ec2Action, Ec2Error};

/// A subnet.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// `subnet-…`
    #[serde(rename = "subnetId")]
    pub id: String,
    /// Its VPC.
    #[serde(default)]
    pub vpc_id: String,
    /// Its zone.
    #[serde(default)]
    pub availability_zone: String,
    /// `pending`, `available`.
    #[serde(default)]
    pub state: String,
    /// IPv4 range; `None` on IPv6-only subnets.
    #[serde(default, rename = "cidrBlock", deserialize_with = "optional")]
    pub ipv4_cidr: Option<Ipv4Net>,
    /// Free IPv4 addresses. Says nothing about free /28 blocks.
    #[serde(default, deserialize_with = "optional")]
    pub available_ip_address_count: Option<u32>,
    #[serde(default, rename = "ipv6CidrBlockAssociationSet", deserialize_with = "items")]
    ipv6: Vec<Ipv6Association>,
    /// Tags.
    #[serde(default, rename = "tagSet", deserialize_with = "items")]
    pub tags: Vec<Tag>,
}

impl Subnet {
    /// IPv6 ranges associated with it.
    pub fn ipv6_cidrs(&self) -> impl Iterator<Item = Ipv6Net> + '_ {
        associated(&self.ipv6)
    }

    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags
            .iter()
            .find(|tag| tag.key == key)
            .map(|tag| tag.value.as_str())
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ipv6Association {
    #[serde(default, deserialize_with = "optional")]
    ipv6_cidr_block: Option<Ipv6Net>,
    #[serde(default)]
    ipv6_cidr_block_state: Option<AssociationState>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ipv4Association {
    #[serde(default, deserialize_with = "optional")]
    cidr_block: Option<Ipv4Net>,
    #[serde(default)]
    cidr_block_state: Option<AssociationState>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct AssociationState {
    #[serde(default)]
    state: String,
}

/// A block counts unless EC2 says that it is not associated.
fn is_associated(state: Option<&AssociationState>) -> bool {
    state.is_none_or(|s| s.state == "associated")
}

fn associated(blocks: &[Ipv6Association]) -> impl Iterator<Item = Ipv6Net> + '_ {
    blocks
        .iter()
        .filter(|b| is_associated(b.ipv6_cidr_block_state.as_ref()))
        .filter_map(|b| b.ipv6_cidr_block)
}

/// A VPC.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vpc {
    /// `vpc-…`
    #[serde(rename = "vpcId")]
    pub id: String,
    /// `pending`, `available`.
    #[serde(default)]
    pub state: String,
    #[serde(default, rename = "cidrBlock", deserialize_with = "optional")]
    first: Option<Ipv4Net>,
    #[serde(default, rename = "cidrBlockAssociationSet", deserialize_with = "items")]
    ipv4: Vec<Ipv4Association>,
    #[serde(default, rename = "ipv6CidrBlockAssociationSet", deserialize_with = "items")]
    ipv6: Vec<Ipv6Association>,
    /// Tags.
    #[serde(default, rename = "tagSet", deserialize_with = "items")]
    pub tags: Vec<Tag>,
}

impl Vpc {
    /// IPv4 ranges, the VPC's first one first.
    pub fn ipv4_cidrs(&self) -> Vec<Ipv4Net> {
        let others = self
            .ipv4
            .iter()
            .filter(|b| is_associated(b.cidr_block_state.as_ref()))
            .filter_map(|b| b.cidr_block);
        self.first
            .into_iter()
            .chain(others.filter(|cidr| Some(*cidr) != self.first))
            .collect()
    }

    /// IPv6 ranges.
    pub fn ipv6_cidrs(&self) -> impl Iterator<Item = Ipv6Net> + '_ {
        associated(&self.ipv6)
    }
}

/// A security group.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroup {
    /// `sg-…`
    #[serde(rename = "groupId")]
    pub id: String,
    /// Its name, unique in its VPC.
    #[serde(default, rename = "groupName")]
    pub name: String,
    /// Its VPC.
    #[serde(default)]
    pub vpc_id: String,
    /// Tags.
    #[serde(default, rename = "tagSet", deserialize_with = "items")]
    pub tags: Vec<Tag>,
}

macro_rules! answer {
    ($name:ident, $set:literal, $item:ty) => {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct $name {
            #[serde(default, rename = $set, deserialize_with = "items")]
            found: Vec<$item>,
            #[serde(default, deserialize_with = "optional")]
            next_token: Option<String>,
        }
    };
}

answer!(Subnets, "subnetSet", Subnet);
answer!(Vpcs, "vpcSet", Vpc);
answer!(SecurityGroups, "securityGroupInfo", SecurityGroup);

impl Ec2 {
    /// The subnets with these ids (all, if none is given) that match every filter, all pages.
    ///
    /// # Errors
    /// `Gone` if an id does not exist.
    pub async fn describe_subnets(
        &self,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<Subnet>, Ec2Error> {
        let mut form = Form::new(Ec2Action::DescribeSubnets);
        form.list("SubnetId", ids);
        form.filters(filters);
        self.lookup(Ec2Action::DescribeSubnets, form, ids, |a: Subnets| {
            (a.found, a.next_token)
        })
        .await
    }

    /// The VPCs with these ids (all, if none is given) that match every filter, all pages.
    ///
    /// # Errors
    /// `Gone` if an id does not exist.
    pub async fn describe_vpcs(&self, ids: &[String], filters: &[Filter]) -> Result<Vec<Vpc>, Ec2Error> {
        let mut form = Form::new(Ec2Action::DescribeVpcs);
        form.list("VpcId", ids);
        form.filters(filters);
        self.lookup(Ec2Action::DescribeVpcs, form, ids, |a: Vpcs| {
            (a.found, a.next_token)
        })
        .await
    }

    /// The security groups with these ids (all, if none is given) that match every filter, all pages.
    ///
    /// # Errors
    /// `Gone` if an id does not exist.
    pub async fn describe_security_groups(
        &self,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<SecurityGroup>, Ec2Error> {
        let mut form = Form::new(Ec2Action::DescribeSecurityGroups);
        form.list("GroupId", ids);
        form.filters(filters);
        self.lookup(
            Ec2Action::DescribeSecurityGroups,
            form,
            ids,
            |a: SecurityGroups| (a.found, a.next_token),
        )
        .await
    }
}
