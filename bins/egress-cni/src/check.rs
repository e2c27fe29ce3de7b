//! CHECK: is the pod's egress as ADD left it?

use std::net::IpAddr;

use vpcnet_linux::egress;
use vpcnet_linux::netlink::Socket;
use vpcnet_linux::netns::Netns;

use crate::add;
use crate::call::Call;
use crate::failure::Failure;
use crate::names;
use crate::store;

/// Serves CHECK.
///
/// # Errors
/// [`Failure::Changed`] with all that differs; something could not be read.
pub(crate) fn check(call: &Call) -> Result<(), Failure> {
    let (true, Some(ipam)) = (call.settings.enabled, &call.settings.ipam) else {
        return Ok(());
    };
    let v6 = ipam.range.is_v6();
    let node = call.settings.node(v6)?;
    let in_result = call
        .conf
        .prev_result
        .as_ref()
        .is_some_and(|result| result.interface(names::in_pod(v6)).is_some());
    let addresses: Vec<IpAddr> = store::entries(&ipam.dir)?
        .into_iter()
        .filter(|(_, owner)| owner.is(&call.env.container_id, &call.env.if_name))
        .map(|(address, _)| address)
        .collect();
    let pod = Netns::open(&call.env.netns).map_err(Failure::Netns)?;
    if pod.is_current().map_err(Failure::Netns)? {
        return Err(Failure::OwnNetns(pod.path().to_path_buf()));
    }
    let mut findings = Vec::new();
    match addresses.as_slice() {
        // Made while the plugin was not enabled.
        [] if !in_result => return Ok(()),
        [] => findings.push(format!(
            "the container's address in {} is missing: another pod may get it",
            ipam.dir.display()
        )),
        [address] => {
            let link = add::link(call, ipam, *address)?;
            let mut host = Socket::open()?;
            let found = egress::check(&mut host, &pod, &link).map_err(Failure::SetUp)?;
            findings.extend(found.iter().map(ToString::to_string));
        }
        more => findings.push(format!("the container has {} addresses: {more:?}", more.len())),
    }
    let snat = egress::check_snat(&add::snat(call, ipam, node)).map_err(Failure::Snat)?;
    findings.extend(snat.map(|finding| finding.to_string()));
    if findings.is_empty() {
        Ok(())
    } else {
        Err(Failure::Changed(findings))
    }
}
