//! What IMDS cannot push and EC2 may change under us: the VPC's CIDRs and the primary interface's security groups, read
//! every 30 s. This is all an idle node asks anybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use vpcnet_cloud::{Ec2, Imds, ImdsError, InterfaceChange};
use vpcnet_ipam::{InterfaceFacts, InterfaceKind};

use crate::core::CoreHandle;
use crate::published::Publisher;
use crate::snat::Snat;

/// The original's figure.
const EVERY: Duration = Duration::from_secs(30);

/// What the loop needs.
pub struct Refresh {
    /// Whom to ask.
    pub imds: Imds,
    /// Who changes groups.
    pub ec2: Ec2,
    /// Who keeps what is learnt.
    pub core: CoreHandle,
    /// Who tells it.
    pub publisher: Publisher,
    /// Who puts it in force.
    pub snat: Arc<Snat>,
    /// MAC of the primary interface.
    pub mac: String,
    /// Interfaces follow the primary's groups. Not where nothing is changed at EC2, nor with custom networking, whose ENIConfig
    /// may name others.
    pub follow_groups: bool,
    /// Ask at once: what is known comes from an earlier life.
    pub at_once: bool,
}

impl Refresh {
    /// Runs for the agent's life.
    pub async fn run(self) {
        let first = if self.at_once {
            Instant::now()
        } else {
            Instant::now() + EVERY
        };
        let mut ticks = interval_at(first, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.once().await {
                Ok(()) if failing => {
                    tracing::info!("IMDS answers again");
                    failing = false;
                }
                Ok(()) => {}
                // Said once: the last known values stay in force, and nobody is worse off.
                Err(error) if !failing => {
                    tracing::warn!(%error, "IMDS not read; the last known CIDRs and security groups stay");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    async fn once(&self) -> Result<(), ImdsError> {
        if self.publisher.get().ipv6 {
            let cidrs = self.imds.vpc_ipv6_cidrs(&self.mac).await?;
            self.new_ipv6_cidrs(cidrs);
        } else {
            let cidrs = self.imds.vpc_ipv4_cidrs(&self.mac).await?;
            self.new_cidrs(cidrs).await;
        }
        let groups = self.imds.security_groups(&self.mac).await?;
        self.new_groups(groups).await;
        Ok(())
    }

    fn new_ipv6_cidrs(&self, cidrs: Vec<Ipv6Net>) {
        if same(&self.publisher.get().vpc_ipv6_cidrs, &cidrs) {
            return;
        }
        tracing::info!(?cidrs, "the VPC's IPv6 CIDRs changed");
        let copy = cidrs.clone();
        self.core.learnt(move |facts| facts.vpc_ipv6_cidrs = copy);
        self.publisher.change(|p| p.vpc_ipv6_cidrs = cidrs);
    }

    async fn new_cidrs(&self, cidrs: Vec<Ipv4Net>) {
        let known = self.publisher.get();
        if !same(&known.vpc_cidrs, &cidrs) {
            tracing::info!(?cidrs, "the VPC's CIDRs changed");
            let copy = cidrs.clone();
            self.core.learnt(move |facts| facts.vpc_cidrs = copy);
            self.publisher.change(|p| p.vpc_cidrs.clone_from(&cidrs));
        }
        // Also when they did not change: a table that could not be written last time is tried again.
        self.snat.ensure(&cidrs).await;
    }

    /// Interfaces made here get the primary's groups, so a change of those is carried over.
    async fn new_groups(&self, groups: Vec<String>) {
        let look = self.core.look(|view| {
            let enis: Vec<String> = view
                .pool
                .into_iter()
                .flat_map(|pool| pool.interfaces())
                .filter(takes_groups)
                .map(|i| i.id.0)
                .collect();
            (view.facts.groups.clone(), view.facts.applied_groups.clone(), enis)
        });
        let Ok((known, applied, enis)) = look.await else {
            return;
        };
        if !same(&known, &groups) {
            let copy = groups.clone();
            self.core.learnt(move |facts| facts.groups = copy);
        }
        if same(&applied, &groups) || !self.follow_groups {
            return;
        }
        tracing::info!(
            ?groups,
            interfaces = enis.len(),
            "the primary interface's security groups changed"
        );
        for eni in enis {
            let change = InterfaceChange::Groups(groups.clone());
            if let Err(error) = self.ec2.modify_network_interface_attribute(&eni, &change).await {
                // Not taken as done: the next round tries all of them again.
                tracing::warn!(%eni, %error, "security groups not changed");
                return;
            }
        }
        self.core.learnt(move |facts| facts.applied_groups = groups);
    }
}

/// Whether an interface follows the primary one's security groups.
pub(crate) fn takes_groups(interface: &InterfaceFacts) -> bool {
    interface.managed && !interface.is_primary && interface.kind == InterfaceKind::Interface
}

/// Order is IMDS's and means nothing.
fn same<T: Ord>(a: &[T], b: &[T]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}
