//! The actions that change network interfaces.
//!
//! None is repeated here when its effect is unknown ([`Ec2Error::effect_unknown`]): whether to look first or to repeat is for the pool, which wrote
//! the intent down. Creating carries a client token, so a repeat with the same one makes no second interface.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::call::Done;
use super::form::Form;
use super::tags;
use super::{ConnectionTracking, Ec2, NetworkInterface, Tag};
use crate::xml::{optional, values};
use crate::{Ec2Action, Ec2Error};

/// IPv4 addresses wanted. EC2 takes one kind in a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressRequest {
    /// So many single addresses, primary addresses not counted.
    Addresses(u32),
    /// So many /28 prefixes.
    Prefixes(u32),
}

impl AddressRequest {
    fn put(self, form: &mut Form) {
        match self {
            Self::Addresses(count) => form.number("SecondaryPrivateIpAddressCount", count),
            Self::Prefixes(count) => form.number("Ipv4PrefixCount", count),
        }
    }

    fn is_none(self) -> bool {
        matches!(self, Self::Addresses(0) | Self::Prefixes(0))
    }
}

/// An interface to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateNetworkInterface {
    /// Where its addresses come from.
    pub subnet_id: String,
    /// Its security groups; none means the VPC's default group.
    pub groups: Vec<String>,
    /// Free text.
    pub description: String,
    /// Makes a repeat of this very call harmless: up to 64 ASCII characters, new for each interface wanted.
    pub client_token: String,
    /// Tags it has from the start, so that IAM policies by tag apply. Must not be empty.
    pub tags: Vec<Tag>,
    /// IPv4 addresses beside the primary one.
    pub ipv4: Option<AddressRequest>,
    /// IPv6 /80 prefixes.
    pub ipv6_prefixes: u32,
    /// Connection tracking time-outs other than EC2's own.
    pub connection_tracking: Option<ConnectionTracking>,
}

/// Where an interface goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachNetworkInterface {
    /// The interface.
    pub interface_id: String,
    /// The instance.
    pub instance_id: String,
    /// Place on the network card.
    pub device_index: u32,
    /// The network card.
    pub network_card_index: u32,
}

/// The answer to an attachment.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// `eni-attach-…`; needed to detach.
    pub attachment_id: String,
    /// The network card; `None` where EC2 leaves it out (card 0).
    #[serde(default, deserialize_with = "optional")]
    pub network_card_index: Option<u32>,
}

/// A change of an interface. EC2 takes one in a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InterfaceChange {
    /// Whether the interface goes with its instance.
    DeleteOnTermination {
        /// The attachment.
        attachment_id: String,
        /// The wanted value.
        delete: bool,
    },
    /// Exactly these security groups.
    Groups(Vec<String>),
    /// Whether EC2 drops packets that are not the interface's own.
    SourceDestCheck(bool),
    /// Free text.
    Description(String),
}

/// The answer to an assignment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignedPrivateIpAddresses {
    /// Addresses newly assigned. Emulators (moto) list every address of the interface, its primary one too: a caller takes what it did not
    /// already know.
    #[serde(
        default,
        rename = "assignedPrivateIpAddressesSet",
        deserialize_with = "values"
    )]
    pub addresses: Vec<Ipv4Addr>,
    /// /28 prefixes newly assigned.
    #[serde(default, rename = "assignedIpv4PrefixSet", deserialize_with = "values")]
    pub prefixes: Vec<Ipv4Net>,
}

/// The answer to an assignment of IPv6.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignedIpv6 {
    /// Addresses newly assigned.
    #[serde(default, rename = "assignedIpv6Addresses", deserialize_with = "values")]
    pub addresses: Vec<Ipv6Addr>,
    /// /80 prefixes newly assigned.
    #[serde(default, rename = "assignedIpv6PrefixSet", deserialize_with = "values")]
    pub prefixes: Vec<Ipv6Net>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Created {
    #[serde(rename = "networkInterface")]
    interface: NetworkInterface,
}

impl Ec2 {
    /// Makes an interface. The answer has its addresses and prefixes; it is not attached to anything.
    ///
    /// # Errors
    /// `Exhausted` if the subnet cannot give the addresses, `LimitReached` by account limits; otherwise as EC2 answers.
    pub async fn create_network_interface(
        &self,
        new: &CreateNetworkInterface,
    ) -> Result<NetworkInterface, Ec2Error> {
        Ok(self
            .call::<Created>(Ec2Action::CreateNetworkInterface, create_form(new))
            .await?
            .interface)
    }

    /// Attaches an interface. The link appears on the node some time after the answer.
    ///
    /// # Errors
    /// `LimitReached` if the instance has as many as it can; `Refused` (`InvalidParameterValue`) if the device index is taken.
    pub async fn attach_network_interface(
        &self,
        attach: &AttachNetworkInterface,
    ) -> Result<Attached, Ec2Error> {
        let mut form = Form::new(Ec2Action::AttachNetworkInterface);
        form.put("NetworkInterfaceId", &attach.interface_id);
        form.put("InstanceId", &attach.instance_id);
        form.number("DeviceIndex", attach.device_index);
        // Types with one card refuse the parameter in some regions; card 0 is what EC2 takes without it.
        form.optional(
            "NetworkCardIndex",
            Some(attach.network_card_index).filter(|card| *card > 0),
        );
        self.call(Ec2Action::AttachNetworkInterface, form).await
    }

    /// Begins to detach an interface. It is free when Describe shows it as `available`. `force` is for instances that do not react; it may leave a
    /// dead device behind.
    ///
    /// # Errors
    /// `Gone` if the attachment does not exist.
    pub async fn detach_network_interface(&self, attachment_id: &str, force: bool) -> Result<(), Ec2Error> {
        let mut form = Form::new(Ec2Action::DetachNetworkInterface);
        form.put("AttachmentId", attachment_id);
        form.optional("Force", Some(true).filter(|_| force));
        self.call::<Done>(Ec2Action::DetachNetworkInterface, form)
            .await?
            .check(Ec2Action::DetachNetworkInterface)
    }

    /// Deletes an interface that is not attached.
    ///
    /// # Errors
    /// `Gone` if it does not exist, which is what the caller wants; `Retry` while it is still attached.
    pub async fn delete_network_interface(&self, interface_id: &str) -> Result<(), Ec2Error> {
        let mut form = Form::new(Ec2Action::DeleteNetworkInterface);
        form.put("NetworkInterfaceId", interface_id);
        self.call::<Done>(Ec2Action::DeleteNetworkInterface, form)
            .await?
            .check(Ec2Action::DeleteNetworkInterface)
    }

    /// Changes an attribute of an interface. Repeating it is harmless.
    ///
    /// # Errors
    /// As EC2 answers.
    pub async fn modify_network_interface_attribute(
        &self,
        interface_id: &str,
        change: &InterfaceChange,
    ) -> Result<(), Ec2Error> {
        let action = Ec2Action::ModifyNetworkInterfaceAttribute;
        let mut form = Form::new(action);
        form.put("NetworkInterfaceId", interface_id);
        match change {
            InterfaceChange::DeleteOnTermination {
                attachment_id,
                delete,
            } => {
                form.put("Attachment.AttachmentId", attachment_id);
                form.number("Attachment.DeleteOnTermination", delete);
            }
            InterfaceChange::Groups(groups) => form.list("SecurityGroupId", groups),
            InterfaceChange::SourceDestCheck(check) => form.number("SourceDestCheck.Value", check),
            InterfaceChange::Description(text) => form.put("Description.Value", text),
        }
        self.call::<Done>(action, form).await?.check(action)
    }

    /// Adds IPv4 addresses or prefixes to an interface. Asking for none makes no call.
    ///
    /// # Errors
    /// `Exhausted` if the subnet cannot give them, `LimitReached` if the interface has no room. Not idempotent: after
    /// [`Ec2Error::effect_unknown`], describe the interface before asking again.
    pub async fn assign_private_ip_addresses(
        &self,
        interface_id: &str,
        wanted: AddressRequest,
    ) -> Result<AssignedPrivateIpAddresses, Ec2Error> {
        if wanted.is_none() {
            return Ok(AssignedPrivateIpAddresses::default());
        }
        let mut form = Form::new(Ec2Action::AssignPrivateIpAddresses);
        form.put("NetworkInterfaceId", interface_id);
        wanted.put(&mut form);
        self.call(Ec2Action::AssignPrivateIpAddresses, form).await
    }

    /// Takes IPv4 addresses and prefixes from an interface. Nothing to take makes no call.
    ///
    /// # Errors
    /// As EC2 answers; addresses the interface does not have are refused.
    pub async fn unassign_private_ip_addresses(
        &self,
        interface_id: &str,
        addresses: &[Ipv4Addr],
        prefixes: &[Ipv4Net],
    ) -> Result<(), Ec2Error> {
        if addresses.is_empty() && prefixes.is_empty() {
            return Ok(());
        }
        let action = Ec2Action::UnassignPrivateIpAddresses;
        let mut form = Form::new(action);
        form.put("NetworkInterfaceId", interface_id);
        form.list("PrivateIpAddress", addresses);
        form.list("Ipv4Prefix", prefixes);
        self.call::<Done>(action, form).await?.check(action)
    }

    /// Adds IPv6 addresses and /80 prefixes to an interface. Asking for none makes no call.
    ///
    /// # Errors
    /// As for IPv4.
    pub async fn assign_ipv6_addresses(
        &self,
        interface_id: &str,
        addresses: u32,
        prefixes: u32,
    ) -> Result<AssignedIpv6, Ec2Error> {
        if addresses == 0 && prefixes == 0 {
            return Ok(AssignedIpv6::default());
        }
        let mut form = Form::new(Ec2Action::AssignIpv6Addresses);
        form.put("NetworkInterfaceId", interface_id);
        form.optional("Ipv6AddressCount", Some(addresses).filter(|n| *n > 0));
        form.optional("Ipv6PrefixCount", Some(prefixes).filter(|n| *n > 0));
        self.call(Ec2Action::AssignIpv6Addresses, form).await
    }

    /// Takes IPv6 addresses and prefixes from an interface. Nothing to take makes no call.
    ///
    /// # Errors
    /// As EC2 answers.
    pub async fn unassign_ipv6_addresses(
        &self,
        interface_id: &str,
        addresses: &[Ipv6Addr],
        prefixes: &[Ipv6Net],
    ) -> Result<(), Ec2Error> {
        if addresses.is_empty() && prefixes.is_empty() {
            return Ok(());
        }
        let action = Ec2Action::UnassignIpv6Addresses;
        let mut form = Form::new(action);
        form.put("NetworkInterfaceId", interface_id);
        form.list("Ipv6Addresses", addresses);
        form.list("Ipv6Prefix", prefixes);
        self.call::<Done>(action, form).await?.check(action)
    }
}

fn create_form(new: &CreateNetworkInterface) -> Form {
    let mut form = Form::new(Ec2Action::CreateNetworkInterface);
    form.put("SubnetId", &new.subnet_id);
    form.list("SecurityGroupId", &new.groups);
    form.put("Description", &new.description);
    form.put("ClientToken", &new.client_token);
    form.put("TagSpecification.1.ResourceType", "network-interface");
    tags::put(&mut form, "TagSpecification.1.Tag", &new.tags);
    if let Some(ipv4) = new.ipv4.filter(|wanted| !wanted.is_none()) {
        ipv4.put(&mut form);
    }
    form.optional("Ipv6PrefixCount", Some(new.ipv6_prefixes).filter(|n| *n > 0));
    if let Some(tracking) = new.connection_tracking {
        form.optional(
            "ConnectionTrackingSpecification.TcpEstablishedTimeout",
            tracking.tcp_established_timeout,
        );
        form.optional("ConnectionTrackingSpecification.UdpTimeout", tracking.udp_timeout);
        form.optional(
            "ConnectionTrackingSpecification.UdpStreamTimeout",
            tracking.udp_stream_timeout,
        );
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> CreateNetworkInterface {
        CreateNetworkInterface {
            subnet_id: "subnet-1".to_owned(),
            groups: vec!["sg-1".to_owned(), "sg-2".to_owned()],
            description: "aws-K8S-i-1".to_owned(),
            client_token: "t-1".to_owned(),
            tags: vec![Tag::new("a", "1"), Tag::new("b", "")],
            ipv4: Some(AddressRequest::Addresses(9)),
            ipv6_prefixes: 0,
            connection_tracking: None,
        }
    }

    fn body(new: &CreateNetworkInterface) -> String {
        create_form(new).into_body()
    }

    #[test]
    fn creating_always_carries_token_and_tags() {
        assert_eq!(
            body(&wanted()),
            "Action=CreateNetworkInterface&Version=2016-11-15&SubnetId=subnet-1&SecurityGroupId.1=sg-1&SecurityGroupId.2=sg-2\
             &Description=aws-K8S-i-1&ClientToken=t-1&TagSpecification.1.ResourceType=network-interface\
             &TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=1&TagSpecification.1.Tag.2.Key=b\
             &TagSpecification.1.Tag.2.Value=&SecondaryPrivateIpAddressCount=9"
        );
    }

    #[test]
    fn creating_says_only_what_is_wanted() {
        let tracking = ConnectionTracking {
            udp_timeout: Some(30),
            ..ConnectionTracking::default()
        };
        let new = CreateNetworkInterface {
            ipv4: Some(AddressRequest::Prefixes(2)),
            ipv6_prefixes: 1,
            connection_tracking: Some(tracking),
            ..wanted()
        };
        assert!(
            body(&new).ends_with(
                "&Ipv4PrefixCount=2&Ipv6PrefixCount=1&ConnectionTrackingSpecification.UdpTimeout=30"
            )
        );
        let bare = CreateNetworkInterface {
            ipv4: Some(AddressRequest::Addresses(0)),
            ..wanted()
        };
        assert!(
            !body(&bare).contains("Count"),
            "zero is not asked for: EC2 refuses a count of 0"
        );
    }
}
