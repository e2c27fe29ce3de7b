//! Whether the credentials may make a call, without making it: EC2's `DryRun`, which checks the rights and then stops.

use super::Ec2;
use super::call::Done;
use super::form::Form;
use crate::{Ec2Action, Ec2Error};

/// What the call would be about; EC2 wants it named, and policies may go by it.
#[derive(Debug, Clone)]
pub struct DryRun<'a> {
    /// The instance.
    pub instance: &'a str,
    /// One of its interfaces.
    pub interface: &'a str,
    /// The subnet that a new interface would be in.
    pub subnet: &'a str,
}

/// EC2's word for yes.
const YES: &str = "DryRunOperation";
/// And for no.
const NO: &str = "UnauthorizedOperation";

impl Ec2 {
    /// Whether `action` would be permitted. Nothing is changed. Only for actions that change something and that the agent makes.
    ///
    /// # Errors
    /// EC2 says neither yes nor no.
    pub async fn may(&self, action: Ec2Action, about: &DryRun<'_>) -> Result<bool, Ec2Error> {
        let mut form = Form::new(action);
        match action {
            Ec2Action::CreateNetworkInterface => form.put("SubnetId", about.subnet),
            Ec2Action::AttachNetworkInterface => {
                form.put("NetworkInterfaceId", about.interface);
                form.put("InstanceId", about.instance);
                form.number("DeviceIndex", 1);
            }
            Ec2Action::DetachNetworkInterface => form.put("AttachmentId", "eni-attach-00000000000000000"),
            Ec2Action::ModifyNetworkInterfaceAttribute => {
                form.put("NetworkInterfaceId", about.interface);
                form.put("Description.Value", "vpcnet");
            }
            Ec2Action::AssignPrivateIpAddresses => {
                form.put("NetworkInterfaceId", about.interface);
                form.number("SecondaryPrivateIpAddressCount", 1);
            }
            Ec2Action::AssignIpv6Addresses => {
                form.put("NetworkInterfaceId", about.interface);
                form.number("Ipv6PrefixCount", 1);
            }
            Ec2Action::UnassignPrivateIpAddresses => {
                form.put("NetworkInterfaceId", about.interface);
                // Of documentation (RFC 5737): nobody has it.
                form.put("PrivateIpAddress.1", "192.0.2.1");
            }
            Ec2Action::CreateTags => {
                form.put("ResourceId.1", about.interface);
                form.put("Tag.1.Key", "node.k8s.amazonaws.com/instance_id");
                form.put("Tag.1.Value", about.instance);
            }
            _ => form.put("NetworkInterfaceId", about.interface),
        }
        form.put("DryRun", "true");
        match self.call::<Done>(action, form).await {
            // It did what it was told not to do: an EC2 that does not know the parameter.
            Ok(_) => Ok(true),
            Err(error) if error.code == YES => Ok(true),
            Err(error) if error.code == NO => Ok(false),
            Err(error) => Err(error),
        }
    }
}
