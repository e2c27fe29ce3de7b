//! Subnet discovery (`ENABLE_SUBNET_DISCOVERY`): which subnets of the node's zone are for pods, by their tags.
//!
//! | `kubernetes.io/role/cni` | the primary interface's subnet | another subnet |
//! |---|---|---|
//! | none, or empty | used | not used for new interfaces |
//! | `0` | excluded | excluded |
//! | anything else | used, if it is for this cluster; else excluded | used, if it is for this cluster; else excluded |
//!
//! A subnet is for this cluster if it has no tag `cni.networking.k8s.aws/cluster/…`, or the one of this cluster, or if the cluster's
//! name is not known.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::SubnetId;
use crate::subnets::Subnets;

/// The tag that says whether a subnet is for pods.
pub const ROLE_TAG: &str = "kubernetes.io/role/cni";
/// Begins the tags that say for which clusters.
pub const CLUSTER_TAG: &str = "cni.networking.k8s.aws/cluster/";

/// A subnet of the node's zone, as it was described.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ZoneSubnet {
    /// `AvailableIpAddressCount`.
    pub free_addresses: u32,
    /// Its tags, by key: [`ROLE_TAG`] and those that begin with [`CLUSTER_TAG`]; others mean nothing here.
    pub tags: BTreeMap<String, String>,
}

/// What the tags say of one subnet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Silent,
    ForPods,
    Excluded,
}

impl ZoneSubnet {
    /// Is a tag of this key kept?
    #[must_use]
    pub fn is_telling(key: &str) -> bool {
        key == ROLE_TAG || key.starts_with(CLUSTER_TAG)
    }

    fn role(&self, cluster: Option<&str>) -> Role {
        match self.tags.get(ROLE_TAG).map(String::as_str) {
            None | Some("") => Role::Silent,
            Some("0") => Role::Excluded,
            Some(_) if self.is_for(cluster) => Role::ForPods,
            Some(_) => Role::Excluded,
        }
    }

    fn is_for(&self, cluster: Option<&str>) -> bool {
        let named = || self.tags.keys().filter_map(|key| key.strip_prefix(CLUSTER_TAG));
        cluster.is_none_or(|ours| named().next().is_none() || named().any(|name| name == ours))
    }
}

impl Subnets {
    /// The subnets that may be used, those with the most free addresses first, and the excluded ones. `primary`: the primary
    /// interface's. `cluster`: `CLUSTER_NAME`.
    #[must_use]
    pub fn discovered(
        of_zone: &BTreeMap<SubnetId, ZoneSubnet>,
        primary: &SubnetId,
        cluster: Option<&str>,
    ) -> Self {
        let mut found = Self::default();
        let mut usable: Vec<(&SubnetId, &ZoneSubnet)> = Vec::new();
        for (id, subnet) in of_zone {
            match subnet.role(cluster) {
                Role::Excluded => {
                    found.excluded.insert(id.clone());
                }
                Role::ForPods => usable.push((id, subnet)),
                Role::Silent if id == primary => usable.push((id, subnet)),
                Role::Silent => {}
            }
        }
        usable.sort_by_key(|(id, subnet)| (Reverse(subnet.free_addresses), *id));
        found.candidates = usable.into_iter().map(|(id, _)| id.clone()).collect();
        found
    }
}
