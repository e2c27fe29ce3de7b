//! ADD: the node's source NAT, an address, the link; the result of the plugins before, with the link added. What fails half-way is
//! undone.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Value, json};
use vpcnet_linux::Mac;
use vpcnet_linux::egress::{self, EgressLink, Ensured, Snat};
use vpcnet_linux::netlink::Socket;
use vpcnet_linux::netns::Netns;
use vpcnet_plugin::Log;

use crate::call::Call;
use crate::failure::Failure;
use crate::names;
use crate::remove;
use crate::settings::Ipam;
use crate::store::{Owner, Store};

/// Serves ADD; returns the result as printed.
///
/// # Errors
/// Any [`Failure`]; kernel and files are then as before the call, but for what the failure names.
pub(crate) fn add(call: &Call, log: &Log) -> Result<Value, Failure> {
    let start = Instant::now();
    let result = call.result_so_far()?;
    let (true, Some(ipam)) = (call.settings.enabled, &call.settings.ipam) else {
        return Ok(result);
    };
    let v6 = ipam.range.is_v6();
    let snat = snat(call, ipam, call.settings.node(v6)?);
    let pod = Netns::open(&call.env.netns).map_err(Failure::Netns)?;
    if pod.is_current().map_err(Failure::Netns)? {
        return Err(Failure::OwnNetns(pod.path().to_path_buf()));
    }
    let mut inside = Socket::open_in(&pod)?;
    if inside.index_of(names::in_pod(v6))?.is_some() {
        // Known before an address is taken: an ADD repeated for a running container must not touch the one it has.
        return Err(Failure::SetUp(egress::EgressError::NameTaken {
            name: names::in_pod(v6).to_owned(),
            netns: pod.path().to_path_buf(),
        }));
    }
    let mut host = Socket::open()?;
    let mut store = Store::lock(&ipam.dir)?;
    let locked = start.elapsed();
    let owner = Owner::new(&call.env.container_id, &call.env.if_name);
    let address = store.reserve(&ipam.range, &owner, |address, owner| {
        in_use(&mut host, call, address, owner)
    })?;
    let outcome = wire(call, log, ipam, &snat, &mut host, &pod, &mut inside, address);
    match outcome {
        Ok(link) => {
            log.debug(|| {
                let (locked, all) = (locked.as_micros(), start.elapsed().as_micros());
                format!(
                    "{address} on {}: lock {locked} us, in all {all} us",
                    link.host_name
                )
            });
            Ok(with_link(result, &link, &call.env.netns))
        }
        Err(failure) => {
            let mut left: Vec<String> = store
                .release(address)
                .err()
                .map(|e| e.to_string())
                .into_iter()
                .collect();
            left.extend(remove::table_of_nobody(&mut host, &store, &ipam.range));
            Err(failure.and_left(left))
        }
    }
}

/// Whether a pod has the address: the node has a route to it, or the link of its owner, which lives as long as the pod's
/// namespace. Without either, the owner's ADD was cut short, or its namespace is gone and its DEL never came.
fn in_use(host: &mut Socket, call: &Call, address: IpAddr, owner: &Owner) -> Result<bool, Failure> {
    if egress::has_route(host, address).map_err(Failure::SetUp)? {
        return Ok(true);
    }
    let Some(if_name) = &owner.if_name else {
        return Ok(false);
    };
    let link = names::host_end(&call.conf.name, &owner.container, if_name, address.is_ipv6());
    Ok(host.index_of(&link)?.is_some())
}

/// The table that the node shall have.
pub(crate) fn snat(call: &Call, ipam: &Ipam, node: IpAddr) -> Snat {
    Snat {
        range: ipam.range.net(),
        gateway: ipam.range.gateway(),
        node,
        randomize: call.settings.randomize,
    }
}

/// The link that the container shall have.
///
/// # Errors
/// No random bytes for its MACs.
pub(crate) fn link(call: &Call, ipam: &Ipam, address: IpAddr) -> Result<EgressLink, Failure> {
    let v6 = ipam.range.is_v6();
    let (network, env) = (&call.conf.name, &call.env);
    Ok(EgressLink {
        host_name: names::host_end(network, &env.container_id, &env.if_name, v6),
        // Chosen here rather than by the kernel: udev leaves such an address alone, and neighbour entries name it.
        host_mac: Mac::random_local().map_err(Failure::Random)?,
        name: names::in_pod(v6).to_owned(),
        mac: Mac::random_local().map_err(Failure::Random)?,
        mtu: call.settings.mtu,
        address: ipam.range.with_mask(address),
        gateway: ipam.range.gateway(),
        beside: env.if_name.clone(),
    })
}

#[allow(clippy::too_many_arguments)] // one call site; a struct for it would only rename them
fn wire(
    call: &Call,
    log: &Log,
    ipam: &Ipam,
    snat: &Snat,
    host: &mut Socket,
    pod: &Netns,
    inside: &mut Socket,
    address: IpAddr,
) -> Result<EgressLink, Failure> {
    let link = link(call, ipam, address)?;
    // First the way out as a whole: no packet of a pod shall leave with an address that nobody can answer to.
    match egress::ensure_snat(snat).map_err(Failure::Snat)? {
        Ensured::Unchanged => {}
        Ensured::Created => log.info(|| format!("wrote nftables table {}", egress::TABLE)),
        Ensured::Replaced(finding) => {
            log.warn(|| format!("wrote nftables table {} anew: {finding}", egress::TABLE));
        }
    }
    egress::prepare(host, ipam.range.is_v6()).map_err(Failure::SetUp)?;
    egress::add(host, pod, inside, &link).map_err(Failure::SetUp)?;
    Ok(link)
}

/// Adds both ends to the result. No address: the pod's address is that of the plugins before, and what runtimes take for a pod's
/// addresses must not be one that others cannot reach.
fn with_link(mut result: Value, link: &EgressLink, netns: &str) -> Value {
    let ends = [
        json!({ "name": link.host_name, "mac": link.host_mac.to_string() }),
        json!({ "name": link.name, "mac": link.mac.to_string(), "sandbox": netns }),
    ];
    if let Some(object) = result.as_object_mut() {
        match object.get_mut("interfaces").and_then(Value::as_array_mut) {
            Some(interfaces) => interfaces.extend(ends),
            None => {
                object.insert("interfaces".to_owned(), Value::from(ends.to_vec()));
            }
        }
    }
    result
}
