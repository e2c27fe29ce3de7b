//! Answers of the VPC, as values; the EC2 face writes them as XML.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use vpcnet_limits::InstanceLimits;

use super::ids::{AttachmentId, EniId, InstanceId, VpcId};
use super::ipv6::Ipv6;
use super::request::Tags;
use super::state::{Group, Instance, InstanceState, Interface, Subnet};

/// The answer to a call that was carried out.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// DescribeInstances.
    Instances(Page<InstanceView>),
    /// DescribeInstanceTypes.
    InstanceTypes(Page<InstanceLimits>),
    /// DescribeSubnets.
    Subnets(Page<SubnetView>),
    /// DescribeVpcs.
    Vpcs(Page<VpcView>),
    /// DescribeSecurityGroups.
    SecurityGroups(Page<Arc<Group>>),
    /// DescribeNetworkInterfaces.
    Interfaces(Page<Arc<Interface>>),
    /// CreateNetworkInterface.
    Created {
        /// As it is now.
        interface: Arc<Interface>,
        /// The token it was created with.
        client_token: Option<String>,
    },
    /// AttachNetworkInterface.
    Attached {
        /// The new bond.
        attachment: AttachmentId,
        /// The card it is on.
        card: u32,
    },
    /// A call whose answer is only that it was carried out.
    Done,
    /// AssignPrivateIpAddresses.
    Assigned {
        /// To which interface.
        eni: EniId,
        /// Only the newly assigned addresses.
        addresses: Vec<Ipv4Addr>,
        /// Only the newly assigned prefixes.
        prefixes: Vec<Ipv4Net>,
    },
    /// AssignIpv6Addresses.
    AssignedIpv6 {
        /// To which interface.
        eni: EniId,
        /// Only what is new.
        ipv6: Ipv6,
    },
    /// UnassignIpv6Addresses.
    UnassignedIpv6 {
        /// From which interface.
        eni: EniId,
        /// What went.
        ipv6: Ipv6,
    },
    /// RunInstances.
    Started(Vec<InstanceView>),
    /// TerminateInstances: instance, its state before and now.
    Terminating(Vec<(InstanceId, InstanceState, InstanceState)>),
    /// ModifyInstanceMetadataOptions.
    MetadataOptions(Arc<Instance>),
}

/// A page of a Describe answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one starts; `None` on the last.
    pub next_token: Option<String>,
}

/// An instance with its interfaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceView {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Its interfaces, by card and device index; none once it is terminated.
    pub interfaces: Vec<Arc<Interface>>,
}

/// A subnet with its count of free addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubnetView {
    /// The subnet.
    pub subnet: Arc<Subnet>,
    /// Addresses neither reserved by EC2 nor owned.
    pub free: u32,
}

/// The VPC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VpcView {
    /// Its id.
    pub id: VpcId,
    /// All its CIDRs, the first one first.
    pub cidrs: Vec<Ipv4Net>,
    /// Its IPv6 CIDR.
    pub ipv6: Option<Ipv6Net>,
    /// Its tags.
    pub tags: Tags,
}
