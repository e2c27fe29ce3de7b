//! Answers into XML: subnets, the VPC, security groups, instance types.

use std::sync::Arc;

use vpcnet_limits::{Hypervisor, InstanceLimits};

use super::xml::Xml;
use crate::model::{Group, Page, Protocol, Rule, RulePeer, SubnetRoute, SubnetView, Vpc, VpcView};

/// DescribeSubnets.
pub(crate) fn subnets(x: &mut Xml, vpc: &Vpc, page: &Page<SubnetView>) {
    x.items("subnetSet", &page.items, |x, view| {
        let s = &view.subnet;
        x.leaf("subnetId", &s.id);
        x.leaf("subnetArn", arn(vpc, "subnet", s.id.as_str()));
        x.leaf("state", "available");
        x.leaf("ownerId", &vpc.config().account);
        x.leaf("vpcId", vpc.id());
        x.leaf("cidrBlock", s.cidr);
        x.items("ipv6CidrBlockAssociationSet", s.ipv6, |x, cidr| {
            x.leaf("ipv6CidrBlock", cidr);
            x.leaf("associationId", "subnet-cidr-assoc-00000000000000006");
            x.element("ipv6CidrBlockState", |x| x.leaf("state", "associated"));
        });
        x.leaf("availableIpAddressCount", view.free);
        x.leaf("availabilityZone", &s.zone);
        x.leaf("availabilityZoneId", &s.zone_id);
        x.leaf("defaultForAz", false);
        x.leaf("mapPublicIpOnLaunch", s.route == SubnetRoute::Public);
        x.leaf("assignIpv6AddressOnCreation", s.ipv6.is_some());
        x.leaf("mapCustomerOwnedIpOnLaunch", false);
        x.leaf("enableDns64", false);
        x.leaf("ipv6Native", false);
        x.tags(&s.tags);
    });
    x.leaf_if("nextToken", page.next_token.as_ref());
}

/// DescribeVpcs.
pub(crate) fn vpcs(x: &mut Xml, vpc: &Vpc, page: &Page<VpcView>) {
    x.items("vpcSet", &page.items, |x, view| {
        x.leaf("vpcId", &view.id);
        x.leaf("ownerId", &vpc.config().account);
        x.leaf("state", "available");
        x.leaf_if("cidrBlock", view.cidrs.first());
        x.items(
            "cidrBlockAssociationSet",
            view.cidrs.iter().enumerate(),
            |x, (n, cidr)| {
                x.leaf("cidrBlock", cidr);
                x.leaf("associationId", format!("vpc-cidr-assoc-{n:017x}"));
                x.element("cidrBlockState", |x| x.leaf("state", "associated"));
            },
        );
        if let Some(cidr) = view.ipv6 {
            x.items("ipv6CidrBlockAssociationSet", [cidr], |x, cidr| {
                x.leaf("ipv6CidrBlock", cidr);
                x.leaf("associationId", "vpc-cidr-assoc-00000000000000006");
                x.leaf("ipv6Pool", "Amazon");
                x.leaf("networkBorderGroup", &vpc.config().region);
                x.element("ipv6CidrBlockState", |x| x.leaf("state", "associated"));
            });
        }
        x.leaf("dhcpOptionsId", "dopt-00000000000000001");
        x.leaf("instanceTenancy", "default");
        x.leaf("isDefault", false);
        x.tags(&view.tags);
    });
    x.leaf_if("nextToken", page.next_token.as_ref());
}

/// DescribeSecurityGroups.
pub(crate) fn groups(x: &mut Xml, vpc: &Vpc, page: &Page<Arc<Group>>) {
    x.items("securityGroupInfo", &page.items, |x, group| {
        x.leaf("ownerId", &vpc.config().account);
        x.leaf("groupId", &group.id);
        x.leaf("groupName", &group.name);
        x.leaf("groupDescription", &group.description);
        x.leaf("securityGroupArn", arn(vpc, "security-group", group.id.as_str()));
        x.leaf("vpcId", vpc.id());
        x.items("ipPermissions", &group.ingress, |x, rule| {
            permission(x, vpc, rule)
        });
        x.items("ipPermissionsEgress", &group.egress, |x, rule| {
            permission(x, vpc, rule)
        });
        if !group.tags.is_empty() {
            x.tags(&group.tags);
        }
    });
    x.leaf_if("nextToken", page.next_token.as_ref());
}

fn permission(x: &mut Xml, vpc: &Vpc, rule: &Rule) {
    x.leaf(
        "ipProtocol",
        match rule.protocol {
            Protocol::All => "-1",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp if matches!(rule.peer, RulePeer::Ipv6(_)) => "icmpv6",
            Protocol::Icmp => "icmp",
        },
    );
    // Rules for every protocol have no ports; ICMP's "all" is -1.
    match (rule.protocol, rule.ports) {
        (Protocol::All, _) => {}
        (_, Some((first, last))) => {
            x.leaf("fromPort", first);
            x.leaf("toPort", last);
        }
        (Protocol::Icmp, None) => {
            x.leaf("fromPort", -1);
            x.leaf("toPort", -1);
        }
        (_, None) => {
            x.leaf("fromPort", 0);
            x.leaf("toPort", 65_535);
        }
    }
    let group = match &rule.peer {
        RulePeer::Group(name) => vpc.group_named(name),
        RulePeer::Cidr(_) | RulePeer::Ipv6(_) => None,
    };
    x.items("groups", group, |x, id| {
        x.leaf("userId", &vpc.config().account);
        x.leaf("groupId", id);
    });
    let cidr = match &rule.peer {
        RulePeer::Cidr(cidr) => Some(cidr),
        RulePeer::Group(_) | RulePeer::Ipv6(_) => None,
    };
    x.items("ipRanges", cidr, |x, cidr| x.leaf("cidrIp", cidr));
    let ipv6 = match &rule.peer {
        RulePeer::Ipv6(cidr) => Some(cidr),
        RulePeer::Group(_) | RulePeer::Cidr(_) => None,
    };
    x.items("ipv6Ranges", ipv6, |x, cidr| x.leaf("cidrIpv6", cidr));
    x.element("prefixListIds", |_| ());
}

/// DescribeInstanceTypes: what the limits table knows of each.
pub(crate) fn instance_types(x: &mut Xml, page: &Page<InstanceLimits>) {
    x.items("instanceTypeSet", &page.items, |x, limits| {
        x.leaf("instanceType", &limits.instance_type);
        x.leaf("currentGeneration", true);
        x.leaf("bareMetal", limits.bare_metal);
        x.leaf_if(
            "hypervisor",
            match limits.hypervisor {
                Hypervisor::Nitro => Some("nitro"),
                Hypervisor::Xen => Some("xen"),
                Hypervisor::Unknown => None,
            },
        );
        x.element("networkInfo", |x| {
            x.leaf(
                "maximumNetworkInterfaces",
                limits.cards.iter().map(|c| c.interfaces).sum::<u32>(),
            );
            x.leaf("maximumNetworkCards", limits.cards.len());
            x.leaf("defaultNetworkCardIndex", limits.default_card);
            x.items("networkCards", &limits.cards, |x, card| {
                x.leaf("networkCardIndex", card.card);
                x.leaf("maximumNetworkInterfaces", card.interfaces);
            });
            x.leaf("ipv4AddressesPerInterface", limits.ipv4_per_interface);
            x.leaf("ipv6AddressesPerInterface", limits.ipv4_per_interface);
            x.leaf("ipv6Supported", true);
            x.leaf("enaSupport", "required");
        });
    });
    x.leaf_if("nextToken", page.next_token.as_ref());
}

fn arn(vpc: &Vpc, kind: &str, id: &str) -> String {
    let config = vpc.config();
    format!("arn:aws:ec2:{}:{}:{kind}/{id}", config.region, config.account)
}
