//! GC: addresses of pods that the runtime no longer knows go back to the pool, and their rules and routes go. Goes on to
//! the end, and tells all that went wrong.

use vpcnet_linux::netlink::Socket;
use vpcnet_linux::pod::{self, Gone};
use vpcnet_plugin::Log;
use vpcnet_rpc::node::{Attachment, Owner};

use crate::agent::Agent;
use crate::call::Call;
use crate::failure::Failure;
use crate::names;

/// Serves GC.
///
/// # Errors
/// No list of what lives (nothing is removed then: an absent list is not an empty one); the agent is away; something could not
/// be removed.
pub(crate) fn gc(call: &Call, log: &Log) -> Result<(), Failure> {
    let valid = call
        .conf
        .valid_attachments
        .as_ref()
        .ok_or(Failure::NoAttachments)?;
    let valid = valid.iter().map(|a| Attachment {
        container_id: a.container_id.clone(),
        if_name: a.if_name.clone(),
    });
    let agent = Agent::at(&call.settings.agent_socket);
    let Some(reply) = agent.gc(&call.conf.name, valid.collect())? else {
        log.info(|| "the agent does not know Gc (it is the AWS VPC CNI's): nothing is removed".to_owned());
        return Ok(());
    };
    let mut wrong = reply.failures;
    for owner in &reply.released {
        log.info(|| {
            format!(
                "freed {}/{} of {}",
                owner.pod_namespace, owner.pod_name, owner.container_id
            )
        });
        wrong.extend(remove(call, owner));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::LeftBehind(wrong))
    }
}

/// Removes the rules and routes of one pod's addresses; returns what stayed.
fn remove(call: &Call, owner: &Owner) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut gone = Vec::with_capacity(owner.addresses.len());
    for entry in &owner.addresses {
        match entry.address.parse() {
            Ok(address) => gone.push(Gone {
                address,
                table: u32::try_from(entry.route_table_id).unwrap_or_default(),
            }),
            Err(_) => wrong.push(format!(
                "the agent's answer names {:?}, which is no address",
                entry.address
            )),
        }
    }
    let links: Vec<String> = (0..gone.len())
        .map(|number| names::suffix(&owner.pod_namespace, &owner.pod_name, number))
        .map(|suffix| format!("{}{suffix}", call.settings.veth_prefix))
        .collect();
    let links: Vec<&str> = if owner.pod_name.is_empty() {
        Vec::new()
    } else {
        links.iter().map(String::as_str).collect()
    };
    match Socket::open() {
        Ok(mut host) => wrong.extend(pod::del(&mut host, &gone, &links).iter().map(ToString::to_string)),
        Err(error) => wrong.push(error.to_string()),
    }
    wrong
}
