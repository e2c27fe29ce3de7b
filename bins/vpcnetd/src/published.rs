//! What the servers tell of the agent without asking the pool: one value, replaced as a whole when it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use tokio::sync::watch;

use crate::state::Machine;

/// The value.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The pool is there and the host is set up for it.
    pub ready: bool,
    /// The instance, as far as known.
    pub machine: Machine,
    /// CIDRs of the VPC.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Its IPv6 CIDRs, where pods have IPv6 addresses.
    pub vpc_ipv6_cidrs: Vec<Ipv6Net>,
    /// Pods have IPv6 addresses.
    pub ipv6: bool,
    /// What else is not SNATed.
    pub exclude_snat: Vec<Ipv4Net>,
    /// No SNAT on this node.
    pub external_snat: bool,
    /// `ENABLE_MULTI_NIC`: pods may have an address of every network card.
    pub multi_nic: bool,
    /// Network policy mode, told to plugins.
    pub policy_mode: String,
    /// What is wrong with the host's rules or tables and could not be repaired; empty when nothing is.
    pub impaired: String,
    /// What an operator should put right.
    pub complaints: Complaints,
    /// Kubernetes.
    pub kubernetes: Kubernetes,
    /// What is kept of earlier settings, for whom, a sentence each.
    pub kept: Vec<String>,
    /// What of amazon-vpc-cni-k8s was taken over at the start, a sentence each.
    pub taken_over: Vec<String>,
    /// Why not all of it was; empty when it was.
    pub takeover_error: String,
    /// Parts of the node's network that somebody else keeps changing, so that they are put right ever more seldom.
    pub contested: Vec<String>,
}

/// What an operator should put right, a sentence each, by who found it.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    /// Of `VPCNET_NODE_FILE`.
    pub node_file: Option<String>,
    /// Of the subnets for new interfaces.
    pub subnets: Vec<String>,
    /// Actions of EC2 that were last refused for lack of a right.
    pub rights: BTreeSet<String>,
    /// Of what the node's objects say, and of the way to them.
    pub cluster: Vec<String>,
}

/// How it stands with the API server.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Kubernetes {
    /// Where it is; empty where there is none.
    pub server: String,
    /// What is not followed now, and why; what it said last holds.
    pub away: Vec<String>,
}

impl Complaints {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = String> + '_ {
        let right = |action: &String| {
            format!("EC2 refuses ec2:{action}: the role of this node, or of this pod, lacks it in IAM")
        };
        let rights = self.rights.iter().map(right);
        let told = self.node_file.iter().chain(&self.subnets).chain(&self.cluster);
        told.cloned().chain(rights)
    }
}

impl Published {
    /// IPv6 CIDRs as an ADD's reply lists them.
    #[must_use]
    pub fn reply_ipv6_cidrs(&self) -> Vec<String> {
        let all = self.vpc_ipv6_cidrs.iter().filter(|_| self.ipv6);
        all.map(ToString::to_string).collect()
    }

    /// CIDRs as an ADD's reply lists them: with the exclusions unless SNAT is done elsewhere. None where pods have IPv6 addresses.
    #[must_use]
    pub fn reply_cidrs(&self) -> Vec<String> {
        if self.ipv6 {
            return Vec::new();
        }
        let exclusions = self.exclude_snat.iter().filter(|_| !self.external_snat);
        self.vpc_cidrs
            .iter()
            .chain(exclusions)
            .map(ToString::to_string)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_names_the_cidrs_of_the_family_that_pods_have() {
        let mut published = Published {
            vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            vpc_ipv6_cidrs: vec!["2001:db8::/56".parse().unwrap()],
            exclude_snat: vec!["192.0.2.0/24".parse().unwrap()],
            ..Published::default()
        };
        assert_eq!(published.reply_cidrs(), ["10.0.0.0/16", "192.0.2.0/24"]);
        assert_eq!(published.reply_ipv6_cidrs(), Vec::<String>::new());
        published.ipv6 = true;
        assert_eq!(published.reply_cidrs(), Vec::<String>::new());
        assert_eq!(published.reply_ipv6_cidrs(), ["2001:db8::/56"]);
    }
}

/// Where it is changed.
#[derive(Clone)]
pub struct Publisher(Arc<watch::Sender<Arc<Published>>>);

impl Publisher {
    /// Starts with `first`.
    #[must_use]
    pub fn new(first: Published) -> Self {
        Self(Arc::new(watch::channel(Arc::new(first)).0))
    }

    /// For a server.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.0.subscribe()
    }

    /// Changes it.
    pub fn change(&self, change: impl FnOnce(&mut Published)) {
        self.0.send_modify(|value| change(Arc::make_mut(value)));
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> Arc<Published> {
        self.0.borrow().clone()
    }
}
