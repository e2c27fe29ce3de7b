//! Getting to the pool: from our own files and the kernel when they know this machine, which takes milliseconds and asks
//! nobody; otherwise from IMDS, for as long as it takes.

mod cold;
mod listing;
mod veths;
mod warm;

use std::collections::BTreeMap;
use std::sync::Arc;

use vpcnet_cloud::{CredentialProvider, CredentialSource, Ec2, Ec2Config, Imds, process_environment};
use vpcnet_ipam::{Identity, InterfaceFacts, KernelEvidence, RestoreNote, SubnetId};
use vpcnet_linux::netlink::Socket;

use crate::aims::Aims;
use crate::config::Config;
use crate::core::CoreHandle;
use crate::executor::{Cloud, Ownership};
use crate::host::Host;
use crate::leftovers::Leftovers;
use crate::metrics::Metrics;
use crate::newcomers::Newcomers;
use crate::news::Newsroom;
use crate::observer::Calls;
use crate::published::Publisher;
use crate::refresh::Causes;
use crate::snat::Snat;
use crate::state::{Facts, Machine};
use crate::zone::ZoneWatch;

pub use cold::cold;
pub use listing::relist;
pub use veths::{all_alive, look_again};
pub use warm::{verify, warm};

/// What both ways need.
#[derive(Clone)]
pub struct Surroundings {
    /// Settings.
    pub config: Arc<Config>,
    /// What the pool is to aim at.
    pub aims: Arc<Aims>,
    /// Interfaces that others attach.
    pub newcomers: Arc<Newcomers>,
    /// Who gets the pool.
    pub core: CoreHandle,
    /// IMDS.
    pub imds: Imds,
    /// The node's network.
    pub host: Host,
    /// What is kept of earlier settings.
    pub leftovers: Arc<Leftovers>,
    /// Asks for IMDS's values to be read again.
    pub causes: Arc<Causes>,
    /// SNAT.
    pub snat: Arc<Snat>,
    /// What servers tell.
    pub publisher: Publisher,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What people in the cluster should read.
    pub news: Newsroom,
}

impl Surroundings {
    /// The EC2 client for the region.
    ///
    /// # Errors
    /// If an endpoint or a credential setting cannot be used.
    pub fn ec2(&self, region: &str) -> Result<Ec2, vpcnet_cloud::ConfigError> {
        let cloud = &self.config.cloud;
        let region = cloud.region.as_deref().unwrap_or(region);
        let observer = Arc::new(Calls {
            metrics: Arc::clone(&self.metrics),
            publisher: Some(self.publisher.clone()),
            news: self.news.clone(),
        });
        let source = CredentialSource::from_environment(&process_environment, &self.imds, region)?;
        let provider = CredentialProvider::with_observer(source, observer.clone())?;
        let mut config = Ec2Config::new(region, provider);
        config.endpoint.clone_from(&cloud.ec2_endpoint);
        config.http_timeout = cloud.timeout;
        config.observer = observer;
        if let Some(version) = &cloud.version {
            config.user_agent = format!(
                "vpcnet/{} amazon-vpc-cni-k8s/{version}",
                env!("CARGO_PKG_VERSION")
            );
        }
        Ec2::new(config)
    }

    /// What executors work with, once the interfaces are known.
    #[must_use]
    pub fn cloud(&self, ec2: Ec2, machine: &Machine, interfaces: &[InterfaceFacts]) -> Cloud {
        let primary = interfaces.iter().find(|i| i.is_primary);
        let subnets: BTreeMap<_, _> = interfaces
            .iter()
            .map(|i| (i.subnet.clone(), i.subnet_cidr))
            .collect();
        let zone = ZoneWatch {
            ec2: ec2.clone(),
            machine: machine.clone(),
            aims: Arc::clone(&self.aims),
            core: self.core.clone(),
            publisher: self.publisher.clone(),
            turn: tokio::sync::Mutex::default(),
        };
        Cloud {
            ec2,
            zone: Arc::new(zone),
            around: self.clone(),
            primary_subnet: primary.map_or_else(|| SubnetId(String::new()), |p| p.subnet.clone()),
            ownership: self.ownership(machine),
            machine: machine.clone(),
            leaks: crate::executor::Leaks::default(),
            subnets: subnets.into(),
        }
    }

    /// Interfaces follow the primary one's security groups. Not where nothing is changed at EC2, nor with custom networking, whose
    /// ENIConfig may name others.
    pub(crate) fn follows_groups(&self) -> bool {
        self.config.pool.provisioning && self.config.interfaces.custom_networking.is_none()
    }

    fn ownership(&self, machine: &Machine) -> Ownership {
        Ownership {
            instance_id: machine.instance_id.clone(),
            manage_untagged: self.config.cloud.manage_untagged,
            multi_nic: self.config.uses_all_cards(),
        }
    }

    /// Tags of the original, so that its scoped-down IAM policies and its clean-up apply to what is made here.
    pub(crate) fn tags(&self, machine: &Machine) -> BTreeMap<String, String> {
        let cloud = &self.config.cloud;
        let mut tags = cloud.tags.clone();
        tags.insert(crate::executor::INSTANCE_TAG.into(), machine.instance_id.clone());
        if let Some(cluster) = &cloud.cluster {
            tags.insert(crate::executor::CLUSTER_TAG.into(), cluster.clone());
            tags.insert("eks:eni:owner".into(), "amazon-vpc-cni".into());
        }
        tags
    }

    /// Tells the servers what was found, and that pods can be served.
    pub fn publish(&self, facts: &Facts) {
        self.publisher.change(|p| {
            p.machine = facts.machine.clone();
            p.vpc_cidrs.clone_from(&facts.vpc_cidrs);
            p.vpc_ipv6_cidrs.clone_from(&facts.vpc_ipv6_cidrs);
            p.ready = true;
        });
        let took = crate::clock::since_start();
        self.metrics.ready_seconds.set(took.as_secs_f64());
        let watching = self
            .metrics
            .kubernetes_watching
            .with_label_values(&["nodes"])
            .get()
            == 1;
        self.metrics.drop_in.started(took, watching);
    }
}

/// What was odd while the pool was restored, as sentences; the owners that had to be rebuilt are also counted.
fn tell(notes: &[RestoreNote], metrics: &Metrics) -> Vec<String> {
    let rebuilt = notes
        .iter()
        .filter(|n| matches!(n, RestoreNote::Rebuilt { .. }))
        .count();
    metrics
        .rebuilt_owners
        .set(i64::try_from(rebuilt).unwrap_or(i64::MAX));
    notes.iter().map(ToString::to_string).collect()
}

/// What the kernel shows of pods. `prefixes`: what the names of their host ends may begin with, besides the default.
///
/// # Errors
/// Netlink's.
pub fn kernel_evidence(prefixes: &[String]) -> Result<KernelEvidence, vpcnet_linux::netlink::NetlinkError> {
    let prefixes: Vec<&str> = ["eni", "vlan"]
        .into_iter()
        .chain(prefixes.iter().map(String::as_str))
        .collect();
    let seen = vpcnet_linux::observe::pods(&mut Socket::open()?, &prefixes)?;
    Ok(KernelEvidence {
        pods: seen
            .routes
            .into_iter()
            .map(|r| vpcnet_ipam::HostRoute {
                address: r.address,
                host_veth: r.host_veth,
            })
            .collect(),
        from_rules: seen
            .from_rules
            .into_iter()
            .map(|r| vpcnet_ipam::FromRule {
                address: r.address,
                table: r.table,
            })
            .collect(),
        veths: seen.veths,
    })
}

/// Whose pool it is.
fn identity(machine: &Machine, token_salt: &str) -> Identity {
    Identity {
        instance_id: machine.instance_id.clone(),
        token_salt: token_salt.to_owned(),
        boot_id: boot_id(),
    }
}

/// The kernel's name for this boot; empty where `/proc` does not show it, which makes every boot the same one.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|t| t.trim().to_owned())
        .unwrap_or_default()
}
