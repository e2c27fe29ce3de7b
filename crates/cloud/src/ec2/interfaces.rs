//! What EC2 says of network interfaces.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::form::{Filter, Form};
use super::{Ec2, Tag};
use crate::xml::{items, optional, value, values};
use crate::{Ec2Action, Ec2Error};

/// A network interface (ENI).
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInterface {
    /// `eni-…`
    #[serde(rename = "networkInterfaceId")]
    pub id: String,
    /// The subnet its addresses come from.
    #[serde(default)]
    pub subnet_id: String,
    /// The subnet's VPC.
    #[serde(default)]
    pub vpc_id: String,
    /// The subnet's zone.
    #[serde(default)]
    pub availability_zone: String,
    /// Free text given at creation.
    #[serde(default)]
    pub description: String,
    /// `pending`, `available`, `associated`, `attaching`, `in-use`, `detaching`.
    #[serde(default)]
    pub status: String,
    /// `interface`, `trunk`, `branch`, `efa`, `efa-only`…; empty if EC2 does not say.
    #[serde(default)]
    pub interface_type: String,
    /// `06:…`, lower case.
    #[serde(default)]
    pub mac_address: String,
    /// Whether EC2 drops packets from and to addresses that are not its own.
    #[serde(default, deserialize_with = "optional")]
    pub source_dest_check: Option<bool>,
    /// The primary address; `None` on interfaces without IPv4.
    #[serde(default, deserialize_with = "optional")]
    pub private_ip_address: Option<Ipv4Addr>,
    /// Every IPv4 address, the primary one included.
    #[serde(default, rename = "privateIpAddressesSet", deserialize_with = "items")]
    pub private_ip_addresses: Vec<PrivateAddress>,
    /// Delegated /28 prefixes.
    #[serde(default, rename = "ipv4PrefixSet", deserialize_with = "values")]
    pub ipv4_prefixes: Vec<Ipv4Net>,
    /// IPv6 addresses.
    #[serde(default, rename = "ipv6AddressesSet", deserialize_with = "values")]
    pub ipv6_addresses: Vec<Ipv6Addr>,
    /// Delegated /80 prefixes.
    #[serde(default, rename = "ipv6PrefixSet", deserialize_with = "values")]
    pub ipv6_prefixes: Vec<Ipv6Net>,
    /// Security groups.
    #[serde(default, rename = "groupSet", deserialize_with = "items")]
    pub groups: Vec<SecurityGroupRef>,
    /// What it is attached to, if anything.
    #[serde(default)]
    pub attachment: Option<Attachment>,
    /// Time-outs of connection tracking, where they differ from EC2's own.
    #[serde(default, rename = "connectionTrackingConfiguration")]
    pub connection_tracking: Option<ConnectionTracking>,
    /// Tags.
    #[serde(default, rename = "tagSet", deserialize_with = "items")]
    pub tags: Vec<Tag>,
}

impl NetworkInterface {
    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags
            .iter()
            .find(|tag| tag.key == key)
            .map(|tag| tag.value.as_str())
    }

    /// The addresses pods may have: all but the primary one.
    pub fn secondary_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.private_ip_addresses
            .iter()
            .filter(|a| !a.primary)
            .map(|a| a.address)
    }
}

/// An IPv4 address of an interface.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct PrivateAddress {
    /// The address.
    #[serde(rename = "privateIpAddress", deserialize_with = "value")]
    pub address: Ipv4Addr,
    /// Whether it is the interface's primary address, which cannot be unassigned.
    #[serde(default, deserialize_with = "value")]
    pub primary: bool,
}

/// A security group, as things that have it name it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupRef {
    /// `sg-…`
    pub group_id: String,
    /// Its name.
    #[serde(default)]
    pub group_name: String,
}

/// An interface's place on an instance.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `eni-attach-…`; needed to detach.
    #[serde(rename = "attachmentId", default)]
    pub id: String,
    /// `i-…`; empty for interfaces of AWS services.
    #[serde(default)]
    pub instance_id: String,
    /// Place on the network card.
    #[serde(default, deserialize_with = "optional")]
    pub device_index: Option<u32>,
    /// The network card; EC2 leaves it out on types with one, which is card 0.
    #[serde(default, deserialize_with = "optional")]
    pub network_card_index: Option<u32>,
    /// `attaching`, `attached`, `detaching`, `detached`.
    #[serde(default)]
    pub status: String,
    /// Whether the interface goes with the instance.
    #[serde(default, deserialize_with = "optional")]
    pub delete_on_termination: Option<bool>,
}

/// Time-outs of EC2's connection tracking, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionTracking {
    /// Idle established TCP connections, 60 to 432,000.
    #[serde(default, deserialize_with = "optional")]
    pub tcp_established_timeout: Option<u32>,
    /// UDP flows with traffic in one direction, 30 to 60.
    #[serde(default, deserialize_with = "optional")]
    pub udp_timeout: Option<u32>,
    /// UDP flows with traffic in both directions, 60 to 180.
    #[serde(default, deserialize_with = "optional")]
    pub udp_stream_timeout: Option<u32>,
}

impl ConnectionTracking {
    /// Whether no time-out is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Interfaces that exist, and ids that do not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PresentInterfaces {
    /// Those EC2 knows.
    pub found: Vec<NetworkInterface>,
    /// Those it does not (any more, or yet).
    pub missing: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    #[serde(default, rename = "networkInterfaceSet", deserialize_with = "items")]
    interfaces: Vec<NetworkInterface>,
    #[serde(default, deserialize_with = "optional")]
    next_token: Option<String>,
}

impl Ec2 {
    /// The interfaces with these ids.
    ///
    /// # Errors
    /// `Gone` if one of them does not exist: EC2 then answers for none, see [`Ec2Error::missing_interfaces`] and
    /// [`Ec2::describe_present_network_interfaces`].
    pub async fn describe_network_interfaces(
        &self,
        ids: &[String],
    ) -> Result<Vec<NetworkInterface>, Ec2Error> {
        // Without ids EC2 would answer with every interface of the region.
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut form = Form::new(Ec2Action::DescribeNetworkInterfaces);
        form.list("NetworkInterfaceId", ids);
        Ok(self
            .call::<Answer>(Ec2Action::DescribeNetworkInterfaces, form)
            .await?
            .interfaces)
    }

    /// The interfaces that match every filter, all pages.
    ///
    /// # Errors
    /// As EC2 answers.
    pub async fn find_network_interfaces(
        &self,
        filters: &[Filter],
    ) -> Result<Vec<NetworkInterface>, Ec2Error> {
        let mut form = Form::new(Ec2Action::DescribeNetworkInterfaces);
        form.filters(filters);
        self.pages(Ec2Action::DescribeNetworkInterfaces, form, |answer: Answer| {
            (answer.interfaces, answer.next_token)
        })
        .await
    }

    /// The interfaces with these ids as far as they exist. Ids EC2 does not know are dropped and the rest is asked for again at once.
    ///
    /// # Errors
    /// As EC2 answers, but never `Gone` for interfaces.
    pub async fn describe_present_network_interfaces(
        &self,
        ids: &[String],
    ) -> Result<PresentInterfaces, Ec2Error> {
        let mut wanted = ids.to_vec();
        let mut missing = Vec::new();
        loop {
            let error = match self.describe_network_interfaces(&wanted).await {
                Ok(found) => return Ok(PresentInterfaces { found, missing }),
                Err(error) => error,
            };
            let unknown = error.missing_interfaces();
            let before = wanted.len();
            wanted.retain(|id| !unknown.contains(&id.as_str()));
            // Each round drops an id or ends, so there are at most as many rounds as ids.
            if wanted.len() == before {
                return Err(error);
            }
            missing.extend(ids.iter().filter(|id| unknown.contains(&id.as_str())).cloned());
        }
    }
}
