//! The subnets of the node's zone: asked of EC2 when somebody needs to know, and not by a timer. That is at a start that remembers
//! nothing, before an interface is made if the last answer is old, and when a subnet turns out to have nothing left.

use std::sync::Arc;
use std::time::Duration;

use vpcnet_cloud::{Ec2, Ec2Error, Filter};
use vpcnet_ipam::{SubnetId, ZoneSubnet};

use crate::aims::{Aims, Zone};
use crate::clock;
use crate::core::CoreHandle;
use crate::executor::Failure;
use crate::published::Publisher;
use crate::state::Machine;

/// An answer that is not older needs no second one before an interface is made.
const FRESH: Duration = Duration::from_secs(300);
/// A subnet that ran dry is counted again this often at most.
const RECOUNT: Duration = Duration::from_secs(60);
/// A start without memory waits this long for the answer, so that no pod gets an address of an excluded subnet meanwhile.
const AT_START: Duration = Duration::from_secs(2);
/// First and longest pause between attempts after such a start.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// Who asks.
pub struct ZoneWatch {
    /// Whom.
    pub ec2: Ec2,
    /// Whose VPC and zone.
    pub machine: Machine,
    /// What comes of it.
    pub aims: Arc<Aims>,
    /// Who plans by it.
    pub core: CoreHandle,
    /// Who tells people.
    pub publisher: Publisher,
    /// One asks for all.
    pub turn: tokio::sync::Mutex<()>,
}

/// Asks EC2.
///
/// # Errors
/// EC2's.
pub async fn describe(ec2: &Ec2, machine: &Machine) -> Result<Zone, Ec2Error> {
    let filters = [
        Filter::new("vpc-id", &machine.vpc_id),
        Filter::new("availability-zone", &machine.availability_zone),
    ];
    let found = ec2.describe_subnets(&[], &filters).await?;
    let mut zone = Zone {
        at_ns: clock::now().wall_ns,
        ..Zone::default()
    };
    for subnet in found {
        let id = SubnetId(subnet.id);
        if let Some(cidr) = subnet.ipv4_cidr {
            zone.cidrs.insert(id.clone(), cidr);
        }
        let tags = subnet.tags.into_iter().map(|t| (t.key, t.value));
        let tags = tags.filter(|(key, _)| ZoneSubnet::is_telling(key)).collect();
        let free_addresses = subnet.available_ip_address_count.unwrap_or_default();
        zone.subnets.insert(id, ZoneSubnet { free_addresses, tags });
    }
    Ok(zone)
}

/// The same at a start, where pods wait for it: not for long.
pub async fn describe_at_start(ec2: &Ec2, machine: &Machine) -> Option<Zone> {
    match tokio::time::timeout(AT_START, describe(ec2, machine)).await {
        Ok(Ok(zone)) => Some(zone),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the zone's subnets are not known yet: only the primary interface's is used");
            None
        }
        Err(_) => {
            tracing::warn!(
                "EC2 does not tell the zone's subnets in time: only the primary interface's is used until it does"
            );
            None
        }
    }
}

impl ZoneWatch {
    /// Asks, unless the last answer is younger. What it says is kept, and told to the pool.
    async fn refresh(&self, young: Duration) -> Result<(), Ec2Error> {
        if !self.aims.needs_zone() || self.machine.vpc_id.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if self.is_younger(young) {
            return Ok(());
        }
        let zone = describe(&self.ec2, &self.machine).await?;
        self.aims.set_zone(zone.clone());
        self.core.learnt(move |facts| facts.zone = Some(zone));
        self.aims.tell(&self.core);
        self.publisher
            .change(|p| p.complaints.subnets = self.aims.complaints());
        Ok(())
    }

    fn is_younger(&self, than: Duration) -> bool {
        let Some(at) = self.aims.zone_at_ns() else {
            return false;
        };
        // A clock that was set back makes it old.
        let age = u64::try_from(clock::now().wall_ns.saturating_sub(at));
        age.is_ok_and(|ns| Duration::from_nanos(ns) < than)
    }

    /// After a start without an answer: until there is one.
    pub async fn until_known(self: Arc<Self>) {
        let mut pause = RETRY.0;
        while self.aims.needs_zone() && self.aims.zone_at_ns().is_none() {
            match self.refresh(Duration::ZERO).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "the zone's subnets are still not known"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Before an interface is made: whether its subnet still is one for it.
    ///
    /// # Errors
    /// [`vpcnet_ipam::FailureClass::Overtaken`] if it is not.
    pub async fn still_fits(&self, subnet: &SubnetId) -> Result<(), Failure> {
        if !self.aims.needs_zone() {
            return Ok(());
        }
        if let Err(error) = self.refresh(FRESH).await {
            tracing::warn!(%error, "the zone's subnets could not be described: what was known holds");
        }
        if self.aims.may_use(subnet) {
            Ok(())
        } else {
            Err(Failure::overtaken(format!(
                "{subnet} is no longer for new interfaces of this node"
            )))
        }
    }

    /// A subnet had nothing left: what do the others have?
    pub async fn recount(self: Arc<Self>) {
        if let Err(error) = self.refresh(RECOUNT).await {
            tracing::debug!(%error, "the zone's subnets could not be counted");
        }
    }
}
