//! CHECK: is the pod's network as ADD left it, and is the agent there?

use vpcnet_linux::Mac;
use vpcnet_linux::netlink::Socket;
use vpcnet_linux::netns::Netns;
use vpcnet_linux::pod::{self, PodInterface};

use crate::agent::Agent;
use crate::call::Call;
use crate::failure::Failure;
use crate::names;
use crate::recorded::{self, Recalled, Recorded};

/// Serves CHECK.
///
/// # Errors
/// [`Failure::Changed`] with all that differs; the agent is away; the result is not one of this plugin.
pub(crate) fn check(call: &Call) -> Result<(), Failure> {
    let interfaces = match recorded::read(call)? {
        Recorded::Branch { vlan } => return Err(Failure::Branch { vlan }),
        Recorded::Nothing => return Err(no_result(call)),
        Recorded::Normal(interfaces) if interfaces.is_empty() => return Err(no_result(call)),
        Recorded::Normal(interfaces) => interfaces,
    };
    let pod = Netns::open(&call.env.netns).map_err(Failure::Netns)?;
    if pod.is_current().map_err(Failure::Netns)? {
        return Err(Failure::OwnNetns(pod.path().to_path_buf()));
    }
    let wanted = interfaces
        .iter()
        .map(|one| wanted(call, one))
        .collect::<Result<Vec<_>, _>>()?;
    let mut host = Socket::open()?;
    let findings = pod::check(&mut host, &pod, &wanted).map_err(Failure::Look)?;
    if !findings.is_empty() {
        return Err(Failure::Changed(
            findings.iter().map(ToString::to_string).collect(),
        ));
    }
    // A pod without the agent keeps its network, but its DEL and its policies will want it.
    Agent::at(&call.settings.agent_socket).health().map(|_| ())
}

fn no_result(call: &Call) -> Failure {
    Failure::Recorded(format!(
        "interface {} of this plugin is not in it",
        call.env.if_name
    ))
}

fn wanted(call: &Call, one: &Recalled) -> Result<PodInterface, Failure> {
    let suffix = names::suffix(&call.args.pod_namespace, &call.args.pod_name, one.number);
    // The prefix at the time of the ADD, which the result tells.
    let host_name = recorded::host_names(call)
        .find(|name| name.ends_with(&suffix))
        .map(str::to_owned);
    Ok(PodInterface {
        host_name: host_name.unwrap_or_else(|| format!("{}{suffix}", call.settings.veth_prefix)),
        // Not compared, but a sound interface has two.
        host_mac: Mac::random_local().map_err(Failure::Random)?,
        name: one.name.clone(),
        mac: Mac::random_local().map_err(Failure::Random)?,
        mtu: call.settings.mtu,
        address: one.address,
        gateway_index: u32::try_from(one.number + 1).unwrap_or(u32::MAX),
        table: one.table,
    })
}
