//! DEL: route, address, and what an ADD that was cut short left. The link dies with the pod's namespace; where there is none to
//! die, it is deleted. Goes on to the end, and tells all that went wrong.
//!
//! What is to go follows from the container's id and the files, so neither prevResult nor the namespace is needed, and a plugin
//! that is not enabled any more cleans up for pods of the time when it was.

use std::net::IpAddr;

use vpcnet_linux::netlink::Socket;
use vpcnet_linux::netns::Netns;
use vpcnet_plugin::Log;

use crate::call::Call;
use crate::failure::Failure;
use crate::remove::{self, Attached};
use crate::store::{Owner, Store};

/// Serves DEL.
///
/// # Errors
/// [`Failure::LeftBehind`], [`Failure::Locked`], [`Failure::Files`]; the runtime calls again.
pub(crate) fn del(call: &Call, log: &Log) -> Result<(), Failure> {
    let pod = Some(&call.env.netns)
        .filter(|path| !path.is_empty())
        .and_then(|path| Netns::open(path).ok());
    let own = pod.as_ref().is_some_and(|pod| pod.is_current().unwrap_or(false));
    if let Some(ipam) = &call.settings.ipam {
        let v6 = ipam.range.is_v6();
        let mut host = Socket::open()?;
        let mut store = Store::lock_if_there(&ipam.dir)?;
        let owner = Owner::new(&call.env.container_id, &call.env.if_name);
        let entries = store.as_ref().map_or(Ok(Vec::new()), Store::entries)?;
        let addresses: Vec<IpAddr> = entries
            .into_iter()
            .filter(|(_, one)| one.is(&owner.container, &call.env.if_name))
            .map(|(address, _)| address)
            .collect();
        let one = Attached {
            network: &call.conf.name,
            owner: &owner,
            addresses: &addresses,
            link_too: pod.is_none() || own,
        };
        let mut wrong = remove::attached(&mut host, store.as_mut(), v6, &one, log);
        if let Some(store) = &store {
            wrong.extend(remove::table_of_nobody(&mut host, store, &ipam.range));
        }
        log.debug(|| format!("gave back {addresses:?}"));
        if !wrong.is_empty() {
            return Err(Failure::LeftBehind(wrong));
        }
    }
    // Told after the work is done, as the reference library does: a runtime that names its own namespace is mistaken, but the
    // pod's address shall not be held for that.
    match pod {
        Some(pod) if own && !call.env.netns_override => Err(Failure::OwnNetns(pod.path().to_path_buf())),
        _ => Ok(()),
    }
}
