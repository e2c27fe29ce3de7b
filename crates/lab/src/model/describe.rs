//! DescribeNetworkInterfaces and DescribeInstances: the reads that may lag.

use std::sync::Arc;
use std::time::Duration;

use super::error::ApiError;
use super::filter::{Filtered, check, passes};
use super::ids::{EniId, InstanceId};
use super::page::USUAL;
use super::request::{Describe, Tags};
use super::response::{InstanceView, Response};
use super::state::Interface;
use super::vpc::Vpc;

const INTERFACE_FILTERS: &[&str] = &[
    "addresses.primary",
    "addresses.private-ip-address",
    "attachment.attachment-id",
    "attachment.delete-on-termination",
    "attachment.device-index",
    "attachment.instance-id",
    "attachment.instance-owner-id",
    "attachment.network-card-index",
    "attachment.status",
    "availability-zone",
    "availability-zone-id",
    "description",
    "group-id",
    "group-name",
    "interface-type",
    "ipv6-addresses.ipv6-address",
    "mac-address",
    "network-interface-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "requester-id",
    "requester-managed",
    "source-dest-check",
    "status",
    "subnet-id",
    "vpc-id",
];

const INSTANCE_FILTERS: &[&str] = &[
    "architecture",
    "availability-zone",
    "availability-zone-id",
    "client-token",
    "dns-name",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "instance.group-id",
    "instance.group-name",
    "ip-address",
    "network-interface.network-interface-id",
    "network-interface.private-ip-address",
    "network-interface.subnet-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "reservation-id",
    "subnet-id",
    "vpc-id",
];

/// An interface with the VPC around it.
struct InterfaceIn<'a>(&'a Vpc, &'a Interface);

impl Filtered for InterfaceIn<'_> {
    fn property(&self, name: &str) -> Option<Vec<String>> {
        let Self(vpc, i) = self;
        let attached = |f: &dyn Fn(&super::state::Attachment) -> String| {
            i.attachment.as_ref().map(f).into_iter().collect()
        };
        let subnet = vpc.subnets.get(&i.subnet);
        Some(match name {
            "addresses.primary" => i
                .addresses()
                .map(|a| (Some(a) == i.primary).to_string())
                .collect(),
            "addresses.private-ip-address" => i.addresses().map(|a| a.to_string()).collect(),
            "attachment.attachment-id" => attached(&|a| a.id.to_string()),
            "attachment.delete-on-termination" => attached(&|a| a.delete_on_termination.to_string()),
            "attachment.device-index" => attached(&|a| a.device_index.to_string()),
            "attachment.instance-id" => attached(&|a| a.instance.to_string()),
            "attachment.instance-owner-id" => attached(&|_| vpc.config.account.clone()),
            "attachment.network-card-index" => attached(&|a| a.card.to_string()),
            "attachment.status" => attached(&|_| i.status.attachment().to_owned()),
            "availability-zone" => subnet.map(|s| s.zone.clone()).into_iter().collect(),
            "availability-zone-id" => subnet.map(|s| s.zone_id.clone()).into_iter().collect(),
            "description" => vec![i.description.clone()],
            "group-id" => i.groups.iter().map(ToString::to_string).collect(),
            "group-name" => i
                .groups
                .iter()
                .filter_map(|g| vpc.groups.get(g))
                .map(|g| g.name.clone())
                .collect(),
            "ipv6-addresses.ipv6-address" => i.ipv6.addresses.iter().map(ToString::to_string).collect(),
            "interface-type" => vec![i.kind.as_str().to_owned()],
            "mac-address" => vec![i.mac.to_string()],
            "network-interface-id" => vec![i.id.to_string()],
            "owner-id" => vec![vpc.config.account.clone()],
            "private-dns-name" => i.primary.map(|a| vpc.private_name(a)).into_iter().collect(),
            "private-ip-address" => i.primary.map(|a| a.to_string()).into_iter().collect(),
            "requester-id" => vec![i.requester.clone()],
            "requester-managed" => vec!["false".to_owned()],
            "source-dest-check" => vec![i.source_dest_check.to_string()],
            "status" => vec![i.status.as_str().to_owned()],
            "subnet-id" => vec![i.subnet.to_string()],
            "vpc-id" => vec![vpc.id.to_string()],
            _ => return None,
        })
    }

    fn tags(&self) -> &Tags {
        &self.1.tags
    }
}

/// An instance with its interfaces and the VPC around it.
struct InstanceIn<'a>(&'a Vpc, &'a InstanceView);

impl Filtered for InstanceIn<'_> {
    fn property(&self, name: &str) -> Option<Vec<String>> {
        let Self(vpc, view) = self;
        let i = &view.instance;
        let primary = view.interfaces.iter().find(|n| n.id == i.primary);
        let subnet = vpc.subnets.get(&i.subnet);
        let address = primary.and_then(|p| p.primary);
        let public = primary.and_then(|p| p.public);
        let (code, state) = i.state.code_name();
        let each =
            |f: &dyn Fn(&Interface) -> Vec<String>| view.interfaces.iter().flat_map(|n| f(n)).collect();
        Some(match name {
            "architecture" => vec!["x86_64".to_owned()],
            "availability-zone" => subnet.map(|s| s.zone.clone()).into_iter().collect(),
            "availability-zone-id" => subnet.map(|s| s.zone_id.clone()).into_iter().collect(),
            "client-token" => i.client_token.clone().into_iter().collect(),
            "dns-name" => public.map(|a| vpc.public_name(a)).into_iter().collect(),
            "image-id" => vec![i.image.clone()],
            "instance-id" => vec![i.id.to_string()],
            "instance-state-code" => vec![code.to_string()],
            "instance-state-name" => vec![state.to_owned()],
            "instance-type" => vec![i.instance_type.clone()],
            "instance.group-id" => primary
                .map(|p| p.groups.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            "instance.group-name" => primary
                .map(|p| {
                    p.groups
                        .iter()
                        .filter_map(|g| vpc.groups.get(g))
                        .map(|g| g.name.clone())
                        .collect()
                })
                .unwrap_or_default(),
            "ip-address" => public.map(|a| a.to_string()).into_iter().collect(),
            "network-interface.network-interface-id" => each(&|n| vec![n.id.to_string()]),
            "network-interface.private-ip-address" => {
                each(&|n| n.addresses().map(|a| a.to_string()).collect())
            }
            "network-interface.subnet-id" => each(&|n| vec![n.subnet.to_string()]),
            "owner-id" => vec![vpc.config.account.clone()],
            "private-dns-name" => address.map(|a| vpc.private_name(a)).into_iter().collect(),
            "private-ip-address" => address.map(|a| a.to_string()).into_iter().collect(),
            "reservation-id" => vec![i.reservation.clone()],
            "subnet-id" => vec![i.subnet.to_string()],
            "vpc-id" => vec![vpc.id.to_string()],
            _ => return None,
        })
    }

    fn tags(&self) -> &Tags {
        &self.1.instance.tags
    }
}

impl Vpc {
    pub(crate) fn describe_interfaces(
        &self,
        as_of: Duration,
        query: &Describe,
    ) -> Result<Response, ApiError> {
        USUAL.check(query, "networkInterfaceIds")?;
        check(query, INTERFACE_FILTERS)?;
        let mut found: Vec<Arc<Interface>> = if query.ids.is_empty() {
            self.interfaces.as_of(as_of)
        } else {
            let mut found = Vec::new();
            let mut missing = Vec::new();
            for id in &query.ids {
                let eni = EniId::from(id.as_str());
                if !eni.well_formed() {
                    return Err(ApiError::malformed(
                        "InvalidNetworkInterfaceId.Malformed",
                        id,
                        EniId::PREFIX,
                    ));
                }
                match self.interfaces.get_as_of(as_of, &eni) {
                    Some(interface) => found.push(interface.clone()),
                    None => missing.push(id.as_str()),
                }
            }
            if !missing.is_empty() {
                return Err(ApiError::no_interfaces(&missing));
            }
            found
        };
        found.retain(|i| passes(query, &InterfaceIn(self, i)));
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        let page = USUAL.cut(query, "DescribeNetworkInterfaces", found, |i| i.id.to_string())?;
        Ok(Response::Interfaces(page))
    }

    pub(crate) fn describe_instances(&self, as_of: Duration, query: &Describe) -> Result<Response, ApiError> {
        USUAL.check(query, "instancesSet")?;
        check(query, INSTANCE_FILTERS)?;
        let mut instances = if query.ids.is_empty() {
            self.instances.as_of(as_of)
        } else {
            let mut found = Vec::new();
            for id in &query.ids {
                let instance = InstanceId::from(id.as_str());
                if !instance.well_formed() {
                    return Err(ApiError::malformed(
                        "InvalidInstanceID.Malformed",
                        id,
                        InstanceId::PREFIX,
                    ));
                }
                let known = self.instances.get_as_of(as_of, &instance);
                found.push(known.ok_or_else(|| ApiError::no_instance(id))?.clone());
            }
            found
        };
        instances.sort_by(|a, b| (&a.reservation, &a.id).cmp(&(&b.reservation, &b.id)));
        instances.dedup_by(|a, b| a.id == b.id);
        let interfaces = self.interfaces.as_of(as_of);
        let mut views: Vec<InstanceView> = instances
            .into_iter()
            .map(|instance| {
                let mut own: Vec<Arc<Interface>> = interfaces
                    .iter()
                    .filter(|i| i.attachment.as_ref().is_some_and(|a| a.instance == instance.id))
                    .cloned()
                    .collect();
                own.sort_by_key(|i| i.attachment.as_ref().map(|a| (a.card, a.device_index)));
                InstanceView {
                    instance,
                    interfaces: own,
                }
            })
            .collect();
        views.retain(|v| passes(query, &InstanceIn(self, v)));
        let key = |v: &InstanceView| format!("{}/{}", v.instance.reservation, v.instance.id);
        let page = USUAL.cut(query, "DescribeInstances", views, key)?;
        Ok(Response::Instances(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeSpec, VpcConfig};

    #[test]
    fn every_listed_filter_has_a_property_behind_it() {
        let mut vpc = Vpc::new(VpcConfig::instant().dual_stack(), 1);
        let id = vpc
            .run_instance(Duration::ZERO, &NodeSpec::new("n", "m5.large"))
            .unwrap();
        let interface = vpc.interfaces.values().next().unwrap().clone();
        for name in INTERFACE_FILTERS {
            assert!(
                InterfaceIn(&vpc, &interface)
                    .property(name)
                    .is_some_and(|v| !v.is_empty()),
                "{name}"
            );
        }
        let view = InstanceView {
            instance: vpc.instances.get(&id).unwrap().clone(),
            interfaces: vpc.attached_to(&id),
        };
        for name in INSTANCE_FILTERS {
            assert!(InstanceIn(&vpc, &view).property(name).is_some(), "{name}");
        }
    }
}
