//! What DEL and GC take away.

use std::net::IpAddr;

use vpcnet_linux::egress;
use vpcnet_linux::netlink::Socket;
use vpcnet_plugin::Log;

use crate::names;
use crate::range::Range;
use crate::store::{Owner, Store};

/// What one attachment has.
pub(crate) struct Attached<'a> {
    /// The network's name.
    pub(crate) network: &'a str,
    /// The attachment.
    pub(crate) owner: &'a Owner,
    /// Its addresses; mostly one.
    pub(crate) addresses: &'a [IpAddr],
    /// The pod's namespace cannot be relied on to end, and the link with it.
    pub(crate) link_too: bool,
}

/// Takes it from the kernel, and then gives the addresses back: one whose route stays is not given to another pod. Returns what
/// stayed.
pub(crate) fn attached(
    host: &mut Socket,
    store: Option<&mut Store>,
    v6: bool,
    one: &Attached<'_>,
    log: &Log,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for address in one.addresses {
        wrong.extend(egress::del(host, *address).err().map(|e| e.to_string()));
    }
    if let (true, Some(if_name)) = (one.link_too, &one.owner.if_name) {
        let name = names::host_end(one.network, &one.owner.container, if_name, v6);
        wrong.extend(egress::delete_link(host, &name).err().map(|e| e.to_string()));
    }
    original_chain(v6, &names::chain(one.network, &one.owner.container, v6), log);
    if let (true, Some(store)) = (wrong.is_empty(), store) {
        for address in one.addresses {
            wrong.extend(store.release(*address).err().map(|e| e.to_string()));
        }
    }
    wrong
}

/// The AWS VPC CNI's chain for the pod, where the nft back end of iptables wrote it. What cannot be removed is only logged, as
/// there: the address may be another pod's next, and the chain does the same for that one.
pub(crate) fn original_chain(v6: bool, chain: &str, log: &Log) {
    match egress::remove_original_chain(v6, chain) {
        Ok(true) => log.info(|| format!("removed iptables chain {chain} of the AWS VPC CNI")),
        Ok(false) => {}
        Err(error) => log.warn(|| error.to_string()),
    }
}

/// Takes the node's table away when the last address was given back; returns what stayed. The kernel is asked too: should the
/// files be lost, running pods keep their egress.
pub(crate) fn table_of_nobody(host: &mut Socket, store: &Store, range: &Range) -> Vec<String> {
    let mut nobody = || -> Result<bool, String> {
        let files = store.entries().map_err(|e| e.to_string())?;
        if files.iter().any(|(address, _)| range.has(*address)) {
            return Ok(false);
        }
        let routes = egress::has_routes_into(host, range.net()).map_err(|e| e.to_string())?;
        Ok(!routes)
    };
    match nobody() {
        Ok(false) => Vec::new(),
        Ok(true) => {
            let removed = egress::remove_snat(range.is_v6());
            removed.err().map(|e| e.to_string()).into_iter().collect()
        }
        Err(error) => vec![error],
    }
}
