//! The kernel's side of vpcnet: links, addresses, routes, rules, neighbours, sysctls, network namespaces and one
//! nftables table. Callers hand in wanted state; this crate makes the smallest set of changes that brings it
//! about, and undoes its changes where a step fails.
//!
//! It must not know EC2, Kubernetes or the names of pods. Everything here blocks; the agent calls it from
//! blocking threads, the CNI plugin from its only one.
//!
//! | module | for |
//! |---|---|
//! | [`netns`] | network namespaces by path |
//! | [`netlink`] | requests to rtnetlink, in batches, with the kernel's own words in the errors |
//! | [`pod`] | a pod's interfaces: add, delete, check (the CNI plugin) |
//! | [`egress`] | a pod's way out in the other family: link, addresses, translation (the egress plugin) |
//! | [`host`] | the node's own links, routes, rules and sysctls (the agent) |
//! | [`conntrack`] | the connections that the kernel tracks |
//! | [`earlier`] | what connections and pods of an earlier setting still need |
//! | [`observe`] | what the kernel shows of pods, to rebuild their owners from |
//! | [`watch`] | links, routes and rules coming and going |
//! | `nft` | the SNAT and mark table (feature `nft`) |
//! | `original` | what amazon-vpc-cni-k8s leaves in the packet filter, and taking it away (feature `nft`) |
//! | `handback` | taking our table away once the original's rules are in force (feature `nft`) |
//! | [`sysctl`] | `/proc/sys` |

#![deny(unsafe_code)] // but for one ioctl in `netns`

pub mod conntrack;
pub mod earlier;
pub mod egress;
#[cfg(feature = "nft")]
pub mod handback;
pub mod host;
mod mac;
pub mod netlink;
pub mod netns;
#[cfg(feature = "nft")]
mod nfnetlink;
#[cfg(feature = "nft")]
pub mod nft;
pub mod observe;
#[cfg(feature = "nft")]
pub mod original;
pub mod pod;
mod randomize;
#[cfg(feature = "nft")]
mod run;
pub mod sysctl;
pub mod watch;

pub use mac::{Mac, ParseMacError};
pub use randomize::Randomize;
