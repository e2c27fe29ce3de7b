//! Answers into XML: which one, and interfaces.

use super::xml::Xml;
use crate::model::{ApiError, EniId, GroupId, Interface, Ipv6, Response, Vpc};

/// The body of an answer.
pub(crate) fn render(
    vpc: &Vpc,
    action: &str,
    request_id: &str,
    outcome: &Result<Response, ApiError>,
) -> String {
    match outcome {
        Err(error) => Xml::refusal(&error.code, &error.message, request_id),
        Ok(response) => Xml::answer(action, request_id, |x| body(x, vpc, response)),
    }
}

fn body(x: &mut Xml, vpc: &Vpc, response: &Response) {
    match response {
        Response::Done => x.leaf("return", true),
        Response::Interfaces(page) => {
            x.items("networkInterfaceSet", &page.items, |x, i| interface(x, vpc, i));
            x.leaf_if("nextToken", page.next_token.as_ref());
        }
        Response::Created {
            interface: created,
            client_token,
        } => {
            x.element("networkInterface", |x| interface(x, vpc, created));
            x.leaf_if("clientToken", client_token.as_ref());
        }
        Response::Attached { attachment, card } => {
            x.leaf("attachmentId", attachment);
            x.leaf("networkCardIndex", card);
        }
        Response::Assigned {
            eni,
            addresses,
            prefixes,
        } => assigned(x, eni, addresses, prefixes),
        Response::AssignedIpv6 { eni, ipv6 } => {
            changed_ipv6(x, eni, ipv6, ("assignedIpv6Addresses", "assignedIpv6PrefixSet"));
        }
        Response::UnassignedIpv6 { eni, ipv6 } => {
            changed_ipv6(
                x,
                eni,
                ipv6,
                ("unassignedIpv6Addresses", "unassignedIpv6PrefixSet"),
            );
        }
        Response::Instances(page) => super::render_instances::instances(x, vpc, page),
        Response::InstanceTypes(page) => super::render_network::instance_types(x, page),
        Response::Started(views) => super::render_instances::started(x, vpc, views),
        Response::Terminating(changes) => super::render_instances::terminating(x, changes),
        Response::MetadataOptions(instance) => super::render_instances::metadata(x, instance),
        Response::Subnets(page) => super::render_network::subnets(x, vpc, page),
        Response::Vpcs(page) => super::render_network::vpcs(x, vpc, page),
        Response::SecurityGroups(page) => super::render_network::groups(x, vpc, page),
    }
}

fn assigned(x: &mut Xml, eni: &EniId, addresses: &[std::net::Ipv4Addr], prefixes: &[ipnet::Ipv4Net]) {
    x.leaf("return", true);
    x.leaf("networkInterfaceId", eni);
    x.items("assignedPrivateIpAddressesSet", addresses, |x, a| {
        x.leaf("privateIpAddress", a)
    });
    x.items("assignedIpv4PrefixSet", prefixes, |x, p| x.leaf("ipv4Prefix", p));
}

/// Unlike in an interface's sets, the values stand in the items themselves.
fn changed_ipv6(x: &mut Xml, eni: &EniId, ipv6: &Ipv6, (addresses, prefixes): (&str, &str)) {
    x.leaf("networkInterfaceId", eni);
    x.values(addresses, &ipv6.addresses);
    x.values(prefixes, &ipv6.prefixes);
}

/// A set of groups with their names.
pub(crate) fn group_set(x: &mut Xml, vpc: &Vpc, groups: &[GroupId]) {
    x.items("groupSet", groups, |x, id| {
        x.leaf("groupId", id);
        x.leaf("groupName", vpc.group(id).map_or("", |g| g.name.as_str()));
    });
}

fn association(x: &mut Xml, vpc: &Vpc, public: std::net::Ipv4Addr) {
    x.element("association", |x| {
        x.leaf("ipOwnerId", "amazon");
        x.leaf("publicDnsName", vpc.public_name(public));
        x.leaf("publicIp", public);
    });
}

/// Addresses of an interface, the primary first.
pub(crate) fn address_set(x: &mut Xml, vpc: &Vpc, i: &Interface) {
    x.items("privateIpAddressesSet", i.addresses(), |x, address| {
        let primary = Some(address) == i.primary;
        if let Some(public) = i.public.filter(|_| primary) {
            association(x, vpc, public);
        }
        x.leaf("primary", primary);
        x.leaf("privateDnsName", vpc.private_name(address));
        x.leaf("privateIpAddress", address);
    });
}

/// Prefixes of an interface; EC2 leaves the set out where there are none.
pub(crate) fn prefix_set(x: &mut Xml, i: &Interface) {
    if !i.prefixes.is_empty() {
        x.items("ipv4PrefixSet", &i.prefixes, |x, p| x.leaf("ipv4Prefix", p));
    }
}

/// IPv6 addresses and prefixes of an interface; EC2 leaves the second set out where there are none.
pub(crate) fn ipv6_sets(x: &mut Xml, i: &Interface) {
    x.items("ipv6AddressesSet", &i.ipv6.addresses, |x, a| {
        x.leaf("ipv6Address", a);
        x.leaf("isPrimaryIpv6", false);
    });
    if !i.ipv6.prefixes.is_empty() {
        x.items("ipv6PrefixSet", &i.ipv6.prefixes, |x, p| x.leaf("ipv6Prefix", p));
    }
}

fn interface(x: &mut Xml, vpc: &Vpc, i: &Interface) {
    if let Some(public) = i.public {
        association(x, vpc, public);
    }
    if let Some(a) = &i.attachment {
        x.element("attachment", |x| {
            x.leaf("attachTime", vpc.moment(a.at));
            x.leaf("attachmentId", &a.id);
            x.leaf("deleteOnTermination", a.delete_on_termination);
            x.leaf("deviceIndex", a.device_index);
            x.leaf("networkCardIndex", a.card);
            x.leaf("instanceId", &a.instance);
            x.leaf("instanceOwnerId", &vpc.config().account);
            x.leaf("status", i.status.attachment());
        });
    }
    if let Some(subnet) = vpc.subnet_of(&i.subnet) {
        x.leaf("availabilityZone", &subnet.zone);
        x.leaf("availabilityZoneId", &subnet.zone_id);
    }
    let t = &i.tracking;
    if t.tcp_established.or(t.udp).or(t.udp_stream).is_some() {
        x.element("connectionTrackingConfiguration", |x| {
            x.leaf_if("tcpEstablishedTimeout", t.tcp_established);
            x.leaf_if("udpStreamTimeout", t.udp_stream);
            x.leaf_if("udpTimeout", t.udp);
        });
    }
    x.leaf("description", &i.description);
    group_set(x, vpc, &i.groups);
    x.leaf("interfaceType", i.kind.as_str());
    ipv6_sets(x, i);
    x.leaf("macAddress", i.mac);
    x.leaf("networkInterfaceId", &i.id);
    x.leaf("ownerId", &vpc.config().account);
    if let Some(primary) = i.primary {
        x.leaf("privateDnsName", vpc.private_name(primary));
        x.leaf("privateIpAddress", primary);
    }
    address_set(x, vpc, i);
    prefix_set(x, i);
    x.leaf("requesterId", &i.requester);
    x.leaf("requesterManaged", false);
    x.leaf("sourceDestCheck", i.source_dest_check);
    x.leaf("status", i.status.as_str());
    x.leaf("subnetId", &i.subnet);
    x.tags(&i.tags);
    x.leaf("vpcId", vpc.id());
}
