//! Forms into requests: interfaces, tags, and the Describe calls.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::params::Params;
use crate::model::{
    ApiError, AssignIpv6Addresses, AssignPrivateIpAddresses, AttachNetworkInterface, AttributeChange,
    ConnectionTracking, CreateNetworkInterface, Describe, Filter, GroupId, InterfaceKind, Ipv6, Request,
    Tags, Wanted, WantedIpv6,
};

/// The version of the API that is spoken.
pub(crate) const VERSION: &str = "2016-11-15";

/// A reader of one action's parameters.
type Reader = fn(&mut Params) -> Result<Request, ApiError>;

/// Every action, as EC2 calls it.
const ACTIONS: &[(&str, Reader)] = &[
    ("AssignIpv6Addresses", assign_ipv6),
    ("AssignPrivateIpAddresses", assign),
    ("AttachNetworkInterface", attach),
    ("CreateNetworkInterface", create),
    ("CreateTags", create_tags),
    ("DeleteNetworkInterface", delete),
    ("DeleteTags", delete_tags),
    ("DescribeInstances", |p| {
        Ok(Request::DescribeInstances(describe(p, "InstanceId")?))
    }),
    ("DescribeInstanceTypes", |p| {
        Ok(Request::DescribeInstanceTypes(describe(p, "InstanceType")?))
    }),
    ("DescribeNetworkInterfaces", |p| {
        Ok(Request::DescribeNetworkInterfaces(describe(
            p,
            "NetworkInterfaceId",
        )?))
    }),
    ("DescribeSecurityGroups", describe_groups),
    ("DescribeSubnets", |p| {
        Ok(Request::DescribeSubnets(describe(p, "SubnetId")?))
    }),
    ("DescribeVpcs", |p| {
        Ok(Request::DescribeVpcs(describe(p, "VpcId")?))
    }),
    ("DetachNetworkInterface", detach),
    (
        "ModifyInstanceMetadataOptions",
        super::parse_instances::metadata_options,
    ),
    ("ModifyNetworkInterfaceAttribute", modify),
    ("RunInstances", super::parse_instances::run),
    ("TerminateInstances", super::parse_instances::terminate),
    ("UnassignIpv6Addresses", unassign_ipv6),
    ("UnassignPrivateIpAddresses", unassign),
];

/// Reads a call. A known action with wrong parameters is a request too: it is refused in its turn.
///
/// # Errors
/// Where the action or the version is not known.
pub(crate) fn request(mut params: Params) -> Result<Request, ApiError> {
    let action = params.take("Action").ok_or_else(|| {
        ApiError::client(
            "MissingAction",
            "The request is missing an action or a required parameter.",
        )
    })?;
    let version = params.take("Version").unwrap_or_default();
    let Some((action, read)) = ACTIONS.iter().find(|(name, _)| *name == action) else {
        return Err(ApiError::client(
            "InvalidAction",
            format!("The action {action} is not valid for this web service."),
        ));
    };
    if version != VERSION {
        return Err(ApiError::client(
            "NoSuchVersion",
            format!("The requested version ({version}) of service EC2 does not exist"),
        ));
    }
    let dry_run = params.flag("DryRun");
    let request = dry_run.and_then(|dry| {
        let request = read(&mut params)?;
        params.finish()?;
        if dry == Some(true) {
            return Err(ApiError::with_status(
                412,
                "DryRunOperation",
                "Request would have succeeded, but DryRun flag is set.",
            ));
        }
        Ok(request)
    });
    Ok(request.unwrap_or_else(|error| Request::Malformed { action, error }))
}

fn describe(params: &mut Params, ids: &str) -> Result<Describe, ApiError> {
    let mut filters = Vec::new();
    for mut filter in params.structures("Filter") {
        filters.push(Filter {
            name: filter.need("Name")?,
            values: filter.list("Value"),
        });
        filter.finish()?;
    }
    // The lab has no resources that other services manage, and every type it knows is offered.
    params.flag("IncludeManagedResources")?;
    params.flag("IncludeUnsupportedInRegion")?;
    Ok(Describe {
        ids: params.list(ids),
        filters,
        max_results: params.count("MaxResults")?,
        next_token: params.take("NextToken"),
    })
}

fn describe_groups(params: &mut Params) -> Result<Request, ApiError> {
    let names = params.list("GroupName");
    let mut describe = describe(params, "GroupId")?;
    describe.ids.extend(names);
    Ok(Request::DescribeSecurityGroups(describe))
}

/// So many, or these; EC2 refuses both.
pub(crate) fn wanted<T>(
    params: &Params,
    (count_name, count): (&str, Option<u32>),
    (list_name, list): (&str, Vec<T>),
) -> Result<Wanted<T>, ApiError> {
    match count {
        Some(_) if !list.is_empty() => Err(ApiError::combination(format!(
            "The parameters {count_name} and {list_name} cannot be used together"
        ))),
        Some(0) if list.is_empty() => Err(params.bad(count_name, "0")),
        Some(n) => Ok(Wanted::Count(n)),
        None if list.is_empty() => Ok(Wanted::Count(0)),
        None => Ok(Wanted::These(list)),
    }
}

/// Primary address, secondary addresses and prefixes, as CreateNetworkInterface and RunInstances name them.
pub(crate) struct Addresses {
    pub(crate) primary: Option<Ipv4Addr>,
    pub(crate) secondary: Wanted<Ipv4Addr>,
    pub(crate) prefixes: Wanted<Ipv4Net>,
}

pub(crate) fn addresses(params: &mut Params) -> Result<Addresses, ApiError> {
    let mut primary = params.parse("PrivateIpAddress")?;
    let mut named = Vec::new();
    for mut item in params.structures("PrivateIpAddresses") {
        let address: Ipv4Addr = item
            .parse("PrivateIpAddress")?
            .ok_or_else(|| ApiError::missing("privateIpAddresses.privateIpAddress"))?;
        if item.flag("Primary")? == Some(true) {
            if primary.is_some_and(|p| p != address) {
                return Err(ApiError::combination(
                    "Only one primary private IP address can be specified.",
                ));
            }
            primary = Some(address);
        } else {
            named.push(address);
        }
        item.finish()?;
    }
    let mut prefixes = Vec::new();
    for mut item in params.structures("Ipv4Prefix") {
        prefixes.push(
            item.parse("Ipv4Prefix")?
                .ok_or_else(|| ApiError::missing("ipv4Prefix"))?,
        );
        item.finish()?;
    }
    let count = params.count("SecondaryPrivateIpAddressCount")?;
    let prefix_count = params.count("Ipv4PrefixCount")?;
    // A count of none is what SDKs send for a field left at its zero value.
    let (count, prefix_count) = (count.filter(|n| *n > 0), prefix_count.filter(|n| *n > 0));
    Ok(Addresses {
        primary,
        secondary: wanted(
            params,
            ("secondaryPrivateIpAddressCount", count),
            ("privateIpAddresses", named),
        )?,
        prefixes: wanted(
            params,
            ("ipv4PrefixCount", prefix_count),
            ("ipv4Prefixes", prefixes),
        )?,
    })
}

/// IPv6 addresses and prefixes, as CreateNetworkInterface and RunInstances name them; `list` is what they call the addresses.
pub(crate) fn ipv6(params: &mut Params, list: &str) -> Result<WantedIpv6, ApiError> {
    let mut named: Vec<Ipv6Addr> = Vec::new();
    for mut item in params.structures(list) {
        // The first address is the interface's own either way.
        item.flag("IsPrimaryIpv6")?;
        let address = item.parse("Ipv6Address")?;
        named.push(address.ok_or_else(|| ApiError::missing("ipv6Addresses.ipv6Address"))?);
        item.finish()?;
    }
    let mut prefixes: Vec<Ipv6Net> = Vec::new();
    for mut item in params.structures("Ipv6Prefix") {
        let prefix = item.parse("Ipv6Prefix")?;
        prefixes.push(prefix.ok_or_else(|| ApiError::missing("ipv6Prefix"))?);
        item.finish()?;
    }
    wanted_ipv6(params, named, prefixes)
}

fn wanted_ipv6(
    params: &mut Params,
    named: Vec<Ipv6Addr>,
    prefixes: Vec<Ipv6Net>,
) -> Result<WantedIpv6, ApiError> {
    let count = params.count("Ipv6AddressCount")?.filter(|n| *n > 0);
    let prefix_count = params.count("Ipv6PrefixCount")?.filter(|n| *n > 0);
    Ok(WantedIpv6 {
        addresses: wanted(params, ("ipv6AddressCount", count), ("ipv6Addresses", named))?,
        prefixes: wanted(
            params,
            ("ipv6PrefixCount", prefix_count),
            ("ipv6Prefixes", prefixes),
        )?,
    })
}

fn assign_ipv6(params: &mut Params) -> Result<Request, ApiError> {
    let eni = params.need("NetworkInterfaceId")?.into();
    let named = params.parsed_list("Ipv6Addresses")?;
    let prefixes = params.parsed_list("Ipv6Prefix")?;
    let ipv6 = wanted_ipv6(params, named, prefixes)?;
    if ipv6.is_nothing() {
        return Err(ApiError::missing("ipv6AddressCount or ipv6Addresses"));
    }
    Ok(Request::AssignIpv6Addresses(AssignIpv6Addresses { eni, ipv6 }))
}

fn unassign_ipv6(params: &mut Params) -> Result<Request, ApiError> {
    Ok(Request::UnassignIpv6Addresses {
        eni: params.need("NetworkInterfaceId")?.into(),
        ipv6: Ipv6 {
            addresses: params.parsed_list("Ipv6Addresses")?,
            prefixes: params.parsed_list("Ipv6Prefix")?,
        },
    })
}

/// Tags for one kind of resource out of `TagSpecification.N`.
pub(crate) fn tag_specifications(
    params: &mut Params,
    kinds: &[&str],
) -> Result<Vec<(String, Tags)>, ApiError> {
    let mut found = Vec::new();
    for mut item in params.structures("TagSpecification") {
        let kind = item.need("ResourceType")?;
        if !kinds.contains(&kind.as_str()) {
            return Err(ApiError::invalid_value(format!(
                "'{kind}' is not a valid taggable resource type for this operation."
            )));
        }
        found.push((kind, item.tags()?));
        item.finish()?;
    }
    Ok(found)
}

fn kind(params: &mut Params) -> Result<InterfaceKind, ApiError> {
    match params.take("InterfaceType").as_deref() {
        None | Some("interface") => Ok(InterfaceKind::Interface),
        Some("trunk") => Ok(InterfaceKind::Trunk),
        Some("branch") => Ok(InterfaceKind::Branch),
        Some("efa") => Ok(InterfaceKind::Efa),
        Some("efa-only") => Ok(InterfaceKind::EfaOnly),
        Some(other) => Err(params.bad("InterfaceType", other)),
    }
}

fn tracking(params: &mut Params) -> Result<Option<ConnectionTracking>, ApiError> {
    let Some(mut inner) = params.structure("ConnectionTrackingSpecification") else {
        return Ok(None);
    };
    let mut seconds = |name: &str, least: u32, most: u32| match inner.count(name)? {
        Some(n) if !(least..=most).contains(&n) => Err(inner.bad(name, &n.to_string())),
        other => Ok(other),
    };
    let tracking = ConnectionTracking {
        tcp_established: seconds("TcpEstablishedTimeout", 60, 432_000)?,
        udp: seconds("UdpTimeout", 30, 60)?,
        udp_stream: seconds("UdpStreamTimeout", 60, 180)?,
    };
    inner.finish()?;
    Ok(Some(tracking))
}

fn create(params: &mut Params) -> Result<Request, ApiError> {
    let subnet = params.need("SubnetId")?.into();
    let addresses = addresses(params)?;
    let ipv6 = ipv6(params, "Ipv6Addresses")?;
    let tags = tag_specifications(params, &["network-interface"])?;
    Ok(Request::CreateNetworkInterface(CreateNetworkInterface {
        subnet,
        description: params.take("Description").unwrap_or_default(),
        groups: params.list("SecurityGroupId").into_iter().map(GroupId).collect(),
        primary: addresses.primary,
        secondary: addresses.secondary,
        prefixes: addresses.prefixes,
        ipv6,
        kind: kind(params)?,
        tags: tags.into_iter().flat_map(|(_, tags)| tags).collect(),
        client_token: params.take("ClientToken").filter(|t| !t.is_empty()),
        tracking: tracking(params)?.unwrap_or_default(),
    }))
}

fn attach(params: &mut Params) -> Result<Request, ApiError> {
    Ok(Request::AttachNetworkInterface(AttachNetworkInterface {
        eni: params.need("NetworkInterfaceId")?.into(),
        instance: params.need("InstanceId")?.into(),
        device_index: params
            .count("DeviceIndex")?
            .ok_or_else(|| ApiError::missing("deviceIndex"))?,
        card: params.count("NetworkCardIndex")?.unwrap_or(0),
    }))
}

fn detach(params: &mut Params) -> Result<Request, ApiError> {
    Ok(Request::DetachNetworkInterface {
        attachment: params.need("AttachmentId")?.into(),
        force: params.flag("Force")?.unwrap_or(false),
    })
}

fn delete(params: &mut Params) -> Result<Request, ApiError> {
    Ok(Request::DeleteNetworkInterface(
        params.need("NetworkInterfaceId")?.into(),
    ))
}

fn modify(params: &mut Params) -> Result<Request, ApiError> {
    let eni = params.need("NetworkInterfaceId")?.into();
    let mut changes = Vec::new();
    if let Some(mut value) = params.structure("Description") {
        changes.push(AttributeChange::Description(value.need("Value")?));
        value.finish()?;
    }
    if let Some(mut value) = params.structure("SourceDestCheck") {
        let check = value
            .flag("Value")?
            .ok_or_else(|| ApiError::missing("sourceDestCheck.value"))?;
        changes.push(AttributeChange::SourceDestCheck(check));
        value.finish()?;
    }
    let groups = params.list("SecurityGroupId");
    if !groups.is_empty() {
        changes.push(AttributeChange::Groups(groups.into_iter().map(GroupId).collect()));
    }
    if let Some(mut value) = params.structure("Attachment") {
        changes.push(AttributeChange::DeleteOnTermination {
            attachment: value.need("AttachmentId")?.into(),
            delete: value
                .flag("DeleteOnTermination")?
                .ok_or_else(|| ApiError::missing("attachment.deleteOnTermination"))?,
        });
        value.finish()?;
    }
    if let Some(tracking) = tracking(params)? {
        changes.push(AttributeChange::Tracking(tracking));
    }
    let mut changes = changes.into_iter();
    match (changes.next(), changes.next()) {
        (Some(change), None) => Ok(Request::ModifyNetworkInterfaceAttribute { eni, change }),
        (None, _) => Err(ApiError::combination("No attributes specified.")),
        (Some(_), Some(_)) => Err(ApiError::combination(
            "Fields for multiple attribute types specified: one at a time can be modified",
        )),
    }
}

fn assign(params: &mut Params) -> Result<Request, ApiError> {
    let eni = params.need("NetworkInterfaceId")?.into();
    let count = params.count("SecondaryPrivateIpAddressCount")?;
    let addresses = params.parsed_list("PrivateIpAddress")?;
    let prefix_count = params.count("Ipv4PrefixCount")?;
    let prefixes = params.parsed_list("Ipv4Prefix")?;
    if count.is_none() && prefix_count.is_none() && addresses.is_empty() && prefixes.is_empty() {
        return Err(ApiError::missing(
            "secondaryPrivateIpAddressCount or privateIpAddress",
        ));
    }
    Ok(Request::AssignPrivateIpAddresses(AssignPrivateIpAddresses {
        eni,
        addresses: wanted(
            params,
            ("secondaryPrivateIpAddressCount", count),
            ("privateIpAddress", addresses),
        )?,
        prefixes: wanted(
            params,
            ("ipv4PrefixCount", prefix_count),
            ("ipv4Prefix", prefixes),
        )?,
        allow_reassignment: params.flag("AllowReassignment")?.unwrap_or(false),
    }))
}

fn unassign(params: &mut Params) -> Result<Request, ApiError> {
    Ok(Request::UnassignPrivateIpAddresses {
        eni: params.need("NetworkInterfaceId")?.into(),
        addresses: params.parsed_list("PrivateIpAddress")?,
        prefixes: params.parsed_list("Ipv4Prefix")?,
    })
}

fn create_tags(params: &mut Params) -> Result<Request, ApiError> {
    Ok(Request::CreateTags {
        resources: params.list("ResourceId"),
        tags: params.tags()?,
    })
}

fn delete_tags(params: &mut Params) -> Result<Request, ApiError> {
    let resources = params.list("ResourceId");
    let mut tags = Vec::new();
    for mut tag in params.structures("Tag") {
        tags.push((tag.need("Key")?, tag.take("Value")));
        tag.finish()?;
    }
    Ok(Request::DeleteTags { resources, tags })
}
