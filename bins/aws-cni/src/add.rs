//! ADD: an address from the agent, the pod's links, routes and rules, the network policy agent, the result. What fails
//! half-way is undone, and the address given back.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::Value;
use vpcnet_cni::{CniResult, Interface, IpConfig};
use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{Device, Errno, MAIN, Request, Socket};
use vpcnet_linux::netns::Netns;
use vpcnet_linux::pod::{self, Gone, PodError, PodInterface, is_main};
use vpcnet_plugin::Log;
use vpcnet_rpc::pb::{AddNetworkReply, IpAllocationMetadata};
use vpcnet_rpc::{REASON_SETUP_FAILED, UNKNOWN_POD};

use crate::agent::Agent;
use crate::call::Call;
use crate::failure::{CallError, Failure};
use crate::names;
use crate::npa::Npa;

/// Serves ADD; returns the result as printed.
///
/// # Errors
/// Any [`Failure`]; kernel and pool are then as before the call, but for what the failure names.
pub(crate) fn add(call: &Call, log: &Log) -> Result<Value, Failure> {
    let start = Instant::now();
    let (pod, mut inside) = pod_namespace(call)?;
    let agent = Agent::at(&call.settings.agent_socket);
    let reply = agent.add(call)?;
    let answered = start.elapsed();
    let outcome = match set_up(call, &pod, &mut inside, &reply) {
        Ok(wired) => enforce(call, &reply, wired),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(wired) => {
            log.debug(|| {
                let addresses: Vec<String> = wired.iter().map(|one| one.address.to_string()).collect();
                let (agent, all) = (answered.as_micros(), start.elapsed().as_micros());
                format!(
                    "{} on {}: agent {agent} us, in all {all} us",
                    addresses.join(" "),
                    host_names(&wired).join(" ")
                )
            });
            Ok(result(call, &reply, &wired).to_json(call.conf.version))
        }
        Err(failure) => Err(give_back(call, &agent, failure)),
    }
}

/// The pod's namespace, which must be one, not the host's, and without an interface of the wanted name: all known before
/// the agent is asked, since an ADD repeated for a running container must not touch the address it has. With it comes a
/// socket of it.
fn pod_namespace(call: &Call) -> Result<(Netns, Socket), Failure> {
    let pod = Netns::open(&call.env.netns).map_err(Failure::Netns)?;
    if pod.is_current().map_err(Failure::Netns)? {
        return Err(Failure::OwnNetns(pod.path().to_path_buf()));
    }
    let inside = Socket::open_in(&pod)?;
    let second = call
        .settings
        .multi_nic
        .then(|| names::in_pod(&call.env.if_name, 1));
    for name in [call.env.if_name.clone()].into_iter().chain(second) {
        if inside.index_of(&name)?.is_some() {
            return Err(Failure::NameTaken {
                name,
                netns: pod.path().to_path_buf(),
            });
        }
    }
    Ok((pod, inside))
}

/// Reads the whole answer, then makes the interfaces.
fn set_up(
    call: &Call,
    pod: &Netns,
    inside: &mut Socket,
    reply: &AddNetworkReply,
) -> Result<Vec<PodInterface>, Failure> {
    if reply.pod_vlan_id != 0 {
        return Err(Failure::Branch {
            vlan: reply.pod_vlan_id.into(),
        });
    }
    if reply.ip_allocations.is_empty() {
        return Err(nonsense("success without an address".to_owned()));
    }
    let allocations = reply.ip_allocations.iter().enumerate();
    let wanted = allocations
        .map(|(i, a)| interface(call, i, a))
        .collect::<Result<Vec<_>, _>>()?;
    let mut host = Socket::open()?;
    pod::add_by(&mut host, pod, inside, &wanted).map_err(Failure::Setup)?;
    Ok(wanted)
}

fn interface(call: &Call, number: usize, allocation: &IpAllocationMetadata) -> Result<PodInterface, Failure> {
    let suffix = names::suffix(&call.args.pod_namespace, &call.args.pod_name, number);
    let gateway_index = u32::try_from(number + 1).map_err(|_| nonsense(format!("{number} addresses")))?;
    Ok(PodInterface {
        host_name: format!("{}{suffix}", call.settings.veth_prefix),
        // Chosen here rather than by the kernel: udev leaves such an address alone, and the pod's neighbour entry names it.
        host_mac: Mac::random_local().map_err(Failure::Random)?,
        name: names::in_pod(&call.env.if_name, number),
        mac: Mac::random_local().map_err(Failure::Random)?,
        mtu: call.settings.mtu,
        address: address(allocation)?,
        gateway_index,
        table: table(allocation)?,
    })
}

fn nonsense(why: String) -> Failure {
    Failure::Answer {
        call: "AddNetwork",
        why,
    }
}

/// The version 4 field wins where both are filled, as in the original.
fn address(allocation: &IpAllocationMetadata) -> Result<IpAddr, Failure> {
    let text = if allocation.ipv4_addr.is_empty() {
        &allocation.ipv6_addr
    } else {
        &allocation.ipv4_addr
    };
    text.parse()
        .map_err(|_| nonsense(format!("{text:?} is no address")))
}

/// 1 was the primary's number in older releases, and 0 stands where the field is left out: both are main.
fn table(allocation: &IpAllocationMetadata) -> Result<u32, Failure> {
    let number = allocation.route_table_id;
    let table = u32::try_from(number).map_err(|_| nonsense(format!("routing table {number}")))?;
    Ok(if is_main(table) { MAIN } else { table })
}

/// Where the agent names a policy mode, the pod's policies must be in force before the pod starts.
fn enforce(
    call: &Call,
    reply: &AddNetworkReply,
    wired: Vec<PodInterface>,
) -> Result<Vec<PodInterface>, Failure> {
    let mode = &reply.network_policy_mode;
    if mode.is_empty() {
        return Ok(wired);
    }
    let npa = match Npa::connect(call, "EnforceNpToPod") {
        Ok(npa) => npa,
        Err(failure) => return Err(failure.and_left(unwire(&wired))),
    };
    let Err(failure) = npa.enforce(call, mode, wired.len()) else {
        return Ok(wired);
    };
    let mut left = unwire(&wired);
    // The address is given back next, so the runtime's DEL will meet an unknown pod and not come here again.
    left.extend(npa.delete(call).err().map(|e| e.to_string()));
    Err(failure.and_left(left))
}

/// Unmakes the pod's interfaces; returns what stayed.
fn unwire(wired: &[PodInterface]) -> Vec<String> {
    let mut host = match Socket::open() {
        Ok(host) => host,
        Err(error) => return vec![error.to_string()],
    };
    let gone: Vec<Gone> = wired
        .iter()
        .map(|one| Gone {
            address: one.address,
            table: one.table,
        })
        .collect();
    let mut left: Vec<String> = pod::del(&mut host, &gone, &host_names(wired))
        .iter()
        .map(ToString::to_string)
        .collect();
    for one in wired {
        match host.run_one(Request::DeleteLink(Device::named(one.host_name.clone()))) {
            Err(error) if error.errno() != Some(Errno::NODEV) => left.push(error.to_string()),
            _ => {}
        }
    }
    left
}

fn host_names(wired: &[PodInterface]) -> Vec<&str> {
    wired.iter().map(|one| one.host_name.as_str()).collect()
}

/// Gives the address back after a failure.
fn give_back(call: &Call, agent: &Agent, failure: Failure) -> Failure {
    if let Failure::Setup(PodError::NameTaken { .. }) = failure {
        // Another ADD of this very container was quicker, and what it made uses the address. The runtime's DEL ends both.
        return failure;
    }
    match agent.del(call, REASON_SETUP_FAILED, "") {
        Ok(_) => failure,
        Err(CallError::Status { message, .. }) if message.contains(UNKNOWN_POD) => failure,
        Err(error) => failure.and_left(vec![format!("DelNetwork: {error}")]),
    }
}

/// What DEL of either project needs: see [`crate::recorded`].
fn result(call: &Call, reply: &AddNetworkReply, wired: &[PodInterface]) -> CniResult {
    let mut result = CniResult::default();
    for (one, allocation) in wired.iter().zip(&reply.ip_allocations) {
        result.interfaces.push(Interface {
            name: one.host_name.clone(),
            ..Interface::default()
        });
        result.ips.push(IpConfig {
            address: one.address.into(),
            gateway: None,
            interface: Some(result.interfaces.len()),
        });
        result.interfaces.push(Interface {
            name: one.name.clone(),
            mac: allocation.route_table_id.to_string(),
            sandbox: call.env.netns.clone(),
            mtu: None,
        });
    }
    let device = reply
        .ip_allocations
        .first()
        .map_or(0, |first| first.device_number);
    result.interfaces.push(Interface {
        name: names::dummy(&call.args.pod_namespace, &call.args.pod_name),
        mac: "0".to_owned(),
        sandbox: device.to_string(),
        mtu: None,
    });
    result
}
