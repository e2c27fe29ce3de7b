//! A pod's way out in the family that it has no address of: a second link of its own, an address that means something on this
//! node alone, and source NAT to the node's address. What the egress plugin does to the kernel, and nothing else.
//!
//! | | IPv4 for pods of an IPv6 cluster | IPv6 for pods of an IPv4 cluster |
//! |---|---|---|
//! | pod's address | of 169.254.172.0/22, with its mask | of fd00::ac:0/118, as /128 |
//! | gateway | 169.254.172.1, which each host end has | the host end's link-local address |
//! | pod's routes | the gateway, the range and the default by it | the default by it |
//! | in the pod besides | | IPv6 is off on the pod's own interface |
//! | host | a route to the address by the host end | the same |
//!
//! Links, addresses and routes are those of the AWS VPC CNI. Neighbours on both sides are permanent, so that nobody has to ask
//! for them, and no address waits to be checked for duplicates: nobody else is on the link.
//!
//! The table that translates is the node's, not a pod's: see [`Snat`].

mod add;
mod check;
mod del;
mod error;
mod nf;
mod original;
mod rules;
mod snat;

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::Mac;
use crate::netlink::{Device, MAIN, Neighbour, PROTO_BOOT, Route, Scope};

pub use add::{add, prepare};
pub use check::check;
pub use del::{del, delete_link, has_route, has_routes_into};
pub use error::{EgressError, Step};
pub use original::{OriginalChain, original_chains, remove_original_chain};
pub use rules::Snat;
pub use snat::{
    Ensured, TABLE, check as check_snat, ensure as ensure_snat, is_there, observe as observe_snat,
    remove as remove_snat,
};

/// The link a pod shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressLink {
    /// Name of the host's end. At most 15 bytes.
    pub host_name: String,
    /// MAC of the host's end; IPv6: the gateway's address is made of it. Not looked at by [`check()`].
    pub host_mac: Mac,
    /// Name in the pod: `v4if0`, `v6if0`.
    pub name: String,
    /// MAC in the pod. Not looked at by [`check()`].
    pub mac: Mac,
    /// Bytes, both ends.
    pub mtu: u32,
    /// The pod's address, and the range it is of.
    pub address: IpNet,
    /// The range's gateway; in IPv6 nobody has it.
    pub gateway: IpAddr,
    /// The pod's own interface, which is to have no IPv6 beside an IPv6 egress link.
    pub beside: String,
}

impl EgressLink {
    fn v6(&self) -> bool {
        self.address.addr().is_ipv6()
    }

    /// As the pod's link has it. An IPv6 address has no subnet: there is nobody else on the link.
    fn in_pod(&self) -> IpNet {
        match self.address {
            IpNet::V4(_) => self.address,
            IpNet::V6(v6) => IpAddr::V6(v6.addr()).into(),
        }
    }

    /// Whom the pod sends to.
    fn next_hop(&self, host_mac: Mac) -> IpAddr {
        if self.v6() {
            link_local(host_mac).into()
        } else {
            self.gateway
        }
    }

    /// The pod's routes by its link.
    fn pod_routes(&self, device: &Device, host_mac: Mac) -> Vec<Route> {
        let gateway = self.next_hop(host_mac);
        let mut routes = Vec::with_capacity(3);
        if !self.v6() {
            let source = Some(self.address.addr());
            routes.push(Route {
                source,
                ..Route::on_link(gateway.into(), device.clone(), MAIN)
            });
            routes.push(Route {
                to: self.address.trunc(),
                gateway: Some(gateway),
                device: Some(device.clone()),
                table: MAIN,
                scope: Scope::Universe,
                onlink: false,
                source,
                protocol: PROTO_BOOT,
            });
        }
        routes.push(Route::default_by(gateway, device.clone(), MAIN, false));
        routes
    }

    /// The host's route to the pod.
    fn host_route(&self, device: Device) -> Route {
        host_route(self.address.addr(), Some(device))
    }

    fn neighbour_in_pod(&self, device: Device, host_mac: Mac) -> Neighbour {
        Neighbour {
            device,
            address: self.next_hop(host_mac),
            mac: host_mac,
            permanent: true,
        }
    }

    fn neighbour_on_host(&self, device: Device, mac: Mac) -> Neighbour {
        Neighbour {
            device,
            address: self.address.addr(),
            mac,
            permanent: true,
        }
    }
}

fn host_route(to: IpAddr, device: Option<Device>) -> Route {
    Route {
        to: to.into(),
        gateway: None,
        device,
        table: MAIN,
        scope: Scope::Link,
        onlink: false,
        source: None,
        protocol: PROTO_BOOT,
    }
}

/// The link-local address that the kernel gives to a link with this MAC (RFC 4291, appendix A: modified EUI-64).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    let pair = |high: u16, low: u16| high << 8 | low;
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        pair(a ^ 2, b),
        pair(c, 0xff),
        pair(0xfe, d),
        pair(e, f),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_as_in_the_rfc() {
        // RFC 4291, appendix A: 34-56-78-9A-BC-DE gives 3656:78FF:FE9A:BCDE.
        let mac = Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
        assert_eq!(link_local(mac).to_string(), "fe80::3656:78ff:fe9a:bcde");
    }
}
