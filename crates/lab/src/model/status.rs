//! The VPC for people and scripts: what `vpcnet lab status --json` shows of it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use super::calls::CallCount;
use super::config::SubnetRoute;
use super::faults::ActiveFault;
use super::ids::{EniId, InstanceId, Mac, SubnetId, VpcId};
use super::state::{InstanceState, Interface, InterfaceStatus};
use super::vpc::Vpc;

/// All of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct VpcStatus {
    /// Lab time in seconds.
    pub seconds: f64,
    /// Its id.
    pub id: VpcId,
    /// Its region.
    pub region: String,
    /// Its CIDRs.
    pub cidrs: Vec<Ipv4Net>,
    /// Its subnets.
    pub subnets: Vec<SubnetStatus>,
    /// Instances that are not terminated.
    pub instances: Vec<InstanceStatus>,
    /// Interfaces attached to nothing.
    pub unattached: Vec<InterfaceSummary>,
    /// Calls so far.
    pub calls: Vec<CallCount>,
    /// Faults in force.
    pub faults: Vec<ActiveFault>,
}

/// A subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SubnetStatus {
    /// Its id.
    pub id: SubnetId,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// Its IPv6 addresses.
    pub ipv6: Option<ipnet::Ipv6Net>,
    /// Its zone.
    pub zone: String,
    /// Its default route.
    pub route: SubnetRoute,
    /// Free addresses.
    pub free: u32,
}

/// An instance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InstanceStatus {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub instance_type: String,
    /// Where in its life it is.
    pub state: InstanceState,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its role.
    pub role: Option<String>,
    /// Metadata hop limit.
    pub hop_limit: u8,
    /// Its interfaces, by card and device index.
    pub interfaces: Vec<InterfaceSummary>,
}

/// An interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InterfaceSummary {
    /// Its id.
    pub id: EniId,
    /// Its MAC.
    pub mac: Mac,
    /// Where in its life it is.
    pub status: InterfaceStatus,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Network card, when attached.
    pub card: Option<u32>,
    /// Position on the card, when attached.
    pub device_index: Option<u32>,
    /// Primary address.
    pub primary: Option<Ipv4Addr>,
    /// Public address of the primary one.
    pub public: Option<Ipv4Addr>,
    /// Secondary addresses.
    pub secondary: Vec<Ipv4Addr>,
    /// Prefixes.
    pub prefixes: Vec<Ipv4Net>,
    /// IPv6 addresses and prefixes.
    pub ipv6: super::ipv6::Ipv6,
    /// Free text.
    pub description: String,
}

impl From<&Interface> for InterfaceSummary {
    fn from(i: &Interface) -> Self {
        Self {
            id: i.id.clone(),
            mac: i.mac,
            status: i.status,
            subnet: i.subnet.clone(),
            card: i.attachment.as_ref().map(|a| a.card),
            device_index: i.attachment.as_ref().map(|a| a.device_index),
            primary: i.primary,
            public: i.public,
            secondary: i.secondary.clone(),
            prefixes: i.prefixes.clone(),
            ipv6: i.ipv6.clone(),
            description: i.description.clone(),
        }
    }
}

impl Vpc {
    /// The VPC as it is now, without lag.
    #[must_use]
    pub fn status(&self) -> VpcStatus {
        let subnets = self
            .subnet_order
            .iter()
            .filter_map(|id| self.subnets.get(id))
            .map(|s| SubnetStatus {
                id: s.id.clone(),
                name: s.name.clone(),
                cidr: s.cidr,
                ipv6: s.ipv6,
                zone: s.zone.clone(),
                route: s.route,
                free: self.spaces.get(&s.id).map_or(0, super::space::Space::free),
            })
            .collect();
        let mut instances: Vec<InstanceStatus> = self
            .instances
            .values()
            .filter(|i| i.exists())
            .map(|i| InstanceStatus {
                id: i.id.clone(),
                name: i.name().to_owned(),
                instance_type: i.instance_type.clone(),
                state: i.state,
                subnet: i.subnet.clone(),
                role: i.role.clone(),
                hop_limit: i.hop_limit,
                interfaces: self
                    .attached_to(&i.id)
                    .iter()
                    .map(|e| InterfaceSummary::from(&**e))
                    .collect(),
            })
            .collect();
        instances.sort_by(|a, b| a.name.len().cmp(&b.name.len()).then_with(|| a.name.cmp(&b.name)));
        VpcStatus {
            seconds: self.now.as_secs_f64(),
            id: self.id.clone(),
            region: self.config.region.clone(),
            cidrs: self.cidrs(),
            subnets,
            instances,
            unattached: self
                .interfaces
                .values()
                .filter(|i| i.attachment.is_none())
                .map(|i| InterfaceSummary::from(&**i))
                .collect(),
            calls: self.call_counts(),
            faults: self.faults().to_vec(),
        }
    }
}
