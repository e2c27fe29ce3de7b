//! What IMDS cannot push and EC2 may change under us: the VPC's CIDRs and the primary interface's security groups, read
//! every 30 s and when the pool asks EC2 for something. The former is all an idle node asks anybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use vpcnet_cloud::{Ec2, ErrorClass, Imds, ImdsError, InterfaceChange};
use vpcnet_ipam::{EniId, InterfaceFacts, InterfaceKind};

use crate::core::CoreHandle;
use crate::published::Publisher;
use crate::snat::Snat;

/// The original's figure.
const EVERY: Duration = Duration::from_secs(30);
/// Actions that begin together share a reading,
const GATHER: Duration = Duration::from_millis(20);
/// and however many there are, readings for them are so far apart.
const CALM: Duration = Duration::from_secs(1);

/// Asks for a reading before its time, from wherever something happens that should not rest on old values.
#[derive(Default)]
pub struct Causes(Notify);

impl Causes {
    /// Soon, and once for all who ask together.
    pub fn ask(&self) {
        self.0.notify_one();
    }

    /// Until somebody asks, and those who ask with it have asked too; not before `not_before`.
    async fn asked(&self, not_before: Instant) {
        self.0.notified().await;
        tokio::time::sleep_until(not_before.max(Instant::now() + GATHER)).await;
        // Whoever asked meanwhile is served by the same reading.
        let mut others = std::pin::pin!(self.0.notified());
        others.as_mut().enable();
    }
}

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
    /// Interfaces follow the primary's groups.
    pub follow_groups: bool,
    /// Ask at once: what is known comes from an earlier life.
    pub at_once: bool,
    /// Who asks besides the clock.
    pub causes: Arc<Causes>,
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
        let mut calm = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.causes.asked(calm) => {}
            }
            calm = Instant::now() + CALM;
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
        let known = self.core.look(|view| view.facts.groups.clone());
        let Ok(known) = known.await else {
            return;
        };
        if !same(&known, &groups) {
            // Before the interfaces are looked at: one that is made meanwhile is compared with these (`made`).
            let copy = groups.clone();
            self.core.learnt(move |facts| facts.groups = copy);
        }
        let look = self.core.look(|view| {
            let all = view.pool.into_iter().flat_map(|pool| pool.interfaces());
            let enis: Vec<EniId> = all.filter(takes_groups).map(|i| i.id).collect();
            let facts = view.facts;
            (facts.applied_groups.clone(), facts.behind.clone(), enis)
        });
        let Ok((applied, behind, enis)) = look.await else {
            return;
        };
        let changed = !same(&applied, &groups);
        if !self.follow_groups || !changed && behind.is_empty() {
            return;
        }
        let lacking: Vec<EniId> = enis
            .into_iter()
            .filter(|eni| changed || behind.contains(eni))
            .collect();
        tracing::info!(
            ?groups,
            interfaces = lacking.len(),
            "interfaces follow the primary one's security groups"
        );
        for eni in lacking {
            let change = InterfaceChange::Groups(groups.clone());
            match self.ec2.modify_network_interface_attribute(&eni.0, &change).await {
                Ok(()) => {}
                Err(error) if error.class == ErrorClass::Gone => {}
                Err(error) => {
                    // Not taken as done: the next round tries all of them again.
                    tracing::warn!(%eni, %error, "security groups not changed");
                    return;
                }
            }
            self.core.learnt(move |facts| {
                facts.behind.remove(&eni);
            });
        }
        // What is left was deleted since it was made.
        self.core.learnt(move |facts| {
            facts.behind.retain(|eni| !behind.contains(eni));
            facts.applied_groups = groups;
        });
    }
}

/// An interface was made, with these groups, and is the pool's. If the primary one has others by now it is to follow.
pub(crate) fn made(core: &CoreHandle, causes: &Arc<Causes>, eni: EniId, groups: Vec<String>) {
    let causes = Arc::clone(causes);
    core.learnt(move |facts| {
        if !same(&facts.groups, &groups) {
            facts.behind.insert(eni);
            causes.ask();
        }
    });
}

/// Whether an interface follows the primary one's security groups.
pub(crate) fn takes_groups(interface: &InterfaceFacts) -> bool {
    interface.managed && !interface.is_primary && interface.kind == InterfaceKind::Interface
}

/// Order is IMDS's and means nothing.
fn same<T: Ord>(a: &[T], b: &[T]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}
