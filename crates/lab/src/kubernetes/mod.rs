//! A real Kubernetes in the lab: upstream's programs, each where it runs on AWS.
//!
//! The control plane is an instance of the VPC beside the nodes; each node runs its own containerd, kubelet and kube-proxy, by
//! the side of the lab's network, in namespaces that look like a whole machine ([`machine`], [`init`]). [`plan`] decides, purely, what
//! every program is told; [`cluster`] starts them and keeps hold of them. What it must not know: which CNI is going to
//! run. A node has none, and is not Ready, until something writes a network configuration into its `/etc/cni/net.d`.

mod cgroups;
pub(crate) mod cluster;
pub mod cni;
pub(crate) mod forward;
pub(crate) mod init;
pub mod machine;
mod mounts;
pub mod plan;
pub mod programs;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use cgroups::Group;

/// The instance that runs the control plane.
pub const CONTROL_PLANE: &str = "control-plane";

/// Its API server's port, as on EKS.
pub const API_PORT: u16 = 443;

/// Which backend kube-proxy uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// As EKS has it.
    #[default]
    Iptables,
    /// nftables.
    Nftables,
    /// No kube-proxy at all: Services are somebody else's work.
    None,
}

impl ProxyMode {
    /// As kube-proxy and the command line call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::None => "none",
        }
    }
}

/// The cluster, as `lab status` tells of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KubernetesStatus {
    /// Kubernetes' version, `v1.34.4`.
    pub version: String,
    /// The API server's address in the VPC.
    pub address: Ipv4Addr,
    /// A kubeconfig file for people and programs on this machine, with all rights.
    pub kubeconfig: String,
    /// The API server for them.
    pub server: String,
    /// kube-proxy's backend.
    pub proxy: ProxyMode,
}

/// What Kubernetes knows of one machine of the lab.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MachineStatus {
    /// The node's name in Kubernetes, its private DNS name; the control plane is no node.
    pub node: Option<String>,
    /// The process that is pid 1 to all that runs on it, as seen from outside.
    pub init: i32,
    /// Its programs.
    pub components: Vec<init::Component>,
}

/// Removes what a cluster has left on this computer, after everything that ran in it has ended.
pub(crate) fn remove(groups: &[Group], disks: &[PathBuf]) -> Result<(), LabError> {
    cgroups::remove(groups)?;
    for disk in disks {
        match fs::remove_dir_all(disk) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(LabError::file("remove", disk)(e)),
            _ => {}
        }
        // Shared with other labs; the last one takes it along.
        let _ = disk.parent().map(fs::remove_dir);
    }
    Ok(())
}
