//! Forms into requests: instances.

use super::params::Params;
use super::parse::{addresses, ipv6, tag_specifications};
use crate::model::{ApiError, GroupId, HttpTokens, Request, RunInstances, Tags, Wanted};

pub(crate) fn run(params: &mut Params) -> Result<Request, ApiError> {
    let least = params
        .count("MinCount")?
        .ok_or_else(|| ApiError::missing("minCount"))?;
    let most = params
        .count("MaxCount")?
        .ok_or_else(|| ApiError::missing("maxCount"))?;
    if least > most {
        return Err(ApiError::combination("minCount cannot be greater than maxCount"));
    }
    let mut interface = interface_parameters(params)?;
    let subnet = own_or_interface(params, &mut interface, "SubnetId")?;
    let mut groups = params.list("SecurityGroupId");
    let from = interface.as_mut().unwrap_or(params);
    groups.extend(from.list("SecurityGroupId"));
    let addresses = addresses(interface.as_mut().unwrap_or(params))?;
    // The instance's own parameter has another name than its interface's.
    let ipv6 = match interface.as_mut() {
        Some(interface) => ipv6(interface, "Ipv6Addresses")?,
        None => ipv6(params, "Ipv6Address")?,
    };
    if addresses.prefixes != Wanted::Count(0) || ipv6.prefixes != Wanted::Count(0) {
        return Err(ApiError::client(
            "UnsupportedOperation",
            "The lab starts instances without prefixes: assign them to the interface afterwards",
        ));
    }
    if let Some(interface) = interface {
        interface.finish()?;
    }
    let (mut tags, mut interface_tags) = (Tags::new(), Tags::new());
    for (kind, given) in tag_specifications(params, &["instance", "network-interface", "volume"])? {
        match kind.as_str() {
            "instance" => tags.extend(given),
            "network-interface" => interface_tags.extend(given),
            // The lab's instances have no volumes to tag.
            _ => {}
        }
    }
    let mut metadata = params.structure("MetadataOptions");
    let (hop_limit, http_tokens) = match metadata.as_mut() {
        Some(options) => metadata_parameters(options)?,
        None => (None, None),
    };
    if let Some(options) = metadata {
        options.finish()?;
    }
    let profile = match params.structure("IamInstanceProfile") {
        None => None,
        Some(mut profile) => {
            let name = profile.take("Name").or_else(|| profile.take("Arn"));
            profile.finish()?;
            name
        }
    };
    for ignored in ["KeyName", "UserData", "EbsOptimized"] {
        // Kept by no instance of the lab: it runs no image.
        params.take(ignored);
    }
    Ok(Request::RunInstances(RunInstances {
        instance_type: params
            .take("InstanceType")
            .unwrap_or_else(|| "m1.small".to_owned()),
        count: most,
        subnet: subnet.map(Into::into),
        groups: groups.into_iter().map(GroupId).collect(),
        profile,
        tags,
        interface_tags,
        hop_limit: hop_limit.unwrap_or(1),
        http_tokens: http_tokens.unwrap_or(HttpTokens::Required),
        secondary: addresses.secondary,
        ipv6,
        primary: addresses.primary,
        client_token: params.take("ClientToken").filter(|t| !t.is_empty()),
        image: params.need("ImageId")?,
    }))
}

/// The parameters of the primary interface, where the request gives them apart.
fn interface_parameters(params: &mut Params) -> Result<Option<Params>, ApiError> {
    let mut all = params.structures("NetworkInterface").into_iter();
    let Some(mut first) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() || first.count("DeviceIndex")?.unwrap_or(0) != 0 {
        return Err(ApiError::client(
            "UnsupportedOperation",
            "The lab starts instances with their primary interface only: attach others afterwards",
        ));
    }
    // The subnet decides about the public address, and the primary interface always goes with its instance.
    first.flag("AssociatePublicIpAddress")?;
    first.flag("DeleteOnTermination")?;
    first.take("Description");
    Ok(Some(first))
}

/// A value that may stand with the instance or with its interface, but not with both.
fn own_or_interface(
    params: &mut Params,
    interface: &mut Option<Params>,
    name: &str,
) -> Result<Option<String>, ApiError> {
    let own = params.take(name);
    let inner = interface.as_mut().and_then(|i| i.take(name));
    if own.is_some() && interface.is_some() {
        return Err(ApiError::combination(
            "Network interfaces and an instance-level subnet ID may not be specified on the same request",
        ));
    }
    Ok(own.or(inner))
}

fn metadata_parameters(options: &mut Params) -> Result<(Option<u8>, Option<HttpTokens>), ApiError> {
    let http_tokens = match options.take("HttpTokens").as_deref() {
        None => None,
        Some("required") => Some(HttpTokens::Required),
        Some("optional") => Some(HttpTokens::Optional),
        Some(other) => return Err(options.bad("HttpTokens", other)),
    };
    match options.take("HttpEndpoint").as_deref() {
        None | Some("enabled") => {}
        Some(other) => return Err(options.bad("HttpEndpoint", other)),
    }
    Ok((options.parse("HttpPutResponseHopLimit")?, http_tokens))
}

pub(crate) fn metadata_options(params: &mut Params) -> Result<Request, ApiError> {
    let instance = params.need("InstanceId")?.into();
    let (hop_limit, http_tokens) = metadata_parameters(params)?;
    Ok(Request::ModifyInstanceMetadataOptions {
        instance,
        hop_limit,
        http_tokens,
    })
}

pub(crate) fn terminate(params: &mut Params) -> Result<Request, ApiError> {
    // The lab's instances stop at once either way.
    params.flag("Force")?;
    params.flag("SkipOsShutdown")?;
    let ids = params.list("InstanceId");
    if ids.is_empty() {
        return Err(ApiError::missing("instancesSet"));
    }
    Ok(Request::TerminateInstances(
        ids.into_iter().map(Into::into).collect(),
    ))
}
