//! The VPC before its first call: subnets, groups, ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{GroupConfig, Rule, RulePeer, SubnetConfig};
use super::error::ApiError;
use super::ids::{GroupId, SubnetId, VpcId};
use super::request::Tags;
use super::space::Space;
use super::space6::Space6;
use super::state::{Group, Subnet};
use super::vpc::Vpc;

impl Vpc {
    /// Makes what the configuration lists.
    pub(crate) fn found(&mut self) {
        self.id = VpcId(format!("{}{}", VpcId::PREFIX, self.hex()));
        for subnet in self.config.subnets.clone() {
            self.add_subnet(&subnet);
        }
        let default = GroupConfig {
            name: "default".to_owned(),
            ingress: vec![Rule::all(RulePeer::Group("default".to_owned()))],
            egress: vec![Rule::all(RulePeer::Cidr(ipnet::Ipv4Net::default()))]
                .into_iter()
                // EC2 adds this one when the VPC gets an IPv6 CIDR.
                .chain(
                    self.config
                        .ipv6
                        .map(|_| Rule::all(RulePeer::Ipv6(ipnet::Ipv6Net::default()))),
                )
                .collect(),
        };
        self.add_group(default);
        for group in self.config.groups.clone() {
            self.add_group(group);
        }
    }

    /// Adds a subnet to the running VPC; nodes are put into it only by name.
    pub fn add_subnet(&mut self, config: &SubnetConfig) -> SubnetId {
        let id = SubnetId(format!("{}{}", SubnetId::PREFIX, self.hex()));
        let mut tags = config.tags.clone();
        tags.entry("Name".to_owned())
            .or_insert_with(|| config.name.clone());
        let region = self.config.region.clone();
        let number = u32::from(config.zone.to_ascii_lowercase()).saturating_sub(u32::from('a')) + 1;
        let subnet = Subnet {
            id: id.clone(),
            name: config.name.clone(),
            cidr: config.cidr.trunc(),
            ipv6: config.ipv6.map(|net| net.trunc()),
            zone: format!("{region}{}", config.zone),
            zone_id: format!("{}-az{number}", short_region(&region)),
            route: config.route,
            tags,
            reservations: config.reservations.clone(),
        };
        self.spaces
            .insert(id.clone(), Space::new(subnet.cidr, &config.reservations));
        if let Some(cidr) = subnet.ipv6 {
            self.ipv6_spaces.insert(id.clone(), Space6::new(cidr));
        }
        self.subnets.insert(id.clone(), Arc::new(subnet));
        self.subnet_order.push(id.clone());
        self.fabric_generation += 1;
        id
    }

    /// Adds a security group, or replaces the rules of the one of that name.
    pub fn add_group(&mut self, config: GroupConfig) -> GroupId {
        self.fabric_generation += 1;
        let known = self
            .groups
            .values()
            .find(|g| g.name == config.name)
            .map(|g| g.id.clone());
        let id = known.unwrap_or_else(|| GroupId(format!("{}{}", GroupId::PREFIX, self.hex())));
        let description = if config.name == "default" {
            "default VPC security group".to_owned()
        } else {
            format!("{} of the lab", config.name)
        };
        let group = Group {
            id: id.clone(),
            name: config.name,
            description,
            ingress: config.ingress,
            egress: config.egress,
            tags: BTreeMap::new(),
        };
        self.groups.insert(id.clone(), Arc::new(group));
        id
    }

    pub(crate) fn subnet(&self, id: &SubnetId) -> Result<&Arc<Subnet>, ApiError> {
        if !id.well_formed() {
            return Err(ApiError::malformed(
                "InvalidSubnetID.Malformed",
                id.as_str(),
                SubnetId::PREFIX,
            ));
        }
        self.subnets
            .get(id)
            .ok_or_else(|| ApiError::no_subnet(id.as_str()))
    }

    /// The id of a group by its name or id.
    #[must_use]
    pub fn group_named(&self, wanted: &str) -> Option<&GroupId> {
        self.groups
            .values()
            .find(|g| g.name == wanted || g.id.as_str() == wanted)
            .map(|g| &g.id)
    }

    /// The id of a subnet by its name or id.
    #[must_use]
    pub fn subnet_named(&self, wanted: &str) -> Option<&SubnetId> {
        self.subnets
            .values()
            .find(|s| s.name == wanted || s.id.as_str() == wanted)
            .map(|s| &s.id)
    }

    /// A group by its id.
    #[must_use]
    pub fn group(&self, id: &GroupId) -> Option<&Group> {
        self.groups.get(id).map(|g| &**g)
    }

    /// A subnet by its id.
    #[must_use]
    pub fn subnet_of(&self, id: &SubnetId) -> Option<&Subnet> {
        self.subnets.get(id).map(|s| &**s)
    }

    /// All tags of something by its id; `None`: no such thing can be tagged.
    pub(crate) fn tags_of(&self, resource: &str) -> Option<Tags> {
        let interface = || self.interfaces.get(&resource.into()).map(|i| i.tags.clone());
        let instance = || self.instances.get(&resource.into()).map(|i| i.tags.clone());
        let subnet = || {
            self.subnets
                .get(&SubnetId::from(resource))
                .map(|s| s.tags.clone())
        };
        let group = || self.groups.get(&GroupId::from(resource)).map(|g| g.tags.clone());
        let vpc = || (self.id.as_str() == resource).then(|| self.tags.clone());
        interface()
            .or_else(instance)
            .or_else(subnet)
            .or_else(group)
            .or_else(vpc)
    }
}

/// `us-west-2` as its zone ids begin: `usw2`.
fn short_region(region: &str) -> String {
    let mut parts = region.split('-');
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        short.extend(part.chars().next());
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_ids_begin_as_their_region_does() {
        assert_eq!(short_region("us-west-2"), "usw2");
        assert_eq!(short_region("eu-central-1"), "euc1");
    }
}
