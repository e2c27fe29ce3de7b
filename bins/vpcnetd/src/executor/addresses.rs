//! Addresses and prefixes of interfaces that are there.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use vpcnet_cloud::AddressRequest;
use vpcnet_ipam::{CardIndex, DeviceIndex, EniId, InterfaceFacts, Outcome, SubnetId};

use super::tags::or_tag;
use super::{Cloud, Failure, facts_of};

pub(super) async fn assign(cloud: &Cloud, eni: &EniId, count: u32) -> Result<Outcome, Failure> {
    let wish = || {
        let amount = AddressRequest::Addresses(count);
        cloud.ec2.assign_private_ip_addresses(&eni.0, amount)
    };
    let given = or_tag(cloud, eni, wish).await?;
    Ok(Outcome::Assigned {
        addresses: given.addresses,
        prefixes: given.prefixes,
    })
}

pub(super) async fn assign_prefixes(cloud: &Cloud, eni: &EniId, count: u32) -> Result<Outcome, Failure> {
    let wish = || {
        let amount = AddressRequest::Prefixes(count);
        cloud.ec2.assign_private_ip_addresses(&eni.0, amount)
    };
    let given = or_tag(cloud, eni, wish).await?;
    Ok(Outcome::Assigned {
        addresses: given.addresses,
        prefixes: given.prefixes,
    })
}

pub(super) async fn assign_ipv6_prefix(cloud: &Cloud, eni: &EniId) -> Result<Outcome, Failure> {
    let given = or_tag(cloud, eni, || cloud.ec2.assign_ipv6_addresses(&eni.0, 0, 1)).await?;
    Ok(Outcome::AssignedIpv6 {
        prefixes: given.prefixes,
    })
}

pub(super) async fn release(
    cloud: &Cloud,
    eni: &EniId,
    addresses: &[Ipv4Addr],
    prefixes: &[Ipv4Net],
) -> Result<Outcome, Failure> {
    let wish = || {
        cloud
            .ec2
            .unassign_private_ip_addresses(&eni.0, addresses, prefixes)
    };
    or_tag(cloud, eni, wish).await?;
    Ok(Outcome::Gone)
}

pub(super) async fn describe(cloud: &Cloud, eni: &EniId) -> Result<Outcome, Failure> {
    Ok(Outcome::Described(look(cloud, eni).await?))
}

/// What EC2 says of an interface; `None` when it does not exist or is not attached to this instance.
async fn look(cloud: &Cloud, eni: &EniId) -> Result<Option<InterfaceFacts>, Failure> {
    let present = cloud
        .ec2
        .describe_present_network_interfaces(std::slice::from_ref(&eni.0))
        .await?;
    let Some(found) = present.found.into_iter().next() else {
        return Ok(None);
    };
    let Some(attachment) = found
        .attachment
        .as_ref()
        .filter(|a| a.instance_id == cloud.machine.instance_id)
    else {
        return Ok(None);
    };
    let device = DeviceIndex(attachment.device_index.unwrap_or_default());
    let card = CardIndex(attachment.network_card_index.unwrap_or_default());
    let cidr = cloud.subnet_cidr(&SubnetId(found.subnet_id.clone())).await?;
    Ok(facts_of(&found, card, device, cidr, &cloud.ownership))
}
