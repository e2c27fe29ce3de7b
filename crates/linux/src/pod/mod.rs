//! A pod's interfaces: what the CNI plugin does to the kernel, and nothing else.
//!
//! Per interface a veth pair: the pod's end has the address as /32 (or /128), a default route by a gateway that nobody
//! has (169.254.1.1) and a permanent neighbour entry that maps it to the host end's MAC. The host end has no address; the
//! host's main table leads to the pod, and rules choose the pod's way out:
//!
//! | rule | when |
//! |---|---|
//! | 512: to the pod → main | always |
//! | 1536: from the pod → the ENI's table | the ENI is not the primary |
//! | 1 (inside the pod): from the address → table i | interfaces after the first |
//!
//! Numbers, scopes and protocols are those of the AWS VPC CNI, whose tools and whose DEL work on these pods.
//!
//! The cost of an ADD does not depend on how many pods there are: no list is read (see [`add()`]).

mod add;
mod check;
mod del;
mod error;
mod inspect;
mod keep;
mod validate;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::Mac;
use crate::netlink::{Device, MAIN, Rule};

pub use add::{add, add_by};
pub use check::{Finding, check};
pub use del::del;
pub use error::{PodError, Step};
pub use inspect::{Must, Question, inspect};
pub use keep::{Kept, is_led_astray, keep};

/// Priority of the rule that leads to a pod.
pub const TO_POD_RULE: u32 = 512;
/// Priority of the rule that leads a pod's packets to its ENI's table.
pub const FROM_POD_RULE: u32 = 1536;
/// Priority, inside the pod, of the rule for an interface after the first.
pub const IN_POD_RULE: u32 = 1;

/// One interface a pod shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInterface {
    /// Name of the host's end: `eni` and eleven hexadecimal digits. At most 15 bytes.
    pub host_name: String,
    /// MAC of the host's end, see [`Mac::random_local`]. Not looked at by [`check()`].
    pub host_mac: Mac,
    /// Name in the pod: `eth0`, `mNicIf1`. At most 15 bytes.
    pub name: String,
    /// MAC in the pod. Not looked at by [`check()`].
    pub mac: Mac,
    /// Bytes, both ends; 68 (IPv6: 1280) to 65535.
    pub mtu: u32,
    /// The pod's address.
    pub address: IpAddr,
    /// The gateway is 169.254.1.N (IPv6: fe80::N); 1 for the first interface, i + 1 for interface i. From 2 on the
    /// routes lie in the pod's table N − 1, and a rule in the pod leads there.
    pub gateway_index: u32,
    /// The host's routing table of the ENI; [`MAIN`] for the primary. The AWS VPC CNI also writes 0 and 1 for it.
    pub table: u32,
}

/// An interface that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Index of the host's end, in the host's namespace.
    pub host_index: u32,
    /// Index in the pod's namespace.
    pub index: u32,
}

/// An address a pod no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// The address.
    pub address: IpAddr,
    /// The host's routing table it used, as the agent or the earlier result tells.
    pub table: u32,
}

impl PodInterface {
    fn gateway(&self) -> IpAddr {
        let n = u8::try_from(self.gateway_index).unwrap_or(u8::MAX);
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::new(169, 254, 1, n).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(n)).into(),
        }
    }

    /// The address with its full prefix.
    fn net(&self) -> IpNet {
        self.address.into()
    }

    /// The table of its routes inside the pod.
    fn pod_table(&self) -> u32 {
        if self.gateway_index <= 1 {
            MAIN
        } else {
            self.gateway_index - 1
        }
    }

    fn pod_rule(&self) -> Option<Rule> {
        (self.gateway_index > 1).then(|| Rule::from(IN_POD_RULE, self.address, self.pod_table()))
    }

    /// The rules the host shall have.
    fn host_rules(&self) -> impl Iterator<Item = Rule> {
        let from = (!is_main(self.table)).then(|| Rule::from(FROM_POD_RULE, self.address, self.table));
        std::iter::once(Rule::to(TO_POD_RULE, self.address, MAIN)).chain(from)
    }

    fn host_device(&self, index: u32) -> Device {
        Device::new(index, self.host_name.clone())
    }
}

/// Whether the number means the main table. Older releases of the AWS VPC CNI wrote 1 for it, and 0 stands in answers
/// that leave it out.
pub fn is_main(table: u32) -> bool {
    matches!(table, 0 | 1 | MAIN)
}

/// Any rule at the from-pod priority for this address, whatever its table.
fn any_from_rule(address: IpAddr) -> Rule {
    Rule {
        table: None,
        ..Rule::from(FROM_POD_RULE, address, 0)
    }
}
