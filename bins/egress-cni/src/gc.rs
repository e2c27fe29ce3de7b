//! GC: whatever belongs to attachments that the runtime no longer knows. Their namespaces are taken for gone. Goes on to the
//! end, and tells all that went wrong.

use vpcnet_linux::egress;
use vpcnet_linux::netlink::Socket;
use vpcnet_plugin::Log;

use crate::call::Call;
use crate::failure::Failure;
use crate::names;
use crate::remove::{self, Attached};
use crate::store::Store;

/// Serves GC.
///
/// # Errors
/// [`Failure::NoAttachments`] (an absent list is not an empty one), [`Failure::LeftBehind`].
pub(crate) fn gc(call: &Call, log: &Log) -> Result<(), Failure> {
    let valid = call
        .conf
        .valid_attachments
        .as_ref()
        .ok_or(Failure::NoAttachments)?;
    let Some(ipam) = &call.settings.ipam else {
        return Ok(());
    };
    let (v6, network) = (ipam.range.is_v6(), call.conf.name.as_str());
    let mut host = Socket::open()?;
    let mut wrong = Vec::new();
    if let Some(mut store) = Store::lock_if_there(&ipam.dir)? {
        for (address, owner) in store.entries()? {
            if valid.iter().any(|a| owner.is(&a.container_id, &a.if_name)) {
                continue;
            }
            let one = Attached {
                network,
                owner: &owner,
                addresses: &[address],
                link_too: true,
            };
            log.info(|| format!("{address} of container {} goes back", owner.container));
            wrong.extend(remove::attached(&mut host, Some(&mut store), v6, &one, log));
        }
        wrong.extend(remove::table_of_nobody(&mut host, &store, &ipam.range));
    }
    original_chains(call, v6, log);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::LeftBehind(wrong))
    }
}

/// The AWS VPC CNI gives the address back before it looks for the chain, and without the pod's namespace it does not find
/// it: so chains may be left that no file speaks of. Their comments name the container.
fn original_chains(call: &Call, v6: bool, log: &Log) {
    let chains = match egress::original_chains(v6, names::chain_prefix(v6)) {
        Ok(chains) => chains,
        Err(error) => return log.warn(|| error.to_string()),
    };
    let valid = call.conf.valid_attachments.as_deref().unwrap_or_default();
    for chain in chains {
        let Some(container) = names::container_of(&chain.comment, &call.conf.name) else {
            continue;
        };
        if !valid.iter().any(|a| a.container_id == container) {
            remove::original_chain(v6, &chain.name, log);
        }
    }
}
