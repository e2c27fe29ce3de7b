//! DEL: the address goes back to the agent, the host's rules and route go; the links die with the pod's namespace. Goes
//! on to the end, and tells all that went wrong.
//!
//! | situation | what is done | outcome |
//! |---|---|---|
//! | the result says branch ENI, no namespace | nothing: the link is gone, and its VLAN may be another pod's by now | success |
//! | the result says branch ENI | nothing | error 100 |
//! | the agent does not know the pod | nothing | success |
//! | the agent is away or refuses | rules and route by the result, if it says enough | success |
//! | the agent answers `Success=false` | nothing | error |
//! | the agent names addresses | their rules and routes, then the policy agent | by what went wrong |

use std::net::IpAddr;

use vpcnet_linux::netlink::Socket;
use vpcnet_linux::netns::Netns;
use vpcnet_linux::pod::{self, Gone};
use vpcnet_plugin::Log;
use vpcnet_rpc::pb::{DelNetworkReply, IpAllocationMetadata};
use vpcnet_rpc::{REASON_POD_DELETED, UNKNOWN_POD};

use crate::agent::Agent;
use crate::call::Call;
use crate::failure::{CallError, Failure};
use crate::names;
use crate::npa::Npa;
use crate::recorded::{self, Recorded};

/// Serves DEL.
///
/// # Errors
/// See the table above.
pub(crate) fn del(call: &Call, log: &Log) -> Result<(), Failure> {
    let recorded = recorded::read(call)?;
    if let Recorded::Branch { vlan } = recorded {
        return if call.env.netns.is_empty() {
            Ok(())
        } else {
            Err(Failure::Branch { vlan })
        };
    }
    match release(call) {
        Ok(reply) => finish(call, log, &reply)?,
        Err(Release::Unknown) => log.info(|| "the agent does not know the pod: nothing to do".to_owned()),
        Err(Release::Away(failure)) => {
            log.warn(|| format!("{failure}; removing what the result of ADD names"));
            for left in by_the_result(call, &recorded) {
                log.warn(|| left);
            }
        }
        Err(Release::Refused(failure)) => return Err(failure),
    }
    own_namespace(call)
}

/// Why there are no addresses to go by.
enum Release {
    Unknown,
    Away(Failure),
    Refused(Failure),
}

fn release(call: &Call) -> Result<DelNetworkReply, Release> {
    let socket = &call.settings.agent_socket;
    match Agent::at(socket).del(call, REASON_POD_DELETED, &call.args.pod_uid) {
        Ok(reply) if reply.success => Ok(reply),
        Ok(_) => Err(Release::Refused(Failure::NotFreed {
            socket: socket.clone(),
        })),
        Err(CallError::Status { message, .. }) if message.contains(UNKNOWN_POD) => Err(Release::Unknown),
        Err(error) => Err(Release::Away(Failure::Agent {
            call: "DelNetwork",
            socket: socket.clone(),
            error,
        })),
    }
}

fn finish(call: &Call, log: &Log, reply: &DelNetworkReply) -> Result<(), Failure> {
    if reply.pod_vlan_id != 0 {
        let vlan = reply.pod_vlan_id.into();
        return if call.env.netns.is_empty() {
            Ok(())
        } else {
            Err(Failure::Branch { vlan })
        };
    }
    let mut wrong = Vec::new();
    if reply.ip_allocations.is_empty() {
        log.warn(|| "the agent named no address of the pod".to_owned());
    }
    let mut gone = Vec::with_capacity(reply.ip_allocations.len());
    for allocation in &reply.ip_allocations {
        match freed(allocation) {
            Some(one) => gone.push(one),
            None => wrong.push(format!(
                "the agent's answer names {allocation:?}, which is no address"
            )),
        }
    }
    wrong.extend(tear_down(call, &gone));
    let policy = if reply.network_policy_mode.is_empty() {
        Ok(())
    } else {
        forget_policy(call, log)
    };
    match (policy, wrong.is_empty()) {
        (policy, true) => policy,
        (Ok(()), false) => Err(Failure::LeftBehind(wrong)),
        (Err(failure), false) => Err(Failure::LeftBehind(
            wrong.into_iter().chain([failure.to_string()]).collect(),
        )),
    }
}

/// No connection fails the DEL: the runtime calls again and then meets an unknown pod, which is success. A refusal is
/// only logged, as in the original: the policy agent forgets pods that are gone by itself.
fn forget_policy(call: &Call, log: &Log) -> Result<(), Failure> {
    let npa = Npa::connect(call, "DeletePodNp")?;
    if let Err(failure) = npa.delete(call) {
        log.warn(|| failure.to_string());
    }
    Ok(())
}

fn freed(allocation: &IpAllocationMetadata) -> Option<Gone> {
    let text = if allocation.ipv4_addr.is_empty() {
        &allocation.ipv6_addr
    } else {
        &allocation.ipv4_addr
    };
    let address: IpAddr = text.parse().ok()?;
    Some(Gone {
        address,
        table: u32::try_from(allocation.route_table_id).unwrap_or_default(),
    })
}

/// The agent is away: what the result names is removed, and the agent reclaims the address when it sees that the link is
/// gone.
fn by_the_result(call: &Call, recorded: &Recorded) -> Vec<String> {
    match recorded {
        Recorded::Normal(interfaces) => {
            let gone: Vec<Gone> = interfaces
                .iter()
                .map(|one| Gone {
                    address: one.address,
                    table: one.table,
                })
                .collect();
            tear_down(call, &gone)
        }
        _ => {
            vec!["no result of ADD to go by: rules and route stay until the address is used again".to_owned()]
        }
    }
}

/// Removes rules and routes; returns what stayed.
fn tear_down(call: &Call, gone: &[Gone]) -> Vec<String> {
    if gone.is_empty() {
        return Vec::new();
    }
    let mut host = match Socket::open() {
        Ok(host) => host,
        Err(error) => return vec![error.to_string()],
    };
    // By the pod's name as configured now, and by the result: the prefix may have been another one then. Without either
    // there is nothing to tell whose route it is.
    let mut links: Vec<String> = recorded::host_names(call).map(str::to_owned).collect();
    if !call.args.pod_name.is_empty() {
        for number in 0..gone.len() {
            let suffix = names::suffix(&call.args.pod_namespace, &call.args.pod_name, number);
            links.push(format!("{}{suffix}", call.settings.veth_prefix));
        }
    }
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    pod::del(&mut host, gone, &links)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Reported after the work is done, as the reference library does: a runtime that names its own namespace is mistaken, but
/// the pod's address shall not be held for that.
fn own_namespace(call: &Call) -> Result<(), Failure> {
    if call.env.netns.is_empty() || call.env.netns_override {
        return Ok(());
    }
    match Netns::open(&call.env.netns) {
        Ok(pod) if pod.is_current().unwrap_or(false) => Err(Failure::OwnNetns(pod.path().to_path_buf())),
        // Gone already, which is what DEL is for.
        _ => Ok(()),
    }
}
