//! Answers into XML: instances.

use super::render::{address_set, group_set, ipv6_sets, prefix_set};
use super::xml::Xml;
use crate::model::{HttpTokens, Instance, InstanceId, InstanceState, InstanceView, Interface, Page, Vpc};

/// DescribeInstances: instances under the reservation that started them.
pub(crate) fn instances(x: &mut Xml, vpc: &Vpc, page: &Page<InstanceView>) {
    // They come in the order of their reservations.
    let reservations = page
        .items
        .chunk_by(|a, b| a.instance.reservation == b.instance.reservation);
    x.items("reservationSet", reservations, |x, views| {
        reservation(x, vpc, views)
    });
    x.leaf_if("nextToken", page.next_token.as_ref());
}

/// RunInstances: one reservation.
pub(crate) fn started(x: &mut Xml, vpc: &Vpc, views: &[InstanceView]) {
    reservation(x, vpc, views);
}

/// TerminateInstances.
pub(crate) fn terminating(x: &mut Xml, changes: &[(InstanceId, InstanceState, InstanceState)]) {
    x.items("instancesSet", changes, |x, (id, before, after)| {
        x.leaf("instanceId", id);
        x.element("currentState", |x| state(x, *after));
        x.element("previousState", |x| state(x, *before));
    });
}

/// ModifyInstanceMetadataOptions.
pub(crate) fn metadata(x: &mut Xml, instance: &Instance) {
    x.leaf("instanceId", &instance.id);
    x.element("instanceMetadataOptions", |x| {
        metadata_options(x, instance, "pending")
    });
}

fn metadata_options(x: &mut Xml, instance: &Instance, state: &str) {
    x.leaf("state", state);
    x.leaf(
        "httpTokens",
        match instance.http_tokens {
            HttpTokens::Required => "required",
            HttpTokens::Optional => "optional",
        },
    );
    x.leaf("httpPutResponseHopLimit", instance.hop_limit);
    x.leaf("httpEndpoint", "enabled");
    x.leaf("httpProtocolIpv6", "disabled");
    x.leaf("instanceMetadataTags", "disabled");
}

fn state(x: &mut Xml, state: InstanceState) {
    let (code, name) = state.code_name();
    x.leaf("code", code);
    x.leaf("name", name);
}

fn reservation(x: &mut Xml, vpc: &Vpc, views: &[InstanceView]) {
    if let Some(first) = views.first() {
        x.leaf("reservationId", &first.instance.reservation);
    }
    x.leaf("ownerId", &vpc.config().account);
    x.element("groupSet", |_| ());
    x.items("instancesSet", views, |x, view| instance(x, vpc, view));
}

fn instance(x: &mut Xml, vpc: &Vpc, view: &InstanceView) {
    let i = &view.instance;
    let primary = view.interfaces.iter().find(|n| n.id == i.primary);
    let address = primary.and_then(|p| p.primary);
    let public = primary.and_then(|p| p.public);
    x.leaf("instanceId", &i.id);
    x.leaf("imageId", &i.image);
    x.element("instanceState", |x| state(x, i.state));
    x.leaf(
        "privateDnsName",
        address.map(|a| vpc.private_name(a)).unwrap_or_default(),
    );
    x.leaf("dnsName", public.map(|a| vpc.public_name(a)).unwrap_or_default());
    x.leaf("reason", "");
    x.leaf("amiLaunchIndex", i.launch_index);
    x.element("productCodes", |_| ());
    x.leaf("instanceType", &i.instance_type);
    x.leaf("launchTime", vpc.moment(i.launched));
    if let Some(subnet) = vpc.subnet_of(&i.subnet) {
        x.element("placement", |x| {
            x.leaf("availabilityZone", &subnet.zone);
            x.leaf("availabilityZoneId", &subnet.zone_id);
            x.leaf("groupName", "");
            x.leaf("tenancy", "default");
        });
    }
    x.element("monitoring", |x| x.leaf("state", "disabled"));
    // A terminated instance is in no subnet any more.
    if i.exists() {
        x.leaf("subnetId", &i.subnet);
        x.leaf("vpcId", vpc.id());
        x.leaf_if("privateIpAddress", address);
        x.leaf_if("ipAddress", public);
        x.leaf_if("ipv6Address", primary.and_then(|p| p.ipv6.addresses.first()));
    }
    if let Some(primary) = primary {
        x.leaf("sourceDestCheck", primary.source_dest_check);
        group_set(x, vpc, &primary.groups);
    }
    x.leaf("architecture", "x86_64");
    x.leaf("rootDeviceType", "ebs");
    x.leaf("rootDeviceName", "/dev/xvda");
    x.element("blockDeviceMapping", |_| ());
    x.leaf("virtualizationType", "hvm");
    x.leaf_if("clientToken", i.client_token.as_ref());
    x.tags(&i.tags);
    x.leaf("hypervisor", "xen");
    x.items("networkInterfaceSet", &view.interfaces, |x, n| {
        interface(x, vpc, n)
    });
    if let Some(role) = &i.role {
        x.element("iamInstanceProfile", |x| {
            x.leaf(
                "arn",
                format!("arn:aws:iam::{}:instance-profile/{role}", vpc.config().account),
            );
            x.leaf("id", "AIPAVPCNETLAB00000001");
        });
    }
    x.leaf("ebsOptimized", false);
    x.leaf("enaSupport", true);
    x.element("metadataOptions", |x| metadata_options(x, i, "applied"));
}

fn interface(x: &mut Xml, vpc: &Vpc, n: &Interface) {
    x.leaf("networkInterfaceId", &n.id);
    x.leaf("subnetId", &n.subnet);
    x.leaf("vpcId", vpc.id());
    x.leaf("description", &n.description);
    x.leaf("ownerId", &vpc.config().account);
    // Whatever is bound to an instance is in use for DescribeInstances; the attachment tells how far it is.
    x.leaf("status", "in-use");
    x.leaf("macAddress", n.mac);
    if let Some(primary) = n.primary {
        x.leaf("privateIpAddress", primary);
        x.leaf("privateDnsName", vpc.private_name(primary));
    }
    x.leaf("sourceDestCheck", n.source_dest_check);
    group_set(x, vpc, &n.groups);
    if let Some(a) = &n.attachment {
        x.element("attachment", |x| {
            x.leaf("attachmentId", &a.id);
            x.leaf("deviceIndex", a.device_index);
            x.leaf("networkCardIndex", a.card);
            x.leaf("status", n.status.attachment());
            x.leaf("attachTime", vpc.moment(a.at));
            x.leaf("deleteOnTermination", a.delete_on_termination);
        });
    }
    if let Some(public) = n.public {
        x.element("association", |x| {
            x.leaf("publicIp", public);
            x.leaf("publicDnsName", vpc.public_name(public));
            x.leaf("ipOwnerId", "amazon");
        });
    }
    address_set(x, vpc, n);
    prefix_set(x, n);
    ipv6_sets(x, n);
    x.leaf("interfaceType", n.kind.as_str());
}
