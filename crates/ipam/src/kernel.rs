//! What the kernel shows of pods that run: the evidence that outlives every file.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A host route to a pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostRoute {
    /// The pod's address (/32 or /128).
    pub address: IpAddr,
    /// The host end of its veth pair.
    pub host_veth: String,
}

/// A rule that sends what comes from a pod to its interface's table (priority 1536). Pods on the primary interface have none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FromRule {
    /// The pod's address.
    pub address: IpAddr,
    /// The table of its interface.
    pub table: u32,
}

/// All of it, read once at start. It must be complete: an owner whose veth is not in it is given up after a grace.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KernelEvidence {
    /// Host routes to pods.
    pub pods: Vec<HostRoute>,
    /// Rules from pods.
    pub from_rules: Vec<FromRule>,
    /// Host names of all links that may be a pod's (the original looks at all links).
    pub veths: Vec<String>,
}

impl KernelEvidence {
    /// The table that traffic from `address` is sent to, if a rule says so.
    #[must_use]
    pub fn table_of(&self, address: IpAddr) -> Option<u32> {
        self.from_rules
            .iter()
            .find(|r| r.address == address)
            .map(|r| r.table)
    }
}
